"""`predict --summary`: what a folder or a span of time is made of, in four forms that say the same."""

import csv
import json
import os
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest
from PIL import Image
from small_models import CLASSES, write_bundle

from wastejax.cli.predict import run
from wastejax.data.taxonomy import load_taxonomy, materials_of
from wastejax.data.transforms import Preprocessing
from wastejax.deployment import summary
from wastejax.deployment.answers import Answer, Guess
from wastejax.deployment.predictor import Predictor
from wastejax.deployment.summary import Counted, parse_time, summarize, taken_at, within, write_summary
from wastejax.errors import UserError
from wastejax.main import dispatch, parser


def model(path) -> Predictor:
    return Predictor(
        path, "numpy", CLASSES, Preprocessing(32), load_taxonomy().only(CLASSES), lambda images: images
    )


def answered(*labels: str) -> Counted:
    counted = Counted()
    rows = [Answer(f"{i}.jpg", (Guess(label, "", 0.6),), rejected=i == 0) for i, label in enumerate(labels)]
    assert list(counted.watch([*rows, Answer("bad", error="damaged")])) == [
        *rows,
        Answer("bad", error="damaged"),
    ]
    return counted


@pytest.fixture
def bundle(tmp_path):
    """A tenth of what is glass is answered paper_cups; else all is right."""
    confusion = np.diag([50] * 5)
    confusion[1, [1, 2]] = [45, 5]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bundle.json").write_text(json.dumps({"confusion": confusion.tolist()}))
    return tmp_path / "model"


