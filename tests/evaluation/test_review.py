"""The review page as a file: what is on it, in which order, and that no name of a file can break it."""

import base64
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_models import CLASSES, draw_images

from wastejax.data.corrections import Row
from wastejax.data.sources import open_folder
from wastejax.evaluation.images import Asked
from wastejax.evaluation.report import review
from wastejax.evaluation.report.review import Doubt, mistakes, write_review
from wastejax.evaluation.run import _review


@pytest.fixture
def source(tmp_path):
    return open_folder(draw_images(tmp_path / "images", 10))


def content(path) -> dict:
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_the_page_holds_what_a_person_needs(source, tmp_path):
    doubts = [
        Doubt(4, "label error", "glass", 0.031, 0.94),
        Doubt(1, "conflict", group=1),
        Doubt(2, "conflict", group=1),
        Doubt(4, "mistake", "tea_bags"),  # is there already
    ]
    earlier = {"glass/99.png": Row("glass/99.png", "drop", "glass", "gone, with a comma")}
    path = tmp_path / "out" / "review.html"
    old = {source.names[1]: "paper_cups"}
    assert write_review(path, "A & <b>", source, doubts, ["extra"], earlier, old) == 3
    page = content(path)
    assert page["title"] == "A & <b>" and page["classes"] == sorted([*CLASSES, "extra"])
    assert [item["file"] for item in page["items"]] == [source.names[i] for i in (4, 1, 2)]
    first, second, _ = page["items"]
    assert (first["suggested"], first["own"], first["other"], first["why"]) == (
        "glass",
        0.031,
        0.94,
        "label error",
    )
    assert first["old"] == first["label"] and second["old"] == "paper_cups"
    assert page["earlier"] == [["glass/99.png", "drop", "glass", "gone, with a comma"]]
    for item in page["items"]:
        assert (path.parent / item["link"]).samefile(tmp_path / "images" / item["file"])
        data = base64.b64decode(item["image"].removeprefix("data:image/jpeg;base64,"))
        assert max(Image.open(io.BytesIO(data)).size) <= 256
    assert not re.search(r'(src|href)="http', path.read_text(encoding="utf-8"))


def test_names_cannot_break_out(tmp_path):
    name = "</script><script>alert(1)<!--.png"
    (tmp_path / "images" / "glass").mkdir(parents=True)
    (tmp_path / "images" / "x").mkdir()
    with pytest.raises(OSError, match="No such file"):
        Image.new("RGB", (9, 9)).save(
            tmp_path / "images" / "glass" / name
        )  # a slash: no file can be called so
    name = name.replace("/", "")
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "glass" / name)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "images" / "x" / "1.png")
    source = open_folder(tmp_path / "images")
    write_review(tmp_path / "r.html", "</script>", source, [Doubt(0, "mistake", "x"), Doubt(1, "mistake")])
    page = content(tmp_path / "r.html")
    assert page["title"] == "</script>" and page["items"][0]["file"] == f"glass/{name}"
    assert (tmp_path / "r.html").read_text().count("<script") == 2


def test_a_page_stays_small_and_says_what_is_left_out(source, tmp_path, monkeypatch):
    doubts = [Doubt(i, "mistake", "glass") for i in range(10)]
    sizes = [len(review.thumbnail(source, i)) for i in range(10)]
    monkeypatch.setattr(review, "MOST_BYTES", sum(sizes[:4]) + 1)
    assert write_review(tmp_path / "r.html", "t", source, doubts) == 4
    assert "6 more images do not fit" in content(tmp_path / "r.html")["about"]


def test_an_unreadable_file_can_be_dropped(source, tmp_path):
    (tmp_path / "images" / "glass" / "zz.png").write_text("no image")
    source = open_folder(tmp_path / "images")
    at = source.names.index("glass/zz.png")
    write_review(tmp_path / "r.html", "t", source, [Doubt(at, "unreadable")])
    assert content(tmp_path / "r.html")["items"][0]["image"] == ""


def test_mistakes_come_surest_first():
    p = np.array([[0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.9, 0.05, 0.05], [0.2, 0.7, 0.1]])
    found = mistakes(np.log(p), np.array([1, 0, 0, 0]), np.array([10, 11, 12, 13]), ["a", "b", "c"])
    assert [(d.index, d.suggested) for d in found] == [(11, "c"), (13, "b"), (10, "a")]
    assert found[0].own == pytest.approx(0.1) and found[0].other == pytest.approx(0.8)


def test_eval_shows_the_mistakes_that_are_not_reviewed_yet(source, tmp_path):
    """With the run's own corrections where its own images are scored, and calibrated as predict says it."""
    labels = source.labels
    wrong = (labels + 1) % len(source.classes)
    logits = np.zeros((10, len(source.classes)), np.float32)
    logits[np.arange(10), np.where(np.arange(10) < 3, wrong, labels)] = [4, 2, 6, *[3] * 7]
    run = tmp_path / "run"
    (run / "bundle").mkdir(parents=True)
    (run / "manifest.csv").touch()
    (run / "corrections.csv").write_text(f"file,label\n{source.names[2]},glass\n")
    bundle = SimpleNamespace(classes=source.classes, temperature=2.0)
    said: list[str] = []
    doubts = mistakes(logits / bundle.temperature, labels, np.arange(10), source.classes)
    _review(tmp_path / "r.html", Asked(run), bundle, source, doubts, said.append)
    page = content(tmp_path / "r.html")
    assert [item["file"] for item in page["items"]] == [source.names[0], source.names[1]]
    assert page["items"][0]["suggested"] == source.classes[wrong[0]]
    assert page["items"][0]["other"] == pytest.approx(np.exp(2) / (np.exp(2) + len(CLASSES) - 1), abs=1e-4)
    assert page["earlier"] == [[source.names[2], "glass", "", ""]] and page["title"] == "Mistakes of run"
    assert "2 of 2 mistakes" in said[0]
    _review(tmp_path / "r.html", Asked(run, data="elsewhere"), bundle, source, doubts, said.append)
    assert len(content(tmp_path / "r.html")["items"]) == 3
    _review(tmp_path / "r.html", Asked(data="elsewhere"), bundle, source, doubts, said.append)
    assert content(tmp_path / "r.html")["title"] == "Mistakes of bundled"
