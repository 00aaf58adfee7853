"""Two models on the same images: the tests against SciPy and plain resampling, the command on drawn images."""

import json
import math
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from corrections_file import to_csv
from small_models import CLASSES, draw_images, write_bundle

from wastejax import main
from wastejax.bundle import Bundle
from wastejax.cli import robustness
from wastejax.cli.compare import run
from wastejax.data.pipeline import EvalBatches
from wastejax.data.sources import open_folder
from wastejax.data.split import save_manifest
from wastejax.deployment.formats import load_predictor
from wastejax.errors import UserError
from wastejax.evaluation.compare import (
    SCORES,
    _compare_single,
    compare,
    compare_models,
    mcnemar,
    paired_interval,
)
from wastejax.evaluation.evaluate import Evaluation
from wastejax.evaluation.images import Asked
from wastejax.evaluation.metrics import score


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 21), (700, 800)])
def test_mcnemar_is_the_binomial_test(only_a, only_b):
    tosses, fewer = only_a + only_b, min(only_a, only_b)
    expected = 2 * sum(math.comb(tosses, k) for k in range(fewer + 1)) / 2**tosses
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, expected))


def test_mcnemar_by_hand():
    # Five tosses, none of them for one side: 2 / 2^5.
    assert mcnemar(0, 5) == mcnemar(5, 0) == 0.0625


def test_mcnemar_of_a_million_images_takes_no_time():
    begin = time.perf_counter()
    found = mcnemar(300_000, 301_000)
    assert time.perf_counter() - begin < 5
    # The normal approximation, with its correction for continuity.
    z = 999 / math.sqrt(601_000)
    assert found == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


def test_the_paired_interval_is_that_of_resampled_images():
    rng = np.random.default_rng(1)
    a = rng.uniform(size=300) < 0.8
    b = np.where(rng.uniform(size=300) < 0.85, a, ~a)
    drawn = rng.integers(0, 300, (20_000, 300))
    expected = np.quantile(b[drawn].mean(1) - a[drawn].mean(1), [0.025, 0.975])
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    np.testing.assert_allclose(paired_interval(only_a, only_b, 300, 20_000), expected, atol=0.004)


def test_counts_and_difference():
    a = np.array([True, True, True, False, False, False, False])
    b = np.array([True, False, True, True, True, True, False])
    compared = compare(a, b)
    assert compared["difference"] == pytest.approx(5 / 7 - 3 / 7)
    counts = [compared[key] for key in ("both_right", "only_a_right", "only_b_right", "both_wrong")]
    assert counts == [2, 1, 3, 1]
    assert compared["p_value"] == pytest.approx(2 * (1 + 4) / 16)
    assert compare(a, a)["p_value"] == 1.0 and compare(a, a)["difference_ci95"] == [0.0, 0.0]


