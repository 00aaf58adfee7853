"""Draws the ablations: validation accuracy by epoch, and test accuracy with its interval, of every step.

Command: python experiments/ablation_figures.py
Writes experiments/results/ablations/steps.png and beyond.png from the JSON files beside them.
"""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from experiments.ablation_tables import FOLDER, PLAIN_NAMES, ROWS, SIZES, result
from experiments.ablations import TABLES


def main() -> None:
    steps()
    beyond()


def steps() -> None:
    """Draws how each step of the study's two ablations learned."""
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
    """Draws the test accuracy of everything that was tried on MobileViT-IR, with 95 % intervals, at both sizes."""
    names = [PLAIN_NAMES.get(run, ROWS[run])[0] for run in TABLES["beyond"]]
    figure, panel = plt.subplots(figsize=(8, 0.45 * len(names) + 1), layout="constrained")
    for shift, color, (size, data_set) in zip(
        (0.12, -0.12), ("tab:blue", "tab:orange"), SIZES.items(), strict=True
    ):
        for y, run in enumerate(reversed(TABLES["beyond"])):
            if found := result(run, data_set):
                low, high = found["test"]["ci95"]
                panel.plot([100 * low, 100 * high], [y + shift] * 2, color=color, linewidth=2)
                panel.plot(100 * found["test"]["top1"], y + shift, "o", color=color)
        panel.plot([], [], "o-", color=color, label=size)
    panel.set_yticks(range(len(names)), names[::-1])
    panel.set_xlabel("test top-1 with its 95 % interval, %")
    panel.grid(axis="x", alpha=0.3)
    panel.legend()
    figure.savefig(FOLDER / "beyond.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
