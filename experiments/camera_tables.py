"""The tables of docs/results/another-camera.md, from what left_out.py, adapt_curve.py and others have measured."""

import json
import statistics
from pathlib import Path
from typing import Any

from experiments.cells import percent, table

RESULTS = Path(__file__).parent / "results"
LEFT_OUT = ("garbage_v2", "cardstdani", "aquatrash_crops", "clothing_small", "trashnet")


def _load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _spread(value: float, interval: list[float] | None) -> str:
    return percent(value) if interval is None else f"{percent(value)} ({_points(interval)})"


def _points(interval: list[float]) -> str:
    return f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f}"


def left_out() -> str:
    """Each source left out in turn, by network and classifier."""
    found = _load("left_out")["rows"]
    rows = []
    for row in (row for row in found if row["seed"] is None):
        key = (row["network"], row["trial"])
        drawn = [o["mean"] for o in found if o["seed"] is not None and (o["network"], o["trial"]) == key]
        spread = f" (± {100 * statistics.stdev(drawn):.1f})" if len(drawn) > 1 else ""
        shares = (row["sources"].get(source) for source in LEFT_OUT)
        rows.append(
            (
                *key,
                *((percent(row["mean"]) + spread, percent(row["worst"])) if row["mean"] else ("–", "–")),
                *(_spread(share["right"], share["ci95"]) if share else "–" for share in shares),
                percent(row["household"]),
            )
        )
    return table(("network", "classifier", "mean", "worst", *LEFT_OUT, "household_waste"), rows)


def adapt_curve() -> str:
    """What labeled and unlabeled images of a source gain on others of it."""

    def share(value: float | None) -> str:
        return "–" if value is None else percent(value)

    rows = []
    for row in _load("adapt_curve")["rows"]:
        low, high = min(row["gains"]), max(row["gains"])
        a, b = row["gain_ci95_of_one_draw"]
        how = f"{row['per_class']} labeled a class" if row["per_class"] else f"unlabeled: {row['how']}"
        rows.append(
            (
                row["source"],
                f"{how} ({row['images']:,})",
                share(row["before"]),
                share(row["after"]),
                f"{100 * row['gain']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})",
                f"{100 * a:+.1f} to {100 * b:+.1f}",
                f"{share(row['kept_before'])}, {share(row['right_of_kept_before'])}",
                f"{share(row['kept_after'])}, {share(row['right_of_kept_after'])}",
            )
        )
    head = ("source", "adapted with (images)", "right before", "after", "points gained (draws)")
    return table((*head, "95 % interval of one draw", "kept, right of these: before", "after"), rows)


def litter() -> str:
    """Objects found in photographs of litter."""
    facts = ("recall", "recall_right_material", "precision", "precision_right_material")
    rows = [
        (name, f"{row['boxes']:,}", *(_spread(row[fact], row[f"{fact}_ci95"]) for fact in facts))
        for name, row in _load("regions_litter")["rows"].items()
    ]
    return table(
        ("boxes chosen by", "boxes", "recall", "right material", "precision", "right material"), rows
    )
