"""Encoded bytes in, an RGB picture out: every kind of file that turns up in a folder of photographs."""

import io
import warnings
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from wastejax.data.images.formats import FORMATS, HEIF, MAGIC, extensions, heif_brand, reads_heif

Image.init()  # loads PIL's plugins now: the first pictures may come from several threads at once
EXTENSIONS = extensions()
# PIL's own warning level: larger pictures take more than 256 MiB to decode.
MAX_PIXELS = 89_478_485

_ORIENTATION_TAG = 0x0112
# EXIF 2.3, tag Orientation: what brings the stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(ValueError):  # noqa: N818 - a statement about the file, named as the reports name it
    """A file that cannot be decoded; `str(error)` is the reason, short enough for a list."""


class Header(NamedTuple):
    """What a file says of its picture before any pixel is decoded.

    Attributes:
        format: PIL's name, 'JPEG', 'PNG', …
        mode: PIL's name, 'RGB', 'CMYK', 'P', …
        width: pixels, as stored.
        height: pixels, as stored.
        rotated: EXIF says that it must be turned or mirrored to be upright.
        animated: it has more than one frame.
    """

    format: str
    mode: str
    width: int
    height: int
    rotated: bool
    animated: bool


def read_header(data: bytes) -> Header | None:
    """Reads the header of an encoded file; None where it has none that can be read."""
    _quieten_pil()
    try:
        image = _open(data)
        rotated = image.getexif().get(_ORIENTATION_TAG) in _UPRIGHT
        animated = bool(getattr(image, "is_animated", False))
    except Exception:  # as in `decode`
        return None
    return Header(image.format or "", image.mode, image.width, image.height, rotated, animated)


def decode(data: bytes, min_side: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes a picture of any common kind to RGB.

    EXIF orientation is applied, transparency composited on white, 16-bit and float samples scaled to 8 bits,
    CMYK converted; of an animation the first frame is taken.

    Args:
        data: the encoded file.
        min_side: if given, a JPEG may be decoded smaller than it is, which is much faster for photographs, as
            long as both sides keep this many pixels.
        max_pixels: larger pictures are refused before they are decoded.

    Returns:
        A picture of mode RGB, fully loaded.

    Raises:
        BadImage: the data is empty, truncated, damaged, not a picture, or has more than `max_pixels` pixels.
    """
    if not data:
        raise BadImage("empty file")
    _quieten_pil()
    try:
        image = _open(data)
        if image.width * image.height > max_pixels:
            raise BadImage(f"too large ({image.width} x {image.height} pixels; decompression bomb?)")
        if min_side:
            image.draft(None, (min_side, min_side))
        image.load()
        return _to_rgb(_upright(image))
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage("too large (decompression bomb?)") from error
    except UnidentifiedImageError as error:
        raise BadImage(
            "truncated or damaged header" if data.startswith(tuple(MAGIC)) else "not an image"
        ) from error
    # On damaged files PIL's plugins raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise BadImage(_reason(error, data)) from error


def _open(data: bytes) -> ImageFile.ImageFile:
    formats: tuple[str, ...] = FORMATS
    if heif_brand(data) == HEIF:
        if not reads_heif():
            raise BadImage("HEIC needs pillow-heif: pip install pillow-heif")
        _register_heif()
        formats = (HEIF,)
    return Image.open(io.BytesIO(data), formats=formats)


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)


def _quieten_pil() -> None:
    """Silences PIL's warnings about odd files: `decode` either copes with them or raises.

    A filter is added and stays. `warnings.catch_warnings` would be tidier but is not safe in threads.
    """
    if not any(f[0] == "ignore" and getattr(f[3], "pattern", None) == r"PIL\." for f in warnings.filters):
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _reason(error: Exception, data: bytes) -> str:
    text = str(error).lower()
    cut_riff = data[:4] == b"RIFF" and len(data) < int.from_bytes(data[4:8], "little") + 8  # WebP
    if cut_riff or any(word in text for word in ("truncated", "end of", "broken data stream", "not enough")):
        return "truncated"
    return f"damaged ({error})" if text else f"damaged ({type(error).__name__})"


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # a broken EXIF block says nothing against the pixels
        orientation = None
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image.transpose(method) if method is not None else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8bit(image)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _to_8bit(image: Image.Image) -> Image.Image:
    """Scales integer samples of 16 bits by 1/257, and others by their largest where that exceeds 255."""
    values = np.nan_to_num(np.asarray(image, np.float64))
    top = values.max(initial=0)
    if (image.mode.startswith("I") and 255 < top <= 65535) or image.mode.startswith("I;16"):
        scale = 65535.0
    elif image.mode == "F" and top <= 1:
        scale = 1.0
    else:
        scale = max(top, 255.0)
    return Image.fromarray(np.clip(np.rint(values * (255.0 / scale)), 0, 255).astype(np.uint8))
