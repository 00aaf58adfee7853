import io
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from wastejax.data.images import BadImage, decode


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(height: int = 40, width: int = 60) -> Image.Image:
    """Smooth, different in every corner: red to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 60)], -1)
    return Image.fromarray(pixels.astype(np.uint8))


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def pixels(data: bytes) -> np.ndarray:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_kinds_give_the_exact_pixels(kind):
    np.testing.assert_array_equal(pixels(encode(picture(), kind)), np.asarray(picture()))


def test_lossy_kinds_give_nearly_the_pixels():
    for data in (encode(picture(), "JPEG", quality=95), encode(picture(), "WEBP", quality=95)):
        np.testing.assert_allclose(pixels(data).astype(int), np.asarray(picture()).astype(int), atol=12)
    np.testing.assert_array_equal(pixels(encode(picture(), "WEBP", lossless=True)), np.asarray(picture()))


def test_grey_bilevel_and_palette():
    grey = picture().convert("L")
    np.testing.assert_array_equal(pixels(encode(grey)), np.asarray(grey)[..., None].repeat(3, -1))
    np.testing.assert_array_equal(np.unique(pixels(encode(grey.convert("1")))), [0, 255])
    palette = picture().quantize(256)
    np.testing.assert_array_equal(pixels(encode(palette)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(
    "image, expected",
    [
        (Image.new("RGBA", (4, 4), (200, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 255)), (200, 0, 0)),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 51)), (244, 204, 204)),  # 255 + 0.2 * (colour - 255)
        (Image.new("LA", (4, 4), (100, 51)), (224, 224, 224)),
    ],
)
def test_transparency_lies_on_white(image, expected):
    assert np.all(np.abs(pixels(encode(image)).astype(int) - expected) <= 1)


def test_transparent_colours_of_palette_grey_and_rgb():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    for transparency in (0, bytes([0, 255])):
        shown = pixels(encode(palette, transparency=transparency))
        np.testing.assert_array_equal(shown, [[[255, 255, 255], [40, 50, 60]]])
    assert pixels(encode(Image.new("L", (2, 2), 7), transparency=7)).min() == 255
    assert pixels(encode(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))).min() == 255


def test_sixteen_bits_keep_their_range():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(values)))[0, :, 0], [0, 1, 128, 255])
    # A dark 16-bit image is dark, not stretched.
    dark = np.full((2, 2), 200, np.uint16)
    dark[0, 0] = 2**14
    assert pixels(encode(Image.fromarray(dark)))[1, 1].max() == 1
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(values), "TIFF"))[0, :, 0], [0, 1, 128, 255])


def test_float_and_32_bit_tiff():
    floats = np.array([[0, 0.5, 1]], np.float32)
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(floats), "TIFF"))[0, :, 0], [0, 128, 255])
    ints = np.array([[0, 1000, 100000]], np.int32)
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(ints), "TIFF"))[0, :, 0], [0, 3, 255])


def test_sixteen_bit_rgb_png():
    """PIL cannot write one, so it is written here: PNG specification, colour type 2, bit depth 16."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = struct.pack(">6H", 65535, 0, 32896, 257, 65535, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(pixels(data), [[[255, 0, 128], [1, 255, 0]]])


def test_cmyk():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.all(np.abs(pixels(encode(cmyk, "JPEG", quality=100)).astype(int) - [255, 0, 0]) <= 3)


def test_first_frame_of_animations():
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("MPO", {})):
        data = encode(red, kind, save_all=True, append_images=[blue], **options)
        assert np.all(np.abs(pixels(data).astype(int) - [255, 0, 0]) <= 3), kind


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    upright = np.asarray(picture(40, 60))
    # How the stored pixels come about when the camera was held as the tag says: EXIF 2.3, "Orientation".
    stored: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored[orientation](upright)))
    np.testing.assert_array_equal(pixels(encode(image, "PNG", exif=exif)), upright)
    shown = pixels(encode(image, "JPEG", quality=95, exif=exif)).astype(int)
    np.testing.assert_allclose(shown, upright.astype(int), atol=12)


def test_broken_exif_is_no_reason_to_refuse():
    data = encode(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\0" * 20)
    assert pixels(data).shape == (40, 60, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated_files_are_refused(kind, share):
    data = encode(noise(), kind)
    with pytest.raises(BadImage, match="truncated"):
        decode(data[: int(share * len(data))])


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty file"),
        (b"Dear customer, this is text.\n" * 20, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),  # would start Ghostscript
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"\0" * 1000, "not an image"),
    ],
)
def test_what_is_no_image(data, reason):
    with pytest.raises(BadImage) as error:
        decode(data)
    assert str(error.value) == reason


@pytest.mark.parametrize("side", [10_000, 20_000])  # above PIL's limit for a warning, and for an error
def test_bombs_are_refused_before_they_unfold(side):
    data = encode(Image.new("1", (side, side)))
    assert len(data) < 100_000
    with pytest.raises(BadImage, match="too large"):
        decode(data)


def test_any_damage_gives_a_picture_or_bad_image():
    rng = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
        whole = encode(noise(24), kind)
        for _ in range(60):
            data = np.frombuffer(whole, np.uint8).copy()
            data[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
            try:
                assert decode(data.tobytes()).mode == "RGB"
            except BadImage as error:
                assert str(error)


def test_warnings_of_pil_do_not_leak():
    # Bytes of transparency in a palette make `convert("RGB")` warn; a bomb of 100 megapixels makes `open` warn.
    palette = encode(picture().quantize(8), transparency=bytes(8))
    bomb = encode(Image.new("1", (10_000, 10_000)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode(palette)
        with pytest.raises(BadImage):
            decode(bomb)
    assert caught == []


def test_decoding_in_threads():
    data = [encode(Image.new("RGB", (64, 64), (i, 0, 0))) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        assert [image.getpixel((0, 0))[0] for image in pool.map(decode, data)] == list(range(64))


def test_photographs_may_be_decoded_smaller():
    data = encode(picture(1200, 1600), "JPEG")
    assert decode(data).size == (1600, 1200)
    small = decode(data, min_side=256)
    assert small.size == (400, 300)  # a quarter: an eighth would be 200 x 150
    np.testing.assert_allclose(
        np.asarray(small).astype(int), np.asarray(picture(300, 400)).astype(int), atol=12
    )
