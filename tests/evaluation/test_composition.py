"""Corrected shares: exact where the confusions are, and nearer to the truth than counts."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from wastejax.evaluation.composition import Confusion, adjusted, doubts, estimate, stored_confusion
from wastejax.evaluation.evaluate import Evaluation
from wastejax.evaluation.trust import calibrate_bundle

RATES = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.0, 0.3, 0.7]])


def solved(answers, rates) -> np.ndarray:
    return adjusted(np.array(answers)[None], np.array(rates)[None], iterations=5000)[0]


def test_two_classes_follow_formans_formula():
    """Forman 2008: (counted share - fpr) / (tpr - fpr), worked out by hand: (0.41 - 0.05) / (0.8 - 0.05) = 0.48."""
    rates = np.array([[0.8, 0.2], [0.05, 0.95]])
    np.testing.assert_allclose(solved([0.41, 0.59], rates), [0.48, 0.52], atol=1e-6)


@pytest.mark.parametrize("truth", [[0.2, 0.3, 0.5], [1, 0, 0], [0, 0.5, 0.5]])
def test_exact_answers_give_the_exact_shares(truth):
    np.testing.assert_allclose(solved(np.array(truth) @ RATES, RATES), truth, atol=1e-3)


def test_shares_stay_shares_whatever_the_answers():
    rng = np.random.default_rng(0)
    answers = rng.dirichlet(np.full(3, 0.2), 50)
    shares = adjusted(answers, np.broadcast_to(RATES, (50, 3, 3)))
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-9)


def test_where_confusions_are_hardly_known_counts_are_kept():
    """30 classes, ten images of each to know confusions from, and as many of each: what is corrected is noise."""
    rng = np.random.default_rng(3)
    rates = 0.8 * np.eye(30) + 0.2 / 30
    errors = []
    for _ in range(10):
        confusion = Confusion(np.array([rng.multinomial(10, row) for row in rates]), "validation")
        counts = rng.multinomial(300, np.full(30, 1 / 30) @ rates)
        shares = estimate(counts, confusion, [np.eye(30)], resamples=50)[0]
        alone = adjusted((counts / 300)[None], confusion.rates[None])[0]
        errors.append([np.abs(found - 1 / 30).sum() for found in (shares.plain, shares.corrected, alone)])
    plain, corrected, alone = np.mean(errors, axis=0)
    assert corrected < 1.1 * plain and alone > 1.2 * plain


def test_intervals_hold_the_truth_as_often_as_they_say_and_the_correction_is_nearer():
    """100 mixtures of 400 images, with confusions from 300: about 95 intervals in 100 hold."""
    rng = np.random.default_rng(5)
    held, errors = [], []
    for _ in range(100):
        truth = rng.dirichlet([1, 1, 1])
        counts = rng.multinomial(400, truth @ RATES)
        confusion = Confusion(np.array([rng.multinomial(100, row) for row in RATES]), "validation")
        shares = estimate(counts, confusion, [np.eye(3)], resamples=200)[0]
        low, high = shares.corrected_ci95.T
        held.append((low <= truth) & (truth <= high))
        errors.append([np.abs(shares.plain - truth).sum(), np.abs(shares.corrected - truth).sum()])
    assert 0.88 <= np.mean(held) <= 1.0
    plain, corrected = np.mean(errors, axis=0)
    assert corrected < 0.7 * plain


def test_sums_are_those_of_the_classes():
    confusion = Confusion((RATES * 50).round().astype(int), "test")
    groups = [np.eye(3, dtype=bool), np.array([[True, True, False]])]
    classes, pair = estimate(np.array([60, 30, 10]), confusion, groups)
    assert pair.corrected[0] == pytest.approx(classes.corrected[:2].sum())
    assert pair.plain[0] == pytest.approx(0.9) and pair.plain_ci95[0][0] < 0.9 < pair.plain_ci95[0][1]


def test_without_confusions_there_is_no_correction_and_it_is_said():
    shares = estimate(np.array([3, 1]), None, [np.eye(2)])[0]
    assert shares.corrected is None and shares.plain.tolist() == [0.75, 0.25]
    assert doubts(None, ["a", "b"])[0].startswith("no correction: the model has no confusion matrix")
    with pytest.raises(ValueError, match="no images"):
        estimate(np.array([0, 0]), None, [])


def test_weak_confusion_matrices_are_told():
    good = Confusion(np.diag([50, 50]), "validation")
    assert doubts(good, ["a", "b"]) == [] and good.condition == pytest.approx(1)
    few = Confusion(np.diag([50, 2]), "validation")
    assert doubts(few, ["a", "b"]) == [
        "its confusions are known from fewer than 5 images of b: their shares are uncertain"
    ]
    coin = Confusion(np.array([[50, 50], [49, 51]]), "validation")
    assert "can hardly be told apart" in doubts(coin, ["a", "b"])[0]


def test_where_a_bundle_keeps_it(tmp_path):
    assert stored_confusion(tmp_path, 2) is None
    (tmp_path / "evaluation.json").write_text(json.dumps({"test": {"confusion": [[3, 1], [0, 2]]}}))
    assert stored_confusion(tmp_path, 2).origin == "test" and stored_confusion(tmp_path, 3) is None
    (tmp_path / "bundle.json").write_text(json.dumps({"confusion": [[5, 0], [1, 4]]}))
    found = stored_confusion(tmp_path, 2)
    assert found.origin == "validation" and found.counts.tolist() == [[5, 0], [1, 4]] and not found.balanced
    config = {"data": {"balanced_sampling": True}, "loss": {"class_weights": False}}
    (tmp_path / "bundle.json").write_text(json.dumps({"confusion": [[9, 0], [1, 2]], "config": config}))
    assert stored_confusion(tmp_path, 2).seen.tolist() == [6, 6]
    (tmp_path / "bundle.json").write_text(json.dumps({"confusion": [[5, "x"], [1, 4]]}))
    assert stored_confusion(tmp_path, 2).origin == "test"
    assert stored_confusion(tmp_path / "bundle.json", 2) is None  # an exported file


def run_of(tmp_path, labels, **config):
    """Writes what a run leaves of its list of images, and a bundle that was calibrated."""
    bundle = tmp_path / "bundle"
    bundle.mkdir(parents=True)
    rows = [f"{i}.jpg,{label},,{i},{split}" for i, (label, split) in enumerate(labels)]
    (tmp_path / "manifest.csv").write_text("\n".join(["file,label,domain,group,split", *rows]))
    about = {
        "confusion": [[9, 1], [1, 9]],
        "classes": ["a", "b"],
        "config": {"data": {}, "loss": {}} | config,
    }
    (bundle / "bundle.json").write_text(json.dumps(about))
    (tmp_path / "config.json").write_text("{}")
    return bundle


def test_a_run_says_how_often_training_drew_each_class(tmp_path):
    labels = [("a", "train")] * 30 + [("b", "train")] * 10 + [("b", "val")] * 20
    cases = {
        "plain": ({}, [30, 10]),
        "balanced": ({"data": {"balanced_sampling": True}}, [20, 20]),
        "weighed": ({"loss": {"class_weights": True}}, [20, 20]),
        "both": ({"data": {"balanced_sampling": True}, "loss": {"class_weights": True}}, [10, 30]),
    }
    for name, (config, expected) in cases.items():
        found = stored_confusion(run_of(tmp_path / name, labels, **config), 2)
        np.testing.assert_allclose(found.seen, expected)
        assert found.explains and not doubts(found, ["a", "b"], True)
    # Sources weigh what their description says; classes without images say nothing.
    mixed = stored_confusion(run_of(tmp_path / "mix", labels, data={"dir": "mix.toml"}), 2)
    assert mixed.prior is None and not mixed.explains
    assert stored_confusion(run_of(tmp_path / "none", labels[:30]), 2).prior is None
    other = run_of(tmp_path / "audited", labels)  # an export beside the manifest of an audit
    (tmp_path / "audited" / "config.json").unlink()
    assert stored_confusion(other, 2).prior is None
    # A copy without the run knows it from the bundle.
    alone = tmp_path / "alone"
    alone.mkdir()
    about = json.loads((tmp_path / "plain" / "bundle" / "bundle.json").read_text())
    (alone / "bundle.json").write_text(json.dumps(about))
    assert not stored_confusion(alone, 2).explains
    for stored in ([30.0, 10.0], [30.0], [30.0, 0], ["x", 1]):
        (alone / "bundle.json").write_text(json.dumps(about | {"prior": stored}))
        assert stored_confusion(alone, 2).explains == (stored == [30.0, 10.0])


def test_calibrating_a_run_keeps_what_training_drew_and_a_copy_hands_it_on(tmp_path, monkeypatch):
    """Also where the images are not the run's own: these tell the temperature alone."""
    folder = run_of(tmp_path / "run", [("a", "train")] * 30 + [("b", "train")] * 10)
    rng = np.random.default_rng(0)
    scored = Evaluation(
        {"confusion": [[20, 0], [0, 20]]}, rng.normal(size=(40, 2)), np.arange(40) % 2, np.arange(40)
    )
    monkeypatch.setattr("wastejax.evaluation.trust.evaluate", lambda *given: scored)
    monkeypatch.setattr("wastejax.evaluation.trust.EvalBatches", lambda *given: None)
    config = {"data": {}, "loss": {}, "eval": {"batch_size": 4}}
    bundle = SimpleNamespace(
        path=folder, config=config, classes=("a", "b"), bins_or_own=None, preprocessing=None, logits=None
    )
    calibrate_bundle(bundle, None, np.arange(40))
    assert json.loads((folder / "bundle.json").read_text())["prior"] == [30, 10]
    copy = shutil.copytree(folder, tmp_path / "copy")
    bundle.path = copy  # nothing says here what was trained on
    calibrate_bundle(bundle, None, np.arange(40))
    found = stored_confusion(copy, 2)
    assert found.seen.tolist() == [30, 10] and found.counts.tolist() == [[20, 0], [0, 20]]


