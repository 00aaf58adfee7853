"""Recipes and their overrides: found by path or name, checked, stored with the run, compared on resuming."""

import ast
import importlib.util
import json
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from wastejax.errors import ConfigError, UserError, nearest

PREFIX = "--config."
NAMES = ("data.leave_out",)  # keys that hold names, given with commas between them
ANY_LENGTH = ("data.progressive",)  # keys that hold as many numbers as one likes


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
        recipe: a path of a file that has `get_config()`, or the name of a recipe that comes along.

    Raises:
        UserError: there is no such recipe, or it has no `get_config`.
    """
    path = Path(recipe)
    if path.suffix != ".py":
        path = recipes_dir() / f"{recipe}.py"
    if not path.is_file():
        raise UserError(f"--config={recipe}: no such recipe{nearest(Path(recipe).stem, recipe_names())}")
    if "configs" not in sys.modules and importlib.util.find_spec("configs") is None:
        # Recipes say `from configs import common`; installed, that package lives inside ours.
        package = types.ModuleType("configs")
        package.__path__ = [str(recipes_dir())]
        sys.modules["configs"] = package
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"--config={recipe}: imports {error.name}, which is not installed") from None
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={recipe}: the file has no get_config(); see configs/common.py")
    return module.get_config().lock()


def apply_overrides(config: ConfigDict, overrides: Iterable[str]) -> set[str]:
    """Sets `--config.a.b=value` arguments on `config`, in place.

    Returns:
        The keys that were set, as `a.b`.

    Raises:
        UserError: an argument that is no override; ConfigError: an unknown key or a value of another type.
    """
    flat = flatten(config)
    given = set()
    for argument in overrides:
        key, equals, text = argument.removeprefix(PREFIX).partition("=")
        if not argument.startswith(PREFIX):
            raise UserError(f"{argument}: unknown option; overrides look like --config.train.epochs=3")
        if key not in flat:
            if any(name.startswith(f"{key}.") for name in flat):
                raise ConfigError(f"config.{key}", "is a group of keys; set one of them")
            raise ConfigError(f"config.{key}", f"unknown key{nearest(key, flat)}")
        if not equals:
            raise ConfigError(f"config.{key}", f"needs a value: {PREFIX}{key}=…")
        owner = config
        *parents, name = key.split(".")
        for parent in parents:
            owner = owner[parent]
        owner[name] = _parse(key, text, flat[key], owner.get_type(name))
        given.add(key)
    return given


def _parse(key: str, text: str, default: Any, wanted: type) -> Any:
    """Returns `text` as a value of the type `wanted`; a default of None may also be asked for again."""
    if wanted is str:
        return text
    if default is None and text.lower() == "none":
        return None
    if key in NAMES:
        return tuple(name for part in text.strip("()[]").split(",") if (name := part.strip(" '\"")))
    try:
        if wanted is bool:
            return {"true": True, "false": False}[text.lower()]
        value = ast.literal_eval(text)
        if wanted is tuple:
            return _as_tuple(value, () if key in ANY_LENGTH else default)
        if isinstance(value, bool) or (wanted is int and not isinstance(value, int)):
            raise ValueError
        return wanted(value)
    except (KeyError, ValueError, TypeError, SyntaxError):
        example = f" such as {default}" if default not in (None, ()) else ""
        raise ConfigError(f"config.{key}", f"expects {wanted.__name__}{example}, is {text!r}") from None


def _as_tuple(value: Any, default: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """Returns a tuple of numbers, of the length and types of the default where there is one."""
    value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if any(isinstance(v, (str, bool)) for v in value) or (default and len(value) != len(default)):
        raise ValueError
    return tuple(type(d)(v) for d, v in zip(default, value, strict=True)) if default else value


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
        if a.get(key, absent) != b.get(key, absent)
    ]


def check(config: ConfigDict) -> None:
    """Raises a ConfigError for the first impossible value, the model's own keys excepted."""
    flat = flatten(config)
    choices = {
        "data.augmentation": ("none", "basic", "strong"),
        "data.interpolation": ("bilinear", "bicubic", "lanczos"),
        "data.channels": ("rgb", "bgr"),
        "data.on_bad_image": ("raise", "skip"),
        "data.split.group": ("phash", "none"),
        "optim.name": ("adamw", "adam", "sgd"),
        "optim.schedule": ("cosine", "plateau", "constant"),
        "optim.sharpness.name": ("none", "sam", "asam"),
    }
    for key, allowed in choices.items():
        if flat[key] not in allowed:
            raise ConfigError(f"config.{key}", f"is {flat[key]!r}{nearest(flat[key], allowed)}")
    # key: (smallest, largest); a smallest value given as a string is excluded itself.
    ranges: dict[str, tuple[Any, float]] = {
        "data.image_size": (16, 2048),
        "data.min_crop_area": (0.01, 1),
        "data.crop": (0.1, 1),
        "data.workers": (0, 256),
        "data.split.hamming": (0, 32),
        "loss.label_smoothing": (0, 0.99),
        "loss.mixup": (0, 100),
        "loss.cutmix": (0, 100),
        "distill.weight": ("0", 1),
        "distill.temperature": ("0", 100),
        "optim.learning_rate": ("0", 1000),
        "optim.weight_decay": (0, 1000),
        "optim.momentum": (0, 0.9999),
        "optim.clip_norm": (0, float("inf")),
        "optim.warmup_epochs": (0, float("inf")),
        "optim.final_lr": (0, 1),
        "optim.plateau_factor": ("0", 0.9999),
        "optim.plateau_patience": (1, float("inf")),
        "optim.ema_decay": (0, 0.99999),
        "optim.backbone_lr": (0, 1000),
        "optim.layer_decay": ("0", 1),
        "optim.frozen_blocks": (0, float("inf")),
        "optim.sharpness.rho": ("0", 100),
        "optim.sharpness.eta": (0, 100),
        "train.epochs": (1, 100_000),
        "train.batch_size": (1, 65_536),
        "train.accumulate": (1, 4096),
        "train.early_stopping": (0, float("inf")),
        "train.checkpoint_minutes": (0, float("inf")),
        "eval.batch_size": (1, 65_536),
        "eval.bootstrap": (10, 1_000_000),
    }
    for key, (low, high) in ranges.items():
        value, above = flat[key], isinstance(low, str)
        if not (float(low) < value if above else low <= value) or not value <= high:
            bound = f"> {low}" if above else f">= {low}"
            limit = "" if high == float("inf") else f" and <= {high}"
            raise ConfigError(f"config.{key}", f"must be {bound}{limit}, is {value}")
    if config.train.batch_size % config.train.accumulate:
        raise ConfigError(
            "config.train.accumulate", f"must divide train.batch_size={config.train.batch_size}"
        )
    if min(config.data.split.ratios) <= 0:
        raise ConfigError("config.data.split.ratios", f"must be positive, are {config.data.split.ratios}")
    for size in config.data.progressive:
        if not (isinstance(size, int) and 16 <= size <= 2048):
            raise ConfigError("config.data.progressive", f"must be sides of 16 to 2048 pixels, are {size}")
    if len(config.data.progressive) > config.train.epochs:
        raise ConfigError("config.data.progressive", f"has more sizes than the {config.train.epochs} epochs")
    if min(config.data.std) <= 0:
        raise ConfigError("config.data.std", f"must be > 0, is {config.data.std}")
    if config.data.source != "folder" and not config.data.source.startswith("tfds:"):
        raise ConfigError("config.data.source", f"is {config.data.source!r}; choices: folder, tfds:NAME")
