"""Encoded bytes in, an RGB image out: every kind of file that turns up in a folder of photographs.

One function, `decode`, for training, evaluation, `predict`, the server and exported files; deployment/web does the
same in a browser, and tests/deployment/test_file_kinds.py holds them together.
"""

import base64
import errno
import io
import os
import warnings
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image, ImageChops, ImageFile, UnidentifiedImageError

from wastejax.data.images import depth, profiles, repair
from wastejax.data.images.formats import FORMATS, HEIF, MAGIC, extensions, foreign, heif_brand, reads_heif

Image.init()  # loads PIL's plugins now: the first images may come from several threads at once
EXTENSIONS = extensions()
VERSION = 3  # count up when the pixels of any kind of file change: caches of pixels carry it
# PIL's own warning level: larger images take more than 256 MiB to decode.
MAX_PIXELS = 89_478_485
# JPEGs above this are decoded at half, a quarter or an eighth of their size, whatever limit is set, so that every
# command sees the same pixels.
REDUCE_ABOVE = 50_000_000
# Times the limit: reduced, it is below the limit, and decoding takes a row of blocks at a time.
_LARGEST_JPEG = 8
_LARGEST_PROGRESSIVE = 1.5  # times the limit: keeps the coefficients of the whole image, whatever the scale

_PIECE = 1 << 20  # bytes
_LARGEST_FILE = 2**30  # bytes; no photograph, but a video, or a device that never ends

_ORIENTATION_TAG = 0x0112
_EXIF_IFD, _TAKEN, _CHANGED = 0x8769, 0x9003, 0x0132  # EXIF 2.3: DateTimeOriginal, DateTime
_BRANDS = 256  # bytes of a file that say whether it is HEIC
# EXIF 2.3, tag Orientation: what brings the stored image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientations whose stored right or bottom edge comes to lie on the left, and those where one comes to the top.
_LEFT, _TOP = (2, 3, 6, 7), (3, 4, 7, 8)

Box = tuple[float, float, float, float]  # left, top, right, bottom


class BadImage(ValueError):  # noqa: N818 - a statement about the file, named as the reports name it
    """A file that cannot be decoded; `str(error)` is the reason, short enough for a list.

    Attributes:
        kind: 'format' where it is none that is read, 'size' where it is too large, else 'damage'.
    """

    def __init__(self, reason: str, kind: Literal["format", "size", "damage"] = "damage") -> None:
        super().__init__(reason)
        self.kind = kind


class Header(NamedTuple):
    """What a file says of its image before any pixel is decoded.

    Attributes:
        format: PIL's name, 'JPEG', 'PNG', …
        mode: PIL's name, 'RGB', 'CMYK', 'P', …
        width: pixels, as stored.
        height: pixels, as stored.
        rotated: EXIF says that it must be turned or mirrored to be upright.
        animated: it has more than one frame.
        orientation: EXIF's, 1 where it says none.
    """

    format: str
    mode: str
    width: int
    height: int
    rotated: bool
    animated: bool
    orientation: int


def read_file(path: str | Path) -> bytes:
    """Returns the bytes of a file; raises OSError where it cannot be read, or is larger than any image."""
    with Path(path).open("rb") as file:
        # Memory for all that is asked for is taken before anything is read, so no more than the file has.
        size = min(os.fstat(file.fileno()).st_size, _LARGEST_FILE)
        data = file.read(size + 1)
        while size < len(data) <= _LARGEST_FILE:  # it grows, or is none that says its size
            size = len(data)
            data += file.read(max(_PIECE, size))
    if len(data) > _LARGEST_FILE:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return data


def jpeg(image: Image.Image, quality: int) -> bytes:
    """Returns an RGB image as a JPEG of some quality, 1 to 95."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def data_url(image: Image.Image, quality: int) -> str:
    """Returns the same as a page holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(image, quality)).decode()}"


def versions() -> tuple[str, ...]:
    """Returns what decides which pixels a file becomes, to be part of the name of whatever keeps pixels."""
    return (f"images {VERSION}", *map(_version, ("pillow", "pillow_heif", "cykooz.resizer")))


