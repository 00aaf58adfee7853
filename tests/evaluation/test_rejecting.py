"""Promised and scored is what `predict` rejects by: a bin's probability, also where some class has no rule."""

import argparse
import json

import numpy as np
import pytest
from small_models import CLASSES, draw_images, write_bundle

from wastejax.bundle import keep_calibration, load_bundle
from wastejax.cli import evaluate
from wastejax.data.pipeline import EvalBatches
from wastejax.data.sources import open_folder
from wastejax.data.taxonomy import load_taxonomy
from wastejax.deployment.formats import load_predictor
from wastejax.evaluation.by_source import score_by_source
from wastejax.evaluation.ood import bin_probability, max_probability
from wastejax.evaluation.report.markdown import render
from wastejax.evaluation.trust import calibrate, score_trust

BINS = load_taxonomy().bins_or_own(CLASSES)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images, and a model of which some answers are sure of the bin alone and some of nothing."""
    root = tmp_path_factory.mktemp("rejecting")
    draw_images(root / "images", 40)
    path = write_bundle(root / "bundle")
    bundle = load_bundle(path)
    source = open_folder(root / "images")
    batch = next(iter(EvalBatches(source, np.arange(40), bundle.preprocessing, 40)))
    logits = np.asarray(bundle.logits(batch["image"]))
    # A temperature at which the bin's probability is another than that of the class.
    temperature = float(np.abs(logits).max())
    sure, alone = bin_probability(logits, temperature, BINS), max_probability(logits, temperature)
    apart = np.flatnonzero(sure > alone + 1e-3)
    assert apart.size
    least = {"0.95": float((sure[apart[0]] + alone[apart[0]]) / 2)}
    keep_calibration(path, temperature, least)
    assert load_bundle(path).bins is None
    return root


def kept_by_predict(place) -> np.ndarray:
    predictor = load_predictor(place / "bundle")
    batch = next(iter(EvalBatches(open_folder(place / "images"), np.arange(40), predictor.preprocessing, 40)))
    rows = predictor.probabilities(batch["image"])
    return np.array([predictor.bin_probability(row) >= predictor.reject_below() for row in rows])


def test_eval_counts_what_predict_rejects(place, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(place / "cache"))
    kept = kept_by_predict(place)
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    options = [
        f"--{name}={place / path}"
        for name, path in (("model", "bundle"), ("data", "images"), ("ood", "images"), ("out", "scores.json"))
    ]
    said: list[str] = []
    evaluate.run(parser.parse_args(options), said.append)
    scores = json.loads((place / "scores.json").read_text())
    assert scores["selective_bins"]["0.95"]["num_images"] == kept.sum()
    assert scores["selective"]["at"]["0.95"]["num_images"] < kept.sum()
    assert scores["ood"]["rejected"]["0.95"]["share"] == pytest.approx(1 - kept.mean())
    assert any("names the bin, or a class without a rule, of " in line for line in said)
    assert "bin_top1" not in scores and "per_bin" not in scores  # these take rules for all classes


def test_sources_keep_what_predict_keeps():
    logits = np.log([[0.5, 0.01, 0.01, 0.47, 0.01], [0.3, 0.2, 0.2, 0.1, 0.2]])
    allowed = np.eye(5, dtype=bool)[[0, 1]]
    row = score_by_source(logits, allowed, ["one"] * 2, threshold=0.9, bins=BINS)["one"]
    assert row["kept"] == 0.5 and "right_bin" not in row


def test_thresholds_hold_for_bins_also_where_some_class_has_no_rule():
    """Forty answers are right and sure; forty are wrong in class and bin, and sure of that bin alone."""
    right = np.log([[0.9, 0.02, 0.02, 0.02, 0.04]] * 40)
    both = np.log([[0.5, 0.01, 0.01, 0.47, 0.01]] * 40)  # eggshells and tea bags share a bin
    logits = np.concatenate([right, both])
    labels = np.concatenate([np.zeros(40, int), np.full(40, 1)])
    temperature, thresholds = calibrate(logits, labels, BINS)
    sure = bin_probability(logits, temperature, BINS)
    names = np.array(BINS)
    hits = names[logits.argmax(axis=1)] == names[labels]
    alone = calibrate(logits, labels).thresholds["0.95"]
    assert hits[sure >= alone].mean() < 0.95  # what classes alone would have promised
    assert thresholds["0.95"] is None or hits[sure >= thresholds["0.95"]].mean() >= 0.95


def test_a_class_without_a_rule_is_told_apart_in_words():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(60, 5)), rng.integers(0, 5, 60)
    scores = score_trust(logits, labels, calibrate(logits, labels), bins=BINS)
    assert "(a class without a rule is a bin of its own)" in render(
        "trust.md", scores=scores | {"ece": 0.1, "loss": 1.0}
    )
    # Without any rule there are no bins to speak of.
    none = load_taxonomy().bins_or_own(["x", "y", "z", "v", "w"])
    assert len(set(none)) == 5
    assert "selective_bins" not in score_trust(logits, labels, calibrate(logits, labels), bins=none)
