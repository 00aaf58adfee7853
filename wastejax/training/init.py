"""The weights that a run starts from: random, or those of an earlier run."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from wastejax.bundle import load_bundle
from wastejax.errors import ConfigError
from wastejax.models import Model

HEAD = "classifier"


def initial_variables(
    config: ConfigDict, model: Model, classes: tuple[str, ...], say: Callable[[str], None]
) -> dict[str, Any]:
    """Returns the variables before the first step.

    Args:
        config: a whole recipe; read are seed, data.image_size and init.weights.
        model: the network.
        classes: the names that its classifier tells apart.
        say: is told what was loaded and what was not.

    Raises:
        ConfigError: the earlier run's network is another one; the first tensors that differ are named.
    """
    variables = model.init(jax.random.key(config.seed), config.data.image_size)
    if not config.init.weights:
        return variables
    bundle = load_bundle(config.init.weights)
    ours, theirs = flatten_dict(variables, sep="/"), flatten_dict(bundle.variables, sep="/")
    head = {name for name in ours if name.startswith(f"params/{HEAD}/")}
    fresh = head if bundle.classes != classes else set()
    wrong = [
        name
        for name in sorted((ours.keys() | theirs.keys()) - fresh)
        if np.shape(ours.get(name)) != np.shape(theirs.get(name)) or name not in ours or name not in theirs
    ]
    if wrong:
        named = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ConfigError(
            "config.init.weights", f"{config.init.weights} is of another network: {named} differ"
        )
    say(f"starting from {bundle.path}" + ("; the classifier is new, for other classes" if fresh else ""))
    return unflatten_dict({name: ours[name] if name in fresh else theirs[name] for name in ours}, sep="/")
