"""Every kind of file that a phone, a scraper or a camera writes, made here from one small image."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, PngImagePlugin

try:
    import pillow_heif
except ImportError:
    pillow_heif = None
else:
    pillow_heif.register_heif_opener(thumbnails=False)

ORIENTATION = 0x0112


@cache
def photo(width: int = 96, height: int = 72) -> Image.Image:
    """Smooth, colorful, and different in every corner."""
    y, x = np.mgrid[:height, :width] / (height, width)[0]
    waves = [np.sin(9 * x + 2 * y), np.cos(7 * y - 3 * x), np.sin(5 * (x + y))]
    pixels = np.stack([x * 150 + 50, y * 200 + 30, 200 - 110 * x], -1) + 25 * np.stack(waves, -1)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# ICC profiles, from their specification (ICC.1:2001-04): nothing that a vendor holds rights to.


def _xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in (x, y, z)))


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _srgb_curve() -> bytes:
    v = np.linspace(0, 1, 1024)
    light = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    return b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *np.rint(light * 65535).astype(int))


def _profile(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": b"desc\0\0\0\0\0\0\0\x05test\0" + bytes(78), b"cprt": b"text\0\0\0\0CC0\0"} | tags
    tags[b"wtpt"] = _xyz(0.9642, 1.0, 0.8249)
    body, table, at = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">2I", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), bytes(4), 0x02400000, kind, space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def _matrix(primaries: list[tuple[float, float, float]], curve: bytes) -> bytes:
    tags = {name: _xyz(*color) for name, color in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    return _profile(b"RGB ", b"mntr", b"XYZ ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


@cache
def srgb_profile() -> bytes:
    primaries = [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)]
    return _matrix(primaries, _srgb_curve())


@cache
def display_p3() -> bytes:
    primaries = [(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)]
    return _matrix(primaries, _srgb_curve())


@cache
def adobe_rgb() -> bytes:
    primaries = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
    return _matrix(primaries, _curve(2.2))


@cache
def dark_gray() -> bytes:
    return _profile(b"GRAY", b"mntr", b"XYZ ", {b"kTRC": _curve(1.0)})


@cache
def press() -> bytes:
    """Four inks on white paper, as a table of 9 steps per ink to Lab (lut8Type)."""
    steps = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 4, indexing="ij"), -1).reshape(-1, 4)
    c, m, y, k = steps.T
    light = np.stack([1 - c, 1 - 0.9 * m, 1 - 0.95 * y], -1) * (1 - k[:, None]) ** 2
    xyz = light @ np.array([[0.436, 0.385, 0.143], [0.222, 0.717, 0.061], [0.014, 0.097, 0.714]]).T
    f = np.cbrt(np.maximum(xyz / (0.9642, 1, 0.8249), 1e-4))
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)
    table = np.clip(np.rint(lab * (2.55, 1, 1) + (0, 128, 128)), 0, 255).astype(np.uint8)
    same = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 9, 0)) + identity + same * 4 + table.tobytes() + same * 3
    return _profile(b"CMYK", b"prtr", b"Lab ", {b"A2B0": lut})


# Files that no encoder here writes, byte by byte.


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with another chunk after its header."""
    return png[:33] + png_chunk(kind, body) + png[33:]


