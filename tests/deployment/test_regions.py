"""Several objects in one image: hand-made maps, and a network that knows a class by its color."""

import argparse
import csv
import dataclasses
import itertools
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from experiments.regions import RESULT, cut_out, matched, mosaic, trimmed
from wastejax.cli.predict import add_arguments, run
from wastejax.data.taxonomy import load_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.heatmaps import save_drawn
from wastejax.deployment.predictor import Predictor, softmax
from wastejax.deployment.regions import (
    Region,
    Settings,
    choose,
    empty,
    find_regions,
    iou,
    propose,
    surroundings,
)
from wastejax.deployment.regions.answers import (
    RegionAnswer,
    csv_lines,
    draw,
    json_lines,
    region_answers,
    table,
)
from wastejax.errors import UserError
from wastejax.main import parser

CLASSES = ("eggshells", "glass_food_jars", "tea_bags")  # red, green, blue


def by_color(images: np.ndarray) -> np.ndarray:
    """Logits at every position of 32 x 32 pixels: how much of each color there is, beyond gray."""
    B, H, W, _ = images.shape
    blocks = images.astype(float).reshape(B, H // 32, 32, W // 32, 32, 3).mean((2, 4)) / 255
    return 20 * np.maximum(blocks - blocks.mean(-1, keepdims=True), 0)


FAKE = Predictor(
    Path("fake"),
    "numpy",
    CLASSES,
    Preprocessing(128),
    load_taxonomy(),
    lambda images: softmax(by_color(images).mean((1, 2))),
    dense=by_color,
    any_side=True,
)
SETTINGS = Settings((3.0,), (0.3, 0.45, 0.6, 0.75), 0.4, 0.1, growth=0.2, overlap=0.5, least=0.5)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
THINGS = [
    (RED, (40, 60, 200, 210)),
    (GREEN, (300, 40, 420, 190)),
    (BLUE, (470, 250, 600, 420)),
    (RED, (90, 290, 260, 430)),
    (BLUE, (200, 60, 290, 200)),  # touches the first
]


def scene(*things) -> Image.Image:
    image = Image.new("RGB", (640, 480), (128, 128, 128))
    for color, (left, top, right, bottom) in things:
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=color)
    return image


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_object_is_found_once_with_its_class_and_box(count):
    found = find_regions(FAKE, scene(*THINGS[:count]), SETTINGS)
    assert len(found) == count
    for color, box in THINGS[:count]:
        label = CLASSES[color.index(255)]
        fits = [iou(np.array(box, float), np.array([r.box], float))[0] for r in found if r.label == label]
        assert max(fits) > 0.35, (label, box, found)
    assert [r.probability for r in found] == sorted((r.probability for r in found), reverse=True)
    assert {r.bin for r in found if r.label == "eggshells"} == {FAKE.bin_of("eggshells")} != {""}


def test_nothing_is_found_where_nothing_is_and_unsure_objects_are_left_out():
    assert find_regions(FAKE, scene()) == []
    pale = scene(((136, 124, 124), (200, 100, 400, 300)))
    assert find_regions(FAKE, pale, Settings(least=0.6)) == []
    assert len(find_regions(FAKE, pale, Settings(least=0.34))) == 1


