"""Are corrected shares nearer to the truth than counted ones? Mixtures of labeled images, whose shares are known.

Command: python experiments/composition.py --state=STATE
STATE is that of `another_camera.py` whose classifier was shipped: features.npz holds what the bundled network sees
of images, catalog.json which of them it has not learned from. Judged are the bundled model, and linear heads on the
same features learned from a third of two sources that the network never saw. Validation images (or another third)
say what a model confuses; from the test images (or the last third) mixtures are drawn: shares by a Dirichlet
distribution, that many images by them, with replacement. Shares are estimated by counting answers, from
probabilities, and from the confusion matrix alone, as it has to be done for the objects of a video. So are they
from the confusion matrices that runs have committed, halved. Takes a minute; writes
experiments/results/composition_images.json. What is in composition.json beside it this script measured at df0d340,
when it read confusion matrices alone; composition_images.json as committed lacks that part.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.provenance import ROOT, provenance
from wastejax.bundle import default_bundle, load_bundle
from wastejax.evaluation.calibration import fit_temperature
from wastejax.evaluation.composition import Confusion, adjusted, estimate
from wastejax.evaluation.metrics import log_softmax
from wastejax.training.heads import fit_head, logits_of

RESULTS = ROOT / "experiments" / "results"
SOURCES = {"garbage_v2": "Garbage Dataset, linear head", "cardstdani": "web images, linear head"}
FILES = {
    "TrashNet, MobileViT-XXS-IR": RESULTS / "trashnet_mobilevit_xxs_ir.json",
    "household waste, EfficientNet-Lite0": RESULTS / "household_waste_lite0.json",
    "household waste, EfficientNet-Lite2": RESULTS / "household_waste_lite2.json",
}
MIXTURES = 50
RESAMPLES = 40
IMAGES = 400  # of a mixture
KINDS = {"even": 1.0, "uneven": 0.2}  # the parameter of the Dirichlet distribution that shares are drawn from
SEED = 17


class Answers(NamedTuple):
    """Logits [N, C] and true classes [N], of images to know the model by, and of those to draw from."""

    val: np.ndarray
    val_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, required=True)
    args = parser.parse_args()
    results: dict[str, Any] = provenance(shlex.join(["python", *sys.argv]))
    results |= {"mixtures": MIXTURES, "images": IMAGES, "models": {}, "without_probabilities": {}}
    for name, answers in answers_of(args.state).items():
        results["models"][name] = measure(answers)
        print(name, json.dumps(results["models"][name]), flush=True)
    for name, file in FILES.items():
        content = json.loads(file.read_text())
        confusion = np.array(content.get("test", content)["confusion"])
        results["without_probabilities"][name] = measure(halved(confusion), known=False)
        print(name, json.dumps(results["without_probabilities"][name]), flush=True)
    (RESULTS / "composition_images.json").write_text(json.dumps(results, indent=2) + "\n")


def answers_of(state: Path) -> dict[str, Answers]:
    """Returns what the bundled model and the linear heads say."""
    with np.load(state / "features.npz") as stored:
        names, features = stored["names"].tolist(), stored["features"]
    rows = {row[0]: row for row in json.loads((state / "catalog.json").read_text())}
    sources = np.array([Path(name).parent.parent.name for name in names])
    labels = np.array([Path(name).parent.name for name in names])
    bundle = load_bundle(default_bundle())
    home = np.array([rows.get(name, ("", ""))[1] == "household" for name in names])
    parts = {
        split: home & np.array([name in rows and rows[name][4] == split for name in names])
        for split in ("val", "test")
    }
    own = {
        split: [bundle.classes.index(rows[names[i]][2][0]) for i in np.flatnonzero(part)]
        for split, part in parts.items()
    }
    logits = logits_of(bundle, features)
    found = {
        "household waste, bundled model": Answers(
            logits[parts["val"]], np.array(own["val"]), logits[parts["test"]], np.array(own["test"])
        )
    }
    for source, title in SOURCES.items():
        mine = sources == source
        found[title] = _of_head(features[mine], np.unique(labels[mine], return_inverse=True)[1])
    return found


def _of_head(features: np.ndarray, labels: np.ndarray) -> Answers:
    part = np.random.default_rng(SEED).permutation(len(labels)) % 3
    classes = labels.max() + 1
    head = fit_head(features[part == 0], np.eye(classes, dtype=bool)[labels[part == 0]], decay=1e-2)
    logits = head.logits(features)
    return Answers(logits[part == 1], labels[part == 1], logits[part == 2], labels[part == 2])


def halved(confusion: np.ndarray) -> Answers:
    """Returns answers of which only the class is known, int [C, C] of them, dealt into halves by class."""
    rng = np.random.default_rng(SEED)
    classes = len(confusion)
    answers = [rng.permutation(np.repeat(np.arange(classes), row)) for row in confusion]
    halves = []
    for half in (0, 1):
        mine = [own[half::2] for own in answers]
        labels = np.repeat(np.arange(classes), [len(own) for own in mine])
        halves += [np.eye(classes)[np.concatenate(mine)], labels]
    return Answers(*halves)


def measure(answers: Answers, known: bool = True) -> dict[str, Any]:
    """Scores the estimates of many mixtures; `known`: whether probabilities are, beside classes."""
    rng = np.random.default_rng(SEED)
    classes = answers.val.shape[1]
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (answers.val_labels, answers.val.argmax(axis=1)), 1)
    confusion = Confusion(counts, "validation")
    temperature = fit_temperature(answers.val, answers.val_labels) if known else 1.0
    probabilities = np.exp(log_softmax(np.asarray(answers.test, np.float64) / temperature))
    return {
        "classes": classes,
        "images_to_know_it_by": len(answers.val),
        "images_to_draw_from": len(answers.test),
        "top1": round(float(np.mean(answers.test.argmax(axis=1) == answers.test_labels)), 4),
        "condition": round(confusion.condition, 2),
        **{
            kind: _mixtures(rng, parameter, answers.test_labels, probabilities, confusion, known)
            for kind, parameter in KINDS.items()
        },
    }


def _mixtures(
    rng: np.random.Generator,
    parameter: float,
    labels: np.ndarray,
    probabilities: np.ndarray,
    confusion: Confusion,
    known: bool,
) -> dict[str, Any]:
    """Total variation between estimated and true shares, and how often 95 % intervals hold the true ones."""
    classes = probabilities.shape[1]
    pool = [np.flatnonzero(labels == c) for c in range(classes)]
    there = np.array([len(own) > 0 for own in pool])
    errors, held = [], []
    for _ in range(MIXTURES):
        wanted = rng.dirichlet(np.full(classes, parameter)) * there
        drawn = rng.multinomial(IMAGES, wanted / wanted.sum())
        truth = drawn / IMAGES
        chosen = np.concatenate([rng.choice(own, n) for own, n in zip(pool, drawn, strict=True) if n])
        p = probabilities[chosen]
        counts = np.bincount(p.argmax(axis=1), minlength=classes)
        (alone,) = estimate(counts, confusion, [np.eye(classes)], RESAMPLES)
        (best,) = estimate(counts, confusion, [np.eye(classes)], probabilities=p) if known else (alone,)
        solved = adjusted(alone.plain[None], confusion.rates[None])[0]
        found = (alone.plain, best.corrected, alone.corrected, solved)
        errors.append([np.abs(one - truth).sum() / 2 for one in found])
        ends = np.stack([alone.plain_ci95, best.corrected_ci95, alone.corrected_ci95])
        held.append(((ends[..., 0] <= truth + 1e-9) & (truth <= ends[..., 1] + 1e-9)).mean(axis=1))
    error, hold = np.array(errors), np.mean(held, axis=0)
    gain = error[:, 0] - error[:, 1]
    resampled = gain[rng.integers(0, MIXTURES, (1000, MIXTURES))].mean(axis=1)
    names = ("plain", "corrected", "confusion_alone", "likelihood_alone")
    return {
        **{name: round(float(value), 4) for name, value in zip(names, error.mean(axis=0), strict=True)},
        "gain_ci95": [round(float(x), 4) for x in np.percentile(resampled, [2.5, 97.5])],
        "nearer": round(float(np.mean(gain > 0)), 4),
        "plain_intervals_hold": round(float(hold[0]), 4),
        "corrected_intervals_hold": round(float(hold[1]), 4),
        "confusion_intervals_hold": round(float(hold[2]), 4),
    }


if __name__ == "__main__":
    main()
