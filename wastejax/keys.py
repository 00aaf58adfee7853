"""What a key of a recipe is: its default, what it does, and the values it takes, said once in configs/common.py."""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from wastejax.errors import ConfigError, nearest

INFINITY = float("inf")
NAMES = {int: "an integer", float: "a number", bool: "True or False", str: "text"}
PLURALS = {int: "integers", float: "numbers", bool: "values True or False", str: "names"}
_NO_LITERAL = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of a recipe.

    Attributes:
        default: its value where a recipe says nothing, and in runs stored before there was such a key.
        text: what it does, one or more sentences; the reference is made of them.
        kind: the type of its values: int, float, bool, str or tuple. Needed where the default is None.
        items: the type of a tuple's items. Needed where the default is an empty tuple, which may be of any length.
        choices: the values it takes. Words in capitals stand for any text, as in 'tfds:NAME'.
        least: the smallest value, also of the items of a tuple.
        above: as `least`, but itself too small.
        most: the largest value.
        below: as `most`, but itself too large.
        resumable: it changes nothing that a run computes, so a run may be resumed with another value.
        since: the version that brought it.
        old_name: what it was called before; overrides and stored runs may still say so.
    """

    default: Any
    text: str
    kind: type = NoneType
    items: type = NoneType
    choices: tuple[Any, ...] = ()
    least: float = -INFINITY
    above: float = -INFINITY
    most: float = INFINITY
    below: float = INFINITY
    resumable: bool = False
    since: str = "0.1"
    old_name: str = ""

    def __post_init__(self) -> None:
        """Completes the types from the default."""
        if self.kind is NoneType:
            object.__setattr__(self, "kind", type(self.default))
        if self.kind is tuple and self.default:
            object.__setattr__(self, "items", type(self.default[0]))

    @property
    def values(self) -> str:
        """What it takes, in words: the type, choices or bounds."""
        if self.choices:
            return " or ".join(repr(choice) for choice in self.choices)
        return " ".join(filter(None, (self._type, self._bounds)))

    @property
    def _type(self) -> str:
        if self.kind is not tuple:
            return NAMES[self.kind]
        return f"{len(self.default)} {PLURALS[self.items]}" if self.default else PLURALS[self.items]

    @property
    def _bounds(self) -> str:
        low = f">= {self.least:g}" if self.least > -INFINITY else ""
        low = f"> {self.above:g}" if self.above > -INFINITY else low
        high = (
            f"<= {self.most:{',' if isinstance(self.most, int) else ',.7g'}}" if self.most < INFINITY else ""
        )
        high = f"< {self.below:g}" if self.below < INFINITY else high
        return " and ".join(filter(None, (low, high)))

    def parse(self, name: str, text: str) -> Any:
        """Returns `text`, from a command line, as a value.

        Raises:
            ConfigError: it is none of this type; bounds and choices are for `check`.
        """
        if self.default is None and (text == "None" or (text.lower() == "none" and text not in self.choices)):
            return None
        if NoneType in (self.kind, self.items if self.kind is tuple else str):
            return _of_any_type(text, self.kind)
        if self.kind is str:
            return text
        if self.kind is tuple and self.items is str:
            return _names(text)
        try:
            if self.kind is bool:
                return {"true": True, "false": False}[text.lower()]
            value = ast.literal_eval(text)
            if self.kind is not tuple:
                return _number(value, self.kind)
            value = tuple(value) if isinstance(value, tuple | list) else (value,)
            if self.default and len(value) != len(self.default):
                raise ValueError
            return tuple(_number(item, self.items) for item in value)
        except (KeyError, ValueError, TypeError, SyntaxError, OverflowError):
            shown = ",".join(map(str, self.default)) if self.kind is tuple and self.default else self.default
            example = "" if self.kind is bool or shown in (None, ()) else f" such as {shown}"
            raise ConfigError(f"config.{name}", f"expects {self._type}{example}, is {text!r}") from None

    def check(self, name: str, value: Any) -> None:
        """Raises a ConfigError that names the key where a value is none that it takes."""
        key = f"config.{name}"
        if value is None and self.default is None:
            return
        if self.choices:
            if not any(_matches(value, choice) for choice in self.choices):
                raise ConfigError(key, f"cannot be {value!r}{nearest(str(value), map(str, self.choices))}")
            return
        kind, items = self.kind, [value]
        if kind is tuple:
            kind, items = self.items, list(value) if isinstance(value, tuple | list) else [None]
        wrong_length = self.kind is tuple and self.default and len(items) != len(self.default)
        if wrong_length or not all(_is_a(item, kind) and self._is_within(item) for item in items):
            raise ConfigError(key, f"must be {self.values}, is {value!r}")

    def _is_within(self, number: Any) -> bool:
        if isinstance(number, bool) or not isinstance(number, int | float):
            return True
        low = INFINITY > number >= self.least and (number > self.above or self.above == -INFINITY)
        return low and number <= self.most and (number < self.below or self.below == INFINITY)


def own_key(value: Any) -> Key:
    """Returns the key of a recipe's own that has this value: its type is all that is known of it."""
    if not isinstance(value, tuple | list):
        return Key(default=value if type(value) in NAMES else None, text="")
    kinds = {type(item) for item in value}
    (items,) = kinds if len(kinds) == 1 else {float} if kinds == {int, float} else {NoneType}
    return Key(default=(), kind=tuple, items=items if items in NAMES else NoneType, text="")


