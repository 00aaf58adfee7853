"""How a model learns another camera: from 0, 5, 20 and 50 labeled images a class, and from unlabeled ones.

Command: python experiments/adapt_curve.py --data=DIR --data2=DIR2 --shipped=STATE --clean=STATE
Both STATEs are of `another_camera.py`: features.npz and `fitted`, or for --clean `blended`. Sources that the
bundled model never learned from are adapted to from that one. Those that it did learn from are adapted to from the
network of --clean, which saw household_waste alone, with a classifier fitted as is shipped but without the source.
Half of each source's groups are adapted with, as far as asked for, and the other half judges; three draws. Labeled
images are learned by what `wastejax adapt` does. Writes results/adapt_curve.json.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.another_camera import PROTOTYPES, SLOPE, Item, known_items
from experiments.left_out import SHIPPED, Seen
from experiments.provenance import provenance
from wastejax.bundle import Bundle, load_bundle
from wastejax.evaluation.by_source import right_of
from wastejax.evaluation.metrics import bootstrap_statistic
from wastejax.evaluation.ood import bin_probability
from wastejax.evaluation.trust import calibrate
from wastejax.files import write_json
from wastejax.training import cameras
from wastejax.training.heads import Head, head_of, logits_of, with_familiarity, with_head

RESULTS = Path(__file__).parent / "results"
NEVER_LEARNED = ("garbage_v2", "cardstdani")
LEFT_OUT = ("aquatrash_crops", "trashnet", "clothing_small")
COUNTS, DRAWS = (0, 5, 20, 50), 3


def main() -> None:
    """Draws, adapts, judges and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "data2", "shipped", "clean"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for state, folder, sources in (
        (args.shipped, "fitted", NEVER_LEARNED),
        (args.clean, "blended", LEFT_OUT),
    ):
        items, features = known_items(args.data, args.data2, state)
        bundle = load_bundle(state / folder)
        for source in sources:
            start = bundle if folder == "fitted" else without(bundle, items, features, source)
            rows += of_source(start, items, features, source)
            print(source, flush=True)
    command = "python experiments/adapt_curve.py --data=data --data2=data2 --shipped=STATE --clean=STATE"
    about = provenance(command) | {"draws": DRAWS, "rows": rows}
    write_json(RESULTS / "adapt_curve.json", about)


def without(bundle: Bundle, items: list[Item], features: np.ndarray, source: str) -> Bundle:
    """Returns the bundle with a classifier, familiarity and thresholds that know nothing of a source."""
    seen = _seen(bundle, items, features)
    learned = seen.learned & (seen.sources != source)
    taught = with_head(bundle, SHIPPED(seen, np.flatnonzero(learned), head_of(bundle)))
    shown = seen.allowed.any(axis=1)
    taught = with_familiarity(taught, features[learned & shown], SLOPE, PROTOTYPES)
    home = (seen.sources == "household") & (seen.splits == "val")
    found = calibrate(
        logits_of(taught, features[home]), seen.allowed[home].argmax(axis=1), bundle.bins_or_own
    )
    return replace(taught, temperature=found.temperature, thresholds=dict(found.thresholds))


def _seen(bundle: Bundle, items: list[Item], features: np.ndarray) -> Seen:
    allowed = np.array([[name in item.allowed for name in bundle.classes] for item in items])
    sources, splits = (np.array([getattr(item, key) for item in items]) for key in ("source", "split"))
    return Seen(features, allowed, sources, splits)


def of_source(bundle: Bundle, items: list[Item], features: np.ndarray, source: str) -> list[dict[str, Any]]:
    """Returns what each way to adapt to a source gains."""
    seen = _seen(bundle, items, features)
    mine = np.flatnonzero((seen.sources == source) & seen.allowed.any(axis=1))
    groups = np.array([items[i].group for i in mine])
    labels = np.array([items[i].path.parent.name for i in mine])
    found: dict[tuple[str, int], list[tuple[np.ndarray, ...]]] = {}
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        half = rng.permutation(np.unique(groups))[::2]
        pool, judges = mine[np.isin(groups, half)], mine[~np.isin(groups, half)]
        before = _judge(bundle, seen, judges)
        for count in COUNTS[1:]:
            chosen = of_each(pool, labels[np.isin(mine, pool)], count, rng)
            if len(chosen) < cameras.FEWEST:
                continue
            few = cameras.Seen(
                features[chosen], seen.allowed[chosen], seen.sources[chosen], np.arange(len(chosen)), {}
            )
            taught, _ = cameras.taught_by(bundle, few)
            after = before if taught is None else _judge(taught, seen, judges)
            found.setdefault(("labeled", count), []).append(
                (*before, *after, len(chosen), taught is not None)
            )
        for name, way in UNLABELED.items():
            after = _judge(way(bundle, features[pool], seen), seen, judges)
            found.setdefault((name, 0), []).append((*before, *after, len(pool), True))
    return [_row(source, name, count, draws) for (name, count), draws in found.items()]


