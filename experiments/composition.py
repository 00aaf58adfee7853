"""Are corrected shares nearer to the truth than counted ones? Mixtures of test images, whose shares are known.

Command: python experiments/composition.py
A confusion matrix that a run has committed says of every test image what it shows and what was answered. Half of
the images of each class say what the model confuses, the others are drawn from: shares by a Dirichlet distribution,
that many images by them, with replacement. The shares are estimated by counting answers and by
`wastejax.evaluation.composition`. Takes seconds; writes experiments/results/composition.json.
"""

import json
import shlex
import sys
from typing import Any

import numpy as np

from experiments.provenance import ROOT, provenance
from wastejax.evaluation.composition import Confusion, adjusted, estimate

RESULTS = ROOT / "experiments" / "results"
FILES = {
    "TrashNet, MobileViT-XXS-IR": RESULTS / "trashnet_mobilevit_xxs_ir.json",
    "household waste, EfficientNet-Lite0": RESULTS / "household_waste_lite0.json",
    "household waste, EfficientNet-Lite2": RESULTS / "household_waste_lite2.json",
    "household waste, bundled model": ROOT / "wastejax" / "default_model" / "evaluation.json",
}
MIXTURES = 50
RESAMPLES = 40
IMAGES = 400  # of a mixture
KINDS = {
    "even": 1.0,
    "uneven": 0.2,
}  # of the Dirichlet distribution that shares are drawn from: its parameter
SEED = 17


def main() -> None:
    results: dict[str, Any] = provenance(shlex.join(["python", *sys.argv]))
    results |= {"mixtures": MIXTURES, "images": IMAGES, "models": {}}
    for name, file in FILES.items():
        content = json.loads(file.read_text())
        results["models"][name] = measure(np.array(content.get("test", content)["confusion"]))
        print(name, json.dumps(results["models"][name]), flush=True)
    (RESULTS / "composition.json").write_text(json.dumps(results, indent=2) + "\n")


def measure(confusion: np.ndarray) -> dict[str, Any]:
    """Scores the estimates of many mixtures; `confusion` int [C, C], rows are the true classes."""
    rng = np.random.default_rng(SEED)
    classes = len(confusion)
    answers = [rng.permutation(np.repeat(np.arange(classes), row)) for row in confusion]
    known = np.array([np.bincount(own[::2], minlength=classes) for own in answers])
    pool = [own[1::2] for own in answers]
    given = Confusion(known, "half of the test")
    return {
        "classes": classes,
        "images_for_confusions": int(known.sum()),
        "images_to_draw_from": sum(map(len, pool)),
        "top1": round(float(confusion.trace() / confusion.sum()), 4),
        "condition": round(given.condition, 2),
        **{kind: _mixtures(rng, parameter, pool, given) for kind, parameter in KINDS.items()},
    }


def _mixtures(
    rng: np.random.Generator, parameter: float, pool: list[np.ndarray], known: Confusion
) -> dict[str, Any]:
    """Total variation between estimated and true shares, and how often 95 % intervals hold the true ones."""
    classes = len(pool)
    errors, held = [], []
    for _ in range(MIXTURES):
        drawn = rng.multinomial(IMAGES, rng.dirichlet(np.full(classes, parameter)))
        truth = drawn / IMAGES
        answered = [rng.choice(own, count) for own, count in zip(pool, drawn, strict=True) if count]
        counts = np.bincount(np.concatenate(answered), minlength=classes)
        (shares,) = estimate(counts, known, [np.eye(classes)], RESAMPLES)
        solved = adjusted(shares.plain[None], known.rates[None])[0]
        found = (shares.plain, shares.corrected, solved)
        errors.append([np.abs(one - truth).sum() / 2 for one in found])
        ends = np.stack([shares.plain_ci95, shares.corrected_ci95])
        held.append(((ends[..., 0] <= truth + 1e-9) & (truth <= ends[..., 1] + 1e-9)).mean(axis=1))
    error = np.array(errors)
    gain = error[:, 0] - error[:, 1]
    resampled = gain[rng.integers(0, MIXTURES, (1000, MIXTURES))].mean(axis=1)
    return {
        "plain": round(float(error[:, 0].mean()), 4),
        "corrected": round(float(error[:, 1].mean()), 4),
        "likelihood_alone": round(float(error[:, 2].mean()), 4),
        "gain_ci95": [round(float(x), 4) for x in np.percentile(resampled, [2.5, 97.5])],
        "nearer": round(float(np.mean(gain > 0)), 4),
        "plain_intervals_hold": round(float(np.mean(held, axis=0)[0]), 4),
        "corrected_intervals_hold": round(float(np.mean(held, axis=0)[1]), 4),
    }


if __name__ == "__main__":
    main()
