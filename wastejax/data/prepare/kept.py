"""What a run keeps of its images beside its manifest: which it holds out, and what was said of them as it began.

The manifest alone lists what is trained on and judged by. A run that resumes would hold out other images, and its
report would lack what only the first reading of all files tells.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wastejax.data.description import Mixture
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
        weights: source of a data description -> its share of the training batches; None for a run of an earlier
            version, which counted all images of a source where the description gave it no weight.
        described: see `digest_of`; empty where there is no data description, and for a run of an earlier version.
    """

    left_out: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: dict[str, str] = {}  # noqa: RUF012 - of a tuple, which nobody changes
    weights: dict[str, float] | None = None
    described: str = ""

    def held_out_in(self, source: Source) -> np.ndarray:
        """Returns int64 [M], the out-of-distribution images of a source; raises ConfigError where it lacks one."""
        index = {name: i for i, name in enumerate(source.names)}
        lost = [name for name in self.left_out if name not in index]
        if lost:
            raise ConfigError(
                "config.data.split.manifest",
                f"{', '.join(shorten(lost, 5))} of the classes that are left out of training: not in the data",
            )
        return np.array(sorted(index[name] for name in self.left_out), np.int64)


def digest_of(mixture: Mixture | None, source: Source) -> str:
    """Returns what changes with all that a data description says of a run's images, '' without one.

    That are the classes, what the labels mean in them, and the weights of the images' sources.

    Args:
        mixture: of the description.
        source: the images of it that the run has, with corrected labels.
    """
    if mixture is None:
        return ""
    members = set(source.members or ())
    weights = {name: weight for name, weight in sorted(mixture.given.items()) if name in members}
    order = sorted(range(len(source)), key=source.names.__getitem__)
    meant = source.truth if source.shown is not None else source.meanings.astype(np.int8)
    said = json.dumps([source.classes, weights, [source.names[i] for i in order]])
    return hashlib.sha256(said.encode() + meant[order].tobytes()).hexdigest()


def check_described(mixture: Mixture | None, source: Source, kept: Kept | None) -> None:
    """Checks that a data description says of a run's images what it said when the run began.

    Raises:
        ConfigError: it says something else, and the run would go on with other batches or labels.
    """
    if mixture is not None and kept is not None and kept.described not in ("", digest_of(mixture, source)):
        raise ConfigError(
            "config.data.dir",
            f"{mixture.source.origin}: other weights, classes or meanings of labels than when the run began; give "
            "those it began with, or train with another --workdir",
        )


def weights_for(
    mixture: Mixture | None, members: Sequence[str], kept: Kept | None
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Returns the sources' shares of the training batches, of which a run that resumes keeps its own, and notes.

    Args:
        mixture: of the data description; None without one.
        members: the source of each training image.
        kept: of the run that resumes; None for a new one.
    """
    if mixture is None:
        return {}, ()
    if kept is None:
        return mixture.weights_of(members)
    return kept.weights or mixture.weights, ()


def save_kept(run: Path, kept: Kept) -> None:
    """Writes what a run keeps into its folder."""
    write_json(run / NAME, kept._asdict())


def load_kept(run: Path) -> Kept | None:
    """Reads what `save_kept` wrote, None for a run of an earlier version; raises UserError where it is damaged."""
    path = run / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        left_out, unused, notes = (tuple(map(str, found[name])) for name in ("left_out", "unused", "notes"))
        skipped, weights = found["skipped"], found.get("weights")
        return Kept(
            left_out,
            unused,
            notes,
            {name: str(why) for name, why in skipped.items()},
            None if weights is None else {name: float(weight) for name, weight in weights.items()},
            str(found.get("described", "")),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path}: damaged; put back what the run wrote there, or begin a run in another folder"
        ) from None
