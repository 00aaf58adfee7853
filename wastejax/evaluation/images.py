"""Which images a model is scored on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.bundle import Bundle
from wastejax.data.cache import cache_dir
from wastejax.data.corrections import Changes, corrections_of_run, load_corrections
from wastejax.data.description.meant import meant_by, open_labeled
from wastejax.data.drawing.dataset import embedded
from wastejax.data.duplicates import scan
from wastejax.data.formats.boxes import Reading
from wastejax.data.prepare import one_class
from wastejax.data.sources import Source, open_data, open_source
from wastejax.data.split import SPLITS, load_manifest, recognize
from wastejax.errors import ConfigError, UserError, nearest
from wastejax.progress import Say


@dataclass(frozen=True)
class Asked:
    """Which images a model is scored on.

    Attributes:
        model: a run or bundle; None for the bundled model.
        data: labeled images, see `open_data`; None for the images of the run.
        split: 'train', 'val' or 'test'; None for all of `data` that the run did not learn from, or
            for the run's test images.
        skip_bad: leave unreadable images out instead of refusing them.
        corrections: of the images' labels, a file; None for those that the run was trained with, where its own
            images are asked for.
        partial: also images of a data description whose label means several classes or none.

    Raises:
        UserError: there is no such split.
    """

    model: str | Path | None = None
    data: str | Path | None = None
    split: str | None = None
    skip_bad: bool = False
    corrections: str | Path | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        """Checks the split."""
        if self.split not in (None, *SPLITS):
            raise UserError(f"--split={self.split}: no such split{nearest(str(self.split), SPLITS)}")


def asked_images(
    asked: Asked, config: Mapping[str, Any], say: Say = lambda line: None
) -> tuple[Source, np.ndarray]:
    """Returns a source and the images of it that are asked for, indices int64.

    Args:
        asked: which.
        config: of the model.
        say: is told what is left out, and why.

    Raises:
        UserError: there are none.
    """
    if asked.data:
        models = [asked.model] if asked.model else []
        return given_images(asked, models, config, say)
    manifest = manifest_of(asked.model)
    if manifest is None:
        raise UserError("--data: a bundle alone has no images; give a folder, one subfolder per class")
    source = own_source(config)
    try:
        listed = load_manifest(manifest, source, run_changes(asked.model, source).labels)
    except ConfigError as error:
        raise UserError(f"{error}; were the run's images moved? Give their folder as --data") from None
    changes = changes_asked(asked, source)
    kept = ~np.isin(listed.indices, _of_classes(source, config["data"].get("leave_out", ()), changes))
    source = changes.relabeled(source).select(listed.indices[kept]).with_shown_classes()
    chosen = np.flatnonzero(listed.splits[kept] == (asked.split or "test"))
    chosen = np.intersect1d(chosen, changes.kept(source))
    return source, chosen if asked.partial else one_class(source, chosen)


def run_changes(model: str | Path | None, source: Source) -> Changes:
    """Returns what a run's own corrections change in a source; nothing where it has none."""
    manifest = manifest_of(model)
    corrections = corrections_of_run(manifest.parent) if manifest else None
    return Changes() if corrections is None else corrections.known(source)


def changes_asked(asked: Asked, source: Source) -> Changes:
    """Returns what corrections change in the images: those that are given, or a run's own in its own images.

    Raises:
        UserError: the corrections are not of these images.
    """
    if asked.corrections:
        return load_corrections(asked.corrections, "--corrections").of(source)
    return Changes() if asked.data else run_changes(asked.model, source)


class MovedError(UserError):
    """The images of a run are no longer where they were."""


class NoSplitError(UserError):
    """Nothing says which images are of the split that is asked for."""


def own_source(config: Mapping[str, Any]) -> Source:
    """Opens the images that a run was made with.

    Args:
        config: of the run.

    Raises:
        MovedError: they are not there, or cannot be read as they were.
    """
    data = config["data"]
    drawn = not data["dir"] and data["source"] == "folder"
    try:
        return open_source(data["source"], str(embedded()) if drawn else data["dir"], Reading.of(config))
    except ConfigError as error:
        raise MovedError(f"the images of this run: {error.problem}; were they moved? Give --data") from None


def manifest_of(model: str | Path | None) -> Path | None:
    """Returns the manifest of a run, given as its folder or that of its bundle; None where there is none."""
    if not model:
        return None
    folder = Path(model).resolve()
    found = (folder.parent if folder.name == "bundle" else folder) / "manifest.csv"
    return found if found.is_file() else None


