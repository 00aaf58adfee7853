"""Other cameras: does a network carry over to sources left out, and how does a model learn one's own camera?

Both fit only the last layer, on features that the frozen network computes once, so that they take minutes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.bundle import Bundle, load_bundle, save_bundle
from wastejax.bundled import copy_license
from wastejax.data.cache import cache_dir
from wastejax.data.description import is_description, open_description
from wastejax.data.description.meant import meant_by, open_labeled
from wastejax.data.duplicates import group_duplicates, joined_groups, scan
from wastejax.data.formats.boxes import Reading
from wastejax.data.pipeline import EvalBatches
from wastejax.errors import UserError
from wastejax.evaluation.by_source import score_by_source
from wastejax.evaluation.metrics import bootstrap_statistic
from wastejax.evaluation.ood import bin_probability
from wastejax.evaluation.selective import choose_threshold_surely
from wastejax.evaluation.trust import calibrate
from wastejax.models.familiarity import COLLECTION
from wastejax.progress import Say
from wastejax.training.heads import (
    Head,
    cluster,
    compute_features,
    fit_head,
    head_of,
    logits_of,
    with_familiarity,
    with_head,
)

DECAY, STEPS = 0.003, 100  # of a classifier that begins at zero
NEAR = 0.1  # decay of one that stays near the model's own
FOLDS, PROTOTYPES, SEED = 5, 32, 17
FEWEST = 10  # different images to adapt to: near-duplicates, and images of one given group, count as one
SURE = 0.8  # two-sided: a gain counts where nine in ten bootstraps have one


@dataclass(frozen=True, eq=False)
class Seen:
    """What a frozen network sees of N images.

    Attributes:
        features: float32 [N, D].
        allowed: bool [N, C], the bundle's classes that each image's label can mean; none: it shows none of them.
        members: str [N], sources.
        groups: int [N], near-duplicates.
        weights: source -> its share of all images; empty where nobody said.
        materials: what each class is made of; None leaves materials out.
    """

    features: np.ndarray
    allowed: np.ndarray
    members: np.ndarray
    groups: np.ndarray
    weights: Mapping[str, float]
    materials: tuple[frozenset[str], ...] | None = None

    def of_images(self) -> np.ndarray:
        """Returns how much each image counts, float [N], so that the sources have their shares."""
        if not self.weights:
            return np.ones(len(self.members))
        return np.array([self.weights[name] / (self.members == name).sum() for name in self.members])


# Of allowed, members and groups as of `Seen`: raises a UserError where they are too few.
Check = Callable[[np.ndarray, np.ndarray, np.ndarray], object]


def look(
    bundle: Bundle, data: str | Path, labels: str | Path | None, say: Say, check: Check = lambda *of: None
) -> Seen:
    """Computes what a bundle's network sees of images.

    Args:
        bundle: the model.
        data: a folder of class folders, or any other form that `config.data.dir` takes.
        labels: a CSV file of what the labels mean in the model's classes, see `load_label_map`; None where they are
            its classes, or the data description says it.
        say: is told what is left out.
        check: is asked before the network sees the images, which takes minutes or more.

    Raises:
        UserError: the images are not there, or a label has no meaning.
    """
    reading = Reading.of(bundle.config)
    mixture = open_description(data, "--data", reading) if is_description(data) else None
    source = mixture.source if mixture and labels is None else open_labeled(data, labels, reading)
    source.tell_notes(say)
    meant_by(source, bundle.classes, data, labels)  # before anything slow
    found = scan(source, cache_dir())
    for index, reason in sorted(found.bad.items()):
        say(f"left out: {source.names[index]}: {reason}")
    source = source.select(found.good)
    groups = joined_groups(group_duplicates(found.phash[found.good], found.gray[found.good]), source.groups)
    meant = meant_by(source, bundle.classes, data, labels)
    members = np.array(meant.members)
    check(meant.allowed, members, groups)
    say(f"looking at {len(source):,} images")
    batches = EvalBatches(
        source, np.arange(len(source)), bundle.preprocessing, bundle.config["eval"]["batch_size"]
    )
    features = compute_features(bundle, batches)
    weights = mixture.weights if mixture else {}
    return Seen(features, meant.allowed, members, groups, weights, meant.materials)


def sources_in_turn(allowed: np.ndarray, members: np.ndarray, groups: np.ndarray) -> list[str]:
    """Returns the sources that can be left out in turn; takes what `Seen` holds.

    Raises:
        UserError: there are not two, or nothing is left to learn from without one.
    """
    shown = allowed.any(axis=1)
    names: list[str] = list(dict.fromkeys(members[shown].tolist()))
    if len(names) < 2:
        raise UserError(
            "--by=source: needs images of two sources that show classes, or more; a .toml description names them"
        )
    for name in names:
        if not (_without(name, members, groups) & shown).any():
            raise UserError(
                f"--by=source: without {name} and its near-duplicates nothing is left to learn from"
            )
    return names


def _without(name: str, members: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns which images are neither of a source nor near-duplicates of its images, bool [N]."""
    mine = members == name
    return ~mine & ~np.isin(groups, groups[mine])


