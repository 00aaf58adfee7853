"""What `predict` says about images: the numbers of `eval`, whatever lies between the good ones."""

import csv
import io
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_models import CLASSES, draw_images, write_bundle

from wastejax import main
from wastejax.bundle import load_bundle
from wastejax.cli.predict import run
from wastejax.data.collections.parts import parts_of
from wastejax.data.images import BadImage
from wastejax.data.pipeline import EvalBatches
from wastejax.data.sources import open_folder
from wastejax.data.taxonomy import load_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.answers import Answer, Guess, answers, csv_lines, interpret, json_lines, table
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.images import find, squares
from wastejax.deployment.predictor import Predictor
from wastejax.errors import UserError
from wastejax.evaluation.evaluate import predict_logits
from wastejax.main import parser


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("predict")
    write_bundle(root / "bundle", temperature=2.0)
    draw_images(root / "images")
    return root


def predict(*arguments: object, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess:
    env = os.environ | {"WASTEJAX_CACHE": str(cwd / "cache"), "WASTEJAX_HUGEPAGES": "0"}
    command = [sys.executable, "-m", "wastejax.main", "predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, input=stdin, cwd=cwd, env=env, timeout=120)


def test_answers_are_evaluations_answers(place):
    bundle = load_bundle(place / "bundle")
    source = open_folder(place / "images")
    batches = EvalBatches(source, np.arange(len(source)), bundle.preprocessing, 4)
    logits, _ = predict_logits(bundle.logits, batches)
    powers = np.exp(logits.astype(np.float64) / 2.0)
    expected = powers / powers.sum(axis=1, keepdims=True)
    names = [str(place / "images" / name) for name in source.names]
    found = list(answers(load_predictor(place / "bundle"), names, top=5, batch_size=4))
    assert [answer.file for answer in found] == names
    for answer, row in zip(found, expected, strict=True):
        assert [guess.label for guess in answer.guesses] == [CLASSES[i] for i in np.argsort(-row)]
        np.testing.assert_allclose([g.probability for g in answer.guesses], np.sort(row)[::-1], atol=1e-6)
        assert answer.rejected == (row.max() < 0.5)
    assert len({answer.guesses[0].label for answer in found}) > 1


def test_unreadable_images_are_named_and_the_rest_is_done(place, tmp_path):
    good = sorted((place / "images").rglob("*.jpg"))
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(good[0].read_bytes()[:-200])
    done = predict(
        good[0],
        cut,
        tmp_path / "absent.png",
        good[1],
        "--model=../bundle",
        "--format=json",
        cwd=place / "images",
    )
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert [Path(row["file"]).name for row in rows] == [good[0].name, "cut.jpg", "absent.png", good[1].name]
    assert rows[1]["error"] == "truncated" and rows[2]["error"] == "no such file or directory"
    assert len(rows[0]["top"]) == 3 and rows[3]["top"][0]["class"] in CLASSES
    errors = done.stderr.decode()
    assert "absent.png: no such file or directory" in errors and "images/s (jax)" in errors


def test_an_image_on_standard_input(place):
    path = next((place / "images").rglob("*.png"))
    piped = predict("-", "--model=bundle", "--format=csv", "--top=1", cwd=place, stdin=path.read_bytes())
    named = predict(path, "--model=bundle", "--format=csv", "--top=1", cwd=place)
    assert piped.returncode == named.returncode == 0
    first, second = (list(csv.reader(io.StringIO(done.stdout.decode()))) for done in (piped, named))
    assert first[1][0] == "-" and first[1][1:] == second[1][1:] and len(first) == 2


def test_names_folders_and_globs(tmp_path):
    for name in ("a.jpg", "b/c.PNG", "b/.hidden/d.png", "b/notes.txt", "b/e/f.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    root = str(tmp_path)
    assert find([f"{root}/b"]) == [f"{root}/b/c.PNG", f"{root}/b/e/f.webp"]
    assert find([f"{root}/**/*.*"]) == [f"{root}/a.jpg", f"{root}/b/c.PNG", f"{root}/b/e/f.webp"]
    assert find([f"{root}/a.jpg", root, "-"])[0::3] == [f"{root}/a.jpg", "-"]  # once, though named twice
    assert find([f"{root}/b/notes.txt"]) == [f"{root}/b/notes.txt"]  # who names it means it
    with pytest.raises(UserError, match="matches no image"):
        find([f"{root}/*.gif"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        find([f"{root}/empty"])
    with pytest.raises(UserError, match="no images: give files"):
        find([])


def test_globs_pass_over_what_folders_do(tmp_path):
    names = ("a.jpg", "@eaDir/a.jpg", "b/__MACOSX/c.png", "b/c.png", "b/thumbs.db", "b/notes.txt")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    root = str(tmp_path)
    wanted, left_out = [f"{root}/a.jpg", f"{root}/b/c.png"], "files left out by their ending: 1 .txt"
    for found in (
        find,
        lambda given, say: [name for part in parts_of(given, 9, say) for name in part.places],
    ):
        for given in (root, f"{root}/**"):
            said: list[str] = []
            assert found([given], said.append) == wanted and said == [f"{given}: {left_out}"]
        assert found([f"{root}/@eaDir/*"], said.append) == [f"{root}/@eaDir/a.jpg"]  # who names it means it


@pytest.mark.parametrize(
    ("images", "folder", "told"),
    [
        (["g/*.jpg"], "g", "lies in g/*.jpg"),
        (["g/*"], "g/../g", "lies in g/*"),
        (["**/*.jpg"], "maps", "lies in **/*.jpg"),
        (["*/*.jpg"], "maps", "lies in */*.jpg"),
        (["g/a.jpg", "g/b.jpg"], "g", "lies in g"),  # as a shell makes them of g/*.jpg
        (["a.jpg", "g"], ".", "lies in ."),
        (["g/*.jpg"], "g/maps", ""),
        (["*.jpg"], "maps", ""),
        (["a.jpg"], ".", ""),
        (["g", "g/*.jpg"], "maps", ""),
    ],
)
def test_what_is_written_is_not_answered_the_next_time(tmp_path, monkeypatch, images, folder, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wastejax.cli.predict.load_engine", lambda *_, **__: sys.exit("loaded"))
    (tmp_path / "g").mkdir()
    for name in ("a.jpg", "g/a.jpg", "g/b.jpg"):
        (tmp_path / name).touch()
    for option in (["--heatmap"], ["--summary"], ["--regions", "--draw"]):
        given = [*images, *option[:-1], f"{option[-1]}={folder}"]
        with pytest.raises((UserError, SystemExit)) as end:
            run(parser("predict").parse_args(["predict", *given]), print)
        assert str(end.value).startswith(f"{option[-1]}={folder}: {told}, and would" if told else "loaded")


def test_images_come_in_order_however_many(tmp_path):
    names = []
    for i in range(150):
        names.append(str(tmp_path / f"{i:03}.png"))
        if i % 50 != 7:
            Image.new("RGB", (8, 8), (i, 0, 0)).save(names[-1])
    preprocessing = load_bundle(write_bundle(tmp_path / "bundle", image_size=32)).preprocessing
    found = list(squares(names, preprocessing))
    assert [name for name, _ in found] == names
    for i, (_, square) in enumerate(found):
        if i % 50 == 7:
            assert isinstance(square, BadImage)
        else:
            assert square.shape == (32, 32, 3) and (square[..., 0] == i).all()


ROWS = [
    Answer("a, b.jpg", (Guess("glass", "glass", 0.9), Guess("종이", "", 0.1)), False, "", None, 0.9, True),
    Answer(
        "c.jpg", (Guess("종이", "", 0.4), Guess("glass", "glass", 0.3)), rejected=True, bin_probability=0.4
    ),
    Answer("d.jpg", error="truncated"),
    Answer("e.jpg", (Guess("box", "cardboard", 0.5), Guess("carton", "cardboard", 0.4)), bin_probability=0.9),
]
NAMES = [row.file for row in ROWS]


def test_the_three_formats_say_the_same():
    lines = list(table(ROWS, NAMES))
    assert lines[1].split() == ["a,", "b.jpg", "glass", "90.0%", "glass", "90.0%", "종이", "10.0%"]
    assert lines[2].split() == ["c.jpg", "not", "sure", "perhaps", "종이", "40.0%,", "glass", "30.0%"]
    assert lines[3].split() == ["d.jpg", "-", "truncated"]
    said = ["e.jpg", "cardboard", "90.0%", "not", "sure", "perhaps", "box", "50.0%,", "carton", "40.0%"]
    assert lines[4].split() == said
    parsed = json.loads("\n".join(json_lines(ROWS, NAMES)))
    assert parsed[1] == {
        "file": "c.jpg",
        "rejected": True,
        "bin_probability": 0.4,
        "class_sure": False,
        "top": [
            {"class": "종이", "bin": "", "probability": 0.4},
            {"class": "glass", "bin": "glass", "probability": 0.3},
        ],
    }
    assert parsed[2] == {"file": "d.jpg", "error": "truncated"}
    cells = list(csv.reader(csv_lines(ROWS, NAMES)))
    assert cells[1] == ["a, b.jpg", "1", "glass", "glass", "0.900000", "false", "", "0.900000", "true"]
    assert cells[4] == ["c.jpg", "2", "glass", "glass", "0.300000", "true", "", "0.400000", "false"]
    assert cells[5] == ["d.jpg", "", "", "", "", "", "truncated", "", ""]


def test_csv_ranks_equally_likely_classes_as_the_model_has_them():
    guesses = tuple(Guess(f"class {i}", "", 0.1) for i in range(9))
    for row in (Answer("a.jpg", guesses), Answer("a.jpg", guesses[:5], named=guesses)):
        assert [cells[2] for cells in csv.reader(csv_lines([row], []))][1:] == [g.label for g in guesses]


def test_a_bin_is_sure_by_all_of_its_classes():
    names = ("cardboard_boxes", "cardboard_packaging", "shoes", "unknown_thing", "another_thing")
    model = Predictor(Path("m"), "numpy", names, Preprocessing(32), load_taxonomy(), lambda images: images)

    def said(*row):
        answer = interpret(model, "x.jpg", np.array(row, np.float32), 3, 0.9)
        return answer.rejected, round(answer.bin_probability, 4), answer.class_sure

    assert said(0.5, 0.45, 0.05, 0, 0) == (False, 0.95, False)
    assert said(0.93, 0, 0.07, 0, 0) == (False, 0.93, True)
    assert said(0.5, 0.3, 0.2, 0, 0) == (True, 0.8, False)
    assert said(0, 0, 0, 0.5, 0.5) == (True, 0.5, False)  # without rules there is no bin that they share


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such run or bundle"),
        (("model.pth", b"x"), "not a form of model that can be run"),
        (("model.onnx", b"x" * 100), "damaged, or no ONNX file"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, content, message):
    path = tmp_path / (content[0] if content else "absent")
    if content:
        path.write_bytes(content[1])
    with pytest.raises(UserError, match=message):
        load_predictor(path)


ODD_NAMES = ["new\nline.jpg", "escape\x1b[31m.jpg", os.fsdecode(b"\xff\xfe.jpg"), "가 나.jpg", "-dash.jpg"]
ODD_NAMES += ["é.jpg", "🗑.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict", "cp1252:strict"])
@pytest.mark.parametrize("style", ["table", "json", "csv"])
def test_names_that_no_terminal_can_show_keep_no_answer_back(place, tmp_path, monkeypatch, style, encoding):
    for name in ODD_NAMES:
        (tmp_path / name).write_bytes(b"no image")
    text = io.TextIOWrapper(io.BytesIO(), *encoding.split(":"), newline="\n")
    monkeypatch.setattr(sys, "stdout", text)
    monkeypatch.setattr(
        sys,
        "argv",
        ["wastejax", "predict", f"--format={style}", f"--model={place / 'bundle'}", str(tmp_path)],
    )
    monkeypatch.setenv("WASTEJAX_ENGINE", "jax")
    monkeypatch.setenv("WASTEJAX_HUGEPAGES", "0")
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 1
    text.flush()
    said = text.buffer.getvalue().decode("utf-8" if style != "table" else encoding.split(":")[0])
    assert "\x1b" not in said or style == "csv"
    if style == "json":
        assert {Path(row["file"]).name for row in json.loads(said)} == set(ODD_NAMES)
    elif style == "csv":
        rows = list(csv.DictReader(io.StringIO(said, newline="")))
        assert [row["error"] for row in rows] == ["not an image"] * 7
        assert {Path(row["file"]).name for row in rows} >= {n for n in ODD_NAMES if n.isprintable()}
    else:
        assert len(said.splitlines()) == 8 and r"new\nline.jpg" in said


def test_a_name_like_an_option_is_told_how_to_be_given(place, tmp_path):
    (tmp_path / "-dash.jpg").touch()
    done = predict("-dash.jpg", cwd=tmp_path)
    assert done.returncode == 2 and b"the file of that name is ./-dash.jpg" in done.stderr


def test_mistakes_end_with_one_line(place):
    for arguments, hint in (
        (["--model=bundle"], "no images"),
        (["x.jpg", "--model=nowhere"], "nowhere: no such run"),
        (["x.jpg", "--top=0", "--model=bundle"], "--top: must be >= 1"),
        (["images", "--model=bundle", "--heatmap=images/maps"], "lies in images, and would be answered too"),
        ([".", "--model=bundle", "--out=answers"], "lies in ., and would be answered too"),
    ):
        done = predict(*arguments, cwd=place)
        assert done.returncode == 2 and hint in done.stderr.decode() and done.stderr.count(b"\n") == 1


def test_what_is_rejected_follows_the_bundle(tmp_path):
    predictor = load_predictor(write_bundle(tmp_path / "plain"))
    assert predictor.reject_below() == 0.5
    with pytest.raises(
        UserError, match=r"--accuracy=0.95: .* never calibrated: `wastejax eval .* --calibrate`"
    ):
        predictor.reject_below(0.95)
    thresholds = {"0.9": 0.4, "0.95": 0.7, "0.99": None}
    predictor = load_predictor(write_bundle(tmp_path / "calibrated", thresholds=thresholds))
    assert [predictor.reject_below(a) for a in (None, 0.9, 0.95, 0.99)] == [0.7, 0.4, 0.7, math.inf]
    with pytest.raises(UserError, match=r"--accuracy=0.8: .*; choices: 0.9, 0.95, 0.99"):
        predictor.reject_below(0.8)


def test_the_wanted_accuracy_decides_which_answers_are_marked(place):
    write_bundle(place / "sure", thresholds={"0.9": 0.0, "0.95": 0.6, "0.99": None})
    names = sorted(map(str, (place / "images").rglob("*.*")))

    def marked(*options: str) -> list[bool]:
        lines: list[str] = []
        asked = parser("predict").parse_args(
            ["predict", *names, f"--model={place / 'sure'}", "--format=json", *options]
        )
        assert run(asked, lines.append) == 0
        return [row["rejected"] for row in json.loads("\n".join(lines))]

    best = [answer.guesses[0].probability for answer in answers(load_predictor(place / "sure"), names)]
    assert any(p < 0.6 for p in best) and any(p >= 0.6 for p in best)
    assert marked() == [p < 0.6 for p in best]
    assert not any(marked("--accuracy=0.9")) and all(marked("--accuracy=0.99"))
    assert all(marked("--reject-below=1"))
    with pytest.raises(UserError, match="give one of them"):
        marked("--accuracy=0.9", "--reject-below=0.1")


def test_objects_by_a_file_for_one_size_are_refused_before_any_output(tmp_path, monkeypatch, capsys):
    images, bundle = draw_images(tmp_path / "images", 1), write_bundle(tmp_path / "bundle")
    fixed = replace(load_predictor(bundle), any_side=False)
    monkeypatch.setattr("wastejax.cli.predict.load_engine", lambda *_, **__: fixed)
    with pytest.raises(UserError, match=r"of one size alone, .* objects does not; .* --engine=jax"):
        main.dispatch(["predict", f"--model={bundle}", "--regions", "--format=json", str(images)])
    assert capsys.readouterr().out == ""
