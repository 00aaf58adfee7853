import io
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from file_kinds import dark_gray, display_p3, png_of, press, srgb_profile
from PIL import Image

from wastejax.data import images
from wastejax.data.formats.walk import by_ending
from wastejax.data.images import BadImage, decode, formats
from wastejax.data.transforms import Preprocessing


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(height: int = 40, width: int = 60) -> Image.Image:
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
    np.testing.assert_array_equal(pixels(encode(photo(), kind)), np.asarray(photo()))


def test_lossy_kinds_give_nearly_the_pixels():
    for data in (encode(photo(), "JPEG", quality=95), encode(photo(), "WEBP", quality=95)):
        np.testing.assert_allclose(pixels(data).astype(int), np.asarray(photo()).astype(int), atol=12)
    np.testing.assert_array_equal(pixels(encode(photo(), "WEBP", lossless=True)), np.asarray(photo()))


def test_gray_bilevel_and_palette():
    gray = photo().convert("L")
    np.testing.assert_array_equal(pixels(encode(gray)), np.asarray(gray)[..., None].repeat(3, -1))
    np.testing.assert_array_equal(np.unique(pixels(encode(gray.convert("1")))), [0, 255])
    palette = photo().quantize(256)
    np.testing.assert_array_equal(pixels(encode(palette)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(
    "image, expected",
    [
        (Image.new("RGBA", (4, 4), (200, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 255)), (200, 0, 0)),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 51)), (244, 204, 204)),  # 255 + 0.2 * (color - 255)
        (Image.new("LA", (4, 4), (100, 51)), (224, 224, 224)),
    ],
)
def test_transparency_lies_on_white(image, expected):
    assert np.all(np.abs(pixels(encode(image)).astype(int) - expected) <= 1)


def test_transparent_colors_of_palette_gray_and_rgb():
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
    """PIL cannot write one, so it is written here: PNG specification, color type 2, bit depth 16."""

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
    upright = np.asarray(photo(40, 60))
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
    data = encode(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\0" * 20)
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


def test_any_damage_gives_a_image_or_bad_image():
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
    palette = encode(photo().quantize(8), transparency=bytes(8))
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
    data = encode(photo(1200, 1600), "JPEG")
    assert decode(data).size == (1600, 1200)
    small = decode(data, min_side=256)
    assert small.size == (400, 300)  # a quarter: an eighth would be 200 x 150
    np.testing.assert_allclose(
        np.asarray(small).astype(int), np.asarray(photo(300, 400)).astype(int), atol=12
    )


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "RGB PNG"])
def test_fewer_bits_in_sixteen_keep_their_levels(bits, kind):
    levels = np.linspace(0, 2**bits - 1, 226).astype(np.uint16)
    if kind == "RGB PNG":
        data = png_of(levels[None, :, None].repeat(3, -1), 2)
    else:
        data = encode(Image.fromarray(levels[None]), kind)
    shown = pixels(data)[0]
    np.testing.assert_allclose(shown[:, 0], levels * (255 / (2**bits - 1)), atol=0.51)
    assert (shown == shown[:, :1]).all()


def test_low_bits_of_colors_with_alpha():
    samples = np.array([[[4095, 2048, 0, 65535], [4095, 2048, 0, 0]]], np.uint16)
    np.testing.assert_array_equal(pixels(png_of(samples, 6)), [[[255, 128, 0], [255, 255, 255]]])


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}]
)
def test_a_jpeg_without_its_end_is_whole_or_refused(options):
    """However much is missing, no pixel is made up; and the end marker alone is never missed."""
    data = encode(photo(), "JPEG", quality=90, **options)
    whole = pixels(data)
    for missing in (*range(1, 40), *range(40, len(data) - 700, 61)):
        try:
            np.testing.assert_array_equal(pixels(data[:-missing]), whole)
        except BadImage as error:
            assert missing > 2 and "truncated" in str(error)


def test_a_png_without_its_end_is_whole_or_refused():
    data = encode(photo(), "PNG")
    for missing in (*range(1, 40), *range(40, len(data) - 8, 61)):
        try:
            np.testing.assert_array_equal(pixels(data[:-missing]), np.asarray(photo()))
        except BadImage as error:
            assert missing > 12 and "truncated" in str(error)


