"""What `robustness.measure_model` found, as lines, as Markdown and as a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wastejax.evaluation.report.markdown import render
from wastejax.evaluation.report.plots import BLUE, GREEN, ORANGE, RED, drawing
from wastejax.evaluation.robustness.corruptions import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (BLUE, ORANGE, GREEN, RED)


def headlines(result: Mapping[str, Any]) -> list[str]:
    """Returns the result of `summary`, with `available_images`, in a few lines."""
    low, high = result["relative_ci95"]
    of_all = f" of {result['available_images']:,}" * (result["available_images"] > result["num_images"])
    lines = [
        f"{result['num_images']:,}{of_all} images; clean top-1 {result['clean']['top1']:.1%}",
        f"kept of it under corruption: {result['relative_accuracy']:.1%}  (95 % interval {low:.1%} to {high:.1%})",
    ]
    for name, kind in result["kinds"].items():
        worst = min(kind["points"], key=lambda point: point["top1"])
        lines.append(
            f"  {name:10} keeps {kind['relative_accuracy']:6.1%}; top-1 at worst {worst['top1']:.1%}, at "
            f"{label(name, worst['severity'])}"
        )
    return lines


def label(kind: str, severity: float, unit: bool = True) -> str:
    """Returns a severity for people: '45 degrees', '60 % of the area covered'."""
    of_kind = KINDS[kind]
    number = f"{100 * severity:g} %" if of_kind.percent else f"{severity:g}"
    if not unit:
        return number
    return f"{of_kind.unit} {number}" if kind == "jpeg" else f"{number} {of_kind.unit}"


def report(result: Mapping[str, Any]) -> str:
    """Returns robustness.md; see `headlines` for the argument."""
    classes = sorted(result["per_class"].items(), key=lambda item: item[1]["worst"])
    return render("robustness.md", result=result, classes=classes, label=label)


def draw(
    results: Mapping[str, Mapping[str, Any]], path: Path | str, kinds: Sequence[str] = tuple(KINDS)
) -> "Figure":
    """Draws accuracy by severity with its intervals, one panel a kind, one curve a model.

    Args:
        results: see `summary`, by what to call them in the legend; at most four.
        path: where the PNG goes.
        kinds: which kinds.

    Returns:
        The figure, its axes in the order of `kinds`.
    """
    columns = min(4, len(kinds))
    rows = -(-len(kinds) // columns)
    legend_columns = max(1, columns // 2)
    legend_rows = -(-len(results) // legend_columns)
    size = 2.5 * columns, 2.3 * rows + 0.1 + 0.2 * legend_rows
    with drawing(path, size, rows, columns, squeeze=False, sharey=True) as (figure, axes):
        grid = axes.ravel()
        for ax, name in zip(grid, kinds, strict=False):
            for (model, result), color in zip(results.items(), COLORS, strict=False):
                _curve(ax, name, result, color, model)
            ax.set_title(name)
            ax.set_xlabel(f"% {KINDS[name].unit}" if KINDS[name].percent else KINDS[name].unit)
            ax.set_ylim(0, 100)
            ax.grid(axis="y", linewidth=0.6)
        for ax in grid[len(kinds) :]:
            ax.axis("off")
        for ax in grid[::columns]:
            ax.set_ylabel("top-1 (%)")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=legend_columns)
    return figure


def _curve(ax: "Axes", name: str, result: Mapping[str, Any], color: str, model: str) -> None:
    """Draws one model's accuracy under one kind of corruption, the clean images among them."""
    kind = KINDS[name]
    rows = [{"severity": kind.clean, **result["clean"]}, *result["kinds"][name]["points"]]
    rows.sort(key=lambda row: row["severity"])
    at = np.array([row["severity"] for row in rows]) * (100 if kind.percent else 1)
    low, high = 100 * np.array([row["ci95"] for row in rows]).T
    ax.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
    ax.plot(at, [100 * row["top1"] for row in rows], color=color, marker="o", markersize=3, label=model)
