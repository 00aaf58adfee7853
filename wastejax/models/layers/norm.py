"""Batch and layer normalization, with gradients written down instead of derived: much less to read and write.

Where a linear map stands beside the normalization, the two are computed as one, so that in training fewer arrays
of activations are read and written: most of a step's time on a CPU goes there.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from wastejax.models.cpu.linear_maps import (
    as_rows,
    dense_dot,
    linear_input_gradient,
    linear_kernel_gradient,
    linear_map,
)
from wastejax.models.cpu.lowering import per_backend
from wastejax.models.layers.conv import conv2d
from wastejax.models.layers.plain import is_plain


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalize(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array, Array]:
    return _normalize_fwd(x, scale, bias, epsilon)[0]


def _normalize_fwd(x: Array, scale: Array, bias: Array, epsilon: float) -> Any:
    wide = x.astype(jnp.float32)
    mean = wide.mean((0, 1, 2))
    var = jnp.maximum(jnp.square(wide).mean((0, 1, 2)) - jnp.square(mean), 0.0)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = wide * (scale * inverse) + (bias - mean * scale * inverse)
    return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _normalize_bwd(epsilon: float, residuals: Any, cotangents: Any) -> tuple[Array, Array, Array]:
    x, scale, mean, inverse = residuals
    wide, g = x.astype(jnp.float32), cotangents[0].astype(jnp.float32)
    count = x.size // x.shape[-1]
    d_bias = g.sum((0, 1, 2))
    d_scale = ((g * wide).sum((0, 1, 2)) - mean * d_bias) * inverse
    # The gradient reaches x along three ways (Ioffe & Szegedy 2015, section 3): itself, the variance, the mean.
    slope = -scale * jnp.square(inverse) * d_scale / count
    d_x = g * (scale * inverse) + wide * slope - (scale * inverse * d_bias / count + slope * mean)
    return d_x.astype(x.dtype), d_scale, d_bias


_normalize.defvjp(_normalize_fwd, _normalize_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _conv_normalize(x: Array, kernel: Array, scale: Array, bias: Array, epsilon: float) -> Any:
    """Returns `_normalize` of the 1x1 convolution of `x` with `kernel` [1, 1, C, F]."""
    return per_backend(_by_moments, _one_by_one, x, kernel, scale, bias, epsilon=epsilon)


def _conv_normalize_fwd(x: Array, kernel: Array, scale: Array, bias: Array, epsilon: float) -> Any:
    return _conv_normalize(x, kernel, scale, bias, epsilon), (x, kernel, scale, bias)


def _conv_normalize_bwd(epsilon: float, residuals: Any, cotangents: Any) -> Any:
    return per_backend(_by_moments_vjp, _one_by_one_vjp, *residuals, cotangents[0], epsilon=epsilon)


_conv_normalize.defvjp(_conv_normalize_fwd, _conv_normalize_bwd)


def _one_by_one(x: Array, kernel: Array, scale: Array, bias: Array, *, epsilon: float) -> Any:
    return _normalize(conv2d(x, kernel, lowering="direct"), scale, bias, epsilon)


def _one_by_one_vjp(x: Array, kernel: Array, scale: Array, bias: Array, g: Array, *, epsilon: float) -> Any:
    normalize = partial(_one_by_one, epsilon=epsilon)
    (_, mean, var), vjp = jax.vjp(normalize, x, kernel, scale, bias)  # XLA finds that it has all this already
    return vjp((g, jnp.zeros_like(mean), jnp.zeros_like(var)))


class _Moments(NamedTuple):
    """Of a map's input x [..., C] and its result z = x W; float32."""

    x_mean: Array  # [C]
    projected: Array  # the covariance of x times W: [C, F]
    mean: Array  # of z, [F]
    var: Array  # of z, [F]


def _moments(x: Array, kernel: Array) -> _Moments:
    """Returns the moments of z without looking at z: cov(z) = W^T cov(x) W, of which the diagonal is wanted."""
    rows, count = as_rows(x), x.size // x.shape[-1]
    x_mean = rows.mean((0, 1), dtype=jnp.float32)
    covariance = linear_kernel_gradient(x, x) / count - x_mean[:, None] * x_mean
    projected = covariance @ kernel
    return _Moments(x_mean, projected, x_mean @ kernel, jnp.maximum((kernel * projected).sum(0), 0.0))


def _by_moments(x: Array, kernel: Array, scale: Array, bias: Array, *, epsilon: float) -> Any:
    """Normalizes by a scaled kernel, for a CPU: the wide result is written once, and read for no statistics."""
    wide = kernel[0, 0].astype(jnp.float32)
    moments = _moments(x, wide)
    factor = scale * jax.lax.rsqrt(moments.var + epsilon)
    z = linear_map(x, (wide * factor).astype(x.dtype)).astype(jnp.float32)
    return (z + (bias - moments.mean * factor)).astype(x.dtype), moments.mean, moments.var