def test_an_end_marker_in_a_thumbnail_is_not_the_end():
    thumbnail = encode(photo(10, 10), "JPEG")
    whole = encode(photo(), "JPEG", exif=b"Exif\0\0" + thumbnail)
    with pytest.raises(BadImage, match="truncated"):
        decode(whole[: len(whole) * 3 // 4])


def test_large_jpegs_are_decoded_at_a_reduced_scale(monkeypatch):
    data = encode(photo(300, 400), "JPEG", quality=95)
    monkeypatch.setattr(images, "REDUCE_ABOVE", 50_000)
    small = decode(data)
    assert small.size == (200, 150)
    assert np.abs(np.asarray(small, int) - np.asarray(photo(150, 200), int)).mean() < 2
    # Whatever the limit, within it the pixels are the same.
    np.testing.assert_array_equal(np.asarray(decode(data, max_pixels=60_000)), np.asarray(small))
    assert decode(data, max_pixels=15_000).size == (100, 75)
    with pytest.raises(BadImage, match="at most 1,000 pixels") as error:
        decode(data, max_pixels=1000)
    assert error.value.kind == "size"


def test_other_large_files_are_refused_with_the_limit():
    for data in (
        encode(photo(300, 400), "PNG"),
        encode(photo(300, 400), "JPEG", progressive=True),  # as large as it is in memory, whatever the scale
    ):
        with pytest.raises(BadImage, match="400 x 300") as error:
            decode(data, max_pixels=60_000)
        assert error.value.kind == "size"


@pytest.mark.slow
def test_photographs_of_108_and_200_megapixels():
    for width, height in ((12_000, 9_000), (16_320, 12_240)):
        y = np.linspace(0, 255, height).astype(np.uint8)[:, None]
        data = encode(Image.fromarray(np.broadcast_to(y, (height, width))), "JPEG")
        image = decode(data, max_pixels=50_000_000)
        assert image.size in ((6000, 4500), (8160, 6120))
        rows = np.asarray(image)[:, 0, 0].astype(int)
        assert np.abs(rows - np.linspace(0, 255, len(rows))).max() <= 4


def test_profiles_cost_nothing_where_they_say_nothing():
    """Images without a profile, and those of sRGB by name, are not converted: the very same object comes back."""
    plain = Image.open(io.BytesIO(encode(photo(), "JPEG")))
    plain.load()
    assert images.to_rgb(plain) is plain
    plain.info["icc_profile"] = srgb_profile()
    assert images.to_rgb(plain) is plain


@pytest.mark.parametrize("profile", [b"", b"junk", bytes(200), display_p3()[:150], press(), dark_gray()])
def test_profiles_that_do_not_fit_are_left_alone(profile):
    data = encode(photo(), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(pixels(data), np.asarray(photo()))


@pytest.mark.parametrize(
    "mode", ["RGBA", "LA", "L", "1", "P", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "F", "RGBa"]
)
def test_images_of_any_mode_may_be_given_from_python(mode):
    if mode in ("I;16", "F"):
        image = Image.fromarray(
            np.full((9, 12), 0.5 if mode == "F" else 2**15, np.float32 if mode == "F" else np.uint16)
        )
    elif mode == "LAB":
        image = Image.new("LAB", (12, 9), (128, 0, 0))
    elif mode == "RGBa":
        image = photo(9, 12).convert("RGBA").convert("RGBa")
    else:
        image = photo(9, 12).convert(mode)
    assert images.to_rgb(image).mode == "RGB"
    assert Preprocessing(16)(image).shape == (16, 16, 3)


def test_transparency_given_from_python_lies_on_white():
    assert (Preprocessing(16)(Image.new("RGBA", (40, 30), (200, 0, 0, 0))) == 255).all()


def test_heic_without_the_library_is_told(monkeypatch):
    monkeypatch.setattr(images, "reads_heif", lambda: False)
    with pytest.raises(BadImage, match="pip install pillow-heif") as error:
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert error.value.kind == "format"


@pytest.mark.parametrize("data", [b"\xff\x0a" + bytes(50), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50)])
def test_jpeg_xl_is_named(data):
    with pytest.raises(BadImage, match="JPEG XL is not read") as error:
        decode(data)
    assert error.value.kind == "format"


def test_files_without_end_are_not_read_for_ever(monkeypatch):
    monkeypatch.setattr(images, "_LARGEST_FILE", 1000)
    with pytest.raises(OSError, match=r"(?i)too large"):
        images.read_file("/dev/zero")


def test_endings_of_formats():
    assert {".jpe", ".jfif", ".avif", ".tif", ".gif", ".jp2", ".mpo"} <= formats.extensions()
    assert not formats.extensions() & formats.KNOWN_UNREADABLE


@pytest.mark.parametrize(
    ("ending", "what"),
    [
        (".heic", "pip install pillow-heif"),
        (".dng", "develop"),
        (".mov", "wastejax predict FILE"),
        (".jxl", "JPEG or PNG"),
        (".txt", None),
    ],
)
def test_what_is_left_out_is_named_with_what_to_do(ending, what):
    assert by_ending({ending: 25}) == f"25 {ending}" + (
        f" ({formats.why_unreadable(ending)})" if what else ""
    )
    assert (what or "") in by_ending({ending: 25})


def test_floats_that_are_no_numbers_leave_the_others_as_they_are():
    depths = np.linspace(0, 500, 4096, dtype=np.float32).reshape(64, 64)
    holes = depths.copy()
    holes[:8, :8] = [np.nan, -np.inf, np.inf, np.nan, np.inf, -np.inf, np.nan, np.nan]
    shown = [np.asarray(decode(encode(Image.fromarray(part), "TIFF"))) for part in (depths, holes)]
    np.testing.assert_array_equal(shown[1][8:], shown[0][8:])
    assert shown[1][0, :3, 0].tolist() == [0, 0, 255]
