"""Every size, crop and orientation: the boxes lie within the image, in Python and in the page alike."""

import io
import json
import random
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from wastejax.data import pipeline
from wastejax.data.images.resampling import resized_crop
from wastejax.data.sources import Source
from wastejax.data.transforms import AUGMENTATIONS, Preprocessing, random_box
from wastejax.deployment import website
from wastejax.deployment.heatmaps import heat_map
from wastejax.deployment.predictor import Predictor
from wastejax.deployment.regions import surroundings

SIDES = st.integers(1, 6000)
SIZES = st.integers(16, 2048)  # what a config allows
CROPS = st.floats(0.1, 1)
SHORT_SIDES_THAT_FELL = (49, 98, 206, 425, 498, 850, 998, 1002, 1700, 3400)

PAGE = """
import {{ center }} from {module};
import {{ createInterface }} from "node:readline";
let input = "";
for await (const line of createInterface({{ input: process.stdin }})) input += line;
const rows = JSON.parse(input).map(([width, height, image_size, crop]) => {{
  const {{ left, top, side }} = center(width, height, {{ image_size, crop }});
  return [left, top, left + side, top + side];
}});
console.log(JSON.stringify(rows));
"""


def within(box: tuple[float, ...], width: int, height: int) -> bool:
    left, top, right, bottom = box
    return 0 <= left < right <= width and 0 <= top < bottom <= height


@settings(max_examples=250, deadline=None)
@given(SIDES, SIDES, SIZES, CROPS)
@example(637, 850, 256, 1.0)
@example(1, 6000, 2048, 0.1)
@example(6000, 1, 16, 1.0)
def test_the_square_that_is_kept_lies_within_the_image(width, height, size, crop):
    left, top, right, bottom = Preprocessing(size, crop).box(width, height)
    assert within((left, top, right, bottom), width, height)
    short = min(width, height)
    assert right - left == pytest.approx(bottom - top) == pytest.approx(short * size / round(size / crop))
    assert left + right == pytest.approx(width) and top + bottom == pytest.approx(height)


@pytest.mark.parametrize("size", [224, 256])
def test_a_crop_of_one_keeps_the_whole_short_side_of_every_size(size):
    for short in range(1, 6001):
        assert Preprocessing(size, 1.0).box(short, 6000)[::2] == (0, short)
        assert Preprocessing(size, 1.0).box(6000, short)[1::2] == (0, short)


@pytest.mark.parametrize("short", SHORT_SIDES_THAT_FELL)
def test_sizes_whose_box_began_left_of_the_image(short):
    preprocessing = Preprocessing(256, 1.0)
    for size in ((short, short + 7), (short + 7, short)):
        assert preprocessing(Image.new("RGB", size, (9, 9, 9))).shape == (256, 256, 3)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(16, 80),
    CROPS,
    st.sampled_from(["bilinear", "bicubic", "lanczos"]),
)
@example(1, 1, 16, 0.1, "lanczos")
def test_small_images_of_any_shape_become_squares(width, height, size, crop, interpolation):
    image = Image.new("RGB", (width, height), (200, 100, 50))
    square = Preprocessing(size, crop, interpolation)(image)
    assert square.shape == (size, size, 3) and (square == (200, 100, 50)).all()


@settings(max_examples=250, deadline=None)
@given(SIDES, SIDES, st.floats(0.01, 1), st.integers(0, 2**32))
@example(1, 1, 1.0, 0)
@example(6000, 1, 0.01, 0)
def test_random_crops_lie_within_the_image(width, height, min_area, seed):
    left, top, w, h = random_box(width, height, random.Random(seed), min_area)
    assert within((left, top, left + w, top + h), width, height)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 200]),
    st.booleans(),
    st.sampled_from(list(AUGMENTATIONS)),
    st.floats(0.01, 1),
    st.integers(0, 2**32),
)
def test_every_augmentation_takes_every_shape(width, height, longer, tall, name, min_area, seed):
    width *= longer
    shape = (width, height, 3) if tall else (height, width, 3)
    augment = AUGMENTATIONS[name](Preprocessing(24), min_area)
    square = augment(np.full(shape, 7, np.uint8), random.Random(seed))
    assert square.shape == (24, 24, 3) and square.dtype == np.uint8


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_a_cut_may_be_any_part_of_an_image(width, height, data):
    left = data.draw(st.floats(0, width, exclude_max=True))
    top = data.draw(st.floats(0, height, exclude_max=True))
    box = (left, top, width - left, height - top)
    pixels = np.full((height, width, 3), 77, np.uint8)
    assert (resized_crop(pixels, box, 16, "bicubic") == 77).all()


