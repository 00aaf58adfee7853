"""From a decoded image to the square that the network sees: evaluation's one way, and training's random ones.

Evaluation takes a Pillow image in mode RGB, training uint8 arrays [H, W, 3], as they lie in the cache; both return
uint8 [size, size, 3]. Scaling to floats happens on the device (`Preprocessing.normalize`): only bytes travel.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from wastejax.data.images import MAX_PIXELS, Box, decode_scaled, to_rgb
from wastejax.data.images.resampling import FILTERS, resized_crop
from wastejax.errors import nearest

# JPEGs are decoded at 1/2, 1/4 or 1/8 of their size where so many times the short side that is wanted remains.
# Answers to photographs then change by less than where one value of the square in eight changes by a level; with
# 2.5 times the side by more than that, and with twice some got another class.
ENOUGH = 4
LARGEST = 8192  # side of a stored square, pixels: larger ones would not fit into memory


def is_number(value: Any) -> bool:
    """Returns whether a value from JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_three(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(map(is_number, value))


# What each field of a stored `Preprocessing` may be.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "image_size": (
        lambda value: type(value) is int and 0 < value <= LARGEST,
        f"an integer from 1 to {LARGEST:,}",
    ),
    "crop": (lambda value: is_number(value) and 0.01 <= value <= 1, "a number from 0.01 to 1"),
    "interpolation": (lambda value: isinstance(value, str) and value in FILTERS, " or ".join(FILTERS)),
    "mean": (_are_three, "three numbers"),
    "std": (lambda value: _are_three(value) and min(value) > 0, "three numbers > 0"),
    "channels": (lambda value: value in ("rgb", "bgr"), "rgb or bgr"),
}


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its images. It is part of the model and travels in the bundle.

    Attributes:
        image_size: side of the square input, pixels.
        crop: the short side is resized to image_size / crop before the center is cut.
        interpolation: 'bilinear', 'bicubic' or 'lanczos'.
        mean: per channel, in [0, 1], subtracted after dividing by 255.
        std: per channel, divided by after that.
        channels: 'rgb' or 'bgr', the order of the network's input.
    """

    image_size: int
    crop: float = 0.95
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: str = "rgb"

    @classmethod
    def from_config(cls, data: Mapping[str, Any]) -> "Preprocessing":
        """Returns the preprocessing that a config's `data` section describes."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Returns what `to_dict` described; raises ValueError for a key that is missing, unknown or impossible."""
        for name in values.keys() - cls.__dataclass_fields__.keys():
            raise ValueError(f"preprocessing has {name}{nearest(name, cls.__dataclass_fields__)}")
        if "image_size" not in values:
            raise ValueError("preprocessing lacks image_size")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        for name, value in plain.items():
            is_right, wanted = _RULES[name]
            if not is_right(value):
                raise ValueError(f"preprocessing.{name} must be {wanted}, is {value!r}")
        return cls(**plain)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Resizes the short side and cuts the center; uint8 [image_size, image_size, 3].

        Args:
            image: of any mode; what is not RGB is converted as `images.to_rgb` does.
        """
        if image.mode != "RGB":
            image = to_rgb(image)
        return self._square(image, self.box(*image.size))

    def of_file(self, data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """Returns the square of an encoded file; a large JPEG is decoded no larger than `ENOUGH`.

        Args:
            data: the file.
            max_pixels: see `images.decode`.

        Raises:
            BadImage: as of `images.decode`.
        """
        least = ENOUGH * round(self.image_size / self.crop)
        image, (left, top, right, bottom) = decode_scaled(data, least, max_pixels)
        x0, y0, x1, y1 = self.box(right - left, bottom - top)
        return self._square(image, (left + x0, top + y0, left + x1, top + y1))

    def _square(self, image: Image.Image, box: Box) -> np.ndarray:
        size = (self.image_size, self.image_size)
        # Resample only what is kept.
        return np.asarray(image.resize(size, FILTERS[self.interpolation], box=box))

    def box(self, width: float, height: float) -> Box:
        """Returns the center square that is kept of an image, in its own pixels: left, top, right, bottom.

        It lies within the image to the last bit, since Pillow refuses a box that does not.
        """
        # One division, correctly rounded, is at most the short side; divided by a rounded scale it may exceed it.
        side = self.image_size * min(width, height) / round(self.image_size / self.crop)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def normalize(self, images: Any) -> Any:
        """Scales uint8 [..., 3] to float32 in the network's units and channel order; NumPy and JAX alike."""
        scale = (1 / (255 * np.asarray(self.std, np.float64))).astype(np.float32)
        shift = (np.asarray(self.mean, np.float64) / np.asarray(self.std, np.float64)).astype(np.float32)
        images = images.astype(np.float32) * scale - shift
        return images[..., ::-1] if self.channels == "bgr" else images