def given_images(
    asked: Asked, models: Sequence[str | Path], config: Mapping[str, Any], say: Say = lambda line: None
) -> tuple[Source, np.ndarray]:
    """Returns the images of `asked.data` that runs or bundles are to be scored on, and which, indices int64.

    Images that a run was made with are known again, wherever they lie: `asked.split` is then the run's, and without
    one those that any of the runs learned from are left out, unless nothing else is there.

    Args:
        asked: the images; its `model` is not read.
        models: runs or bundles.
        config: of the models; classes that it leaves out of training are dropped.
        say: is told what is left out, and why.

    Raises:
        UserError: the images cannot be read, have no such split, or are not what the corrections are of.
    """
    folder, split, corrections = str(asked.data), asked.split, asked.corrections
    source = open_data(folder, "--data", Reading.of(config))
    source.tell_notes(say)
    changes = load_corrections(corrections, "--corrections").of(source) if corrections else Changes()
    dropped = sorted(set(source.classes) & set(config["data"].get("leave_out", ())))
    if dropped:
        source = source.select(np.setdiff1d(np.arange(len(source)), _of_classes(source, dropped, changes)))
        say(f"note: {', '.join(dropped)} left out, as in training")
    known = _known(source, models)
    if not corrections and any(run_changes(model, source).labels for model in models):
        say(
            "note: the run was trained with corrected labels; --corrections=RUN/corrections.csv scores with them"
        )
    source, kept = changes.relabeled(source), changes.kept(source)
    source, known = source.select(kept).with_shown_classes(), known[:, kept]
    single = one_class(source, np.arange(len(source)))
    if len(single) < len(source) and not asked.partial:
        if not len(single):
            raise UserError(f"--data: {folder}: no label there means exactly one class, which this needs")
        say(
            f"note: images whose label means several classes or none, left out: {len(source) - len(single):,}"
        )
        source, known = source.select(single), known[:, single]
    if split is None:
        return source, _unseen(known, say)
    if len(known) and np.mean((known != "").all(axis=0)) >= 0.5:
        return source, np.flatnonzero((known == split).all(axis=0))
    if source.splits is None:
        raise NoSplitError(
            f"--split={split}: {folder} has no {split}/ folder, and its images are not those of the run; leave "
            "--split out"
        )
    return source, np.flatnonzero(np.array(source.splits) == split)


def _of_classes(source: Source, names: Sequence[str], changes: Changes) -> np.ndarray:
    """Returns int64 [M], the images of some classes by their labels, or by what corrections make of these."""
    if not names:
        return np.empty(0, np.int64)
    now = changes.labels
    labels = zip(source.names, source.label_names, strict=True)
    return np.flatnonzero([label in names or now.get(name) in names for name, label in labels])


def explained_images(
    asked: Asked, labels: str | Path, models: Sequence[str | Path], bundles: Sequence[Bundle], say: Say
) -> tuple[Source, np.ndarray]:
    """Returns images whose labels are explained, and those that no run learned from, int64.

    They are known again by their content alone; where there are no others, all of them are scored, which is said.

    Args:
        asked: the images; its `model` is not read.
        labels: what their labels mean, see `meant_by`.
        models: runs or bundles.
        bundles: loaded bundles; boxes are cut as for the first.
        say: is told what is left out, and why.

    Raises:
        UserError: the images cannot be read, or a label has no meaning.
    """
    if not asked.data or asked.split:
        raise UserError("--labels: needs --data, the folder whose labels it explains, and no --split")
    source = open_labeled(asked.data, labels, Reading.of(bundles[0].config))
    source.tell_notes(say)
    for bundle in bundles:
        meant_by(source, bundle.classes, asked.data, labels)  # before images are compared
    return source, _unseen(_known(source, models, by_label=False), say, "")


def _known(source: Source, models: Sequence[str | Path], by_label: bool = True) -> np.ndarray:
    """Returns str [R, N], the split of each image in each of the models that are runs; '' where it has none."""
    manifests = [manifest for model in models if (manifest := manifest_of(model))]
    if not manifests:
        return np.empty((0, len(source)), "U5")
    phash = scan(source, cache_dir()).phash
    found = []
    for manifest in manifests:
        as_labeled = recognize(manifest, source, phash, by_label)
        changes = run_changes(manifest.parent, source) if by_label else Changes()
        corrected = recognize(manifest, changes.relabeled(source), phash) if changes.labels else as_labeled
        found.append(np.where(as_labeled == "", corrected, as_labeled))
    return np.stack(found)


def _unseen(
    known: np.ndarray, say: Say, way: str = " (--split=train and --split=val score them)"
) -> np.ndarray:
    """Returns the images that no run learned from, int64, of `_known`; all where there are no others, saying so.

    The note of those that are left out ends in the `way` to score them too.
    """
    learned = (known == "train").any(axis=0)
    chose = (known == "val").any(axis=0) & ~learned
    rest = np.flatnonzero(~learned & ~chose)
    count = f"{learned.sum():,} of {known.shape[1]:,} images were trained on, {chose.sum():,} chose the best epoch"
    if not (learned | chose).any():
        return rest
    if not len(rest):
        say(f"note: {count}: the scores flatter")
        return np.arange(known.shape[1])
    say(f"note: {count}: they are left out{way}")
    return rest


def readable(source: Source, indices: np.ndarray, asked: Asked, bundle: Bundle, say: Say) -> np.ndarray:
    """Returns the images among `indices` that can be read, or raises an error that names the others.

    Args:
        source: the images.
        indices: int64 [N], which of them.
        asked: whether to leave the others out.
        bundle: the model, whose config may say so too.
        say: prints a line.
    """
    bad = scan(source.select(indices), cache_dir()).bad
    if not bad:
        return indices
    names = "; ".join(f"{source.names[indices[i]]}: {reason}" for i, reason in sorted(bad.items()))
    if bundle.config["data"]["on_bad_image"] == "raise" and not asked.skip_bad:
        raise UserError(f"{len(bad)} images cannot be read ({names}); fix them, or use --skip-bad")
    if len(bad) == len(indices):
        raise UserError(f"none of the images can be read ({names})")
    say(f"left out: {names}")
    return np.delete(indices, list(bad))
