"""Layers against their formulas worked out in numpy, and Flax's own where it has one."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wastejax.models.layers import blocks as layers
from wastejax.models.layers import norm as normalization
from wastejax.models.layers.attention import attend
from wastejax.models.layers.blocks import (
    CBAM,
    Classifier,
    ConvNormAct,
    DropPath,
    EfficientChannelAttention,
    InvertedResidual,
    SqueezeExcite,
    drop_path_rates,
    eca_kernel_size,
    gated_linear_unit,
    linear,
)
from wastejax.models.layers.conv import Conv, conv2d
from wastejax.models.layers.init import he_normal, linear_init, on_host
from wastejax.models.layers.norm import BatchNorm, LayerNorm

FAST = {"xla_backend_optimization_level": 0}  # half the compile time


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def drawn_variables(module, x):
    return jax.tree.map(lambda leaf: draw(*leaf.shape), jax.eval_shape(module.init, jax.random.key(0), x))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def layer(features, kernel=3, strides=1, depthwise=False, activation="none", name=None):
    norm = lambda **keys: BatchNorm(epsilon=1e-3, **keys)  # noqa: E731
    return ConvNormAct(Conv, norm, features, kernel, strides, depthwise, activation, name=name)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_batch_norm_equals_flax(dtype):
    x, g = jnp.asarray(3 * draw(4, 5, 6, 7) + 2), jnp.asarray(draw(4, 5, 6, 7, seed=1), dtype)
    params = {"scale": jnp.linspace(0.5, 2, 7), "bias": jnp.linspace(-1, 1, 7)}
    stats = {"mean": jnp.ones(7), "var": 2 * jnp.ones(7)}

    def train(module):
        def apply(params, x):
            return module.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])

        @partial(jax.jit, compiler_options=FAST)
        def run(params, x, g):
            y, pull, new = jax.vjp(apply, params, x, has_aux=True)
            return y, new, pull(g)

        return run(params, x, g)

    keys = {"momentum": 0.8, "epsilon": 1e-3, "dtype": dtype}
    ours = train(BatchNorm(use_running_average=False, **keys))
    flax = train(nn.BatchNorm(use_running_average=False, **keys))
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    assert ours[0].dtype == dtype
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(flax), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * float(jnp.abs(other).max()))
    evaluate = [
        module(use_running_average=True, **keys).apply({"params": params, "batch_stats": stats}, x)
        for module in (BatchNorm, nn.BatchNorm)
    ]
    np.testing.assert_allclose(*(np.asarray(y, np.float32) for y in evaluate), rtol=tolerance, atol=tolerance)


class FlaxConvNorm(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(12, (1, 1), use_bias=False, dtype=x.dtype, name="conv")(x)
        return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-3, dtype=x.dtype, name="bn")(x)


@pytest.mark.parametrize("form", ["cpu", "other"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_convolution_to_more_channels_and_its_norm_equal_flax(dtype, form, monkeypatch):
    # Far from zero and of channels that say much the same, which a covariance does not make easier.
    x = jnp.asarray(draw(8, 9, 8, 5) @ (draw(5, 5, seed=2) + 1) + 3, dtype)
    g = jnp.asarray(draw(8, 9, 8, 12, seed=1), dtype)
    norm = partial(BatchNorm, epsilon=1e-3, dtype=dtype)
    ours = ConvNormAct(partial(Conv, dtype=dtype), norm, 12, 1)
    variables = drawn_variables(ours, x)
    used = []
    if form == "other":
        monkeypatch.setattr(
            normalization, "per_backend", lambda cpu, other, *args, **keys: other(*args, **keys)
        )
    by_moments = normalization._by_moments
    monkeypatch.setattr(normalization, "_by_moments", lambda *a, **k: used.append(1) or by_moments(*a, **k))

    def run(module):
        def apply(params, x):
            stats = jax.tree.map(jnp.abs, variables["batch_stats"])
            return module.apply(
                {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
            )

        y, pull, new = jax.vjp(apply, variables["params"], x, has_aux=True)
        return y, new, pull(g)

    one, other = run(ours), run(FlaxConvNorm())
    assert bool(used) == (form == "cpu") and one[0].dtype == dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 4e-2
    for ours, flax in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        ours, flax = np.asarray(ours, np.float32), np.asarray(flax, np.float32)
        np.testing.assert_allclose(ours, flax, rtol=tolerance, atol=tolerance * np.abs(flax).max())


class Normalized(nn.Module):
    """A linear map of tokens that layer normalization has gone over: ours, or Flax's two layers."""

    ours: bool
    dtype: jnp.dtype
    train: bool = True

    @nn.compact
    def __call__(self, x):
        dense = partial(linear, 6, dtype=self.dtype, name="linear")
        if not self.ours:
            return dense()(nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x))
        y, dot_general = LayerNorm(dtype=self.dtype, name="norm").before_linear(x, self.train)
        return dense(dot_general=dot_general)(y)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layer_norm_and_the_linear_map_after_it_equal_flax(dtype):
    x, g = jnp.asarray(3 * draw(4, 5, 7) + 2, dtype), jnp.asarray(draw(4, 5, 6, seed=1), dtype)
    variables = drawn_variables(Normalized(False, dtype), x)
    results = []
    for ours in (True, False):
        y, pull = jax.vjp(Normalized(ours, dtype).apply, variables, x)
        assert y.dtype == dtype
        results.append((y, pull(g)))
    answer = Normalized(True, dtype, train=False).apply(variables, x)
    tolerance = 1e-5 if dtype == jnp.float32 else 3e-2
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    pairs = zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True)
    for one, other in [*pairs, (answer, results[1][0])]:
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * np.abs(other).max())


