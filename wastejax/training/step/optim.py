"""optax chains and learning-rate schedules from a config."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from wastejax.models.structure import first_blocks, parts


def make_schedule(optim: ConfigDict, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
    """Returns step -> learning rate: linear warm-up, then cosine or constant ('plateau' scales that later)."""
    warmup = min(round(optim.warmup_epochs * steps_per_epoch), total_steps - 1)
    peak = optim.learning_rate
    after = (
        optax.cosine_decay_schedule(peak, max(1, total_steps - warmup), alpha=optim.final_lr)
        if optim.schedule == "cosine"
        else optax.constant_schedule(peak)
    )
    if not warmup:
        return after
    # The first step is already one warm-up step up: a rate of zero would waste it.
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, warmup), after], [warmup])


def decayed(params: Any) -> Any:
    """Returns a tree of bools: weight decay is for kernels and tables, not for biases and norm scales."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def frozen_modules(optim: ConfigDict, params: Any) -> frozenset[str]:
    """Returns the keys of `params` that are frozen: no gradient, no new statistics, no dropout.

    Args:
        optim: read are backbone_lr_factor and frozen_blocks. At a factor of 0 all but the head is frozen: its
            gradients would count in the norm that clipping and sharpness look at, though nothing learns by them.
        params: of `Model.init`.

    Raises:
        ConfigError: there are fewer blocks before the classifier.
    """
    if optim.backbone_lr_factor == 0:
        return frozenset(name for part in parts(params) if part.freezable for name in part.modules)
    return first_blocks(params, optim.frozen_blocks)


def layer_factors(optim: ConfigDict, depths: Any) -> Any:
    """Returns what each parameter's learning rate is multiplied with; all 1 means no fine-tuning keys are set.

    Args:
        optim: read are backbone_lr_factor, layer_decay and frozen_blocks.
        depths: tree of ints, `layer_index`: 0 for the stem, the highest for the head.
    """
    head = max(jax.tree.leaves(depths))

    def factor(depth: int) -> float:
        if depth < optim.frozen_blocks:
            return 0.0
        return 1.0 if depth == head else optim.backbone_lr_factor * optim.layer_decay ** (head - depth)

    return jax.tree.map(factor, depths)


def make_optimizer(
    optim: ConfigDict, schedule: optax.Schedule, factors: Any = None
) -> optax.GradientTransformation:
    """Returns the chain: clip, coupled decay, moments, decoupled decay, minus learning rate.

    Args:
        optim: the config's section.
        schedule: step -> learning rate.
        factors: tree like the parameters, see `layer_factors`; None for 1 everywhere.

    Adam's L2 is coupled as in the study: loss + lambda * w^T w, so the gradient gains 2 * lambda * w before the
    moments see it. AdamW's is decoupled (Loshchilov & Hutter 2019). SGD has Nesterov momentum and coupled L2 in
    the usual form (gradient + lambda * w).
    """
    decay = optim.weight_decay
    # Moments as one vector: hundreds of small arrays cost a step 4 % of its time on a CPU, most of it in handing
    # them over.
    adam = optax.flatten(optax.scale_by_adam(b1=optim.momentum))
    momentum = optax.flatten(optax.trace(optim.momentum, nesterov=True))
    steps = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
    if optim.name == "adam":
        steps += [optax.add_decayed_weights(2 * decay, decayed), adam]
    elif optim.name == "adamw":
        steps += [adam, optax.add_decayed_weights(decay, decayed)]
    else:
        steps += [optax.add_decayed_weights(decay, decayed), momentum]
    if factors is not None and set(jax.tree.leaves(factors)) != {1.0}:
        steps.append(optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors)))
    return optax.chain(*steps, optax.scale_by_learning_rate(schedule))


def make_plateau(optim: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """Returns optax's reduce-on-plateau. It counts calls of `update`, so call it once an epoch (`on_plateau`)."""
    return optax.contrib.reduce_on_plateau(
        factor=optim.plateau_factor, patience=optim.plateau_patience, rtol=1e-4, accumulation_size=1
    )


def on_plateau(plateau: optax.GradientTransformationExtraArgs, state: Any, loss: float) -> Any:
    """Returns the plateau's state after an epoch with this validation loss; `state.scale` multiplies updates."""
    _, state = plateau.update(jnp.zeros(()), state, value=jnp.asarray(loss, jnp.float32))
    return state
