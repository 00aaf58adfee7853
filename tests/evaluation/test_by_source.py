"""Scores by source, against counting by hand."""

import numpy as np
import pytest

from tests.small_models import draw_images, write_bundle
from wastejax.bundle import load_bundle
from wastejax.data import images
from wastejax.errors import UserError
from wastejax.evaluation.by_source import Materials, score_by_source, source_table
from wastejax.evaluation.images import Asked
from wastejax.evaluation.run import evaluate_labels
from wastejax.evaluation.selective import choose_threshold_everywhere


def test_scores_by_source_by_hand():
    #                  sure of 0    sure of 1    unsure       sure of 2
    logits = np.array([[9.0, 0, 0], [0, 9.0, 0], [0, 1.0, 0], [0, 0, 9.0], [9.0, 0, 0]])
    allowed = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]], bool)
    members = ["a", "a", "a", "a", "b"]
    materials = [frozenset({"glass"}), frozenset({"metal"}), frozenset({"paper"})]
    meant = [
        frozenset({"glass", "metal"}),
        frozenset({"metal"}),
        frozenset({"metal"}),
        frozenset(),
        frozenset({"metal"}),
    ]
    scores = score_by_source(
        logits, allowed, members, 1.0, 0.9, ["can", "can", "paper"], Materials(materials, meant)
    )
    a, b = scores["a"], scores["b"]
    assert (a["num_images"], a["num_outliers"], a["num_kept"]) == (3, 1, 2)
    assert a["right"] == pytest.approx(2 / 3)  # the second is wrong
    assert a["right_bin"] == 1  # but in the bin of what it is
    assert a["right_material"] == 1
    assert a["kept"] == pytest.approx(2 / 3) and a["right_of_kept"] == 0.5
    assert a["outliers_kept"] == 1
    assert b["right"] == 0 and b["outliers_kept"] is None and b["right_material"] == 0
    assert source_table(scores)[2].startswith("| a | 4 | 66.7 %")


def test_no_threshold_keeps_nothing():
    logits, allowed = np.array([[9.0, 0], [0, 9.0]]), np.array([[True, False], [False, False]])
    scores = score_by_source(logits, allowed, ["a", "a"])["a"]
    assert scores["kept"] == 0 and scores["right_of_kept"] is None and scores["outliers_kept"] == 0


def test_a_threshold_holds_in_every_source_that_has_a_say():
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.95, 0.85, 0.75, 0.65, 0.99])
    correct = np.array([1, 1, 1, 1, 1, 1, 0, 1, 0], bool)
    members = ["a"] * 4 + ["b"] * 4 + ["c"]
    # All of b from 0.85 on are right, three in four of all; c has too few images to be heard.
    assert choose_threshold_everywhere(confidence, correct, members, 0.9, least=2) == pytest.approx(0.8)
    assert choose_threshold_everywhere(confidence, correct, members, 0.75, least=2) == pytest.approx(0.6)
    assert choose_threshold_everywhere(confidence, ~correct, members, 0.9, least=2) is None


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
    with pytest.raises(UserError, match="needs --data"):
        evaluate_labels(Asked(model, None, None), tmp_path / "map.csv")
