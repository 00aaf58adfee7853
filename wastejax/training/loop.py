"""A run: prepare, train epoch by epoch, keep the best, evaluate once on the test images, report.

WORKDIR/
  config.json  manifest.csv      what was asked for, and which image is in which split
  checkpoints/                   Orbax: newest and best
  metrics.csv  tensorboard/      one row an epoch
  bundle/                        the best model so far
  report.md  report.json  figures/
"""

import csv
import io
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from wastejax.bundle import Bundle, save_bundle
from wastejax.data import pipeline
from wastejax.data.prepare import Dataset
from wastejax.data.taxonomy import load_taxonomy
from wastejax.data.transforms import AUGMENTATIONS, Augmentation, Preprocessing
from wastejax.errors import UserError
from wastejax.evaluation.evaluate import predict_logits
from wastejax.evaluation.metrics import score
from wastejax.files import write_text
from wastejax.models import Model, create_model
from wastejax.models.structure import layer_index
from wastejax.runtime.jit import jit
from wastejax.training import losses, optim
from wastejax.training.checkpoint import Checkpoints
from wastejax.training.devices import Devices, on_devices
from wastejax.training.init import initial_variables
from wastejax.training.progress import Display
from wastejax.training.state import TrainState, create_train_state
from wastejax.training.step import TrainStep, make_train_step
from wastejax.training.stop import Stop
from wastejax.training.teacher import load_teacher

Say = Callable[[str], None]
ALL_DONE = "all epochs done"  # the usual `Progress.stopped`


