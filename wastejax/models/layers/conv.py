"""2-D convolution, lowered in the way that is fast on the backend it runs on.

XLA's own convolutions are right for GPU and TPU and for export. On a CPU they are slow in two places, which are
put in other words here: depthwise convolutions (shifted multiply-adds), and the gradients of 1x1 kernels
(`linear_maps`). Much of the time goes into moving numbers rather than into computing with them, so the forms are
such that XLA writes once what a convolution reads. For other convolutions see `wastejax.runtime.jit`. All forms
take the same kernel and give the same numbers and gradients, so the choice is made when a program is
compiled for a backend and is no part of the model.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from wastejax.models.cpu.linear_maps import linear_map, linear_map_vjp
from wastejax.models.cpu.lowering import per_backend
from wastejax.models.layers.init import he_normal

Padding = str | int
_Pair = tuple[int, int]
_Pads = tuple[_Pair, _Pair]

LOWERINGS = ("auto", "direct")

# Found by measuring shapes of EfficientNetV2 and MobileViT at 96 to 256 px on two AVX2 or AVX-512 cores.
# A depthwise kernel's gradient sums so many elements of `g`, and so many rows of them, at once.
_DEPTHWISE_BLOCK, _DEPTHWISE_ROWS = 1 << 17, 16
# For `BatchNorm.of_product`: least output channels to one of the input, and rows to each of these.
_WIDENS, _ROWS = 2, 100


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


def _is_pointwise(kernel: Array, strides: int, pads: _Pads, groups: int) -> bool:
    return kernel.shape[:2] == (1, 1) and strides == groups == 1 and pads == ((0, 0), (0, 0))


def _is_depthwise(x: Array, kernel: Array, groups: int) -> bool:
    return groups == x.shape[3] == kernel.shape[3]


def _offsets(kernel: tuple[int, ...]) -> Iterator[_Pair]:
    return ((i, j) for i in range(kernel[0]) for j in range(kernel[1]))


def _padded(x: Array, pads: _Pads) -> Array:
    """Returns `x` in float32 with zeros around its positions.

    XLA would look through the padding where it can, and have the loops that read this read two arrays, or compute
    anew what made `x`, normalization and activation, for each kernel element: a barrier keeps it from that.
    """
    config = [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)]
    return lax.optimization_barrier(lax.pad(x.astype(jnp.float32), jnp.float32(0), config))


def _depthwise(x: Array, kernel: Array, strides: int, pads: _Pads) -> Array:
    """Depthwise convolution as one shifted multiply-add per kernel element."""
    size = [(x.shape[1 + i] + sum(pads[i]) - kernel.shape[i]) // strides + 1 for i in (0, 1)]
    span = [(n - 1) * strides + 1 for n in size]  # what one kernel element meets of the image
    wide, factors = _padded(x, pads), kernel.astype(jnp.float32)
    out = jnp.zeros((x.shape[0], *size, x.shape[3]), jnp.float32)
    for i, j in _offsets(kernel.shape):
        out += wide[:, i : i + span[0] : strides, j : j + span[1] : strides] * factors[i, j, 0]
    return out.astype(x.dtype)


def _depthwise_vjp(x: Array, kernel: Array, g: Array, strides: int, pads: _Pads) -> tuple[Array, Array]:
    sides = [
        _cells(*sizes, strides)
        for sizes in zip(x.shape[1:3], g.shape[1:3], kernel.shape[:2], (pads[0][0], pads[1][0]), strict=True)
    ]
    wide = _padded(g, (sides[0].pads, sides[1].pads))
    dx = _spread(wide, kernel, sides, strides)[:, : x.shape[1], : x.shape[2]]
    first, size = (sides[0].pads[0], sides[1].pads[0]), g.shape[1:3]
    # Where padding is wider than the kernel, some of `g` meets nothing of `x`, and is cut away in `wide`.
    if min(sides[0].pads + sides[1].pads) < 0:
        wide, first = g.astype(jnp.float32), (0, 0)
    dk = _depthwise_kernel_gradient(_padded(x, pads), kernel, wide, first, size, strides)
    return dx.astype(x.dtype), dk.astype(kernel.dtype)


class _Cells(NamedTuple):
    """One dimension of a convolution's input, in cells of as many positions as the kernel steps over."""

    cells: int  # how many
    pads: _Pair  # zeros to put around the result's gradient, so that all taps can be read for all cells
    taps: np.ndarray  # [strides, T]: position in a cell, tap -> kernel element, or the kernel's size for none


