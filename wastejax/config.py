"""Recipes and their overrides: found by path or name, checked, stored with the run, compared on resuming."""

import importlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from wastejax.errors import ConfigError, UserError, nearest
from wastejax.keys import Key, as_text, old_names, own_key

PREFIX = "--config."


def recipes_dir() -> Path:
    """Returns the folder of recipes: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def recipe_names() -> list[str]:
    """Returns the names of the recipes that come along."""
    return sorted(p.stem for p in recipes_dir().glob("*.py") if p.stem not in ("__init__", "common"))


def load_recipe(recipe: str) -> ConfigDict:
    """Returns the config of a recipe.

    Args:
        recipe: a path of a file that has `get_config()`, or the name of one of ours.

    Raises:
        UserError: there is no such recipe, it is no Python, or it has no `get_config` that returns a config.
    """
    path = Path(recipe)
    if path.suffix != ".py":
        path = recipes_dir() / f"{recipe}.py"
    if not path.is_file():
        raise UserError(f"--config={recipe}: no such recipe{nearest(Path(recipe).stem, recipe_names())}")
    _find_recipes()
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"--config={recipe}: imports {error.name}, which is not installed") from None
    except (SyntaxError, UnicodeDecodeError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
        raise UserError(f"--config={recipe}: {line}is no Python ({getattr(error, 'msg', error)})") from None
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={recipe}: the file has no get_config(); see configs/common.py")
    config = module.get_config()
    if not isinstance(config, ConfigDict):
        what = "nothing" if config is None else f"a {type(config).__name__}"
        raise UserError(
            f"--config={recipe}: get_config() returns {what}; return a ConfigDict, as configs/common.py does"
        )
    _rename(config)
    return config.lock()


def _rename(config: ConfigDict) -> None:
    """Moves what a recipe set by the old name of a key to where it is now, in place."""
    flat = flatten(config)
    for old, new in old_names(keys(config)).items():
        if old in flat:
            config.update_from_flattened_dict({new: flat[old]})
            *parents, last = old.split(".")
            section = config
            for parent in parents:
                section = section[parent]
            del section[last]


def common() -> ModuleType:
    """Returns configs/common.py, where every key is said."""
    _find_recipes()
    return importlib.import_module("configs.common")


def _find_recipes() -> None:
    """Makes `from configs import common` in a recipe mean ours, wherever the package is installed."""
    package = sys.modules.setdefault("configs", ModuleType("configs"))
    where = list(getattr(package, "__path__", ()))
    if str(recipes_dir()) not in where:
        package.__path__ = [*where, str(recipes_dir())]


def keys(config: Mapping[str, Any]) -> dict[str, Key]:
    """Returns the keys of a config: those of all recipes, and those of its network's family."""
    family = config.get("model", {}).get("name", "")
    own = common().FAMILIES.get(family, {})
    return {**common().KEYS, **{f"model.{name}": key for name, key in own.items()}}


def family_keys(family: str) -> dict[str, Key]:
    """Returns the keys that `config.model` has for a family, but for its name and size."""
    shared = {
        name.removeprefix("model."): key
        for name, key in common().KEYS.items()
        if name.startswith("model.") and name not in ("model.name", "model.size")
    }
    return {**shared, **common().FAMILIES.get(family, {})}


def as_arguments(overrides: Mapping[str, Any]) -> list[str]:
    """Returns values by key as the `--config.key=value` arguments that say the same.

    None is no text and no items, for keys that are empty by default.
    """
    empty = {name: key.default for name, key in common().KEYS.items() if key.default in ("", ())}
    values = {name: empty.get(name) if value is None else value for name, value in overrides.items()}
    return [f"{PREFIX}{name}={as_text(value)}" for name, value in values.items()]