@dataclass
class Progress:
    """What a run remembers beside its arrays; saved with every checkpoint.

    Attributes:
        history: one row an epoch, the columns of metrics.csv.
        sums: of the epoch under way: 'loss', 'top1', 'seconds', 'waited', 'steps'.
        best_score: of the best epoch; -inf before the first.
        best_epoch: counted from one; 0 before the first.
        stopped: why training ended, '' while it goes on.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    best_score: float = -1e30
    best_epoch: int = 0
    stopped: str = ""


@dataclass(frozen=True)
class Run:
    """What does not change during a run.

    Attributes:
        batches: (first step, processes that read) -> the batches from there to the end of the run; to be closed.
    """

    config: ConfigDict
    workdir: Path
    dataset: Dataset
    preprocessing: Preprocessing
    model: Model
    train_step: TrainStep
    predict: Callable[[Any, jax.Array], jax.Array]
    schedule: Callable[[Any], Any]
    batches: Callable[[int, int], Generator[pipeline.Batch, None, None]]
    validation: pipeline.EvalBatches
    steps_per_epoch: int
    devices: Devices
    say: Say

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.train.epochs * self.steps_per_epoch


def set_up(
    config: ConfigDict, workdir: Path, dataset: Dataset, devices: Devices, say: Say
) -> tuple[Run, TrainState]:
    """Returns a run that is ready to go, and its state before the first step, on its devices."""
    preprocessing = Preprocessing.from_config(config.data)
    classes, labels = dataset.source.classes, dataset.source.labels
    model = create_model(config.model, len(classes))
    teacher = load_teacher(config.distill, classes)
    variables = initial_variables(config, model, classes, say)
    train = dataset.indices("train")
    batch_size = config.train.batch_size
    steps_per_epoch = max(1, round(len(train) / batch_size))
    total = config.train.epochs * steps_per_epoch
    schedule = optim.make_schedule(config.optim, steps_per_epoch, total)
    factors = optim.layer_factors(config.optim, layer_index(variables["params"]))
    tx = optim.make_optimizer(config.optim, schedule, factors)
    weights = losses.class_weights(labels[train], len(classes)) if config.loss.class_weights else None

    def caching(done: int, count: int) -> None:
        if done == count or done % 1000 == 0:
            say(f"decoded {done} of {count} images into the cache")

    largest = max(config.data.progressive or (preprocessing.image_size,))
    side = pipeline.cached_side(largest, preprocessing.crop, config.data.min_crop_area)
    read = pipeline.reader(dataset.source, train, config.data.cache, side, caching)
    augmentations = _augmentations(config.data, preprocessing)
    mix = None
    if dataset.source.allowed is not None and dataset.source.members is not None:
        mix = pipeline.Mix(dataset.source.allowed, dataset.source.members, dataset.weights)

    def batches(start: int, workers: int) -> Generator[pipeline.Batch, None, None]:
        # Through the ends of epochs, since a process that reads takes seconds to start; anew for another size.
        while start < total:
            stage = _stage(config, start // steps_per_epoch)
            stop = -(-(stage + 1) * config.train.epochs // len(augmentations)) * steps_per_epoch
            images = pipeline.TrainingImages(
                read,
                train,
                augmentations[stage],
                batch_size,
                config.seed,
                config.data.balanced_sampling,
                devices.part,
                mix,
            )
            with closing(pipeline.train_batches(images, start, stop, workers)) as reading:
                yield from reading
            start = stop

    validation = dataset.indices("val")
    run = Run(
        config=config,
        workdir=workdir,
        dataset=dataset,
        preprocessing=preprocessing,
        model=model,
        train_step=make_train_step(
            model,
            tx,
            config,
            preprocessing,
            len(classes),
            weights,
            devices.everywhere,
            teacher and teacher._replace(variables=devices.replicate(teacher.variables)),
        ),
        predict=jit(
            lambda v, images: model.apply(v, preprocessing.normalise(images)),
            out_shardings=devices.everywhere,  # every process scores all answers
        ),
        schedule=schedule,
        batches=batches,
        validation=pipeline.EvalBatches(
            dataset.source,
            validation,
            preprocessing,
            devices.rounded_up(config.eval.batch_size),
            config.data.cache,
            caching,
            devices.part,
        ),
        steps_per_epoch=steps_per_epoch,
        devices=devices,
        say=say,
    )
    return run, devices.replicate(create_train_state(variables, tx, config.optim))


def _stage(config: ConfigDict, epoch: int) -> int:
    """Returns which of the sizes of `data.progressive` an epoch, counted from zero, trains at."""
    return epoch * len(config.data.progressive) // config.train.epochs


def _augmentations(data: ConfigDict, preprocessing: Preprocessing) -> list[Augmentation]:
    """Returns what is done to training images, one for each equal share of the epochs."""
    make = AUGMENTATIONS[data.augmentation]
    sizes = data.progressive or (preprocessing.image_size,)
    strengths = np.linspace(0.5, 1, len(sizes)) if len(sizes) > 1 else [1.0]
    return [
        make(replace(preprocessing, image_size=size), data.min_crop_area, float(strength))
        for size, strength in zip(sizes, strengths, strict=True)
    ]


def fit(run: Run, state: TrainState, stop: Stop) -> Progress:
    """Trains to the end, or until asked to stop, and returns how far it came.

    On SIGTERM or Ctrl-C it saves after the step under way and returns with `stopped == ''`; while the step is
    compiled, when there is nothing to save, the process ends at once.
    """
    progress = Progress()
    with ExitStack() as leaving:
        checkpoints = leaving.enter_context(Checkpoints(run.workdir / "checkpoints"))
        display = leaving.enter_context(Display(run.say))
        stop.leaving.append(display.clear)
        restored = checkpoints.restore(state)
        if restored:
            state, saved = restored
            progress = Progress(**saved)
            if progress.stopped == ALL_DONE and int(state.step) < run.total_steps:
                progress.stopped = ""  # it was given more epochs since
            run.say(f"resuming from step {int(state.step)} of {run.total_steps}")
        run = announced(run, stop)
        batches = leaving.enter_context(closing(run.batches(int(state.step), run.config.data.workers)))
        leaving.enter_context(stop.after_the_step())
        while not progress.stopped:
            state = _train_epoch(run, state, progress, batches, checkpoints, stop, display)
            if int(state.step) % run.steps_per_epoch:
                checkpoints.save(state, asdict(progress))
            else:
                state = _end_epoch(run, state, progress, display)
                checkpoints.save(state, asdict(progress), progress.history[-1]["score"])
            if run.devices.anyone(stop.requested) and not progress.stopped:
                run.say(f"stopped and saved at step {int(state.step)}; the same command resumes from here")
                break
    return progress


def announced(run: Run, stop: Stop) -> Run:
    """Returns the run, which says when it compiles a program: the first step of each image size takes minutes.

    There the process may end at once, as the state before such a step has always been saved or is the initial one.
    Several processes stop together, after the step.
    """
    sizes: set[tuple[int, ...]] = set()
    alone = jax.process_count() == 1

    def train_step(state: TrainState, batch: Any) -> Any:
        if batch["image"].shape in sizes:
            return run.train_step(state, batch)
        sizes.add(batch["image"].shape)
        at, start = int(state.step), time.perf_counter()
        stop.kept = f"the same command resumes from step {at}" if at else "the same command begins anew"
        stop.code = 0
        run.say(f"compiling the training step for {batch['image'].shape[1]} px: minutes for a large network")
        with stop.at_once() if alone else nullcontext():
            result = run.train_step(state, batch)
        run.say(f"compiled in {time.perf_counter() - start:.0f} s")
        return result

    def predict(variables: Any, images: jax.Array) -> jax.Array:
        if () not in sizes:
            sizes.add(())
            run.say("compiling the validation")
        return run.predict(variables, images)

    return replace(run, train_step=train_step, predict=predict)


def _train_epoch(
    run: Run,
    state: TrainState,
    progress: Progress,
    batches: Iterator[pipeline.Batch],
    checkpoints: Checkpoints,
    stop: Stop,
    display: Display,
) -> TrainState:
    """Trains to the end of the epoch, or to the step where a stop was asked for."""
    step = int(state.step)
    epoch = step // run.steps_per_epoch
    end = (epoch + 1) * run.steps_per_epoch
    if run.config.data.progressive:
        size = run.config.data.progressive[_stage(run.config, epoch)]
        run.say(f"epoch {epoch + 1}: training at {size} px")
    sums = progress.sums = progress.sums or dict.fromkeys(("loss", "top1", "seconds", "waited", "steps"), 0.0)
    pending: deque[tuple[int, np.ndarray, dict[str, jax.Array]]] = deque()
    saved_at = now = time.perf_counter()

    def settle(keep: int) -> None:
        # One step late, so that the device already works on the next while the host reads this one's loss.
        while len(pending) > keep:
            at, index, metrics = pending.popleft()
            loss = float(metrics["loss"])
            if not math.isfinite(loss):
                raise UserError(_diverged(run, at, index, loss))
            sums["loss"] += loss
            sums["top1"] += float(metrics["top1"])
            sums["steps"] += 1

    while step < end and not run.devices.anyone(stop.requested):
        asked = time.perf_counter()
        batch = next(batches)
        sums["waited"] += time.perf_counter() - asked
        state, metrics = run.train_step(state, on_devices(run.devices, batch))
        pending.append((step, batch["index"], metrics))
        settle(1)
        step += 1
        before, now = now, time.perf_counter()
        sums["seconds"] += now - before
        if run.devices.first:
            display.step(step, run, sums)
        # Not after the last step: the epoch's own checkpoint, validated, has that number.
        due = now - saved_at > 60 * (run.config.train.checkpoint_minutes or math.inf)
        if step < end and run.devices.anyone(due):
            settle(0)
            checkpoints.save(state, asdict(progress))
            saved_at = now
    settle(0)
    return state


def _diverged(run: Run, step: int, index: np.ndarray, loss: float) -> str:
    names = [run.dataset.source.names[i] for i in index]
    return (
        f"the loss is {loss} at step {step} (epoch {step // run.steps_per_epoch + 1}, learning rate "
        f"{float(run.schedule(step)):.3g}); the last checkpoint is kept. Lower config.optim.learning_rate, or "
        f"look at the images of this batch: {', '.join(names)}"
    )


def _end_epoch(run: Run, state: TrainState, progress: Progress, display: Display) -> TrainState:
    """Validates, has the epoch written down, moves the plateau, and decides whether to stop."""
    config, sums = run.config, progress.sums
    variables = state.eval_variables()
    scores = evaluate(run, variables)
    epoch = len(progress.history) + 1
    step = int(state.step)
    images = sums["steps"] * config.train.batch_size
    row = {
        "epoch": epoch,
        "step": step,
        "lr": float(run.schedule(step - 1)) * float(state.plateau.scale),
        "train_loss": sums["loss"] / sums["steps"],
        "train_top1": sums["top1"] / sums["steps"],
        "val_loss": scores["loss"],
        "val_top1": scores["top1"],
        # What "best" means: accuracy, and the loss only where that is the same.
        "score": scores["top1"] - 1e-6 * min(scores["loss"], 1000.0),
        "seconds": sums["seconds"],
        "images_per_second": images / sums["seconds"],
        "waiting": sums["waited"] / sums["seconds"],
    }
    progress.history.append(row)
    progress.sums = {}
    if row["score"] > progress.best_score:
        progress.best_score, progress.best_epoch = row["score"], epoch
    if run.devices.first:
        _write(run, variables, progress, display)
    if config.optim.schedule == "plateau" and epoch > config.optim.warmup_epochs:
        plateau = optim.make_plateau(config.optim)
        moved = optim.on_plateau(plateau, jax.device_get(state.plateau), scores["loss"])
        state = state.replace(plateau=run.devices.replicate(moved))
    patience = config.train.early_stopping
    if step >= run.total_steps:
        progress.stopped = ALL_DONE
    elif patience and epoch - progress.best_epoch >= patience:
        progress.stopped = f"no better validation accuracy for {patience} epochs"
    return state


def _write(run: Run, variables: Any, progress: Progress, display: Display) -> None:
    """Writes what the epoch leaves behind, the bundle only where it is the best so far, and shows its line."""
    row = progress.history[-1]
    best = progress.best_epoch == row["epoch"]
    if best:
        bundle = Bundle(
            jax.device_get(variables),
            run.config.to_dict(),
            run.dataset.source.classes,
            run.preprocessing,
            {key: row[key] for key in ("epoch", "val_top1", "val_loss")},
            taxonomy=load_taxonomy(run.config.data.taxonomy),
        )
        save_bundle(run.workdir / "bundle", bundle)
    write_metrics(run.workdir / "metrics.csv", progress.history)
    display.epoch(row, run, best)


def evaluate(run: Run, variables: Any) -> dict[str, Any]:
    """Returns the scores on the validation images."""
    logits, index = predict_logits(
        lambda images: run.predict(variables, run.devices.split(images)), run.validation
    )
    source = run.dataset.source
    return score(logits, source.labels[index], source.classes, bootstrap=run.config.eval.bootstrap)


def write_metrics(path: Path, history: list[dict[str, float]]) -> None:
    """Writes the whole table anew: a resumed run leaves no row twice."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, table.getvalue())
