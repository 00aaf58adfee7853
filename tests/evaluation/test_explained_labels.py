"""Images whose labels `--labels` explains: without those that a run learned from, with boxes cut as it cut them."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps
from small_models import CLASSES, draw_images

from wastejax.data.duplicates import scan
from wastejax.data.sources import open_folder
from wastejax.data.split import recognize, save_manifest
from wastejax.evaluation.compare import compare_models
from wastejax.evaluation.images import Asked
from wastejax.evaluation.run import _foreign, evaluate_labels

SPLITS = np.array(["train", "train", "val", "test", "test"] * 4)


def bundle(margin: float = 0.1, leave_out: tuple[str, ...] = ()) -> SimpleNamespace:
    data = {"box_margin": margin, "leave_out": leave_out, "on_bad_image": "raise"}
    return SimpleNamespace(
        classes=CLASSES,
        config={"data": data},
        temperature=1.0,
        thresholds={"0.95": 0.5},
        path=Path("bundle"),
        bins=None,
        bins_or_own=CLASSES,
        needs_one_label=lambda option: None,
    )


def answers_to(bundle, source, indices, *args) -> np.ndarray:
    return np.zeros((len(indices), len(CLASSES)))


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A run on 20 images of tmp_path/images, and map.csv, which explains the labels of tmp_path/street."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    for module in ("run", "compare"):
        monkeypatch.setattr(f"wastejax.evaluation.{module}.load_bundle", lambda *args: bundle())
        monkeypatch.setattr(f"wastejax.evaluation.{module}.answers_to", answers_to)
    source = open_folder(draw_images(tmp_path / "images", 20))
    (tmp_path / "run").mkdir()
    save_manifest(tmp_path / "run" / "manifest.csv", source, np.arange(20), SPLITS, scan(source).phash)
    (tmp_path / "map.csv").write_text("label,classes\n" + "".join(f"{c},{c}\n{c}s,{c}\n" for c in CLASSES))
    return tmp_path / "run"


def street(tmp_path: Path) -> Path:
    """The images of the run under other names and labels, two of them encoded anew, and three that are new."""
    for i, path in enumerate(sorted((tmp_path / "images").rglob("*.*g"))):
        new = tmp_path / "street" / f"{path.parent.name}s" / (path.name if i < 2 else f"new{i}{path.suffix}")
        new.parent.mkdir(parents=True, exist_ok=True)
        if i < 2:
            Image.open(path).convert("RGB").save(new, quality=88)
        else:
            new.write_bytes(path.read_bytes())
        if i < 3:
            ImageOps.invert(Image.open(path).convert("RGB")).save(new.with_name(f"inverted{i}.png"))
    return tmp_path / "street"


LEFT_OUT = "note: 8 of 23 images were trained on, 4 chose the best epoch: they are left out"


def test_images_that_a_run_learned_from_are_left_out_whatever_their_label(run, tmp_path):
    said: list[str] = []
    scores = evaluate_labels(Asked(run, street(tmp_path)), tmp_path / "map.csv", say=said.append)
    assert scores["street"]["num_images"] == 8 + 3 and said == [LEFT_OUT]
    said.clear()
    asked = Asked(None, tmp_path / "street")
    found = compare_models(str(run), str(tmp_path / "other"), asked, said.append, tmp_path / "map.csv")
    assert found["num_images"] == 8 + 3 and said == [LEFT_OUT]


def test_images_that_were_all_learned_from_are_scored_and_said(run, tmp_path):
    source = open_folder(tmp_path / "images")
    for name, split in zip(source.names, SPLITS, strict=True):
        if split == "test":
            (tmp_path / "images" / name).unlink()
    said: list[str] = []
    scores = evaluate_labels(Asked(run, tmp_path / "images"), tmp_path / "map.csv", say=said.append)
    assert scores["images"]["num_images"] == 12
    assert said == ["note: 8 of 12 images were trained on, 4 chose the best epoch: the scores flatter"]


def test_without_labels_the_name_decides_among_rows_of_the_same_content(tmp_path):
    source = open_folder(draw_images(tmp_path / "images", 10))
    looks = np.full(10, 255, np.uint64)
    splits = np.array(["train", "test"] * 5)
    save_manifest(tmp_path / "m.csv", source, np.arange(10), splits, looks)
    assert recognize(tmp_path / "m.csv", source, looks, by_label=False).tolist() == splits.tolist()
    moved = replace(source.select([1]), names=("moved.png",))
    assert recognize(tmp_path / "m.csv", moved, looks[:1], by_label=False).tolist() == ["train"]


@pytest.fixture
def boxes(tmp_path) -> Path:
    """A photograph with a box of 100 x 100 pixels for each of three classes."""
    Image.new("RGB", (200, 200), (9, 99, 9)).save(tmp_path / "a.jpg")
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES[:3])]
    rows = [{"id": i, "image_id": 1, "category_id": i, "bbox": [50, 50, 100, 100]} for i in range(3)]
    images = [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 200}]
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps({"images": images, "categories": categories, "annotations": rows}))
    return file


def sizes(source) -> set[tuple[int, int]]:
    return {Image.open(io.BytesIO(source.read(i))).size for i in range(len(source))}


@pytest.mark.parametrize(("margin", "side"), [(0.0, 100), (0.25, 150)])
def test_boxes_are_cut_with_the_margin_of_the_run(boxes, tmp_path, monkeypatch, margin, side):
    model, cut = bundle(margin, CLASSES[:1]), []

    def meant_by(source, *args):
        cut.append(sizes(source))
        raise InterruptedError

    for module, score in (
        ("run", lambda: evaluate_labels(Asked("x", boxes), "map.csv")),
        ("compare", lambda: compare_models("x", "x", Asked(None, boxes), labels="map.csv")),
    ):
        monkeypatch.setattr(f"wastejax.evaluation.{module}.load_bundle", lambda *args: model)
        monkeypatch.setattr("wastejax.evaluation.images.meant_by", meant_by)
        with pytest.raises(InterruptedError):
            score()
    foreign, _ = _foreign(Asked("x", boxes), None, model.config, lambda line: None)
    assert [*cut, sizes(foreign)] == [{(side, side)}] * 3
