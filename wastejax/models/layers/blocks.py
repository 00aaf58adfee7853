"""Building blocks shared by the networks: convolution blocks, channel attention (SE, ECA, CBAM), classifier.

Everything is NHWC; parameters are float32, computations are in `dtype`.

A network binds its convolution and normalization to `ConvNormAct` once (`functools.partial`) and hands that
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

from wastejax.models.cpu.linear_maps import dense_dot
from wastejax.models.layers.conv import Conv
from wastejax.models.layers.init import he_normal, linear_init, normal
from wastejax.models.layers.norm import BatchNorm
from wastejax.models.layers.plain import has_composites, is_plain

# Looked up when they are called: while it converts, jax2onnx replaces these functions of flax by operators.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": lambda x: nn.silu(x),
    "relu": lambda x: nn.relu(x),
    "relu6": lambda x: nn.relu6(x),
    "leaky_relu": lambda x: nn.leaky_relu(x),  # slope 0.01
    "hard_swish": lambda x: nn.hard_swish(x),
    "none": lambda x: x,
}


def gelu(x: Array) -> Array:
    """Returns x times the normal distribution's share below it (Hendrycks & Gimpel 2016), by the error function."""

    def exact(x: Array, approximate: str = "none") -> Array:
        return nn.gelu(x, approximate=False)

    # What LiteRT's converter knows it by. It writes an error function as a polynomial, 65 operators.
    return (
        jax.lax.composite(exact, "aten.gelu.default")(x, approximate="none") if has_composites() else exact(x)
    )


linear = partial(nn.Dense, kernel_init=linear_init, dot_general=dense_dot)  # of tokens, [..., N, C]


class ConvNormAct(nn.Module):
    """Convolution, batch normalization, activation.

    Attributes:
        conv, norm: constructors of the two layers.
        features: output channels.
        kernel: side of the square kernel.
        strides: steps of the kernel in both directions.
        depthwise: one kernel per channel; `features` must be the input's channels.
        activation: a key of `ACTIVATIONS`.
    """

    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    features: int
    kernel: int = 3
    strides: int = 1
    depthwise: bool = False
    activation: str = "none"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Maps [B, H, W, C] to [B, H', W', features]."""
        groups = x.shape[-1] if self.depthwise else 1
        conv = self.conv(self.features, self.kernel, self.strides, groups, name="conv")
        norm = self.norm(use_running_average=not train, name="bn")
        x = conv.normalized(x, norm) if train else norm(conv(x))
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
    if is_plain():
        return jnp.mean(x, (1, 2))
    return _settled(x).mean((1, 2), dtype=jnp.float32)


def _settled(x: Array) -> Array:
    """Returns `x`, which on a CPU in bfloat16 is written before it is reduced.

    jaxlib 0.11.2 and 0.12.0 (YNNPACK) make one fusion of ReLU, convolution, ReLU and any reduction there, and that
    gives NaN.
    """
    if x.dtype != jnp.bfloat16:
        return x
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)


def _scale(x: Array, logits: Array) -> Array:
    return x * nn.sigmoid(logits).astype(x.dtype)[:, None, None, :]


class SqueezeExcite(nn.Module):
    """SE: channel attention by two small layers on the pooled features (Hu et al. 2018).

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
    """ECA: channel attention by a bias-free 1-D convolution over the pooled channels (Wang et al. 2020).

    Parameter `kernel` [k], with k of `eca_kernel_size`.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Keeps the shape [B, H, W, C]."""
        channels = x.shape[-1]
        k = eca_kernel_size(channels)
        kernel = self.param("kernel", normal(math.sqrt(1 / k)), (k,), jnp.float32)
        if is_plain():
            return _scale(x, _along_channels(pool(x), kernel))
        # On a card too: slices become part of the one kernel that scales `x`, a convolution is a call of cuDNN.
        pooled = jnp.pad(pool(x), ((0, 0), (k // 2, k // 2)))
        logits = jnp.zeros((x.shape[0], channels), jnp.float32)
        for i in range(k):
            logits += pooled[:, i : i + channels] * kernel[i]
        return _scale(x, logits)


def _along_channels(x: Array, kernel: Array) -> Array:
    """Convolves [B, C] with [k] over the channels, as an image of one column."""
    pads = ((kernel.size // 2,) * 2, (0, 0))
    kernel = kernel[:, None, None, None]
    ends = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x[:, :, None, None], kernel, (1, 1), pads, dimension_numbers=ends)
    return y.reshape(x.shape)


def gated_linear_unit(x: Array) -> Array:
    """Returns value * sigmoid(gate) of the two halves of the channels (Dauphin et al. 2017): [..., C / 2]."""
    value, gate = jnp.split(x, 2, axis=-1)
    return value * nn.sigmoid(gate)


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al. 2018), EfficientNet's MBConv: expand, depthwise, attend, project.

    Attributes:
        layer: `ConvNormAct` with its convolution and normalization bound.
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
        x = _settled(x)
        x = _scale(x, excite(nn.relu(squeeze(pool(x)))) + excite(nn.relu(squeeze(x.max((1, 2))))))
        mean = jnp.mean(x.astype(jnp.float32), -1)  # by the function that jax2onnx knows
        spatial = jnp.stack([mean.astype(x.dtype), x.max(-1)], axis=-1)
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


class Network(nn.Module, kw_only=True):
    """What all networks have; each is called with images, `train` and `features_only`, and ends with `answer`.

    Attributes:
        num_classes: number of logits.
        dropout: rate, before the classifier.
        drop_path: stochastic depth; block i of N gets `drop_path * i / N`.
        head_attention: 'cbam' or 'none', on the features before pooling.
        dtype: of the computation; parameters and logits are float32.
        lowering: of the convolutions, see `conv2d`.
    """

    num_classes: int
    dropout: float = 0.0
    drop_path: float = 0.0
    head_attention: str = "none"
    dtype: Any = jnp.float32
    lowering: str = "auto"

    @nn.nowrap  # operators keep the names that they would have in `__call__`
    def answer(self, x: Array, train: bool, features_only: bool) -> Array:
        """Maps features [B, h, w, D] to logits [B, num_classes], or with `features_only` to what is pooled."""
        if self.head_attention == "cbam":
            x = CBAM(partial(Conv, lowering=self.lowering, dtype=self.dtype), name="head_attention")(x)
        if features_only:
            return x
        return Classifier(self.num_classes, self.dropout, name="classifier")(x, train)


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Returns the rates of `depth` residual blocks, rising from 0 towards `rate` as `rate * i / depth`."""
    return [rate * i / depth for i in range(depth)]
