"""From a data config to labeled, checked, grouped and split images, before anything slow starts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.data.collections.shards import PREFIX, Coded, open_shards
from wastejax.data.corrections import KEY as CORRECTIONS
from wastejax.data.corrections import Changes, Corrections, load_corrections
from wastejax.data.description import Mixture, is_description, open_description
from wastejax.data.duplicates import Scan, group_duplicates, joined_groups, scan
from wastejax.data.formats.boxes import MARGIN, Reading
from wastejax.data.prepare.checks import check_all_left, check_content, check_made, check_opened, check_splits
from wastejax.data.prepare.corrected import asked_of, notes_on_changes, select_held_out, trained_on
from wastejax.data.prepare.kept import Kept, check_described, digest_of, weights_for
from wastejax.data.prepare.notes import describe_scene, notes_on_given, notes_on_split, notes_on_twins
from wastejax.data.sources import Source, open_source
from wastejax.data.split import SPLITS, Manifest, deal_missing, load_manifest, shorten
from wastejax.errors import ConfigError, nearest
from wastejax.progress import Count, Say

_SECONDS_BETWEEN_PROGRESS = 5.0
NOT_COMPARED = (
    "images were not compared with each other, as the split does not depend on it; `wastejax audit`, with "
    "--split=CSV for the split of a manifest, tells how many test images have a near-duplicate in train"
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """N images ready for training.

    Attributes:
        source: the images, without those that were skipped or that the manifest leaves out.
        groups: int32 [N], near-duplicate group.
        splits: str [N], 'train', 'val' or 'test'; of shards, a byte each that compares like it.
        skipped: name -> reason, of unreadable files that were left out.
        notes: what the user should know about the data, one line each.
        left_out: the images of `config.data.leave_out`, the readable ones; None where it is empty.
        phash: N perceptual hashes; those of shards are read as they are needed.
        weights: source of a data description -> its share of the training batches; empty where there is none.
        corrections: what `config.data.corrections` names; None where it is empty.
        corrected: how many images these relabel, drop and confirm.
        digest: of shards, what changes with any of their labels, groups and splits; else empty.
        unused: names of the images that are neither in `source` nor in `left_out`.
        described: see `digest_of`; empty where there is no data description.
    """

    source: Source
    groups: np.ndarray
    splits: np.ndarray | Coded
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: Source | None = None
    phash: Sequence[int] | np.ndarray | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    corrections: Corrections | None = None
    corrected: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""
    unused: tuple[str, ...] = ()
    described: str = ""

    @property
    def kept(self) -> Kept:
        """What a run keeps of them beside its manifest."""
        left_out = () if self.left_out is None else self.left_out.names
        return Kept(
            left_out, self.unused, tuple(self.notes), self.skipped, dict(self.weights), self.described
        )

    def indices(self, split: str) -> np.ndarray:
        """Returns int64 [M], the images of one split, in the order of the source.

        Those of 'val' and 'test' are the ones that show one known class; `all_indices` has the others too.
        """
        chosen = self.all_indices(split)
        return chosen if split == "train" else one_class(self.source, chosen)

    def all_indices(self, split: str) -> np.ndarray:
        """Returns int64 [M], the images of one split, whatever their labels can mean."""
        return np.flatnonzero(self.splits == split)

    def tell(self, say: Say) -> None:
        """Says how many images there are in which split, what is to be known of them, and which are left out."""
        counts = ", ".join(f"{len(self.indices(split)):,} {split}" for split in SPLITS)
        say(f"{len(self.source):,} images, {len(self.source.classes)} classes: {counts}")
        for note in self.notes:
            say(f"note: {note}")
        for name, reason in self.skipped.items():
            say(f"left out: {name}: {reason}")


def one_class(source: Source, indices: np.ndarray) -> np.ndarray:
    """Returns those of the images, int64 [M], whose label means exactly one class."""
    return indices if source.allowed is None else indices[source.allowed[indices].sum(axis=1) == 1]


def prepare(
    data_config: Any,
    seed: int,
    cache_dir: Path | None,
    say: Say = lambda line: None,
    several: bool = False,
    kept: Kept | None = None,
) -> Dataset:
    """Opens the data, reads every file once to find the unreadable ones, and splits them.

    Args:
        data_config: `config.data`: source, dir, on_bad_image, leave_out, corrections, and split.{ratios, group,
            hamming, manifest}.
        seed: of the split.
        cache_dir: where hashes are kept for the next run; None for no cache.
        say: is given a line about progress now and then.
        several: images have any number of labels.
        kept: of the run that resumes, whose manifest is given; None for a new one.

    Raises:
        ConfigError: a value is impossible, there are not enough images or classes, files are unreadable and
            `on_bad_image` is 'raise', or the manifest or what is `kept` does not fit the data.
        UserError: the corrections do not fit the data.
    """
    if data_config.source.startswith(PREFIX):
        return _from_shards(data_config, seed, several)
    mixture, source = _open(data_config, several)
    notes, opened, leave_out = list(source.notes), source.names, data_config.get("leave_out", ())
    corrections, changes = _corrections(source, data_config)
    source, manifest, left_out = _choose(source, data_config, notes, changes, kept)
    after, _ = trained_on(source, changes, leave_out)
    check_described(mixture, after, kept)
    notes += check_opened(asked_of(source, changes), after, manifest is not None)
    good, seen, skipped = _read(source, data_config, changes, cache_dir, say, kept)
    notes += [f"{len(skipped):,} unreadable images are left out"] if skipped else []
    source, phash = source.select(good), seen.phash[good]
    check_all_left(after, source)

    compared = _asks_for_groups(source, manifest, data_config.split)
    if manifest is not None:
        groups, splits = _listed(source, manifest, good, phash, notes, after.classes)
    else:
        groups, scene = _groups(phash, seen.gray[good], data_config.split.hamming if compared else None)
        groups = joined_groups(groups, source.groups)
        splits, dealt = deal_missing(source, source.splits, groups, data_config.split.ratios, seed)
        notes += _check_dealt(asked_of(source, changes), groups, splits, dealt, scene, after.classes)
    if kept is None:  # or it is told
        given = joined_groups(np.arange(len(source)) if manifest is None else groups, source.groups)
        notes += notes_on_given(given, splits, by_manifest=manifest is not None)
    if corrections is not None:
        source, stay = trained_on(source, changes, leave_out)
        groups, splits, phash = groups[stay], splits[stay], phash[stay]
        notes += notes_on_changes(changes, leave_out)
        check_splits(source, groups, splits, ("train",), CORRECTIONS)
    if manifest is None or manifest.phash is None:  # or it is a run's, which has told
        notes += notes_on_twins(source, groups, splits) if compared else [NOT_COMPARED]
    left_out, unreadable = _held_out(left_out, data_config, cache_dir, say, notes)
    dataset = Dataset(source, groups, splits, skipped | unreadable, notes, left_out, phash)
    dataset = replace(dataset, corrections=corrections, corrected=changes.counts)
    return _as_begun(_weighed(dataset, mixture, kept), opened, kept)


def _weighed(dataset: Dataset, mixture: Mixture | None, kept: Kept | None) -> Dataset:
    """Returns the images with the weights of their sources, and what else a data description says of them."""
    members = dataset.source.members or ()
    trained = [members[i] for i in dataset.indices("train")] if members else []
    weights, notes = weights_for(mixture, trained, kept)
    said = digest_of(mixture, dataset.source)
    return replace(dataset, weights=weights, notes=[*dataset.notes, *notes], described=said)


def _as_begun(dataset: Dataset, opened: Sequence[str], kept: Kept | None) -> Dataset:
    """Returns the images of N names that were opened, with what was told as the run that resumes began."""
    used = {*dataset.source.names, *(dataset.left_out.names if dataset.left_out is not None else ())}
    dataset = replace(dataset, unused=tuple(name for name in opened if name not in used))
    if kept is None:
        return dataset
    added = len(set(dataset.unused) - set(kept.unused) - set(dataset.skipped))
    notes = [*kept.notes, *(note for note in dataset.notes if note not in kept.notes)]
    notes += [f"{added:,} images that were added since the run began are left out"] if added else []
    return replace(dataset, notes=notes, skipped=kept.skipped | dataset.skipped)


def _from_shards(config: Any, seed: int, several: bool) -> Dataset:
    """Returns what shards hold, which was checked, grouped and split as they were written."""
    for key, given in (
        ("data.dir", config.dir),
        ("data.leave_out", tuple(config.get("leave_out", ()))),
        ("data.corrections", config.get("corrections", "")),
        ("data.split.manifest", config.split.manifest),
        ("loss.kind", several),
    ):
        if given:
            raise ConfigError(
                f"config.{key}", "does not work with shards, whose labels and split are as they were written"
            )
    found = open_shards(config.source.removeprefix(PREFIX))
    notes = [*found.notes, *check_made(config, found.made, seed)]
    for split in SPLITS:
        if split not in found.splits:
            raise ConfigError("config.data.source", f"the shards hold no image for {split}; write them again")
    dataset = Dataset(found.source, found.groups, found.splits, found.skipped, notes, phash=found.phash)
    return replace(dataset, digest=found.digest)


def _corrections(source: Source, config: Any) -> tuple[Corrections | None, Changes]:
    """Returns what `config.data.corrections` names, and what that changes in all of the data."""
    path = config.get("corrections", "")
    if not path:
        return None, Changes()
    corrections = load_corrections(path)
    return corrections, corrections.of(source)


def _open(config: Any, several: bool) -> tuple[Mixture | None, Source]:
    """Returns the images, and the description that they come from, if any."""
    reading = Reading(config.get("box_margin", MARGIN), several)
    if is_description(config.dir):
        mixture = open_description(config.dir, reading=reading)
        return mixture, mixture.source
    return None, open_source(config.source, config.dir, reading)


def _choose(
    source: Source, config: Any, notes: list[str], changes: Changes, kept: Kept | None
) -> tuple[Source, Manifest | None, Source | None]:
    """Returns the images to use, the manifest's rows for them if any, and those of the classes left out.

    With a manifest, which says who is in which split, their labels are the corrected ones from here on.
    """
    leave_out = config.get("leave_out", ())
    foreign = images_of(source, leave_out)
    chosen, manifest = np.setdiff1d(np.arange(len(source)), foreign), None
    if config.split.manifest:
        manifest = load_manifest(config.split.manifest, source, changes.labels)
        # The manifest of a run lists no image of these classes; a user's own may choose among them.
        among = np.intersect1d(foreign, manifest.indices)
        foreign = among if len(among) else foreign
        dropped = np.setdiff1d(np.arange(len(source)), changes.kept(source))
        unlisted = len(source) - len(np.union1d(np.union1d(manifest.indices, dropped), foreign))
        if unlisted and kept is None:  # or it is told
            notes.append(f"{unlisted:,} images that {config.split.manifest} does not list are left out")
        manifest = manifest.without(foreign)
        chosen = manifest.indices
        if kept is not None:
            foreign = kept.held_out_in(source)
    outside = select_held_out(source, foreign, leave_out, changes, notes) if leave_out else None
    if manifest is None:
        return source.select(chosen), None, outside
    listed = changes.relabeled(source).select(chosen).with_shown_classes()
    lost = {*changes.applied(source).classes} - {*listed.classes, *leave_out}
    if lost and kept is None:
        names = ", ".join(shorten(sorted(lost)))
        notes.append(f"{config.split.manifest} lists no image of {names}, which are not learned")
    return listed, manifest, outside


def images_of(source: Source, names: Sequence[str]) -> np.ndarray:
    """Returns int64 [M], the images of the classes that `config.data.leave_out` names.

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


