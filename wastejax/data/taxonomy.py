"""Which bin each class of waste belongs to, with names and advice in several languages.

The rules are data: one of `taxonomies/`, or a file of the user's in the same form.
"""

import re
import tomllib
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from wastejax.errors import ConfigError, nearest
from wastejax.files import user_path

_FOLDER = Path(__file__).with_name("taxonomies")
KOREA = _FOLDER / "korea.toml"
COUNTRIES = ("korea", "england", "germany", "japan", "france")
LANGUAGES = ("en", "ko", "de", "ja", "fr")  # of the names and of the web page; a file may hold others too
# The drawings that the web page has of bins.
SIGNS = (
    "bag", "bottle", "can", "cardboard", "carton", "deposit", "fire", "foam", "food", "glass", "pan", "paper",
    "recycle", "shirt", "spray", "trash",
)  # fmt: skip
_COLOR = re.compile(r"#[0-9a-f]{6}", re.IGNORECASE)
_TEXT = re.compile(r"(advice_)?[a-z]{2}")
_KEY = "config.data.taxonomy"
_OWN = "\0"  # what the bin of a class without a rule begins with, which no file's bin does


@dataclass(frozen=True)
class Texts:
    """A name and one line of advice.

    Attributes:
        texts: the name by language code, 'en' always among them, and the advice as 'advice_en' and so on.
    """

    texts: dict[str, str]

    def name(self, language: str = "en") -> str:
        """Returns the name, the English one where there is none in that language."""
        return self.texts.get(language, self.texts["en"])

    def advice(self, language: str = "en") -> str:
        """Returns the advice, the English one where there is none in that language, '' where there is none."""
        return self.texts.get(f"advice_{language}", self.texts.get("advice_en", ""))

    def in_all_languages(self) -> dict[str, str]:
        """Returns name and advice in each of `LANGUAGES`, JSON-ready."""
        names = {language: self.name(language) for language in LANGUAGES}
        return names | {f"advice_{language}": self.advice(language) for language in LANGUAGES}


@dataclass(frozen=True)
class Bin(Texts):
    """A bin: its name, how things are put into it, and how it is shown.

    Attributes:
        color: '#rrggbb', '' where the file says none.
        sign: one of `SIGNS`, '' where the file says none.
    """

    color: str = ""
    sign: str = ""

    def to_dict(self) -> dict[str, str]:
        """Returns the bin's table in the file."""
        look = {"color": self.color, "sign": self.sign}
        return self.texts | {name: value for name, value in look.items() if value}


