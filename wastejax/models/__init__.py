"""The networks by name. Outside this package a network is `Model.apply(variables, images, train=…)`.

To add a family: a module with SIZES, a network and `check` as `efficientnetv2` has them, its keys in
configs/common.py, a row in `FAMILIES`, its variants in `MODELS`, and their parameter counts in
tests/models/test_models.py.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from inspect import signature
from operator import index
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from wastejax.config import family_keys
from wastejax.errors import ConfigError, UserError, nearest
from wastejax.models import efficientnetv2, mobilevit, pyramidnet, swin
from wastejax.models.familiarity import COLLECTION, familiarity
from wastejax.models.layers.blocks import pool
from wastejax.models.layers.init import on_host

Variables = dict[str, Any]

_EVALUATING = {"train": False, "use_running_average": True}


class Family(NamedTuple):
    """What one architecture offers.

    Attributes:
        sizes: by name; each has a field for every key whose default is None, and its usual `image_size`.
        network: its module, called as `module(images, train, features_only)`; its fields: `num_classes`, the keys
            of a complete config, and perhaps `size`, one of the sizes.
        check: (complete config, image size) raises ConfigError for anything else that cannot be.
    """

    sizes: Mapping[str, Any]
    network: Callable[..., nn.Module]
    check: Callable[[Mapping[str, Any], int], None]


FAMILIES = {
    "efficientnetv2": Family(efficientnetv2.SIZES, efficientnetv2.EfficientNetV2, efficientnetv2.check),
    "mobilevit": Family(mobilevit.SIZES, mobilevit.MobileViT, mobilevit.check),
    "pyramidnet": Family(pyramidnet.SIZES, pyramidnet.PyramidNet, pyramidnet.check),
    "swin": Family(swin.SIZES, swin.Swin, swin.check),
}


def _efficientnet(size: str, **keys: Any) -> dict[str, Any]:
    return {"name": "efficientnetv2", "size": size, **keys}


def _mobilevit(size: str, **keys: Any) -> dict[str, Any]:
    return {"name": "mobilevit", "size": size, **keys}


_ECA = {"attention": "eca", "fused_attention": "eca", "activation": "leaky_relu"}

MODELS: dict[str, dict[str, Any]] = {
    **{f"efficientnetv2_{size}": _efficientnet(size) for size in ("b0", "b1", "b2", "b3", "s", "m", "tiny")},
    **{f"efficientnetv2_{size}_eca": _efficientnet(size, **_ECA) for size in ("b0", "s", "tiny")},
    **{f"efficientnetv2_{size}_glu": _efficientnet(size, attention="glu") for size in ("b0", "s", "tiny")},
    **{f"efficientnet_{size}": _efficientnet(size) for size in ("lite0", "lite1", "lite2")},
    **{f"mobilevit_{size}": _mobilevit(size) for size in ("xxs", "xs", "s", "tiny")},
    **{
        f"mobilevit_{size}_ir": _mobilevit(size, mixer="inverted_residual")
        for size in ("xxs", "xs", "s", "tiny")
    },
    **{
        f"mobilevit_{size}_conv5": _mobilevit(size, local_kernel="add_5x5")
        for size in ("xxs", "xs", "s", "tiny")
    },
    **{f"pyramidnet_{size}": {"name": "pyramidnet", "size": size} for size in pyramidnet.SIZES},
    **{f"swin_{size}": {"name": "swin", "size": size} for size in swin.SIZES},
}


def _init_on_host(module: nn.Module, rng: Array, images: Array) -> Variables:
    drawn: dict[str, np.ndarray] = {}

    def constants(rng: Array) -> dict[str, Array]:
        variables = flatten_dict(module.init(rng, images), sep="/")
        drawn.update({name: leaf for name, leaf in variables.items() if isinstance(leaf, np.ndarray)})
        return {name: leaf for name, leaf in variables.items() if name not in drawn}

    with on_host(rng):
        rest = jax.jit(constants)(rng)
    return unflatten_dict({**rest, **jax.tree.map(jnp.asarray, drawn)}, sep="/")


@dataclass(frozen=True)
class Model:
    """A network as functions of its variables {'params': …, 'batch_stats': …}, plain dicts of float32 arrays.

    Attributes:
        module: the Flax module.
        config: its complete config.
        num_classes: number of logits.
    """

    module: nn.Module
    config: dict[str, Any]
    num_classes: int

    def init(self, rng: Array, image_size: int) -> Variables:
        """Draws the variables for images of this size; `params['classifier']` is the last layer."""
        images = jnp.zeros((1, image_size, image_size, 3))
        if isinstance(rng, jax.core.Tracer):
            variables = self.module.init(rng, images)
        else:
            variables = _init_on_host(self.module, rng, images)
        return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

    def apply(
        self,
        variables: Variables,
        images: Array,
        train: bool = False,
        rng: Array | None = None,
        frozen: Collection[str] = (),
    ) -> Any:
        """Computes logits.

        Args:
            variables: of `init`; with the collection of `models.familiarity`, unfamiliar images are answered
                less surely, but for training.
            images: normalized, [B, H, W, 3], any float dtype.
            train: use the batch's statistics, dropout and stochastic depth.
            rng: key of the two latter; needed where their rates are above 0.
            frozen: names of top-level modules, keys of `params`, that behave as if `train` were False.

        Returns:
            Logits [B, num_classes], float32; while training a pair of them and the new `batch_stats`.
        """
        if not train and COLLECTION in variables:
            seen = self.pooled(variables, images)
            head = variables["params"]["classifier"]
            return (seen @ head["kernel"] + head["bias"]) * familiarity(variables[COLLECTION], seen)
        if not train:
            return self.module.apply(variables, images)
        rngs = None if rng is None else {"dropout": rng}

        def still(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            module = context.module
            if context.method_name != "__call__" or len(module.path) != 1 or module.path[0] not in frozen:
                return call(*args, **kwargs)
            # A block is told by `train`, a norm of its own by `use_running_average`; others have one way alone.
            given = signature(type(module).__call__).bind(module, *args, **kwargs)
            known = given.signature.parameters
            given.arguments |= {name: value for name, value in _EVALUATING.items() if name in known}
            return call(*given.args[1:], **given.kwargs)

        with nn.intercept_methods(still):
            logits, new = self.module.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])
        return logits, new.get("batch_stats", {})

    def features(self, variables: Variables, images: Array) -> Array:
        """Computes what the classifier averages over positions, [B, h, w, C], in the dtype of the config."""
        return cast(Array, self.module.apply(variables, images, features_only=True))

    def pooled(self, variables: Variables, images: Array) -> Array:
        """Computes what the classifier sees of each image, float32 [B, D]: to be jitted as a whole, as `apply` is.

        XLA rounds what leaves a program to the dtype of the config, and need not before a mean within it.
        """
        return pool(self.features(variables, images))

    def dense(self, variables: Variables, images: Array) -> Array:
        """Computes logits at every position: the class activation maps (Zhou et al. 2016, eq. 2) of all classes.

        The classifier is linear behind a mean, so the mean of these over positions is what `apply` returns, but
        for the factor of `models.familiarity`.

        Args:
            variables: of `init`.
            images: as for `apply`, and larger where one wants more positions.

        Returns:
            Logits [B, h, w, num_classes], float32.
        """
        head = variables["params"]["classifier"]
        return self.features(variables, images).astype(jnp.float32) @ head["kernel"] + head["bias"]


def complete(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in the defaults of a model config.

    Raises:
        ConfigError: an unknown family, size or key, or a value that is not among a key's choices.
    """
    given = dict(model_config)
    name = str(given.get("name"))
    if name not in FAMILIES:
        raise ConfigError("config.model.name", f"unknown model {name!r}{nearest(name, FAMILIES)}")
    family = FAMILIES[name]
    size = str(given.get("size"))
    if size not in family.sizes:
        raise ConfigError("config.model.size", f"{name} has no size {size!r}{nearest(size, family.sizes)}")
    keys = family_keys(name)
    for key in given.keys() - keys.keys() - {"name", "size"}:
        raise ConfigError(f"config.model.{key}", f"{name} has no such key{nearest(key, keys)}")
    config: dict[str, Any] = {"name": name, "size": size}
    for key, known in keys.items():
        value = given.get(key)
        value = known.default if value is None else value
        config[key] = getattr(family.sizes[size], key) if value is None else value
        known.check(f"model.{key}", config[key])
    return config