def _progress(say: Say) -> Count:
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_PROGRESS:
            last = now
            say(f"checking images: {done:,} of {total:,}")

    return progress


def _read(
    source: Source,
    config: Any,
    changes: Changes,
    cache_dir: Path | None,
    say: Say,
    kept: Kept | None = None,
) -> tuple[np.ndarray, Scan, dict[str, str]]:
    """Reads every file once; those that the manifest of a run lists, which is kept, have to be readable.

    Returns int64 [M], the readable images; what was seen of all; name -> reason, of the others that nobody dropped.
    """
    seen = scan(source, cache_dir, _progress(say))
    bad = {
        source.names[i]: why for i, why in sorted(seen.bad.items()) if source.names[i] not in changes.dropped
    }
    lines = "; ".join(shorten([f"{name}: {why}" for name, why in bad.items()]))
    if bad and kept is not None:  # without them the run would go on with other batches and scores
        raise ConfigError("config.data.split.manifest", f"{len(bad):,} can no longer be read ({lines})")
    if bad and config.on_bad_image == "raise":
        raise ConfigError(
            "config.data.on_bad_image",
            f"{len(bad):,} of {len(source):,} images cannot be read ({lines}); fix or "
            "remove them, or leave them out with --config.data.on_bad_image=skip",
        )
    return seen.good, seen, bad