MEANS = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])


def probabilities_of(labels: np.ndarray, prior: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bayes' rule for three overlapping clouds of points: what a perfectly calibrated model would say."""
    points = MEANS[labels] + rng.normal(size=(len(labels), 2))
    density = np.exp(-((points[:, None] - MEANS) ** 2).sum(axis=-1) / 2) * prior
    return density / density.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("balanced", [False, True])
def test_probabilities_tell_more_than_confusions_and_their_intervals_hold(balanced):
    """60 mixtures of 300 images, by a model that learned from other shares and is right for seven in ten."""
    rng = np.random.default_rng(11)
    prior = np.array([0.6, 0.3, 0.1])
    seen = rng.choice(3, 600, p=prior)
    prior = np.full(3, 1 / 3) if balanced else prior  # that the model learned from
    known = probabilities_of(seen, prior, rng)
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (seen, known.argmax(axis=1)), 1)
    held, errors = [], []
    for _ in range(60):
        truth = rng.dirichlet([1, 1, 1])
        p = probabilities_of(rng.choice(3, 300, p=truth), prior, rng)
        counts = np.bincount(p.argmax(axis=1), minlength=3)
        args = (counts, Confusion(confusion, "validation", balanced), [np.eye(3)])
        (by_counts,), (shares,) = estimate(*args, 60), estimate(*args, probabilities=p)
        assert shares.weight is None and shares.corrected.sum() == pytest.approx(1)
        low, high = shares.corrected_ci95.T
        held.append((low <= truth) & (truth <= high))
        found = (shares.plain, by_counts.corrected, shares.corrected)
        errors.append([np.abs(one - truth).sum() for one in found])
    assert 0.9 <= np.mean(held) <= 1.0
    plain, by_counts_alone, corrected = np.mean(errors, axis=0)
    assert corrected < (0.8 if balanced else 0.4) * plain and corrected < 0.85 * by_counts_alone


