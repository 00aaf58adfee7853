"""Corruptions against numbers worked out by hand, and a made-up model whose accuracy under them is known."""

import io
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from wastejax.cli import robustness as command
from wastejax.data.images import decode
from wastejax.data.sources import open_folder
from wastejax.data.transforms import Preprocessing
from wastejax.errors import UserError
from wastejax.evaluation import robustness
from wastejax.evaluation.images import Asked
from wastejax.evaluation.report import robustness as report
from wastejax.evaluation.robustness import CLEAN, corruptions, measure, points, spread, summary
from wastejax.evaluation.robustness.corruptions import KINDS, corrupted


def random_image(width=100, height=100, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def rng():
    return np.random.default_rng(5)


def turn(sign):
    """Stands in for randomness that turns in a given direction."""
    return SimpleNamespace(choice=lambda signs: sign)


@pytest.mark.parametrize("side", [100, 101])
def test_a_square_turned_by_right_angles_keeps_every_pixel(side):
    photo = random_image(side, side)
    pixels = np.asarray(photo)
    for degrees, turns in ((90, 1), (180, 2)):
        np.testing.assert_array_equal(corruptions.rotate(photo, degrees, turn(1)), np.rot90(pixels, turns))
    np.testing.assert_array_equal(corruptions.rotate(photo, 90, turn(-1)), np.rot90(pixels, -1))


def test_an_oblong_image_turns_around_its_center_and_is_mirrored_at_its_edges():
    photo = random_image(60, 40)
    pixels = np.asarray(photo)
    turned = np.asarray(corruptions.rotate(photo, 90, turn(1)))
    assert turned.shape == (40, 60, 3)
    np.testing.assert_array_equal(turned[:, 10:50], np.rot90(pixels[:, 10:50]))
    # Left of that square lies what was above the image: its rows from the second on, mirrored.
    np.testing.assert_array_equal(turned[:, 9], turned[:, 11])


def test_corners_of_a_turned_image_show_nothing_that_is_not_in_it():
    stripes = Image.fromarray(np.repeat(np.array([[100, 200]], np.uint8), 50, 1)[None].repeat(100, 1)[0])
    assert stripes.size == (100, 100)
    turned = np.asarray(corruptions.rotate(stripes.convert("RGB"), 45, rng()))
    # A bicubic filter overshoots a little beside an edge.
    assert turned.min() >= 85 and turned.max() <= 215


@pytest.mark.parametrize(("share", "covered"), [(0.25, 2500), (0.09, 900), (0.5, 4970), (0.6, 6006)])
def test_the_covered_share_is_exact_to_a_line_of_pixels(share, covered):
    # 0.5: 71 rows of round(5000 / 71) = 70; 0.6: 77 rows of round(6000 / 77) = 78.
    photo = random_image()
    changed = np.asarray(corruptions.occlude(photo, share, rng()))
    differs = (changed != np.asarray(photo)).any(axis=2)
    box = np.argwhere(differs)
    height, width = box.max(axis=0) - box.min(axis=0) + 1
    assert height * width == covered
    mean = np.rint(np.asarray(photo).mean(axis=(0, 1)))
    inside = changed[differs]
    assert (inside == mean).all()
    assert differs.sum() > 0.99 * covered  # a pixel may have had the mean color before


def test_larger_boxes_lie_around_the_same_place():
    photo = Image.new("RGB", (200, 100), (10, 20, 30))
    photo.paste((200, 200, 200), (0, 0, 100, 100))
    boxes = []
    for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        changed = np.asarray(corruptions.occlude(photo, share, rng()))
        boxes.append((changed != np.asarray(photo)).any(axis=2))
    for smaller, larger in itertools.pairwise(boxes):
        assert (smaller & ~larger).sum() <= 0.02 * smaller.sum()  # but for rounding


def test_blur_spreads_a_point_by_the_share_of_the_short_side():
    point = np.zeros((101, 201, 3), np.uint8)
    point[40:61, 90:111] = 255  # 21 x 21 around (50, 100): enough light to survive 8 bits
    blurred = np.asarray(corruptions.blur(Image.fromarray(point), 0.05, rng()), float)[:, :, 0]
    x = np.arange(201) - 100
    variance = (blurred * x**2).sum() / blurred.sum()
    # Variances of a convolution add up: (21^2 - 1) / 12 of the square, and (0.05 * 101)^2 of the Gaussian.
    assert variance == pytest.approx((21**2 - 1) / 12 + (0.05 * 101) ** 2, rel=0.05)


def test_noise_has_the_standard_deviation_that_is_asked_for():
    gray = Image.new("RGB", (200, 200), (128, 128, 128))
    noise = np.asarray(corruptions.add_noise(gray, 0.1, rng()), float) - 128
    assert noise.std() == pytest.approx(25.5, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.3)


def test_jpeg_is_a_round_trip_through_pillow():
    photo = random_image()
    encoded = io.BytesIO()
    photo.save(encoded, "JPEG", quality=10)
    expected = np.asarray(Image.open(encoded).convert("RGB"))
    np.testing.assert_array_equal(corruptions.compress(photo, 10, rng()), expected)


def test_brightness_multiplies_and_clips():
    photo = Image.fromarray(np.array([[[10, 100, 200]]], np.uint8))
    assert np.asarray(corruptions.brighten(photo, 1.5, rng())).tolist() == [[[15, 150, 255]]]
    assert np.asarray(corruptions.brighten(photo, 0.2, rng())).tolist() == [[[2, 20, 40]]]


def test_scale_by_hand():
    photo = Image.new("RGB", (40, 40), (200, 100, 0))
    photo.paste((0, 100, 200), (10, 10, 30, 30))  # a quarter of it: the mean is (150, 100, 50)
    smaller = np.asarray(corruptions.rescale(photo, 0.5, rng()))
    assert smaller.shape == (40, 40, 3)
    assert smaller[9, 20].tolist() == [150, 100, 50] == smaller[20, 30].tolist()
    assert smaller[11, 11].tolist() == [200, 100, 0] and smaller[20, 20].tolist() == [0, 100, 200]
    larger = np.asarray(corruptions.rescale(photo, 2, rng()))
    assert larger.shape == (40, 40, 3)
    assert (larger[3:-3, 3:-3] == (0, 100, 200)).all()  # the inner square fills the frame, its edge blurred


CLASSES = ("dark", "light")


@pytest.fixture
def drawn(tmp_path):
    """Six images of each of two classes, of plain colors: the one at 40 to 65, the other at 200 to 225."""
    for name, start in zip(CLASSES, (40, 200), strict=True):
        for i in range(6):
            path = tmp_path / "data" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (48, 32), (start + 5 * i,) * 3).save(path)
    return tmp_path / "data"


