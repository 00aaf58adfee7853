"""Writes docs/reference/configuration.md from the keys in configs/common.py.

Command: python docs/configuration.py
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from wastejax import config as configs  # noqa: E402 - this checkout's, not an installed one
from wastejax.keys import Key  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "configuration.md"
HEAD = """\
# Configuration

<!-- Made by `make docs` from configs/common.py; do not edit. -->

Every key of a recipe. Override a key as `--config.train.epochs=3`, or from Python as
`load_recipe("mobilevit_ir", {"train.epochs": 3})`. Separate the items of lists with commas:
`--config.data.mean=0.5,0.5,0.5`. A key marked with * does not affect what is trained, so a run can be resumed with
another value.
"""


def rows(keys: Mapping[str, Key]) -> Iterator[str]:
    """Yields a table of keys, line by line."""
    yield "| key | default | takes | |"
    yield "|---|---|---|---|"
    for name, key in keys.items():
        takes = " or ".join(f"`{choice}`" for choice in key.choices) or key.values
        notes = [key.text] + ([f"The old name `{key.old_name}` is understood too."] if key.old_name else [])
        notes += [f"Since {key.since}."] if key.since != "0.1" else []
        text = " ".join(notes).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
        default = ",".join(map(str, key.default)) if isinstance(key.default, tuple) else key.default
        shown = f"`{default}`" if default != "" else ""
        yield f"| `{name}`{' *' if key.resumable else ''} | {shown} | {takes} | {text} |"
    yield ""


def page() -> str:
    """Returns the whole page."""
    common = configs.common()
    sections: dict[str, dict[str, Key]] = {}
    for name, key in common.KEYS.items():
        sections.setdefault(name.partition(".")[0] if "." in name else "", {})[name] = key
    lines = [HEAD]
    for section, keys in sections.items():
        lines += [f"## {section}", ""] if section else []
        lines += rows(keys)
        if section == "model":
            for family, own in common.FAMILIES.items():
                lines += [f"### {family}", "", *rows({f"model.{name}": key for name, key in own.items()})]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