@settings(max_examples=250, deadline=None)
@given(SIDES, SIDES, st.data())
def test_surroundings_of_a_region_lie_within_the_image(width, height, data):
    share = st.floats(0, 1)
    x0, x1 = sorted(width * data.draw(share) for _ in range(2))
    y0, y1 = sorted(height * data.draw(share) for _ in range(2))
    box = np.array([x0, y0, max(x1, x0 + 1e-3 * width), max(y1, y0 + 1e-3 * height)])
    box = np.minimum(box, [width, height, width, height])
    if (box[2:] > box[:2]).all():
        assert within(surroundings(box, width, height, 0.1), width, height)


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, st.integers(16, 2048))
@example(6000, 1, 256)
def test_shrunk_images_keep_their_short_side(width, height, side):
    # The size alone: `shrink` resizes what is larger than its side.
    image = SimpleNamespace(size=(width, height), width=width, height=height)
    image.resize = lambda size, *_, **__: SimpleNamespace(size=size)
    assert min(pipeline.shrink(image, side).size) == min(side, width, height)  # type: ignore[arg-type]


@settings(max_examples=250, deadline=None)
@given(SIZES, CROPS, st.floats(0.01, 1))
def test_training_images_are_kept_as_large_as_evaluation_sees_them(size, crop, min_area):
    side = pipeline.cached_side(size, crop, min_area)
    assert side >= min(256, size)
    if size > pipeline.CACHED_SIDE:
        assert side >= size / crop


def test_training_above_256_pixels_sees_every_pixel():
    """Stripes of one pixel at 400: kept as they are, where a cache of 256 would have made them gray."""
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    preprocessing = Preprocessing(400, crop=1.0)
    side = pipeline.cached_side(400, 1.0, 0.35)
    read = pipeline.Reader(one_image(stripes), side)
    square = AUGMENTATIONS["none"](preprocessing, 0.35)(read(0), random.Random(0))
    np.testing.assert_array_equal(square, stripes)


def one_image(pixels: np.ndarray) -> Source:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Source(("a/1.png",), np.zeros(1, np.int32), ("a",), ("",), None, lambda i: file.getvalue(), ("",))


@pytest.mark.parametrize("size", [(4, 1), (1, 4), (1, 1), (3, 2), (500, 3), (1025, 1)])
@pytest.mark.parametrize("crop", [0.1, 1.0])
def test_heat_maps_of_thin_images(size, crop, tmp_path):
    predictor = Predictor(
        tmp_path,
        "stand-in",
        ("a", "b"),
        Preprocessing(16, crop),
        None,  # type: ignore[arg-type]
        lambda x: np.full((len(x), 2), 0.5, np.float32),
        dense=lambda x: np.zeros((1, 2, 2, 2), np.float32),
    )
    drawn = heat_map(predictor, Image.new("RGB", size))
    assert drawn.size == (min(size[0], 1024), min(size[1], 1024))


def test_the_page_and_python_cut_the_same_square():
    """Over 4,000 sizes and crops, by node; the page's numbers are JavaScript's, which are Python's floats."""
    node = shutil.which("node")
    if not node:
        pytest.skip("no node")
    rng = random.Random(0)
    cases = [(short, short + 1, 256, 1.0) for short in SHORT_SIDES_THAT_FELL]
    cases += [
        (rng.randint(1, 6000), rng.randint(1, 6000), rng.randint(16, 2048), rng.uniform(0.1, 1))
        for _ in range(2000)
    ]
    crops = (0.1, 0.5, 0.75, 0.8, 0.875, 0.9, 0.95, 0.96, 1.0)
    cases += [
        (rng.randint(1, 6000), rng.randint(1, 6000), rng.choice((64, 128, 224, 256, 260)), rng.choice(crops))
        for _ in range(2000)
    ]
    module = json.dumps((Path(website.__file__).parent / "web" / "resize.js").as_uri())
    done = subprocess.run(
        [node, "--input-type=module", "--eval", PAGE.format(module=module)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    ours = [Preprocessing(size, crop).box(width, height) for width, height, size, crop in cases]
    assert json.loads(done.stdout) == [list(box) for box in ours]
