"""2-D convolution, lowered in the way that is fast on the backend it runs on.

XLA's own convolutions are right for GPU and TPU and for export, and slow on a CPU: there a 1x1 convolution is
several times faster as a dot, and a depthwise one as shifted multiply-adds. All forms take the same kernel
and give the same numbers and gradients, so the choice is made when a program is compiled for a backend and
is no part of the model.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

Padding = str | int
_Pads = tuple[tuple[int, int], tuple[int, int]]

LOWERINGS = ("auto", "direct")

he_normal = nn.initializers.he_normal()  # fan-in, right for depthwise kernels too


def same_padding(size: int, kernel: int, strides: int) -> tuple[int, int]:
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
    before_after = [same_padding(x.shape[1 + i], kernel.shape[i], strides) for i in (0, 1)]
    return before_after[0], before_after[1]


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


def _pointwise(x: Array, kernel: Array, strides: int) -> Array:
    if strides > 1:
        x = x[:, ::strides, ::strides]
    return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))


def _depthwise(x: Array, kernel: Array, strides: int, pads: _Pads) -> Array:
    k_h, k_w = kernel.shape[:2]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    h, w = ((x.shape[1 + i] - kernel.shape[i]) // strides + 1 for i in (0, 1))
    out = jnp.zeros((x.shape[0], h, w, x.shape[3]), jnp.float32)
    for i in range(k_h):
        for j in range(k_w):
            tap = x[:, i : i + (h - 1) * strides + 1 : strides, j : j + (w - 1) * strides + 1 : strides]
            out += tap.astype(jnp.float32) * kernel[i, j, 0].astype(jnp.float32)
    return out.astype(x.dtype)


def _cpu(x: Array, kernel: Array, strides: int, pads: _Pads, groups: int) -> Array:
    if kernel.shape[:2] == (1, 1) and groups == 1 and pads == ((0, 0), (0, 0)):
        return _pointwise(x, kernel, strides)
    if groups == x.shape[3] == kernel.shape[3]:
        return _depthwise(x, kernel, strides, pads)
    return _direct(x, kernel, strides, pads, groups)


def _cpu_vjp(
    x: Array, kernel: Array, g: Array, strides: int, pads: _Pads, groups: int
) -> tuple[Array, Array]:
    return jax.vjp(partial(_cpu, strides=strides, pads=pads, groups=groups), x, kernel)[1](g)


def _per_backend(cpu: Callable, other: Callable, *args: Array, **options):
    return lax.platform_dependent(*args, cpu=partial(cpu, **options), default=partial(other, **options))


# The gradient is ours: differentiating through the choice itself would keep the residuals of both branches.
@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _auto(x: Array, kernel: Array, strides: int, pads: _Pads, groups: int) -> Array:
    return _per_backend(_cpu, _direct, x, kernel, strides=strides, pads=pads, groups=groups)


def _auto_fwd(x: Array, kernel: Array, strides: int, pads: _Pads, groups: int):
    return _auto(x, kernel, strides, pads, groups), (x, kernel)


def _auto_bwd(strides: int, pads: _Pads, groups: int, residuals: tuple[Array, Array], g: Array):
    return _per_backend(_cpu_vjp, _direct_vjp, *residuals, g, strides=strides, pads=pads, groups=groups)


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
    dtype: jnp.dtype = jnp.float32
    kernel_init: Callable = he_normal

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, H', W', features]."""
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        x = conv2d(x.astype(self.dtype), kernel, self.strides, self.padding, self.groups, self.lowering)
        if self.use_bias:
            x += self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return x
