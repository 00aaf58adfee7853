"""Networks of `MODELS` as things that can be timed: compiled ahead, with what the compiler says of them."""

import ast
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from wastejax.benchmark.peer_worker import seconds_of
from wastejax.benchmark.timing import Runner
from wastejax.config import load_recipe
from wastejax.data.transforms import Preprocessing
from wastejax.errors import UserError, nearest
from wastejax.models import MODELS, Model, create_model
from wastejax.models.cost import NUM_CLASSES, cost
from wastejax.models.folding import apply_folded, fold_batch_norm
from wastejax.runtime.jit import jit
from wastejax.training.devices import on_devices, use_devices
from wastejax.training.step import make_train_step
from wastejax.training.step.optim import make_optimizer, make_schedule
from wastejax.training.step.state import create_train_state


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes:
        model: a key of `MODELS`, with keys of its config where they differ: `mobilevit_s+expansion=4`.
        size: side of the images, pixels.
        batch: images at once.
        dtype: of the activations.
        mode: 'infer' or 'train', a whole optimizer step with AdamW.
        runtime: 'jax'; 'stock', the same with XLA's own convolutions, as Flax has them; or a peer's name.
    """

    model: str
    size: int
    batch: int
    dtype: str = "float32"
    mode: str = "infer"
    runtime: str = "jax"

    def __str__(self) -> str:
        return f"{self.model} {self.runtime}"


# Keys of the config that options of the benchmark set, whatever the network says.
SET_BY = {
    "dtype": "--dtypes=float32,bfloat16 measures both",
    "lowering": "--against=stock measures 'direct' beside 'auto'",
}


def config_of(model: str) -> dict[str, Any]:
    """Returns the config of `NAME` or `NAME+key=value+…`.

    Raises:
        UserError: there is no such name, a part is no pair, or its key is of `SET_BY`. Keys and values are checked
            by `models.check`.
    """
    name, *changes = model.split("+")
    if name not in MODELS:
        raise UserError(f"--models: no such network {name!r}{nearest(name, MODELS)}")
    config = dict(MODELS[name])
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise UserError(f"--models={model}: {change!r} is not key=value")
        if key in SET_BY:
            raise UserError(f"--models={model}: leave {key} out; {SET_BY[key]}")
        try:
            config[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            config[key] = value
    return config


def model_of(case: Case) -> Model:
    """Returns the network of a case that runs in jax."""
    lowering = "direct" if case.runtime == "stock" else "auto"
    return create_model({**config_of(case.model), "dtype": case.dtype, "lowering": lowering}, NUM_CLASSES)


def prepare(case: Case) -> tuple[Runner, dict[str, Any]]:
    """Compiles a case.

    Returns:
        What times it, and facts: `device`, `trace_s`, `compile_s`, `temporary_mib` (None where unknown),
        `parameters`, `gmacs` (of one image, forward) and `weights_mib`.
    """
    model = model_of(case)
    variables = model.init(jax.random.key(0), case.size)
    jitted, arguments, call = (_train if case.mode == "train" else _infer)(case, model, variables)
    start = time.perf_counter()
    lowered = jitted.lower(*arguments)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    memory = compiled.memory_analysis()
    parameters, macs = cost(config_of(case.model), case.size)
    facts = {
        "device": jax.devices()[0].platform,
        "trace_s": traced - start,
        "compile_s": done - traced,
        "temporary_mib": None if memory is None else memory.temp_size_in_bytes / 2**20,
        "parameters": parameters,
        "gmacs": macs / 1e9,
        "weights_mib": sum(leaf.nbytes for leaf in jax.tree.leaves(variables)) / 2**20,
    }
    one = call(compiled)
    return lambda calls: seconds_of(one, calls), facts


Prepared = tuple[Any, tuple[Any, ...], Callable[[Any], Callable[[], Any]]]


def _infer(case: Case, model: Model, variables: Any) -> Prepared:
    """Images that lie on the device, normalized, to logits that lie there too."""
    images = jax.random.normal(jax.random.key(1), (case.batch, case.size, case.size, 3))
    apply = model.apply
    if case.runtime == "jax":  # as `Bundle.logits`; Flax leaves batch normalization where it is
        variables, apply = fold_batch_norm(model, variables, case.size), partial(apply_folded, model)
    arguments = jax.device_put(variables), images
    return (
        jit(apply),
        arguments,
        lambda compiled: lambda: jax.block_until_ready(compiled(*arguments)),
    )


def training(case: Case) -> Prepared:
    """Returns the trainer's own jitted step, its state and one batch of bytes, and what makes a call of the step.

    The state is donated from step to step.
    """
    model = model_of(case)
    return _train(case, model, model.init(jax.random.key(0), case.size))


def _train(case: Case, model: Model, variables: Any) -> Prepared:
    config = load_recipe("common")
    config.data.image_size = case.size
    config.loss.label_smoothing = 0.0  # as the peers
    config.optim.clip_norm = 0.0
    tx = make_optimizer(config.optim, make_schedule(config.optim, 100, 1000))
    devices = use_devices(jax.devices()[:1])
    preprocessing = Preprocessing.from_config(config.data)
    step = make_train_step(model, tx, config, preprocessing, sharding=devices.everywhere)
    rng = np.random.default_rng(0)
    rows = {
        "image": rng.integers(0, 256, (case.batch, case.size, case.size, 3), np.uint8),
        "label": rng.integers(0, NUM_CLASSES, case.batch, np.int32),
    }
    batch = on_devices(devices, rows)
    state = devices.replicate(create_train_state(variables, tx, config.optim))

    def call(compiled: Any) -> Callable[[], Any]:
        def one() -> None:
            nonlocal state
            state, metrics = compiled(state, batch)
            jax.block_until_ready((state, metrics))

        return one

    return step, (state, batch), call
