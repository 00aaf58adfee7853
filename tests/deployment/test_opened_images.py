"""What PIL has opened gets the answer of its file; what was changed since gets its own."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from small_models import write_bundle

import wastejax
from wastejax.data.images.opened import file_of

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return wastejax.load(write_bundle(tmp_path_factory.mktemp("model") / "bundle"))


@pytest.fixture
def image() -> Image.Image:
    coarse = np.random.default_rng(1).integers(0, 256, (5, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC)


def deep_png() -> bytes:
    """An RGB PNG of which 12 of 16 bits are in use."""
    samples = np.random.default_rng(2).integers(0, 2**12, (80, 80, 3)).astype(">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in samples)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 80, 80, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["xmp.jpg", "deep.png", "large.jpg"])
def test_a_file_gets_one_answer_as_a_path_and_as_an_image(model, image, tmp_path, kind):
    path = tmp_path / kind
    if kind == "deep.png":
        path.write_bytes(deep_png())
    else:
        image.resize((1200, 900) if kind == "large.jpg" else image.size).save(path, xmp=XMP)
    expected = model(path)
    assert model(path.read_bytes()) == expected
    assert model(Image.open(path)) == expected
    assert model(Image.open(io.BytesIO(path.read_bytes()))) == expected
    loaded = Image.open(path)
    loaded.load()
    assert model(loaded) == expected
    with path.open("rb") as file:
        once = Image.open(file)
        assert [answer.label for answer in model([once, once])] == [expected.label] * 2
        assert once.getpixel((0, 0))  # its file can still be read


def test_xmp_turns_no_image_whose_file_is_gone(model, image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    expected = model(buffer.getvalue())
    copied = Image.open(buffer).copy()
    copied.info["xmp"] = XMP
    assert model(copied) == expected
    exif = Image.Exif()
    exif[0x0112] = 6
    copied.info["exif"] = exif.tobytes()
    assert model(copied) == model(image.transpose(Image.Transpose.ROTATE_270))


def test_what_was_changed_since_is_not_read_from_its_file(image, tmp_path):
    path = tmp_path / "a.jpg"
    image.resize((1200, 900)).save(path)
    same, drafted, drawn, turned, gone = (Image.open(path) for _ in range(5))
    assert file_of(same) == path.read_bytes()
    drafted.draft("RGB", (300, 200))
    drawn.paste((0, 0, 0), (0, 0, 600, 600))
    assert [file_of(changed) for changed in (drafted, drawn, turned.rotate(90))] == [None] * 3
    drafted.load()
    gone.load()
    path.unlink()
    assert file_of(gone) is None
    frames = tmp_path / "a.gif"
    image.save(frames, save_all=True, append_images=[image.rotate(90)])
    with Image.open(frames) as later:
        assert file_of(later) == frames.read_bytes()
        later.seek(1)
        assert file_of(later) is None
