"""What a run is, and how it is set up: network, optimizer, step, training batches and validation.

WORKDIR/
  config.json  manifest.csv      what was asked for, and which image is in which split
  data.json                      which images are held out of training, and what was told of all as it began
  taxonomy.json                  the sorting rules for its classes as it began
  corrections.csv                of labels; shards.txt, teacher.txt: digests of these; each where there are any
  checkpoints/                   Orbax: newest and best
  metrics.csv  tensorboard/      one row an epoch
  bundle/                        the best model so far
  report.md  report.json  figures/
"""

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from wastejax.data import pipeline
from wastejax.data.prepare import Dataset
from wastejax.data.taxonomy import Taxonomy, load_taxonomy, parse_taxonomy
from wastejax.data.transforms import AUGMENTATIONS, Augmentation, Preprocessing
from wastejax.errors import UserError
from wastejax.models import Model, create_model
from wastejax.models.structure import layer_index
from wastejax.progress import Count, Say
from wastejax.runtime.jit import jit
from wastejax.training.checkpoint import is_saved
from wastejax.training.claim import RULES
from wastejax.training.devices import Devices
from wastejax.training.init import initial_variables, random_variables
from wastejax.training.step import TrainStep, losses, make_train_step, optim
from wastejax.training.step.state import TrainState, create_train_state
from wastejax.training.step.teacher import load_teacher

Batches = Generator[pipeline.Batch, None, None]
CHECKPOINTS = "checkpoints"  # their folder in a run's


@dataclass
class Record:
    """What a run remembers beside its arrays; saved with every checkpoint.

    Attributes:
        history: one row an epoch, the columns of metrics.csv.
        sums: of the epoch under way: 'loss', 'top1', 'counted', 'seconds', 'waited', 'steps'.
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
    taxonomy: Taxonomy
    preprocessing: Preprocessing
    train_step: TrainStep
    predict: Callable[[Any, jax.Array], jax.Array]
    schedule: optax.Schedule
    batches: Callable[[int, int], Batches]
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

    def caching(done: int, count: int) -> None:
        if done == count or done % 1000 == 0:
            say(f"decoded {done} of {count} images into the cache")

    preprocessing, source = Preprocessing.from_config(config.data), dataset.source
    steps_per_epoch = max(1, round(len(dataset.indices("train")) / config.train.batch_size))
    model = create_model(config.model, len(source.classes))
    variables = _before_the_first_step(config, workdir, model, source.classes, say)
    schedule = optim.make_schedule(config.optim, steps_per_epoch, config.train.epochs * steps_per_epoch)
    factors = optim.layer_factors(config.optim, layer_index(variables["params"]))
    tx = optim.make_optimizer(config.optim, schedule, factors)
    run = Run(
        config=config,
        workdir=workdir,
        dataset=dataset,
        taxonomy=_rules(config, workdir, source.classes, say),
        preprocessing=preprocessing,
        train_step=_train_step(config, model, tx, dataset, devices),
        predict=jit(
            lambda v, images: model.apply(v, preprocessing.normalize(images)),
            out_shardings=devices.everywhere,  # every process scores all answers
        ),
        schedule=schedule,
        batches=_training_batches(config, dataset, devices, steps_per_epoch, caching),
        validation=pipeline.EvalBatches(
            source,
            dataset.indices("val"),
            preprocessing,
            -(-config.eval.batch_size // devices.count) * devices.count,  # which they can share evenly
            config.data.cache,
            caching,
            devices.part,
        ),
        steps_per_epoch=steps_per_epoch,
        devices=devices,
        say=say,
    )
    return run, devices.replicate(create_train_state(variables, tx, config.optim))


def _rules(config: ConfigDict, workdir: Path, classes: Sequence[str], say: Say) -> Taxonomy:
    """Returns the rules that a run began with; those of the config where it is of an earlier version."""
    path = workdir / RULES
    try:
        rules = parse_taxonomy(json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        return load_taxonomy(config.data.taxonomy)
    except (ValueError, AttributeError):
        raise UserError(
            f"{path}: damaged; put back what the run wrote there, or begin a run in another folder"
        ) from None
    with suppress(UserError):  # the file may be gone
        if load_taxonomy(config.data.taxonomy).only(classes).to_dict() != rules.to_dict():
            say(
                f"note: config.data.taxonomy has changed; the run keeps the rules that it began with ({path})"
            )
    return rules


def _before_the_first_step(
    config: ConfigDict, workdir: Path, model: Model, classes: tuple[str, ...], say: Say
) -> dict[str, Any]:
    """Returns the initial variables; any of the same structure where a checkpoint is to take their place."""
    if is_saved(workdir / CHECKPOINTS):
        return random_variables(config, model)
    return initial_variables(config, model, classes, say)


def _train_step(
    config: ConfigDict, model: Model, tx: optax.GradientTransformation, dataset: Dataset, devices: Devices
) -> TrainStep:
    """Returns the step, with the weights of the classes and the teacher that the recipe asks for."""
    source = dataset.source
    teacher = load_teacher(config.distill, source.classes)
    if teacher is not None:
        teacher = teacher._replace(variables=devices.replicate(teacher.variables))
    weights = None
    if config.loss.class_weights:
        weights = losses.class_weights(source.labels[dataset.indices("train")], len(source.classes))
    preprocessing = Preprocessing.from_config(config.data)
    return make_train_step(model, tx, config, preprocessing, weights, devices.everywhere, teacher)


def _training_batches(
    config: ConfigDict, dataset: Dataset, devices: Devices, steps_per_epoch: int, caching: Count
) -> Callable[[int, int], Batches]:
    """Returns `Run.batches`, after decoding the training images into the cache where the recipe asks for it."""
    data, source, train = config.data, dataset.source, pipeline.compact(dataset.indices("train"))
    sizes = data.progressive or (data.image_size,)
    side = pipeline.cached_side(max(sizes), data.crop, data.min_crop_area)
    read = pipeline.reader(source, train, data.cache, side, caching)
    augmentations = _augmentations(data, sizes)
    mix = None if source.members is None else pipeline.Mix(source.members, dataset.weights)

    def batches(start: int, workers: int) -> Batches:
        # Through the ends of epochs, since a process that reads takes seconds to start; anew for another size.
        while start < config.train.epochs * steps_per_epoch:
            stage = stage_of(config, start // steps_per_epoch)
            stop = -(-(stage + 1) * config.train.epochs // len(augmentations)) * steps_per_epoch
            images = pipeline.TrainingImages(
                read,
                train,
                augmentations[stage],
                config.train.batch_size,
                config.seed,
                data.balanced_sampling,
                devices.part,
                mix,
            )
            with closing(pipeline.train_batches(images, start, stop, workers)) as reading:
                yield from reading
            start = stop

    return batches


def _augmentations(data: ConfigDict, sizes: tuple[int, ...]) -> list[Augmentation]:
    """Returns what is done to training images, one for each equal share of the epochs."""
    preprocessing, make = Preprocessing.from_config(data), AUGMENTATIONS[data.augmentation]
    strengths = np.linspace(0.5, 1, len(sizes)) if len(sizes) > 1 else [1.0]
    return [
        make(replace(preprocessing, image_size=size), data.min_crop_area, float(strength))
        for size, strength in zip(sizes, strengths, strict=True)
    ]


def stage_of(config: ConfigDict, epoch: int) -> int:
    """Returns which of the sizes of `data.progressive` an epoch, counted from zero, trains at."""
    return epoch * len(config.data.progressive) // config.train.epochs
