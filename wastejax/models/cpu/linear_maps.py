"""Linear maps of [..., C], 1x1 convolutions among them, with the gradients that are the fastest on a CPU."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from wastejax.models.cpu.lowering import per_backend

# Found by measuring shapes of EfficientNetV2 and MobileViT at 96 to 256 px on two AVX2 or AVX-512 cores.
_SPLIT_ROWS = 1 << 13  # rows from which on a sum over rows is worth splitting in two


def as_rows(x: Array) -> Array:
    """Returns [..., C] as [parts, N, C], the shape in which every product of a linear map takes it in training.

    If two took it in two shapes, XLA would compute it twice. For the parts see `linear_kernel_gradient`.
    """
    count = x.size // x.shape[-1]
    parts = 2 if count >= _SPLIT_ROWS and count % 2 == 0 else 1
    return x.reshape(parts, count // parts, x.shape[-1])


def _products(a: Array, b: Array, axes: tuple[int, int]) -> Array:
    """Returns the products of matrices over one axis of each, part by part: float32 [parts, ., .]."""

    def product(a: Array, b: Array) -> Array:
        contracted = ((axes[0],), (axes[1],))
        return lax.dot_general(a, b, (contracted, ((), ())), preferred_element_type=jnp.float32)

    # Of one part as XLA would do it too, but then without the name by which a profile knows it.
    return product(a[0], b[0])[None] if len(a) == 1 else jax.vmap(product)(a, b)


def linear_map(x: Array, kernel: Array, axis: int = 0) -> Array:
    """Maps [..., C] by a kernel [C, F], of which `axis` is summed over, to [..., F]; with 1 it maps [..., F] back.

    A CPU's form of it, as are the two gradients below: the caller has written down its own.
    """
    rows = as_rows(x)
    kernels = jnp.broadcast_to(kernel, (len(rows), *kernel.shape))
    return _products(rows, kernels, (1, axis)).reshape(*x.shape[:-1], -1).astype(x.dtype)


@jax.named_scope("linear_input_gradient")
def linear_input_gradient(g: Array, kernel: Array) -> Array:
    """Returns the gradient of the input of `linear_map`: [..., C], of [..., F] and the kernel [C, F]."""
    return linear_map(g, kernel, 1)


@jax.named_scope("linear_kernel_gradient")
def linear_kernel_gradient(x: Array, g: Array) -> Array:
    """Returns that of the kernel: float32 [C, F], of [..., C] and [..., F]."""
    # A sum over many rows keeps one thread busy, those over two halves of them two. Of its operands the first is
    # the one that is read across its rows: let it be the narrower. XLA would swap them back to spare the small
    # transpose, but for the barrier.
    if g.shape[-1] < x.shape[-1]:
        return lax.optimization_barrier(_products(as_rows(g), as_rows(x), (0, 0)).sum(0)).T
    return _products(as_rows(x), as_rows(g), (0, 0)).sum(0)


def linear_map_vjp(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    """Returns both gradients, each of the dtype of what it is for."""
    return linear_input_gradient(g, kernel), linear_kernel_gradient(x, g).astype(kernel.dtype)


def _plain_dot(x: Array, kernel: Array) -> Array:
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _plain_dot_vjp(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    return jax.vjp(_plain_dot, x, kernel)[1](g)


@jax.custom_vjp
def _dot(x: Array, kernel: Array) -> Array:
    return _plain_dot(x, kernel)


def _dot_fwd(x: Array, kernel: Array) -> Any:
    return per_backend(linear_map, _plain_dot, x, kernel), (x, kernel)


def _dot_bwd(residuals: tuple[Array, Array], g: Array) -> Any:
    return per_backend(linear_map_vjp, _plain_dot_vjp, *residuals, g)


_dot.defvjp(_dot_fwd, _dot_bwd)


def dense_dot(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """The product of a linear layer, for `nn.Dense(dot_general=…)`: a 1x1 convolution's gradient is the faster one.

    Args:
        x: [..., N, C].
        kernel: [C, features].

    Returns:
        [..., N, features].
    """
    return _dot(x, kernel)
