"""Draws how a model learns another camera: right answers by labeled images a class, of every source.

Command: python -m experiments.camera_figures
Writes experiments/results/adapt_curve.png from the JSON file beside it.
"""

import json

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from experiments.camera_tables import LEFT_OUT, RESULTS


def main() -> None:
    """Draws the mean over draws, and their range as gains over the mean before."""
    rows = json.loads((RESULTS / "adapt_curve.json").read_text())["rows"]
    figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
    for source in LEFT_OUT:
        found = sorted((row for row in rows if row["source"] == source and row["per_class"]), key=_count)
        before = found[0]["before"]
        counts = [0, *map(_count, found)]
        line = panel.plot(counts, [100 * before, *(100 * row["after"] for row in found)], "o-", label=source)
        low, high = (
            [100 * before, *(min(100, 100 * (before + limit(row["gains"]))) for row in found)]
            for limit in (min, max)
        )
        panel.fill_between(counts, low, high, color=line[0].get_color(), alpha=0.15)
    panel.set(xlabel="labeled images a class, at most", ylabel="right, %", xticks=counts)
    panel.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right center")
    figure.savefig(RESULTS / "adapt_curve.png", dpi=110)
    plt.close(figure)


def _count(row: dict[str, int]) -> int:
    return row["per_class"]


if __name__ == "__main__":
    main()
