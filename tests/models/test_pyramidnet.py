from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wastejax.errors import ConfigError
from wastejax.models import MODELS, check, create_model
from wastejax.models.layers.conv import Conv
from wastejax.models.layers.norm import BatchNorm
from wastejax.models.pyramidnet import PyramidBlock, blocks_per_stage, widths

# Of the paper's code, for CIFAR-10; and for ImageNet (42.5 M in the paper's table 6). One of each kind of block is
# quick enough to trace every time.
PARAMETERS = [
    ("110_a48", 10, 1_772_706),
    pytest.param("110_a84", 10, 3_904_446, marks=pytest.mark.slow),
    pytest.param("110_a270", 10, 28_485_477, marks=pytest.mark.slow),
    pytest.param("164_a270", 10, 27_216_021, marks=pytest.mark.slow),
    pytest.param("272_a200", 10, 26_210_842, marks=pytest.mark.slow),
    ("101_a360", 1000, 42_455_070),
]


@pytest.mark.parametrize(("size", "classes", "parameters"), PARAMETERS)
def test_parameters_are_the_published(size, classes, parameters):
    module = create_model(
        {**MODELS[f"pyramidnet_{size}"], "lowering": "direct"}, classes
    ).module  # traces faster
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters


def test_widths_by_hand():
    # 16 + 48 k / 54: 16.9, 17.8, 18.7, 19.6, 20.4, ... 64
    grown = widths(16, 48, 54)
    assert grown[:5] == [17, 18, 19, 20, 20]
    assert (len(grown), grown[-1]) == (54, 64)
    assert widths(64, 360, 33)[-1] == 424


def numpy_conv(x, kernel, strides):
    """Returns the convolution of [B, H, W, C] with zeros of half a kernel around it, position by position."""
    side = kernel.shape[0]
    half = side // 2
    x = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    rows = range(0, x.shape[1] - side + 1, strides)
    columns = range(0, x.shape[2] - side + 1, strides)
    return np.stack(
        [
            np.stack(
                [np.einsum("bhwi,hwio->bo", x[:, r : r + side, c : c + side], kernel) for c in columns], 1
            )
            for r in rows
        ],
        1,
    )


def numpy_norm(x, params, stats):
    return (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("strides", [1, 2])
def test_block_equals_numpy(bottleneck, strides):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 5, 6, 8)).astype(
        np.float32
    )  # an odd side: the pool's last window holds one row
    norm = partial(BatchNorm, epsilon=1e-5)
    block = PyramidBlock(partial(Conv, padding="SYMMETRIC"), norm, 10, strides, bottleneck)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32) - 0.3, shapes)
    stats = variables["batch_stats"]
    stats = {name: {"mean": bn["mean"], "var": bn["var"] + 0.5} for name, bn in stats.items()}
    params = variables["params"]

    y = numpy_norm(x, params["bn1"], stats["bn1"])
    plan = [(1, 1), (3, strides), (1, 1)] if bottleneck else [(3, strides), (3, 1)]
    for i, (side, step) in enumerate(plan, 1):
        if i > 1:
            y = np.maximum(y, 0)
        assert params[f"conv{i}"]["kernel"].shape[0] == side
        y = numpy_norm(
            numpy_conv(y, params[f"conv{i}"]["kernel"], step), params[f"bn{i + 1}"], stats[f"bn{i + 1}"]
        )
    shortcut = x
    if strides == 2:
        rows, columns = range(0, 5, 2), range(0, 6, 2)
        shortcut = np.stack(
            [np.stack([x[:, r : r + 2, c : c + 2].mean((1, 2)) for c in columns], 1) for r in rows], 1
        )
    y[..., : x.shape[-1]] += shortcut

    ours = jax.jit(block.apply)({"params": params, "batch_stats": stats}, x)
    assert ours.shape == (2, 3 if strides == 2 else 5, 6 // strides, 40 if bottleneck else 10)
    np.testing.assert_allclose(ours, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("stem", "stride"), [("cifar", 4), ("imagenet", 32)])
def test_total_stride_and_head(stem, stride):
    config = {"name": "pyramidnet", "size": "18_a48", "stem": stem, "depth": 8 if stem == "cifar" else 18}
    model = create_model(config, num_classes=5)
    variables = model.init(jax.random.key(0), 64)
    images = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
    features = jax.jit(model.features)(variables, images)
    start = 16 if stem == "cifar" else 64
    assert features.shape == (2, 64 // stride, 64 // stride, start + 48)
    assert (features >= 0).all()  # batch norm and ReLU end the last stage
    head = variables["params"]["classifier"]
    by_hand = features.mean((1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), by_hand, rtol=1e-4, atol=1e-5)


def test_blocks_per_stage():
    assert blocks_per_stage("cifar", 110, False) == (18, 18, 18)
    assert blocks_per_stage("cifar", 164, True) == (18, 18, 18)
    assert blocks_per_stage("imagenet", 101, True) == (3, 4, 23, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 111}, r"config\.model\.depth: must be 6 n \+ 2 with n >= 1, is 111"),
        ({"stem": "imagenet"}, r"config\.model\.depth: must be one of 18, 34 \(bottleneck=False\), is 110"),
        ({"alpha": 0}, r"config\.model\.alpha: must be an integer >= 1, is 0"),
        ({"stem": "inception"}, r"config\.model\.stem: cannot be 'inception'"),
    ],
)
def test_impossible_networks_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        check({**MODELS["pyramidnet_110_a48"], **changes}, 32)
