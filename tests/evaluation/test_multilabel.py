"""Scores of images that show any number of classes, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, log_loss

from wastejax.errors import UserError
from wastejax.evaluation.metrics.multilabel import (
    average_precision,
    choose_class_thresholds,
    score_multilabel,
    sigmoid,
)


@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_average_precision_is_that_of_scikit_learn_with_ties_too(rows):
    scores, shown = np.array([s for s, _ in rows], float), np.array([y for _, y in rows])
    if not shown.any():
        assert average_precision(scores, shown) is None
        return
    assert average_precision(scores, shown) == pytest.approx(
        average_precision_score(shown, scores), abs=1e-12
    )


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=30))
@settings(max_examples=100, deadline=None)
def test_no_threshold_has_a_better_f1_than_the_chosen_one(rows):
    p, shown = np.array([s / 20 for s, _ in rows]), np.array([y for _, y in rows])
    (chosen,) = choose_class_thresholds(p[:, None], shown[:, None])
    if not shown.any():
        assert chosen == 0.5
        return
    best = max(f1_score(shown, p >= t, zero_division=0) for t in np.unique(p))
    assert f1_score(shown, p >= chosen, zero_division=0) == pytest.approx(best)


def test_scores_worked_out_by_scikit_learn_and_by_hand():
    rng = np.random.default_rng(3)
    logits, shown = rng.normal(0, 2, (200, 3)), rng.random((200, 3)) < 0.3
    classes, bins = ("can", "jar", "box"), ("metal", "metal", "paper")
    thresholds = (0.4, 0.5, 0.6)
    scores = score_multilabel(logits, shown, classes, thresholds, bins, bootstrap=50)
    named = sigmoid(logits) >= thresholds
    assert scores["macro_ap"] == pytest.approx(average_precision_score(shown, logits, average="macro"))
    assert scores["macro_f1"] == pytest.approx(f1_score(shown, named, average="macro"))
    assert scores["micro_f1"] == pytest.approx(f1_score(shown, named, average="micro"))
    assert scores["exact"] == np.mean([a.tolist() == b.tolist() for a, b in zip(named, shown, strict=True)])
    p = 1 / (1 + np.exp(-logits))
    losses = [log_loss(shown[:, i], p[:, i]) for i in range(3)]
    assert scores["loss"] == pytest.approx(np.mean(losses))
    # The bins of an image are the union: metal where a can, a jar or both are shown.
    union = [{bins[i] for i in range(3) if row[i]} for row in named]
    truth = [{bins[i] for i in range(3) if row[i]} for row in shown]
    assert scores["bin_exact"] == np.mean([a == b for a, b in zip(union, truth, strict=True)])
    assert scores["per_bin"]["metal"]["support"] == sum("metal" in t for t in truth)
    low, high = scores["macro_ap_ci95"]
    assert low <= scores["macro_ap"] <= high


def test_a_class_without_images_has_no_average_precision_and_weighs_nothing():
    logits, shown = np.array([[1.0, 0.0], [-1.0, 3.0]]), np.array([[True, False], [False, False]])
    scores = score_multilabel(logits, shown, ("a", "b"), bootstrap=0)
    assert scores["per_class"]["b"]["average_precision"] is None
    assert scores["macro_ap"] == 1.0 and "macro_ap_ci95" not in scores


@pytest.mark.parametrize("logits", [np.zeros((0, 2)), np.array([[np.nan, 0.0]])])
def test_nothing_to_score_is_said(logits):
    with pytest.raises(UserError):
        score_multilabel(logits, np.zeros(logits.shape, bool), ("a", "b"))


@pytest.mark.parametrize("logit", [-1000.0, -40.0, 0.0, 40.0, 1000.0])
def test_the_sigmoid_is_finite_everywhere(logit):
    assert sigmoid(np.array([logit]))[0] == pytest.approx(
        1 / (1 + np.exp(-np.clip(logit, -700, 700))), rel=1e-6
    )


def test_what_nobody_said_counts_in_no_score():
    """Against scikit-learn on the rest, column by column; and pairs, images and bins counted one by one."""
    rng = np.random.default_rng(8)
    logits, truth = rng.normal(0, 2, (150, 3)), rng.choice([-1, 0, 1], (150, 3), p=[0.3, 0.4, 0.3])
    classes, bins, thresholds = ("can", "jar", "box"), ("metal", "metal", "paper"), (0.4, 0.5, 0.6)
    scores = score_multilabel(logits, truth, classes, thresholds, bins, bootstrap=20)
    said, p = truth >= 0, 1 / (1 + np.exp(-logits))
    named = p >= thresholds
    columns = [(truth[said[:, c], c], logits[said[:, c], c], named[said[:, c], c]) for c in range(3)]
    for name, (y, z, own) in zip(classes, columns, strict=True):
        found = scores["per_class"][name]
        assert found["average_precision"] == pytest.approx(average_precision_score(y, z))
        assert found["f1"] == pytest.approx(f1_score(y, own)) and found["support"] == y.sum()
    assert scores["macro_ap"] == pytest.approx(
        np.mean([average_precision_score(y, z) for y, z, _ in columns])
    )
    everything = (np.concatenate([column[k] for column in columns]) for k in (0, 2))
    assert scores["micro_f1"] == pytest.approx(f1_score(*everything))
    assert scores["exact"] == np.mean([(n == t)[t >= 0].all() for n, t in zip(named, truth, strict=True)])
    assert scores["loss"] == pytest.approx(log_loss(truth[said], p[said]))
    right = []
    for n, t in zip(named, truth, strict=True):
        known = [k for k in ((0, 1), (2,)) if (t[list(k)] > 0).any() or (t[list(k)] >= 0).all()]
        # Of what is not said no class counts as named: it could not be called wrong.
        right.append(all((n & (t >= 0))[list(k)].any() == (t[list(k)] > 0).any() for k in known))
    assert scores["bin_exact"] == np.mean(right)
    chosen = choose_class_thresholds(p, truth)
    for c in range(3):
        assert chosen[c] == choose_class_thresholds(p[said[:, c], c : c + 1], truth[said[:, c], c : c + 1])[0]
