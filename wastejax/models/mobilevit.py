"""MobileViT (Mehta & Rastegari 2022), and the study's changes to it.

The study replaces the self-attention of each MobileViT block by inverted residuals on the feature map, and
tries a 5x5 convolution in the block's local part.
"""

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from wastejax.errors import ConfigError
from wastejax.models.layers.attention import attend
from wastejax.models.layers.blocks import (
    ConvNormAct,
    DropPath,
    InvertedResidual,
    Network,
    drop_path_rates,
    linear,
)
from wastejax.models.layers.conv import Conv
from wastejax.models.layers.norm import BatchNorm, LayerNorm

HEADS = 4
PATCH = 2
TOTAL_STRIDE = 32


class Size(NamedTuple):
    """One size of the family; `depths` and the rates are its defaults for those keys."""

    channels: tuple[int, int, int, int, int]  # of the five stages
    dims: tuple[int, int, int]  # of the mixers in the last three
    mv2_expansion: int
    stem: int = 16
    depths: tuple[int, int, int] = (2, 4, 3)
    dropout: float = 0.1
    drop_path: float = 0.0
    image_size: int = 256


SIZES: dict[str, Size] = {
    "xxs": Size((16, 24, 48, 64, 80), (64, 80, 96), 2),
    "xs": Size((32, 48, 64, 80, 96), (96, 120, 144), 4),
    "s": Size((32, 64, 96, 128, 160), (144, 192, 240), 4),
    # Ours, for tests and demonstrations.
    "tiny": Size((16, 24, 32, 48, 64), (48, 64, 80), 2, depths=(1, 2, 1), image_size=128),
}


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and feed-forward layer (Dosovitskiy et al. 2021, eqs. 2 and 3).

    Attributes:
        heads: attention heads; must divide the width.
        drop_path: rate of stochastic depth of both branches.
        dtype: of the computation.
    """

    heads: int = HEADS
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Keeps the shape [B, N, D]: batch, tokens, width."""
        B, N, D = x.shape
        dense = partial(linear, dtype=self.dtype)
        norm = partial(LayerNorm, dtype=self.dtype)
        drop = DropPath(self.drop_path)
        y, dot = norm(name="norm1").before_linear(x, train)
        qkv = dense(3 * D, name="qkv", dot_general=dot)(y).reshape(B, N, 3, self.heads, D // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        y = attend(query, key, value).reshape(B, N, D)
        x = x + drop(dense(D, name="proj")(y), train)
        y, dot = norm(name="norm2").before_linear(x, train)
        y = nn.silu(dense(2 * D, name="fc1", dot_general=dot)(y))
        return x + drop(dense(D, name="fc2")(y), train)


def unfold(x: Array) -> Array:
    """Splits [B, H, W, D] by the position in its 2x2 patch: [4 B, H W / 4, D], one token per patch."""
    B, H, W, D = x.shape
    x = x.reshape(B, H // PATCH, PATCH, W // PATCH, PATCH, D).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(B * PATCH**2, H * W // PATCH**2, D)


def fold(tokens: Array, shape: tuple[int, ...]) -> Array:
    """Undoes `unfold` for a feature map of `shape` [B, H, W, D]."""
    B, H, W, D = shape
    x = tokens.reshape(B, PATCH, PATCH, H // PATCH, W // PATCH, D).transpose(0, 3, 1, 4, 2, 5)
    return x.reshape(B, H, W, D)


class MobileViTBlock(nn.Module):
    """Local convolutions, a global mixer, and their fusion with the input (Mehta & Rastegari 2022, fig. 1b).

    Attributes:
        conv: constructor of a convolution.
        layer: `ConvNormAct` with its convolution and normalization bound.
        dim: width of the mixer.
        drop_path: one rate of stochastic depth for each mixer layer.
        mixer, expansion, local_kernel, local_depthwise: see `MobileViT`.
    """

    conv: Any
    layer: Any
    dim: int
    drop_path: tuple[float, ...]
    mixer: str
    expansion: int
    local_kernel: str
    local_depthwise: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Keeps the shape [B, H, W, C]; H and W are even where the mixer is attention."""
        shortcut, channels = x, x.shape[-1]
        layer = partial(self.layer, activation="silu")
        if self.local_kernel != "replace_5x5":
            x = layer(channels, kernel=3, name="local")(x, train)
        if self.local_kernel != "3x3":
            x = layer(channels, kernel=5, depthwise=self.local_depthwise, name="local_5x5")(x, train)
        x = self.conv(self.dim, kernel=1, name="embed")(x)
        mix = {"attention": self._attention, "inverted_residual": self._inverted_residuals}
        x = mix.get(self.mixer, self._own)(x, train)
        x = layer(channels, kernel=1, name="project")(x, train)
        return layer(channels, kernel=3, name="fuse")(jnp.concatenate([shortcut, x], axis=-1), train)

    def _attention(self, x: Array, train: bool) -> Array:
        tokens = unfold(x)
        for i, rate in enumerate(self.drop_path):
            tokens = TransformerLayer(HEADS, rate, self.dtype, name=f"mixer{i}")(tokens, train)
        # Each token is normalized for itself, so it may be folded first: on a CPU that is the faster order.
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(fold(tokens, x.shape))

    def _inverted_residuals(self, x: Array, train: bool) -> Array:
        for i, rate in enumerate(self.drop_path):
            block = InvertedResidual(
                self.layer, self.dim, 1, self.expansion, activation="relu6", drop_path=rate, name=f"mixer{i}"
            )
            x = block(x, train)
        return x

    def _own(self, x: Array, train: bool) -> Array:
        kind = own_mixer(self.mixer)
        for i, rate in enumerate(self.drop_path):
            x = kind(drop_path=rate, dtype=self.dtype, name=f"mixer{i}")(x, train)
        return x


def own_mixer(name: str) -> Any:
    """Returns the class that a value of `mixer` names as 'MODULE:CLASS'; see docs/guides/own-mixer.md.

    Raises:
        ConfigError: there is none, or it is not a Linen module.
    """
    module, _, member = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module), member)
    except (ImportError, AttributeError) as error:
        hint = "; is its folder on PYTHONPATH?" if isinstance(error, ModuleNotFoundError) else ""
        raise ConfigError("config.model.mixer", f"{name}: {error}{hint}") from None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ConfigError("config.model.mixer", f"{name} is not a Linen module")
    return kind


class MobileViT(Network):
    """The network; see `SIZES` for the sizes. Stochastic depth is that of the mixers' layers.

    Attributes:
        size: widths.
        mixer: 'attention' (the paper's), 'inverted_residual' (the study's) or 'MODULE:CLASS', see `own_mixer`.
        expansion: inner width over width of the study's mixer.
        depths: mixer layers in each of the last three stages.
        local_kernel: of the local convolution: '3x3', '3x3' and a 5x5 after it ('add_5x5'), or 5x5
            ('replace_5x5').
        local_depthwise: whether the 5x5 is depthwise.
    """

    size: Size
    mixer: str = "attention"
    expansion: int = 2
    depths: tuple[int, ...] = (2, 4, 3)
    local_kernel: str = "3x3"
    local_depthwise: bool = True

    @nn.compact
    def __call__(self, images: Array, train: bool = False, features_only: bool = False) -> Array:
        """Maps images [B, H, W, 3] in [0, 1] to logits [B, num_classes], float32.

        With `features_only` to what the classifier pools: [B, ceil(H / 32), ceil(W / 32), head], in `dtype`.
        """
        conv = partial(Conv, padding="SYMMETRIC", lowering=self.lowering, dtype=self.dtype)
        norm = partial(BatchNorm, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
        layer = partial(ConvNormAct, conv, norm)
        mv2 = partial(InvertedResidual, layer, expansion=self.size.mv2_expansion)
        channels, rates = self.size.channels, drop_path_rates(self.drop_path, sum(self.depths))
        x = layer(self.size.stem, strides=2, activation="silu", name="stem")(images, train)
        x = mv2(channels[0], name="stage0_block0")(x, train)
        for b, strides in enumerate((2, 1, 1)):
            x = mv2(channels[1], strides, name=f"stage1_block{b}")(x, train)
        for s, (features, dim, depth) in enumerate(
            zip(channels[2:], self.size.dims, self.depths, strict=True), 2
        ):
            x = mv2(features, 2, name=f"stage{s}_block0")(x, train)
            start = sum(self.depths[: s - 2])
            x = MobileViTBlock(
                conv,
                layer,
                dim,
                tuple(rates[start : start + depth]),
                self.mixer,
                self.expansion,
                self.local_kernel,
                self.local_depthwise,
                self.dtype,
                name=f"stage{s}_block1",
            )(x, train)
        x = layer(4 * channels[-1], kernel=1, activation="silu", name="head")(x, train)
        return self.answer(x, train, features_only)


def check(config: Mapping[str, Any], image_size: int) -> None:
    """Raises ConfigError for impossible mixers, and for image sizes that they cannot take."""
    if len(config["depths"]) != 3:
        raise ConfigError("config.model.depths", f"must be three integers, is {config['depths']}")
    if image_size < TOTAL_STRIDE:
        raise ConfigError("config.data.image_size", f"must be >= {TOTAL_STRIDE}, is {image_size}")
    if ":" in config["mixer"]:
        own_mixer(config["mixer"])
    step = TOTAL_STRIDE * PATCH
    if config["mixer"] == "attention" and image_size % step:
        raise ConfigError(
            "config.data.image_size",
            f"must be a multiple of {step}, is {image_size}: attention takes {PATCH}x{PATCH} patches of"
            f" features at stride {TOTAL_STRIDE} (mixer 'inverted_residual' takes any size)",
        )