def random_resized_crop(
    pixels: np.ndarray, size: int, rng: random.Random, min_area: float, interpolation: str = "bilinear"
) -> np.ndarray:
    """Cuts a random box of `min_area`..1 of the area and aspect 3/4..4/3 and resizes it (Szegedy et al. 2015)."""
    height, width, _ = pixels.shape
    return resized_crop(pixels, random_box(width, height, rng, min_area), size, interpolation)


def random_box(
    width: int, height: int, rng: random.Random, min_area: float
) -> tuple[float, float, float, float]:
    """Returns the box that `random_resized_crop` cuts: left, top, width, height, within the image."""
    for _ in range(10):
        target = height * width * rng.uniform(min_area, 1)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = math.sqrt(target * aspect), math.sqrt(target / aspect)
        if w <= width and h <= height:
            break
    else:
        w = h = min(height, width)
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    # Sums of fractions may come out above the image's side by the last bit.
    return left, top, min(w, width - left), min(h, height - top)


def random_flip(pixels: np.ndarray, rng: random.Random) -> np.ndarray:
    """Mirrors every second image left to right."""
    if rng.random() >= 0.5:
        return pixels
    # Channel by channel: NumPy turns rows of single bytes round several times as fast as rows of pixels.
    return np.stack([pixels[:, ::-1, c] for c in range(3)], -1)


def color_jitter(pixels: np.ndarray, rng: random.Random, strength: float) -> np.ndarray:
    """Changes brightness, contrast and saturation by factors in 1 ± strength, in random order."""
    image = Image.fromarray(pixels)
    enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    for enhancer in rng.sample(enhancers, len(enhancers)):
        image = enhancer(image).enhance(rng.uniform(1 - strength, 1 + strength))
    return np.asarray(image)


def random_rotation(pixels: np.ndarray, rng: random.Random, degrees: float) -> np.ndarray:
    """Turns by up to ± degrees; the corners take a random gray."""
    fill = (rng.randrange(256),) * 3
    image = Image.fromarray(pixels)
    return np.asarray(image.rotate(rng.uniform(-degrees, degrees), Image.Resampling.BILINEAR, fillcolor=fill))


def random_erasing(pixels: np.ndarray, rng: random.Random, probability: float) -> np.ndarray:
    """Overwrites a box of 2-25 % of the area with noise (Zhong et al. 2017): an object hides another."""
    if rng.random() >= probability:
        return pixels
    H, W, C = pixels.shape
    area = H * W * rng.uniform(0.02, 0.25)
    aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
    h, w = min(H, round(math.sqrt(area * aspect))), min(W, round(math.sqrt(area / aspect)))
    top, left = rng.randint(0, H - h), rng.randint(0, W - w)
    pixels = pixels.copy()
    noise = np.frombuffer(rng.randbytes(h * w * C), np.uint8)
    pixels[top : top + h, left : left + w] = noise.reshape(h, w, C)
    return pixels


# Python's own generator, as numbers are drawn one by one: each costs a tenth of one from NumPy's.
Augmentation = Callable[[np.ndarray, random.Random], np.ndarray]


def basic(preprocessing: Preprocessing, min_area: float, strength: float = 1.0) -> Augmentation:
    """Returns random resized crop and horizontal flip, at any strength."""

    def augment(pixels: np.ndarray, rng: random.Random) -> np.ndarray:
        size = preprocessing.image_size
        pixels = random_resized_crop(pixels, size, rng, min_area, preprocessing.interpolation)
        return random_flip(pixels, rng)

    return augment


def strong(preprocessing: Preprocessing, min_area: float, strength: float = 1.0) -> Augmentation:
    """Returns "basic" and, each in half of the images, rotation and color jitter; then random erasing.

    Angles, factors and the share of erased images are multiplied by `strength`.
    """
    cropped = basic(preprocessing, min_area)

    def augment(pixels: np.ndarray, rng: random.Random) -> np.ndarray:
        if rng.random() < 0.5:
            pixels = random_rotation(pixels, rng, 30 * strength)
        pixels = cropped(pixels, rng)
        if rng.random() < 0.5:
            pixels = color_jitter(pixels, rng, 0.4 * strength)
        return random_erasing(pixels, rng, 0.25 * strength)

    return augment


def none(preprocessing: Preprocessing, min_area: float, strength: float = 1.0) -> Augmentation:
    """Returns evaluation's preprocessing: no randomness at all."""
    return lambda pixels, rng: preprocessing(Image.fromarray(pixels))


AUGMENTATIONS = {"none": none, "basic": basic, "strong": strong}