def test_a_calibration_on_images_of_other_shares_does_not_bend_the_correction():
    """The model learned of 80 % a, was calibrated on as many of each, and is asked about as many of each."""
    rng = np.random.default_rng(4)
    prior = np.array([0.8, 0.15, 0.05])
    seen, asked = (rng.choice(3, 900, p=np.full(3, 1 / 3)) for _ in range(2))
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (seen, probabilities_of(seen, prior, rng).argmax(axis=1)), 1)
    p = probabilities_of(asked, prior, rng)
    counts, truth = np.bincount(p.argmax(axis=1), minlength=3), np.bincount(asked) / 900
    errors = {}
    for name, known in {
        "prior": Confusion(confusion, "validation", prior=1000 * prior, own=False),
        "answers": Confusion(confusion, "validation", own=False),
        "as if of its own": Confusion(confusion, "validation"),
    }.items():
        (shares,) = estimate(counts, known, [np.eye(3)], probabilities=p)
        errors[name] = np.abs(shares.corrected - truth).sum() / 2
        assert (shares.weight is None) == (name != "answers")
    assert errors["prior"] < 0.1 and errors["answers"] < 0.15 and errors["as if of its own"] > 0.5
    said = doubts(Confusion(confusion, "validation", own=False), "abc", True)
    assert len(said) == 1 and said[0].startswith("shares are corrected by answers alone")
    assert (
        "is not known: the corrected shares take it" in doubts(Confusion(confusion, "test"), "abc", True)[0]
    )


