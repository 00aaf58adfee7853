"""Leaves each source out in turn, for many classifiers on several frozen networks: what carries over?

Command: python experiments/left_out.py --data=DIR --data2=DIR2 --networks=NAME=STATE;… [--trials=NAME;…]
A STATE is one of `another_camera.py`: its features.npz (computed once) and its bundle `blended`, whose classifier
some trials begin with. Of each source that shows classes all images are scored by classifiers that were fitted
without it; of household_waste the test images, by one fitted to all. Learned from are only sources with a stated
license. What a network itself has seen is another matter. Each trial is kept in
results/left_out.json as soon as it is measured, and those measured before are skipped.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.another_camera import DECAY, HOME, KEPT, LICENSED, STEPS, WEIGHTS, Item, known_items
from experiments.camera_tables import LEFT_OUT
from experiments.provenance import provenance
from wastejax.bundle import Bundle, load_bundle
from wastejax.evaluation.metrics import bootstrap_interval
from wastejax.files import write_json
from wastejax.training.heads import Head, fit_head, head_of, loss_and_slope

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)  # of bootstraps of the training images


class Seen(NamedTuple):
    """What a network sees of N images.

    Attributes:
        features: float32 [N, D].
        allowed: bool [N, C], the classes that they may show.
        sources: str [N].
        splits: str [N].
        learned_from: sources that a classifier may be fitted to.
    """

    features: np.ndarray
    allowed: np.ndarray
    sources: np.ndarray
    splits: np.ndarray
    learned_from: tuple[str, ...] = LICENSED

    @property
    def learned(self) -> np.ndarray:
        """Bool [N]: the images that a classifier may be fitted to."""
        known = np.isin(self.sources, self.learned_from)
        return known & ((self.splits == "train") | (self.sources == "trashnet") & (self.splits == "val"))

    def of_sources(self, rows: np.ndarray) -> np.ndarray:
        """Returns how much images count by source."""
        return np.array([WEIGHTS.get(source, 1.0) for source in self.sources[rows]])


Fit = Callable[[Seen, np.ndarray, Head], Head]


def plain(
    decay: float = 0.003, steps: int = 60, kept: float = 0.0, near: bool = False, **options: Any
) -> Fit:
    """Returns a way to fit a classifier: from zero or `near` the network's own, of which a share is `kept`."""

    def fit(seen: Seen, rows: np.ndarray, start: Head) -> Head:
        new = fit_head(
            seen.features[rows],
            seen.allowed[rows],
            seen.of_sources(rows),
            decay=decay,
            steps=steps,
            start=start if near else None,
            **options,
        )
        return mean_of([start, new], [kept, 1 - kept]) if kept else new

    return fit


def mean_of(heads: list[Head], shares: list[float] | None = None) -> Head:
    """Returns the weighted mean of classifiers."""
    shares = shares or [1 / len(heads)] * len(heads)
    return Head(
        *(sum(s * part for s, part in zip(shares, parts, strict=True)) for parts in zip(*heads, strict=True))
    )


def averaged(*ways: Fit) -> Fit:
    """Fits in each of these ways, and takes the mean."""
    return lambda seen, rows, start: mean_of([way(seen, rows, start) for way in ways])


def balanced(seen: Seen, rows: np.ndarray, start: Head) -> Head:
    """Fits as is shipped, with all sources counting alike."""
    names, where, counts = np.unique(seen.sources[rows], return_inverse=True, return_counts=True)
    return _weighted(seen, rows, start, 1 / counts[where] / len(names))


def robust(seen: Seen, rows: np.ndarray, start: Head, rounds: int = 4, rate: float = 1.0) -> Head:
    """Fits as is shipped, with sources counting more where the loss is large (Sagawa et al. 2020, group DRO)."""
    names, where, counts = np.unique(seen.sources[rows], return_inverse=True, return_counts=True)
    share = np.ones(len(names)) / len(names)
    head = start
    for _ in range(rounds):
        head = _weighted(seen, rows, head, share[where] / counts[where])
        losses = []
        for source in range(len(names)):
            mine = rows[where == source]
            logits = head.logits(seen.features[mine]).astype(np.float64)
            losses.append(loss_and_slope(logits, seen.allowed[mine], np.full(len(mine), 1 / len(mine)))[0])
        share = share * np.exp(rate * np.array(losses))
        share /= share.sum()
    return mean_of([start, head], [KEPT, 1 - KEPT])


def _weighted(seen: Seen, rows: np.ndarray, start: Head, weights: np.ndarray) -> Head:
    return fit_head(seen.features[rows], seen.allowed[rows], weights, decay=DECAY, steps=STEPS, start=start)


def smoothed(share: float) -> Fit:
    """Fits as is shipped, with a share of every label spread over all classes."""

    def fit(seen: Seen, rows: np.ndarray, start: Head) -> Head:
        # An image that shows nothing pulls towards even answers: a second copy of each does the smoothing.
        x, allowed, weights = seen.features[rows], seen.allowed[rows], seen.of_sources(rows)
        spread = weights * share / (1 - share) * 2  # `fit_head` counts these half
        new = fit_head(
            np.concatenate([x, x]),
            np.concatenate([allowed, np.zeros_like(allowed)]),
            np.concatenate([weights, spread]),
            decay=DECAY,
            steps=STEPS,
            start=start,
        )
        return mean_of([start, new], [KEPT, 1 - KEPT])

    return fit