def test_activations():
    # torch.nn.functional's values at these points.
    x = jnp.array([-4.0, -1.0, 0.5, 2.0, 7.0])
    expected = {
        "silu": [-0.0719448, -0.2689414, 0.3112297, 1.7615942, 6.9936237],
        "relu": [0, 0, 0.5, 2, 7],
        "relu6": [0, 0, 0.5, 2, 6],
        "leaky_relu": [-0.04, -0.01, 0.5, 2, 7],
        "hard_swish": [0, -0.3333333, 0.2916667, 1.6666667, 7],
        "none": [-4, -1, 0.5, 2, 7],
    }
    assert layers.ACTIVATIONS.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(layers.ACTIVATIONS[name](x), values, rtol=1e-5, atol=1e-7)


def test_squeeze_excite():
    x, w1, w2 = draw(2, 3, 3, 6), draw(6, 2, seed=1), draw(2, 6, seed=2)
    b1, b2 = draw(2, seed=3), draw(6, seed=4)
    hidden = x.mean((1, 2)) @ w1 + b1
    expected = x * sigmoid(hidden * sigmoid(hidden) @ w2 + b2)[:, None, None]
    params = {"reduce": {"kernel": w1, "bias": b1}, "expand": {"kernel": w2, "bias": b2}}
    np.testing.assert_allclose(SqueezeExcite(2).apply({"params": params}, x), expected, rtol=1e-5)


def test_eca_kernel_sizes():
    # t = int(|log2(C) + 1| / 2), made odd upwards, at least 3.
    sizes = {8: 3, 16: 3, 64: 3, 128: 5, 256: 5, 512: 5, 1024: 5, 1536: 5, 2048: 7}
    assert {channels: eca_kernel_size(channels) for channels in sizes} == sizes


def test_eca():
    x, kernel = draw(2, 3, 3, 16), draw(3, seed=1)
    pooled = np.pad(x.mean((1, 2)), ((0, 0), (1, 1)))
    logits = np.stack(
        [pooled[:, c : c + 3] @ kernel for c in range(16)], axis=1
    )  # neighbors in order: no flip
    ours = EfficientChannelAttention().apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(ours, x * sigmoid(logits)[:, None, None], rtol=1e-5)


