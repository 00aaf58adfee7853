"""Images that show any number of classes: from files to a report, answers and exported files."""

import csv
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.metrics import average_precision_score

from wastejax import main
from wastejax.bundle import load_bundle
from wastejax.data.images import decode
from wastejax.errors import UserError
from wastejax.evaluation.metrics import bootstrap_statistic
from wastejax.evaluation.metrics.multilabel import macro_average_precision
from wastejax.training.train import train

CLASSES = ("cardboard", "eggshells", "glass")
RECIPE = "configs/pyramidnet_asam.py"  # with adamw below, as its tiny network is traced and compiled fastest
TRAIN = [
    "--config.model.size=tiny",
    "--config.optim.name=adamw",
    "--config.optim.learning_rate=0.001",
    "--config.optim.sharpness.name=none",
    "--config.loss.kind=multilabel",
    "--config.data.image_size=32",
    "--config.train.epochs=2",
    "--config.train.batch_size=8",
    "--config.optim.warmup_epochs=0",
    "--config.data.workers=0",
    "--config.eval.bootstrap=50",
]


def draw(folder: Path, count: int = 60) -> list[tuple[str, list[str]]]:
    """Red bars, green discs and blue squares, any of them together or none, on gray noise."""
    rng = np.random.default_rng(2)
    folder.mkdir(parents=True)
    rows = []
    for i in range(count):
        image = Image.fromarray(rng.integers(90, 160, (48, 64, 3), dtype=np.uint8))
        pen, shown = ImageDraw.Draw(image), [name for name in CLASSES if rng.random() < 0.45]
        for name in shown:
            x, y = (int(v) for v in rng.integers((4, 4), (40, 24)))
            if name == "cardboard":
                pen.rectangle((x, y, x + 20, y + 6), fill="red")
            elif name == "eggshells":
                pen.ellipse((x, y, x + 14, y + 14), fill="lime")
            else:
                pen.rectangle((x, y, x + 12, y + 12), fill="blue")
        image.save(folder / f"{i:02}.png")
        rows.append((f"{i:02}.png", shown))
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    rows = draw(folder / "images")
    lines = ["file,labels", *(f"images/{name},{';'.join(labels)}" for name, labels in rows)]
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    train(RECIPE, [*TRAIN, f"--config.data.dir={data / 'labels.csv'}"], folder)
    return folder


def command(*arguments: str) -> int:
    args = main.parser(arguments[0]).parse_args(arguments)
    return importlib.import_module(main.COMMANDS[arguments[0]][1]).run(args, print) or 0


def test_a_run_reports_what_scikit_learn_finds(run, data):
    report = json.loads((run / "report.json").read_text())
    with (run / "manifest.csv").open() as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    bundle = load_bundle(run)
    assert bundle.multilabel and len(bundle.class_thresholds) == 3
    squares = [bundle.preprocessing(decode((data / row["file"]).read_bytes())) for row in test]
    logits = np.asarray(bundle.logits(np.stack(squares)))
    shown = np.array([[name in row["label"].split(";") for name in CLASSES] for row in test])
    expected = average_precision_score(shown, logits, average=None)
    found = [report["per_class"][name]["average_precision"] for name in CLASSES]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert report["macro_ap"] == pytest.approx(expected.mean(), abs=1e-6)
    interval = bootstrap_statistic(macro_average_precision, logits, shown, resamples=50)
    np.testing.assert_allclose(report["macro_ap_ci95"], interval, atol=1e-6)
    named = 1 / (1 + np.exp(-logits)) >= np.array(bundle.class_thresholds)
    assert report["exact"] == np.mean([list(a) == list(b) for a, b in zip(named, shown, strict=True)])
    text = (run / "report.md").read_text()
    assert "Macro average precision" in text and "Exactly the right bins" in text


def test_eval_says_the_same_of_the_run(run, tmp_path, capsys):
    assert command("eval", f"--model={run}", f"--out={tmp_path / 'scores.json'}") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    report = json.loads((run / "report.json").read_text())
    assert scores == {key: value for key, value in report.items() if key != "facts"}
    assert "macro average precision" in capsys.readouterr().out


def answers(capsys, *arguments) -> list[dict]:
    capsys.readouterr()
    assert command("predict", *map(str, arguments), "--format=json") == 0
    return json.loads(capsys.readouterr().out)


def test_an_answer_is_a_list_of_classes_and_the_union_of_their_bins(run, data, capsys):
    found = answers(capsys, data / "images", f"--model={run}", "--engine=jax")
    bundle = load_bundle(run)
    rules = {name: bundle.taxonomy.find(name).bin for name in CLASSES}
    square = bundle.preprocessing(decode((data / "images" / "03.png").read_bytes()))
    p = 1 / (1 + np.exp(-np.asarray(bundle.logits(square[None]), np.float64)[0]))
    expected = [i for i in np.argsort(-p) if p[i] >= bundle.class_thresholds[i]]
    answer = found[3]
    assert [entry["class"] for entry in answer["classes"]] == [CLASSES[i] for i in expected]
    np.testing.assert_allclose([entry["probability"] for entry in answer["top"]], sorted(p)[::-1], atol=2e-6)
    for answer in found:
        assert answer["bins"] == list(dict.fromkeys(rules[entry["class"]] for entry in answer["classes"]))
        assert answer["rejected"] == (not answer["classes"])
    everything = answers(
        capsys, data / "images" / "03.png", f"--model={run}", "--engine=jax", "--reject-below=0"
    )
    assert len(everything[0]["classes"]) == 3


