"""What a run shows while it trains."""

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from wastejax.evaluation.report.markdown import duration
from wastejax.progress import Say

if TYPE_CHECKING:
    from wastejax.training.run import Run


MEASURED = 12  # steps from which the time of a run is estimated; the first two wait for programs and images


def time_left(ends: Sequence[float], steps: int) -> str:
    """Returns how long it will be, by when the first steps ended (seconds) and how many are to come."""
    each = median(after - before for before, after in pairwise(ends[1:]))
    measured = f"by the first {len(ends)} steps, {each:.2g} s each; validation not counted"
    return f"about {duration(each * steps)} left, {measured}"


class Display:
    """A bar with the time left on a terminal, and a line per epoch everywhere."""

    def __init__(self, say: Say):
        self._say = say
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: Any = None
        self._events: Any = None
        self._ends: list[float] = []  # of the first steps, s

    def __enter__(self) -> "Display":
        if self._bar.console.is_terminal:
            self._bar.start()
        return self

    def clear(self) -> None:
        """Takes the bar away and gives the terminal its cursor back."""
        self._bar.stop()

    def __exit__(self, *_: object) -> None:
        self.clear()
        if self._events is not None:
            self._events.close()

    def step(self, step: int, run: "Run", sums: dict[str, float], scale: float) -> None:
        """Moves the bar after a step; after the first ones, says how long the run will take.

        Args:
            step: how many there were so far.
            run: whose.
            sums: see `Record`.
            scale: what the plateau has made of the learning rate.
        """
        if len(self._ends) < MEASURED:
            self._ends.append(time.perf_counter())
            if len(self._ends) == MEASURED and step < run.total_steps:
                self._say(time_left(self._ends, run.total_steps - step))
        if not self._bar.console.is_terminal or not sums["steps"]:
            return
        if self._task is None:
            self._task = self._bar.add_task("", total=run.total_steps, completed=step - 1, epoch=0, text="")
        rate = sums["steps"] * run.config.train.batch_size / sums["seconds"]
        waiting = sums["waited"] / sums["seconds"]
        text = f"loss {sums['loss'] / sums['steps']:.3f}  lr {float(run.schedule(step)) * scale:.2g}  "
        text += f"{rate:.0f} images/s  waiting {waiting:.0%}"
        epoch = f"{(step - 1) // run.steps_per_epoch + 1}/{run.config.train.epochs}"
        self._bar.update(self._task, completed=step, epoch=epoch, text=text)

    def epoch(self, row: dict[str, float], run: "Run", best: bool) -> None:
        """Prints an epoch's line and adds it to the TensorBoard event files."""
        judged = f"AP {row['val_ap']:.1%} " if "val_ap" in row else f"top-1 {row['val_top1']:.1%} "
        self._say(
            f"epoch {row['epoch']:3.0f}/{run.config.train.epochs}  loss {row['train_loss']:.3f}  "
            f"val loss {row['val_loss']:.3f}  val {judged} lr {row['lr']:.2g}  "
            f"{row['images_per_second']:.0f} images/s  waiting {row['waiting']:.0%}{'  best' if best else ''}"
        )
        self._write_events(run.workdir / "tensorboard", row)

    def _write_events(self, path: Path, row: dict[str, float]) -> None:
        from tensorboardX import SummaryWriter

        step = int(row["step"])
        if self._events is None:
            # Hides what a killed run wrote past the checkpoint that this one resumes from.
            self._events = SummaryWriter(str(path), purge_step=step)
        for name, value in row.items():
            if name not in ("epoch", "step", "score"):
                self._events.add_scalar(name, value, step)
        self._events.flush()