def test_shares_by_class_bin_and_material(bundle, tmp_path):
    counted = answered(*["glass"] * 90, *["paper_cups"] * 10, *["종이"] * 100)
    found = summarize(model(bundle), counted, {"source": "photos", "unit": "images"})
    by_class = {row["name"]: row for row in found["shares"]["class"]}
    assert (found["counted"], found["rejected"], found["unreadable"]) == (200, 1, 1)
    assert by_class["glass"]["plain"] == 0.45 and by_class["glass"]["count"] == 90
    # All of it was glass, and counts go most of the way, as far as 200 images and 50 of each class are trusted.
    assert 0.48 < by_class["glass"]["share"] < 0.505 and by_class["paper_cups"]["share"] < 0.02
    low, high = by_class["glass"]["ci95"]
    assert low < 0.5 < high < 0.65
    korea = load_taxonomy()
    assert {row["name"] for row in found["shares"]["bin"]} == {
        "other",
        *(korea.find(name).bin for name in CLASSES[:4]),
    }
    materials = {row["name"]: row["share"] for row in found["shares"]["material"]}
    assert set(materials) == {"organic", "glass", "paper", "other"}
    assert sum(materials.values()) == pytest.approx(1, abs=1e-5)
    assert found["confusion"]["images"] == "validation" and found["confusion"]["num_images"] == 250
    write_summary(tmp_path / "out", found)
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == found
    with (tmp_path / "out" / "summary.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert {r["name"]: float(r["share"]) for r in rows if r["kind"] == "material"} == materials
    page = (tmp_path / "out" / "summary.html").read_text()
    assert (
        "corrected for what the model confused on 250" in page
        and "(adjusted counting)" in page
        and ">50." in page
    )
    with Image.open(tmp_path / "out" / "summary.png") as figure:
        assert figure.width > 500


def test_probabilities_of_images_are_used_where_there_are_any(bundle):
    """Half-sure answers: a class that is the likeliest of few is likely of more."""
    counted = Counted()
    row = dict.fromkeys(CLASSES, 0.0) | {"glass": 0.6, "paper_cups": 0.4}
    rows = [
        Answer(f"{i}.jpg", (Guess("glass", "", 0.6),), probabilities=tuple(row.values())) for i in range(100)
    ]
    list(counted.watch(rows))
    by_answers = summarize(model(bundle), counted, {"source": "photos", "unit": "images"})
    assert by_answers["notes"][0].startswith("shares are corrected by answers alone, not by probabilities")
    about = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(about | {"prior": [50.0] * 5}))
    found = summarize(model(bundle), counted, {"source": "photos", "unit": "images"})
    shares = {row["name"]: row["share"] for row in found["shares"]["class"]}
    assert not found["notes"] and found["confusion"]["weight"] is None
    assert shares["glass"] + shares["paper_cups"] == pytest.approx(1)
    assert "(Saerens et al. 2002" in summary.to_html(found) and "adjusted" not in summary.to_html(found)
    assert found["shares"]["class"][0]["plain"] == 1 and 0 < shares["paper_cups"] < 1
    rare = {"prior": [50.0] * 4 + [2.0]}
    (bundle / "bundle.json").write_text(json.dumps(about | rare))
    found = summarize(model(bundle), counted, {"source": "photos", "unit": "images"})
    assert not found["corrected"] and found["notes"][0].startswith("no correction: fewer than 5 images tell")
    assert len(found["notes"]) == 1 and "plain counts" in summary.to_html(found)


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_package_that_a_summary_lacks_is_told_before_any_image_is_answered(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("wastejax.cli.predict.load_engine", lambda *_, **__: sys.exit("loaded"))
    with pytest.raises(UserError, match=f"^--summary: needs {package}, which is not installed"):
        run(parser("predict").parse_args(["predict", "a.jpg", f"--summary={tmp_path / 'out'}"]), print)


def test_without_a_confusion_matrix_it_counts_and_says_so(tmp_path):
    found = summarize(model(tmp_path), answered("glass"), {"source": "<b>", "unit": "images"})
    assert not found["corrected"] and found["notes"][0].startswith("no correction")
    assert found["shares"]["class"][0]["share"] == 1
    page = summary.to_html(found)
    assert "plain counts" in page and "<b>" not in page  # names are anybody's
    with pytest.raises(UserError, match="there is nothing to count"):
        summarize(model(tmp_path), Counted(), {})


def test_every_class_of_household_waste_has_a_material():
    classes = load_taxonomy().classes
    assert set(classes) - set(materials_of(tuple(classes))) == {"trash"}


def test_times_are_of_exif_or_else_of_the_file(tmp_path):
    exif = Image.Exif()
    exif[0x0132] = "2026:11:02 08:00:00"
    exif.get_ifd(0x8769)[0x9003] = "2026:11:01 12:30:00"
    Image.new("RGB", (9, 9)).save(tmp_path / "exif.jpg", exif=exif)
    Image.new("RGB", (9, 9)).save(tmp_path / "plain.png")
    (tmp_path / "text.jpg").write_text("no image")
    stamp = datetime(2026, 11, 3, 10).timestamp()
    for name in ("plain.png", "text.jpg"):
        os.utime(tmp_path / name, (stamp, stamp))
    assert taken_at(tmp_path / "exif.jpg") == (datetime(2026, 11, 1, 12, 30), True)
    written = (datetime(2026, 11, 3, 10), False)
    assert taken_at(tmp_path / "plain.png") == taken_at(tmp_path / "text.jpg") == written
    names = [str(tmp_path / name) for name in ("exif.jpg", "plain.png", "text.jpg", "gone.jpg")]

    def kept(start: str | None, end: str | None) -> list[str]:
        span = parse_time(start, "--from"), parse_time(end, "--to", end=True)
        return [os.path.basename(name) for name in within(names, *span)]  # noqa: PTH119

    assert kept("2026-11-01", "2026-11-01") == ["exif.jpg", "gone.jpg"]  # the day of --to is included
    assert kept("2026-11-01T12:31", None) == ["plain.png", "text.jpg", "gone.jpg"]
    assert kept(None, "2026-11-03T10:00") == ["exif.jpg", "gone.jpg"]
    assert len(kept(None, None)) == 4
    with pytest.raises(UserError, match="none of 1 image was taken then"):
        within(names[:1], parse_time("2027-01-01", "--from"), None)
    with pytest.raises(UserError, match=r"--from=yesterday: give a day or a time"):
        parse_time("yesterday", "--from")


def test_the_time_of_a_heic_photograph_is_that_of_its_exif(tmp_path):
    """In a process of its own: in this one another test may have told Pillow of HEIC."""
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:01 12:30:00"
    heif.from_pillow(Image.new("RGB", (64, 64))).save(tmp_path / "a.heic", exif=exif.tobytes())
    code = "import sys; from wastejax.deployment.summary import taken_at; print(taken_at(sys.argv[1])[0])"
    done = [sys.executable, "-c", code, str(tmp_path / "a.heic")]
    assert subprocess.check_output(done, text=True).strip() == "2026-11-01 12:30:00"


def test_images_without_a_time_of_their_own_are_told(tmp_path):
    exif = Image.Exif()
    exif[0x0132] = "2026:11:02 08:00:00"
    Image.new("RGB", (9, 9)).save(tmp_path / "exif.jpg", exif=exif)
    Image.new("RGB", (9, 9)).save(tmp_path / "plain.png")
    said: list[str] = []
    names = [str(tmp_path / name) for name in ("exif.jpg", "plain.png")]
    within(names, parse_time("2026-01-01", "--from"), None, said.append)
    assert said == [
        "--from, --to: by when the file was last written for 1 of 2 images, where EXIF tells no time"
    ]
    within(names[:1], parse_time("2026-01-01", "--from"), None, pytest.fail)


def test_the_command(tmp_path, capsys):
    bundle = write_bundle(tmp_path / "bundle")
    for i, shade in enumerate((0, 120, 250)):
        Image.new("RGB", (70, 60), (shade, 90, shade)).save(tmp_path / f"{i}.png")
    ask = ["predict", f"--model={bundle}", "--format=csv", "--top=1"]
    with pytest.raises(SystemExit) as ended:
        dispatch([*ask, f"--summary={tmp_path / 'sum'}", *(str(tmp_path / f"{i}.png") for i in range(3))])
    assert not ended.value.code
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4 and "note: no correction" in err and "summary.html" in err
    found = json.loads((tmp_path / "sum" / "summary.json").read_text())
    answers = [row["class"] for row in csv.DictReader(out.splitlines())]
    counts = {row["name"]: row["count"] for row in found["shares"]["class"] if row["count"]}
    assert counts == {name: answers.count(name) for name in answers}
    for options, message in (
        (["--from=2026-11-02", "--to=2026-11-01"], "the end is not after the start"),
        (["--from=2036-01-01"], "none of 1 image was taken then"),
        ([f"--summary={tmp_path / '0.png'}"], "is a file"),
        (["--from=2026-11-02", "-"], "nothing tells when an image on standard input was taken"),
    ):
        with pytest.raises(UserError, match=message):
            dispatch([*ask, *options, str(tmp_path / "0.png")])


@pytest.mark.parametrize("place", ["mine", "mine/bundle", "mine.onnx"])
def test_a_summary_names_the_run_and_not_the_bundle_in_it(tmp_path, place):
    about = {"source": "a", "unit": "images", "from": None, "to": None}
    found = summarize(model(tmp_path / place), answered(CLASSES[0]), about)
    assert found["model"] == place.removesuffix("/bundle")


@pytest.mark.parametrize("text", ["2026-W48", "2026W48", "2026-W48-2", "2026-w48", "48"])
def test_a_week_is_no_day(text):
    with pytest.raises(UserError, match=f"^--to={text}: give a day or a time"):
        parse_time(text, "--to", end=True)


@pytest.mark.parametrize("text", ["9999-12-31", "0001-01-01T00:00+23:59", "9999-12-31T23:00-23:00"])
def test_a_time_beyond_the_calendar_is_one_line(text):
    with pytest.raises(UserError, match=f"--to={text[:9]}.*: no clock shows this time"):
        parse_time(text, "--to", end=True)