def test_probabilities_are_those_that_predict_gives():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    names = ("a", "b", "c")
    bundle = SimpleNamespace(temperature=0.3, classes=names, bins=["x", "x", "y"], taxonomy=None)
    answer = SimpleNamespace(single=Evaluation(score(logits, labels, names), logits, labels, np.arange(50)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wastejax.evaluation.compare._rules", lambda bundle: None)
        found = _compare_single([bundle, bundle], [answer, answer])
    expected = score(logits / 0.3, labels, names, bins=bundle.bins)
    assert {key: found["a"][key] for key in SCORES} == {key: expected[key] for key in SCORES}
    assert found["bin_top1"]["both_right"] == round(50 * expected["bin_top1"])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Images, and two runs of untrained networks whose test images overlap."""
    root = tmp_path_factory.mktemp("compare")
    source = open_folder(draw_images(root / "images", 20))
    for name, size, first in (("a", 64, 0), ("b", 32, 4)):
        write_bundle(root / name / "bundle", image_size=size)
        set_data(root / name, source="folder", dir=str(root / "images"))
        splits = np.where((np.arange(20) >= first) & (np.arange(20) < first + 14), "test", "train")
        save_manifest(root / name / "manifest.csv", source, np.arange(20), splits)
    return root


def set_data(path: Path, **data: str | float) -> None:
    """Changes the `data` section of a bundle's config."""
    file = path / "bundle" / "bundle.json"
    about = json.loads(file.read_text())
    about["config"]["data"] |= data
    file.write_text(json.dumps(about))


def asked(place: Path, **options) -> SimpleNamespace:
    given = {"a": str(place / "a"), "b": str(place / "b"), "data": None, "split": None, "out": None}
    given |= {"labels": None, "corrections": None}
    return SimpleNamespace(**given | {"skip_bad": False} | options)


def test_the_command_compares_what_both_runs_test_with(place, tmp_path, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(place / "cache"))
    lines: list[str] = []
    run(asked(place, out=str(tmp_path / "out.json")), lines.append)
    answer = json.loads((tmp_path / "out.json").read_text())
    assert lines[0] == "the runs share 10 of 14 and 14 test images" and answer["num_images"] == 10

    source = open_folder(place / "images")
    shared = np.arange(4, 14)
    right = []
    for name in ("a", "b"):
        predictor = load_predictor(place / name)
        batch = next(iter(EvalBatches(source, shared, predictor.preprocessing, 10)))
        best = predictor.probabilities(batch["image"]).argmax(axis=1)
        right.append(np.array([CLASSES[i] for i in best]) == np.array(source.classes)[batch["label"]])
        assert answer[name]["top1"] == right[-1].mean()
    assert answer["top1"]["only_a_right"] == int((right[0] & ~right[1]).sum())
    assert answer["top1"]["only_b_right"] == int((right[1] & ~right[0]).sum())
    assert "bin_top1" not in answer  # one of the classes has no rule
    assert any(line.startswith("McNemar's exact test: p = ") for line in lines)


def test_runs_without_shared_images_are_an_error(place, tmp_path, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(place / "cache"))

    def problem(**options) -> str:
        with pytest.raises(UserError) as error:
            run(asked(place, **options), print)
        assert "\n" not in str(error.value) and "--data=DIR" in str(error.value)
        return str(error.value)

    bundle = write_bundle(tmp_path / "bundle")
    assert "a bundle alone has no test images" in problem(b=str(bundle))
    source = open_folder(place / "images")
    write_bundle(tmp_path / "c" / "bundle")
    set_data(tmp_path / "c", source="folder", dir=str(place / "images"))
    splits = np.where(np.arange(20) >= 14, "test", "train")
    save_manifest(tmp_path / "c" / "manifest.csv", source, np.arange(20), splits)
    assert "their splits differ" in problem(b=str(tmp_path / "c"))
    set_data(tmp_path / "c", dir="/elsewhere")
    assert "their data are" in problem(b=str(tmp_path / "c"))


def test_corrections_of_either_run_hold_for_both(place, tmp_path, monkeypatch):
    """Whichever comes first; what one corrects and the other confirms or corrects otherwise is left out."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(place / "cache"))
    monkeypatch.setattr(
        Bundle, "logits", property(lambda self: lambda images: np.tile(np.eye(5)[0], (len(images), 1)))
    )
    source = open_folder(place / "images")
    names, labels = source.names, source.label_names
    first, second = (next(name for name in CLASSES if name != labels[i]) for i in (4, 5))
    third, fourth = [name for name in CLASSES if name != labels[6]][:2]
    rows = {
        "a": [(names[4], first), (names[6], third), (names[7], labels[7])],
        "b": [(names[5], second), (names[6], fourth), (names[7], next(n for n in CLASSES if n != labels[7]))],
    }
    for name, changed in rows.items():
        shutil.copytree(place / name, tmp_path / name)
        (tmp_path / name / "corrections.csv").write_text(to_csv(changed), encoding="utf-8")
    said: list[str] = []
    paths = [str(tmp_path / name) for name in "ab"]
    there, back = compare_models(*paths, Asked(), said.append), compare_models(*reversed(paths), Asked())
    correct = {i: label for i, label in enumerate(labels) if 4 <= i < 14} | {4: first, 5: second}
    right = np.mean([label == CLASSES[0] for i, label in correct.items() if i not in (6, 7)])
    assert there["num_images"] == back["num_images"] == 8
    assert [found[key]["top1"] for found in (there, back) for key in "ab"] == [right] * 4
    assert said[-1] == (
        f"note: scored by the corrected labels of {paths[0]} (1) and {paths[1]} (1); images that the runs' "
        "corrections label differently, left out: 2"
    )


def test_margins_of_boxes_that_differ_are_said(place, tmp_path, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(place / "cache"))
    for name, margin in (("a", 0.25), ("b", 0.1), ("c", 0.1)):
        shutil.copytree(place / "b", tmp_path / name)
        set_data(tmp_path / name, box_margin=margin)
    a, b, c = (str(tmp_path / name) for name in "abc")
    said: list[str] = []
    compare_models(a, b, Asked(), said.append)
    assert said == [
        f"note: boxes, if there are any, are cut with the margin of {a}, 0.25, for both; {b} has another, 0.1"
    ]
    compare_models(b, c, Asked(), said.append)
    assert len(said) == 1


def test_given_corrections_are_what_given_images_are_scored_by(place, tmp_path, monkeypatch):
    """As the note of a run that was trained with corrections advises, for `compare` and `robustness` alike."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(place / "cache"))
    monkeypatch.setattr(
        Bundle, "logits", property(lambda self: lambda images: np.tile(np.eye(5)[0], (len(images), 1)))
    )
    model, out = tmp_path / "b", tmp_path / "out"
    shutil.copytree(place / "b", model)
    source = open_folder(place / "images")
    i = next(i for i in range(4, 18) if source.label_names[i] != CLASSES[0])  # of its test images
    (model / "corrections.csv").write_text(to_csv([(source.names[i], CLASSES[0])]))
    right = np.mean([j == i or source.label_names[j] == CLASSES[0] for j in range(4, 18)])
    given = [f"--data={place / 'images'}", "--split=test", f"--corrections={model / 'corrections.csv'}"]
    command = ["compare", str(model), str(model), *given, f"--out={tmp_path / 'c.json'}"]
    run(main.parser("compare").parse_args(command), print)
    assert json.loads((tmp_path / "c.json").read_text())["a"]["top1"] == pytest.approx(right)
    command = ["robustness", f"--model={model}", *given, f"--out={out}"]
    robustness.run(main.parser("robustness").parse_args(command), print)
    assert json.loads((out / "robustness.json").read_text())["clean"]["top1"] == pytest.approx(right)