def crossval_by_source(bundle: Bundle, seen: Seen) -> dict[str, dict[str, Any]]:
    """Scores each source by a classifier that was fitted to the others alone, on the frozen network.

    Near-duplicates of its images are left out of the others too. Temperature and threshold are chosen on the images
    that the classifier was fitted to, by source in turn.

    Args:
        bundle: whose network it is; its own classifier is not used, as it may have learned from the source.
        seen: images of at least two sources that show classes.

    Returns:
        Source -> its scores, see `score_by_source`.

    Raises:
        UserError: there are not two sources to learn from in turn.
    """
    shown = np.asarray(seen.allowed.any(axis=1))
    names = sources_in_turn(seen.allowed, seen.members, seen.groups)
    out = {name: _fitted(bundle, seen, _without(name, seen.members, seen.groups), None) for name in names}
    scores: dict[str, dict[str, Any]] = {}
    for name in names:
        mine = seen.members == name
        # What is promised of a source has to be known without it: from the others, each when it was left out.
        rest = [(other, shown & (seen.members == other)) for other in names if other != name]
        logits = np.concatenate([out[other][rows] for other, rows in rest])
        allowed = np.concatenate([seen.allowed[rows] for _, rows in rest])
        calibration = calibrate(logits, _labels(logits, allowed), bundle.bins_or_own)
        scores |= score_by_source(
            out[name][mine],
            seen.allowed[mine],
            [name] * int(mine.sum()),
            calibration.temperature,
            calibration.thresholds["0.95"],
            bundle.bins_or_own,
            seen.materials,
        )
    return scores


def check_enough(allowed: np.ndarray, members: np.ndarray, groups: np.ndarray) -> None:
    """Raises a UserError where images are too few to adapt to; takes what `Seen` holds."""
    count = len(np.unique(groups[allowed.any(axis=1)]))
    if count < FEWEST:
        raise UserError(
            f"adapt: needs {FEWEST} different labeled images or more, has {count}: near-duplicates, and images of "
            "one group, count as one"
        )


def adapt(bundle: Bundle, seen: Seen, out: Path) -> dict[str, Any]:
    """Fits a model's last layer and confidence to one's own camera, if that helps, and writes it.

    Args:
        bundle: the model.
        seen: some tens of labeled images or more.
        out: folder of the new bundle.

    Returns:
        What `taught_by` returns, and `written`, whether the gain is surely above zero, so that `out` was written.

    Raises:
        UserError: there are too few images.
    """
    taught, result = taught_by(bundle, seen)
    if taught is not None:
        # Its last layer has seen classes as often as they come here, whatever the recipe weighed.
        data = bundle.config["data"] | {"balanced_sampling": False}
        loss = bundle.config.get("loss", {}) | {"class_weights": False}
        config = bundle.config | {"data": data, "loss": loss}
        save_bundle(out, replace(taught, config=config, path=out, metrics={}, confusion=None, prior=()))
        copy_license(bundle.path, out)
        load_bundle(out)  # it can be read again
    return result | {"written": taught is not None}


