"""Whether a card computes what a CPU does: logits, a training step, an evaluation (rows of `experiments/gpu.py`).

Where there is no card, the CPU's own forms are compared with those that a card gets.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from wastejax.benchmark.networks import config_of
from wastejax.bundle import default_bundle, load_bundle
from wastejax.config import load_recipe
from wastejax.data.drawing.dataset import embedded
from wastejax.data.pipeline import EvalBatches
from wastejax.data.sources import open_folder
from wastejax.data.transforms import Preprocessing
from wastejax.evaluation.evaluate import evaluate
from wastejax.models import create_model
from wastejax.runtime.jit import jit
from wastejax.training.step import make_train_step
from wastejax.training.step.state import create_train_state

# Network -> side of the images.
NETWORKS = {
    "efficientnetv2_b0_eca": 224,
    "mobilevit_xxs": 256,
    "mobilevit_xxs_ir": 256,
    "pyramidnet_18_a48": 64,
    "swin_t": 256,
}
TRAINED = {"efficientnetv2_b0_eca": 128, "mobilevit_xxs": 128}
TINY = {"efficientnetv2_tiny_eca": 32}
CLASSES = 30
# Dtype and precision of products.
LOGITS = {
    "logits, float32": ("float32", "highest"),
    "logits, TF32 where the card has it": ("float32", "default"),
    "logits, bfloat16": ("bfloat16", "default"),
}
# How far a card may be off: largest difference over the largest number, of parameters' changes the norms' quotient.
LIMITS = {
    "logits, float32": 1e-4,
    "logits, TF32 where the card has it": 2e-2,
    "logits, bfloat16": 1e-1,
    "training step, loss": 1e-4,
    "training step, change of the weights": 2e-2,
    "evaluation, logits": 1e-3,
    "evaluation, top-1": 0.0,
}


class Side(NamedTuple):
    """Something that computes: a device, and the form of the convolutions that it is given."""

    device: jax.Device
    lowering: str


def sides() -> tuple[Side, Side]:
    """Returns the CPU, and the card; for want of one, the CPU with the forms that a card gets."""
    cpu, device = jax.devices("cpu")[0], jax.devices()[0]
    return Side(cpu, "auto"), Side(device, "direct" if device.platform == "cpu" else "auto")


def agreement(small: bool, together: int) -> dict[str, Any]:
    """Returns the rows of the comparison: what, of which network, how far off, the limit, and whether within it."""
    found = []
    one, other = sides()

    def add(model: str, what: str, error: float) -> None:
        found.append(
            {
                "model": model,
                "what": what,
                "error": error,
                "limit": LIMITS[what],
                "within": error <= LIMITS[what],
            }
        )

    # Together, for most of it is compiling.
    with ThreadPoolExecutor(together) as pool:
        exact: dict[str, Future[np.ndarray]] = {}
        answers: dict[tuple[str, str], Future[np.ndarray]] = {}
        for name, size in (TINY if small else NETWORKS).items():
            exact[name] = pool.submit(logits, one, name, size, *LOGITS["logits, float32"])
            for what, how in LOGITS.items():
                answers[name, what] = pool.submit(logits, other, name, size, *how)
        steps = {
            name: [pool.submit(step, side, name, size) for side in (one, other)]
            for name, size in (TINY if small else TRAINED).items()
        }
        scores = [pool.submit(scored, side, small) for side in (one, other)]
    for (name, what), future in answers.items():
        add(name, what, off(future.result(), exact[name].result()))
    for name, futures in steps.items():
        (loss, change), (loss_, change_) = (future.result() for future in futures)
        add(name, "training step, loss", abs(loss_ - loss) / abs(loss))
        add(name, "training step, change of the weights", norm(change_ - change) / norm(change))
    (top1, rows), (top1_, rows_) = (future.result() for future in scores)
    name = next(iter(TINY)) if small else "the bundled model"
    add(name, "evaluation, logits", off(rows_, rows))
    add(name, "evaluation, top-1", abs(top1_ - top1))
    return {"devices": [str(side.device.device_kind) for side in (one, other)], "rows": found}


def off(found: np.ndarray, exact: np.ndarray) -> float:
    """Returns the largest difference over the largest number."""
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def norm(vector: np.ndarray) -> float:
    """Returns the length of a vector."""
    return float(np.linalg.norm(vector.astype(np.float64)))


def network(name: str, lowering: str, dtype: str, size: int) -> tuple[Any, Any]:
    """Returns a network and variables that are the same for both sides, its statistics away from 0 and 1."""
    model = create_model({**config_of(name), "lowering": lowering, "dtype": dtype}, CLASSES)
    rng = np.random.default_rng(3)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(1), size))
    variables["batch_stats"] = jax.tree.map(
        lambda a: a + rng.uniform(0, 0.3, a.shape).astype(np.float32), variables["batch_stats"]
    )
    return model, variables


def logits(side: Side, name: str, size: int, dtype: str, precision: str) -> np.ndarray:
    """Returns the answers to four drawn images, float32 [4, C]."""
    model, variables = network(name, side.lowering, dtype, size)
    images = np.random.default_rng(5).standard_normal((4, size, size, 3)).astype(np.float32)
    with jax.default_device(side.device), jax.default_matmul_precision(precision):
        found = jit(model.apply)(*jax.device_put((variables, images), side.device))
    return np.asarray(found, np.float32)


def step(side: Side, name: str, size: int) -> tuple[float, np.ndarray]:
    """Returns the loss of a training step with SGD, and how it changes all weights, float32 [P]."""
    model, variables = network(name, side.lowering, "float32", size)
    config = load_recipe("common")
    config.data.image_size = size
    config.optim.ema_decay = 0.0
    tx = optax.sgd(1.0)  # so that the change is the gradient: Adam's first step is hardly more than its sign
    rng = np.random.default_rng(7)
    batch = {
        "image": rng.integers(0, 256, (8, size, size, 3), np.uint8),
        "label": rng.integers(0, CLASSES, 8, np.int32),
    }
    with jax.default_device(side.device), jax.default_matmul_precision("highest"):
        train_step = make_train_step(model, tx, config, Preprocessing.from_config(config.data))
        state = create_train_state(variables, tx, config.optim)
        state, metrics = train_step(*jax.device_put((state, batch), side.device))
        after = jax.device_get(state.params)
    moved = jax.tree.map(lambda new, old: np.ravel(new - old), after, variables["params"])
    return float(metrics["loss"]), np.concatenate(jax.tree.leaves(moved))


def scored(side: Side, small: bool) -> tuple[float, np.ndarray]:
    """Returns top-1 and the logits of an evaluation of drawn images."""
    source = open_folder(embedded())
    bundle = load_bundle(default_bundle())
    if small:
        model, variables = network(next(iter(TINY)), side.lowering, "float32", 32)
        preprocessing = Preprocessing(32)
    else:
        config = {**bundle.config["model"], "lowering": side.lowering}
        model, variables = create_model(config, len(bundle.classes)), bundle.variables
        preprocessing = bundle.preprocessing
    indices = np.random.default_rng(0).permutation(len(source))[: 8 if small else 256]
    on_device = jax.device_put(variables, side.device)

    @jit
    def answer(variables: Any, images: Any) -> Any:
        return model.apply(variables, preprocessing.normalize(images))

    with jax.default_device(side.device), jax.default_matmul_precision("highest"):
        apply = partial(answer, on_device)
        batches = EvalBatches(source, indices, preprocessing, 8 if small else 64)
        found = evaluate(apply, batches, source, bundle.classes, indices)
    return float(found.scores["top1"]), found.logits
