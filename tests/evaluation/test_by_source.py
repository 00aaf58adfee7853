"""Scores by source, against counting by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from tests.small_models import CLASSES, draw_images, write_bundle
from wastejax import main
from wastejax.bundle import load_bundle
from wastejax.cli import evaluate
from wastejax.cli.compare import lines
from wastejax.data import images
from wastejax.data.description.meant import Meant
from wastejax.deployment.export.images import chosen_images
from wastejax.errors import UserError
from wastejax.evaluation.by_source import score_by_source, score_meant
from wastejax.evaluation.compare import compare_models
from wastejax.evaluation.images import Asked
from wastejax.evaluation.report.sources import source_table
from wastejax.evaluation.robustness import measure_model
from wastejax.evaluation.run import evaluate_labels, evaluate_model
from wastejax.evaluation.selective import choose_threshold_surely


def test_scores_by_source_by_hand():
    #                  sure of 0    sure of 1    unsure       sure of 2
    logits = np.array([[9.0, 0, 0], [0, 9.0, 0], [0, 1.0, 0], [0, 0, 9.0], [9.0, 0, 0]])
    allowed = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]], bool)
    members = ["a", "a", "a", "a", "b"]
    materials = [frozenset({"glass"}), frozenset({"metal"}), frozenset({"paper"})]
    scores = score_by_source(logits, allowed, members, 1.0, 0.9, ["can", "can", "paper"], materials)
    a, b = scores["a"], scores["b"]
    assert (a["num_images"], a["num_outliers"], a["num_kept"]) == (3, 1, 2)
    assert a["right"] == pytest.approx(2 / 3)  # the second is wrong
    assert a["right_bin"] == 1  # but in the bin of what it is
    assert a["right_material"] == pytest.approx(2 / 3)
    assert a["kept"] == pytest.approx(2 / 3) and a["right_of_kept"] == 0.5
    assert a["outliers_kept"] == 1
    assert b["right"] == 0 and b["outliers_kept"] is None and b["right_material"] == 0
    assert source_table(scores)[2].startswith("| a | 4 | 66.7 %")


def test_no_threshold_keeps_nothing():
    logits, allowed = np.array([[9.0, 0], [0, 9.0]]), np.array([[True, False], [False, False]])
    scores = score_by_source(logits, allowed, ["a", "a"])["a"]
    assert scores["kept"] == 0 and scores["right_of_kept"] is None and scores["outliers_kept"] == 0


def test_a_model_that_was_never_calibrated_keeps_from_one_half_on_as_predict_does(tmp_path):
    logits = np.log([[0.6, 0.4], [0.45, 0.55], [0.8, 0.2]])
    meant = Meant(np.array([[1, 0], [1, 0], [0, 0]], bool), ("a",) * 3, (frozenset(),) * 2)
    never = score_meant(logits, meant, 1.0, {}, None)["a"]
    assert (never["kept"], never["right_of_kept"], never["outliers_kept"]) == (1, 0.5, 1)
    out_of_reach = score_meant(logits, meant, 1.0, {"0.95": None}, None)["a"]
    assert (out_of_reach["kept"], out_of_reach["right_of_kept"], out_of_reach["outliers_kept"]) == (
        0,
        None,
        0,
    )
    (tmp_path / "map.csv").write_text("label,classes\n" + "".join(f"{c},{c}\n" for c in CLASSES))
    model, data = str(write_bundle(tmp_path / "bundle")), draw_images(tmp_path / "street", 5)
    said: list[str] = []
    evaluate_labels(Asked(model, data), tmp_path / "map.csv", say=said.append)
    compare_models(model, model, Asked(None, data), said.append, tmp_path / "map.csv")
    note = f"note: {model} was never calibrated: by source, answers from 50 % on count as kept"
    assert said == [note] * 3


def test_a_threshold_of_few_answers_is_not_lowered_by_luck():
    confidence = np.linspace(1, 0.5, 100)
    right = np.ones(100, bool)
    # 0.95 ** 44 is more than a tenth, 0.95 ** 45 is not: fewer right answers say nothing.
    assert choose_threshold_surely(confidence[:44], right[:44], 0.95) is None
    assert choose_threshold_surely(confidence[:45], right[:45], 0.95) == confidence[44]
    assert choose_threshold_surely(confidence, right, 0.95) == confidence[99]
    # Five near-duplicates of each count as one.
    five = [np.repeat(values, 5) for values in (confidence, right)]
    assert choose_threshold_surely(*five, 0.95, counts=np.full(500, 0.2)) == confidence[99]
    assert choose_threshold_surely(*(values[:220] for values in five), 0.95, counts=np.full(220, 0.2)) is None
    right[60] = False  # one mistake of 61: the bound (scipy.stats.binomtest) is 93.8 %
    low = binomtest(60, 61, alternative="greater").proportion_ci(0.9).low
    assert low < 0.95 and choose_threshold_surely(confidence, right, 0.95) == confidence[59]
    right[2] = False
    assert choose_threshold_surely(confidence, right, 0.95) is None
    # Of many draws at most a tenth promise too much.
    rng, broken = np.random.default_rng(1), 0
    for _ in range(300):
        sure = rng.uniform(0.5, 1, 300)
        found = choose_threshold_surely(sure, rng.uniform(size=300) < sure, 0.9)
        broken += found is not None and (1 + found) / 2 < 0.9
    assert broken <= 0.1 * 300 + 2 * (300 * 0.1 * 0.9) ** 0.5


def test_a_folder_with_labels_of_its_own_is_scored_by_what_they_mean(tmp_path):
    draw_images(tmp_path / "street", 6)  # eggshells twice, four others once
    model = write_bundle(tmp_path / "bundle")
    (tmp_path / "map.csv").write_text(
        "source,label,classes,material\n"
        "street,eggshells,eggshells;tea_bags,organic\nstreet,glass,glass,glass\nstreet,paper_cups,paper_cups,paper\n"
        "street,tea_bags,,none\nstreet,종이,종이,paper\nelsewhere,x,glass,glass\n"
    )
    scores = evaluate_labels(Asked(model, tmp_path / "street", None), tmp_path / "map.csv")["street"]
    assert (scores["num_images"], scores["num_outliers"]) == (5, 1)
    bundle = load_bundle(model)
    files = sorted((tmp_path / "street").rglob("*.*g"))
    squares = np.stack([bundle.preprocessing(images.decode(file.read_bytes())) for file in files])
    said = [bundle.classes[k] for k in np.asarray(bundle.logits(squares)).argmax(axis=1)]
    means = {name: {name} for name in bundle.classes} | {
        "eggshells": {"eggshells", "tea_bags"},
        "tea_bags": set(),
    }
    right = [
        answer in means[file.parent.name]
        for file, answer in zip(files, said, strict=True)
        if means[file.parent.name]
    ]
    assert scores["right"] == pytest.approx(np.mean(right))
    # Materials by the label map; of 종이 it says paper.
    made_of = {"eggshells": "organic", "tea_bags": "organic", "glass": "glass"}
    fits = [
        made_of.get(answer, "paper") in {made_of.get(name, "paper") for name in means[file.parent.name]}
        for file, answer in zip(files, said, strict=True)
        if means[file.parent.name]
    ]
    assert scores["right_material"] == pytest.approx(np.mean(fits))
    with pytest.raises(UserError, match="needs --data"):
        evaluate_labels(Asked(model, None, None), tmp_path / "map.csv")


@pytest.fixture
def mixture(tmp_path) -> Path:
    """'home' has the classes, 'street' a label that can mean two of them and one that means none."""
    draw_images(tmp_path / "home", 10)
    rng = np.random.default_rng(2)
    for i, label in enumerate(("bag", "bag", "bag", "grass", "grass")):
        path = tmp_path / "street" / label / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (60, 70, 3), np.uint8)).save(path)
    (tmp_path / "map.csv").write_text("source,label,classes\nstreet,bag,eggshells;tea_bags\nstreet,grass,\n")
    (tmp_path / "mix.toml").write_text(
        'classes = "home"\nlabels = "map.csv"\n'
        '[sources.home]\npath = "home"\n[sources.street]\npath = "street"\n'
    )
    return tmp_path / "mix.toml"


def test_a_description_is_scored_by_source_and_two_models_compared(mixture, tmp_path, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    model, other = write_bundle(tmp_path / "bundle"), write_bundle(tmp_path / "other", image_size=32)
    _, scores = evaluate_model(Asked(model, mixture))
    assert scores["num_images"] == 10  # those whose label means one class
    street, home = scores["per_source"]["street"], scores["per_source"]["home"]
    assert (home["num_images"], street["num_images"], street["num_outliers"]) == (10, 3, 2)
    assert home["right"] == scores["top1"]
    files = sorted((tmp_path / "street" / "bag").iterdir())
    right = {}
    for path in (model, other):
        loaded = load_bundle(path)
        squares = np.stack([loaded.preprocessing(images.decode(file.read_bytes())) for file in files])
        said = np.asarray(loaded.logits(squares)).argmax(axis=1)
        right[path] = np.isin([loaded.classes[k] for k in said], ["eggshells", "tea_bags"])
    assert street["right"] == right[model].mean()

    found = compare_models(str(model), str(other), Asked(None, mixture))
    assert found["num_images"] == 15 and found["top1"]["difference"] == pytest.approx(
        found["b"]["top1"] - found["a"]["top1"]
    )
    both = found["per_source"]["street"]
    assert both["a"] == street
    assert both["right"]["only_b_right"] == int((right[other] & ~right[model]).sum())
    by_map = compare_models(
        str(model), str(other), Asked(None, tmp_path / "street"), labels=tmp_path / "map.csv"
    )
    assert by_map["per_source"]["street"]["right"] == both["right"] and "top1" not in by_map
    printed = "\n".join(lines(by_map))
    assert "| street | 5 | " in printed and "right: B - A" in printed
    with pytest.raises(UserError, match="leave --labels out"):
        compare_models(str(model), str(other), Asked(None, mixture), labels=tmp_path / "map.csv")


def test_a_description_whose_labels_all_mean_several_classes_or_none_is_scored_by_source(
    mixture, tmp_path, monkeypatch
):
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    model, out = write_bundle(tmp_path / "bundle"), tmp_path / "scores.json"
    mixture.write_text(
        f'classes = {list(CLASSES)}\nlabels = "map.csv"\n[sources.street]\npath = "street"\n',
        encoding="utf-8",
    )
    expected = evaluate_labels(Asked(model, tmp_path / "street"), tmp_path / "map.csv")
    command = ["eval", f"--model={model}", f"--data={mixture}"]
    said: list[str] = []
    note = f"note: {model} was never calibrated: by source, answers from 50 % on count as kept"
    evaluate.run(main.parser("eval").parse_args([*command, f"--out={out}"]), said.append)
    assert json.loads(out.read_text()) == {"num_images": 0, "per_source": expected}
    assert said[0] == note and said[2:] == [*source_table(expected), f"written: {out}"]
    assert "per_source" in compare_models(str(model), str(model), Asked(None, mixture))
    before = (model / "bundle.json").read_bytes()
    for option in (f"--ood={tmp_path / 'home'}", f"--review={tmp_path / 'r.html'}"):
        with pytest.raises(UserError, match=f"^{option[:5]}.*means one class"):
            evaluate.run(main.parser("eval").parse_args([*command, "--calibrate", option]), said.append)
    assert (model / "bundle.json").read_bytes() == before
    # What needs one class per image tells that there is none.
    asked = Asked(model, mixture)
    for needs_one in (
        lambda: measure_model(asked),
        lambda: chosen_images(asked, load_bundle(model), "test", 9),
    ):
        with pytest.raises(UserError, match=r"mix\.toml: no label there means exactly one class"):
            needs_one()
