"""Which images a model is scored on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.bundle import Bundle
from wastejax.data.cache import cache_dir
from wastejax.data.drawing.dataset import embedded
from wastejax.data.duplicates import scan
from wastejax.data.sources import Source, open_folder, open_source
from wastejax.data.split import load_manifest
from wastejax.errors import UserError

Say = Callable[[str], None]


def asked_pictures(args: Any, data: dict[str, Any]) -> tuple[Source, np.ndarray]:
    """Returns a source and the pictures of it that are asked for, indices int64; see `run`.

    Args:
        args: model, data and split.
        data: the `data` section of the model's config.
    """
    if args.data:
        source = open_folder(args.data, key="--data")
        if not args.split:
            return source, np.arange(len(source))
        if source.splits is None:
            raise UserError(
                f"--split={args.split}: {args.data} has no {args.split}/ folder; leave --split out"
            )
        return source, np.flatnonzero(np.array(source.splits) == args.split)
    manifest = Path(args.model or "") / "manifest.csv"
    if not (args.model and manifest.is_file()):
        raise UserError("--data: a bundle alone has no pictures; give a folder, one sub-folder per class")
    source = open_source(data["source"], data["dir"] or str(embedded()))
    listed = load_manifest(manifest, source)
    return source.select(listed.indices), np.flatnonzero(listed.splits == (args.split or "test"))


def readable(source: Source, indices: np.ndarray, args: Any, bundle: Bundle, say: Say) -> np.ndarray:
    """Returns the pictures among `indices` that can be read, or raises an error that names the others.

    Args:
        source: the pictures.
        indices: int64 [N], which of them.
        args: skip_bad, to leave the others out.
        bundle: the model, whose config may say so too.
        say: prints a line.
    """
    bad = scan(source.select(indices), cache_dir()).bad
    if not bad:
        return indices
    names = "; ".join(f"{source.names[indices[i]]}: {reason}" for i, reason in sorted(bad.items()))
    if bundle.config["data"]["on_bad_image"] == "raise" and not args.skip_bad:
        raise UserError(f"{len(bad)} pictures cannot be read ({names}); mend them, or use --skip_bad")
    say(f"left out: {names}")
    return np.delete(indices, list(bad))