def noisy(image: Image.Image, deviation: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, deviation, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("deviation", [0.0, 2.0])
@pytest.mark.parametrize("ground", [(255, 255, 255), (128, 128, 128), (20, 40, 30)])
def test_even_ground_is_no_object_however_sure_the_classifier_is(ground, deviation):
    image = noisy(Image.new("RGB", (640, 480), ground), deviation)
    ImageDraw.Draw(image).rectangle((300, 100, 399, 199), fill=RED)
    boxes = np.array([[0, 0, 290, 480], [420, 0, 640, 480], [290, 90, 410, 210], [250, 0, 640, 480]], float)
    assert empty(image, boxes).tolist() == [True, True, False, False]
    assert empty(image, boxes[:0]).tolist() == []


def test_a_classifier_that_is_sure_of_everything_finds_nothing_on_even_ground():
    def dense(images: np.ndarray) -> np.ndarray:
        return np.tile([0.0, 9, 0], (len(images), images.shape[1] // 32, images.shape[2] // 32, 1))

    sure = dataclasses.replace(
        FAKE, dense=dense, probabilities=lambda images: np.tile(np.float32([0, 1, 0]), (len(images), 1))
    )
    white = Image.new("RGB", (640, 480), "white")
    assert find_regions(sure, noisy(white, 2.0)) == []
    assert [r.label for r in find_regions(sure, noisy(white, 60.0))] == ["glass_food_jars"]


@pytest.mark.parametrize("size", [(40, 30), (3000, 200), (1, 1), (333, 777)])
def test_any_size_of_image_gives_boxes_inside_it(size):
    for region in find_regions(FAKE, Image.new("RGB", size, RED), Settings(least=0.0)):
        left, top, right, bottom = region.box
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]


def test_objects_are_found_in_a_long_strip():
    for size, box in (((2000, 40), (800, 0, 1199, 39)), ((40, 2000), (0, 800, 39, 1199))):
        strip = Image.new("RGB", size, (128, 128, 128))
        ImageDraw.Draw(strip).rectangle(box, fill=RED)
        assert [r.label for r in find_regions(FAKE, strip, SETTINGS)] == ["eggshells"]


def test_boxes_lie_around_connected_positions():
    logits = np.zeros((4, 8, 2))
    logits[1, 1, 0] = logits[1, 2, 0] = 6
    logits[3, 6, 0] = 6
    boxes = propose(logits, levels=(0.9,), prominence=0.5)
    # Linear interpolation keeps the maximum at the middle of a position, so 0.9 of it is a little less than it.
    assert len(boxes) == 4  # two, by the strongest class and by class 0
    np.testing.assert_allclose(boxes[0], [1.5 / 8, 1.25 / 4, 2.5 / 8, 1.75 / 4], atol=0.25 / 4)
    np.testing.assert_allclose(boxes[1], [6.25 / 8, 3.25 / 4, 6.75 / 8, 4 / 4], atol=0.25 / 4)
    np.testing.assert_allclose(boxes[2:], boxes[:2])


def test_a_lower_level_joins_and_a_higher_one_parts():
    logits = np.zeros((1, 5, 2))
    logits[0, :, 0] = [4, 4, 2, 4, 4]
    low = propose(logits, levels=(0.3,), prominence=0.5)
    high = propose(logits, levels=(0.8,), prominence=0.5)
    assert len(low) == 2 and (low == [0, 0, 1, 1]).all()
    assert len(high) == 4 and high[0, 2] < 0.5 < high[1, 0]


def test_neighbors_of_two_classes_come_apart():
    logits = np.zeros((1, 4, 3))
    logits[0, :2, 1] = logits[0, 2:, 2] = 5
    boxes = propose(logits, levels=(0.5,), prominence=0.5).tolist()
    assert boxes[0] == [0, 0, 1, 1]  # whatever class: one
    assert boxes[1][0] == 0 and boxes[1][2] == pytest.approx(0.5, abs=0.07)
    assert boxes[2][2] == 1 and boxes[2][0] == pytest.approx(0.5, abs=0.07)


def test_what_lifts_all_classes_alike_is_no_object():
    logits = np.zeros((4, 4, 3))
    logits[2, 2] = 100
    assert propose(logits, levels=(0.5,), prominence=0.5).shape == (0, 4)


BOXES = np.array([[0, 0, 10, 10], [1, 1, 9, 9], [20, 0, 30, 10], [0, 0, 30, 10]], float)


def test_the_better_of_two_overlapping_boxes_stays():
    settings = Settings(growth=0.0, overlap=0.5, least=0.5)
    assert choose(BOXES, np.array([0.8, 0.9, 0.7, 0.4]), 900, settings).tolist() == [1, 2]
    assert choose(BOXES, np.array([0.8, 0.9, 0.7, 0.95]), 900, settings).tolist() == [3]
    # 0.8 * 100^0.5 against 0.9 * 64^0.5: the larger one, which is hardly less sure.
    grown = dataclasses.replace(settings, growth=0.5)
    assert choose(BOXES[:3], np.array([0.8, 0.9, 0.7]), 900, grown).tolist() == [0, 2]
    assert choose(BOXES[:0], np.zeros(0), 900, settings).tolist() == []


def test_iou_by_hand():
    np.testing.assert_allclose(iou(BOXES[0], BOXES), [1, 0.64, 0, 1 / 3])


def test_surroundings_are_square_and_inside():
    assert surroundings(np.array([40, 40, 60, 80]), 200, 200, 0.25) == (20, 30, 80, 90)
    assert surroundings(np.array([0, 40, 20, 80]), 200, 200, 0.25) == (0, 30, 60, 90)  # moved in
    assert surroundings(np.array([0, 0, 200, 40]), 200, 50, 0.25) == (0, 0, 200, 50)  # cut


ROWS = [
    RegionAnswer(
        "a, b.jpg", (Region("glass", "glass", 0.9, (1, 2, 30, 40)), Region("종이", "", 0.6, (5, 6, 7, 8)))
    ),
    RegionAnswer("c.jpg"),
    RegionAnswer("d.jpg", error="truncated"),
]
NAMES = [row.file for row in ROWS]


def test_the_three_formats_say_the_same():
    lines = [line.split() for line in table(ROWS, NAMES)]
    assert lines[1] == ["a,", "b.jpg", "glass", "glass", "90.0%", "1", "2", "30", "40"]
    assert lines[2] == ["종이", "60.0%", "5", "6", "7", "8"]
    assert lines[3:] == [["c.jpg", "-", "nothing", "found"], ["d.jpg", "-", "truncated"]]
    parsed = json.loads("\n".join(json_lines(ROWS, NAMES)))
    assert parsed[0]["objects"][0] == {
        "class": "glass",
        "bin": "glass",
        "probability": 0.9,
        "box": [1, 2, 30, 40],
    }
    assert parsed[1] == {"file": "c.jpg", "objects": []}
    assert parsed[2] == {"file": "d.jpg", "error": "truncated"}
    cells = list(csv.reader(csv_lines(ROWS, NAMES)))
    assert cells[1] == ["a, b.jpg", "1", "glass", "glass", "0.900000", "1", "2", "30", "40", ""]
    assert cells[3] == ["c.jpg", *[""] * 9]  # looked at, and nothing found
    assert cells[4] == ["d.jpg", *[""] * 8, "truncated"] and len(cells) == 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no such names")
def test_a_name_that_is_not_utf_8_is_drawn_under_one_that_is(tmp_path):
    image = Image.new("RGB", (8, 8))
    names = [save_drawn(image, tmp_path, "caf\udce9.jpg", "regions").name for _ in range(2)]
    assert names == ["caf__regions.jpg", "caf__regions_2.jpg"]


def test_help_and_guide_say_how_probable_an_object_must_be():
    command = argparse.ArgumentParser()
    add_arguments(command)
    guide = Path(__file__).parents[2] / "docs" / "guides" / "camera-and-regions.md"
    for text in (command.format_help(), guide.read_text()):
        text = " ".join(text.split())
        assert f"a probability of at least {Settings().least:g}" in text
        assert "in each frame" in text


def test_the_table_leaves_a_terminal_as_it_is():
    name = "new\nline\x1b[31m.jpg"
    lines = list(table([RegionAnswer(name), ROWS[0]._replace(file=name)], [name]))
    assert len(lines) == 4 and all(line.isprintable() for line in lines)
    assert lines[1].startswith(r"new\nline\x1b[31m.jpg  - nothing")


def test_boxes_are_drawn_where_they_are():
    drawn = np.asarray(draw(Image.new("RGB", (2048, 1024)), [Region("jar", "", 0.9, (600, 400, 1000, 800))]))
    assert drawn.shape == (512, 1024, 3)
    ink = drawn.any(axis=-1)
    assert ink[200:400, 300].all() and ink[200:400, 499].all() and ink[399, 300:500].all()
    assert not ink[250:390, 310:490].any() and not ink[:195].any() and not ink[410:].any()


def test_predict_finds_draws_and_goes_on_after_a_bad_file(tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    images.mkdir()
    scene(*THINGS[:2]).save(images / "two.png")
    (images / "bad.jpg").write_bytes(b"no image")
    monkeypatch.setattr("wastejax.cli.predict.load_engine", lambda *_, **__: FAKE)
    options = ["predict", str(images), "--regions", "--format=json", f"--draw={tmp_path / 'drawn'}"]
    lines: list[str] = []
    assert run(parser("predict").parse_args(options), lines.append) == 1
    bad, two = json.loads("\n".join(lines))
    assert bad["error"] == "not an image" and {o["class"] for o in two["objects"]} == set(CLASSES[:2])
    with Image.open(tmp_path / "drawn" / "two_regions.jpg") as drawn:
        assert drawn.size == (640, 480)
    assert "bad.jpg: not an image" in capsys.readouterr().err


def test_mistakes_are_one_line(monkeypatch):
    exported = dataclasses.replace(FAKE, path=Path("model.onnx"), dense=None)
    monkeypatch.setattr("wastejax.cli.predict.load_engine", lambda *_, **__: exported)
    for options, message in (
        (
            ["--regions"],
            r"model\.onnx: has no class map, which regions come from; export it with --class-map",
        ),
        (["--draw=d"], "--draw: only with --regions"),
        (["--regions", "--heatmap=d"], "--heatmap and --regions: give one"),
    ):
        with pytest.raises(UserError, match=message):
            run(parser("predict").parse_args(["predict", "x.jpg", *options]), print)


def test_a_threshold_can_be_asked_for(tmp_path):
    scene(((136, 124, 124), (200, 100, 400, 300))).save(tmp_path / "pale.png")
    names = [str(tmp_path / "pale.png")]
    assert [len(row.regions) for row in region_answers(FAKE, names, least=0.6)] == [0]
    assert [len(row.regions) for row in region_answers(FAKE, names, least=0.34)] == [1]


def studio() -> Image.Image:
    image = Image.new("RGB", (200, 160), (250, 250, 250))
    ImageDraw.Draw(image).ellipse((50, 20, 149, 119), fill=(90, 40, 10))
    ImageDraw.Draw(image).rectangle((90, 60, 109, 79), fill="white")  # white inside is not ground
    return image


def test_objects_are_cut_out_along_white_ground():
    cut = cut_out(studio())
    assert cut is not None and cut.size == (100, 100)
    alpha = np.asarray(cut.getchannel("A"))
    assert alpha[50, 50] == 255 and alpha[2, 2] == 0
    assert (alpha > 127).mean() == pytest.approx(np.pi / 4, abs=0.02)
    two = studio()
    ImageDraw.Draw(two).rectangle((5, 100, 45, 150), fill="black")
    assert cut_out(two) is None  # whose box would it be?
    assert cut_out(Image.new("RGB", (64, 64), (90, 120, 90))) is None
    barred = Image.new("RGB", (100, 60), "white")
    barred.paste((90, 120, 90), (20, 0, 70, 60))
    assert trimmed(barred).size == (50, 60)


@pytest.mark.parametrize("kind", ["plain", "cluttered"])
def test_a_mosaic_holds_its_objects_apart_and_whole(kind):
    tile = Image.new("RGB", (120, 90), (1, 2, 250))
    objects = [("eggshells", cut_out(studio())), *[("glass", tile)] * 8]
    image, things = mosaic(objects, kind, random.Random(1))
    assert [thing.label for thing in things] == [label for label, _ in objects]
    assert [thing.cut for thing in things] == [True] + [False] * 8
    for one, other in itertools.combinations([np.array(thing.box, float) for thing in things], 2):
        assert iou(one, other[None])[0] == 0
    pixels = np.asarray(image)
    for left, top, right, bottom in [thing.box for thing in things[1:]]:
        assert (pixels[top:bottom, left:right] == (1, 2, 250)).all()


def test_a_thing_is_found_once_and_by_its_class_where_that_counts():
    things = [{"label": "a", "box": [0, 0, 10, 10]}, {"label": "b", "box": [20, 0, 30, 10]}]
    boxes = np.array(
        [[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 3.5], [50, 0, 60, 10]], float
    )
    labels = ["a", "a", "a", "b", "b"]
    assert matched(things, boxes, labels, aware=True).tolist() == [True, False]
    assert matched(things, boxes, labels, aware=False).tolist() == [True, True]
    assert matched(things, boxes[3:4], ["a"], aware=True).tolist() == [True, False]  # IoU 0.35
    assert matched(things, boxes[3:4] * 0.9, ["a"], aware=True).tolist() == [False, False]  # 0.28


def test_the_settings_are_those_that_were_measured():
    stored = json.loads(RESULT.read_text())["settings"]
    assert dataclasses.asdict(Settings()) == {
        k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()
    }