def apply_overrides(config: ConfigDict, overrides: Iterable[str]) -> set[str]:
    """Sets `--config.a.b=value` arguments on `config`, in place.

    Returns:
        The keys that were set, as `a.b`.

    Raises:
        UserError: an argument that is no override; ConfigError: an unknown key or a value of another type.
    """
    flat, known = flatten(config), keys(config)
    renamed = old_names(known)
    given = set()
    for argument in overrides:
        name, equals, text = argument.removeprefix(PREFIX).partition("=")
        if not argument.startswith(PREFIX):
            raise UserError(f"{argument}: unknown option; overrides look like --config.train.epochs=3")
        name = renamed.get(name, name)
        if name not in flat:
            if any(key.startswith(f"{name}.") for key in flat):
                raise ConfigError(f"config.{name}", "is a group of keys; set one of them")
            raise ConfigError(f"config.{name}", f"unknown key{nearest(name, flat)}")
        if not equals:
            raise ConfigError(f"config.{name}", f"needs a value: {PREFIX}{name}=…")
        key = known.get(name) or own_key(flat[name])
        value = key.parse(name, text)
        try:
            config.update_from_flattened_dict({name: value})
        except TypeError:
            raise ConfigError(f"config.{name}", f"is of another type in the recipe than {text!r}") from None
        given.add(name)
    return given


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {'train.epochs': 3, …} for nested mappings."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, (Mapping, ConfigDict)):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def to_json(config: Mapping[str, Any]) -> str:
    """Returns a config as indented JSON; tuples become lists."""
    plain = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    return json.dumps(plain, indent=2)


def from_json(text: str) -> ConfigDict:
    """Returns the config that `to_json` wrote; lists become tuples."""

    def tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: tuples(v) for k, v in value.items()}
        return tuple(tuples(v) for v in value) if isinstance(value, list) else value

    return ConfigDict(tuples(json.loads(text))).lock()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns one `key (old -> new)` for each key in which two configs differ."""
    a, b = flatten(old), flatten(new)
    absent = "absent"
    return [
        f"config.{key} ({a.get(key, absent)} -> {b.get(key, absent)})"
        for key in sorted(a.keys() | b.keys())
        if _stored(a.get(key, absent)) != _stored(b.get(key, absent))
    ]


def _stored(value: Any) -> Any:
    """Returns what JSON keeps of a value: lists and tuples are one there, and NaN is equal to itself."""
    return json.loads(json.dumps(value), parse_constant=str)


def settings(config: Mapping[str, Any]) -> list[str]:
    """Returns `--config.key=value` for each key that differs from its default."""
    known, flat = keys(config), flatten(config)
    changed = {name: flat[name] for name, key in known.items() if name in flat and flat[name] != key.default}
    return as_arguments(changed)


def hindrances(stored: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Returns the `differences` that keep a stored run from being resumed with a config.

    A run that was stored before there was a key had that key's default in effect.
    """
    known = keys(config)
    renamed = old_names(known)
    old = {renamed.get(name, name): value for name, value in flatten(stored).items()}
    new = flatten(config)
    for name, key in known.items():
        if name in new:
            old[name] = new[name] if key.resumable else old.get(name, key.default)
    return differences(old, new)


def check(config: ConfigDict) -> None:
    """Raises a ConfigError for the first impossible value; what a network cannot be is for `models.check`."""
    flat = flatten(config)
    for name, key in keys(config).items():
        if name not in flat:
            raise _lacking(config, name)
        key.check(name, flat[name])
    train = config.train
    if train.batch_size % train.accumulate:
        raise ConfigError("config.train.accumulate", f"must divide train.batch_size={train.batch_size}")
    if len(config.data.progressive) > train.epochs:
        raise ConfigError("config.data.progressive", f"has more sizes than the {train.epochs} epochs")


def _lacking(config: ConfigDict, name: str) -> ConfigError:
    """Returns the error for a key that a recipe does not have, as where it is of one family and named another."""
    family = config.model.name
    if name.removeprefix("model.") not in common().FAMILIES.get(family, {}):
        return ConfigError(
            f"config.{name}", "the recipe lacks this key; begin with get_config() of configs/common.py"
        )
    fitting = [recipe for recipe in recipe_names() if load_recipe(recipe).model.name == family]
    return ConfigError(
        "config.model.name",
        f"this recipe is of another family than {family}; choose a recipe of that family: {', '.join(fitting)}",
    )
