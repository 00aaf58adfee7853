"""The training loop: step by step, epoch by epoch, to the end of a run or until it is asked to stop."""

import csv
import io
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wastejax.bundle import Bundle, save_bundle
from wastejax.errors import UserError
from wastejax.evaluation.evaluate import predict_logits
from wastejax.evaluation.metrics import score
from wastejax.evaluation.metrics.multilabel import score_multilabel
from wastejax.files import write_text
from wastejax.runtime.stop import Stop
from wastejax.training.checkpoint import Checkpoints
from wastejax.training.devices import on_devices
from wastejax.training.display import Display
from wastejax.training.run import CHECKPOINTS, Record, Run, stage_of
from wastejax.training.step import optim
from wastejax.training.step.state import TrainState

ALL_DONE = "all epochs done"  # the usual `Record.stopped`


def fit(run: Run, state: TrainState, stop: Stop) -> Record:
    """Trains to the end, or until asked to stop, and returns how far it came.

    On SIGTERM or Ctrl-C it saves after the step under way and returns with `stopped == ''`; while the step is
    compiled, when there is nothing to save, the process ends at once.
    """
    with ExitStack() as leaving:
        checkpoints = leaving.enter_context(Checkpoints(run.workdir / CHECKPOINTS))
        display = leaving.enter_context(Display(run.say))
        stop.leaving.append(display.clear)
        state, record = _resumed(run, state, checkpoints)
        run = announced(run, stop)
        step = int(state.step)
        batches = leaving.enter_context(closing(run.batches(step, run.config.data.workers)))
        leaving.enter_context(stop.after_the_step())
        # The order is the contract: a step's batch and keys follow from (seed, step) alone, and a checkpoint is
        # written when all that it speaks of has been. So a kill at any moment costs time, and no bit.
        while not record.stopped:
            epoch, end = step // run.steps_per_epoch, (step // run.steps_per_epoch + 1) * run.steps_per_epoch
            _announce_size(run, epoch)
            # It moves at the ends of epochs alone; read later, it would wait for a step.
            scale = float(state.plateau.scale)
            meter = Meter(run, record, scale)
            saved_at = time.perf_counter()
            while step < end and not run.devices.anyone(stop.requested):
                with meter.waiting():
                    batch = next(batches)
                with jax.profiler.StepTraceAnnotation("train", step_num=step):
                    state, metrics = run.train_step(state, on_devices(run.devices, batch))
                meter.add(step, batch["index"], metrics)
                step += 1
                if run.devices.first:
                    display.step(step, run, record.sums, scale)
                due = time.perf_counter() - saved_at > 60 * (run.config.train.checkpoint_minutes or math.inf)
                # Not after the last step: the epoch's own checkpoint, validated, has that number.
                if step < end and run.devices.anyone(due):
                    meter.settle()
                    checkpoints.save(state, asdict(record))
                    saved_at = time.perf_counter()
            meter.settle()
            if step < end:
                checkpoints.save(state, asdict(record))
            else:
                state = _end_epoch(run, state, record, display)
                checkpoints.save(state, asdict(record), record.history[-1]["score"])
            if run.devices.anyone(stop.requested) and not record.stopped:
                run.say(f"stopped and saved at step {step}; the same command resumes from here")
                break
    return record


def _resumed(run: Run, state: TrainState, checkpoints: Checkpoints) -> tuple[TrainState, Record]:
    """Returns state and record of the newest checkpoint; the given state where there is none yet."""
    restored = checkpoints.restore(state)
    if not restored:
        return state, Record()
    state, record = restored[0], Record(**restored[1])
    if record.stopped == ALL_DONE and int(state.step) < run.total_steps:
        record.stopped = ""  # it was given more epochs since
    elif record.stopped and int(state.step) < run.total_steps:
        run.say(f"note: training was ended early ({record.stopped}); more epochs do not continue it")
    run.say(f"resuming from step {int(state.step)} of {run.total_steps}")
    return state, record


def announced(run: Run, stop: Stop) -> Run:
    """Returns the run, which says when it compiles a program: the first step of each image size takes minutes.

    There the process may end at once, as the state before such a step has always been saved or is the initial one.
    Several processes stop together, after the step.
    """
    sizes: set[tuple[int, ...]] = set()
    alone = jax.process_count() == 1

    def train_step(state: TrainState, batch: Any) -> Any:
        if batch["image"].shape in sizes:
            # All that a step takes is on the devices already; what were not would make each step wait for it.
            with jax.transfer_guard("disallow"):
                return run.train_step(state, batch)
        sizes.add(batch["image"].shape)
        at, start = int(state.step), time.perf_counter()
        stop.kept = f"the same command resumes from step {at}" if at else "the same command begins anew"
        stop.code = 0
        run.say(f"compiling the training step for {batch['image'].shape[1]} px (minutes for a large network)")
        with stop.at_once() if alone else nullcontext():
            result = run.train_step(state, batch)
        run.say(f"compiled in {time.perf_counter() - start:.0f} s")
        return result

    def predict(variables: Any, images: jax.Array) -> jax.Array:
        if () not in sizes:
            sizes.add(())
            run.say("compiling the validation step")
        return run.predict(variables, images)

    return replace(run, train_step=train_step, predict=predict)


def _announce_size(run: Run, epoch: int) -> None:
    if run.config.data.progressive:
        size = run.config.data.progressive[stage_of(run.config, epoch)]
        run.say(f"epoch {epoch + 1}: training at {size} px")