def _by_moments_vjp(x: Array, kernel: Array, scale: Array, bias: Array, g: Array, *, epsilon: float) -> Any:
    """Its gradients. The wide g is read three times and no other such array written or read.

    With y = x (W f) + b - mean f, f = scale / sqrt(var + epsilon), mean = mean(x) W, var = diag(W^T cov(x) W).
    """
    wide, count = kernel[0, 0].astype(jnp.float32), x.size // x.shape[-1]
    moments = _moments(x, wide)
    inverse = jax.lax.rsqrt(moments.var + epsilon)
    factor = scale * inverse
    products, d_bias = linear_kernel_gradient(x, g), g.sum((0, 1, 2), dtype=jnp.float32)
    d_factor = (wide * products).sum(0) - moments.mean * d_bias
    d_var = -0.5 * factor * jnp.square(inverse) * d_factor
    d_kernel = factor * (products - moments.x_mean[:, None] * d_bias) + 2 * moments.projected * d_var
    # cov(x) is a mean of products of x - mean(x) with itself.
    d_covariance = (2 / count) * (wide * d_var) @ wide.T
    d_mean = -(wide @ (factor * d_bias)) / count - moments.x_mean @ d_covariance
    d_x = linear_input_gradient(g, (wide * factor).astype(g.dtype)) + linear_map(
        x, d_covariance.astype(x.dtype)
    )
    d_x = (d_x.astype(jnp.float32) + d_mean).astype(x.dtype)
    return d_x, d_kernel.astype(kernel.dtype)[None, None], d_factor * inverse, d_bias


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy 2015), with flax.linen.BatchNorm's variables and numbers.

    Its gradient is written down instead of derived: that halves its cost on a CPU. None flows through the
    statistics that it stores.

    Attributes:
        use_running_average: normalize by the running statistics instead of the batch's, and leave them alone; may
            be given to the call instead, as in flax.
        momentum: decay rate of the running statistics; the variance is that of the batch, without n / (n - 1).
        epsilon: added to the variance.
        dtype: of the result; statistics and parameters are float32.
    """

    use_running_average: bool | None = None
    momentum: float = 0.9
    epsilon: float = 1e-3
    dtype: Any = jnp.float32

    def __call__(self, x: Array, use_running_average: bool | None = None) -> Array:
        """Normalizes each channel of [B, H, W, C].

        Args:
            x: features.
            use_running_average: where the attribute is None.
        """
        return self._normalize(x, None, use_running_average)

    def of_product(self, x: Array, kernel: Array) -> Array:
        """Normalizes, in training, the 1x1 convolution of [B, H, W, C] with a kernel [1, 1, C, F] of its dtype."""
        return self._normalize(x, kernel, None)

    @nn.compact
    def _normalize(self, x: Array, kernel: Array | None, use_running_average: bool | None) -> Array:
        still = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        shape = (x.shape[-1] if kernel is None else kernel.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        x = x.astype(self.dtype)
        if still:
            factor = scale * jax.lax.rsqrt(var.value + self.epsilon)
            return (x.astype(jnp.float32) * factor + (bias - mean.value * factor)).astype(self.dtype)
        if kernel is None:
            y, batch_mean, batch_var = _normalize(x, scale, bias, self.epsilon)
        else:
            y, batch_mean, batch_var = _conv_normalize(x, kernel, scale, bias, self.epsilon)
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * batch_var
        return y


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _standardise(x: Array, epsilon: float) -> Array:
    """Returns tokens of mean 0 and variance 1; its gradient is right where the mean of that of the result is 0."""
    return _standardise_fwd(x, epsilon)[0]


def _standardise_fwd(x: Array, epsilon: float) -> Any:
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    var = jnp.maximum(jnp.square(wide).mean(-1, keepdims=True) - jnp.square(mean), 0.0)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = ((wide - mean) * inverse).astype(x.dtype)
    return y, (y, inverse)


def _standardise_bwd(epsilon: float, residuals: Any, g: Array) -> tuple[Array]:
    y, inverse = residuals
    wide, g = y.astype(jnp.float32), g.astype(jnp.float32) * inverse
    # XLA gives sums and what leads to them to a library, even the product that g is, which takes longer there;
    # a clamp it computes itself.
    g = jax.lax.clamp(-jnp.inf, g, jnp.inf)
    # Less the mean of g, which is zero: see `LayerNorm`.
    return ((g - wide * (g * wide).mean(-1, keepdims=True)).astype(y.dtype),)


_standardise.defvjp(_standardise_fwd, _standardise_bwd)


class LayerNorm(nn.Module):
    """Layer normalization before a linear map (Ba et al. 2016, eq. 3), with flax.linen.LayerNorm's parameters.

    In training the linear map takes over scale and bias: (s x + b) W = x (s W) + b W, and the gradients of s and b
    follow from those of small arrays. Its kernel less the mean over the input's channels gives the same result, as
    the mean of what is normalized is zero, and so the gradient comes without a mean that would have to be taken
    off. On a CPU that spares several passes over all tokens.

    Attributes:
        epsilon: added to the variance.
        dtype: of the result; statistics and parameters are float32.
    """

    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    def __call__(self, x: Array) -> Array:
        """Normalizes tokens [..., N, C]."""
        return self.before_linear(x)[0]

    @nn.compact
    def before_linear(self, x: Array, train: bool = False) -> tuple[Array, Callable[..., Array]]:
        """Returns the tokens [..., N, C], normalized, and the `dot_general` of the `linear` that follows."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        if is_plain():
            plain = nn.LayerNorm(self.epsilon, dtype=self.dtype, parent=None)
            return cast(Array, plain.apply({"params": {"scale": scale, "bias": bias}}, x)), dense_dot
        x = _standardise(x.astype(self.dtype), self.epsilon)
        if not train:  # exports and int8 weights are to find the kernels as they are
            return (x * scale + bias).astype(self.dtype), dense_dot

        def dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
            wide = kernel.astype(jnp.float32)
            scaled = scale[:, None] * wide
            return dense_dot(x, (scaled - scaled.mean(0)).astype(kernel.dtype)) + (bias @ wide).astype(
                x.dtype
            )

        return x, dot_general
