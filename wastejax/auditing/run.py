"""An audit from a folder to its report: JSON, a page to look at, and a manifest without what was found."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.auditing.findings import Audit, LabelError, audit, clean, summary
from wastejax.auditing.report import headlines, write_html
from wastejax.auditing.table import write_table
from wastejax.bundled import name_of
from wastejax.data.cache import cache_dir
from wastejax.data.corrections import Changes, load_corrections
from wastejax.data.description import is_description
from wastejax.data.duplicates import joined_groups
from wastejax.data.prepare.checks import check_splits
from wastejax.data.prepare.notes import notes_on_dealt
from wastejax.data.sources import Source, check_outside, open_path
from wastejax.data.split import deal_missing, load_manifest, save_manifest
from wastejax.errors import ConfigError, UserError
from wastejax.evaluation.report.review import NAME, Doubt, write_review
from wastejax.files import check_folder, check_unread, user_path, write_json
from wastejax.progress import SILENT, Listener, Say
from wastejax.runtime.ray_cluster import OnRay, cluster, ray_module, reach

FACTS, PAGE, TABLE, MANIFEST = "audit.json", "report.html", "images.parquet", "manifest.csv"
SEED = 17  # of what the cleaned manifest deals: the split, or the parts of it that are not given


@dataclass(frozen=True)
class Options:
    """How a folder is audited.

    Attributes:
        manifest: a CSV whose split is checked for leaks; None for the split that the folders say, if any.
        model: a run, a bundle or pypi:efficientnet-lite0 (-lite1, -lite2): also look for likely label errors.
        write_manifest: also write manifest.csv, without what was found.
        corrections: a file of corrected labels: the audit is of the data as they then are, and what a person has
            confirmed is not doubted again.
        workers: 'local', or 'ray': a cluster reads and decodes the images; they are compared here.
        address: of a running Ray cluster; None to start one on this machine meanwhile.
    """

    manifest: str | Path | None = None
    model: str | Path | None = None
    write_manifest: bool = False
    corrections: str | Path | None = None
    workers: str = "local"
    address: str | None = None


def audit_folder(
    data: str | Path, out: str | Path, options: Options = Options(), listener: Listener = SILENT
) -> dict[str, Any]:
    """Audits class folders, in which nothing is changed, and writes audit.json, images.parquet and two pages.

    Args:
        data: the class folders.
        out: the folder for what is written.
        options: what is asked for.
        listener: is told how far it is, what was found and what is written.

    Returns:
        What audit.json holds; see `summary`.

    Raises:
        UserError: the data, the manifest or the model is not there, `out` lies in the data, or there is no cluster.
    """
    model, corrections = options.model, options.corrections
    say, folder = listener.say, Path(out)
    _check_out(folder, data, options)
    if options.workers == "ray":
        ray_module()
        reach(options.address)
    source = original = _open(data, model)
    given, changes = None, Changes()
    if corrections:
        given = load_corrections(corrections, "--corrections").named_as(source.names)
        changes = given.of(source)
        source = changes.applied(source)
    splits = _splits(data, options, source, original)
    if options.workers == "ray":
        with cluster(options.address) as ray:
            found = audit(source, cache_dir(), progress=listener.count, each=OnRay(ray))
    else:
        found = audit(source, cache_dir(), progress=listener.count)
    found = replace(found, confirmed=changes.confirmed)
    errors = _label_errors(model, found, say) if model else None
    facts: dict[str, Any] = {"data": user_path(data).resolve().name, "model": _public(model)}
    facts |= summary(found, splits, errors)
    facts["corrections"] = None if given is None else {"sha256": given.sha256, **changes.counts}
    _write(folder, found, facts, errors, say)
    doubts = _doubts(found, errors or [])
    if doubts:
        labeled = zip(original.names, original.label_names, strict=True)
        old = {name: label for name, label in labeled if name in changes.labels}
        rows = {} if given is None else given.rows
        write_review(folder / NAME, f"Review of {facts['data']}", source, doubts, original.classes, rows, old)
        say(f"written: {folder / NAME}, to correct labels in a browser")
    else:
        say(f"nothing to review, so no {NAME} was written")
    if options.write_manifest:
        _write_manifest(folder / MANIFEST, found, splits, corrections, say)
    return facts


def _write(
    folder: Path, found: Audit, facts: dict[str, Any], errors: Sequence[LabelError] | None, say: Say
) -> None:
    """Writes what was found, and says the main points."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / FACTS).is_file():  # of an earlier audit, whose doubts may be settled
        (folder / NAME).unlink(missing_ok=True)
    write_json(folder / FACTS, facts)
    write_html(folder / PAGE, found, facts, errors)
    write_table(folder / TABLE, found)
    for line in headlines(facts):
        say(line)
    say(f"written: {folder / FACTS}, {folder / PAGE}, {folder / TABLE}")


