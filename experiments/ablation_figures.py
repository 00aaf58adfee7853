"""Draws the ablations: validation accuracy by epoch, and test accuracy with its interval, of every step.

Command: python experiments/ablation_figures.py
Writes experiments/results/ablations/steps.png and beyond.png from the JSON files beside them.
"""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from experiments.ablation_tables import FOLDER, PLAIN_NAMES, ROWS, result
from experiments.ablations import TABLES


def main() -> None:
    steps()
    beyond()


def steps() -> None:
    """Draws how each step of the study's two ablations learnt."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    for panel, name in zip(panels, ("efficientnet", "mobilevit"), strict=True):
        for run in TABLES[name]:
            found = result(run)
            if found:
                epochs, accuracy = zip(
                    *((row["epoch"], 100 * row["val_top1"]) for row in found["history"]), strict=True
                )
                panel.plot(epochs, accuracy, label=ROWS[run][0])
        panel.set(xlabel="epoch", title=f"{name}: every line adds one step")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8, loc="lower right")
    panels[0].set_ylabel("validation top-1, %")
    figure.savefig(FOLDER / "steps.png", dpi=110)
    plt.close(figure)


def beyond() -> None:
    """Draws the test accuracy of everything that was tried on MobileViT-IR, with 95 % intervals."""
    measured = [(PLAIN_NAMES.get(run, ROWS[run])[0], result(run)) for run in TABLES["beyond"]]
    found = [(name, run["test"]) for name, run in measured if run]
    figure, panel = plt.subplots(figsize=(8, 0.45 * len(found) + 1), layout="constrained")
    for y, (_, test) in enumerate(reversed(found)):
        low, high = test["ci95"]
        panel.plot([100 * low, 100 * high], [y, y], color="tab:blue", linewidth=2)
        panel.plot(100 * test["top1"], y, "o", color="tab:blue")
    panel.set_yticks(range(len(found)), [name for name, _ in reversed(found)])
    panel.set_xlabel("test top-1 with its 95 % interval, %")
    panel.grid(axis="x", alpha=0.3)
    figure.savefig(FOLDER / "beyond.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
