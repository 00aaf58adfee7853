"""Objects of a video are counted once, whatever the finder misses, doubles or takes for something else."""

import json
import sys
from collections import Counter
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest

from wastejax.cli.predict import run
from wastejax.data.images import BadImage
from wastejax.data.taxonomy import load_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.predictor import Predictor
from wastejax.deployment.regions import Region, answers
from wastejax.deployment.regions.tracking import Rules, track
from wastejax.main import parser


def region(label: str, x: float, y: float, side: float = 60, p: float = 0.9) -> Region:
    return Region(label, "", p, (round(x), round(y), round(x + side), round(y + side)))


def belt(objects: list[tuple[str, float, float]], speed: float, frames: int, every: float = 0.2):
    """Frames 640 pixels wide; objects (class, second at which they enter, y) go from left to right."""
    for number in range(frames):
        seconds = number * every
        places = [(label, speed * (seconds - start) - 60, y) for label, start, y in objects]
        yield seconds, [region(label, x, y) for label, x, y in places if -30 < x < 610]


OBJECTS = [(label, 0.7 * i, 40 + 120 * (i % 3)) for i, label in enumerate(["can", "jar", "can", "box"] * 4)]


@pytest.mark.parametrize("speed", [60, 200, 300, 400], ids=lambda speed: f"{speed} px a second")
def test_each_object_counts_once(speed):
    """From 300 pixels a second on no box overlaps that of the frame before: sides are 60."""
    found = list(track(belt(OBJECTS, speed, 130)))
    assert Counter(one.label for one in found) == Counter(label for label, *_ in OBJECTS)


def test_objects_that_lie_still_count_once():
    still = [region("can", 0, 40), region("can", 0, 110), region("jar", 300, 40)]
    assert sorted(one.label for one in track((t / 5, still) for t in range(20))) == ["can", "can", "jar"]


@pytest.mark.parametrize("seed", range(6))
def test_gaps_wrong_boxes_and_wrong_classes(seed):
    """A quarter of the boxes missing, one in ten of another class, a wrong box in every third frame."""
    rng = np.random.default_rng(seed)
    frames = []
    for seconds, regions in belt(OBJECTS, 150, 130):
        kept = [r for r in regions if rng.random() > 0.25]
        kept = [r._replace(label="bag", probability=0.6) if rng.random() < 0.1 else r for r in kept]
        if rng.random() < 1 / 3:
            kept.append(region("ghost", *rng.uniform(0, 500, 2)))
        frames.append((seconds, kept))
    found = Counter(one.label for one in track(frames))
    assert all(found[label] >= count for label, count in Counter(label for label, *_ in OBJECTS).items())
    assert found.total() <= len(OBJECTS) + 2  # of 600 boxes


def test_two_that_cross_stay_two():
    frames = [(t / 5, [region("can", 20 * t, 100), region("jar", 400 - 20 * t, 120)]) for t in range(20)]
    found = list(track(frames))
    assert sorted(one.label for one in found) == ["can", "jar"]
    assert all((one.first, one.last, one.seen) == (0, 3.8, 20) for one in found)


def test_what_is_seen_once_does_not_count_unless_asked():
    frames = [(0.0, [region("can", 0, 0)]), (0.2, []), (0.4, [])]
    assert list(track(frames)) == []
    (one,) = track(frames, Rules(seen=1))
    assert (one.label, one.probability, one.best.box) == ("can", 0.9, (0, 0, 60, 60))


def test_an_object_that_is_gone_is_told_at_once():
    """So that a camera, which never ends, tells them too."""
    told = track((t / 5, [region("can", 0, 0)] if t < 3 else []) for t in range(10**9))
    assert next(told).last == 0.4


def test_nothing_to_follow():
    assert list(track([])) == [] and list(track([(0.0, []), (1.0, [])])) == []


def test_predict_says_each_object_of_a_video_once(tmp_path, monkeypatch, capsys):
    module = ModuleType("cv2")  # stands in for the extra `camera`
    module.__spec__ = ModuleSpec("cv2", None)
    monkeypatch.setitem(sys.modules, "cv2", module)
    rules = load_taxonomy().only(("glass", "tea_bags"))
    computing = {"probabilities": np.asarray, "dense": np.asarray, "any_side": True}
    fake = Predictor(tmp_path, "numpy", ("glass", "tea_bags"), Preprocessing(8), rules, **computing)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.avi").touch()
    asked = []
    frames = list(belt([("glass", 0, 40), ("tea_bags", 1, 200)], 150, 30))
    monkeypatch.setattr("wastejax.cli.predict.load_engine", lambda *_, **__: fake)
    monkeypatch.setattr(answers, "frames", lambda video, every: asked.append(every) or frames)
    monkeypatch.setattr(answers, "find_regions", lambda predictor, regions, settings: regions)
    lines: list[str] = []
    options = ["predict", "x.avi", "--regions", "--format=csv", f"--summary={tmp_path / 'sum'}"]
    assert run(parser("predict").parse_args(options), lines.append) == 0
    rows = [line.split(",") for line in lines[1:]]
    assert [row[3] for row in rows] == ["glass", "tea_bags"] and asked == [0.2]
    errors = capsys.readouterr().err
    assert (
        rows[0][0].startswith('"x.avi#t=0.') and "note: no correction" in errors and "2 objects in" in errors
    )
    found = json.loads((tmp_path / "sum" / "summary.json").read_text())
    assert (found["counted"], found["unit"], found["source"]) == (2, "objects", "x.avi")
    frames[10] = (2.0, BadImage("the frames up to second 2.2 cannot be read"))
    assert run(parser("predict").parse_args(options), lines.append) == 1
    assert "2 objects in" in capsys.readouterr().err  # the missing frame is none
    assert lines[-1] == "x.avi#t=2.000,,,,,,,,,the frames up to second 2.2 cannot be read"
    assert json.loads((tmp_path / "sum" / "summary.json").read_text())["unreadable"] == 1
