"""Samples of more than 8 bits -> 8 bits, by the number of bits that are in use."""

import sys
from typing import Any

import numpy as np
from PIL import Image, ImageFile

_BITS = (8, 10, 12, 14, 16)  # of sensors, whose samples often lie unscaled in 16
_OTHER_HALF = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}


def gray_to_8bit(image: Image.Image) -> Image.Image:
    """Returns an image of mode I, I;16 or F as one of mode L.

    Integers of 16 bits are scaled from as many bits as they use, larger ones by the largest, floats up to 1 by 255.
    What is no number is black, and infinity as white as the largest number: so depths and temperatures say "none".
    """
    values = np.asarray(image, np.float64)
    finite = values[np.isfinite(values)]
    values = np.nan_to_num(values, posinf=finite.max(initial=0), neginf=0)
    top = values.max(initial=0)
    scale = max(top, 255.0)
    if image.mode == "F" and top <= 1:
        scale = 1.0
    elif image.mode != "F" and top < 2**16:
        scale = _whole(top)
    return Image.fromarray(np.clip(np.rint(values * (255.0 / scale)), 0, 255).astype(np.uint8))


def uses_low_bits(image: ImageFile.ImageFile) -> bool:
    """Returns whether an opened image has colors of 16 bits, of which Pillow keeps the upper 8."""
    return len(image.tile) > 0 and _other_half(image) is not None


def darkened(image: Image.Image) -> bool:
    """Returns whether the upper 8 bits of 16 leave so little that the samples can only be of 14 bits or fewer."""
    extrema = image.getextrema()
    return max(int(high) for _, high in extrema[:3]) < 2**6  # type: ignore[misc]


def from_low_bits(high: Image.Image, again: ImageFile.ImageFile) -> Image.Image:
    """Returns the image scaled from the bits that are in use.

    Args:
        high: the upper 8 bits of each sample, mode RGB or RGBA.
        again: the same file, opened and not yet loaded; its lower 8 bits are read.
    """
    rawmode = _other_half(again)
    tiles = [tile._replace(args=_with_rawmode(tile.args, rawmode)) for tile in again.tile]
    again.tile = tiles
    again.load()
    values = np.asarray(high, np.uint16) << 8 | np.asarray(again, np.uint16)
    color = values[..., :3] * (255.0 / _whole(values[..., :3].max(initial=0)))
    parts = [color, values[..., 3:] / 257.0]
    return Image.fromarray(np.rint(np.concatenate(parts, -1)).astype(np.uint8))


def _whole(top: float) -> float:
    """Returns the largest value of the fewest bits that hold `top`."""
    return float(2 ** next(bits for bits in _BITS if top < 2**bits) - 1)


def _rawmode(args: object) -> str:
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _other_half(image: ImageFile.ImageFile) -> str | None:
    """Returns the raw mode that reads the other byte of each sample, None where samples have but one."""
    rawmode = _rawmode(image.tile[0].args)
    if not rawmode.startswith(("RGB;", "RGBA;", "RGBX;")):
        return None
    return next(
        (rawmode.replace(mine, other) for mine, other in _OTHER_HALF.items() if rawmode.endswith(mine)), None
    )


def _with_rawmode(args: Any, rawmode: str | None) -> Any:
    return (rawmode, *args[1:]) if isinstance(args, tuple) else rawmode
