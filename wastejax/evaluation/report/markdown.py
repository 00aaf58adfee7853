"""Markdown, as the reports write it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2


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


def duration(seconds: float) -> str:
    """Returns a time as people say it: '3 h 20 min', '4 min 5 s'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def render(template: str, **values: Any) -> str:
    """Returns a template of Markdown, filled in; a value that is missing is an error."""
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(),  # HTML alone
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {
        "percent": percent,
        "wanted": lambda accuracy: f"{100 * float(accuracy):g} %",
        "code": code,
        "cell": lambda text: text.replace("|", "\\|"),
        "duration": duration,
        "n": lambda number: f"{number:,}",
    }
    return pages.get_template(template).render(values)
