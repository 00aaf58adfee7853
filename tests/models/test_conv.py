"""Every form of the convolution against one written out in numpy, forward and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wastejax.models.cpu import linear_maps
from wastejax.models.cpu.linear_maps import dense_dot
from wastejax.models.layers import conv
from wastejax.models.layers.conv import Conv, conv2d, same_padding

FAST = {"xla_backend_optimization_level": 0}  # half the compile time

POINTWISE, NARROWING, DEPTHWISE, DEPTHWISE_5, DENSE, GROUPED = (
    (1, 4, 6, 1),
    (1, 6, 4, 1),
    (3, 4, 4, 4),
    (5, 4, 4, 4),
    (3, 3, 5, 1),
    (3, 4, 6, 2),
)

CASES = [  # (kernel, channels, features, groups), strides, padding, (rows, columns)
    (POINTWISE, 1, "SAME", (8, 9)),
    (POINTWISE, 2, "SAME", (9, 8)),
    (DEPTHWISE, 1, "SAME", (7, 8)),
    (DEPTHWISE, 1, "SYMMETRIC", (7, 8)),
    (DEPTHWISE, 2, "SAME", (8, 7)),
    (DEPTHWISE, 2, "SAME", (7, 10)),
    (DEPTHWISE, 2, "SYMMETRIC", (8, 7)),
    (DEPTHWISE, 1, 0, (6, 5)),
    (DEPTHWISE, 2, 3, (6, 7)),
    (DEPTHWISE_5, 1, "SYMMETRIC", (8, 7)),
    (DEPTHWISE_5, 2, "SAME", (8, 7)),
    (DEPTHWISE_5, 2, "SYMMETRIC", (6, 9)),
    (DEPTHWISE_5, 3, "SYMMETRIC", (8, 10)),
    (NARROWING, 1, "SAME", (8, 9)),
    (NARROWING, 2, "SAME", (9, 8)),
    (DENSE, 1, "SAME", (18, 17)),
    (DENSE, 2, "SAME", (34, 35)),
    (DENSE, 2, "SYMMETRIC", (34, 35)),
    ((3, 5, 6, 1), 2, "SAME", (8, 9)),
    (GROUPED, 2, "SAME", (8, 9)),
]


def reference(x, kernel, g, strides, pads, groups):
    """Convolution and its two gradients in float64, one kernel element and one group at a time."""
    x, kernel, g = (np.asarray(a, np.float64) for a in (x, kernel, g))
    k_h, k_w, inputs, features = kernel.shape
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    h, w = ((padded.shape[1 + i] - kernel.shape[i]) // strides + 1 for i in (0, 1))
    y, d_padded, d_kernel = np.zeros((len(x), h, w, features)), np.zeros_like(padded), np.zeros_like(kernel)
    for i in range(k_h):
        for j in range(k_w):
            met = np.s_[:, i : i + h * strides : strides, j : j + w * strides : strides][:3]
            for group in range(groups):
                into = slice(group * inputs, (group + 1) * inputs)
                out = slice(group * features // groups, (group + 1) * features // groups)
                tap = padded[met][:, :h, :w, into]
                y[..., out] += tap @ kernel[i, j, :, out]
                d_kernel[i, j, :, out] = np.einsum("bhwc,bhwf->cf", tap, g[..., out])
                d_padded[met][:, :h, :w, into] += g[..., out] @ kernel[i, j, :, out].T
    (top, _), (left, _) = pads
    return y, d_padded[:, top : top + x.shape[1], left : left + x.shape[2]], d_kernel


def problem(case, size, dtype=jnp.float32):
    k, channels, features, groups = case
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *size, channels)), dtype)
    kernel = jnp.asarray(rng.normal(size=(k, k, channels // groups, features)), dtype)
    return x, kernel, groups


def forward_and_gradients(x, kernel, strides, padding, groups, lowering):
    """Returns the convolution, the two gradients of its product with a drawn `g`, and that `g`."""
    apply = partial(conv2d, strides=strides, padding=padding, groups=groups, lowering=lowering)
    shape = jax.eval_shape(apply, x, kernel).shape
    g = jnp.asarray(np.random.default_rng(1).normal(size=shape), x.dtype)

    @partial(jax.jit, compiler_options=FAST)
    def run(x, kernel, g):
        y, pull = jax.vjp(apply, x, kernel)
        return y, *pull(g)

    return run(x, kernel, g), g


def assert_close(ours, expected, tolerance):
    for one, other in zip(ours, expected, strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


@pytest.mark.parametrize("lowering", conv.LOWERINGS)
@pytest.mark.parametrize(("case", "strides", "padding", "size"), CASES)
def test_equals_numpy(case, strides, padding, size, lowering):
    x, kernel, groups = problem(case, size)
    ours, g = forward_and_gradients(x, kernel, strides, padding, groups, lowering)
    k = case[0]
    pads = {"SAME": [same_padding(n, k, strides) for n in size], "SYMMETRIC": [(k // 2, k // 2)] * 2}.get(
        padding, [(padding, padding)] * 2
    )
    assert_close(ours, reference(x, kernel, g, strides, pads, groups), 1e-5)


@pytest.mark.parametrize("case", [DEPTHWISE, DEPTHWISE_5, POINTWISE, NARROWING])
@pytest.mark.parametrize("limit", [1, 40, 10**6])
def test_any_block_or_part_of_the_rows_gives_the_same_gradient(case, limit, monkeypatch):
    x, kernel, groups = problem(case, (12, 10))
    monkeypatch.setattr(conv, "_DEPTHWISE_BLOCK", limit)
    monkeypatch.setattr(linear_maps, "_SPLIT_ROWS", limit)
    ours, g = forward_and_gradients(x, kernel, 1, "SYMMETRIC", groups, "auto")
    pad = case[0] // 2
    assert_close(ours, reference(x, kernel, g, 1, [(pad, pad)] * 2, groups), 1e-5)


@pytest.mark.parametrize("case", [POINTWISE, DEPTHWISE, DEPTHWISE_5, DENSE])
def test_bfloat16(case):
    x, kernel, groups = problem(case, (18, 17), jnp.bfloat16)
    ours, g = forward_and_gradients(x, kernel, 1, "SYMMETRIC", groups, "auto")
    assert [a.dtype for a in ours] == [jnp.bfloat16] * 3
    pad = case[0] // 2
    assert_close(ours, reference(x, kernel, g, 1, [(pad, pad)] * 2, groups), 2**-7)  # 8 bits of mantissa


@pytest.mark.parametrize("shape", [(7, 5), (2, 7, 5), (2, 3, 7, 5)])
@pytest.mark.parametrize("features", [3, 8])
def test_dense_dot_equals_numpy(shape, features):
    rng = np.random.default_rng(0)
    x, kernel, g = (
        rng.normal(size=size).astype(np.float32)
        for size in (shape, (shape[-1], features), (*shape[:-1], features))
    )
    y, backward = jax.vjp(dense_dot, x, kernel)
    d_kernel = x.reshape(-1, shape[-1]).T.astype(np.float64) @ g.reshape(-1, features)
    assert_close(
        (y, *backward(g)), (x @ kernel.astype(np.float64), g @ kernel.T.astype(np.float64), d_kernel), 1e-5
    )


def test_same_padding():
    # TensorFlow's documentation: ceil(size / strides) outputs, the odd zero at the end.
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(225, 3, 2) == (1, 1)
    assert same_padding(7, 5, 1) == (2, 2)
    assert same_padding(8, 1, 2) == (0, 0)


def gradient_program(platform, lowering):
    x, kernel, groups = problem(DEPTHWISE, (8, 8))
    function = jax.jit(jax.grad(lambda x, k: conv2d(x, k, 1, "SAME", groups, lowering).sum(), (0, 1)))
    return jax.export.export(function, platforms=[platform])(x, kernel).mlir_module()


def test_only_the_chosen_form_is_compiled():
    cpu, cuda = gradient_program("cpu", "auto"), gradient_program("cuda", "auto")
    assert "stablehlo.convolution" not in cpu
    assert "stablehlo.convolution" in cuda
    assert "stablehlo.while" not in cuda
    assert "stablehlo.convolution" in gradient_program("cpu", "direct")


def test_module_has_the_same_parameters_in_every_lowering():
    x = jnp.ones((1, 6, 6, 4))
    made = [Conv(8, 3, use_bias=True, lowering=how).init(jax.random.key(0), x) for how in conv.LOWERINGS]
    assert jax.tree.map(jnp.shape, made[0]) == {"params": {"kernel": (3, 3, 4, 8), "bias": (8,)}}
    np.testing.assert_array_equal(made[0]["params"]["kernel"], made[1]["params"]["kernel"])


def test_module_computes_in_its_dtype_with_float32_parameters():
    module = Conv(8, 1, use_bias=True, dtype=jnp.bfloat16)
    y, variables = module.init_with_output(jax.random.key(0), jnp.ones((1, 2, 2, 3)))
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_unknown_words_are_refused():
    x, kernel, _ = problem(DENSE, (5, 5))
    with pytest.raises(ValueError, match="lowering must be one of"):
        conv2d(x, kernel, lowering="dircet")
    with pytest.raises(ValueError, match="padding must be"):
        conv2d(x, kernel, padding="VALID")


def test_an_export_needs_no_size_of_its_batch():
    (batch,) = jax.export.symbolic_shape("B")
    # To more channels: in training it would leave itself to the norm, where there are many rows.
    module = conv.Conv(32, kernel=1)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 4)))
    exported = jax.export.export(jax.jit(lambda x: module.apply(variables, x)))(
        jax.ShapeDtypeStruct((batch, 8, 8, 4), jnp.float32)
    )
    x = jax.random.normal(jax.random.key(1), (3, 8, 8, 4))
    np.testing.assert_allclose(exported.call(x), module.apply(variables, x), rtol=1e-5, atol=1e-6)
