"""Building blocks shared by the networks. All is NHWC; parameters are float32, computing is in `dtype`.

A network binds its convolution and normalisation to `ConvNormAct` once (`functools.partial`) and hands that
`layer` down, so padding, lowering, dtype and epsilon are decided in one place.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from wastejax.models.conv import Conv, dense_dot
from wastejax.models.initialise import he_normal, linear_init, normal

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": nn.silu,
    "relu": nn.relu,
    "relu6": nn.relu6,
    "leaky_relu": nn.leaky_relu,  # slope 0.01
    "hard_swish": nn.hard_swish,
    "none": lambda x: x,
}

linear = partial(nn.Dense, kernel_init=linear_init, dot_general=dense_dot)  # of tokens, [..., N, C]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalise(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array, Array]:
    return _normalise_fwd(x, scale, bias, epsilon)[0]


def _normalise_fwd(x: Array, scale: Array, bias: Array, epsilon: float) -> Any:
    wide = x.astype(jnp.float32)
    mean = wide.mean((0, 1, 2))
    var = jnp.maximum(jnp.square(wide).mean((0, 1, 2)) - jnp.square(mean), 0.0)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = wide * (scale * inverse) + (bias - mean * scale * inverse)
    return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _normalise_bwd(epsilon: float, residuals: Any, cotangents: Any) -> tuple[Array, Array, Array]:
    x, scale, mean, inverse = residuals
    wide, g = x.astype(jnp.float32), cotangents[0].astype(jnp.float32)
    count = x.size // x.shape[-1]
    d_bias = g.sum((0, 1, 2))
    d_scale = ((g * wide).sum((0, 1, 2)) - mean * d_bias) * inverse
    # The gradient reaches x along three ways (Ioffe & Szegedy 2015, section 3): itself, the variance, the mean.
    slope = -scale * jnp.square(inverse) * d_scale / count
    d_x = g * (scale * inverse) + wide * slope - (scale * inverse * d_bias / count + slope * mean)
    return d_x.astype(x.dtype), d_scale, d_bias


_normalise.defvjp(_normalise_fwd, _normalise_bwd)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015), with flax.linen.BatchNorm's variables and numbers.

    Its gradient is written down instead of derived: that halves its cost on a CPU. None flows through the
    statistics that it stores.

    Attributes:
        use_running_average: normalise by the running statistics instead of the batch's, and leave them alone.
        momentum: decay rate of the running statistics; the variance is that of the batch, without n / (n - 1).
        epsilon: added to the variance.
        dtype: of the result; statistics and parameters are float32.
    """

    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalises each channel of [B, H, W, C]."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        x = x.astype(self.dtype)
        if self.use_running_average:
            factor = scale * jax.lax.rsqrt(var.value + self.epsilon)
            return (x.astype(jnp.float32) * factor + (bias - mean.value * factor)).astype(self.dtype)
        y, batch_mean, batch_var = _normalise(x, scale, bias, self.epsilon)
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * batch_var
        return y


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _standardise(x: Array, epsilon: float) -> Array:
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
    # Without the barrier XLA would put the product that `g` is into the sums below, where it is slower.
    wide, g = y.astype(jnp.float32), jax.lax.optimization_barrier(g.astype(jnp.float32))
    d_x = (g - g.mean(-1, keepdims=True) - wide * (g * wide).mean(-1, keepdims=True)) * inverse
    return (d_x.astype(y.dtype),)


_standardise.defvjp(_standardise_fwd, _standardise_bwd)


