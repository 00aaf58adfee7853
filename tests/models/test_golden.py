"""Our networks against timm's and plain torch's, number by number; see golden/make_goldens.py."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from golden.rule import digest, draw, random_images

from wastejax.models import MODELS, create_model
from wastejax.models.layers.blocks import CBAM, EfficientChannelAttention
from wastejax.models.weights.published import convert
from wastejax.models.weights.torch_names import torch_names

RTOL = 1e-4  # of the largest logit
FAST = {"xla_backend_optimization_level": 0}  # half the compile time

XXS = {"name": "mobilevit", "size": "xxs"}

CONFIGS = {
    "efficientnetv2_b0": MODELS["efficientnetv2_b0"],
    "efficientnetv2_s": MODELS["efficientnetv2_s"],
    "efficientnetv2_b0_eca": MODELS["efficientnetv2_b0_eca"],
    "efficientnetv2_b0_glu": MODELS["efficientnetv2_b0_glu"],
    "efficientnet_lite0": MODELS["efficientnet_lite0"],
    "efficientnet_lite1": MODELS["efficientnet_lite1"],
    "efficientnet_lite2": MODELS["efficientnet_lite2"],
    "mobilevit_xxs": MODELS["mobilevit_xxs"],
    "mobilevit_xs": MODELS["mobilevit_xs"],
    "mobilevit_s": MODELS["mobilevit_s"],
    "mobilevit_xxs_ir": MODELS["mobilevit_xxs_ir"],
    "mobilevit_xxs_conv5": MODELS["mobilevit_xxs_conv5"],
    "mobilevit_xxs_conv5_only": {**XXS, "local_kernel": "replace_5x5", "local_depthwise": False},
    "swin_t_w7": MODELS["swin_t_w7"],
    "swin_t_w8": MODELS["swin_t"],
}


def load(name):
    """Returns the arrays of a golden file, and the state dict that its rule draws."""
    golden = np.load(Path(__file__).parents[1] / "golden" / f"{name}.npz")
    shapes = [tuple(map(int, shape.split(","))) if shape else () for shape in golden["shapes"].tolist()]
    names = golden["names"].tolist()
    gain = float(golden["gain"])
    tensors = {name: draw(name, shape, gain) for name, shape in zip(names, shapes, strict=True)}
    return golden, tensors


def images(golden):
    return jnp.asarray(random_images(int(golden["seed"]), tuple(golden["input_shape"].tolist())))


def relative_error(ours, reference):
    assert ours.shape == reference.shape
    return np.abs(np.asarray(ours) - reference).max() / np.abs(reference).max()


# Lite0's golden has every kind of block of these; their tables are in test_efficientnetv2.py.
SLOW = ("efficientnet_lite1", "efficientnet_lite2")
LARGER = ("efficientnetv2_s", "mobilevit_xs", "mobilevit_s")  # of the same blocks as a smaller one


def marked(name):
    marks = [pytest.mark.slow] * (name in SLOW) + [pytest.mark.one_stack] * (name in LARGER)
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", list(map(marked, CONFIGS)))
def test_network(name):
    golden, tensors = load(name)
    model = create_model({**CONFIGS[name], "dropout": 0.0, "drop_path": 0.0}, golden["logits"].shape[1])
    inputs = images(golden)
    # The variables' shapes alone: the converter must fill every one of them.
    shapes = jax.eval_shape(lambda rng: model.module.init(rng, inputs[:1]), jax.random.key(0))
    empty = {key: shapes.get(key, {}) for key in ("params", "batch_stats")}
    variables, notes = convert(tensors, model.config, empty)
    assert notes == ACTIVATION_NOTES.get(name, [])

    assert (
        relative_error(jax.jit(model.apply, compiler_options=FAST)(variables, inputs), golden["logits"])
        < RTOL
    )

    train = jax.jit(partial(model.apply, train=True), compiler_options=FAST)
    logits, statistics = train(variables, inputs)
    assert relative_error(logits, golden["logits_train"]) < RTOL
    check_statistics(golden, tensors, model.config["name"], statistics)


ACTIVATION_NOTES = {
    "efficientnetv2_b0_eca": ["the weights were trained with silu, this network has leaky_relu"],
}


def check_statistics(golden, tensors, family, statistics):
    """Compares updated running statistics; ours lack the factor n / (n - 1) of torch's variance."""
    flat = flatten_dict(statistics)
    paths = {name: path for path, name in torch_names(family, flat, tensors).items()}
    names = [name for name in golden["names"].tolist() if "running_" in name]
    assert len(names) == len(flat)
    for name, reference, n in zip(names, golden["statistics"], golden["n"].tolist(), strict=True):
        ours, old = digest(np.asarray(flat[paths[name]])), digest(tensors[name])
        if name.endswith("var"):
            ours = 0.9 * old + (ours - 0.9 * old) * n / (n - 1)
        np.testing.assert_allclose(ours, reference, rtol=RTOL, atol=RTOL, err_msg=name)


def test_eca():
    golden, tensors = load("eca")
    params = {"kernel": tensors["conv.weight"][0, 0]}
    ours = EfficientChannelAttention().apply({"params": params}, images(golden))
    assert relative_error(np.asarray(ours).transpose(0, 3, 1, 2), golden["logits"]) < 1e-6


def test_cbam():
    golden, tensors = load("cbam")
    params = {
        "channel_reduce": {"kernel": tensors["fc1.weight"].T},
        "channel_expand": {"kernel": tensors["fc2.weight"].T},
        "spatial": {"kernel": tensors["conv.weight"].transpose(2, 3, 1, 0)},
    }
    ours = CBAM().apply({"params": params}, images(golden))
    assert relative_error(np.asarray(ours).transpose(0, 3, 1, 2), golden["logits"]) < 1e-6
