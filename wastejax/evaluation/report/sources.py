"""Scores by source as a table."""

from collections.abc import Mapping
from typing import Any

from wastejax.evaluation.report.markdown import percent, table

COLUMNS = ("images", "right", "right bin", "right material", "kept", "right of those kept", "others kept")
# Of all columns but the first.
FACTS = ("right", "right_bin", "right_material", "kept", "right_of_kept", "outliers_kept")


def source_table(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the lines of a Markdown table of what `score_by_source` returned."""
    rows = [
        (name, f"{row['num_images'] + row['num_outliers']:,}", *(with_interval(row, fact) for fact in FACTS))
        for name, row in scores.items()
    ]
    return table(("source", *COLUMNS), rows)


def with_interval(row: Mapping[str, Any], fact: str) -> str:
    """Returns a share of a row of `score_by_source` as '54.0 % (50 to 58)'; a dash where there is none."""
    if row.get(fact) is None:
        return "–"
    low, high = row[f"{fact}_ci95"]
    return f"{percent(row[fact])} ({100 * low:.0f} to {100 * high:.0f})"