def test_a_class_without_validation_images_is_not_corrected_by_a_guess():
    rng = np.random.default_rng(0)
    prior, truth = np.array([0.5, 0.4, 0.1]), rng.choice(3, 600, p=[0.5, 0.4, 0.1])
    p = probabilities_of(truth, prior, rng)
    counts = np.bincount(p.argmax(axis=1), minlength=3)
    unseen = np.array([[90, 8, 2], [8, 72, 0], [0, 0, 0]])
    (shares,) = estimate(counts, Confusion(unseen, "validation"), [np.eye(3)], probabilities=p)
    assert shares.corrected is None and shares.plain.tolist() == (counts / 600).tolist()
    assert doubts(Confusion(unseen, "validation"), "abc", True)[0].startswith(
        "no correction: fewer than 5 images tell how often the model expects c;"
    )
    known = Confusion(unseen, "validation", prior=1000 * prior)
    (shares,) = estimate(counts, known, [np.eye(3)], probabilities=p)
    np.testing.assert_allclose(shares.corrected, np.bincount(truth) / 600, atol=0.04)
    assert not doubts(known, "abc", True)


def test_what_a_model_is_sure_of_is_counted():
    p = np.eye(3)[[0] * 60 + [1] * 30 + [2] * 10]
    confusion = Confusion(np.diag([50, 50, 50]), "test")
    (shares,) = estimate(np.array([60, 30, 10]), confusion, [np.eye(3)], probabilities=p)
    np.testing.assert_allclose(shares.corrected, [0.6, 0.3, 0.1])
    low, high = shares.corrected_ci95.T
    # About a binomial proportion's interval: 1.96 sqrt(p (1 - p) / 100).
    np.testing.assert_allclose(high - low, [0.19, 0.18, 0.12], atol=0.035)


def test_of_very_many_images_a_part_is_enough(monkeypatch):
    monkeypatch.setattr("wastejax.evaluation.composition.MOST_IMAGES", 500)
    p = np.eye(2)[np.arange(5000) % 5 // 4]
    (shares,) = estimate(
        np.array([4000, 1000]), Confusion(np.diag([9, 9]), "test"), [np.eye(2)], probabilities=p
    )
    assert shares.plain[0] == 0.8 and shares.corrected[0] == pytest.approx(0.8, abs=0.05)


def sure_of(labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the counts and the probabilities of a model that is hardly ever in doubt."""
    p = np.full((len(labels), classes), 1e-4 / (classes - 1))
    p[np.arange(len(labels)), labels] = 1 - 1e-4
    return np.bincount(labels, minlength=classes), p


def known_well(classes: int) -> Confusion:
    return Confusion(20 * np.eye(classes, dtype=int), "validation", prior=np.full(classes, 1000.0))


@pytest.mark.parametrize(
    ("truth", "images"), [([0.7, 0.3] + [0] * 28, 10), ([0.7, 0.3] + [0] * 28, 30), ([1 / 30] * 30, 40)]
)
def test_intervals_of_few_images_hold_the_truth_as_often_as_they_say(monkeypatch, truth, images):
    """A dominant class among 30, which a prior of half an image of each class would draw down; and even shares."""
    monkeypatch.setattr("wastejax.evaluation.composition.CHAINS", 2)
    rng = np.random.default_rng(2)
    truth = np.array(truth)
    held = []
    for seed in range(150):
        counts, p = sure_of(rng.choice(30, images, p=truth), 30)
        (shares,) = estimate(counts, known_well(30), [np.eye(30)], 20, seed, p)
        low, high = shares.corrected_ci95.T
        held.append(((low <= truth) & (truth <= high))[truth > 0])
    assert np.mean(held) >= 0.93


def test_an_interval_lies_around_its_share_and_leaves_nothing_open_that_is_not():
    counts, p = sure_of(np.array([0] * 7 + [1] * 3), 30)
    groups = [np.eye(30), np.array([[True] * 30, [False] * 30])]
    classes, sums = estimate(counts, known_well(30), groups, probabilities=p)
    np.testing.assert_allclose(classes.corrected[:2], [0.7, 0.3])
    # Jeffreys' interval of 7 of 10, 0.39 to 0.90 (Brown, Cai and DasGupta 2001), outwards to whole images.
    np.testing.assert_allclose(classes.corrected_ci95[:3], [[0.3, 1], [0, 0.7], [0, 0.3]], atol=0.101)
    np.testing.assert_allclose(sums.corrected_ci95, [[1, 1], [0, 0]])