def test_cbam():
    x = draw(2, 5, 4, 32)
    w0, w1, spatial = draw(32, 2, seed=1), draw(2, 32, seed=2), draw(7, 7, 2, 1, seed=3)
    branches = [np.maximum(pooled @ w0, 0) @ w1 for pooled in (x.mean((1, 2)), x.max((1, 2)))]
    scaled = x * sigmoid(sum(branches))[:, None, None]
    maps = np.pad(np.stack([scaled.mean(-1), scaled.max(-1)], -1), ((0, 0), (3, 3), (3, 3), (0, 0)))
    logits = np.zeros((2, 5, 4, 1))
    for i in range(5):
        for j in range(4):
            logits[:, i, j] = np.einsum("bijc,ijcf->bf", maps[:, i : i + 7, j : j + 7], spatial)
    params = {
        "channel_reduce": {"kernel": w0},
        "channel_expand": {"kernel": w1},
        "spatial": {"kernel": spatial},
    }
    assert jax.tree.map(np.shape, drawn_variables(CBAM(), x)["params"]) == jax.tree.map(np.shape, params)
    ours = jax.jit(CBAM().apply, compiler_options=FAST)({"params": params}, x)
    np.testing.assert_allclose(ours, scaled * sigmoid(logits), rtol=1e-4)


def test_gated_linear_unit():
    x = np.array([[1.0, -2.0, 0.0, 3.0]])
    np.testing.assert_allclose(gated_linear_unit(jnp.asarray(x)), [[0.5, -2 / (1 + np.exp(-3))]], rtol=1e-6)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    x = jnp.ones((4000, 2, 2))
    y = np.asarray(DropPath(0.25).apply({}, x, True, rngs={"dropout": jax.random.key(0)}))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (y == y[:, :1, :1]).all()
    assert abs(y.mean() - 1) < 0.03  # 3 standard deviations
    np.testing.assert_array_equal(DropPath(0.25).apply({}, x, False), x)


def test_drop_path_rates():
    assert drop_path_rates(0.2, 4) == pytest.approx([0, 0.05, 0.1, 0.15])  # 0.2 * i / N


