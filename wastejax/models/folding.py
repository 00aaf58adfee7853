"""Batch normalization folded into the convolutions before it: the same answers from fewer operations.

A trained `BatchNorm` scales and shifts each channel by constants, and a convolution is linear, so the scale can go
into the kernel and the shift becomes a bias (Jacob et al. 2018, section 3.2). Runtimes fold as well, but not all of
them and not always; an exported file should not depend on it.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from wastejax.models import Model, Variables
from wastejax.models.layers.blocks import ConvNormAct
from wastejax.models.layers.norm import BatchNorm


def fold_batch_norm(model: Model, variables: Variables, image_size: int) -> Variables:
    """Returns variables for `apply_folded`: each `ConvNormAct` has a scaled kernel and its norm only a bias.

    Normalizations elsewhere, such as those before a convolution, stay as they are.

    Args:
        model: the network.
        variables: of the network; computed with in float64, so that folding adds no error of its own.
        image_size: any that the network takes.
    """
    epsilons: dict[tuple[str, ...], float] = {}

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if _is_foldable(context.module):
            epsilons[context.module.path] = context.module.epsilon
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(model.apply, variables, jnp.zeros((1, image_size, image_size, 3)))
    folded = jax.tree.map(np.asarray, variables)  # new dicts, shared arrays
    for (*parents, norm), epsilon in epsilons.items():
        layer, stats = folded["params"], folded["batch_stats"]
        for name in parents:
            layer, stats = layer[name], stats[name]
        bn, mean, var = layer[norm], stats[norm]["mean"], stats[norm]["var"]
        factor = bn["scale"].astype(np.float64) / np.sqrt(var.astype(np.float64) + epsilon)
        layer["conv"]["kernel"] = (layer["conv"]["kernel"] * factor).astype(np.float32)
        layer[norm] = {"bias": (bn["bias"] - mean * factor).astype(np.float32)}
    return folded


def apply_folded(model: Model, variables: Variables, images: Array, form: str = "apply") -> Any:
    """Computes what a method of the model (`form`) does, with the variables that `fold_batch_norm` made."""

    def only_shift(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if not _is_foldable(context.module):
            return call(*args, **kwargs)
        return args[0] + context.module.get_variable("params", "bias").astype(args[0].dtype)

    with nn.intercept_methods(only_shift):
        return getattr(model, form)(variables, images)


def fold_entry(variables: Variables, std: Sequence[float], reverse: bool) -> Variables:
    """Returns variables of a network that takes RGB bytes less their mean, without dividing or turning channels.

    A convolution that pads with zeros can take over a factor for each channel and their order, but no shift.

    Args:
        variables: of the network.
        std: of the network's channels in RGB order, what the bytes would be divided by, over 255.
        reverse: whether the network itself wants BGR.
    """
    params = dict(variables["params"])
    first = params["stem"]["conv"] if "stem" in params else params["patch_embed"]
    kernel = np.asarray(first["kernel"], np.float64)
    kernel = kernel[:, :, ::-1] if reverse else kernel
    folded = {**first, "kernel": (kernel / (255 * np.asarray(std)[:, None])).astype(np.float32)}
    if "stem" in params:
        params["stem"] = {**params["stem"], "conv": folded}
    else:
        params["patch_embed"] = folded
    return {**variables, "params": params}


def _is_foldable(module: nn.Module) -> bool:
    return isinstance(module, BatchNorm) and isinstance(module.parent, ConvNormAct)
