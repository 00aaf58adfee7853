"""How the tables of the READMEs write their cells."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def percent(value: float) -> str:
    """Returns a share as per cent with one digit."""
    return f"{value:.1%}".replace("%", " %")


def with_interval(value: float, interval: Sequence[float]) -> str:
    """Returns a share and its 95 % interval, both in per cent."""
    return f"{percent(value)} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
