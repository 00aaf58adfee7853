"""The last fit of the bundled model: a run continues with most of the images that it was judged by.

Command: python experiments/final_fit.py RUN --state=DIR
RUN is a finished run of configs/efficientnet_lite2.py; its recipe is settled, and its score on its test images
stands for it. A quarter of its validation images and two fifths of its test images stay out of the fit, to
calibrate on and to check with; the rest it learns from. No image that RUN has learned from or was chosen by gets
among those it is tested with. Writes DIR/final, a run for `experiments/ship.py`.
"""

import argparse
import csv
import subprocess
import sys
from pathlib import Path

import numpy as np

from wastejax.bundle import load_bundle

ROOT = Path(__file__).resolve().parents[1]
KEPT = {"val": 0.25, "test": 0.4}
SEED = 17
# Four more epochs from half the rate that RUN began with, on images closer to those that it will be asked about:
# strong augmentation helps to learn, and is better left out at the end (He et al. 2019, arXiv:1909.09148), as is
# the mixing of images. RUN teaches, in whose answers wrong labels of images new to it count less.
KEYS = (
    "data.augmentation=basic",
    "loss.mixup=0.0",
    "loss.cutmix=0.0",
    "data.progressive=192,224",
    "train.epochs=4",
    "optim.learning_rate=1e-3",
    "optim.backbone_lr_factor=0.5",
    "optim.warmup_epochs=0.3",
    "optim.ema_decay=0.995",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--state", type=Path, required=True)
    args = parser.parse_args()
    run, state = args.run.resolve(), args.state.resolve()
    manifest = state / "final.csv"
    if not manifest.is_file():
        with (run / "manifest.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        with manifest.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(mostly_train(rows))
    data = load_bundle(run).config["data"]
    keys = (
        *KEYS,
        *(f"data.{key}={data[key]}" for key in ("dir", "image_size", "crop")),
        f"data.split.manifest={manifest}",
        f"init.weights={run}",
        f"distill.teacher={run}",
    )
    command = [sys.executable, "-m", "wastejax.main", "--config=efficientnet_lite2"]
    subprocess.run(
        [*command, *(f"--config.{key}" for key in keys), f"--workdir={state / 'final'}"], check=True, cwd=ROOT
    )


def mostly_train(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Moves most groups of near-duplicates of the validation and test images, as wholes, to the training ones."""
    rng = np.random.default_rng(SEED)
    moved: set[str] = set()
    for split, share in KEPT.items():
        groups = sorted({row["group"] for row in rows if row["split"] == split})
        moved |= set(rng.permutation(groups)[round(share * len(groups)) :].tolist())
    return [row | {"split": "train"} if row["group"] in moved else row for row in rows]


if __name__ == "__main__":
    main()
