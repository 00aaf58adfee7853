import json

import numpy as np
import pytest
from sklearn import metrics as sk

from wastejax.errors import UserError
from wastejax.evaluation.metrics import (
    bootstrap_interval,
    confident_mistakes,
    expected_calibration_error,
    log_softmax,
    score,
)


def random_case(num_images=400, num_classes=12, seed=0):
    """Logits of a half-good classifier; the last two classes never occur in the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes - 2, num_images).astype(np.int32)
    logits = rng.normal(size=(num_images, num_classes)).astype(np.float32)
    logits[np.arange(num_images), labels] += 1.5
    return logits, labels, [f"class_{i}" for i in range(num_classes)]


def test_hand_worked_example():
    # Two classes, probabilities of class 0: 0.9, 0.9, 0.2, 0.4; truth 0, 1, 1, 0.
    p = np.array([0.9, 0.9, 0.2, 0.4])
    logits = np.log(np.stack([p, 1 - p], axis=1)).astype(np.float32)
    scores = score(logits, np.array([0, 1, 1, 0]), ["a", "b"])
    assert scores["top1"] == 0.5
    assert scores["top5"] == 1.0
    assert scores["confusion"] == [[1, 1], [1, 1]]
    assert scores["per_class"]["a"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert scores["loss"] == pytest.approx(-np.log([0.9, 0.1, 0.8, 0.4]).mean(), abs=1e-6)
    # Confidences 0.9 (right, wrong), 0.8 (right), 0.6 (wrong): bins of 2, 1 and 1 images.
    assert scores["ece"] == pytest.approx((abs(1 - 1.8) + abs(1 - 0.8) + abs(0 - 0.6)) / 4, abs=1e-6)
    assert scores["num_images"] == 4


def test_agrees_with_sklearn():
    logits, labels, classes = random_case()
    scores = score(logits, labels, classes)
    predictions = logits.argmax(axis=1)
    probabilities = np.exp(log_softmax(logits))
    every = np.arange(len(classes))
    assert 0.3 < scores["top1"] < 0.9
    assert scores["top1"] == pytest.approx(sk.accuracy_score(labels, predictions))
    assert scores["top5"] == pytest.approx(sk.top_k_accuracy_score(labels, logits, k=5, labels=every))
    assert scores["loss"] == pytest.approx(sk.log_loss(labels, probabilities, labels=every), abs=1e-9)
    assert scores["confusion"] == sk.confusion_matrix(labels, predictions, labels=every).tolist()
    expected = sk.precision_recall_fscore_support(labels, predictions, labels=every, zero_division=0)
    for key, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose([scores["per_class"][c][key] for c in classes], column)
    present = np.unique(labels)
    assert scores["macro_f1"] == pytest.approx(
        sk.f1_score(labels, predictions, labels=present, average="macro", zero_division=0)
    )


def test_macro_f1_leaves_out_classes_without_images():
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1]] * 9
    scores = score(logits, np.array([0, 0, 1]), ["a", "b", "absent"])
    assert scores["macro_f1"] == 1.0
    assert scores["per_class"]["absent"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_result_survives_json_and_has_the_fixed_keys():
    logits, labels, classes = random_case(50)
    scores = score(logits, labels, classes, ["default"] * 50)
    assert json.loads(json.dumps(scores)) == scores
    rates = {"top1", "top5", "macro_f1", "loss", "ece", "ci95"}
    assert set(scores) == rates | {"per_class", "per_domain", "confusion", "num_images"}


def test_constant_logits_are_not_a_hit_for_every_class():
    labels = np.arange(10)
    scores = score(np.zeros((10, 10), np.float32), labels, [str(i) for i in labels])
    assert (scores["top1"], scores["top5"]) == (0.1, 0.5)
    assert scores["loss"] == pytest.approx(np.log(10))


def test_huge_logits_keep_a_finite_loss():
    scores = score(np.array([[3e38, -3e38], [0, 1e4]], np.float32), np.array([0, 0]), ["a", "b"])
    assert scores["loss"] == pytest.approx(1e4 / 2)


def test_per_domain():
    logits = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    labels = np.zeros(4, np.int32)
    scores = score(logits, labels, ["a", "b"], ["default", "real_world", "real_world", ""])
    assert scores["per_domain"] == {
        "default": {"top1": 1.0, "num_images": 1},
        "real_world": {"top1": 0.5, "num_images": 2},
        "unknown": {"top1": 0.0, "num_images": 1},
    }
    assert score(logits, labels, ["a", "b"], [""] * 4)["per_domain"] == {}
    assert score(logits, labels, ["a", "b"])["per_domain"] == {}


def test_bootstrap_equals_resampling_of_images():
    correct = np.arange(500) < 350
    rng = np.random.default_rng(1)
    shares = correct[rng.integers(0, 500, (20_000, 500))].mean(axis=1)
    np.testing.assert_allclose(
        bootstrap_interval(correct, resamples=20_000), np.quantile(shares, [0.025, 0.975]), atol=0.003
    )
    # ... and the normal approximation, 1.96 standard errors to each side.
    half = 1.96 * np.sqrt(0.7 * 0.3 / 500)
    np.testing.assert_allclose(bootstrap_interval(correct, 20_000), [0.7 - half, 0.7 + half], atol=0.003)


def test_bootstrap_seed_and_degenerate_case():
    correct = np.arange(200) % 3 > 0
    assert bootstrap_interval(correct, seed=3) == bootstrap_interval(correct, seed=3)
    assert bootstrap_interval(correct, seed=3) != bootstrap_interval(correct, seed=4)
    assert bootstrap_interval(np.ones(7, bool)) == (1.0, 1.0)


def test_calibration_error_of_perfect_and_of_overconfident_answers():
    right = np.arange(1000) % 10 < 7
    assert expected_calibration_error(np.full(1000, 0.7), right) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(np.full(1000, 0.99), right) == pytest.approx(0.29)
    # Errors of opposite sign cancel within a bin but not across bins.
    confidence, correct = np.array([0.5, 0.9]), np.array([True, False])
    assert expected_calibration_error(confidence, correct, bins=15) == pytest.approx((0.5 + 0.9) / 2)
    assert expected_calibration_error(confidence, correct, bins=1) == pytest.approx(0.4 / 2)


def test_calibration_bins_are_closed_above():
    # 0.2 is the upper edge of bin 3 of 15 and shares it with 0.15; 0.21 opens the next one.
    correct = np.array([True, False])
    assert expected_calibration_error(np.array([0.15, 0.2]), correct) == pytest.approx(abs(1 - 0.35) / 2)
    assert expected_calibration_error(np.array([0.2, 0.21]), correct) == pytest.approx((0.8 + 0.21) / 2)


def test_confident_mistakes_are_the_wrong_ones_surest_first():
    logits = np.array([[5, 0], [1, 0], [3, 0], [0, 9]], np.float32)
    rows, predictions, probabilities = confident_mistakes(logits, np.array([0, 1, 1, 0]), limit=2)
    assert rows.tolist() == [3, 2]
    assert predictions.tolist() == [1, 0]
    np.testing.assert_allclose(probabilities, [1 / (1 + np.exp(-9)), 1 / (1 + np.exp(-3))])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_an_error(value):
    logits, labels, classes = random_case(20)
    logits[7, 1] = value
    with pytest.raises(UserError, match=r"not finite for 1 of 20 images .*row 7"):
        score(logits, labels, classes)


def test_inputs_that_do_not_fit_are_errors():
    logits, labels, classes = random_case(20)
    with pytest.raises(ValueError, match="do not fit"):
        score(logits, labels[:-1], classes)
    with pytest.raises(ValueError, match="do not fit"):
        score(logits, labels, classes[:-1])
    with pytest.raises(ValueError, match=r"lie in \[0, 12\)"):
        score(logits, labels + 8, classes)
    with pytest.raises(ValueError, match="3 domains for 20 images"):
        score(logits, labels, classes, ["default"] * 3)
    with pytest.raises(UserError, match="no images"):
        score(logits[:0], labels[:0], classes)
