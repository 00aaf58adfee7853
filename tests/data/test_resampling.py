import sys
import threading

import numpy as np
import pytest
from PIL import Image

from wastejax.data.images import resampling
from wastejax.data.images.resampling import FILTERS, resized_crop

BOXES = [
    (10.0, 10.0, 210.0, 210.0),
    (10.3, 20.7, 210.6, 129.5),
    (100.2, 100.6, 40.0, 60.0),
    (0.0, 0.0, 256.0, 240.0),
]


def blobs(height=240, width=256) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (30, 32, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def by_pillow(pixels, box, size, interpolation):
    left, top, width, height = box
    image = Image.fromarray(pixels)
    return np.asarray(
        image.resize((size, size), FILTERS[interpolation], box=(left, top, left + width, top + height))
    )


@pytest.mark.parametrize("interpolation", list(FILTERS))
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("box", BOXES)
def test_a_cut_is_that_of_pillow(box, size, interpolation):
    pixels = blobs()
    ours = resized_crop(pixels, box, size, interpolation)
    theirs = by_pillow(pixels, box, size, interpolation)
    assert ours.shape == (size, size, 3) and ours.dtype == np.uint8
    difference = np.abs(ours.astype(int) - theirs)
    # Both round between two passes, with weights of different precision; another filter is off by 0.2 and more.
    assert difference.mean() < 0.19 and difference.max() <= 5


def test_without_the_library_pillow_does_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
    monkeypatch.setattr(resampling, "_thread", threading.local())
    pixels = blobs()
    np.testing.assert_array_equal(
        resized_crop(pixels, BOXES[1], 64, "bicubic"), by_pillow(pixels, BOXES[1], 64, "bicubic")
    )


@pytest.mark.parametrize("missing", [False, True])
def test_a_box_may_end_past_the_image_by_the_last_bit(missing, monkeypatch):
    if missing:
        monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
    monkeypatch.setattr(resampling, "_thread", threading.local())
    pixels = blobs()
    box = (0.0, 0.0, np.nextafter(256.0, 300), np.nextafter(240.0, 300))
    assert resized_crop(pixels, box, 64, "bicubic").shape == (64, 64, 3)


def test_a_flipped_view_and_a_image_of_one_pixel():
    pixels = blobs()
    box = (5.0, 7.0, 100.0, 90.0)
    whole = resized_crop(np.ascontiguousarray(pixels[:, ::-1]), box, 32, "bilinear")
    np.testing.assert_array_equal(resized_crop(pixels[:, ::-1], box, 32, "bilinear"), whole)
    assert (resized_crop(np.full((1, 1, 3), 9, np.uint8), (0.0, 0.0, 1.0, 1.0), 8, "bicubic") == 9).all()


@pytest.mark.parametrize("interpolation", list(FILTERS))
@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("shape", [(240, 320, 3), (320, 240, 3)])
def test_the_order_of_the_axes_is_all_that_differs_from_pillow(shape, size, interpolation):
    """On noise, the worst there is: Pillow gives the same where it is made to resize columns first."""
    pytest.importorskip("cykooz_resizer")
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for box in ((0.0, 0.0, float(shape[1]), float(shape[0])), (10.3, 20.7, 150.2, 170.1)):
        left, top, width, height = box
        ours = resized_crop(noise, box, size, interpolation).astype(int)
        columns_first = Image.fromarray(noise)
        for sides, part in (
            ((shape[1], size), (0, top, shape[1], top + height)),
            ((size, size), (left, 0, left + width, size)),
        ):
            columns_first = columns_first.resize(sides, FILTERS[interpolation], box=part)
        assert np.abs(ours - np.asarray(columns_first, int)).max() <= 2
