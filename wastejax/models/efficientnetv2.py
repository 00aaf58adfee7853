"""EfficientNetV2 (Tan & Le 2021), EfficientNet-Lite, and the study's changes to them.

The study's network puts efficient channel attention in every block and leaky ReLU in place of SiLU; its GLU
variant gates the depthwise output with half of its channels.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
from jax import Array

from wastejax.errors import ConfigError
from wastejax.models.layers.blocks import (
    ConvNormAct,
    DropPath,
    EfficientChannelAttention,
    InvertedResidual,
    Network,
    drop_path_rates,
)
from wastejax.models.layers.conv import Conv
from wastejax.models.layers.norm import BatchNorm

MIN_IMAGE_SIZE = 32  # the total stride


class Stage(NamedTuple):
    """Blocks of one kind; the strides belong to the first of them."""

    fused: bool
    repeats: int
    strides: int
    expansion: int
    features: int
    kernel: int = 3


class Size(NamedTuple):
    """One size of the family; `attention`, `activation` and the rates are its defaults for those keys."""

    stem: int
    stages: tuple[Stage, ...]
    head: int = 1280
    dropout: float = 0.2
    drop_path: float = 0.2
    attention: str = "se"
    activation: str = "silu"
    image_size: int = 256


def _stages(*rows: tuple[str, int, int, int, int]) -> tuple[Stage, ...]:
    return tuple(Stage(kind == "F", *rest) for kind, *rest in rows)


def _scaled(base: Size, width: float, depth: float, fixed_ends: bool = False, **changes: Any) -> Size:
    """Scales channels to the nearest multiple of 8 (however far below), and repeats upwards.

    With `fixed_ends` the stem, the head and the repeats of the first and last stage stay: the rule of
    EfficientNet-Lite, which also forbids to round to less than 90 %, as no width here does.
    """

    def channels(value: int) -> int:
        return max(8, int(value * width + 4) // 8 * 8)

    stages = [
        stage._replace(repeats=math.ceil(stage.repeats * depth), features=channels(stage.features))
        for stage in base.stages
    ]
    stem, head = channels(base.stem), channels(base.head)
    if fixed_ends:
        stem, head = base.stem, base.head
        stages[0] = stages[0]._replace(repeats=base.stages[0].repeats)
        stages[-1] = stages[-1]._replace(repeats=base.stages[-1].repeats)
    return base._replace(stem=stem, stages=tuple(stages), head=head, **changes)


_B0 = Size(
    32,
    _stages(
        ("F", 1, 1, 1, 16),
        ("F", 2, 2, 4, 32),
        ("F", 2, 2, 4, 48),
        ("M", 3, 2, 4, 96),
        ("M", 5, 1, 6, 112),
        ("M", 8, 2, 6, 192),
    ),
    image_size=224,
)

# Tan & Le 2019's B0 without squeeze-and-excitation and with ReLU6 (tensorflow/tpu, efficientnet/lite).
_LITE0 = Size(
    32,
    (
        Stage(False, 1, 1, 1, 16, 3),
        Stage(False, 2, 2, 6, 24, 3),
        Stage(False, 2, 2, 6, 40, 5),
        Stage(False, 3, 2, 6, 80, 3),
        Stage(False, 3, 1, 6, 112, 5),
        Stage(False, 4, 2, 6, 192, 5),
        Stage(False, 1, 1, 6, 320, 3),
    ),
    attention="none",
    activation="relu6",
    image_size=224,
)

SIZES: dict[str, Size] = {
    "b0": _B0,
    "b1": _scaled(_B0, 1.0, 1.1, image_size=256),
    "b2": _scaled(_B0, 1.1, 1.2, image_size=256, dropout=0.3),
    "b3": _scaled(_B0, 1.2, 1.4, image_size=256, dropout=0.3),
    "s": Size(
        24,
        _stages(
            ("F", 2, 1, 1, 24),
            ("F", 4, 2, 4, 48),
            ("F", 4, 2, 4, 64),
            ("M", 6, 2, 4, 128),
            ("M", 9, 1, 6, 160),
            ("M", 15, 2, 6, 256),
        ),
    ),
    "m": Size(
        24,
        _stages(
            ("F", 3, 1, 1, 24),
            ("F", 5, 2, 4, 48),
            ("F", 5, 2, 4, 80),
            ("M", 7, 2, 4, 160),
            ("M", 14, 1, 6, 176),
            ("M", 18, 2, 6, 304),
            ("M", 5, 1, 6, 512),
        ),
        dropout=0.3,
    ),
    "lite0": _LITE0,
    "lite1": _scaled(_LITE0, 1.0, 1.1, fixed_ends=True, image_size=240),
    "lite2": _scaled(_LITE0, 1.1, 1.2, fixed_ends=True, image_size=260, dropout=0.3),
    # Ours, for tests and demonstrations: every kind of block, a few seconds to compile.
    "tiny": Size(
        16,
        _stages(
            ("F", 1, 1, 1, 16),
            ("F", 2, 2, 4, 24),
            ("F", 1, 2, 4, 32),
            ("M", 2, 2, 4, 48),
            ("M", 2, 2, 6, 64),
        ),
        head=256,
        dropout=0.1,
        drop_path=0.0,
        image_size=96,
    ),
}


class FusedMBConv(nn.Module):
    """One dense convolution in place of expansion and depthwise convolution (Tan & Le 2021, fig. 2).

    Attributes:
        layer: `ConvNormAct` with its convolution and normalization bound.
        stage: the block's stage.
        strides: of the dense convolution; 1 with equal channels adds the input to the output.
        activation: a key of `ACTIVATIONS`; none after the projection.
        attention: after the dense convolution's activation, 'eca' or 'none'.
        drop_path: rate of stochastic depth.
    """

    layer: Any
    stage: Stage
    strides: int
    activation: str
    attention: str = "none"
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Maps [B, H, W, C] to [B, H / strides, W / strides, features]."""
        shortcut, channels, stage = x, x.shape[-1], self.stage
        inner = stage.features if stage.expansion == 1 else channels * stage.expansion
        fused = self.layer(inner, stage.kernel, self.strides, activation=self.activation, name="fused")
        x = fused(x, train)
        if self.attention == "eca":
            x = EfficientChannelAttention(name="attention")(x)
        if stage.expansion != 1:
            x = self.layer(stage.features, kernel=1, name="project")(x, train)
        if self.strides == 1 and stage.features == channels:
            x = shortcut + DropPath(self.drop_path)(x, train)
        return x