def of_each(pool: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns at most so many of each label, drawn at random.

    Args:
        pool: int [N], images.
        labels: str [N], of each.
        count: how many.
        rng: draws for the labels in their order, so that its seed says which images are drawn.
    """
    return np.concatenate([rng.permutation(pool[labels == label])[:count] for label in np.unique(labels)])


def _judge(bundle: Bundle, seen: Seen, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which answers are right, and which are kept."""
    logits = logits_of(bundle, seen.features[rows])
    threshold = bundle.thresholds["0.95"]
    sure = bin_probability(logits, bundle.temperature, bundle.bins_or_own)
    return right_of(logits, seen.allowed[rows]), sure >= (np.inf if threshold is None else threshold)


def _row(source: str, name: str, count: int, draws: list[tuple[Any, ...]]) -> dict[str, Any]:
    right, kept, right_after, kept_after = (np.concatenate([draw[k] for draw in draws]) for k in range(4))
    gain = right_after.astype(float) - right
    # The draws share images: they tell how much the choice of images matters, one draw how much chance does.
    first = draws[0][2].astype(float) - draws[0][0]
    return {
        "source": source,
        "how": name,
        "per_class": count,
        "images": int(np.mean([draw[4] for draw in draws])),
        "written": float(np.mean([draw[5] for draw in draws])),
        "before": float(right.mean()),
        "after": float(right_after.mean()),
        "gain": float(gain.mean()),
        "gains": [float((draw[2].astype(float) - draw[0]).mean()) for draw in draws],
        "gain_ci95_of_one_draw": list(bootstrap_statistic(np.mean, first, seed=17)),
        "kept_before": float(kept.mean()),
        "right_of_kept_before": float(right[kept].mean()) if kept.any() else None,
        "kept_after": float(kept_after.mean()),
        "right_of_kept_after": float(right_after[kept_after].mean()) if kept_after.any() else None,
    }


def shifted(share: float) -> Callable[[Bundle, np.ndarray, Seen], Bundle]:
    """Moves the mean of the features to that of what was learned from: a change of the classifier's bias."""

    def way(bundle: Bundle, mine: np.ndarray, seen: Seen) -> Bundle:
        usual = seen.features[seen.learned & seen.allowed.any(axis=1)].mean(axis=0)
        head = head_of(bundle)
        return with_head(
            bundle, Head(head.kernel, head.bias + share * (usual - mine.mean(axis=0)) @ head.kernel)
        )

    return way


def scaled(bundle: Bundle, mine: np.ndarray, seen: Seen) -> Bundle:
    """Gives each feature the mean and the spread that it had: batch statistics, of the last layer alone."""
    usual = seen.features[seen.learned & seen.allowed.any(axis=1)]
    factor = (usual.std(axis=0) + 1e-3) / (mine.std(axis=0) + 1e-3)
    head = head_of(bundle)
    bias = head.bias + (usual.mean(axis=0) - factor * mine.mean(axis=0)) @ head.kernel
    return with_head(bundle, Head(factor[:, None] * head.kernel, bias))


def reweighted(bundle: Bundle, mine: np.ndarray, seen: Seen) -> Bundle:
    """Estimates how frequent the classes are among the images (Saerens et al. 2002), from even ones."""
    logits = logits_of(bundle, mine).astype(np.float64) / bundle.temperature
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    prior = np.full(p.shape[1], 1 / p.shape[1])
    for _ in range(20):
        ratio = p * prior
        prior = (ratio / ratio.sum(axis=1, keepdims=True)).mean(axis=0)
    shift = bundle.temperature * np.log(np.maximum(prior * len(prior), 0.05))
    head = head_of(bundle)
    return with_head(bundle, Head(head.kernel, head.bias + shift.astype(np.float32)))


def self_taught(bundle: Bundle, mine: np.ndarray, seen: Seen) -> Bundle:
    """Takes the answers that are kept for labels (Lee 2013), and learns these as `adapt` does."""
    logits = logits_of(bundle, mine)
    sure = bin_probability(logits, bundle.temperature, bundle.bins_or_own) >= (
        bundle.thresholds["0.95"] or np.inf
    )
    if sure.sum() < cameras.FEWEST:
        return bundle
    allowed = np.eye(logits.shape[1], dtype=bool)[logits.argmax(axis=1)]
    few = cameras.Seen(mine[sure], allowed[sure], np.full(sure.sum(), "mine"), np.arange(sure.sum()), {})
    return with_head(bundle, cameras.near_head(few, np.ones(len(few.features), bool), head_of(bundle)))


def acquainted(bundle: Bundle, mine: np.ndarray, seen: Seen) -> Bundle:
    """Lets the images be familiar: answers stay, more of them are kept."""
    return cameras.acquainted(bundle, mine)


UNLABELED: dict[str, Callable[[Bundle, np.ndarray, Seen], Bundle]] = {
    "mean of the features": shifted(1.0),
    "half of it": shifted(0.5),
    "mean and spread of the features": scaled,
    "frequencies of classes": reweighted,
    "own sure answers as labels": self_taught,
    "images are familiar": acquainted,
}


if __name__ == "__main__":
    main()
