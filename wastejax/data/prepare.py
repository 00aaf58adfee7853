"""From a data config to labelled, checked, grouped and split pictures, before anything slow starts."""

import difflib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.data.corrections import KEY as CORRECTIONS
from wastejax.data.corrections import Changes, Corrections, load_corrections
from wastejax.data.description import is_description, open_description
from wastejax.data.duplicates import exact_copies, group_duplicates, joined_groups, scan, scene_groups
from wastejax.data.formats.boxes import MARGIN
from wastejax.data.formats.class_folders import same_name
from wastejax.data.sources import Source, open_source
from wastejax.data.split import SAME_CONTENT, SPLITS, Manifest, load_manifest, shorten, stratified_group_split
from wastejax.errors import ConfigError, nearest

_LARGE_GROUP = 0.05  # share of the set above which a group of near-duplicates is reported
_FINE = 2  # Hamming distance that is advised where a scene makes all images alike
_SECONDS_BETWEEN_PROGRESS = 5.0


@dataclass(frozen=True, eq=False)
class Dataset:
    """N pictures ready for training.

    Attributes:
        source: the pictures, without those that were skipped or that the manifest leaves out.
        groups: int32 [N], near-duplicate group.
        splits: str [N], 'train', 'val' or 'test'.
        skipped: name -> reason, of unreadable files that were left out.
        notes: what the user should know about the data, one line each.
        left_out: the pictures of `config.data.leave_out`, the readable ones; None where it is empty.
        phash: uint64 [N], perceptual hashes.
        weights: source of a data description -> its share of the training batches; empty where there is none.
        corrections: what `config.data.corrections` names; None where it is empty.
        corrected: how many images these relabel, drop and confirm.
    """

    source: Source
    groups: np.ndarray
    splits: np.ndarray
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: Source | None = None
    phash: np.ndarray | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    corrections: Corrections | None = None
    corrected: Mapping[str, int] = field(default_factory=dict)

    def indices(self, split: str) -> np.ndarray:
        """Returns int64 [M], the pictures of one split, in the order of the source.

        Those of 'val' and 'test' are the ones that show one known class; `all_indices` has the others too.
        """
        chosen = self.all_indices(split)
        return chosen if split == "train" else one_class(self.source, chosen)

    def all_indices(self, split: str) -> np.ndarray:
        """Returns int64 [M], the pictures of one split, whatever their labels can mean."""
        return np.flatnonzero(self.splits == split)


def one_class(source: Source, indices: np.ndarray) -> np.ndarray:
    """Returns those of the pictures, int64 [M], whose label means exactly one class."""
    return indices if source.allowed is None else indices[source.allowed[indices].sum(axis=1) == 1]