def _count(num_classes: Any) -> int:
    """Returns the number of classes as Python's integer; raises a UserError where it is none, or below 1."""
    try:
        count = 0 if isinstance(num_classes, bool) else index(num_classes)  # also NumPy's
    except TypeError:
        count = 0
    if count < 1:
        raise UserError(f"num_classes: must be an integer >= 1, is {num_classes!r}")
    return count


def check(model_config: Mapping[str, Any], image_size: int) -> None:
    """Raises ConfigError where no network can be built of this config, or it cannot take this image size."""
    config = complete(model_config)
    FAMILIES[config["name"]].check(config, image_size)


def create_model(model_config: Mapping[str, Any], num_classes: int) -> Model:
    """Builds a network.

    Args:
        model_config: a row of `MODELS`, or the family's `name`, a `size`, and any keys of `config.model` for this
            family, see configs/common.py; those left out or None take their defaults.
        num_classes: number of logits, at least 1.

    Raises:
        UserError: as `complete`; or there can be no such number of logits.
    """
    config, num_classes = complete(model_config), _count(num_classes)
    family = FAMILIES[config["name"]]
    keys = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    del keys["name"], keys["size"]
    keys["dtype"] = jnp.dtype(config["dtype"])
    if "size" in signature(family.network).parameters:
        keys["size"] = family.sizes[config["size"]]
    return Model(family.network(num_classes=num_classes, **keys), config, num_classes)
