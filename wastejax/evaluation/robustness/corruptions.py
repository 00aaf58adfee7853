"""Images made worse in known ways and to a known degree, the same everywhere, to measure what a model bears.

The kinds follow Hendrycks & Dietterich (2019, ImageNet-C) where these have them; rotation and occlusion are the
limits that the study names. Severities do not depend on an image's resolution: lengths are shares of the short
side, and larger images are first reduced to a short side of `SIDE`.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from wastejax.data.images import decode, jpeg
from wastejax.data.pipeline import shrink
from wastejax.data.sources import Source

# Pixels; noise of one pixel of a 12-megapixel photograph would vanish as the network's input is made.
SIDE = 512

# RGB, severity, randomness -> same size
Change = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def rotate(image: Image.Image, degrees: float, rng: np.random.Generator) -> Image.Image:
    """Turns around the center, left or right by chance; the corners show the image mirrored at its edges.

    A single color in the corners would be a hint of its own that something is odd. A square image turned by a
    multiple of 90 degrees keeps every pixel.
    """
    w, h = image.size
    side = int(np.ceil(np.hypot(w, h)))
    side += (side - w) % 2  # equally much on either side, where width and height allow it
    left, top = (side - w) // 2, (side - h) // 2
    around = ((top, side - h - top), (left, side - w - left), (0, 0))
    larger = Image.fromarray(np.pad(np.asarray(image), around, mode="reflect"))
    turned = larger.rotate(degrees * rng.choice((-1, 1)), Image.Resampling.BICUBIC)
    return turned.crop((left, top, left + w, top + h))


def occlude(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Covers a share of the area, in [0, 1), by one box of the image's proportions and mean color, anywhere.

    Of the square that a network then cuts from the middle, the box may cover more or less.
    """
    w, h = image.size
    box_h = round(h * share**0.5)
    box_w = round(share * w * h / max(box_h, 1))
    across, down = rng.random(2)
    left, top = round(across * (w - box_w)), round(down * (h - box_h))
    covered = image.copy()
    covered.paste(_mean_color(image), (left, top, left + box_w, top + box_h))
    return covered


def blur(image: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
    """Blurs by a Gaussian whose standard deviation is a share of the short side."""
    return image.filter(ImageFilter.GaussianBlur(sigma * min(image.size)))


def add_noise(image: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
    """Adds Gaussian noise to every sample; sigma is a share of the whole range."""
    pixels = np.asarray(image, np.float32)
    noise = rng.standard_normal(pixels.shape, np.float32)
    return _to_image(pixels + 255 * sigma * noise)


def compress(image: Image.Image, quality: float, rng: np.random.Generator) -> Image.Image:
    """Saves as JPEG of some quality, 1 to 95, and reads it again."""
    return decode(jpeg(image, round(quality)))


def brighten(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    """Multiplies every sample, and clips it."""
    return _to_image(np.asarray(image, np.float32) * factor)


def rescale(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    """Shows everything larger, cut at the edges, or smaller, in the middle of a frame of the mean color."""
    w, h = image.size
    size = max(1, round(factor * w)), max(1, round(factor * h))
    left, top = (w - size[0]) // 2, (h - size[1]) // 2
    frame = Image.new("RGB", image.size, _mean_color(image))
    frame.paste(image.resize(size, Image.Resampling.BICUBIC), (left, top))
    return frame


class Kind(NamedTuple):
    """One way to make images worse.

    Attributes:
        change: does it.
        severities: to what degrees, in ascending order.
        clean: the severity that changes nothing, or next to nothing.
        unit: what severities are, for people.
        percent: whether people read them in per cent.
    """

    change: Change
    severities: tuple[float, ...]
    clean: float
    unit: str
    percent: bool = False


KINDS = {
    "rotation": Kind(rotate, (15, 30, 45, 60, 90, 120, 150, 180), 0, "degrees"),
    "occlusion": Kind(occlude, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 0, "of the area covered", True),
    "blur": Kind(blur, (0.005, 0.01, 0.02, 0.04), 0, "of the short side (sigma)", True),
    "noise": Kind(add_noise, (0.05, 0.1, 0.2, 0.3), 0, "of the range (sigma)", True),
    "jpeg": Kind(compress, (5, 10, 25, 50), 100, "JPEG quality"),
    "brightness": Kind(brighten, (0.2, 0.4, 0.7, 1.5, 2), 1, "times as bright"),
    "scale": Kind(rescale, (0.3, 0.5, 0.7, 1.5, 2), 1, "times as large"),
}


def corrupted(source: Source, kind: str, severity: float) -> Source:
    """Returns the same source with images of one kind and severity of corruption.

    What is left to chance (where a box lies, which way to turn) depends on an image's file and the kind alone: it
    is the same at every severity, in every run and for every model.

    Args:
        source: N images.
        kind: a key of `KINDS`.
        severity: see there; the clean one leaves the image as it is, but for `SIDE`.
    """
    return replace(source, read=_ReadCorrupted(source.read, kind, severity))


@dataclass(frozen=True)
class _ReadCorrupted:
    read: Callable[[int], bytes]
    kind: str
    severity: float

    def __call__(self, index: int) -> bytes:
        data = self.read(index)
        image = shrink(decode(data), SIDE)
        if self.severity != KINDS[self.kind].clean:
            rng = np.random.default_rng([zlib.crc32(data), zlib.crc32(self.kind.encode())])
            image = KINDS[self.kind].change(image, self.severity, rng)
        encoded = io.BytesIO()
        image.save(encoded, "BMP")  # lossless, and quick either way
        return encoded.getvalue()


def _to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _mean_color(image: Image.Image) -> tuple[int, int, int]:
    r, g, b = np.rint(np.asarray(image).mean(axis=(0, 1))).astype(int).tolist()
    return r, g, b