def prepare(
    data_config: Any, seed: int, cache_dir: Path | None, say: Callable[[str], None] = lambda line: None
) -> Dataset:
    """Opens the data, reads every file once to find the unreadable ones, and splits them.

    Args:
        data_config: `config.data`: source, dir, on_bad_image, leave_out, corrections, and split.{ratios, group,
            hamming, manifest}.
        seed: of the split.
        cache_dir: where hashes are kept for the next run; None for no cache.
        say: is given a line about progress now and then.

    Raises:
        ConfigError: a value is impossible, there are not enough pictures or classes, files are unreadable and
            `on_bad_image` is 'raise', or the manifest does not fit the data.
        UserError: the corrections do not fit the data.
    """
    split_config = data_config.split
    margin = data_config.get("box_margin", MARGIN)
    mixture = open_description(data_config.dir) if is_description(data_config.dir) else None
    source = mixture.source if mixture else open_source(data_config.source, data_config.dir, margin)
    notes = list(source.notes)
    corrections, changes = _corrections(source, data_config)
    source, manifest, left_out = _choose(source, data_config, notes, changes)
    if source.empty_folders and manifest is None:
        raise ConfigError(
            "config.data.dir", f"no images in {_listed(source.empty_folders)}; add some or remove it"
        )
    _check_classes(source, least=1 if manifest is not None or source.splits is not None else len(SPLITS))
    if manifest is None and source.splits is not None:
        notes += _check_given(changes.applied(source))

    seen = scan(source, cache_dir, _progress(say))
    seen_bad = {i: reason for i, reason in seen.bad.items() if source.names[i] not in changes.dropped}
    good = _without_bad(source, seen_bad, data_config.on_bad_image)
    good = np.setdiff1d(good, list(seen.bad))
    skipped = {source.names[i]: reason for i, reason in seen_bad.items()}
    if skipped:
        notes.append(f"{len(skipped):,} unreadable images are left out")
    lost = set(range(len(source.classes))) - set(source.labels[good].tolist())
    if lost:
        names = _listed(source.classes[label] for label in lost)
        raise ConfigError("config.data.dir", f"no readable image in {names}; add some or remove the folder")
    source = source.select(good)

    phash, grey = seen.phash[good], seen.grey[good]
    twins = group_duplicates(phash, grey, split_config.hamming)
    scene = _describe_scene(phash, grey, twins)
    if mixture is not None:
        given = dict(zip(mixture.source.names, mixture.together, strict=True))
        twins = joined_groups(twins, [given[name] for name in source.names])
    if manifest is not None:
        groups, splits = manifest.groups[good], manifest.splits[good]
        _check_splits(source, groups, splits, ("train",), "config.data.split.manifest", "")
        if manifest.phash is not None:
            notes += _check_content(source, phash, manifest.phash[good])
    else:
        groups = twins if split_config.group == "phash" else np.arange(len(source), dtype=np.int32)
        groups = groups if source.groups is None else joined_groups(groups, source.groups)
        splits, dealt = _split(source, groups, split_config, seed)
        grouped = split_config.group == "phash"
        _check_splits(source, groups, splits, dealt, "config.data.dir", scene if grouped else "")
        notes += _notes_on_split(source, splits, dealt)
        notes += [f"{scene}. They stay on one side of the split"] if scene and grouped else []
    if corrections is not None:
        kept = _corrected(source, changes, data_config.get("leave_out", ()), notes)
        source = changes.relabeled(source).select(kept)
        groups, splits, twins, phash = groups[kept], splits[kept], twins[kept], phash[kept]
        _check_splits(source, groups, splits, ("train",), CORRECTIONS, "")
    notes += _notes_on_twins(source, twins, splits)
    if left_out is not None:
        bad = scan(left_out, cache_dir, _progress(say)).bad
        skipped |= {left_out.names[i]: reason for i, reason in bad.items()}
        left_out = left_out.select(_without_bad(left_out, bad, data_config.on_bad_image))
        left_out = left_out.select(
            [i for i, n in enumerate(left_out.names) if n not in changes.labels and n not in changes.dropped]
        )
        if not len(left_out):
            raise ConfigError("config.data.leave_out", "the corrections leave no image of its classes")
        names = ", ".join(left_out.classes)
        notes.append(
            f"{len(left_out):,} images of {names} are kept out of training, to test with as out-of-distribution "
            "images"
        )
    weights = mixture.weights if mixture else {}
    return Dataset(
        source, groups, splits, skipped, notes, left_out, phash, weights, corrections, changes.counts
    )


def _corrections(source: Source, config: Any) -> tuple[Corrections | None, Changes]:
    """Returns what `config.data.corrections` names, and what that changes in all of the data."""
    path = config.get("corrections", "")
    if not path:
        return None, Changes()
    corrections = load_corrections(path)
    return corrections, corrections.of(source)


def _corrected(source: Source, changes: Changes, leave_out: Sequence[str], notes: list[str]) -> np.ndarray:
    """Returns int64 [M], the images that corrections leave in, and notes what they change."""
    away = {name for name, label in changes.labels.items() if label in leave_out}
    kept = np.array([i for i in changes.kept(source) if source.names[i] not in away], np.int64)
    said = ", ".join(f"{count:,} {what}" for what, count in changes.counts.items())
    notes.append(f"corrections of labels: {said}; they stay in their splits")
    if away:
        notes.append(f"{len(away):,} images corrected to classes that are left out are not trained on")
    if changes.gone:
        notes.append(f"{changes.gone:,} corrections drop images that are not there any more")
    return kept


