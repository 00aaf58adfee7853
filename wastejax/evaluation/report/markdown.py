"""Markdown, as the reports write it."""

from collections.abc import Sequence
from typing import Any


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def code(name: Any) -> str:
    """Returns a name as code."""
    return "`" + str(name).replace("`", "'") + "`"


def percent(fraction: float) -> str:
    """Returns a fraction in per cent."""
    return f"{100 * fraction:.1f} %"