def fake_bundle():
    """A model that calls an image light where its middle is brighter than 130."""

    def logits(images):
        middle = np.asarray(images)[:, 4:12, 4:12].astype(np.float32).mean(axis=(1, 2, 3))
        return np.stack([130 - middle, middle - 130], 1)

    return SimpleNamespace(
        logits=logits,
        classes=CLASSES,
        preprocessing=Preprocessing(16),
        config={"eval": {"batch_size": 5}, "data": {"on_bad_image": "raise"}},
        needs_one_label=lambda what: None,
    )


def test_each_image_is_changed_the_same_way_wherever_it_lies(drawn, tmp_path):
    source = open_folder(drawn)
    elsewhere = tmp_path / "other" / "dark" / "renamed.png"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(source.read(2))
    for name, kind in KINDS.items():
        severity = kind.severities[-1]
        once = corrupted(source, name, severity).read(2)
        assert decode(once).size == (48, 32)
        assert once == corrupted(source, name, severity).read(2)
        assert once == corrupted(open_folder(tmp_path / "other"), name, severity).read(0)
        clean = corrupted(source, name, kind.clean).read(2)
        np.testing.assert_array_equal(decode(clean), decode(source.read(2)))


def test_large_images_are_reduced_first(tmp_path):
    path = tmp_path / "a" / "1.png"
    path.parent.mkdir()
    random_image(1200, 600).save(path)
    assert decode(corrupted(open_folder(tmp_path), *CLEAN).read(0)).size == (1024, 512)


def test_a_model_that_sees_brightness_alone_loses_by_brightness_alone(drawn):
    source = open_folder(drawn)
    correct, labels = measure(fake_bundle(), source, np.arange(12))
    result = summary(correct, labels, CLASSES)
    assert result["num_images"] == 12
    assert result["clean"] == {"top1": 1.0, "ci95": [1.0, 1.0]}
    # Plain images stay what they are under everything but brightness; noise averages out.
    for name in ("rotation", "occlusion", "blur", "noise", "jpeg", "scale"):
        assert {point["top1"] for point in result["kinds"][name]["points"]} == {1.0}
    # Times 0.2 and 0.4 all are below 130 (225 * 0.4 = 90), times 0.7 none of 200 and more is; times 2, only what is
    # above 65 would pass, and the dark ones end there.
    points_ = result["kinds"]["brightness"]["points"]
    assert [point["top1"] for point in points_] == [0.5, 0.5, 1.0, 1.0, 1.0]
    assert result["kinds"]["brightness"]["relative_accuracy"] == pytest.approx(0.8)
    assert result["relative_accuracy"] == pytest.approx((6 + 0.8) / 7)
    low, high = result["relative_ci95"]
    assert low < result["relative_accuracy"] < high
    worst = result["per_class"]["light"]
    assert worst == {"num_images": 6, "clean": 1.0, "worst": 0.0, "kind": "brightness", "severity": 0.2}
    assert result["per_class"]["dark"]["worst"] == 1.0


