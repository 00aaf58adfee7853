"""PyramidNet (Han et al. 2017): a residual network whose width grows a little in every block."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from wastejax.errors import ConfigError
from wastejax.models.layers.blocks import ConvNormAct, DropPath, Network, drop_path_rates
from wastejax.models.layers.conv import Conv
from wastejax.models.layers.norm import BatchNorm
from wastejax.models.layers.plain import is_plain

BOTTLENECK = 4  # output over inner width

# Blocks per stage with the ImageNet stem, as in He et al. 2016, table 1: depth -> (bottleneck, blocks).
IMAGENET_DEPTHS: dict[int, tuple[bool, tuple[int, int, int, int]]] = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
    200: (True, (3, 24, 36, 3)),
}


class Size(NamedTuple):
    """One size of the family; every field is the default of the key of its name."""

    stem: str
    depth: int
    alpha: int
    bottleneck: bool
    image_size: int
    dropout: float = 0.0
    drop_path: float = 0.0


SIZES: dict[str, Size] = {
    "110_a48": Size("cifar", 110, 48, False, 32),
    "110_a84": Size("cifar", 110, 84, False, 32),
    "110_a270": Size("cifar", 110, 270, False, 32),
    "164_a270": Size("cifar", 164, 270, True, 32),
    "272_a200": Size("cifar", 272, 200, True, 32),
    "18_a48": Size("imagenet", 18, 48, False, 224),  # ours: small enough to train on a CPU
    "101_a360": Size("imagenet", 101, 360, True, 224),
    # Ours, for tests and demonstrations.
    "tiny": Size("cifar", 8, 16, False, 32),
}


def blocks_per_stage(stem: str, depth: int, bottleneck: bool) -> tuple[int, ...]:
    """Returns how many residual blocks each stage has.

    Args:
        stem: 'cifar' (three stages of equal depth) or 'imagenet' (four, see `IMAGENET_DEPTHS`).
        depth: weighted layers: the blocks', the stem and the classifier.
        bottleneck: blocks of three convolutions instead of two.

    Raises:
        ConfigError: no network has this depth.
    """
    if stem == "cifar":
        step = 9 if bottleneck else 6
        if depth < step + 2 or (depth - 2) % step:
            raise ConfigError("config.model.depth", f"must be {step} n + 2 with n >= 1, is {depth}")
        return ((depth - 2) // step,) * 3
    kinds = {d: blocks for d, (kind, blocks) in IMAGENET_DEPTHS.items() if kind == bottleneck}
    if depth not in kinds:
        raise ConfigError(
            "config.model.depth",
            f"must be one of {', '.join(map(str, kinds))} (bottleneck={bottleneck}), is {depth}",
        )
    return kinds[depth]


def widths(start: int, alpha: int, blocks: int) -> list[int]:
    """Returns the width of each block: start + alpha * k / blocks, rounded (Han et al. 2017, eq. 3)."""
    return [math.floor(start + alpha * k / blocks + 0.5) for k in range(1, blocks + 1)]


def average_2x2(x: Array) -> Array:
    """Averages 2x2 neighbors of [B, H, W, C]; at the end of an odd side, those that there are.

    In slices, not by a pooling window: jaxlib 0.10.2 makes one fusion of that and the blocks around it and
    crashes on a CPU (YNNPACK). An even side is left as it is: jax2onnx makes a wrong graph of padding by nothing.
    """
    _, H, W, _ = x.shape
    if H % 2:
        x = jnp.concatenate([x, x[:, -1:]], 1)
    if W % 2:
        x = jnp.concatenate([x, x[:, :, -1:]], 2)
    if is_plain():
        return nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
    return (x[:, ::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, ::2] + x[:, 1::2, 1::2]) / 4


class PyramidBlock(nn.Module):
    """Residual block without an activation before its first convolution (Han et al. 2017, fig. 6d).

    The shortcut has no parameters: averages of 2x2 at stride 2, and zeros for the channels that are new.

    Attributes:
        conv, norm: constructors of the two layers.
        width: of the 3x3 convolutions.
        strides: of the first 3x3 convolution, 1 or 2.
        bottleneck: 1x1, 3x3, and 1x1 to `BOTTLENECK` times the width, instead of 3x3 twice.
        drop_path: rate of stochastic depth.
    """

    conv: Any
    norm: Any
    width: int
    strides: int = 1
    bottleneck: bool = False
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Maps [B, H, W, C] to [B, ceil(H / strides), ceil(W / strides), width, or 4 times that]."""
        shortcut, width, strides = x, self.width, self.strides
        layers = [(width, 3, strides), (width, 3, 1)]
        if self.bottleneck:
            layers = [(width, 1, 1), (width, 3, strides), (width * BOTTLENECK, 1, 1)]
        norm = partial(self.norm, use_running_average=not train)
        x = norm(name="bn1")(x)
        for i, (features, kernel, step) in enumerate(layers, 1):
            if i > 1:
                x = nn.relu(x)
            x = norm(name=f"bn{i + 1}")(self.conv(features, kernel, step, name=f"conv{i}")(x))
        if strides == 2:
            shortcut = average_2x2(shortcut)
        shortcut = jnp.pad(shortcut, ((0, 0),) * 3 + ((0, x.shape[-1] - shortcut.shape[-1]),))
        return shortcut + DropPath(self.drop_path)(x, train)


