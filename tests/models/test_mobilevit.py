"""MobileViT's parts in numpy, and where the study's changes sit. test_golden.py has whole networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from wastejax.errors import ConfigError
from wastejax.models import MODELS, check, create_model
from wastejax.models.mobilevit import TransformerLayer, fold, unfold


def shapes(**keys):
    model = create_model({"name": "mobilevit", "size": "tiny", **keys}, 30)
    variables = jax.eval_shape(model.module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return {key: leaf.shape for key, leaf in flatten_dict(variables["params"], sep="/").items()}


def test_a_sequence_holds_the_same_corner_of_every_patch():
    x = jnp.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    tokens = unfold(x)
    assert tokens.shape == (8, 6, 1)
    # Rows 0 and 2, columns 0, 2 and 4 of the first image; then the same one column to the right; one row down.
    assert tokens[0].ravel().tolist() == [0, 2, 4, 12, 14, 16]
    assert tokens[1].ravel().tolist() == [1, 3, 5, 13, 15, 17]
    assert tokens[2].ravel().tolist() == [6, 8, 10, 18, 20, 22]
    np.testing.assert_array_equal(fold(tokens, x.shape), x)


def test_transformer_layer():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 8))
    module = TransformerLayer(heads=2)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape), jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    )

    def norm(x, p):
        centered = x - x.mean(-1, keepdims=True)
        return centered / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    qkv = dense(norm(x, params["norm1"]), params["qkv"])
    mixed = np.zeros_like(x)
    for head in range(2):
        q, k, v = (qkv[..., i * 8 + head * 4 : i * 8 + head * 4 + 4] for i in range(3))
        weights = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(4))
        mixed[..., head * 4 : head * 4 + 4] = weights / weights.sum(-1, keepdims=True) @ v
    y = x + dense(mixed, params["proj"])
    hidden = dense(norm(y, params["norm2"]), params["fc1"])
    expected = y + dense(hidden / (1 + np.exp(-hidden)), params["fc2"])
    ours = jax.jit(module.apply)({"params": params}, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)


def test_the_inverted_residual_mixer_has_no_attention_and_no_final_norm():
    params = shapes(mixer="inverted_residual", expansion=3, depths=(1, 2, 4))
    mixers = {key.split("/")[0] + "/" + key.split("/")[1] for key in params if "/mixer" in key}
    assert sorted(mixers) == sorted(
        f"stage{s}_block1/mixer{i}"
        for s, depth in zip((2, 3, 4), (1, 2, 4), strict=True)
        for i in range(depth)
    )
    assert params["stage3_block1/mixer1/expand/conv/kernel"] == (1, 1, 64, 192)
    assert params["stage3_block1/mixer1/depthwise/conv/kernel"] == (3, 3, 1, 192)
    assert not any("qkv" in key or key.startswith("stage3_block1/norm") for key in params)


@pytest.mark.parametrize(
    ("keys", "local", "local_5x5"),
    [
        ({}, (3, 3, 32, 32), None),
        ({"local_kernel": "add_5x5"}, (3, 3, 32, 32), (5, 5, 1, 32)),
        ({"local_kernel": "add_5x5", "local_depthwise": False}, (3, 3, 32, 32), (5, 5, 32, 32)),
        ({"local_kernel": "replace_5x5"}, None, (5, 5, 1, 32)),
    ],
)
def test_local_kernels(keys, local, local_5x5):
    params = shapes(**keys)
    assert params.get("stage2_block1/local/conv/kernel") == local
    assert params.get("stage2_block1/local_5x5/conv/kernel") == local_5x5


def test_image_sizes():
    for size in (64, 128, 256, 320):
        check(MODELS["mobilevit_s"], size)
    with pytest.raises(ConfigError, match=r"config\.data\.image_size: must be a multiple of 64, is 96"):
        check(MODELS["mobilevit_s"], 96)
    for size in (32, 96, 100):
        check(MODELS["mobilevit_s_ir"], size)
    with pytest.raises(ConfigError, match="must be >= 32, is 31"):
        check(MODELS["mobilevit_s_ir"], 31)


@pytest.mark.parametrize("image_size", [32, 96, 100])
def test_the_inverted_residual_mixer_takes_those_sizes(image_size):
    model = create_model(MODELS["mobilevit_xxs_ir"], 30)
    variables = jax.eval_shape(model.module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    features = jax.eval_shape(model.features, variables, jnp.zeros((1, image_size, image_size, 3)))
    assert features.shape == (1, -(-image_size // 32), -(-image_size // 32), 320)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"expansion": 0}, r"config\.model\.expansion: must be an integer >= 1, is 0"),
        ({"expansion": 1.5}, r"config\.model\.expansion: must be an integer >= 1, is 1\.5"),
        ({"depths": (2, 4)}, r"config\.model\.depths: must be three integers, is \(2, 4\)"),
        ({"depths": 3}, r"config\.model\.depths: must be integers >= 1, is 3"),
        ({"depths": (2, 0, 3)}, r"config\.model\.depths: must be integers >= 1"),
        ({"local_kernel": "5x5"}, r"config\.model\.local_kernel: cannot be '5x5'; did you mean 'add_5x5'"),
    ],
)
def test_impossible_mixers_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        check({"name": "mobilevit", "size": "s", **keys}, 256)