def _of_any_type(text: str, kind: type) -> Any:
    """Returns what Python reads in a text where a run can store it, else the text; `kind` may be tuple."""
    try:
        value = ast.literal_eval(text.strip())
        json.dumps(value)
    except _NO_LITERAL:
        value = _names(text) if kind is tuple else text
    if kind is tuple:
        return tuple(value) if isinstance(value, tuple | list) else (value,)
    return value


def _names(text: str) -> tuple[str, ...]:
    """Returns the names in a text: as Python writes them, or with commas between them, in brackets or not."""
    text = text.strip()
    try:
        value = ast.literal_eval(text)
    except _NO_LITERAL:
        value = None
    if isinstance(value, tuple | list) and all(isinstance(name, str) for name in value):
        return tuple(filter(None, value))
    if _in_brackets(text):
        text = text[1:-1]
    return tuple(word for part in text.split(",") if (word := part.strip(" '\"")))


def _in_brackets(text: str) -> bool:
    """Whether a text begins with a bracket that ends it: those of '(a),(b)' and 'cans (steel)' are the names'."""
    if text[:1] + text[-1:] not in ("()", "[]"):
        return False
    depth = 0
    for at, sign in enumerate(text):
        depth += {text[0]: 1, text[-1]: -1}.get(sign, 0)
        if depth == 0:
            return at == len(text) - 1
    return False


def as_text(value: Any) -> str:
    """Returns what a value is on a command line; `Key.parse` makes the same value of it.

    Ranges, arrays and whatever else has items are tuples; those of a set are sorted.
    """
    # An array of no dimensions is a number.
    one = isinstance(value, str | bytes | Mapping) or getattr(value, "ndim", 1) == 0
    if one or not isinstance(value, Iterable):
        return str(value)
    items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
    value = tuple(str(item) if isinstance(item, str) else item for item in items)  # not NumPy's own texts
    if not value:  # as Python writes it: of an empty text nobody knows that it is a tuple
        return "()"
    text = ",".join(map(str, value))
    names = all(isinstance(item, str) for item in value)
    return repr(value) if names and _names(text) != value else text


def _number(value: Any, kind: type) -> Any:
    """Returns a literal as a number of this kind; raises ValueError where it is none."""
    if not _is_a(value, kind):
        raise ValueError
    return kind(value)


def _is_a(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _matches(value: Any, choice: Any) -> bool:
    """Whether a value is a choice; see `Key.choices`."""
    if not isinstance(choice, str):
        return bool(value == choice)
    return isinstance(value, str) and re.fullmatch(re.sub("[A-Z]+", ".+", choice), value) is not None


def old_names(keys: Mapping[str, Key]) -> dict[str, str]:
    """Returns the name of a key by what it was called before."""
    return {key.old_name: name for name, key in keys.items() if key.old_name}


def config_of(keys: Mapping[str, Key]) -> ConfigDict:
    """Returns the defaults of keys with dotted names, as nested sections."""
    config = ConfigDict()
    for name, key in keys.items():
        *parents, last = name.split(".")
        section = config
        for parent in parents:
            if parent not in section:
                section[parent] = ConfigDict()
            section = section[parent]
        section[last] = placeholder(key.kind) if key.default is None else key.default
    return config