class PyramidNet(Network):
    """The network; see `SIZES` for the sizes.

    Attributes:
        stem: 'cifar' (3x3 to 16 channels, total stride 4) or 'imagenet' (7x7 and pooling to 64, total stride 32).
        depth: weighted layers.
        alpha: channels that all blocks together add.
        bottleneck: see `PyramidBlock`.
    """

    stem: str
    depth: int
    alpha: int
    bottleneck: bool

    @nn.compact
    def __call__(self, images: Array, train: bool = False, features_only: bool = False) -> Array:
        """Maps normalized images [B, H, W, 3] to logits [B, num_classes], float32.

        With `features_only` to what the classifier pools: [B, h, w, C], in `dtype`.
        """
        conv = partial(Conv, padding="SYMMETRIC", lowering=self.lowering, dtype=self.dtype)
        norm = partial(BatchNorm, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
        layer = partial(ConvNormAct, conv, norm)
        if self.stem == "cifar":
            start = 16
            x = layer(start, name="stem")(images, train)
        else:
            start = 64
            x = layer(start, 7, 2, activation="relu", name="stem")(images, train)
            # Zeros around it are as good as nothing behind a ReLU; jax2onnx drops a pool's own padding in silence.
            x = nn.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), window_shape=(3, 3), strides=(2, 2))
        stages = blocks_per_stage(self.stem, self.depth, self.bottleneck)
        rates = iter(drop_path_rates(self.drop_path, sum(stages)))
        width = iter(widths(start, self.alpha, sum(stages)))
        for s, blocks in enumerate(stages):
            for b in range(blocks):
                strides = 2 if s > 0 and b == 0 else 1
                block = PyramidBlock(
                    conv, norm, next(width), strides, self.bottleneck, next(rates), name=f"stage{s}_block{b}"
                )
                x = block(x, train)
        x = nn.relu(norm(name="norm")(x, use_running_average=not train))
        return self.answer(x, train, features_only)


def check(config: Mapping[str, Any], image_size: int) -> None:
    """Raises ConfigError for a depth that does not exist, or an image smaller than the total stride."""
    blocks_per_stage(config["stem"], config["depth"], config["bottleneck"])
    if config["alpha"] < 1:
        raise ConfigError("config.model.alpha", f"must be >= 1, is {config['alpha']}")
    smallest = 4 if config["stem"] == "cifar" else 32
    if image_size < smallest:
        raise ConfigError("config.data.image_size", f"must be >= {smallest}, is {image_size}")
