"""From a decoded picture to the square that the network sees: evaluation's one way, and training's random ones.

All functions take a Pillow image in mode RGB and return one, or a uint8 array [size, size, 3]; scaling to floats
happens on the device (`Preprocessing.normalise`), so that only bytes travel.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its pictures. It is part of the model and travels in the bundle.

    Attributes:
        image_size: side of the square input, pixels.
        crop: the short side is resized to image_size / crop before the centre is cut.
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
        """Returns what `to_dict` described."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Resizes the short side and cuts the centre; uint8 [image_size, image_size, 3]."""
        size = (self.image_size, self.image_size)
        # Resample only what is kept.
        return np.asarray(image.resize(size, FILTERS[self.interpolation], box=self.box(*image.size)))

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Returns the centre square that is kept of a picture, in its own pixels: left, top, right, bottom."""
        scale = round(self.image_size / self.crop) / min(width, height)
        side = self.image_size / scale
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def normalise(self, images: Any) -> Any:
        """Scales uint8 [..., 3] to float32 in the network's units and channel order; NumPy and JAX alike."""
        scale = (1 / (255 * np.asarray(self.std, np.float64))).astype(np.float32)
        shift = (np.asarray(self.mean, np.float64) / np.asarray(self.std, np.float64)).astype(np.float32)
        images = images.astype(np.float32) * scale - shift
        return images[..., ::-1] if self.channels == "bgr" else images


def random_resized_crop(
    image: Image.Image, size: int, rng: np.random.Generator, min_area: float, interpolation: str = "bilinear"
) -> Image.Image:
    """Cuts a random box of `min_area`..1 of the area and aspect 3/4..4/3 and resizes it (Szegedy et al. 2015)."""
    area = image.width * image.height
    for _ in range(10):
        target = area * rng.uniform(min_area, 1)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = math.sqrt(target * aspect), math.sqrt(target / aspect)
        if w <= image.width and h <= image.height:
            break
    else:
        w = h = min(image.size)
    left, top = rng.uniform(0, image.width - w), rng.uniform(0, image.height - h)
    return image.resize((size, size), FILTERS[interpolation], box=(left, top, left + w, top + h))


def random_flip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirrors every second picture left to right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def colour_jitter(image: Image.Image, rng: np.random.Generator, strength: float) -> Image.Image:
    """Changes brightness, contrast and saturation by factors in 1 ± strength, in random order."""
    enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    for i in rng.permutation(len(enhancers)):
        image = enhancers[i](image).enhance(rng.uniform(1 - strength, 1 + strength))
    return image


def random_rotation(image: Image.Image, rng: np.random.Generator, degrees: float) -> Image.Image:
    """Turns by up to ± degrees; the corners take a random grey."""
    fill = (int(rng.integers(256)),) * 3
    return image.rotate(rng.uniform(-degrees, degrees), Image.Resampling.BILINEAR, fillcolor=fill)


def random_erasing(pixels: np.ndarray, rng: np.random.Generator, probability: float) -> np.ndarray:
    """Overwrites a box of 2-25 % of the area with noise (Zhong et al. 2017): an object hides another."""
    if rng.random() >= probability:
        return pixels
    H, W, C = pixels.shape
    area = H * W * rng.uniform(0.02, 0.25)
    aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
    h, w = min(H, round(math.sqrt(area * aspect))), min(W, round(math.sqrt(area / aspect)))
    top, left = rng.integers(0, H - h + 1), rng.integers(0, W - w + 1)
    pixels = pixels.copy()
    pixels[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, C), dtype=np.uint8)
    return pixels


Augmentation = Callable[[Image.Image, np.random.Generator], np.ndarray]


def basic(preprocessing: Preprocessing, min_area: float, strength: float = 1.0) -> Augmentation:
    """Returns random resized crop and horizontal flip, at any strength."""
    del strength

    def augment(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        size = preprocessing.image_size
        image = random_resized_crop(image, size, rng, min_area, preprocessing.interpolation)
        return np.asarray(random_flip(image, rng))

    return augment


def strong(preprocessing: Preprocessing, min_area: float, strength: float = 1.0) -> Augmentation:
    """Returns "basic" and, each in half of the pictures, rotation and colour jitter; then random erasing.

    Angles, factors and the share of erased pictures are multiplied by `strength`.
    """

    def augment(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        size = preprocessing.image_size
        if rng.random() < 0.5:
            image = random_rotation(image, rng, 30 * strength)
        image = random_resized_crop(image, size, rng, min_area, preprocessing.interpolation)
        image = random_flip(image, rng)
        if rng.random() < 0.5:
            image = colour_jitter(image, rng, 0.4 * strength)
        return random_erasing(np.asarray(image), rng, 0.25 * strength)

    return augment


def none(preprocessing: Preprocessing, min_area: float, strength: float = 1.0) -> Augmentation:
    """Returns evaluation's preprocessing: no randomness at all."""
    del min_area, strength
    return lambda image, rng: preprocessing(image)


AUGMENTATIONS = {"none": none, "basic": basic, "strong": strong}