@pytest.mark.parametrize("form", ["onnx", pytest.param("stablehlo", marks=pytest.mark.slow), "bundle"])
def test_an_exported_file_names_the_same_classes(run, data, tmp_path, capsys, form):
    for package in {"onnx": ("jax2onnx", "onnxruntime"), "stablehlo": ("flatbuffers",)}.get(form, ()):
        pytest.importorskip(package)
    out = tmp_path / {"onnx": "model.onnx", "stablehlo": "model.stablehlo"}.get(form, "small")
    assert command("export", f"--model={run}", f"--format={form}", f"--out={out}") == 0
    found = answers(capsys, data / "images", f"--model={out}")
    expected = answers(capsys, data / "images", f"--model={run}", "--engine=jax")
    assert [[e["class"] for e in a["classes"]] for a in found] == [
        [e["class"] for e in a["classes"]] for a in expected
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "IMAGES", "--accuracy=0.9"],
        ["predict", "IMAGES", "--regions", "--engine=jax"],
        ["robustness", "--out=OUT"],
        ["eval", "--ood=IMAGES"],
        ["eval", "--labels=labels.csv", "--data=IMAGES"],
    ],
)
def test_what_makes_no_sense_of_several_labels_is_one_line(run, data, tmp_path, arguments):
    (tmp_path / "labels.csv").write_text("label,classes\nimages,glass\n")
    filled = [
        a.replace("IMAGES", str(data / "images")).replace("OUT", str(tmp_path / "out")) for a in arguments
    ]
    filled = [a.replace("=labels.csv", f"={tmp_path / 'labels.csv'}") for a in filled]
    with pytest.raises(UserError, match="multi-label") as error:
        command(*filled, f"--model={run}")
    assert "\n" not in str(error.value)


def test_sources_of_several_labels_are_trained_corrected_and_reviewed(data, tmp_path, capsys):
    """A table of three classes and a folder that knows one of them; a correction, and the mistakes to review."""
    for i in range(12):
        image = Image.new("RGB", (48, 48), (90 + 3 * i, 120, 100))
        ImageDraw.Draw(image).rectangle((10, 2 * i, 22, 2 * i + 12), fill="blue")
        (tmp_path / "home" / "glass").mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "home" / "glass" / f"{i:02}.png")
    (tmp_path / "all.toml").write_text(
        f'classes = "table"\n[sources.table]\npath = "{data / "labels.csv"}"\n[sources.home]\npath = "home"\n'
    )
    (tmp_path / "c.csv").write_text(
        "file,label\ntable/images/03.png,none\nhome/glass/05.png,glass;cardboard\n"
    )
    given = [f"--config.data.dir={tmp_path / 'all.toml'}", f"--config.data.corrections={tmp_path / 'c.csv'}"]
    folder = tmp_path / "run"
    train(RECIPE, [*TRAIN, "--config.train.epochs=1", *given], folder)
    with (folder / "manifest.csv").open() as file:
        labels = {row["file"]: row["label"] for row in csv.DictReader(file)}
    assert labels["table/images/03.png"] == "" and labels["home/glass/05.png"] == "cardboard;glass"
    report = json.loads((folder / "report.json").read_text())
    assert "leave open cardboard, eggshells" in str(report["facts"]["notes"])
    page, scores = tmp_path / "mistakes.html", tmp_path / "scores.json"
    assert command("eval", f"--model={folder}", f"--review={page}", f"--out={scores}") == 0
    assert json.loads(scores.read_text()) == {key: value for key, value in report.items() if key != "facts"}
    content = json.loads(page.read_text().partition('id="data">')[2].partition("</script>")[0])
    assert content["several"] and content["items"]
    for item in content["items"]:
        assert item["label"] != item["suggested"] and item["label"] == (labels[item["file"]] or "none")
    # Of the table, where nothing is left open: what the model named is then right.
    first = next(item for item in content["items"] if item["file"].startswith("table/"))
    again = tmp_path / "again.csv"
    again.write_text((tmp_path / "c.csv").read_text() + f"{first['file']},{first['suggested']}\n")
    assert command("eval", f"--model={folder}", f"--corrections={again}", f"--out={scores}") == 0
    assert json.loads(scores.read_text())["exact"] > report["exact"]


@pytest.mark.parametrize(
    "override", ["loss.class_weights=True", "data.balanced_sampling=True", "data.leave_out=glass"]
)
def test_keys_that_need_one_label_are_refused(data, tmp_path, override):
    arguments = [*TRAIN, f"--config.data.dir={data / 'labels.csv'}", f"--config.{override}"]
    with pytest.raises(UserError, match=override.partition("=")[0]):
        train(RECIPE, arguments, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_images_that_moved_are_known_again_with_all_their_labels(run, data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "moved")
    assert command("eval", f"--model={run}", f"--data={tmp_path / 'moved' / 'labels.csv'}") == 0
    assert "37 of 60 images were trained on" in capsys.readouterr().out


def test_images_of_a_data_set_are_answered_in_any_format(run, data, capsys):
    found = answers(capsys, f"--data={data / 'labels.csv'}", f"--model={run}", "--engine=jax")
    expected = answers(capsys, data / "images", f"--model={run}", "--engine=jax")
    assert [Path(answer["file"]).name for answer in found] == [Path(a["file"]).name for a in expected]
    assert [answer["top"] for answer in found] == [answer["top"] for answer in expected]
