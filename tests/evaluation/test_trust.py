"""Calibration, the reject option and out-of-distribution images, against worked numbers, SciPy and scikit-learn."""

import argparse
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.metrics import roc_auc_score, roc_curve

from wastejax.cli import evaluate
from wastejax.evaluation.calibration import TEMPERATURES, fit_temperature, reliability, score_calibration
from wastejax.evaluation.metrics import bootstrap_interval, bootstrap_statistic, score
from wastejax.evaluation.ood import (
    SCORES,
    auroc,
    bin_probability,
    energy,
    false_positive_rate,
    max_probability,
    score_ood,
)
from wastejax.evaluation.report.markdown import render
from wastejax.evaluation.report.trust_plots import reliability_diagram, risk_by_coverage
from wastejax.evaluation.selective import (
    area_under_risk_coverage,
    choose_threshold,
    choose_thresholds,
    risk_coverage,
    score_selective,
)
from wastejax.evaluation.trust import calibrate, score_trust


def honest_case(num_images=4000, num_classes=5, seed=0):
    """Logits whose softmax is the very distribution that the labels were drawn from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_images, num_classes)) * rng.uniform(0.5, 4, (num_images, 1))
    chances = np.exp(log_softmax(logits, axis=1))
    labels = (rng.uniform(size=(num_images, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    return logits.astype(np.float32), np.minimum(labels, num_classes - 1)


def test_the_temperature_is_the_minimum_of_the_loss():
    logits, labels = honest_case(500, seed=3)
    rows = np.arange(len(labels))
    best = minimize_scalar(
        lambda t: -log_softmax(3.0 * logits.astype(np.float64) / t, axis=1)[rows, labels].mean(),
        bounds=TEMPERATURES,
        method="bounded",
        options={"xatol": 1e-6},
    )
    assert fit_temperature(3.0 * logits, labels) == pytest.approx(best.x, abs=1e-4)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_a_temperature_undoes_what_logits_were_multiplied_by(factor):
    logits, labels = honest_case()
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.05)


def test_temperatures_without_a_minimum_stay_in_their_range():
    logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(logits, np.array([0, 1])) == TEMPERATURES[0]
    assert fit_temperature(logits, np.array([1, 0])) == TEMPERATURES[1]


def test_calibration_mends_overconfidence_and_changes_no_answer():
    logits, labels = honest_case()
    before = score_calibration(4 * logits, labels, 1.0)
    after = score_calibration(4 * logits, labels, 4.0)
    assert before["ece"] > 0.1 and after["ece"] < 0.03
    rows = np.arange(len(labels))
    assert after["loss"] == pytest.approx(-log_softmax(logits, axis=1)[rows, labels].mean(), abs=1e-6)
    assert after["loss"] < before["loss"]
    shares = [
        sum(row["accuracy"] * row["num_images"] for row in scores["reliability"])
        for scores in (before, after)
    ]
    assert shares[0] == pytest.approx(shares[1]) == pytest.approx((logits.argmax(1) == labels).sum())


def test_reliability_by_hand():
    confidence = np.array([0.55, 0.6, 0.95, 1.0, 0.5])
    correct = np.array([True, False, True, True, False])
    assert reliability(confidence, correct, bins=2) == [
        {"confidence": 0.5, "accuracy": 0.0, "num_images": 1},  # closed above
        {"confidence": pytest.approx(0.775), "accuracy": 0.75, "num_images": 4},
    ]


def test_thresholds_by_hand():
    # Twenty answers, the surest first; the 10th, 16th and 20th are wrong.
    confidence = np.linspace(0.99, 0.8, 20)
    correct = ~np.isin(np.arange(1, 21), [10, 16, 20])
    shuffled = np.random.default_rng(0).permutation(20)
    # Right among the first k: 9/10 at k = 10, 14/15 at 15, 14/16 at 16, 17/19 = 0.895 at 19.
    found = choose_threshold(confidence[shuffled], correct[shuffled], 0.9)
    assert found == confidence[14]
    # 17/19 is above 0.88, and 17/20 below.
    assert choose_threshold(confidence, correct, 0.88) == confidence[18]
    # 95 % of 20 would be 19, and that many are not right.
    assert choose_threshold(confidence, correct, 0.95) is None
    # All of the first nine are right, which says nothing about 99 %.
    assert choose_threshold(confidence, correct, 0.99) is None
    assert choose_threshold(np.linspace(1, 0.5, 100), np.ones(100, bool), 0.99) == 0.5
    assert choose_threshold(np.linspace(1, 0.5, 99), np.ones(99, bool), 0.99) is None


def test_equally_sure_answers_are_kept_together_or_not_at_all():
    confidence = np.repeat([0.9, 0.7], [10, 5])
    correct = np.arange(15) < 13  # of the second block three are right, which alone would be 13/13
    assert choose_threshold(confidence, correct, 0.9) == 0.9
    assert choose_threshold(confidence, np.arange(15) < 14, 0.9) == 0.7


def test_risk_coverage_by_hand():
    confidence = np.array([0.6, 0.9, 0.8, 0.7])
    correct = np.array([True, True, False, True])
    coverage, risk = risk_coverage(confidence, correct)
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 4])
    assert area_under_risk_coverage(confidence, correct) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 4)
    # Without any order the risk is the error rate throughout.
    np.testing.assert_allclose(risk_coverage(np.ones(4), correct)[1], 0.25)


def test_coverage_is_scored_on_other_images():
    rng = np.random.default_rng(2)
    confidence = rng.uniform(size=1000)
    correct = rng.uniform(size=1000) < confidence
    thresholds = {"0.9": 0.8, "0.95": 1.5, "0.99": None}
    scores = score_selective(confidence, correct, thresholds)
    kept = confidence >= 0.8
    at = scores["at"]["0.9"]
    assert at["coverage"] == kept.mean() and at["num_images"] == kept.sum()
    assert at["accuracy"] == correct[kept].mean()
    assert at["coverage_ci95"] == list(bootstrap_interval(kept))
    assert at["accuracy_ci95"][0] < at["accuracy"] < at["accuracy_ci95"][1]
    for wanted in ("0.95", "0.99"):  # nothing is sure enough, or no threshold was found
        assert scores["at"][wanted]["coverage"] == 0 and scores["at"][wanted]["accuracy"] is None
    assert scores["aurc_ci95"][0] < scores["aurc"] < scores["aurc_ci95"][1]
    # A uniform confidence that is the chance of being right: risk at coverage c is c / 2, on average 1/4.
    assert scores["aurc"] == pytest.approx(0.25, abs=0.03)
    assert [point[0] for point in scores["curve"]] == pytest.approx(np.arange(1, 21) / 20)
    assert scores["curve"][-1][1] == pytest.approx(1 - correct.mean())


def test_auroc_and_fpr_agree_with_sklearn():
    rng = np.random.default_rng(4)
    inside, outside = rng.integers(0, 30, 300) + 8, rng.integers(0, 30, 200)  # with many ties
    truth, scores = np.repeat([1, 0], [300, 200]), np.concatenate([inside, outside])
    assert auroc(inside, outside) == pytest.approx(roc_auc_score(truth, scores))
    passed, found, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert false_positive_rate(inside, outside) == pytest.approx(passed[np.argmax(found >= 0.95)])


def test_auroc_by_hand():
    # Of six pairs four are in order, one is a tie.
    assert auroc(np.array([3, 1]), np.array([0, 1, 2])) == (3 + 1 + 0.5) / 6
    assert false_positive_rate(np.arange(20.0), np.array([0.5, 1.0, -1, 30])) == 0.5  # 1 to 19 are kept


def test_scores_by_hand():
    logits = np.array([[2.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(energy(logits, 2.0), logsumexp(logits, axis=1))
    np.testing.assert_allclose(max_probability(logits, 2.0), [np.e / (np.e + 2), 1 / 3])
    np.testing.assert_allclose(SCORES["max_logit"](logits, 2.0), [2, 1])
    assert np.isfinite(energy(1e4 * logits, 1.0)).all()


def test_foreign_images_that_are_easily_told_apart():
    rng = np.random.default_rng(5)
    inside = 8 * np.eye(3)[rng.integers(0, 3, 100)]
    outside = rng.normal(size=(50, 3))
    scores = score_ood(inside, outside, 1.0, {"0.9": 0.99, "0.99": None})
    assert scores["num_images"] == 50
    for of_score in scores["scores"].values():
        assert of_score["auroc"] == 1.0 and of_score["fpr95"] == 0.0 and of_score["auroc_ci95"] == [1.0, 1.0]
    assert scores["rejected"]["0.9"]["share"] == 1.0 and scores["rejected"]["0.99"]["share"] == 1.0


def test_bootstrap_of_a_mean_and_within_strata():
    values = np.random.default_rng(6).normal(size=400)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose(
        bootstrap_statistic(np.mean, values, resamples=4000),
        [values.mean() - half, values.mean() + half],
        atol=0.01,
    )
    strata = np.repeat([0, 1], [10, 5])
    assert bootstrap_statistic(lambda x: x.sum(), strata, strata=strata, resamples=50) == (5.0, 5.0)


def test_what_is_fitted_on_validation_serves_for_test():
    logits, labels = honest_case(6000)
    calibration = calibrate(3 * logits[:3000], labels[:3000])
    assert calibration.temperature == pytest.approx(3, rel=0.06)
    assert list(calibration.thresholds) == ["0.9", "0.95", "0.99"]
    scores = score_trust(3 * logits[3000:], labels[3000:], calibration, outside=0 * logits[:9])
    for wanted, at in scores["selective"]["at"].items():
        assert at["accuracy"] == pytest.approx(float(wanted), abs=0.03) and at["coverage"] > 0.05
    assert scores["calibration"]["ece"] < 0.03
    assert scores["ood"]["scores"]["energy"]["auroc"] > 0.9
    assert choose_thresholds(np.ones(2), np.ones(2, bool)) == {"0.9": None, "0.95": None, "0.99": None}


def test_a_bin_is_kept_by_the_sum_of_its_classes():
    logits = np.log([[0.5, 0.4, 0.1], [0.1, 0.2, 0.7]])
    np.testing.assert_allclose(bin_probability(logits, 1.0, ["paper", "paper", "glass"]), [0.9, 0.7])
    np.testing.assert_allclose(bin_probability(logits, 1.0, None), [0.5, 0.7])
    np.testing.assert_allclose(bin_probability(logits, 0.5, ["a", "a", "b"]), [0.41 / 0.42, 0.49 / 0.54])


def test_thresholds_hold_for_classes_and_for_bins():
    logits, labels = honest_case(6000)
    alone, none = calibrate(logits, labels), calibrate(logits, labels, None)
    assert alone == none
    one_bin = calibrate(logits, labels, ["a"] * 5)  # bins are always right, so classes decide
    assert one_bin == alone
    pairs = calibrate(logits, labels, ["a", "a", "b", "b", "c"])
    sure = max_probability(
        logits, alone.temperature
    )  # between two of these, thresholds keep the same classes
    for wanted, threshold in alone.thresholds.items():
        assert (sure >= pairs.thresholds[wanted]).sum() <= (sure >= threshold).sum()
    scores = score_trust(logits, labels, pairs, bins=["a", "a", "b", "b", "c"])
    for wanted, at in scores["selective_bins"].items():
        classes = scores["selective"]["at"][wanted]
        assert at["coverage"] > classes["coverage"]
        assert at["accuracy"] >= float(wanted) - 0.005 and classes["accuracy"] >= float(wanted) - 0.005
    truth = np.array([0, 0, 1, 1, 2])
    summed = softmax(logits / pairs.temperature, axis=1) @ np.eye(3)[truth]
    assert scores["bin_top1"] == (summed.argmax(axis=1) == truth[labels]).mean()
    lines = render("trust.md", scores=score(logits, labels, list("vwxyz")) | scores).splitlines()
    (head,) = (i for i, line in enumerate(lines) if "whose bin is named" in line)
    assert [line.split(" | ")[0] for line in lines[head + 2 : head + 6]] == ["| 90 %", "| 95 %", "| 99 %", ""]


@pytest.mark.parametrize("seed", range(20))
def test_thresholds_hold_on_the_images_that_they_were_chosen_on(seed):
    """The lowest at which both do: the higher of two need not, since accuracy may fall again beyond a threshold."""
    logits, labels = honest_case(60 + 15 * seed, 6, seed)
    bins = ["a", "a", "b", "b", "c", "c"]
    temperature, thresholds = calibrate(logits, labels, bins)
    kinds = [
        (max_probability(logits, temperature), logits.argmax(axis=1) == labels),
        (
            bin_probability(logits, temperature, bins),
            np.array(bins)[logits.argmax(axis=1)] == np.array(bins)[labels],
        ),
    ]

    def holds(threshold, wanted):
        kept = [right[sure >= threshold] for sure, right in kinds]
        return all(len(k) >= round(1 / (1 - wanted)) and k.mean() >= wanted for k in kept)

    for wanted, threshold in thresholds.items():
        all_that_hold = [t for sure, _ in kinds for t in sure if holds(t, float(wanted))]
        assert threshold == min(all_that_hold, default=None)


def test_a_temperature_that_helps_by_chance_alone_is_not_applied():
    chosen = [calibrate(*honest_case(74, seed=seed)).temperature for seed in range(100)]
    # The test is one at the 5 % level: of a hundred, at most twelve but once in three hundred times.
    assert chosen.count(1.0) >= 88
    logits, labels = honest_case(74)
    assert calibrate(logits, labels).temperature == 1.0 != fit_temperature(logits, labels)
    assert calibrate(logits, labels).thresholds.keys() == {"0.9", "0.95", "0.99"}
    assert calibrate(4 * logits, labels).temperature == fit_temperature(4 * logits, labels) > 2


@pytest.mark.parametrize(
    ("factor", "others", "says"),
    [
        (1, 1, "beyond chance, so none is used"),
        (4, 4, "On the test images, too, the model is better calibrated with it."),
        (4, 1, "is no better calibrated with it"),  # fitted where it was needed, used where it is not
    ],
)
def test_the_report_draws_the_conclusion(factor, others, says):
    logits, labels = honest_case(600)
    calibration = calibrate(factor * logits[:300], labels[:300])
    test = others * logits[300:], labels[300:]
    scores = score(*test, [str(i) for i in range(5)]) | score_trust(*test, calibration)
    assert says in render("trust.md", scores=scores)


def test_eval_heads_its_scores_with_what_predict_gives(monkeypatch):
    logits, labels = honest_case(300)
    test = 4 * logits, labels
    scores = score(*test, [str(i) for i in range(5)]) | score_trust(*test, calibrate(*test))
    bundle = SimpleNamespace(
        bins=None, taxonomy=SimpleNamespace(name="x", unknown=lambda classes: ("a",)), classes=()
    )
    monkeypatch.setattr("wastejax.cli.evaluate.evaluate_model", lambda *given: (bundle, scores))
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    said = []
    evaluate.run(parser.parse_args([]), said.append)
    assert f"calibration error {scores['calibration']['ece']:.1%}" in said[2]
    assert f"loss {scores['calibration']['loss']:.3f}" in said[2]
    assert scores["calibration"]["ece"] < 0.1 < scores["ece"]
    assert f"calibration error {scores['ece']:.1%}" in said[3] and "without it" in said[3]


def test_figures_show_the_numbers(tmp_path):
    rows = [{"confidence": 0.5, "accuracy": 0.25, "num_images": 4}]
    figure = reliability_diagram(rows, rows, tmp_path / "reliability.png")
    _, before, after = figure.axes[0].get_lines()
    assert before.get_xydata().tolist() == after.get_xydata().tolist() == [[50, 25]]
    at = {
        "0.9": {"coverage": 0.5, "accuracy": 0.9, "threshold": 0.8},
        "0.99": {"coverage": 0.0, "accuracy": None, "threshold": None},
    }
    figure = risk_by_coverage(np.array([0.5, 1]), np.array([0, 0.25]), at, tmp_path / "risk.png")
    curve, mark = figure.axes[0].get_lines()
    assert curve.get_xydata().tolist() == [[50, 0], [100, 25]]
    np.testing.assert_allclose(mark.get_xydata(), [[50, 10]])
    with Image.open(tmp_path / "risk.png") as image:
        assert image.size == (504, 360)
