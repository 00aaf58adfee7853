"""One training step: uint8 batch in, new state and a few numbers out. Jitted once, state donated."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict

from wastejax.data.transforms import Preprocessing
from wastejax.models import Model
from wastejax.runtime.jit import jit
from wastejax.training.step import losses
from wastejax.training.step.optim import frozen_modules
from wastejax.training.step.sharpness import ascend
from wastejax.training.step.state import TrainState
from wastejax.training.step.teacher import Teacher

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]


def make_train_step(
    model: Model,
    tx: optax.GradientTransformation,
    config: ConfigDict,
    preprocessing: Preprocessing,
    class_weights: np.ndarray | None = None,
    sharding: jax.sharding.Sharding | None = None,
    teacher: Teacher | None = None,
) -> TrainStep:
    """Returns the jitted step.

    Args:
        model: the network, of C classes.
        tx: its optimizer.
        config: a whole recipe; read are seed, loss, distill, optim.{ema_decay, frozen_blocks, sharpness} and
            train.accumulate.
        preprocessing: turns uint8 images into the network's input.
        class_weights: float32 [C], or None.
        sharding: of the next state, where there are several devices; see `devices.Devices.everywhere`.
        teacher: whose answers are learned beside the labels; None for labels alone.

    The step takes (state, {'image': uint8 [B, S, S, 3], 'label': int32 [B]}) and returns the next state and
    {'loss', 'top1', 'counted', 'grad_norm'}, float32 scalars; 'top1' is of the share 'counted' of the images. With
    'allowed', bool [B, C], in the batch, labels can mean several classes, all right, or none, which does not
    count (`losses.partial_labels`, `losses.outlier_exposure`); with 'shown', any number, but for 'unsaid' ones.
    """
    parts, sharpness = config.train.accumulate, config.optim.sharpness
    key = jax.random.key(config.seed)
    value_and_grad = jax.value_and_grad(_loss(model, config, preprocessing, class_weights), has_aux=True)

    def train_step(
        state: TrainState, batch: dict[str, jax.Array], teacher_variables: Any = None
    ) -> tuple[TrainState, Metrics]:
        mix_key, drop_key = jax.random.split(jax.random.fold_in(key, state.step))
        images, targets = _inputs(batch, mix_key, config.loss, model.num_classes)
        batch_stats, grads = state.batch_stats, jax.tree.map(jnp.zeros_like, state.params)
        loss = top1 = jnp.zeros(())
        # Unrolled: convolutions inside lax.scan are many times slower on a CPU.
        right, number = _right(batch, model.num_classes)
        split = (jnp.split(a, parts) for a in (images, targets, right))
        for i, (x, t, meant) in enumerate(zip(*split, strict=True)):
            taught = teacher.logits(teacher_variables, x) if teacher else None
            gradient = partial(
                value_and_grad, images=x, targets=t, taught=taught, rng=jax.random.fold_in(drop_key, i)
            )
            (part, (logits, new_stats)), g = gradient(state.params, batch_stats)
            if sharpness.name != "none":
                # Sharpness-aware: the gradient of the worst point nearby. Its batch statistics are not kept.
                g = gradient(ascend(state.params, g, sharpness), batch_stats)[1]
            batch_stats = new_stats
            grads = jax.tree.map(lambda a, b: a + b / parts, grads, g)
            loss += part / parts
            top1 += jnp.sum(meant[jnp.arange(len(meant)), jnp.argmax(logits, -1)]) / jnp.maximum(number, 1)
        new_state = _update(tx, config.optim.ema_decay, state, grads, batch_stats)
        told = {"loss": loss, "top1": top1, "counted": number / len(right)}
        return new_state, told | {"grad_norm": optax.tree.norm(grads)}

    step = jit(train_step, donate_argnums=0, out_shardings=sharding)
    # The teacher's weights as an argument: as constants they would be compiled in.
    return partial(step, teacher_variables=teacher.variables) if teacher else step


def _loss(
    model: Model, config: ConfigDict, preprocessing: Preprocessing, class_weights: np.ndarray | None
) -> Callable[..., tuple[jax.Array, tuple[jax.Array, Any]]]:
    """Returns (params, batch_stats, images, targets, taught, rng) -> loss, (logits, new batch_stats)."""
    distill = config.distill

    def loss_fn(
        params: Any,
        batch_stats: Any,
        images: jax.Array,
        targets: jax.Array,
        taught: jax.Array | None,
        rng: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        frozen = frozen_modules(config.optim, params)
        params = {k: jax.lax.stop_gradient(v) if k in frozen else v for k, v in params.items()}
        variables = {"params": params, "batch_stats": batch_stats}
        logits, new_stats = model.apply(
            variables, preprocessing.normalize(images), train=True, rng=rng, frozen=frozen
        )
        if targets.dtype == bool:
            loss = losses.partial_labels(logits, targets, config.loss.label_smoothing)
            loss += config.loss.outlier_weight * losses.outlier_exposure(logits, targets)
        elif config.loss.kind == "multilabel":
            loss = losses.binary_cross_entropy(logits, targets)
        else:
            loss = losses.cross_entropy(logits, targets, class_weights)
        if taught is not None:
            learnt = losses.distillation(logits, taught, distill.temperature)
            loss = (1 - distill.weight) * loss + distill.weight * learnt
        return loss, (logits, new_stats)

    return loss_fn


def _right(batch: dict[str, jax.Array], num_classes: int) -> tuple[jax.Array, Any]:
    """Returns bool [B, C], the classes of which the likeliest counts as right, and for how many images it counts.

    An image of none of the classes has no right answer, and validation leaves it out as well.
    """
    if "allowed" in batch:
        return batch["allowed"], batch["allowed"].any(axis=1).sum()
    right = batch.get("shown", jax.nn.one_hot(batch["label"], num_classes, dtype=bool))
    return right, len(right)


def _inputs(
    batch: dict[str, jax.Array], rng: jax.Array, loss: ConfigDict, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    """Returns images, and targets: float32 [B, C], or where labels can mean several classes the bool ones."""
    if "allowed" in batch:
        return batch["image"], batch["allowed"]
    if "shown" in batch:
        targets = losses.smooth_shown(batch["shown"], loss.label_smoothing)
        if "unsaid" in batch:  # of several sources, whose images are not mixed
            return batch["image"], jnp.where(batch["unsaid"], losses.UNSAID, targets)
    else:
        targets = losses.smooth_labels(batch["label"], num_classes, loss.label_smoothing)
    return mix(rng, batch["image"], targets, loss)


def _update(
    tx: optax.GradientTransformation, ema_decay: float, state: TrainState, grads: Any, batch_stats: Any
) -> TrainState:
    """Returns the state after the optimizer's step and that of the averaged weights."""
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    updates = jax.tree.map(lambda u: u * state.plateau.scale, updates)
    params = optax.apply_updates(state.params, updates)
    step = state.step + 1
    ema = state.ema
    if ema is not None:
        # The average would remember the random start for long: let it begin short.
        decay = jnp.minimum(ema_decay, (1.0 + step) / (10.0 + step))
        now, _ = ravel_pytree({"params": params, "batch_stats": batch_stats})
        ema = decay * ema + (1 - decay) * now
    return state.replace(step=step, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema)


def mix(
    rng: jax.Array, images: jax.Array, targets: jax.Array, loss: ConfigDict
) -> tuple[jax.Array, jax.Array]:
    """Applies mixup, cutmix, or with both on one of them at even odds."""
    choice, rng = jax.random.split(rng)
    if not (loss.mixup or loss.cutmix):
        return images, targets
    images = images.astype(jnp.float32)
    blend = partial(losses.mixup, rng, images, targets, loss.mixup)
    paste = partial(losses.cutmix, rng, images, targets, loss.cutmix)
    if loss.mixup and loss.cutmix:
        return jax.lax.cond(jax.random.bernoulli(choice), blend, paste)
    return blend() if loss.mixup else paste()
