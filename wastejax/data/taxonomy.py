"""Which bin each class of waste belongs to, with names and advice in English and Korean.

The rules are data: `taxonomies/korea.toml`, or a file of the user's in the same form.
"""

import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from wastejax.errors import ConfigError, nearest

KOREA = Path(__file__).with_name("taxonomies") / "korea.toml"
_KEY = "config.data.taxonomy"


class Bin(NamedTuple):
    """A bin: its name, and how things are put into it, one line, in English and Korean."""

    en: str
    ko: str
    advice_en: str
    advice_ko: str


class Item(NamedTuple):
    """A class of waste: its bin (a key of `Taxonomy.bins`), names, advice, and sources (keys of `sources`)."""

    bin: str
    en: str
    ko: str
    advice_en: str
    advice_ko: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Taxonomy:
    """A municipality's rules.

    Attributes:
        name: whose rules these are.
        bins: in the order of the file.
        classes: by name, as in the file.
        sources: id -> {'title', 'url'}, what the rules were taken from.
    """

    name: str
    bins: dict[str, Bin]
    classes: dict[str, Item]
    sources: dict[str, dict[str, str]]

    def find(self, name: str) -> Item | None:
        """Returns the rule for a class, None where there is none; `Tea Bags` is `tea_bags`."""
        return {_folded(known): item for known, item in self.classes.items()}.get(_folded(name))

    def unknown(self, classes: Sequence[str]) -> list[str]:
        """Returns those of the class names that have no rule."""
        return [name for name in classes if self.find(name) is None]

    def bins_of(self, classes: Sequence[str]) -> tuple[str, ...] | None:
        """Returns the bin of each class; None where some class has no rule, as then no bin is certain."""
        items = [self.find(name) for name in classes]
        return None if None in items else tuple(item.bin for item in items if item is not None)

    def only(self, classes: Sequence[str]) -> "Taxonomy":
        """Returns the rules for these classes alone, under the names given, with the bins and sources they need."""
        items = {name: item for name in classes if (item := self.find(name)) is not None}
        cited = {source for item in items.values() for source in item.sources}
        used = {item.bin for item in items.values()}
        return replace(
            self,
            bins={name: b for name, b in self.bins.items() if name in used},
            classes=items,
            sources={name: source for name, source in self.sources.items() if name in cited},
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of the file, JSON-ready."""
        return {
            "name": self.name,
            "sources": self.sources,
            "bins": {name: b._asdict() for name, b in self.bins.items()},
            "classes": {
                name: item._asdict() | {"sources": list(item.sources)} for name, item in self.classes.items()
            },
        }


def load_taxonomy(path: str | Path = "", key: str = _KEY) -> Taxonomy:
    """Reads a file of rules.

    Args:
        path: a TOML file; '' for Korea's.
        key: what to call it in error messages.

    Raises:
        ConfigError: the file is missing, is not TOML, lacks a value, or names an unknown bin or source.
    """
    file = Path(path).expanduser() if path else KOREA
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: neither UTF-8 nor TOML
        raise ConfigError(key, f"cannot read {file}: {error}; copy {KOREA} and change that") from None
    taxonomy = parse_taxonomy(content, str(file), key)
    if not taxonomy.classes:
        raise ConfigError(key, f"{file}: has no [classes.NAME]; copy {KOREA} and change that")
    return taxonomy


def parse_taxonomy(content: Mapping[str, Any], where: str, key: str = _KEY) -> Taxonomy:
    """Checks the content of a file of rules (see `load_taxonomy`), which `where` names in errors."""

    def section(name: str) -> dict[str, Any]:
        found = content.get(name, {})
        if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
            raise ConfigError(key, f"{where}: [{name}] must hold tables, such as [{name}.glass]")
        return found

    def entry(kind: Any, table: str, values: dict[str, Any]) -> Any:
        missing = [field for field in kind._fields if field not in values]
        extra = [field for field in values if field not in kind._fields]
        if missing:
            raise ConfigError(key, f"{where}: [{table}] lacks {', '.join(missing)}")
        if extra:
            raise ConfigError(key, f"{where}: [{table}] has {extra[0]}{nearest(extra[0], kind._fields)}")
        text = [field for field in kind._fields if field != "sources" and not isinstance(values[field], str)]
        if text:
            raise ConfigError(key, f"{where}: {text[0]} in [{table}] must be text")
        return kind(**values)

    sources = section("sources")
    bins = {name: entry(Bin, f"bins.{name}", values) for name, values in section("bins").items()}
    classes: dict[str, Item] = {}
    for name, values in section("classes").items():
        cited = values.get("sources", [])
        if not isinstance(cited, (list, tuple)):
            raise ConfigError(key, f"{where}: sources in [classes.{name}] must be a list")
        item = entry(Item, f"classes.{name}", values | {"sources": tuple(cited)})
        if item.bin not in bins:
            raise ConfigError(key, f"{where}: [classes.{name}] has bin {item.bin!r}{nearest(item.bin, bins)}")
        for source in item.sources:
            if source not in sources:
                raise ConfigError(
                    key, f"{where}: [classes.{name}] cites {source!r}{nearest(source, sources)}"
                )
        classes[name] = item
    return Taxonomy(str(content.get("name", where)), bins, classes, sources)


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFC", name).casefold().strip())
