"""What a model says of itself, in bundle.json or an exported file, checked key by key: people edit such files."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from wastejax.data.transforms import Preprocessing, is_number

_Rule = tuple[Callable[[Any], bool], str]


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_names(value: Any) -> bool:
    texts = isinstance(value, list) and all(isinstance(name, str) and name for name in value)
    return texts and len(value) == len(set(value)) > 0


def _are_thresholds(value: Any) -> bool:
    def is_accuracy(text: str) -> bool:
        try:
            return _is_share(float(text))
        except ValueError:
            return False

    return isinstance(value, dict) and all(
        is_accuracy(key) and (kept is None or _is_share(kept)) for key, kept in value.items()
    )


def _is_file_name(value: Any) -> bool:
    return _is_text(value) and value not in ("", ".", "..") and not {"/", "\\", "\0"} & set(value)


_TABLE = (lambda value: isinstance(value, dict), "a table")
_TEXT = (_is_text, "text")
RULES: dict[str, _Rule] = {
    "classes": (_are_names, "a list of different names"),
    "preprocessing": _TABLE,
    "temperature": (lambda value: is_number(value) and value > 0, "a number > 0"),
    "thresholds": (_are_thresholds, 'a table such as {"0.95": 0.7}, shares or null by shares'),
    "class_thresholds": (
        lambda value: isinstance(value, list) and all(map(_is_share, value)),
        "a list of shares, 0 to 1",
    ),
    "metrics": _TABLE,
    "licence": _TEXT,
    "versions": (
        lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
        "a table of texts",
    ),
    "taxonomy": _TABLE,
    # Of a bundle.
    "weights": (_is_file_name, "the name of a file beside it"),
    "sha256": _TEXT,
    "config": _TABLE,
    # Of an exported file.
    "input": (lambda value: value in ("uint8", "float32"), "'uint8' or 'float32'"),
    "precision": _TEXT,
    "kind": _TEXT,
    "any_side": (lambda value: isinstance(value, bool), "true or false"),
    **dict.fromkeys(("jax", "written", "expires"), _TEXT),
}


def check_metadata(about: Any, needed: Collection[str]) -> None:
    """Checks what a model says of itself, but for its taxonomy, whose reader has checks of its own.

    Args:
        about: from JSON.
        needed: keys that have to be there.

    Raises:
        ValueError: of a key that is missing or has an impossible value.
    """
    if not isinstance(about, dict):
        raise ValueError(f"must be a table, is {_shown(about)}")
    for name in needed:
        if name not in about:
            raise ValueError(f"{name!r} is missing")
    for name, (is_right, wanted) in RULES.items():
        if name in about and not is_right(about[name]):
            raise ValueError(f"{name} must be {wanted}, is {_shown(about[name])}")
    thresholds = about.get("class_thresholds", ())
    if thresholds and len(thresholds) != len(about["classes"]):
        raise ValueError(
            f"class_thresholds: has {len(thresholds)} values for {len(about['classes'])} classes"
        )
    Preprocessing.from_dict(about["preprocessing"])


def read_config(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config in a bundle; where sections `data` and `eval` lack a key, its default.

    Raises:
        ConfigError or ValueError: a key has an impossible value.
    """
    from wastejax import config as configs  # needs ml_collections; an exported file is checked without

    if "model" not in stored:
        return dict(stored)
    tables = ("model", "data", "eval", "loss", "train", "optim", "distill")
    for name in tables:
        if not isinstance(stored.get(name, {}), dict):
            raise ValueError(f"config.{name} must be a table, is {_shown(stored[name])}")
    if not isinstance(stored["model"].get("name", ""), str):
        raise ValueError(f"config.model.name must be text, is {_shown(stored['model']['name'])}")
    known, given = configs.keys(stored), configs.flatten(stored)
    for name in known.keys() & given.keys():
        known[name].check(name, given[name])
    filled = dict(stored)
    for section in ("data", "eval"):
        defaults = {
            name.removeprefix(f"{section}."): key.default
            for name, key in known.items()
            if name.startswith(f"{section}.")
        }
        filled[section] = {n: value for n, value in defaults.items() if "." not in n} | stored.get(
            section, {}
        )
    return filled


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
