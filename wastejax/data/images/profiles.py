"""Colors as a profile in the file means them -> sRGB, which browsers show and networks are trained on."""

import io
import re
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

# Profiles of phones have 500 bytes, those of printing presses 2 MB.
_LARGEST = 8 * 2**20
_SAME = 1  # levels by which a profile may differ from sRGB anywhere and still counts as sRGB
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # color space of a profile -> mode of its pixels


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Returns the image in sRGB, of mode RGB or RGBA; or itself where the profile says nothing new or is unusable.

    Args:
        image: of any mode of 8 bits a channel; transparency as a channel.
        profile: ICC, as it lies in the file.
    """
    space = _space(profile)
    if space == "RGB" and image.mode in ("L", "1", "P"):
        image = image.convert("RGB")
    elif space == "RGB" and image.mode in ("LA", "PA"):
        image = image.convert("RGBA")
    elif space == "GRAY" and image.mode == "1":
        image = image.convert("L")
    color, alpha = image, None
    if image.mode in ("RGBA", "LA"):
        *bands, alpha = image.split()
        color = Image.merge("RGB", bands) if len(bands) == 3 else bands[0]
    if color.mode != _MODES.get(space) or (transform := _transform(profile, color.mode)) is None:
        return image
    color = transform.apply(color)
    color.info.clear()  # what Pillow says of the profile that it is in now
    if alpha is not None:
        color.putalpha(alpha)
    return color


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """Returns an image of mode LAB (TIFF) in sRGB."""
    given = ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(given, _srgb(), "LAB", "RGB").apply(image)


def gamma_to_srgb(image: Image.Image, gamma: float) -> Image.Image:
    """Returns an image whose samples are light to the power of `gamma` (a PNG's gAMA) in sRGB."""
    if not 0.1 <= gamma <= 5 or abs(gamma * 2.2 - 1) < 0.05:  # what browsers take for sRGB, too
        return image
    light = (np.arange(256) / 255) ** (1 / gamma)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table = np.rint(255 * encoded).astype(int).tolist()
    colors = {"L": 1, "LA": 1, "RGB": 3, "RGBA": 3}.get(image.mode, 0)
    if not colors:
        return image
    return image.point(table * colors + list(range(256)) * (len(image.getbands()) - colors))


def _space(profile: bytes) -> str:
    """Returns the color space of the samples by the profile's header (ICC.1, 7.2), '' where there is none."""
    if not 128 < len(profile) <= _LARGEST or profile[36:40] != b"acsp":
        return ""
    return re.sub(r"\W", "", profile[16:20].decode("latin-1"))


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Returns what takes pixels of a mode to sRGB; None where the profile is damaged or is sRGB by another name."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        # Without its cache of the last color, which photographs do not repeat.
        intent, flags = ImageCms.Intent.PERCEPTUAL, ImageCms.Flags.NOCACHE
        transform = ImageCms.buildTransform(given, _srgb(), mode, "RGB", intent, flags)
        if mode == "CMYK":
            return transform
        grid = _grid(mode)
        shown = np.asarray(transform.apply(grid).convert("RGB"), int)
    except (ImageCms.PyCMSError, OSError):
        return None  # as browsers do: the pixels are good all the same
    return transform if np.abs(shown - np.asarray(grid.convert("RGB"), int)).max() > _SAME else None


def _grid(mode: str) -> Image.Image:
    """Returns an image of colors from everywhere in the cube, or of all grays."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.arange(0, 256, 15)
    return Image.fromarray(
        np.stack(np.meshgrid(steps, steps, steps), -1).reshape(len(steps), -1, 3).astype(np.uint8)
    )


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.core.CmsProfile:
    return ImageCms.createProfile("sRGB")
