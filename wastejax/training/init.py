"""The weights that a run starts from: random, those of an earlier run, or published ones."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from wastejax.bundle import Bundle, load_bundle
from wastejax.bundled import model_path
from wastejax.data.transforms import Preprocessing
from wastejax.errors import ConfigError, UserError
from wastejax.files import user_path
from wastejax.models import Model
from wastejax.models.weights.published import find_weights, load_pretrained
from wastejax.progress import Say, first_of


def is_run(weights: str) -> bool:
    """Returns whether `config.init.weights` names a run or a bundle."""
    return _folder(weights).is_dir()


def _folder(weights: str) -> Path:
    return user_path(model_path(weights))


def follow_preprocessing(
    config: ConfigDict, given: set[str], say: Say, begun: ConfigDict | None = None
) -> None:
    """Sets the keys of `config.data` to how the initial weights want their images, in place.

    Args:
        config: a whole recipe; read are init.weights and init.preprocessing.
        given: keys that the user set, such as `data.image_size`; these stay.
        say: is told what changes.
        begun: the config of a run that began from these weights and is resumed; as it prepared images then, it
            goes on, whatever became of the weights.

    Raises:
        UserError: the weights are not there.
    """
    weights = config.init.weights
    if not weights:
        return
    wanted = _wanted(weights) if begun is None else _as_begun(weights, begun)
    changed = {
        key: value
        for key, value in (wanted if config.init.preprocessing else {}).items()
        if f"data.{key}" not in given and config.data[key] != value
    }
    if changed:
        config.data.update(changed)
        whom = weights if begun is None else f"the run that began from {weights}"
        say(f"following {whom}: " + ", ".join(f"config.data.{k}={v}" for k, v in changed.items()))


def _wanted(weights: str) -> dict[str, Any]:
    """Returns how weights want their images, in keys of `config.data`; nothing where that is not known."""
    if is_run(weights):
        return load_bundle(_folder(weights)).preprocessing.to_dict()
    try:
        return find_weights(weights)[1] or {}
    except UserError as error:
        raise ConfigError("config.init.weights", f"{weights}: {error}") from None


def _as_begun(weights: str, begun: ConfigDict) -> dict[str, Any]:
    """Returns how a run prepares its images, in keys of `config.data`."""
    if user_path(weights).is_file() and not _wanted(weights):
        return {}  # the recipe decided, and is to be the same
    return {field.name: begun.data[field.name] for field in fields(Preprocessing) if field.name in begun.data}


def check_weights(config: ConfigDict, shapes: dict[str, Any]) -> None:
    """Raises a UserError where the initial weights, of which there are any, are not for this network.

    Args:
        config: a whole recipe; read are model and init.weights.
        shapes: of the network's variables, for any number of classes.
    """
    weights = config.init.weights
    if is_run(weights):
        _fitting(weights, load_bundle(_folder(weights)), shapes, other_classes=True)
    else:
        load_pretrained(weights, config.model, shapes)


def random_variables(config: ConfigDict, model: Model) -> dict[str, Any]:
    """Returns the variables of a network as a recipe's seed draws them."""
    return model.init(jax.random.key(config.seed), config.data.image_size)


def initial_variables(config: ConfigDict, model: Model, classes: tuple[str, ...], say: Say) -> dict[str, Any]:
    """Returns the variables before the first step.

    Args:
        config: a whole recipe; read are seed, data.image_size, model and init.weights.
        model: the network.
        classes: the names that its classifier tells apart.
        say: is told what was loaded and what was not.

    Raises:
        UserError: the weights cannot be read, or are of another network; tensors that do not fit are named.
    """
    variables = random_variables(config, model)
    weights = config.init.weights
    if not weights:
        return variables
    if is_run(weights):
        return _of_run(weights, variables, classes, say)
    variables, report = load_pretrained(weights, config.model, variables)
    say(f"starting from {weights}")
    for note in report.notes:
        say(f"note: {note}")
    return variables


def _of_run(weights: str, variables: dict[str, Any], classes: tuple[str, ...], say: Say) -> dict[str, Any]:
    bundle = load_bundle(_folder(weights))
    other_classes = bundle.classes != classes
    ours, theirs = _fitting(weights, bundle, variables, other_classes)
    fresh = _classifier(ours) if other_classes else set()
    say(f"starting from {bundle.path}" + ("; the classifier is new, for other classes" if fresh else ""))
    started = unflatten_dict({name: ours[name] if name in fresh else theirs[name] for name in ours}, sep="/")
    # Flattening loses the batch statistics of a network that has none.
    return {**{key: {} for key in variables}, **started}


def _fitting(
    weights: str, bundle: Bundle, variables: dict[str, Any], other_classes: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the variables of a network, or their shapes, and those of a bundle, by flat names.

    Raises:
        UserError: they are of two networks; classifiers may differ where the classes do.
    """
    learned = {name: bundle.variables[name] for name in ("params", "batch_stats")}
    ours, theirs = flatten_dict(variables, sep="/"), flatten_dict(learned, sep="/")
    wrong = [
        name
        for name in sorted((ours.keys() | theirs.keys()) - (_classifier(ours) if other_classes else set()))
        if name not in ours or name not in theirs or np.shape(ours[name]) != np.shape(theirs[name])
    ]
    if wrong:
        raise ConfigError(
            "config.init.weights", f"{weights} is of another network: {first_of(wrong, 5)} differ"
        )
    return ours, theirs


def _classifier(flat: Iterable[str]) -> set[str]:
    return {name for name in flat if name.startswith("params/classifier/")}