def taught_by(bundle: Bundle, seen: Seen) -> tuple[Bundle | None, dict[str, Any]]:
    """Fits a model's last layer and confidence to labeled images.

    Returns:
        The model, not yet saved; None where no gain is sure. And `num_images`, those that show a class, and
        `num_outliers`, those that show none; `before` and `after`, shares of right answers, by cross-validation
        over near-duplicates; `gain` and `gain_ci95`; with a gain also `kept`, the share of answers at the threshold
        for 95 %, `right_of_kept`, and `outliers_kept`, None where there are none.

    Raises:
        UserError: there are too few images.
    """
    rows = np.asarray(seen.allowed.any(axis=1))
    check_enough(seen.allowed, seen.members, seen.groups)
    _, group_of, sizes = np.unique(seen.groups[rows], return_inverse=True, return_counts=True)
    folds = _folds(seen.groups, rows)
    before = logits_of(bundle, seen.features)
    after = before.copy()
    for fold in range(FOLDS):
        after[folds == fold] = _fitted(bundle, seen, folds != fold, head_of(bundle))[folds == fold]
    right = [seen.allowed[np.arange(len(rows)), x.argmax(axis=1)][rows] for x in (before, after)]
    gain = right[1].astype(float) - right[0]
    result = {
        "num_images": int(rows.sum()),
        "num_outliers": int((~rows).sum()),
        "before": float(right[0].mean()),
        "after": float(right[1].mean()),
        "gain": float(gain.mean()),
        "gain_ci95": list(gain_interval(gain, group_of)),
    }
    if gain_interval(gain, group_of, SURE)[0] <= 0:
        return None, result
    own = after[rows] / bundle.temperature  # where no other temperature helps, it keeps its own
    calibration = calibrate(own, _labels(own, seen.allowed[rows]), bundle.bins_or_own)
    temperature = bundle.temperature * calibration.temperature
    every = np.ones(len(rows), bool)  # also of no class, as in cross-validation: to be unsure of their like
    taught = with_head(acquainted(bundle, seen.features[rows]), near_head(seen, every, head_of(bundle)))
    sure = bin_probability(after, temperature, bundle.bins_or_own)
    thresholds = {
        wanted: _promised(
            choose_threshold_surely(sure[rows], right[1], float(wanted), counts=1 / sizes[group_of]),
            found,
            bundle,
            wanted,
        )
        for wanted, found in calibration.thresholds.items()
    }
    kept = sure >= (np.inf if thresholds["0.95"] is None else thresholds["0.95"])
    result |= {
        "kept": float(kept[rows].mean()),
        "right_of_kept": float(right[1][kept[rows]].mean()) if kept[rows].any() else None,
        "outliers_kept": None if rows.all() else float(kept[~rows].mean()),
    }
    return replace(taught, temperature=temperature, thresholds=thresholds), result


def _folds(groups: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Returns which of `FOLDS` each image is held out in, int [N]: whole groups, dealt evenly.

    Args:
        groups: int [N], near-duplicates.
        shown: bool [N], images that show classes; groups of others alone are dealt for themselves.
    """
    rng, first = np.random.default_rng(SEED), np.unique(groups[shown])
    dealt = [rng.permutation(part) for part in (first, np.setdiff1d(groups, first))]
    fold_of = {group: place % FOLDS for part in dealt for place, group in enumerate(part.tolist())}
    return np.array([fold_of[group] for group in groups.tolist()])


def gain_interval(gain: np.ndarray, groups: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean gain, for which whole groups are drawn.

    Images of a group are alike, so that what a model gains on one it gains on all: taken as independent, ten copies
    of each image would make any gain look sure.

    Args:
        gain: float [N], of each image.
        groups: int [N], near-duplicates.
        level: see `bootstrap_interval`.

    Returns:
        (low, high).
    """
    _, group_of = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(group_of, gain), np.bincount(group_of)
    return bootstrap_statistic(
        lambda of_groups, images: float(of_groups.sum() / images.sum()), sums, counts, seed=SEED, level=level
    )


def _promised(surely: float | None, found: float | None, bundle: Bundle, wanted: str) -> float | None:
    """Returns `surely`, or the higher of `found` and the model's own: few images do not lower it by luck."""
    if surely is not None:
        return surely
    own = bundle.thresholds.get(wanted)
    return own if found is None or own is None else max(found, own)


def near_head(seen: Seen, rows: np.ndarray, start: Head | None) -> Head:
    """Returns a classifier fitted to the images of `rows`, bool [N], near the one that it starts from, if any."""
    return fit_head(
        seen.features[rows],
        seen.allowed[rows],
        seen.of_images()[rows],
        decay=DECAY if start is None else NEAR,
        start=start,
        steps=STEPS,
    )


def _fitted(bundle: Bundle, seen: Seen, rows: np.ndarray, start: Head | None) -> np.ndarray:
    """Returns the logits of all images by a classifier that was fitted to those of `rows`."""
    taught = with_head(bundle, near_head(seen, rows, start))
    learned = seen.features[rows & seen.allowed.any(axis=1)]
    if start is not None:
        taught = acquainted(taught, learned)
    elif COLLECTION in bundle.variables:
        taught = with_familiarity(taught, learned)
    return logits_of(taught, seen.features)


def acquainted(bundle: Bundle, features: np.ndarray) -> Bundle:
    """Returns the bundle with what these images look like among what is familiar, where it knows such a thing."""
    known = bundle.variables.get(COLLECTION)
    if known is None:
        return bundle
    prototypes = np.concatenate([known["prototypes"], cluster(features, PROTOTYPES).T], axis=1)
    return replace(bundle, variables=bundle.variables | {COLLECTION: {**known, "prototypes": prototypes}})


def _labels(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Returns a class for each image, int [N]: of those that its label can mean, the likeliest."""
    return np.where(allowed, logits, -np.inf).argmax(axis=1)