class EfficientNetV2(Network):
    """The network; see `SIZES` for the sizes and configs/common.py for the keys.

    Attributes:
        size: widths and depths.
        attention: in the MBConv blocks.
        fused_attention: in the Fused-MBConv blocks.
        activation: everywhere but after projections.
    """

    size: Size
    attention: str = "se"
    fused_attention: str = "none"
    activation: str = "silu"

    @nn.compact
    def __call__(self, images: Array, train: bool = False, features_only: bool = False) -> Array:
        """Maps normalized images [B, H, W, 3] to logits [B, num_classes], float32.

        With `features_only` to what the classifier pools: [B, ceil(H / 32), ceil(W / 32), head], in `dtype`.
        """
        conv = partial(Conv, lowering=self.lowering, dtype=self.dtype)
        norm = partial(BatchNorm, momentum=0.9, epsilon=1e-3, dtype=self.dtype)
        layer = partial(ConvNormAct, conv, norm)
        rates = iter(drop_path_rates(self.drop_path, sum(stage.repeats for stage in self.size.stages)))
        x = layer(self.size.stem, strides=2, activation=self.activation, name="stem")(images, train)
        for s, stage in enumerate(self.size.stages):
            for b in range(stage.repeats):
                strides = stage.strides if b == 0 else 1
                x = self._block(layer, stage, strides, next(rates), f"stage{s}_block{b}")(x, train)
        x = layer(self.size.head, kernel=1, activation=self.activation, name="head")(x, train)
        return self.answer(x, train, features_only)

    def _block(self, layer: Any, stage: Stage, strides: int, drop_path: float, name: str) -> nn.Module:
        if stage.fused:
            return FusedMBConv(
                layer, stage, strides, self.activation, self.fused_attention, drop_path, name=name
            )
        return InvertedResidual(
            layer,
            stage.features,
            strides,
            stage.expansion,
            stage.kernel,
            self.activation,
            self.attention,
            drop_path,
            name=name,
        )


def check(config: Mapping[str, Any], image_size: int) -> None:
    """Raises ConfigError for an image smaller than the network's total stride."""
    if image_size < MIN_IMAGE_SIZE:
        raise ConfigError("config.data.image_size", f"must be >= {MIN_IMAGE_SIZE}, is {image_size}")