def _choose(
    source: Source, config: Any, notes: list[str], changes: Changes
) -> tuple[Source, Manifest | None, Source | None]:
    """Returns the pictures to use, the manifest's rows for them if any, and those of the classes left out.

    With a manifest, which says who is in which split, their labels are the corrected ones from here on.
    """
    foreign = pictures_of(source, config.get("leave_out", ()))
    chosen, manifest = np.setdiff1d(np.arange(len(source)), foreign), None
    if config.split.manifest:
        manifest = load_manifest(config.split.manifest, source, changes.labels)
        dropped = np.setdiff1d(np.arange(len(source)), changes.kept(source))
        unlisted = len(source) - len(np.union1d(np.union1d(manifest.indices, dropped), foreign))
        if unlisted:
            notes.append(f"{unlisted:,} images that {config.split.manifest} does not list are left out")
        # The manifest of a run lists no picture of these classes; a user's own may choose among them.
        listed = np.intersect1d(foreign, manifest.indices)
        foreign = listed if len(listed) else foreign
        manifest = manifest.without(foreign)
        chosen = manifest.indices
        source = changes.relabeled(source)
    return source.select(chosen), manifest, source.select(foreign) if len(foreign) else None


def pictures_of(source: Source, names: Sequence[str]) -> np.ndarray:
    """Returns int64 [M], the pictures of the classes that `config.data.leave_out` names.

    Raises:
        ConfigError: there is no such class, or hardly another one.
    """
    key = "config.data.leave_out"
    for name in names:
        if name not in source.classes:
            raise ConfigError(key, f"there is no class {name!r}{nearest(name, source.classes)}")
    if names and len(set(source.classes) - set(names)) < 2:
        raise ConfigError(key, "leaves fewer than two classes to train on")
    return np.flatnonzero(np.isin(source.labels, [source.classes.index(name) for name in names]))