def png_of(samples: np.ndarray, color_type: int, interlaced: bool = False) -> bytes:
    """A PNG of 16 bits a sample (8 where interlaced), uint16 or uint8 [H, W, C]."""
    height, width, _ = samples.shape
    bits = 8 * samples.dtype.itemsize
    big = samples.astype(samples.dtype.newbyteorder(">"))
    passes = [big]
    if interlaced:  # Adam7: the PNG specification, 8.2
        starts = [
            (0, 0, 8, 8),
            (0, 4, 8, 8),
            (4, 0, 8, 4),
            (0, 2, 4, 4),
            (2, 0, 4, 2),
            (0, 1, 2, 2),
            (1, 0, 2, 1),
        ]
        passes = [big[y::dy, x::dx] for y, x, dy, dx in starts]
    rows = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    head = struct.pack(">2I5B", width, height, bits, color_type, 0, 0, int(interlaced))
    chunks = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def bmp_rle8(image: Image.Image) -> bytes:
    """A BMP of 256 colors whose rows are run-length encoded."""
    palette = image.quantize(256)
    table = np.zeros((256, 4), np.uint8)
    colors = np.array(palette.getpalette("RGB"), np.uint8).reshape(-1, 3)
    table[: len(colors), :3] = colors[:, ::-1]
    rows = b""
    for row in np.asarray(palette)[::-1]:
        rows += b"".join(bytes((1, value)) for value in row) + b"\0\0"
    rows += b"\0\1"
    size = 14 + 40 + 1024
    head = b"BM" + struct.pack("<IHHI", size + len(rows), 0, 0, size)
    head += struct.pack("<IiiHHIIiiII", 40, image.width, image.height, 1, 8, 1, len(rows), 2835, 2835, 256, 0)
    return head + table.tobytes() + rows


def bmp_top_down(image: Image.Image) -> bytes:
    """A BMP of 32 bits a pixel whose first row is on top."""
    pixels = np.asarray(image.convert("RGBX"))[..., [2, 1, 0, 3]].tobytes()
    head = b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54)
    return (
        head
        + struct.pack("<IiiHHIIiiII", 40, image.width, -image.height, 1, 32, 0, len(pixels), 0, 0, 0, 0)
        + pixels
    )


def _stored(orientation: int) -> Image.Image:
    """The image as a camera held in that way stores it (EXIF 2.3, Orientation)."""
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    return photo().transpose(undo[orientation])


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _turned(kind: str, orientation: int, **options) -> bytes:
    return encode(_stored(orientation), kind, exif=_exif(orientation).tobytes(), **options)


def _seethrough() -> Image.Image:
    image = photo().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 96).astype(np.uint8), (72, 1))))
    return image


def _cut_out() -> Image.Image:
    """256 colors, of which one is transparent."""
    image = photo().quantize(250)
    colors = image.getpalette("RGB")
    image.putpalette(colors + [0] * (768 - len(colors)))
    image.paste(251, (10, 10, 50, 50))
    return image


def _deep(bits: int, channels: int) -> np.ndarray:
    """The image with samples of some bits, in 16."""
    fine = np.asarray(photo().resize((192, 144), Image.Resampling.BICUBIC), np.float64)
    fine = fine.reshape(72, 2, 96, 2, 3).mean((1, 3))[..., :channels]
    return np.rint(fine * (2**bits - 1) / 255).astype(np.uint16)


def _texts() -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 3_000_000, zip=True)
    texts.add_text("prompt", "y" * 2_000_000)
    return texts


def _frames(kind: str, **options) -> bytes:
    second = Image.new("RGB", photo().size, (0, 0, 255))
    return encode(photo(), kind, save_all=True, append_images=[second, photo()], **options)


def _jpeg(**options) -> bytes:
    return encode(photo(), "JPEG", **{"quality": 92, **options})


_CMYK = Image.merge(
    "CMYK", [*(band.point(lambda v: 255 - v) for band in photo().split()), Image.new("L", (96, 72), 30)]
)
_PNG = encode(photo(), "PNG")