class LayerNorm(nn.Module):
    """Layer normalisation before a linear map (Ba et al. 2016, eq. 3), with flax.linen.LayerNorm's parameters.

    In training the linear map takes over scale and bias: (s x + b) W = x (s W) + b W, and the gradients of s and b
    follow from those of small arrays. On a CPU that spares several passes over all tokens.

    Attributes:
        epsilon: added to the variance.
        dtype: of the result; statistics and parameters are float32.
    """

    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Callable[..., Array]]:
        """Returns the tokens [..., N, C], normalised, and the `dot_general` of the `linear` that follows."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        x = _standardise(x.astype(self.dtype), self.epsilon)
        if not train:  # exports and int8 weights are to find the kernels as they are
            return (x * scale + bias).astype(self.dtype), dense_dot

        def dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
            wide = kernel.astype(jnp.float32)
            scaled = (scale[:, None] * wide).astype(kernel.dtype)
            return dense_dot(x, scaled) + (bias @ wide).astype(x.dtype)

        return x, dot_general


class ConvNormAct(nn.Module):
    """Convolution, batch normalisation, activation.

    Attributes:
        conv, norm: constructors of the two layers.
        features: output channels.
        kernel: side of the square kernel.
        strides: steps of the kernel in both directions.
        depthwise: one kernel per channel; `features` must be the input's channels.
        activation: a key of `ACTIVATIONS`.
    """

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    features: int
    kernel: int = 3
    strides: int = 1
    depthwise: bool = False
    activation: str = "none"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Maps [B, H, W, C] to [B, H', W', features]."""
        groups = x.shape[-1] if self.depthwise else 1
        x = self.conv(self.features, self.kernel, self.strides, groups, name="conv")(x)
        x = self.norm(use_running_average=not train, name="bn")(x)
        act = ACTIVATIONS[self.activation]
        # Computing it again for its gradient costs less than keeping what that needs: 12 % of a step on a CPU.
        return jax.checkpoint(act)(x) if train and self.activation != "none" else act(x)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): drops a residual branch for whole samples, with rng 'dropout'.

    Attributes:
        rate: probability of dropping; survivors are scaled by 1 / (1 - rate).
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Keeps the shape [B, ...]."""
        if self.rate == 0.0 or not train:
            return x
        keep = 1.0 - self.rate
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, (x.shape[0],) + (1,) * (x.ndim - 1))
        return x * (kept / keep).astype(x.dtype)


def pool(x: Array) -> Array:
    """Returns the mean over positions of [B, H, W, C] as float32 [B, C]."""
    return x.mean((1, 2), dtype=jnp.float32)


def _scale(x: Array, logits: Array) -> Array:
    return x * nn.sigmoid(logits).astype(x.dtype)[:, None, None, :]


class SqueezeExcite(nn.Module):
    """Channel attention by two small layers on the pooled features (Hu et al. 2018).

    Attributes:
        reduced: width between the two layers.
        activation: between the two layers, a key of `ACTIVATIONS`.
    """

    reduced: int
    activation: str = "silu"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Keeps the shape [B, H, W, C]."""
        s = nn.Dense(self.reduced, kernel_init=he_normal, dtype=x.dtype, name="reduce")(pool(x))
        s = nn.Dense(x.shape[-1], kernel_init=he_normal, dtype=x.dtype, name="expand")(
            ACTIVATIONS[self.activation](s)
        )
        return _scale(x, s)


def eca_kernel_size(channels: int) -> int:
    """Returns the odd kernel width of channel attention (Wang et al. 2020, ECA-Net, eq. 12; gamma 2, b 1)."""
    t = int(abs(math.log2(channels) + 1) / 2)
    return max(t if t % 2 else t + 1, 3)