class Meter:
    """Adds up what the steps of an epoch say in `Record.sums`, which a stopped epoch has brought along.

    Args:
        run: whose steps they are.
        record: what it remembers.
        scale: what the plateau has made of the learning rate.
    """

    def __init__(self, run: Run, record: Record, scale: float):
        self._run, self._scale = run, scale
        self._sums = record.sums = record.sums or dict.fromkeys(
            ("loss", "top1", "counted", "seconds", "waited", "steps"), 0.0
        )
        self._sums.setdefault("counted", self._sums["steps"])  # earlier versions weighed all batches alike
        self._pending: deque[tuple[int, np.ndarray, dict[str, jax.Array]]] = deque()
        self._now = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for a batch."""
        asked = time.perf_counter()
        yield
        self._sums["waited"] += time.perf_counter() - asked

    def add(self, step: int, index: np.ndarray, metrics: dict[str, jax.Array]) -> None:
        """Takes what a step returned, and reads that of the step before.

        One step late, so that the device already works on the next while the host reads this one's loss.
        """
        self._pending.append((step, index, metrics))
        self.settle(1)
        before, self._now = self._now, time.perf_counter()
        self._sums["seconds"] += self._now - before

    def settle(self, keep: int = 0) -> None:
        """Reads all steps but the last few; raises a UserError where a loss is not finite."""
        while len(self._pending) > keep:
            at, index, metrics = self._pending.popleft()
            loss = float(metrics["loss"])
            if not math.isfinite(loss):
                raise UserError(_diverged(self._run, at, index, loss, self._scale))
            self._sums["loss"] += loss
            counted = float(metrics["counted"])
            self._sums["top1"] += float(metrics["top1"]) * counted
            self._sums["counted"] += counted
            self._sums["steps"] += 1


def _diverged(run: Run, step: int, index: np.ndarray, loss: float, scale: float) -> str:
    names = [run.dataset.source.names[i] for i in index]
    rate = float(run.schedule(step)) * scale
    return (
        f"the loss is {loss} at step {step} (epoch {step // run.steps_per_epoch + 1}, learning rate "
        f"{rate:.3g}); the last checkpoint is kept. Lower config.optim.learning_rate, or "
        f"look at the images of this batch: {', '.join(names)}"
    )


def _end_epoch(run: Run, state: TrainState, record: Record, display: Display) -> TrainState:
    """Validates, has the epoch written down, moves the plateau, and decides whether to stop."""
    config, sums = run.config, record.sums
    variables = state.eval_variables()
    scores = evaluate(run, variables)
    epoch = len(record.history) + 1
    step = int(state.step)
    images = sums["steps"] * config.train.batch_size
    row = {
        "epoch": epoch,
        "step": step,
        "lr": float(run.schedule(step - 1)) * float(state.plateau.scale),
        "train_loss": sums["loss"] / sums["steps"],
        "train_top1": sums["top1"] / (sums["counted"] or 1),
        "val_loss": scores["loss"],
        "val_top1": scores["top1"],
        **({"val_ap": scores["macro_ap"]} if "macro_ap" in scores else {}),
        # What "best" means: accuracy, average precision with several labels; the loss only where that is the same.
        "score": scores.get("macro_ap", scores["top1"]) - 1e-6 * min(scores["loss"], 1000.0),
        "seconds": sums["seconds"],
        "images_per_second": images / sums["seconds"],
        "waiting": sums["waited"] / sums["seconds"],
    }
    record.history.append(row)
    record.sums = {}
    if row["score"] > record.best_score:
        record.best_score, record.best_epoch = row["score"], epoch
    if run.devices.first:
        _write(run, variables, record, display)
    if config.optim.schedule == "plateau" and epoch > config.optim.warmup_epochs:
        plateau = optim.make_plateau(config.optim)
        moved = optim.on_plateau(plateau, jax.device_get(state.plateau), scores["loss"])
        state = state.replace(plateau=run.devices.replicate(moved))
    patience = config.train.early_stopping
    if step >= run.total_steps:
        record.stopped = ALL_DONE
    elif patience and epoch - _last_gain(record.history) >= patience:
        measure = "average precision" if "val_ap" in row else "accuracy"
        record.stopped = f"no better validation {measure} for {patience} epochs"
    return state


def _last_gain(history: list[dict[str, float]]) -> int:
    """Returns the last epoch, counted from one, that was more accurate than all before; the loss is no matter.

    The loss may fall for as long as a run lasts: with it, accuracy that stays the same would never stop one.
    """
    best, last = -math.inf, 0
    for row in history:
        value = row.get("val_ap", row["val_top1"])
        if value > best:
            best, last = value, int(row["epoch"])
    return last


def _write(run: Run, variables: Any, record: Record, display: Display) -> None:
    """Writes what the epoch leaves behind, the bundle only where it is the best so far, and shows its line."""
    row = record.history[-1]
    best = record.best_epoch == row["epoch"]
    if best:
        bundle = Bundle(
            jax.device_get(variables),
            run.config.to_dict(),
            run.dataset.source.classes,
            run.preprocessing,
            {key: row[key] for key in ("epoch", "val_top1", "val_ap", "val_loss") if key in row},
            taxonomy=run.taxonomy,
        )
        save_bundle(run.workdir / "bundle", bundle)
    write_metrics(run.workdir / "metrics.csv", record.history)
    display.epoch(row, run, best)


def evaluate(run: Run, variables: Any) -> dict[str, Any]:
    """Returns the scores on the validation images."""
    logits, index = predict_logits(
        lambda images: run.predict(variables, run.devices.split(images)), run.validation
    )
    source = run.dataset.source
    if source.shown is not None:
        return score_multilabel(logits, source.truth[index], source.classes, bootstrap=0)
    return score(logits, source.labels[index], source.classes, bootstrap=1)  # nobody sees its interval


def write_metrics(path: Path, history: list[dict[str, float]]) -> None:
    """Writes the whole table anew: a resumed run leaves no row twice."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, table.getvalue())
