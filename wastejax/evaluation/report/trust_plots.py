"""The figures about confidence: reliability before and after calibration, and risk by coverage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wastejax.evaluation.report.plots import BLUE, GREEN, MUTED, ORANGE, RED, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reliability_diagram(
    before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]], path: Path | str
) -> "Figure":
    """Draws how often the model is right by how sure it is, before and after division by the temperature.

    Args:
        before: see `calibration.reliability`.
        after: the same, calibrated.
        path: where the PNG goes.

    Returns:
        The figure; its axes are accuracy by confidence, and the number of images by confidence.
    """
    with drawing(path, (4.2, 4.4), 2, sharex=True, height_ratios=(3, 1)) as (figure, (accuracy, count)):
        accuracy.plot([0, 100], [0, 100], color=MUTED, linewidth=0.8, linestyle=":", label="as sure as right")
        for rows, color, label in ((before, ORANGE, "before"), (after, BLUE, "after calibration")):
            confidence, right, images = (
                np.array([row[key] for row in rows]) for key in ("confidence", "accuracy", "num_images")
            )
            accuracy.plot(100 * confidence, 100 * right, color=color, linewidth=0.7)
            # Few images make a small dot: its height is mostly chance.
            area = 120 * images / images.max()
            accuracy.scatter(100 * confidence, 100 * right, area, color=color, alpha=0.8, label=label)
            count.plot(100 * confidence, images, color=color, marker="o", markersize=3)
        accuracy.set_title("How often it is right, by how sure it is (%)")
        accuracy.set(xlim=(0, 100), ylim=(0, 100))
        accuracy.legend(loc="upper left")
        count.set_title("Images")
        count.set_ylim(bottom=0)
        count.set_xlabel("confidence (%)")
        for ax in (accuracy, count):
            ax.grid(linewidth=0.6)
    return figure


def risk_by_coverage(
    coverage: np.ndarray, risk: np.ndarray, at: Mapping[str, Mapping[str, float]], path: Path | str
) -> "Figure":
    """Draws the share of wrong answers by the share of images that are answered.

    Args:
        coverage: float [N], fractions; see `selective.risk_coverage`.
        risk: float [N], fractions.
        at: see `selective.score_selective`; each threshold with any answer is marked.
        path: where the PNG goes.

    Returns:
        The figure.
    """
    with drawing(path, (4.2, 3.0)) as (figure, ax):
        ax.plot(100 * coverage, 100 * risk, color=BLUE)
        for (wanted, kept), color in zip(at.items(), (GREEN, ORANGE, RED), strict=False):
            if kept["accuracy"] is not None:
                place = 100 * kept["coverage"], 100 * (1 - kept["accuracy"])
                label = f"threshold for {100 * float(wanted):.0f} % right"
                ax.plot(*place, color=color, marker="o", linestyle="", label=label)
        ax.set_title("Wrong among the images answered (%)")
        ax.set_xlabel("images answered, most certain first (%)")
        ax.set_xlim(0, 102)
        ax.set_ylim(bottom=0)
        ax.grid(linewidth=0.6)
        if len(ax.get_lines()) > 1:
            ax.legend(loc="upper left")
    return figure
