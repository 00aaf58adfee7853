import csv
import json
from collections import Counter

import numpy as np
import pytest
from small_models import CLASSES, write_bundle

from experiments.another_camera import RESULTS, choose_threshold_everywhere, uncalibrated
from experiments.mixed_fit import blend
from wastejax.bundle import load_bundle
from wastejax.bundled import FOLDER


def test_the_stored_split_is_that_of_the_bundled_model():
    with (RESULTS / "household_waste_kept.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    splits = json.loads((FOLDER / "evaluation.json").read_text())["splits"]
    assert Counter(row["split"] for row in rows) == {"val": splits["val"], "test": splits["test"]}
    assert len({row["file"] for row in rows}) == len(rows)


def test_a_threshold_holds_in_every_source_that_has_a_say():
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.95, 0.85, 0.75, 0.65, 0.99])
    correct = np.array([1, 1, 1, 1, 1, 1, 0, 1, 0], bool)
    members = ["a"] * 4 + ["b"] * 4 + ["c"]
    # All of b from 0.85 on are right, three in four of all; c has too few images to be heard.
    assert choose_threshold_everywhere(confidence, correct, members, 0.9, least=2) == pytest.approx(0.8)
    assert choose_threshold_everywhere(confidence, correct, members, 0.75, least=2) == pytest.approx(0.6)
    assert choose_threshold_everywhere(confidence, ~correct, members, 0.9, least=2) is None


def test_other_weights_keep_nothing_of_what_the_earlier_ones_scored(tmp_path):
    counts = np.eye(len(CLASSES), dtype=int).tolist()
    scored = {"temperature": 2.0, "thresholds": {"0.95": 0.5}, "confusion": counts, "prior": (1.0,) * 5}
    old = write_bundle(tmp_path / "old", **scored)
    assert load_bundle(old).confusion == counts
    blend(old, old, tmp_path / "blended")
    for bundle in (load_bundle(tmp_path / "blended"), uncalibrated(load_bundle(old))):
        assert (bundle.temperature, bundle.confusion, bundle.prior) == (1.0, None, ())
        assert not bundle.thresholds and not bundle.metrics
