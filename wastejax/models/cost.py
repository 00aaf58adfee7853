"""What each network costs: parameters, and multiply-adds counted from its computation."""

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import jax

from wastejax.models import FAMILIES, create_model

NUM_CLASSES = 30  # the study's


def cost(model_config: Mapping[str, Any], image_size: int, num_classes: int = NUM_CLASSES) -> tuple[int, int]:
    """Returns (trainable parameters, multiply-adds for one image: convolutions and dots, as timm counts)."""
    model = create_model({**model_config, "lowering": "direct"}, num_classes)
    # Initializing runs the network on one image, so a single trace tells both.
    trace = jax.make_jaxpr(partial(model.init, image_size=image_size), return_shape=True)
    jaxpr, variables = trace(jax.random.key(0))
    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"])), _macs(jaxpr.jaxpr)


def _macs(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        shapes = [v.aval.shape for v in equation.invars]
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.params["dimension_numbers"].rhs_spec
            out_channels = shapes[1][kernel[0]]
            total += prod(equation.outvars[0].aval.shape) * prod(shapes[1]) // out_channels
        elif equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            total += prod(equation.outvars[0].aval.shape) * prod(shapes[0][i] for i in contracted)
        elif equation.primitive.name == "cond":  # forms of the same for several backends
            total += max(_macs(branch.jaxpr) for branch in equation.params["branches"])
        else:
            inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns"))
            total += sum(_macs(getattr(p, "jaxpr", p)) for p in inner if hasattr(p, "eqns"))
    return total


def image_size(config: Mapping[str, Any]) -> int:
    """Returns the usual input size of a row of MODELS, pixels."""
    return int(FAMILIES[config["name"]].sizes[config["size"]].image_size)
