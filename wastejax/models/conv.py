"""2-D convolution, lowered in the way that is fast on the backend it runs on.

XLA's own convolutions are right for GPU and TPU and for export. On a CPU they are slow in two places, which are put
in other words here: depthwise convolutions (shifted multiply-adds), and the gradients of the kernels of depthwise
and 1x1 ones (a sum over blocks of rows that fit in the cache). For the others see `wastejax.jit`. All forms take
the same kernel and give the same numbers and gradients, so the choice is made when a program is compiled for a
backend and is no part of the model.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from wastejax.models.initialise import he_normal

Padding = str | int
_Pair = tuple[int, int]
_Pads = tuple[_Pair, _Pair]

LOWERINGS = ("auto", "direct")

# Elements of one term of a kernel's gradient. Found by measuring shapes of EfficientNetV2 and MobileViT at 96 to
# 256 px on two AVX2 or AVX-512 cores.
_DEPTHWISE_BLOCK = 1 << 14
_POINTWISE_BLOCK = 1 << 18


def same_padding(size: int, kernel: int, strides: int) -> _Pair:
    """Returns the zeros before and after one dimension under TensorFlow's SAME rule: the odd one after."""
    total = max((-(-size // strides) - 1) * strides + kernel - size, 0)
    return total // 2, total - total // 2


def _explicit_padding(x: Array, kernel: Array, strides: int, padding: Padding) -> _Pads:
    if padding == "SYMMETRIC":
        rows, cols = (kernel.shape[i] // 2 for i in (0, 1))
        return (rows, rows), (cols, cols)
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    if padding != "SAME":
        raise ValueError(f"padding must be 'SAME', 'SYMMETRIC' or an int, is {padding!r}")
    rows_cols = [same_padding(x.shape[1 + i], kernel.shape[i], strides) for i in (0, 1)]
    return rows_cols[0], rows_cols[1]


def _direct(x: Array, kernel: Array, strides: int, pads: _Pads, groups: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _direct_vjp(
    x: Array, kernel: Array, g: Array, strides: int, pads: _Pads, groups: int
) -> tuple[Array, Array]:
    return jax.vjp(partial(_direct, strides=strides, pads=pads, groups=groups), x, kernel)[1](g)


def _is_pointwise(kernel: Array, pads: _Pads, groups: int) -> bool:
    return kernel.shape[:2] == (1, 1) and groups == 1 and pads == ((0, 0), (0, 0))


def _is_depthwise(x: Array, kernel: Array, groups: int) -> bool:
    return groups == x.shape[3] == kernel.shape[3]


def _offsets(kernel: tuple[int, ...]) -> Iterator[_Pair]:
    return ((i, j) for i in range(kernel[0]) for j in range(kernel[1]))


def _shifted(
    x: Array, kernel: Array, before: _Pair, size: _Pair, strides: int = 1, dilation: int = 1
) -> Array:
    """Depthwise convolution as one shifted multiply-add per kernel element, in float32.

    Args:
        x: [B, H, W, C]; `dilation - 1` zeros are put between its positions.
        kernel: [kh, kw, 1, C].
        before: zeros before the first row and column; as many follow the last as `size` needs.
        size: rows and columns of the result.
        strides: steps of the kernel.
        dilation: see `x`.
    """
    x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    span = [(n - 1) * strides + 1 for n in size]  # what one kernel element meets of the padded image
    # Padded once, before the sum: a pad in every term would have XLA fuse what made `x`, normalisation and
    # activation, into the loop of the sum and compute it anew for each kernel element.
    config = [
        (low, n + k - 1 - low - (rows - 1) * dilation - 1, dilation - 1)
        for n, k, low, rows in zip(span, kernel.shape, before, x.shape[1:3], strict=False)
    ]
    x = lax.pad(x, jnp.float32(0), [(0, 0, 0), *config, (0, 0, 0)])
    out = jnp.zeros((x.shape[0], *size, x.shape[3]), jnp.float32)
    for i, j in _offsets(kernel.shape):
        out += x[:, i : i + span[0] : strides, j : j + span[1] : strides] * kernel[i, j, 0]
    return out


def _sum_over_rows(
    x: Array, g: Array, kernel: Array, strides: int, pads: _Pads, rows: int, term: Callable[..., Any]
) -> Any:
    """Sums `term(taps, g)` over images and blocks of output rows.

    A term gets the part of `g` [rows, w, F] and, for each kernel element, the part of `x` [rows, w, C] that it
    meets. Terms of the size of the second-level cache are several times faster than one pass over the whole batch.
    """
    B, h, w, F = g.shape
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    span = ((rows - 1) * strides + 1, (w - 1) * strides + 1)
    x_block, g_block = (1, span[0] + kernel.shape[0] - 1, *x.shape[2:]), (1, rows, w, F)

    def add(n: Array, total: Any) -> Any:
        image, row = n // (h // rows), n % (h // rows) * rows
        part = lax.dynamic_slice(x, (image, row * strides, 0, 0), x_block)[0]
        taps = [part[i : i + span[0] : strides, j : j + span[1] : strides] for i, j in _offsets(kernel.shape)]
        g_part = lax.dynamic_slice(g, (image, row, 0, 0), g_block)[0]
        return jax.tree.map(jnp.add, total, term(taps, g_part))

    taps = [jax.ShapeDtypeStruct((rows, w, x.shape[3]), x.dtype) for _ in _offsets(kernel.shape)]
    shapes = jax.eval_shape(term, taps, jax.ShapeDtypeStruct(g_block[1:], g.dtype))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return lax.fori_loop(0, B * h // rows, add, zeros)


def _rows_per_block(g: Array, elements_per_position: int, limit: int) -> int:
    rows, cols = g.shape[1:3]
    fitting = (n for n in range(1, rows + 1) if rows % n == 0 and n * cols * elements_per_position <= limit)
    return max(fitting, default=1)


def _depthwise_kernel_gradient(x: Array, kernel: Array, g: Array, strides: int, pads: _Pads) -> Array:
    def term(taps: list[Array], g: Array) -> list[Array]:
        return [tap.astype(jnp.float32) * g.astype(jnp.float32) for tap in taps]

    rows = _rows_per_block(g, g.shape[3], _DEPTHWISE_BLOCK)
    sums = _sum_over_rows(x, g, kernel, strides, pads, rows, term)
    return jnp.stack([total.sum((0, 1)) for total in sums]).reshape(kernel.shape)


def _pointwise_kernel_gradient(x: Array, kernel: Array, g: Array) -> Array:
    """Returns the gradient of a 1x1 kernel; `x` and `g` are [1, rows, w, channels]."""
    narrow = kernel.shape[3] < kernel.shape[2]

    def term(taps: list[Array], g: Array) -> Array:
        # The first operand is the one that is transposed: let it be the smaller one.
        first, second = (g, taps[0]) if narrow else (taps[0], g)
        return lax.dot_general(
            first, second, (((0, 1), (0, 1)), ((), ())), preferred_element_type=jnp.float32
        )

    rows = _rows_per_block(g, kernel.shape[2], _POINTWISE_BLOCK)
    total = _sum_over_rows(x, g, kernel, 1, ((0, 0), (0, 0)), rows, term)
    return (total.T if narrow else total).reshape(kernel.shape)


def _cpu(x: Array, kernel: Array, strides: int, pads: _Pads, groups: int) -> Array:
    if not _is_depthwise(x, kernel, groups):
        return _direct(x, kernel, strides, pads, groups)
    rows, cols = ((x.shape[1 + i] + sum(pads[i]) - kernel.shape[i]) // strides + 1 for i in (0, 1))
    return _shifted(x, kernel, (pads[0][0], pads[1][0]), (rows, cols), strides).astype(x.dtype)


def _cpu_vjp(
    x: Array, kernel: Array, g: Array, strides: int, pads: _Pads, groups: int
) -> tuple[Array, Array]:
    if _is_depthwise(x, kernel, groups):
        before = (kernel.shape[0] - 1 - pads[0][0], kernel.shape[1] - 1 - pads[1][0])
        dx = _shifted(g, kernel[::-1, ::-1], before, (x.shape[1], x.shape[2]), dilation=strides)
        dk = _depthwise_kernel_gradient(x, kernel, g, strides, pads)
        return dx.astype(x.dtype), dk.astype(kernel.dtype)
    dx, dk = _direct_vjp(x, kernel, g, strides, pads, groups)
    if _is_pointwise(kernel, pads, groups):
        x = x[:, ::strides, ::strides]
        # The batch as one image: nothing ties a row to its neighbours.
        x, g = (rows.reshape(1, -1, *rows.shape[2:]) for rows in (x, g))
        dk = _pointwise_kernel_gradient(x, kernel, g).astype(kernel.dtype)
    return dx, dk


def _per_backend(cpu: Callable[..., Any], other: Callable[..., Any], *args: Array, **options: Any) -> Any:
    return lax.platform_dependent(*args, cpu=partial(cpu, **options), default=partial(other, **options))


# The gradient is ours: differentiating through the choice itself would keep the residuals of both branches.
@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _auto(x: Array, kernel: Array, strides: int, pads: _Pads, groups: int) -> Array:
    return _per_backend(_cpu, _direct, x, kernel, strides=strides, pads=pads, groups=groups)


def _auto_fwd(x: Array, kernel: Array, strides: int, pads: _Pads, groups: int) -> Any:
    return _auto(x, kernel, strides, pads, groups), (x, kernel)


def _auto_bwd(strides: int, pads: _Pads, groups: int, residuals: tuple[Array, Array], g: Array) -> Any:
    return _per_backend(_cpu_vjp, _direct_vjp, *residuals, g, strides=strides, pads=pads, groups=groups)


_auto.defvjp(_auto_fwd, _auto_bwd)


def _plain_dot(x: Array, kernel: Array) -> Array:
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _plain_dot_vjp(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    return jax.vjp(_plain_dot, x, kernel)[1](g)


def _cpu_dot_vjp(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    def image(rows: Array) -> Array:
        return rows.reshape(1, -1, *rows.shape[-2:])

    dx, dk = _cpu_vjp(image(x), kernel[None, None], image(g), 1, ((0, 0), (0, 0)), 1)
    return dx.reshape(x.shape), dk[0, 0]


@jax.custom_vjp
def _dot(x: Array, kernel: Array) -> Array:
    return _plain_dot(x, kernel)


def _dot_bwd(residuals: tuple[Array, Array], g: Array) -> Any:
    return _per_backend(_cpu_dot_vjp, _plain_dot_vjp, *residuals, g)


_dot.defvjp(lambda x, kernel: (_dot(x, kernel), (x, kernel)), _dot_bwd)


def dense_dot(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """The product of a linear layer, for `nn.Dense(dot_general=…)`: a 1x1 convolution's gradient is the faster one.

    Args:
        x: [..., N, C].
        kernel: [C, features].

    Returns:
        [..., N, features].
    """
    return _dot(x, kernel)


def conv2d(
    x: Array,
    kernel: Array,
    strides: int = 1,
    padding: Padding = "SAME",
    groups: int = 1,
    lowering: str = "auto",
) -> Array:
    """Convolves images with one kernel.

    Args:
        x: images or features, [B, H, W, C].
        kernel: [kh, kw, C / groups, features], of the dtype of `x`.
        strides: steps of the kernel in both directions.
        padding: 'SAME' (TensorFlow's rule), 'SYMMETRIC' (half a kernel on every side, PyTorch's habit), or
            the zeros on every side.
        groups: channel groups; `C` of them is a depthwise convolution.
        lowering: 'auto', the fast form of each backend, with a reverse-mode gradient only; or 'direct',
            always `lax.conv_general_dilated`, as export wants it.

    Returns:
        [B, H', W', features], of the dtype of `x`.

    Raises:
        ValueError: another lowering or padding.
    """
    pads = _explicit_padding(x, kernel, strides, padding)
    if lowering == "direct":
        return _direct(x, kernel, strides, pads, groups)
    if lowering != "auto":
        raise ValueError(f"lowering must be one of {LOWERINGS}, is {lowering!r}")
    return _auto(x, kernel, strides, pads, groups)


class Conv(nn.Module):
    """A 2-D convolution with He initialisation; parameters `kernel` (HWIO) and `bias`.

    Attributes:
        features: output channels.
        kernel: side of the square kernel.
        strides: steps of the kernel in both directions.
        groups: channel groups; as many as input channels make it depthwise.
        padding: see `conv2d`.
        use_bias: add a bias; batch normalisation after it makes one idle.
        lowering: see `conv2d`.
        dtype: of the computation and the result; parameters stay float32.
        kernel_init: initialiser of the kernel (He et al. 2015, eq. 10, by default).
    """

    features: int
    kernel: int = 3
    strides: int = 1
    groups: int = 1
    padding: Padding = "SAME"
    use_bias: bool = False
    lowering: str = "auto"
    dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = he_normal

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, H', W', features]."""
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        x = conv2d(x.astype(self.dtype), kernel, self.strides, self.padding, self.groups, self.lowering)
        if self.use_bias:
            x += self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return x