def adjusted(way: Fit, strength: float) -> Fit:
    """Fits in a way and takes the frequencies of classes out of the answers (Menon et al. 2021)."""

    def fit(seen: Seen, rows: np.ndarray, start: Head) -> Head:
        head = way(seen, rows, start)
        logits = np.where(seen.allowed[rows], head.logits(seen.features[rows]), -np.inf)
        known = seen.allowed[rows].any(axis=1)
        p = np.exp(logits[known] - logits[known].max(axis=1, keepdims=True))
        prior = (seen.of_sources(rows)[known, None] * p / p.sum(axis=1, keepdims=True)).sum(axis=0)
        return Head(head.kernel, head.bias - strength * np.log(prior / prior.sum() + 1e-4).astype(np.float32))

    return fit


SHIPPED = plain(DECAY, STEPS, KEPT, near=True)
TRIALS: dict[str, Fit] = {
    "the network's own": lambda seen, rows, start: start,
    "linear": plain(),
    "linear, more decay": plain(0.03),
    "near its own, as shipped": SHIPPED,
    "near its own, all of the fit": plain(DECAY, STEPS, near=True),
    "near its own, a quarter of the fit": plain(DECAY, STEPS, 0.75, near=True),
    "near its own, decay 0.02": plain(0.02, STEPS, KEPT, near=True),
    "near its own, decay 0.2": plain(0.2, STEPS, KEPT, near=True),
    "near its own, sources alike": balanced,
    "near its own, group DRO": robust,
    "near its own, label smoothing 0.1": smoothed(0.1),
    "near its own, priors taken out": adjusted(SHIPPED, 0.3),
    "near its own, no outliers": plain(DECAY, STEPS, KEPT, near=True, outlier_weight=1e-6),
    "mean of linear and near its own": averaged(plain(), SHIPPED),
}
# Features are changed before anything else.
VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "": lambda x: x,
    "unit length": lambda x: x / np.linalg.norm(x, axis=1, keepdims=True) * np.linalg.norm(x, axis=1).mean(),
    "square root": lambda x: np.sign(x) * np.sqrt(np.abs(x)),
}


def main() -> None:
    """Measures what is asked for and not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "data2"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--networks", required=True, help="NAME=STATE, separated by semicolons")
    parser.add_argument("--trials", default=";".join(TRIALS), help="separated by semicolons (default: all)")
    parser.add_argument("--views", default="", help="of the features; (default: as they are)")
    parser.add_argument(
        "--seeds", action="store_true", help="also fit to three bootstraps of the training images"
    )
    args = parser.parse_args()
    for part in args.networks.split(";"):
        name, _, state = part.partition("=")
        items, features = known_items(args.data, args.data2, Path(state))
        bundle = load_bundle(Path(state) / "blended")
        measure_network(name, bundle, items, features, args)


def measure_network(
    name: str, bundle: Bundle, items: list[Item], features: np.ndarray, args: argparse.Namespace
) -> None:
    """Measures trials on one network, and keeps each."""
    kept = RESULTS / "left_out.json"
    result = json.loads(kept.read_text()) if kept.is_file() else {"rows": []}
    allowed = np.array([[c in item.allowed for c in bundle.classes] for item in items])
    sources, splits = (np.array([getattr(item, key) for item in items]) for key in ("source", "split"))
    for view in args.views.split(";"):
        seen = Seen(VIEWS[view](features), allowed, sources, splits)
        for trial in args.trials.split(";"):
            for seed in (None, *SEEDS) if args.seeds else (None,):
                row = {"network": name, "trial": f"{trial}, {view}" if view else trial, "seed": seed}
                if any(all(old[key] == row[key] for key in row) for old in result["rows"]):
                    continue
                row |= measure(seen, head_of(bundle), TRIALS[trial], bundle.bins, seed)
                command = "python experiments/left_out.py --data=data --data2=data2 --networks=NAME=STATE"
                result["rows"].append(row | provenance(command))
                write_json(kept, result)
                print(
                    row["network"],
                    row["trial"],
                    seed,
                    row["mean"],
                    row["worst"],
                    row["household"],
                    flush=True,
                )


def measure(
    seen: Seen, start: Head, way: Fit, bins: tuple[str, ...] | None, seed: int | None
) -> dict[str, Any]:
    """Returns the share of right answers of each source left out, and of household_waste's test images."""
    rng = np.random.default_rng(seed)

    def fitted(chosen: np.ndarray) -> Head:
        rows = np.flatnonzero(chosen)
        return way(seen, rows if seed is None else rng.choice(rows, len(rows)), start)

    of_all = fitted(seen.learned)
    scored = {}
    for source in LEFT_OUT:
        left = source in seen.learned_from
        head = fitted(seen.learned & (seen.sources != source)) if left else of_all
        scored[source] = score_source(head, seen, source)
    shares = [row["right"] for row in scored.values()]
    found = {"sources": scored, "mean": float(np.mean(shares)), "worst": float(np.min(shares))}
    return found | score_home(of_all, seen, bins)


def score_source(head: Head, seen: Seen, source: str) -> dict[str, Any]:
    """Returns how often a classifier names a class that a source's label can mean."""
    right = _right(head, seen, seen.allowed.any(axis=1) & (seen.sources == source))
    return {"right": right.mean(), "ci95": list(bootstrap_interval(right))}


def score_home(head: Head, seen: Seen, bins: tuple[str, ...] | None) -> dict[str, float]:
    """Returns the shares of household_waste's test images whose class and bin a classifier names."""
    home = (seen.sources == HOME) & (seen.splits == "test")
    found = {"household": float(_right(head, seen, home).mean())}
    if bins is not None:
        said = head.logits(seen.features[home]).argmax(axis=1)
        names = np.array(bins)
        found["household_bin"] = float((names[said] == names[seen.allowed[home].argmax(axis=1)]).mean())
    return found


def _right(head: Head, seen: Seen, rows: np.ndarray) -> np.ndarray:
    said = head.logits(seen.features[rows]).argmax(axis=1)
    return np.asarray(seen.allowed[rows][np.arange(len(said)), said])


if __name__ == "__main__":
    main()