@dataclass(frozen=True)
class Item(Texts):
    """A class of waste.

    Attributes:
        bin: a key of `Taxonomy.bins`.
        sources: keys of `Taxonomy.sources`.
    """

    bin: str
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
        return self._by_folded_name.get(_folded(name))

    @cached_property
    def _by_folded_name(self) -> dict[str, Item]:
        return {_folded(known): item for known, item in self.classes.items()}

    def unknown(self, classes: Sequence[str]) -> list[str]:
        """Returns those of the class names that have no rule."""
        return [name for name in classes if self.find(name) is None]

    def bins_of(self, classes: Sequence[str]) -> tuple[str, ...] | None:
        """Returns the bin of each class; None where some class has no rule, as then no bin is certain."""
        items = [self.find(name) for name in classes]
        return None if None in items else tuple(item.bin for item in items if item is not None)

    def bins_or_own(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Returns the bin of each class; a class without a rule is a bin of its own.

        Answers are rejected by the sum over the bin's classes, so whatever chooses or judges thresholds adds up
        these.
        """
        items = [(name, self.find(name)) for name in classes]
        return tuple(_OWN + name if item is None else item.bin for name, item in items)

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
            "bins": {name: b.to_dict() for name, b in self.bins.items()},
            "classes": {
                name: {"bin": item.bin, **item.texts, "sources": list(item.sources)}
                for name, item in self.classes.items()
            },
        }


def load_taxonomy(name: str | Path = "", key: str = _KEY) -> Taxonomy:
    """Reads rules.

    Args:
        name: one of `COUNTRIES`, or a TOML file in the form of theirs; '' for Korea's.
        key: what to call it in error messages.

    Raises:
        ConfigError: the file is missing, is not TOML, lacks a value, or names an unknown bin or source.
    """
    shipped = str(name or "korea")
    file = _FOLDER / f"{shipped}.toml" if shipped in COUNTRIES else user_path(name)
    advice = f"give a country or a changed copy of {KOREA}"
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(key, f"{name}: no such taxonomy{nearest(shipped, COUNTRIES)}; {advice}") from None
    except (OSError, ValueError) as error:  # ValueError: neither UTF-8 nor TOML
        raise ConfigError(key, f"cannot read {file}: {error}; {advice}") from None
    taxonomy = parse_taxonomy(content, str(file), key)
    if not taxonomy.classes:
        raise ConfigError(key, f"{file}: has no [classes.NAME]; {advice}")
    return taxonomy


def parse_taxonomy(content: Mapping[str, Any], where: str, key: str = _KEY) -> Taxonomy:
    """Checks the content of a file of rules (see `load_taxonomy`), which `where` names in errors."""

    def section(name: str) -> dict[str, Any]:
        found = content.get(name, {})
        if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
            raise ConfigError(key, f"{where}: [{name}] must hold tables, such as [{name}.glass]")
        return found

    def texts(
        table: str, values: dict[str, Any], needed: Collection[str], others: tuple[str, ...] = ()
    ) -> dict[str, str]:
        missing = sorted({*needed, *others} - values.keys())
        if missing:
            raise ConfigError(key, f"{where}: [{table}] lacks {', '.join(missing)}")
        found = {name: text for name, text in values.items() if name not in others}
        for name, text in found.items():
            if not _TEXT.fullmatch(name):
                known = (*others, "en", "advice_en", *sorted(needed))
                raise ConfigError(key, f"{where}: [{table}] has {name}{nearest(name, known)}")
            if not isinstance(text, str):
                raise ConfigError(key, f"{where}: {name} in [{table}] must be text")
        return found

    sources = section("sources")
    # What one bin has in a language, all of them have.
    used = {name for values in section("bins").values() for name in values if _TEXT.fullmatch(name)}
    needed = used | {"en", "advice_en"}
    bins = {}
    for name, values in section("bins").items():
        look = _look(values, f"{where}: [bins.{name}]", key)
        rest = {key_: value for key_, value in values.items() if key_ not in look}
        bins[name] = Bin(texts(f"bins.{name}", rest, needed), **look)
    classes: dict[str, Item] = {}
    _refuse_contradictions(section("classes"), where, key)
    for name, values in section("classes").items():
        table = f"classes.{name}"
        own = texts(table, values, (), ("bin", "sources"))
        bin_, cited = values["bin"], values["sources"]
        if not isinstance(cited, (list, tuple)) or not all(isinstance(source, str) for source in cited):
            raise ConfigError(key, f"{where}: sources in [{table}] must be a list of names")
        if not isinstance(bin_, str):
            raise ConfigError(key, f"{where}: bin in [{table}] must be the name of one, is {bin_!r}")
        if bin_ not in bins:
            raise ConfigError(key, f"{where}: [{table}] has bin {bin_!r}{nearest(str(bin_), bins)}")
        for source in cited:
            if source not in sources:
                raise ConfigError(key, f"{where}: [{table}] cites {source!r}{nearest(str(source), sources)}")
        given = {"en": name.replace("_", " ")} | _class_names().get(_folded(name), {})
        classes[name] = Item(given | own, bin_, tuple(cited))
    return Taxonomy(str(content.get("name", where)), bins, classes, sources)


def _refuse_contradictions(rules: Mapping[str, Any], where: str, key: str) -> None:
    """Raises a ConfigError where two spellings of one class have different rules: either would be found by both."""
    first: dict[str, str] = {}
    for name, values in rules.items():
        before = first.setdefault(_folded(name), name)
        if rules[before] != values:
            raise ConfigError(
                key, f"{where}: [classes.{name}] and [classes.{before}] are one class; remove one"
            )


def _look(values: Mapping[str, Any], where: str, key: str) -> dict[str, str]:
    """Returns what a bin's table says of its color and sign."""
    look = {name: values[name] for name in ("color", "sign") if name in values}
    if "color" in look and not (isinstance(look["color"], str) and _COLOR.fullmatch(look["color"])):
        raise ConfigError(key, f"{where} has color {look['color']!r}; give one such as '#1d4ed8'")
    if "sign" in look and not (isinstance(look["sign"], str) and look["sign"] in SIGNS):
        raise ConfigError(key, f"{where} has sign {look['sign']!r}{nearest(str(look['sign']), SIGNS)}")
    return look


def with_looks(taxonomy: Taxonomy) -> Taxonomy:
    """Returns rules whose bins have the colors and signs of the country of that name, where they have none.

    Bundles and exported files hold their rules; those of before bins had looks come without.
    """
    known = _by_name().get(taxonomy.name)
    if known is None:
        return taxonomy
    bins = {
        name: replace(b, color=b.color or known.bins[name].color, sign=b.sign or known.bins[name].sign)
        if name in known.bins
        else b
        for name, b in taxonomy.bins.items()
    }
    return replace(taxonomy, bins=bins)


def all_known(bins: Sequence[str]) -> bool:
    """Whether every class has a rule, so that bins can be judged; takes what `Taxonomy.bins_or_own` returns."""
    return not any(name.startswith(_OWN) for name in bins)


def some_known(bins: Sequence[str]) -> bool:
    """Whether any class has a rule, so that there are bins at all; takes what `Taxonomy.bins_or_own` returns."""
    return not all(name.startswith(_OWN) for name in bins)


@cache
def _by_name() -> dict[str, Taxonomy]:
    return {known.name: known for known in map(load_taxonomy, COUNTRIES)}


@cache
def _class_names() -> dict[str, dict[str, str]]:
    return tomllib.loads((_FOLDER / "class_names.toml").read_text(encoding="utf-8"))


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFC", name).casefold().strip())


def materials_of(classes: Sequence[str]) -> dict[str, str]:
    """Returns what each class is mostly made of, by `taxonomies/materials.toml`; unknown classes are left out."""
    content = tomllib.loads((_FOLDER / "materials.toml").read_text(encoding="utf-8"))
    known = {_folded(name): material for material, names in content.items() for name in names}
    return {name: known[_folded(name)] for name in classes if _folded(name) in known}
