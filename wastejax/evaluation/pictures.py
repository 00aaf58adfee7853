"""Which images a model is scored on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.bundle import Bundle
from wastejax.data.cache import cache_dir
from wastejax.data.drawing.dataset import embedded
from wastejax.data.duplicates import scan
from wastejax.data.sources import Source, open_folder, open_source
from wastejax.data.split import SPLITS, load_manifest
from wastejax.errors import UserError, nearest

Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """Which images a model is scored on.

    Attributes:
        model: a run or bundle; None for the bundled model.
        data: class folders; None for the images of the run.
        split: 'train', 'val' or 'test'; None for all of `data`, or for the run's test images.
        skip_bad: leave unreadable images out instead of refusing them.

    Raises:
        UserError: there is no such split.
    """

    model: str | Path | None = None
    data: str | Path | None = None
    split: str | None = None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        """Checks the split."""
        if self.split not in (None, *SPLITS):
            raise UserError(f"--split={self.split}: no such split{nearest(str(self.split), SPLITS)}")


def asked_pictures(asked: Asked, data: Mapping[str, Any]) -> tuple[Source, np.ndarray]:
    """Returns a source and the images of it that are asked for, indices int64.

    Args:
        asked: which.
        data: the `data` section of the model's config.

    Raises:
        UserError: there are none.
    """
    if asked.data:
        source = open_folder(asked.data, key="--data")
        if not asked.split:
            return source, np.arange(len(source))
        if source.splits is None:
            raise UserError(
                f"--split={asked.split}: {asked.data} has no {asked.split}/ folder; leave --split out"
            )
        return source, np.flatnonzero(np.array(source.splits) == asked.split)
    manifest = Path(asked.model or "") / "manifest.csv"
    if not (asked.model and manifest.is_file()):
        raise UserError("--data: a bundle alone has no pictures; give a folder, one sub-folder per class")
    source = open_source(data["source"], data["dir"] or str(embedded()))
    listed = load_manifest(manifest, source)
    return source.select(listed.indices), np.flatnonzero(listed.splits == (asked.split or "test"))


def readable(source: Source, indices: np.ndarray, asked: Asked, bundle: Bundle, say: Say) -> np.ndarray:
    """Returns the pictures among `indices` that can be read, or raises an error that names the others.

    Args:
        source: the pictures.
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
        raise UserError(f"{len(bad)} pictures cannot be read ({names}); mend them, or use --skip_bad")
    say(f"left out: {names}")
    return np.delete(indices, list(bad))
