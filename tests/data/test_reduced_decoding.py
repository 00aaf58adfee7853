"""Large JPEGs are decoded at a reduced scale, and the square shows the same part of the image all the same."""

import io
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin

from wastejax.data import pipeline
from wastejax.data.images import decode
from wastejax.data.sources import open_folder
from wastejax.data.transforms import AUGMENTATIONS, ENOUGH, Preprocessing
from wastejax.deployment.classifier import Classifier
from wastejax.deployment.images import squares

SIZE = 16
ORIENTATION = 0x0112
# EXIF 2.3: how the stored x and y run along the upright ones: swapped, x from the right, y from the bottom.
STORED = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def ramps(width: int, height: int) -> np.ndarray:
    """Red grows from left to right and green from top to bottom, 0 to 255 between the edges; float64 [H, W, 3]."""
    x = (np.arange(width) + 0.5) / width * 255
    y = (np.arange(height) + 0.5) / height * 255
    return np.stack(np.broadcast_arrays(x[None], y[:, None], 128.0), -1)


def jpeg(pixels: np.ndarray, orientation: int = 1, mode: str = "RGB", **options) -> bytes:
    """Returns upright pixels as a JPEG that is stored turned."""
    swapped, from_right, from_bottom = STORED[orientation]
    stored = pixels.swapaxes(0, 1) if swapped else pixels
    stored = stored[:, ::-1] if from_right else stored
    stored = stored[::-1] if from_bottom else stored
    image = Image.fromarray(np.rint(stored).astype(np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    image.convert(mode).save(file, "JPEG", quality=98, exif=exif, **options)
    return file.getvalue()


def expected(width: int, height: int, crop: float) -> np.ndarray:
    """Returns what the square of `ramps` is, by the definition of the center crop; float64 [SIZE, SIZE, 2]."""
    side = min(width, height) * SIZE / round(SIZE / crop)
    centers = (np.arange(SIZE) + 0.5) / SIZE * side
    x = ((width - side) / 2 + centers) / width * 255
    y = ((height - side) / 2 + centers) / height * 255
    return np.stack(np.broadcast_arrays(x[None], y[:, None]), -1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(120, 700),
    st.integers(120, 700),
    st.sampled_from(list(STORED)),
    st.sampled_from([0.7, 0.9]),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
)
@example(589, 597, 3, 0.9, 2, False)  # at 1/8: 73.6 of 74 columns, 74.6 of 75 rows
@example(593, 585, 6, 0.9, 2, True)
@example(593, 640, 8, 0.9, 0, False)
def test_the_square_of_a_reduced_jpeg_is_where_it_was(
    width, height, orientation, crop, subsampling, progressive
):
    options = {"subsampling": subsampling, "progressive": progressive}
    square = Preprocessing(SIZE, crop).of_file(jpeg(ramps(width, height), orientation, **options))
    error = square[..., :2] - expected(width, height, crop)
    # A pixel of the square is up to 16 levels. Not its edge: a reduced edge pixel is a mean of what is there.
    assert np.abs(error[1:-1, 1:-1]).max() <= 2.5
    assert np.abs(error[1:-1, 1:-1].mean((0, 1))).max() <= 0.4


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_gray_and_cmyk_are_reduced_alike(mode):
    pixels = ramps(333, 291).mean(-1, keepdims=True).repeat(3, -1) if mode == "L" else ramps(333, 291)
    data = jpeg(pixels, 6, mode)
    whole = Preprocessing(SIZE)(decode(data)).astype(int)
    assert np.abs(Preprocessing(SIZE).of_file(data) - whole).max() <= 3


def scales(monkeypatch) -> list[int]:
    """Returns a list that grows by the scale of every JPEG that is decoded smaller."""
    found: list[int] = []
    draft = JpegImagePlugin.JpegImageFile.draft

    def watched(image, mode, size):
        before = image.width
        drafted = draft(image, mode, size)
        found.append(-(-before // image.width))
        return drafted

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", watched)
    return found


def test_the_scale_leaves_enough_of_the_short_side(monkeypatch):
    found = scales(monkeypatch)
    short = round(SIZE / 0.8)  # 20
    for times in (1, 1.99, 2, 4, 8):
        side = int(times * ENOUGH * short)
        Preprocessing(SIZE, 0.8).of_file(jpeg(ramps(side + 30, side)))
    assert found == [2, 4, 8]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["PNG", "WEBP", "BMP", "GIF"]))
def test_other_kinds_of_files_are_read_as_ever(width, height, kind):
    noise = np.random.default_rng(width * 300 + height).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    preprocessing = Preprocessing(SIZE)
    np.testing.assert_array_equal(
        preprocessing.of_file(file.getvalue()), preprocessing(decode(file.getvalue()))
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 135), st.integers(1, 300), st.sampled_from(list(STORED)))
def test_small_jpegs_are_read_as_ever(short, long, orientation):
    data = jpeg(ramps(short, long), orientation)
    preprocessing = Preprocessing(SIZE)  # needs 4 x 17 pixels
    np.testing.assert_array_equal(preprocessing.of_file(data), preprocessing(decode(data)))


def test_every_way_in_sees_the_same_square(tmp_path):
    """`predict`, Python, the server and evaluation, of a photograph large enough to be reduced."""
    app = pytest.importorskip("wastejax.deployment.server.app")
    data = jpeg(ramps(451, 307), 6)
    file = tmp_path / "a" / "photo.jpg"
    file.parent.mkdir()
    file.write_bytes(data)
    preprocessing = Preprocessing(SIZE)
    wanted = preprocessing.of_file(data)
    predictor = SimpleNamespace(preprocessing=preprocessing)
    service = SimpleNamespace(predictor=predictor, limits=app.Limits())
    ((_, predicted),) = squares([str(file)], preprocessing)
    (batch,) = pipeline.EvalBatches(open_folder(tmp_path), np.arange(1), preprocessing, 1)
    found = [
        predicted,
        Classifier(predictor)._square(file),  # type: ignore[arg-type]
        app.Service._square(service, data),  # type: ignore[arg-type]
        batch["image"][0],
    ]
    for square in found:
        np.testing.assert_array_equal(square, wanted)


def test_training_images_keep_their_shape_when_they_are_reduced(tmp_path, monkeypatch):
    file = tmp_path / "a" / "photo.jpg"
    file.parent.mkdir()
    width, height = 800, 525  # 100 x 65.6 at 1/8
    file.write_bytes(jpeg(ramps(width, height), 3))
    found = scales(monkeypatch)
    read = pipeline.Reader(open_folder(Path(tmp_path)), side=SIZE)
    pixels = read(0).astype(float)
    assert found == [8] and pixels.shape == (16, round(width * 16 / height), 3)
    error = pixels - ramps(pixels.shape[1], 16)
    assert np.abs(error[1:-1, 1:-1, :2]).max() <= 3
    square = AUGMENTATIONS["none"](Preprocessing(SIZE, 1.0), 0.35)(read(0), random.Random(0))
    assert square.shape == (SIZE, SIZE, 3)