def _held_out(
    left_out: Source | None, config: Any, cache_dir: Path | None, say: Say, notes: list[str]
) -> tuple[Source | None, dict[str, str]]:
    """Returns the readable images of classes that are left out, if any, and the others' reasons; takes notes."""
    if left_out is None:
        return None, {}
    good, _, bad = _read(left_out, config, Changes(), cache_dir, say)
    if not len(good):
        raise ConfigError("config.data.leave_out", "no image of its classes can be read")
    left_out = left_out.select(good)
    notes.append(
        f"{len(left_out):,} images of {', '.join(left_out.classes)} are kept out of training, to test with as "
        "out-of-distribution images"
    )
    return left_out, bad


def _asks_for_groups(source: Source, manifest: Manifest | None, config: Any) -> bool:
    """Returns whether the split depends on near-duplicates: where some of it is dealt here, by groups of them."""
    given = manifest is not None or set(SPLITS) <= set(source.splits or ())
    return config.group == "phash" and not given


def _groups(phash: np.ndarray, gray: np.ndarray, hamming: int | None) -> tuple[np.ndarray, str]:
    """Returns near-duplicate groups, int32 [N], of one image each without a distance; and what tells of a scene."""
    if hamming is None:
        return np.arange(len(phash), dtype=np.int32), ""
    groups = group_duplicates(phash, gray, hamming)
    return groups, describe_scene(phash, gray, groups)


def _listed(
    source: Source,
    manifest: Manifest,
    good: np.ndarray,
    phash: np.ndarray,
    notes: list[str],
    lasting: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the groups and splits of a manifest's readable images (int64 [M]); takes notes.

    The classes are `lasting` that the corrections leave an image.
    """
    groups, splits = manifest.groups[good], manifest.splits[good]
    check_splits(source, groups, splits, ("train",), "config.data.split.manifest", lasting=lasting)
    if manifest.phash is not None:
        notes += check_content(source, phash, manifest.phash[good])
    return groups, splits


def _check_dealt(
    source: Source,
    groups: np.ndarray,
    splits: np.ndarray,
    dealt: Sequence[str],
    scene: str,
    lasting: Sequence[str],
) -> list[str]:
    """Checks splits of which some were `dealt` to groups, and returns notes. `lasting` is as for `_listed`."""
    check_splits(source, groups, splits, dealt, "config.data.dir", scene, lasting)
    notes = notes_on_split(source, splits, dealt, lasting)
    return [*notes, f"{scene}. They stay on one side of the split"] if scene else notes