def _check_out(folder: Path, data: str | Path, options: Options) -> None:
    """Raises a UserError where the results cannot be written, or would replace what is read or a run's manifest."""
    if not is_description(data):  # which is refused
        check_outside(folder, "--out", data, "its images")
    check_folder(folder, "--out")
    manifest = folder / MANIFEST
    read = {"--data": data, "--split": options.manifest, "--corrections": options.corrections}
    for name in (FACTS, PAGE, TABLE, NAME, *((MANIFEST,) if options.write_manifest else ())):
        check_unread(folder / name, "--out", read)
    if not options.write_manifest or not manifest.exists():
        return
    if (folder / "config.json").is_file() or not (folder / FACTS).is_file():
        raise UserError(
            f"--write-manifest: {manifest} is there, of no earlier audit; name another folder with --out"
        )


def _open(data: str | Path, model: str | Path | None) -> Source:
    """Returns the images; raises a UserError where there are none, or where there is no such model."""
    if is_description(data):
        raise UserError(
            f"--data={data}: describes several sources, whose labels differ; audit each by itself"
        )
    source = open_path(data, "--data")
    _check_model(model)
    return source


def _check_model(model: str | Path | None) -> None:
    """Raises a UserError where there is no such model, before every image is read."""
    from wastejax.bundle import load_bundle
    from wastejax.models.weights.published import PYPI

    if model is not None and model not in PYPI:
        load_bundle(model)


def _splits(data: str | Path, options: Options, source: Source, original: Source) -> np.ndarray | None:
    """Returns str [N], splits by a manifest ('' for files it does not list) or the folders; None without either.

    Raises:
        UserError: a manifest is to be written of splits without train, or the given one does not fit the data.
    """
    if options.manifest is None:
        splits = None if source.splits is None else np.array(source.splits)
    else:
        now = dict(zip(source.names, source.label_names, strict=True))
        listed = load_manifest(options.manifest, original, now)
        split = {original.names[i]: name for i, name in zip(listed.indices, listed.splits, strict=True)}
        splits = np.array([split.get(name, "") for name in source.names], "U5")
    if options.write_manifest and splits is not None and "train" not in splits:
        given = f"--data={data}" if options.manifest is None else f"--split={options.manifest}"
        raise UserError(f"--write-manifest: the split of {given} has no train to learn from; leave it out")
    return splits


def _label_errors(model: str | Path, found: Audit, say: Say) -> list[LabelError] | None:
    """Returns the likely label errors; None where they cannot be looked for, while all else was found already."""
    from wastejax.auditing.label_errors import embed, find_label_errors

    good = found.good
    say(f"looking at {len(good):,} images with {model}, and cross-validating their labels")
    features = embed(model, found.source, good)
    try:
        together = joined_groups(found.groups, found.source.groups)  # crops of one photograph are much alike
        errors = find_label_errors(features, found.source.labels[good], together[good], good)
    except UserError as error:
        say(f"note: label errors were not looked for: {error}")
        return None
    return [error for error in errors if found.source.names[error.image] not in found.confirmed]


def _doubts(found: Audit, errors: Sequence[LabelError]) -> list[Doubt]:
    """Returns what a person should look at, the clearest first."""
    classes = found.source.classes
    doubts = [Doubt(e.image, "label error", classes[e.suggested], e.own, e.other) for e in errors]
    for number, group in enumerate(found.conflicts(), 1):
        doubts += [Doubt(int(i), "conflict", group=number) for i in group]
    return doubts + [Doubt(i, "unreadable") for i in sorted(found.bad)]


def _public(model: str | Path | None) -> str | None:
    """Returns a model's name without the folders above it."""
    return str(model) if model and ":" in str(model) else name_of(model) if model else None


def _write_manifest(
    path: Path, found: Audit, splits: np.ndarray | None, corrections: str | Path | None, say: Say
) -> None:
    """Writes what is left, of the files that the given splits list; its labels are the corrected ones.

    A part that these splits lack is taken from train, as training does with folders: it takes no manifest without.
    """
    kept = clean(found, None if splits is None else splits != "")
    if not len(kept):
        raise UserError(f"{path}: nothing is left that could be listed")
    source = found.source.select(kept)
    # Copies of different labels that a person has confirmed stay on one side, as all near-duplicates do.
    _, first, inverse = np.unique(found.groups[kept], return_index=True, return_inverse=True)
    groups = joined_groups(first[inverse], source.groups)
    given = None if splits is None else splits[kept]
    if given is not None and "train" not in given:
        raise UserError(f"{path}: nothing is left of train that could be listed")
    chosen, dealt = deal_missing(source, given, groups, seed=SEED)
    for note in [] if given is None else notes_on_dealt(chosen, dealt, "the given split lacks a part"):
        say(f"note: {note}")
    save_manifest(path, source, groups, chosen)
    lost = sorted(set(found.source.classes) - set(source.classes))
    say(
        f"written: {path}, {len(kept):,} of {len(found.source):,} images"
        + (f"; nothing is left of {', '.join(lost)}" if lost else "")
        + _next_step(path, source, groups, chosen, corrections)
    )


def _next_step(
    path: Path, source: Source, groups: np.ndarray, splits: np.ndarray, corrections: str | Path | None
) -> str:
    """Returns how to train with a manifest, or why training would refuse it: too little may be left."""
    try:
        check_splits(source, groups, splits, ("train",), str(path))
    except ConfigError as error:
        return f"; too little for training: {error.problem}"
    corrected = f" --config.data.corrections={corrections}" if corrections else ""
    return f"; train with --config.data.split.manifest={path}{corrected}"
