"""Orbax checkpoints of a run: the newest, to resume from, and the best.

Orbax writes into a temporary folder and renames it, so a kill in the middle of a save leaves the one before.
"""

import errno
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from wastejax.errors import UserError
from wastejax.files import reason
from wastejax.training.step.state import TrainState

# What disks answer when they cannot take more; TensorStore has it in the text of a ValueError.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES)


def is_saved(path: Path) -> bool:
    """Returns whether a folder of checkpoints has one to resume from; makes no folder."""
    return path.is_dir() and bool(ocp.utils.checkpoint_steps(path.resolve()))


class Checkpoints:
    """The checkpoints in a folder; a context manager, since leaving without closing can lose a step."""

    def __init__(self, path: Path):
        """Opens (and makes) the folder.

        Args:
            path: where; made absolute, since Orbax works in the background.
        """
        newest = preservation_policy.LatestN(1)
        best = preservation_policy.BestN(get_metric_fn=lambda m: m["score"], reverse=False, n=1)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy([newest, best]),
            enable_async_checkpointing=False,
        )
        self._manager = ocp.CheckpointManager(path.resolve(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, state: TrainState, record: dict[str, Any], score: float = -math.inf) -> None:
        """Saves state and record under the state's step.

        Args:
            state: all arrays of the run.
            record: JSON-able, all that is not an array.
            score: higher is better; a step saved within an epoch has none and is kept only while newest.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return  # stopped before its first new step
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(record))
        metrics = {"score": score if math.isfinite(score) else -1e30}  # Orbax ranks NaN best
        try:
            with _said_once():
                saved = self._manager.save(step, args=args, metrics=metrics)
        except Exception as error:  # Orbax, TensorStore and the system each have their own
            if (why := _not_written(error)) is None:
                raise
            raise UserError(
                f"{self._manager.directory / str(step)}: the checkpoint cannot be written ({why}); the one "
                "before it is kept, and the same command resumes from there once there is room"
            ) from error
        if not saved:
            raise RuntimeError(f"Orbax did not save step {step}")

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Returns the newest (state, record), or None where nothing was saved yet.

        Args:
            like: a state of the same structure.

        Raises:
            UserError: the checkpoint does not fit the state.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like), progress=ocp.args.JsonRestore()
                ),
            )
        except (ValueError, KeyError) as error:
            folder = self._manager.directory / str(step)
            raise UserError(
                f"{folder}: its arrays are not those that this version stores for this run; resume with the "
                "version that wrote it, or start again with another --workdir"
            ) from error
        return restored.state, restored.progress


@contextmanager
def _said_once() -> Iterator[None]:
    """Keeps what Orbax and TensorStore leave behind after an exception from being printed beside it.

    Their threads log it, each with its traceback; writes that nobody waits for any longer end later, and are told
    by asyncio when they are collected, or by the interpreter where they find their loop closed. So nothing is
    undone where the save fails, which ends the run.
    """

    def plain(record: logging.LogRecord) -> bool:
        return not record.exc_info

    def unraisable(told: "sys.UnraisableHookArgs") -> None:
        if str(told.exc_value) != "Event loop is closed":
            before(told)

    before, sys.unraisablehook = sys.unraisablehook, unraisable
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    for logger in loggers:
        logger.addFilter(plain)
    yield
    sys.unraisablehook = before
    for logger in loggers:
        logger.removeFilter(plain)


def _not_written(error: BaseException) -> str | None:
    """Returns what the disk said, where that is what an error comes down to; None where it is something else."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return reason(seen)
        for number in _DISK:
            if os.strerror(number) in str(seen):
                return os.strerror(number).lower()
        seen = seen.__cause__ or seen.__context__
    return None
