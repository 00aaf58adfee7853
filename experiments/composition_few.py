"""Do the intervals of shares hold for few images? Drawn answers of a calibrated model, whose shares are known.

Command: python experiments/composition_few.py
No images are needed: each class is a normal distribution, as far from each of the 30 as from any other, and the
model knows them, so that its probabilities are right. Some tens of answers are drawn, as a small folder has them,
and `estimate` says what all images of the kind are made of. Beside its intervals are those of a Dirichlet
distribution that begins with half an image of each class (Jeffreys), or with one image in all (Perks 1947). Takes
two minutes; writes
experiments/results/composition_few.json.
"""

import json
import shlex
import sys
from typing import Any

import numpy as np

from experiments.provenance import ROOT, provenance
from wastejax.evaluation.composition import Confusion, estimate, posterior

RESULT = ROOT / "experiments" / "results" / "composition_few.json"
CLASSES = 30
IMAGES = (10, 30, 40, 100, 300)  # 40, too: rounded to whole images, intervals of 30 hold 1 / 30 by one image
OTHERS = {"half_each": 0.5, "one_in_all": 1 / CLASSES}  # images of each class that intervals might begin with
MIXTURES = 50
DISTANCE = 3.2  # of a class's mean from the origin, in standard deviations
SEEN = 100  # images of each class that the model learned from
LARGE = 0.1  # share from which on a class counts as one of the large ones
SEED = 17
KINDS = ("one of 70 %, one of 30 %", "uneven", "even")


def main() -> None:
    results: dict[str, Any] = provenance(shlex.join(["python", *sys.argv]))
    right = (answered(np.arange(CLASSES).repeat(300), np.random.default_rng(SEED))).argmax(axis=1)
    top1 = float(np.mean(right == np.arange(CLASSES).repeat(300)))
    results |= {
        "classes": CLASSES,
        "mixtures": MIXTURES,
        "top1": round(top1, 3),
        "large": LARGE,
        "shares": {},
    }
    for kind in KINDS:
        results["shares"][kind] = {str(number): measure(kind, number) for number in IMAGES}
        print(kind, json.dumps(results["shares"][kind]), flush=True)
    RESULT.write_text(json.dumps(results, indent=2) + "\n")


def truth_of(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Returns shares, float64 [C]; those of 'uneven' are drawn, as in composition.py."""
    if kind == "uneven":
        return rng.dirichlet(np.full(CLASSES, 0.2))
    shares = np.zeros(CLASSES)
    shares[:2] = 0.7, 0.3
    return shares if kind == KINDS[0] else np.full(CLASSES, 1 / CLASSES)


def answered(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the probabilities of all classes, float64 [N, C], that images of these classes get."""
    logits = DISTANCE * (rng.normal(size=(len(labels), CLASSES)) + DISTANCE * np.eye(CLASSES)[labels])
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def within(dealt: np.ndarray, prior: float, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns which shares lie in the intervals of a Dirichlet distribution, outwards to whole images as others."""
    number = int(dealt[0].sum())
    drawn = np.array([rng.dirichlet(row + prior) for row in dealt])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    low, high = np.floor(number * low) / number, np.ceil(number * high) / number
    return (low <= truth + 1e-9) & (truth <= high + 1e-9)


def measure(kind: str, number: int) -> dict[str, float]:
    """Returns how often the intervals hold the truth, for so many images, and how far the shares are from it."""
    rng = np.random.default_rng((SEED, number))
    known = Confusion(SEEN * np.eye(CLASSES, dtype=int), "validation", prior=np.full(CLASSES, float(SEEN)))
    large, there, widths, errors = [], [], [], []
    others: dict[str, list[bool]] = {name: [] for name in OTHERS}
    for seed in range(MIXTURES):
        truth = truth_of(kind, rng)
        p = answered(rng.choice(CLASSES, number, p=truth), rng)
        counts = np.bincount(p.argmax(axis=1), minlength=CLASSES)
        (shares,) = estimate(counts, known, [np.eye(CLASSES)], 20, seed, p)
        low, high = shares.corrected_ci95.T
        held = (low <= truth + 1e-9) & (truth <= high + 1e-9)
        large += held[truth >= LARGE].tolist()
        there += held[truth > 0].tolist()
        dealt = posterior(p, known.seen, np.random.default_rng(seed))
        for name, prior in OTHERS.items():
            others[name] += within(dealt, prior, truth, rng)[truth > 0].tolist()
        widths.append(float((high - low)[truth.argmax()]))
        errors.append([np.abs(one - truth).sum() / 2 for one in (shares.plain, shares.corrected)])
    plain, corrected = np.mean(errors, axis=0)
    return {
        **({"large_hold": round(float(np.mean(large)), 4)} if large else {}),
        "all_hold": round(float(np.mean(there)), 4),
        **{name: round(float(np.mean(hold)), 4) for name, hold in others.items()},
        "width_of_largest": round(float(np.mean(widths)), 4),
        "plain": round(float(plain), 4),
        "corrected": round(float(corrected), 4),
    }


if __name__ == "__main__":
    main()