def _version(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"no {package}"


def read_header(data: bytes) -> Header | None:
    """Reads the header of an encoded file; None where it has none that can be read."""
    _quieten_pil()
    try:
        image = _open(_prepared(data))
        block = _exif(image, data)
        rotated = _orientation(image, block) in _UPRIGHT
        animated = bool(getattr(image, "is_animated", False))
    except Exception:  # as in `decode`
        return None
    return Header(
        image.format or "", image.mode, image.width, image.height, rotated, animated, _tag(image, block)
    )


def time_taken(path: str | Path) -> str:
    """Returns when an image was taken by its EXIF data, '2026:11:01 12:30:00'; '' where that says nothing.

    Args:
        path: of the file, of which no more is read than it takes.

    Raises:
        OSError: there is no such file, or it cannot be opened.
    """
    _quieten_pil()
    with Path(path).open("rb") as file:
        heif = heif_brand(file.read(_BRANDS)) == HEIF
        if heif and not reads_heif():
            return ""
        if heif:
            _register_heif()
        file.seek(0)
        try:
            with Image.open(file, formats=(HEIF,) if heif else FORMATS) as image:
                exif = image.getexif()
                text = exif.get_ifd(_EXIF_IFD).get(_TAKEN) or exif.get(_CHANGED) or ""
        except Exception:  # no image, or a broken EXIF block; as in `decode`
            return ""
    return str(text).strip("\0 ")


def decode(data: bytes, min_side: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes an image of any common kind to RGB.

    EXIF orientation is applied, colors are taken to sRGB from the profile in the file, transparency is composited
    on white, samples of more than 8 bits are scaled to 8; of an animation the first frame is taken. A JPEG above
    `REDUCE_ABOVE` pixels is decoded at a reduced scale; one without an end marker is read if no pixel is missing.

    Args:
        data: the encoded file.
        min_side: if given, a JPEG may be decoded smaller than it is, which is much faster for photographs, as
            long as both sides keep this many pixels.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        An image of mode RGB, fully loaded.

    Raises:
        BadImage: the data is empty, truncated, damaged, not an image, or has more than `max_pixels` pixels.
    """
    return decode_scaled(data, min_side, max_pixels)[0]


def decode_scaled(
    data: bytes, min_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, Box]:
    """Returns what `decode` returns, and where in it the file's image lies, to a fraction of a pixel.

    At full scale that is everywhere. At a reduced scale that does not divide its sides, a row or column at an edge
    shows less of the image than the others do.
    """
    if not data:
        raise BadImage("empty file")
    _quieten_pil()
    try:
        if data.startswith(repair.JPEG) and not repair.jpeg_has_end(data):
            return _without_end(data, max_pixels)
        return _decode(_prepared(data), min_side, max_pixels)
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    # On damaged files PIL's plugins raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise BadImage(_reason(error, data)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns an image of any mode as RGB: transparency on white, more than 8 bits scaled, its profile applied."""
    profile, gamma = image.info.get("icc_profile"), image.info.get("gamma")
    if image.mode.startswith("I") or image.mode == "F":
        image = depth.gray_to_8bit(image)
    if image.mode == "LAB":
        image = profiles.lab_to_srgb(image)
    if "transparency" in image.info or image.mode in ("PA", "RGBa", "La"):
        image = image.convert("RGBA")
    if profile:
        image = profiles.to_srgb(image, profile)
    elif gamma and "srgb" not in image.info:
        image = profiles.gamma_to_srgb(image.convert("RGB") if image.mode == "P" else image, gamma)
    if image.mode in ("RGBA", "LA"):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """Returns an image that PIL has opened as `decode` would: RGB, and turned as EXIF alone says."""
    image.load()  # of some files the EXIF block comes after the pixels
    method = _UPRIGHT.get(_orientation(image, image.info.get("exif", b"")))
    shown = to_rgb(image)
    return shown if method is None else shown.transpose(method)


def _decode(data: bytes, min_side: int | None, max_pixels: int) -> tuple[Image.Image, Box]:
    image = _open(data)
    width, height = _reduce(image, min_side, max_pixels)
    orientation = _orientation(image, _exif(image, data))
    deep = depth.uses_low_bits(image)
    image.load()
    shown: Image.Image = image
    if deep and depth.darkened(image):
        shown = depth.from_low_bits(image, _open(data))
        shown.info = image.info
    method = _UPRIGHT.get(orientation)
    shown = to_rgb(shown)
    if method is None:
        return shown, (0, 0, width, height)
    shown = shown.transpose(method)
    if orientation >= 5:
        width, height = height, width
    left = shown.width - width if orientation in _LEFT else 0
    top = shown.height - height if orientation in _TOP else 0
    return shown, (left, top, left + width, top + height)


def _without_end(data: bytes, max_pixels: int) -> tuple[Image.Image, Box]:
    """Returns a JPEG that lacks its end marker, where no pixel depends on what is missing; always at full scale."""
    try:
        first, second = (_decode(ended, None, max_pixels) for ended in repair.jpeg_endings(data))
    except (BadImage, UnidentifiedImageError):
        raise
    except Exception as error:  # as in `decode`
        raise BadImage("truncated") from error
    if ImageChops.difference(first[0], second[0]).getbbox() is not None:
        raise BadImage("truncated")
    return first


def _prepared(data: bytes) -> bytes:
    return repair.without_texts(data) if data.startswith(repair.PNG) else data


def _open(data: bytes) -> ImageFile.ImageFile:
    formats: tuple[str, ...] = FORMATS
    if heif_brand(data) == HEIF:
        if not reads_heif():
            raise BadImage("HEIC needs pillow-heif: pip install pillow-heif", "format")
        _register_heif()
        formats = (HEIF,)
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError:
        # Pillow's own limit is the whole process's and comes before its reduced decoding; ours is in `_reduce`.
        kind = next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)
        if kind is None:
            raise BadImage("too large (decompression bomb?)", "size") from None
        return Image.OPEN[kind][0](io.BytesIO(data), "")


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)