def test_the_summary_number_by_hand():
    # Four images, three right when clean. One kind has two severities (2/4, 1/4), the other one (1/4).
    rows = np.array([[1, 1, 1, 0], [1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    found = robustness.relative_accuracy(rows, [2, 1])
    assert found == pytest.approx(((2 / 4 + 1 / 4) / 2 + 1 / 4) / 2 / (3 / 4))
    assert robustness.relative_accuracy(np.zeros((4, 4), bool), [2, 1]) == 0


def test_a_part_of_the_images_is_spread_evenly():
    assert spread(np.arange(10, 20), 5).tolist() == [10, 12, 14, 16, 18]
    assert spread(np.arange(10), 3).tolist() == [0, 3, 6]
    assert spread(np.arange(4), 9).tolist() == spread(np.arange(4), None).tolist() == [0, 1, 2, 3]


def arguments(data, out, **changed):
    values = {
        "model": "model",
        "data": str(data),
        "split": None,
        "out": str(out),
        "limit": None,
        "skip_bad": False,
        "corrections": None,
    }
    return SimpleNamespace(**(values | changed))


def test_the_command_writes_numbers_words_and_curves(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(robustness, "load_bundle", lambda path: fake_bundle())
    lines = []
    command.run(arguments(drawn, tmp_path / "out", limit=10), lines.append)
    assert lines[0] == "10 of 12 images; clean top-1 100.0%"
    assert "  brightness keeps  80.0%; top-1 at worst 50.0%, at 0.2 times as bright" in lines
    result = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert (result["num_images"], result["available_images"]) == (10, 12)
    assert [p["severity"] for p in result["kinds"]["occlusion"]["points"]] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    text = (tmp_path / "out" / "robustness.md").read_text()
    assert "keeps **97.1 %**" in text
    assert "| `light` | 5 | 100.0 % | 0.0 % | brightness, 0.2 times as bright |" in text
    with Image.open(tmp_path / "out" / "robustness.png") as image:
        assert image.size == (1200, 588)


@pytest.mark.parametrize(
    ("given", "source", "folder", "name"),
    [
        (None, "folder", "", "drawn"),
        (None, "folder", "some/trash", "trash"),
        (None, "shards:some/of_trash", "", "of_trash"),
        (None, "tfds:household_waste:1.0.0", "data_dir", "household_waste:1.0.0"),
        ("some/other", "shards:some/of_trash", "", "other"),
    ],
)
def test_the_images_are_called_as_what_holds_them(drawn, monkeypatch, given, source, folder, name):
    bundle = fake_bundle()
    bundle.config["data"] |= {"source": source, "dir": folder}
    images = open_folder(drawn)
    monkeypatch.setattr(robustness, "load_bundle", lambda path: bundle)
    monkeypatch.setattr(robustness, "asked_images", lambda *_: (images, np.arange(len(images))))
    monkeypatch.setattr(robustness, "readable", lambda source, indices, *_: indices)
    monkeypatch.setattr(robustness, "measure", lambda *_: (None, None))
    monkeypatch.setattr(robustness, "summary", lambda *_: {})
    assert robustness.measure_model(Asked("model", given))["data"] == name


def test_the_curves_hold_the_clean_images_at_their_place(drawn, tmp_path):
    result = summary(*measure(fake_bundle(), open_folder(drawn), np.arange(12)), CLASSES)
    figure = report.draw({"fake": result}, tmp_path / "r.png", ("brightness", "occlusion"))
    brightness, occlusion = figure.axes
    (line,) = brightness.get_lines()
    assert line.get_xydata().tolist() == [[0.2, 50], [0.4, 50], [0.7, 100], [1, 100], [1.5, 100], [2, 100]]
    assert (brightness.get_xlabel(), occlusion.get_xlabel()) == ("times as bright", "% of the area covered")
    assert occlusion.get_lines()[0].get_xdata().tolist() == pytest.approx([0, 10, 20, 30, 40, 50, 60])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"limit": 0}, "--limit=0: must be at least 1"),
        ({"split": "tests"}, "--split=tests: no such split"),
        ({"model": "nothing/there"}, "nothing/there: no such run or bundle"),
        ({"out": "taken"}, "is a file, give a folder"),
        ({"out": "data/dark/out"}, "lies in the data"),
    ],
)
def test_mistakes_are_told_in_one_line(drawn, tmp_path, changed, message):
    (tmp_path / "taken").write_text("")
    changed = {"out": "out"} | changed
    out = tmp_path / changed.pop("out")
    with pytest.raises(UserError) as error:
        command.run(arguments(drawn, out, **changed), print)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unreadable_images_are_named_or_left_out(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(robustness, "load_bundle", lambda path: fake_bundle())
    (drawn / "dark" / "7.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 images cannot be read \(dark/7.png: empty file\)"):
        command.run(arguments(drawn, tmp_path / "out"), print)
    lines = []
    command.run(arguments(drawn, tmp_path / "out", skip_bad=True), lines.append)
    assert lines[0] == "left out: dark/7.png: empty file"


def test_no_images_are_no_accuracy(drawn):
    with pytest.raises(UserError, match="no images to evaluate"):
        measure(fake_bundle(), open_folder(drawn), np.zeros(0, np.int64))


def test_every_point_is_measured_once():
    assert len(points()) == len(set(points())) == 1 + sum(len(kind.severities) for kind in KINDS.values())
    for kind in KINDS.values():
        assert list(kind.severities) == sorted(kind.severities)
        assert kind.clean not in kind.severities
