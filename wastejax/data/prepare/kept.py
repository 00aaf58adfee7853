"""What a run keeps of its images beside its manifest: which it holds out, and what was told of them as it began.

The manifest alone lists what is trained on and judged by. A run that resumes would hold out other images, and its
report would lack what only the first reading of all files tells.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wastejax.data.sources import Source
from wastejax.data.split import shorten
from wastejax.errors import ConfigError, UserError
from wastejax.files import write_json

NAME = "data.json"  # in a run


class Kept(NamedTuple):
    """What a run keeps.

    Attributes:
        left_out: names of the images that are out of distribution, of `config.data.leave_out`.
        unused: names of the images that were there and that the run does without.
        notes: what the user was told of the data, one line each.
        skipped: name -> reason, of unreadable files that were left out.
    """

    left_out: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: dict[str, str] = {}  # noqa: RUF012 - of a tuple, which nobody changes

    def held_out_in(self, source: Source) -> np.ndarray:
        """Returns int64 [M], the out-of-distribution images in a source.

        Raises:
            ConfigError: the source lacks one.
        """
        index = {name: i for i, name in enumerate(source.names)}
        lost = [name for name in self.left_out if name not in index]
        if lost:
            raise ConfigError(
                "config.data.split.manifest",
                f"{', '.join(shorten(lost, 5))} of the classes that are left out of training: not in the data",
            )
        return np.array(sorted(index[name] for name in self.left_out), np.int64)


def save_kept(run: Path, kept: Kept) -> None:
    """Writes what a run keeps into its folder."""
    write_json(run / NAME, kept._asdict())


def load_kept(run: Path) -> Kept | None:
    """Reads what `save_kept` wrote; None for a run of an earlier version.

    Raises:
        UserError: the file is damaged.
    """
    path = run / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        left_out, unused, notes = (tuple(map(str, found[name])) for name in ("left_out", "unused", "notes"))
        return Kept(left_out, unused, notes, {name: str(why) for name, why in found["skipped"].items()})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path}: damaged; put back what the run wrote there, or begin a run in another folder"
        ) from None