@pytest.mark.parametrize(
    ("features", "strides", "expansion", "attention", "project_in", "parts"),
    [
        (8, 1, 4, "se", 32, {"expand", "depthwise", "attention", "project"}),
        (8, 1, 1, "none", 8, {"depthwise", "project"}),
        (12, 1, 4, "eca", 32, {"expand", "depthwise", "attention", "project"}),
        (8, 2, 6, "glu", 24, {"expand", "depthwise", "project"}),
    ],
)
def test_inverted_residual(features, strides, expansion, attention, project_in, parts):
    block = InvertedResidual(layer, features, strides, expansion, attention=attention)
    x = draw(2, 6, 6, 8)
    variables = drawn_variables(block, x)
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    params = variables["params"]
    assert params.keys() == parts
    assert params["project"]["conv"]["kernel"].shape == (1, 1, project_in, features)
    # With the projection's norm at 0 the branch is silent: what is left is the shortcut, or nothing.
    params["project"]["bn"] = {"scale": np.zeros(features), "bias": np.zeros(features)}
    y = jax.jit(block.apply, compiler_options=FAST)(variables, x)
    shortcut = strides == 1 and features == 8
    np.testing.assert_array_equal(y, x if shortcut else np.zeros((2, 6 // strides, 6 // strides, features)))


def test_squeeze_excite_is_a_quarter_of_the_blocks_input():
    variables = drawn_variables(InvertedResidual(layer, 8, expansion=4, attention="se"), draw(1, 4, 4, 10))
    assert variables["params"]["attention"]["reduce"]["kernel"].shape == (40, 2)


def test_classifier_is_the_mean_of_its_logits_per_position():
    x, kernel, bias = draw(2, 3, 4, 5), draw(5, 7, seed=1), draw(7, seed=2)
    logits = Classifier(7).apply({"params": {"kernel": kernel, "bias": bias}}, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(logits, (x @ kernel + bias).mean((1, 2)), rtol=1e-4, atol=1e-5)
    half = Classifier(7).apply({"params": {"kernel": kernel, "bias": bias}}, jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.float32


@pytest.mark.parametrize("host", [False, True])
def test_initializers_have_the_widths_of_their_papers(host):
    def std(init, shape):
        key = jax.random.key(0)
        if not host:
            return float(init(key, shape).std())
        with on_host(key):
            drawn = init(key, shape)
        assert isinstance(drawn, np.ndarray)
        assert drawn.dtype == np.float32
        return float(drawn.std())

    assert std(he_normal, (3, 3, 64, 128)) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.01)
    assert std(he_normal, (3, 3, 1, 8192)) == pytest.approx(np.sqrt(2 / 9), rel=0.01)  # depthwise
    assert std(linear_init, (256, 256)) == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize("tokens", [7, 130])  # the gradients of many are made of two halves
@pytest.mark.parametrize("masked", [False, True])
def test_attention_and_its_gradients_are_those_of_flax(tokens, masked):
    rng = np.random.default_rng(0)
    qkv = [jnp.asarray(3 * rng.standard_normal((2, 5, tokens, 3, 4)), jnp.float32) for _ in range(3)]
    bias = jnp.asarray(rng.standard_normal((3, tokens, tokens)), jnp.float32)
    mask = jnp.asarray(rng.random((5, 1, tokens, tokens)) < 0.7) if masked else None

    def theirs(query, key, value, bias):
        return nn.dot_product_attention(query, key, value, bias=bias, mask=mask)

    def ours(query, key, value, bias):
        return attend(query, key, value, bias, mask)

    np.testing.assert_allclose(ours(*qkv, bias), theirs(*qkv, bias), rtol=1e-5, atol=1e-6)
    weight = jnp.asarray(rng.standard_normal(qkv[0].shape), jnp.float32)
    gradients = [
        jax.grad(lambda *a, f=f: (f(*a) * weight).sum(), argnums=(0, 1, 2, 3))(*qkv, bias)
        for f in (ours, theirs)
    ]
    for got, wanted in zip(*gradients, strict=True):
        assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def text_for(platform, function, *arguments):
    """Returns the program that a platform's compiler is given."""
    return jax.export.export(jax.jit(function), platforms=[platform])(*arguments).mlir_module()


@pytest.mark.parametrize("lead", [(2,), (2, 5)])
def test_a_card_gets_attention_of_jax_and_no_part_of_the_form_for_a_cpu(lead):
    """Softmax whole before the product with the values, by which XLA knows it; a CPU divides [N, d] after it."""
    qkv = [jnp.ones((*lead, 24, 3, 4))] * 3
    bias, mask = jnp.ones((3, 24, 24)), np.ones((lead[-1], 1, 24, 24), bool)
    gradients = jax.grad(lambda *given: attend(*given, mask).sum(), (0, 1, 2, 3))
    texts = {platform: text_for(platform, gradients, *qkv, bias) for platform in ("cpu", "cuda")}
    whole = re.compile(r"stablehlo\.divide .*x24x24xf32>")
    assert whole.search(texts["cuda"]) and not whole.search(texts["cpu"])
    # Products of queries and keys, and for the gradients of weights, queries, keys and values; a CPU divides the
    # product with the values, and so needs it.
    assert [texts[name].count("stablehlo.dot_general") for name in ("cuda", "cpu")] == [5, 6]


def test_channel_attention_by_convolution_is_no_convolution_on_a_card():
    module, x = EfficientChannelAttention(), jnp.ones((2, 8, 8, 64))
    text = text_for("cuda", module.apply, module.init(jax.random.key(0), x), x)
    assert "stablehlo.slice" in text and "stablehlo.convolution" not in text


@pytest.mark.parametrize("activation", ["relu", "relu6", "leaky_relu", "silu", "hard_swish"])
def test_pooling_behind_convolutions_in_bfloat16_gives_numbers(activation):
    # jaxlib 0.11.2 to 0.12 on a CPU: NaN, from 32 channels on.
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(0, 0.1, (3, 3, 32, 32)), jnp.bfloat16)
    act = layers.ACTIVATIONS[activation]

    def pooled(x):
        return layers.pool(act(conv2d(act(x), kernel, lowering="direct")))

    x = jnp.asarray(rng.normal(size=(4, 16, 16, 32)), jnp.bfloat16)
    np.testing.assert_allclose(jax.jit(pooled)(x), pooled(x), atol=0.02)
    assert np.isfinite(jax.jit(jax.grad(lambda x: pooled(x).sum()))(x).astype(np.float32)).all()