# What the kind is -> (ending, its bytes).
KINDS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "JPEG": (".jpg", _jpeg),
    "JPEG, 4:4:4": (".jpeg", lambda: _jpeg(subsampling=0)),
    "JPEG, 4:2:2": (".jfif", lambda: _jpeg(subsampling=1)),
    "JPEG, progressive": (".jpe", lambda: _jpeg(progressive=True)),
    "JPEG, restart markers": (".jpg", lambda: _jpeg(restart_marker_rows=1)),
    "JPEG, gray": (".jpg", lambda: encode(photo().convert("L"), "JPEG")),
    "JPEG, CMYK": (".jpg", lambda: encode(_CMYK, "JPEG", quality=95)),
    "JPEG, CMYK with a profile": (".jpg", lambda: encode(_CMYK, "JPEG", quality=95, icc_profile=press())),
    "JPEG, sRGB by profile": (".jpg", lambda: _jpeg(icc_profile=srgb_profile())),
    "JPEG, Display P3": (".jpg", lambda: _jpeg(icc_profile=display_p3())),
    "JPEG, Adobe RGB": (".jpg", lambda: _jpeg(icc_profile=adobe_rgb())),
    "JPEG, gray with a profile": (
        ".jpg",
        lambda: encode(photo().convert("L"), "JPEG", icc_profile=dark_gray()),
    ),
    "JPEG, damaged profile": (".jpg", lambda: _jpeg(icc_profile=display_p3()[:200])),
    "JPEG, profile of another color space": (".jpg", lambda: _jpeg(icc_profile=press())),
    "JPEG, EXIF orientation 3": (".jpg", lambda: _turned("JPEG", 3, quality=95)),
    "JPEG, EXIF orientation 6": (".jpg", lambda: _turned("JPEG", 6, quality=95)),
    "JPEG, EXIF orientation 8": (".jpg", lambda: _turned("JPEG", 8, quality=95)),
    "JPEG, broken EXIF": (".jpg", lambda: _jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20))),
    "JPEG, a comment of 60 kB": (".jpg", lambda: _jpeg(comment=b"c" * 60_000)),
    "JPEG, bytes after its end": (".jpg", lambda: _jpeg() + bytes(500) + b"trailer"),
    "JPEG, no end marker": (".jpg", lambda: _jpeg().removesuffix(b"\xff\xd9")),
    "JPEG, half of the end marker": (".jpg", lambda: _jpeg()[:-1]),
    "JPEG, cut in the middle": (".jpg", lambda: _jpeg()[: len(_jpeg()) // 2]),
    "JPEG named .png": (".png", _jpeg),
    "MPO (two views)": (".mpo", lambda: _frames("MPO")),
    "PNG": (".png", lambda: _PNG),
    "PNG, gray": (".png", lambda: encode(photo().convert("L"), "PNG")),
    "PNG, 1 bit": (".png", lambda: encode(photo().convert("1"), "PNG")),
    "PNG, 16 colors": (".png", lambda: encode(photo().quantize(16), "PNG", bits=4)),
    "PNG, palette, one color transparent": (".png", lambda: encode(_cut_out(), "PNG", transparency=251)),
    "PNG, alpha": (".png", lambda: encode(_seethrough(), "PNG")),
    "PNG, gray with alpha": (".png", lambda: encode(_seethrough().convert("LA"), "PNG")),
    "PNG, interlaced": (".png", lambda: png_of(np.asarray(photo()), 2, interlaced=True)),
    "PNG, 16 bits": (".png", lambda: png_of(_deep(16, 3), 2)),
    "PNG, gray of 16 bits": (".png", lambda: png_of(_deep(16, 1), 0)),
    "PNG, 12 bits in 16": (".png", lambda: png_of(_deep(12, 3), 2)),
    "PNG, gray, 12 bits in 16": (".png", lambda: png_of(_deep(12, 1), 0)),
    "PNG, animated": (".apng", lambda: _frames("PNG")),
    "PNG, EXIF orientation 6": (".png", lambda: _turned("PNG", 6)),
    "PNG, Display P3": (".png", lambda: encode(photo(), "PNG", icc_profile=display_p3())),
    "PNG, alpha, Display P3": (".png", lambda: encode(_seethrough(), "PNG", icc_profile=display_p3())),
    "PNG, gamma 1/1.8": (".png", lambda: with_chunk(_PNG, b"gAMA", struct.pack(">I", 55556))),
    "PNG, 5 MB of text": (".png", lambda: encode(photo(), "PNG", pnginfo=_texts())),
    "PNG, no end chunk": (".png", lambda: _PNG[:-12]),
    "PNG, cut in the middle": (".png", lambda: _PNG[: len(_PNG) // 2]),
    "WebP": (".webp", lambda: encode(photo(), "WEBP", quality=90)),
    "WebP, lossless": (".webp", lambda: encode(photo(), "WEBP", lossless=True)),
    "WebP, alpha": (".webp", lambda: encode(_seethrough(), "WEBP", lossless=True, exact=True)),
    "WebP, animated": (".webp", lambda: _frames("WEBP", lossless=True)),
    "WebP, EXIF orientation 6": (".webp", lambda: _turned("WEBP", 6, lossless=True)),
    "WebP, Display P3": (".webp", lambda: encode(photo(), "WEBP", lossless=True, icc_profile=display_p3())),
    "WebP, cut in the middle": (".webp", lambda: encode(photo(), "WEBP", quality=90)[:600]),
    "GIF": (".gif", lambda: encode(photo().quantize(256), "GIF")),
    "GIF, one color transparent": (".gif", lambda: encode(_cut_out(), "GIF", transparency=251)),
    "GIF, animated": (".gif", lambda: _frames("GIF")),
    "GIF, no trailer": (".gif", lambda: encode(photo().quantize(256), "GIF")[:-1]),
    "BMP": (".bmp", lambda: encode(photo(), "BMP")),
    "BMP, 256 colors": (".bmp", lambda: encode(photo().quantize(256), "BMP")),
    "BMP, run lengths": (".bmp", lambda: bmp_rle8(photo())),
    "BMP, 32 bits, top down": (".dib", lambda: bmp_top_down(photo())),
    "AVIF": (".avif", lambda: encode(photo(), "AVIF", quality=90)),
    "AVIF, alpha": (".avif", lambda: encode(_seethrough(), "AVIF", quality=90)),
    "AVIF, EXIF orientation 6": (".avif", lambda: _turned("AVIF", 6, quality=90)),
    "AVIF, Display P3": (".avif", lambda: encode(photo(), "AVIF", quality=90, icc_profile=display_p3())),
    "TIFF": (".tif", lambda: encode(photo(), "TIFF")),
    "TIFF, LZW": (".tiff", lambda: encode(photo(), "TIFF", compression="tiff_lzw")),
    "TIFF, JPEG inside": (".tif", lambda: encode(photo(), "TIFF", compression="jpeg", quality=95)),
    "TIFF, CMYK with a profile": (".tif", lambda: encode(_CMYK, "TIFF", icc_profile=press())),
    "TIFF, Lab": (".tif", lambda: encode(_lab(), "TIFF")),
    "TIFF, gray, 12 bits in 16": (".tif", lambda: encode(Image.fromarray(_deep(12, 1)[..., 0]), "TIFF")),
    "TIFF, floats": (".tif", lambda: encode(Image.fromarray(np.float32(_deep(16, 1)[..., 0] / 65535)), "TIFF")),
    "TIFF, EXIF orientation 6": (".tif", lambda: encode(_stored(6), "TIFF", tiffinfo={ORIENTATION: 6})),
    "TIFF, several pages": (".tif", lambda: _frames("TIFF")),
    "JPEG 2000": (".jp2", lambda: encode(photo(), "JPEG2000")),
    "JPEG 2000, a bare codestream": (".j2k", lambda: encode(photo(), "JPEG2000", no_jp2=True)),
    "PPM": (".ppm", lambda: encode(photo(), "PPM")),
    "QOI": (".qoi", lambda: encode(photo(), "QOI")),
}  # fmt: skip
if pillow_heif:
    KINDS |= {
        "HEIC": (".heic", lambda: encode(photo(), "HEIF", quality=90)),
        "HEIC, EXIF orientation 6": (".heif", lambda: _turned("HEIF", 6, quality=90)),
        "HEIC, Display P3": (
            ".heic",
            lambda: encode(photo(), "HEIF", quality=90, icc_profile=display_p3()),
        ),
    }
# What lacks pixels; all forms refuse it.
CUT = {name for name in KINDS if "cut in the middle" in name}


def _lab() -> Image.Image:
    from PIL import ImageCms

    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(srgb, lab, "RGB", "LAB").apply(photo())