class EfficientChannelAttention(nn.Module):
    """Channel attention by a bias-free 1-D convolution over the pooled channels (Wang et al. 2020).

    Parameter `kernel` [k], with k of `eca_kernel_size`.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Keeps the shape [B, H, W, C]."""
        channels = x.shape[-1]
        k = eca_kernel_size(channels)
        kernel = self.param("kernel", normal(math.sqrt(1 / k)), (k,), jnp.float32)
        pooled = jnp.pad(pool(x), ((0, 0), (k // 2, k // 2)))
        logits = jnp.zeros((x.shape[0], channels), jnp.float32)
        for i in range(k):
            logits += pooled[:, i : i + channels] * kernel[i]
        return _scale(x, logits)


def gated_linear_unit(x: Array) -> Array:
    """Returns value * sigmoid(gate) of the two halves of the channels (Dauphin et al. 2017): [..., C / 2]."""
    value, gate = jnp.split(x, 2, axis=-1)
    return value * nn.sigmoid(gate)


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al. 2018), EfficientNet's MBConv: expand, depthwise, attend, project.

    Attributes:
        layer: `ConvNormAct` with its convolution and normalisation bound.
        features: output channels.
        strides: of the depthwise convolution; 1 with equal channels adds the input to the output.
        expansion: inner width over input width; 1 leaves the first convolution out.
        kernel: side of the depthwise kernel.
        activation: a key of `ACTIVATIONS`; none after the projection.
        attention: on the depthwise output, 'se', 'eca', 'glu' or 'none'.
        drop_path: rate of stochastic depth.
    """

    layer: Callable[..., nn.Module]
    features: int
    strides: int = 1
    expansion: int = 4
    kernel: int = 3
    activation: str = "silu"
    attention: str = "none"
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Maps [B, H, W, C] to [B, H / strides, W / strides, features]."""
        shortcut, channels, act = x, x.shape[-1], self.activation
        inner = channels * self.expansion
        if self.expansion != 1:
            x = self.layer(inner, kernel=1, activation=act, name="expand")(x, train)
        depthwise = self.layer(
            inner, self.kernel, self.strides, depthwise=True, activation=act, name="depthwise"
        )
        x = depthwise(x, train)
        if self.attention == "se":
            x = SqueezeExcite(max(1, channels // 4), act, name="attention")(x)
        elif self.attention == "eca":
            x = EfficientChannelAttention(name="attention")(x)
        elif self.attention == "glu":
            x = gated_linear_unit(x)
        x = self.layer(self.features, kernel=1, name="project")(x, train)
        if self.strides == 1 and self.features == channels:
            x = shortcut + DropPath(self.drop_path)(x, train)
        return x


class CBAM(nn.Module):
    """Channel attention, then spatial attention (Woo et al. 2018, CBAM, eqs. 2 and 3).

    Attributes:
        conv: constructor of the 7x7 convolution over positions.
        reduction: input width over the width inside the channel attention.
    """

    conv: Callable[..., nn.Module] = Conv
    reduction: int = 16

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Keeps the shape [B, H, W, C]."""
        channels = x.shape[-1]
        dense = partial(nn.Dense, use_bias=False, kernel_init=he_normal, dtype=x.dtype)
        squeeze = dense(max(1, channels // self.reduction), name="channel_reduce")
        excite = dense(channels, name="channel_expand")
        x = _scale(x, excite(nn.relu(squeeze(pool(x)))) + excite(nn.relu(squeeze(x.max((1, 2))))))
        spatial = jnp.stack([x.mean(-1, dtype=jnp.float32).astype(x.dtype), x.max(-1)], axis=-1)
        return x * nn.sigmoid(self.conv(1, 7, name="spatial")(spatial))


class Classifier(nn.Module):
    """Mean over positions, dropout, linear layer; parameters `kernel` [C, num_classes] and `bias`.

    The layer alone, on features without pooling, gives one set of logits per position; their mean is this.

    Attributes:
        num_classes: number of logits.
        dropout: rate, on the pooled features.
    """

    num_classes: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Maps features [B, H, W, C] of any dtype to float32 logits [B, num_classes]."""
        x = nn.Dropout(self.dropout, deterministic=not train)(pool(x))
        kernel = self.param("kernel", linear_init, (x.shape[-1], self.num_classes), jnp.float32)
        return x @ kernel + self.param("bias", nn.initializers.zeros, (self.num_classes,), jnp.float32)


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Returns the rates of `depth` residual blocks, rising from 0 towards `rate` as `rate * i / depth`."""
    return [rate * i / depth for i in range(depth)]