def _reduce(image: ImageFile.ImageFile, min_side: int | None, max_pixels: int) -> tuple[float, float]:
    """Has a JPEG decoded smaller where it is large, or where `min_side` allows it; raises BadImage above the limit.

    Returns its width and height at that scale; Pillow rounds them up.
    """
    width, height = image.size
    pixels = width * height
    shown: tuple[float, float] = image.size
    most = float(max_pixels)
    if image.format in ("JPEG", "MPO"):
        most *= _LARGEST_PROGRESSIVE if image.info.get("progressive") else _LARGEST_JPEG
        scale = next((k for k in (1, 2, 4, 8) if pixels <= k * k * min(REDUCE_ABOVE, max_pixels)), 8)
        if min_side:
            scale = max(scale, *(k for k in (1, 2, 4, 8) if k * min_side <= min(width, height)), 1)
        if scale > 1:
            drafted = image.draft(None, (max(1, width // scale), max(1, height // scale)))
            shown = drafted[1][2:] if drafted else image.size
        if pixels <= most:
            most = float(max_pixels)
            pixels = image.width * image.height
    if pixels > most:
        raise BadImage(
            f"too large ({width} x {height} pixels; decompression bomb?): at most {max_pixels:,} pixels",
            "size",
        )
    return shown


def _exif(image: ImageFile.ImageFile, data: bytes) -> bytes:
    """Returns the EXIF block of a file; of a PNG also one that follows the pixels, which PIL reads only later."""
    return repair.png_exif(data) if image.format == "PNG" else image.info.get("exif", b"")


def _orientation(image: Image.Image, block: bytes) -> int:
    """Returns EXIF's orientation, 1 where there is none. XMP's is not looked at, as browsers do not."""
    return 1 if image.format == "TIFF" else _tag(image, block)  # Pillow turns TIFF itself


def _tag(image: Image.Image, block: bytes) -> int:
    """Returns EXIF's orientation, whether PIL has turned the image already or not."""
    try:
        exif = image.getexif() if image.format == "TIFF" else Image.Exif()
        if image.format != "TIFF":
            exif.load(block)
        return int(exif.get(_ORIENTATION_TAG, 1))
    except Exception:  # a broken EXIF block says nothing against the pixels
        return 1


def _quieten_pil() -> None:
    """Silences PIL's warnings about odd files: `decode` either copes with them or raises.

    A filter is added and stays. `warnings.catch_warnings` would be tidier but is not safe in threads.
    """
    if not any(f[0] == "ignore" and getattr(f[3], "pattern", None) == r"PIL\." for f in warnings.filters):
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _unidentified(data: bytes) -> BadImage:
    if name := foreign(data):
        return BadImage(f"{name} is not read: convert it to JPEG or PNG", "format")
    if data.startswith(tuple(MAGIC)) or heif_brand(data):
        return BadImage("truncated or damaged header")
    return BadImage("not an image", "format")


def _reason(error: Exception, data: bytes) -> str:
    text = str(error).lower()
    cut_riff = data[:4] == b"RIFF" and len(data) < int.from_bytes(data[4:8], "little") + 8  # WebP
    if cut_riff or any(word in text for word in ("truncated", "end of", "broken data stream", "not enough")):
        return "truncated"
    return f"damaged ({error})" if text else f"damaged ({type(error).__name__})"