def _cells(size: int, out: int, kernel: int, low: int, strides: int) -> _Cells:
    """Position `a` of cell `r` takes row `r + d` of the gradient times kernel element `a + low - d strides`."""
    cells = -(-size // strides)
    least, most = -((kernel - 1 - low) // strides), (strides - 1 + low) // strides
    element = np.arange(strides)[:, None] + low - np.arange(least, most + 1) * strides
    taps = np.where((element >= 0) & (element < kernel), element, kernel)
    return _Cells(cells, (-least, cells - 1 + most - (out - 1)), taps)


def _spread(wide: Array, kernel: Array, sides: Sequence[_Cells], strides: int) -> Array:
    """The gradient of a depthwise convolution's input, as one shifted multiply-add per tap of its cells.

    Of a kernel of 3 with steps of 2 a position takes at most 4 elements, where a convolution of the gradient with
    zeros between would take all 9, and read four times as much.

    Args:
        wide: the gradient of the result, padded, float32 [B, h, w, C].
        kernel: [kh, kw, 1, C].
        sides: rows and columns.
        strides: steps of the kernel.

    Returns:
        float32 [B, H, W, C], of whole cells.
    """
    rows, cols = sides
    taps = jnp.pad(kernel[:, :, 0].astype(jnp.float32), ((0, 1), (0, 1), (0, 0)))
    taps = taps[rows.taps.T[:, None, :, None], cols.taps.T[:, None]]  # [Tr, Tc, strides, strides, C]
    B, channels = wide.shape[0], wide.shape[3]
    out = jnp.zeros((B, rows.cells, strides, cols.cells, strides, channels), jnp.float32)
    for i, j in _offsets(taps.shape):
        part = wide[:, i : i + rows.cells, None, j : j + cols.cells, None]
        out += part * taps[i, j][:, None]
    return out.reshape(B, rows.cells * strides, cols.cells * strides, channels)


@jax.named_scope("depthwise_kernel_gradient")
def _depthwise_kernel_gradient(
    x: Array, kernel: Array, g: Array, first: tuple[int, ...], size: tuple[int, ...], strides: int
) -> Array:
    """Returns the gradient of a depthwise kernel, of its shape.

    Args:
        x: padded, float32 [B, H, W, C].
        kernel: [kh, kw, 1, C].
        g: float32 [B, h', w', C].
        first: the first row and column of `g` that count.
        size: rows and columns of `g` that count.
        strides: steps of the kernel.
    """
    h, w = size
    B, channels = x.shape[0], x.shape[3]
    kh, kw = kernel.shape[:2]
    most = max(1, min(h, _DEPTHWISE_ROWS, _DEPTHWISE_BLOCK // (w * channels)))
    rows = max(n for n in range(1, most + 1) if h % n == 0)
    span = (w - 1) * strides + 1

    def read_row(n: Array, r: int) -> tuple[Array, Array]:
        image, row = n // (h // rows), n % (h // rows) * rows + r
        part = lax.dynamic_slice(x, (image, row * strides, 0, 0), (1, kh, *x.shape[2:]))[0]
        return part, lax.dynamic_slice(g, (image, first[0] + row, first[1], 0), (1, 1, w, channels))[0]

    # A few rows at a time, which stay in the second-level cache: several times faster than one pass over all. One
    # sum for each column of the kernel, as XLA runs a loop of few operations on one thread, and gives the other to
    # the rest of the program; those of a longer one it hands to and fro.
    def add(n: Array, sums: list[Array]) -> list[Array]:
        read = [read_row(n, r) for r in range(rows)]
        return [
            total + sum(part[:, j : j + span : strides] * g for part, g in read)
            for j, total in enumerate(sums)
        ]

    zeros = [jnp.zeros((kh, w, channels), jnp.float32) for _ in range(kw)]
    sums = lax.fori_loop(0, B * h // rows, add, zeros)
    return jnp.stack([total.sum(1) for total in sums], 1).reshape(kernel.shape)


def _cpu(x: Array, kernel: Array, strides: int, pads: _Pads, groups: int) -> Array:
    if _is_depthwise(x, kernel, groups):
        return _depthwise(x, kernel, strides, pads)
    return _direct(x, kernel, strides, pads, groups)


def _cpu_fwd(x: Array, kernel: Array, strides: int, pads: _Pads, groups: int) -> Array:
    if _is_pointwise(kernel, strides, pads, groups):
        return linear_map(x, kernel[0, 0])
    return _cpu(x, kernel, strides, pads, groups)


def _cpu_vjp(
    x: Array, kernel: Array, g: Array, strides: int, pads: _Pads, groups: int
) -> tuple[Array, Array]:
    if _is_depthwise(x, kernel, groups):
        return _depthwise_vjp(x, kernel, g, strides, pads)
    if _is_pointwise(kernel, strides, pads, groups):
        dx, dk = linear_map_vjp(x, kernel[0, 0], g)
        return dx, dk[None, None]
    return _direct_vjp(x, kernel, g, strides, pads, groups)


# The gradient is ours: differentiating through the choice itself would keep the residuals of both branches.
@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _auto(x: Array, kernel: Array, strides: int, pads: _Pads, groups: int) -> Array:
    return per_backend(_cpu, _direct, x, kernel, strides=strides, pads=pads, groups=groups)


def _auto_fwd(x: Array, kernel: Array, strides: int, pads: _Pads, groups: int) -> Any:
    y = per_backend(_cpu_fwd, _direct, x, kernel, strides=strides, pads=pads, groups=groups)
    return y, (x, kernel)


def _auto_bwd(strides: int, pads: _Pads, groups: int, residuals: tuple[Array, Array], g: Array) -> Any:
    return per_backend(_cpu_vjp, _direct_vjp, *residuals, g, strides=strides, pads=pads, groups=groups)


_auto.defvjp(_auto_fwd, _auto_bwd)


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
    """A 2-D convolution with He initialization; parameters `kernel` (HWIO) and `bias`.

    Attributes:
        features: output channels.
        kernel: side of the square kernel.
        strides: steps of the kernel in both directions.
        groups: channel groups; as many as input channels make it depthwise.
        padding: see `conv2d`.
        use_bias: add a bias; batch normalization after it makes one idle.
        lowering: see `conv2d`.
        dtype: of the computation and the result; parameters stay float32.
        kernel_init: initializer of the kernel (He et al. 2015, eq. 10, by default).
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

    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, H', W', features]."""
        return self._map(x, None)

    def normalized(self, x: Array, norm: Any) -> Array:
        """Returns the `BatchNorm` of the result, in training: where that is faster, the two are computed as one."""
        return self._map(x, norm)

    @nn.compact
    def _map(self, x: Array, norm: Any) -> Array:
        channels = x.shape[-1]
        shape = (self.kernel, self.kernel, channels // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        # Asked last: an export's batch has no size yet.
        if (
            norm is not None
            and (self.kernel, self.strides, self.lowering) == (1, 1, "auto")
            and self.features >= _WIDENS * channels
            and x.size >= _ROWS * channels**2
        ):
            return norm.of_product(x, kernel)
        x = conv2d(x, kernel, self.strides, self.padding, self.groups, self.lowering)
        if self.use_bias:
            x += self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return x if norm is None else norm(x)
