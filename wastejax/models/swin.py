"""Swin Transformer (Liu et al. 2021): self-attention in windows, shifted by half a window in every other block."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from wastejax.errors import ConfigError
from wastejax.models.layers.attention import attend
from wastejax.models.layers.blocks import DropPath, Network, gelu, linear, linear_init
from wastejax.models.layers.conv import Conv

PATCH = 4


class Size(NamedTuple):
    """One size of the family; `window` and the rates are its defaults for those keys."""

    features: int  # of the first stage; every stage doubles them
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    image_size: int
    dropout: float = 0.0
    drop_path: float = 0.2


SIZES: dict[str, Size] = {
    "t": Size(96, (2, 2, 6, 2), (3, 6, 12, 24), window=8, image_size=256),
    "t_w7": Size(96, (2, 2, 6, 2), (3, 6, 12, 24), window=7, image_size=224),  # as published
    # Ours, for tests and demonstrations.
    "tiny": Size(24, (2, 2), (1, 2), window=4, image_size=64, drop_path=0.0),
}


def relative_positions(window: int) -> np.ndarray:
    """Returns the row of the bias table for each pair of positions in a window, int [window^2, window^2].

    The table lists the (2 window - 1)^2 offsets query - key, rows of the window before columns.
    """
    rows, columns = (axis.ravel() for axis in np.indices((window, window)))
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


def to_windows(x: Any, window: int) -> Any:
    """Cuts [B, H, W, C] into windows: [B, windows, window^2, C]. H and W are multiples of `window`."""
    B, H, W, C = x.shape
    x = x.reshape(B, H // window, window, W // window, window, C).swapaxes(2, 3)
    return x.reshape(B, H * W // window**2, window**2, C)


def from_windows(windows: Any, height: int, width: int) -> Any:
    """Undoes `to_windows`."""
    B, _, area, C = windows.shape
    window = round(area**0.5)
    x = windows.reshape(B, height // window, width // window, window, window, C).swapaxes(2, 3)
    return x.reshape(B, height, width, C)


def attention_mask(height: int, width: int, window: int, shifts: tuple[int, int]) -> np.ndarray | None:
    """Returns which pairs of positions may attend to each other, or None where all may.

    A pair may if its two positions were neighbors before the shift rolled one of them to the other end, and
    none of them is padding (Liu et al. 2021, fig. 4).

    Args:
        height: of the features, without padding.
        width: likewise.
        window: side of a window; features are padded after their end up to a multiple of it.
        shifts: by which the padded features are rolled up and to the left.

    Returns:
        bool [windows, 1, window^2, window^2], or None.
    """
    parts = []
    for size, shift in zip((height, width), shifts, strict=True):
        padded = -(-size // window) * window
        part = np.where(np.arange(padded) < size, 0, 2)
        part[:shift] += 1  # rolled behind the others
        parts.append(np.roll(part, -shift))
    part = parts[0][:, None] * 4 + parts[1][None, :]
    if not part.any():
        return None
    part = to_windows(part[None, :, :, None], window)[0, :, :, 0]
    return (part[:, :, None] == part[:, None, :])[:, None]


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows with a bias per offset (Liu et al. 2021, eq. 4).

    Attributes:
        heads: attention heads; must divide the width.
        window: side of a window.
        dtype: of the computation; the softmax is float32.
    """

    heads: int
    window: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, mask: np.ndarray | None = None) -> Array:
        """Keeps the shape [B, windows, window^2, D]; `mask` is of `attention_mask`."""
        D = x.shape[-1]
        dense = partial(linear, dtype=self.dtype)
        qkv = dense(3 * D, name="qkv")(x).reshape(*x.shape[:-1], 3, self.heads, D // self.heads)
        query, key, value = (qkv[..., i, :, :] for i in range(3))
        table_shape = ((2 * self.window - 1) ** 2, self.heads)
        table = self.param("relative_position_bias_table", linear_init, table_shape, jnp.float32)
        bias = table[relative_positions(self.window)].transpose(2, 0, 1)
        y = attend(query, key, value, bias, mask)
        return dense(D, name="proj")(y.reshape(x.shape))


class SwinBlock(nn.Module):
    """Attention within windows and a feed-forward layer, both residual and pre-norm (Liu et al. 2021, eq. 3).

    Attributes:
        heads, window: see `WindowAttention`.
        shifted: whether windows are shifted by half their side; not along a side that one window covers.
        drop_path: rate of stochastic depth of both branches.
        dtype: of the computation.
    """

    heads: int
    window: int
    shifted: bool
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Keeps the shape [B, H, W, D]."""
        features = x.shape[-1]
        dense = partial(linear, dtype=self.dtype)
        norm = partial(nn.LayerNorm, epsilon=1e-5, dtype=self.dtype)
        drop = DropPath(self.drop_path)
        x = x + drop(self._attend(norm(name="norm1")(x)), train)
        y = gelu(dense(4 * features, name="fc1")(norm(name="norm2")(x)))
        return x + drop(dense(features, name="fc2")(y), train)

    def _attend(self, x: Array) -> Array:
        _, H, W, _ = x.shape
        window = self.window
        rows, columns = (window // 2 if self.shifted and side > window else 0 for side in (H, W))
        mask = attention_mask(H, W, window, (rows, columns))
        if H % window or W % window:
            x = jnp.pad(x, ((0, 0), (0, -H % window), (0, -W % window), (0, 0)))
        padded = x.shape
        if rows or columns:
            x = jnp.roll(x, (-rows, -columns), (1, 2))
        x = WindowAttention(self.heads, window, self.dtype, name="attention")(to_windows(x, window), mask)
        x = from_windows(x, *padded[1:3])
        if rows or columns:
            x = jnp.roll(x, (rows, columns), (1, 2))
        return x[:, :H, :W]


class PatchMerging(nn.Module):
    """Joins 2x2 neighbors, normalizes, and halves the channels (Liu et al. 2021, section 3.1)."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, D] to [B, ceil(H / 2), ceil(W / 2), 2 D]; odd sides are padded with zeros."""
        B, H, W, D = x.shape
        if H % 2 or W % 2:
            x = jnp.pad(x, ((0, 0), (0, H % 2), (0, W % 2), (0, 0)))
        H, W = x.shape[1:3]
        x = x.reshape(B, H // 2, 2, W // 2, 2, D).transpose(0, 1, 3, 4, 2, 5)  # columns first, as published
        x = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x.reshape(B, H // 2, W // 2, 4 * D))
        return linear(2 * D, use_bias=False, dtype=self.dtype, name="reduction")(x)


class Swin(Network):
    """The network; see `SIZES` for the sizes. Stochastic depth reaches `drop_path` in the last block.

    Attributes:
        size: widths, depths and heads.
        window: side of the attention windows.
    """

    size: Size
    window: int = 7

    @nn.compact
    def __call__(self, images: Array, train: bool = False, features_only: bool = False) -> Array:
        """Maps normalized images [B, H, W, 3] to logits [B, num_classes], float32.

        H and W are multiples of 4. Where a stage's sides are no multiples of the window they are padded, and no
        position attends to padding. With `features_only` to what the classifier pools: [B, h, w, D], in `dtype`.
        """
        conv = partial(Conv, lowering=self.lowering, dtype=self.dtype)
        norm = partial(nn.LayerNorm, epsilon=1e-5, dtype=self.dtype)
        patches = conv(self.size.features, PATCH, PATCH, padding=0, use_bias=True, name="patch_embed")
        x = norm(name="patch_norm")(patches(images))
        rates = iter(np.linspace(0, self.drop_path, sum(self.size.depths)).tolist())
        for s, (depth, heads) in enumerate(zip(self.size.depths, self.size.heads, strict=True)):
            if s > 0:
                x = PatchMerging(self.dtype, name=f"stage{s}_merge")(x)
            for b in range(depth):
                block = SwinBlock(
                    heads, self.window, b % 2 == 1, next(rates), self.dtype, name=f"stage{s}_block{b}"
                )
                x = block(x, train)
        x = norm(name="norm")(x)
        return self.answer(x, train, features_only)


def check(config: Mapping[str, Any], image_size: int) -> None:
    """Raises ConfigError for an image that whole windows do not cover."""
    step = PATCH * config["window"]
    if image_size < step or image_size % step:
        raise ConfigError(
            "config.data.image_size",
            f"must be a multiple of {step} for window {config['window']}, is {image_size}: try "
            f"{max(1, round(image_size / step)) * step}",
        )