def _check_classes(source: Source, least: int) -> None:
    """Checks that there are two classes of at least `least` pictures."""
    if len(source.classes) < 2:
        only = source.classes[0] if source.classes else "none"
        raise ConfigError(
            "config.data.dir", f"holds a single class, {only!r}; at least two folders are needed"
        )
    counts = np.bincount(source.labels, minlength=len(source.classes))
    few = [f"{name!r} ({count})" for name, count in zip(source.classes, counts, strict=True) if count < least]
    if few:
        raise ConfigError(
            "config.data.dir",
            f"too few images to split: class {_listed(few)}; each class needs at least {least}",
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(shorten(sorted(names)))


def _progress(say: Callable[[str], None]) -> Callable[[int, int], None]:
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_PROGRESS:
            last = now
            say(f"checking images: {done:,} of {total:,}")

    return progress


def _without_bad(source: Source, bad: dict[int, str], on_bad_image: str) -> np.ndarray:
    """Returns int64 [M], the readable pictures, or raises an error that names the others."""
    if bad and on_bad_image == "raise":
        lines = [f"{source.names[i]}: {reason}" for i, reason in sorted(bad.items())]
        raise ConfigError(
            "config.data.on_bad_image",
            f"{len(bad):,} of {len(source):,} images cannot be read ({'; '.join(shorten(lines))}); fix or "
            "remove them, or leave them out with --config.data.on_bad_image=skip",
        )
    return np.setdiff1d(np.arange(len(source)), list(bad)).astype(np.int64)


def _split(source: Source, groups: np.ndarray, config: Any, seed: int) -> tuple[np.ndarray, list[str]]:
    """Splits by the folders where they say, and by ratio, class, domain and group where they do not.

    A part that the folders lack (many sets have no val) is taken from train.

    Returns:
        str [N], the split of each picture, and the names of the splits that were dealt here.
    """
    splits = np.full(len(source), "train") if source.splits is None else np.array(source.splits, "U5")
    dealt = [split for split in SPLITS if split == "train" or split not in splits]
    if len(dealt) > 1:
        pool = np.flatnonzero(splits == "train")
        ratios = [config.ratios[SPLITS.index(split)] for split in dealt]
        domains = [source.domains[i] for i in pool]
        splits[pool] = stratified_group_split(source.labels[pool], domains, groups[pool], ratios, seed, dealt)
    return splits, dealt


def _check_content(source: Source, phash: np.ndarray, meant: np.ndarray) -> list[str]:
    """Returns a note on images that are not those that a manifest means, by their hashes (uint64 [N]).

    Raises:
        ConfigError: they are too many for a few changes: these are other images of the same names.
    """
    changed = np.flatnonzero(np.bitwise_count(phash ^ meant) > SAME_CONTENT)
    if not len(changed):
        return []
    names = ", ".join(shorten([source.names[i] for i in changed], 5))
    problem = (
        f"{len(changed):,} of {len(source):,} images are not those that the manifest means, by their content"
    )
    if len(changed) > _LARGE_GROUP * len(source):
        raise ConfigError("config.data.split.manifest", f"{problem}: {names}")
    return [f"{problem}: {names}"]


def _check_given(source: Source) -> list[str]:
    """Checks the splits that the data come in, and returns notes on classes that val or test lack.

    Raises:
        ConfigError: train is missing, or lacks a class.
    """
    splits = np.array(source.splits)
    has = {split: {source.classes[i] for i in source.labels[splits == split]} for split in SPLITS}
    if not has["train"]:
        raise ConfigError(
            "config.data.dir", f"has {' and '.join(s for s in SPLITS if has[s])}, and no train to learn from"
        )
    for name in sorted(set(source.classes) - has["train"]):
        where = " and ".join(split for split in SPLITS if name in has[split])
        raise ConfigError(
            "config.data.dir",
            f"class {name!r} is in {where}, and not in train{_near_class(name, has['train'])}",
        )
    return [
        f"{split} has no images of {_listed(lacking)}: they are learned, and not scored there"
        for split in SPLITS
        if has[split] and (lacking := has["train"] - has[split])
    ]


def _near_class(name: str, classes: set[str]) -> str:
    """Returns '; did you mean …?' where there is such a class, else what to do."""
    alike = [other for other in sorted(classes) if same_name(other) == same_name(name)]
    close = alike or difflib.get_close_matches(name, sorted(classes), n=1, cutoff=0.75)
    return f"; did you mean {close[0]!r}?" if close else "; add images of it there, or remove it"


def _check_splits(
    source: Source, groups: np.ndarray, splits: np.ndarray, dealt: Sequence[str], key: str, scene: str
) -> None:
    """Checks that no split is empty, and that every class has images in the splits that were `dealt`.

    Args:
        source: N images.
        groups: int [N], which were not torn apart.
        splits: str [N].
        dealt: splits that were made here; those of a manifest or of folders may lack classes.
        key: what to blame.
        scene: by `_describe_scene`: why there may be too few groups.
    """
    for label, name in enumerate(source.classes):
        mine = source.labels == label
        missing = [split for split in dealt if not np.any(mine & (splits == split))]
        pool = mine & np.isin(splits, dealt)
        if not missing:
            continue
        count, distinct = int(np.sum(pool)), len(np.unique(groups[pool]))
        lacking = f"class {name!r} has no image in {' and '.join(missing)}"
        if not count:
            problem = f"{lacking}{_near_class(name, _classes_of(source, splits == missing[0]))}"
        elif count < len(dealt):
            problem = f"{lacking}: its {count} cannot be dealt to {' and '.join(dealt)}; add some"
        elif scene:
            problem = f"{lacking}: {scene}"
        elif len(dealt) == 1:
            problem = f"{lacking}; add some there, or remove the class"
        else:
            problem = (
                f"{lacking}: its {count} form {distinct} groups of near-duplicates, which are not torn apart; add "
                "images, remove the class, or set config.data.split.group='none'"
            )
        raise ConfigError(key, problem)
    empty = [split for split in SPLITS if split not in splits]
    if empty:
        raise ConfigError(
            key, f"no image is left for {' and '.join(empty)}; all of {', '.join(SPLITS)} are needed"
        )


def _classes_of(source: Source, chosen: np.ndarray) -> set[str]:
    """Returns the names of the classes of some images, bool [N]."""
    return {source.classes[label] for label in source.labels[chosen]}


def _describe_scene(phash: np.ndarray, grey: np.ndarray, twins: np.ndarray) -> str:
    """Returns what to say where most images look alike and yet differ, with the ways out; '' elsewhere."""
    if not len(twins):
        return ""
    scenes = scene_groups(twins, exact_copies(phash, grey)[1])
    if not len(scenes):
        return ""
    count = int(np.sum(np.isin(twins, scenes)))
    finer = len(np.unique(group_duplicates(phash, grey, _FINE)))
    return (
        f"{count:,} of {len(twins):,} images look like copies of each other and yet differ: a fixed camera, or one "
        f"ground behind small objects? config.data.split.hamming={_FINE} takes fewer for copies ({finer:,} groups "
        "are then left), config.data.split.group='none' splits at random; or give train, val and test folders of "
        "your own, by day or place"
    )


def _notes_on_split(source: Source, splits: np.ndarray, dealt: Sequence[str]) -> list[str]:
    """Describes what was decided in splitting: parts taken from train, and classes too small to split well."""
    notes = []
    if source.splits is not None:
        taken = [f"{int(np.sum(splits == split)):,} as {split}" for split in dealt if split != "train"]
        if taken:
            notes.append(
                f"the data come without it, so of train's images are set aside {' and '.join(taken)}"
            )
    small = []
    for label, name in enumerate(source.classes):
        counts = [int(np.sum(splits[source.labels == label] == split)) for split in SPLITS]
        if min(counts[1:]) == 1:
            small.append(f"{name} ({'/'.join(map(str, counts))})")
    if small:
        notes.append(
            f"classes with one image in val or test, whose scores mean little: {', '.join(shorten(small))} as "
            "train/val/test"
        )
    return notes


def _notes_on_twins(source: Source, twins: np.ndarray, splits: np.ndarray) -> list[str]:
    """Describes near-duplicates (int [N] groups): how many, across classes or splits, and too large."""
    sizes = np.bincount(twins)
    repeated = np.flatnonzero(sizes > 1)
    if not len(repeated):
        return []
    count = int(sizes[repeated].sum())
    notes = [
        f"{count:,} of {len(source):,} images are near-duplicates of others, in {len(repeated):,} groups"
    ]
    across_classes = _groups_with_several(twins, source.labels)
    if across_classes:
        notes.append(
            f"groups of near-duplicates that span several classes (label errors?): {across_classes:,}"
        )
    held_out = np.isin(twins, twins[splits == "train"]) & (splits == "test")
    leaked = int(held_out.sum())
    if leaked:
        share = leaked / max(1, int(np.sum(splits == "test")))
        notes.append(
            f"{leaked:,} test images ({share:.0%}) have a near-duplicate in train, which flatters test "
            "accuracy; config.data.split.group='phash' on undivided folders avoids it"
        )
    large = repeated[sizes[repeated] > _LARGE_GROUP * len(source)]
    if len(large):
        top = large[np.argmax(sizes[large])]
        member = source.names[int(np.argmax(twins == top))]
        notes.append(
            f"groups of near-duplicates over {_LARGE_GROUP:.0%} of the set: {len(large)}, the largest of "
            f"{sizes[top]:,} images ({sizes[top] / len(source):.0%}), {member} among them"
        )
    return notes


def _groups_with_several(groups: np.ndarray, values: np.ndarray) -> int:
    """Counts the groups whose members differ in `values`."""
    pairs = np.unique(np.stack([groups, values], 1), axis=0)
    return int(np.sum(np.bincount(pairs[:, 0]) > 1))
