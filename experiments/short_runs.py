"""Three epochs of every network on TrashNet, small: shows that each one trains, not how good it gets.

Command: python experiments/short_runs.py --data=TRASHNET --runs=DIR
What is done already is skipped, so it can be stopped at any time. Writes experiments/results/short_runs.json.
"""

import argparse
import csv
import datetime
import json
import subprocess
import sys
from pathlib import Path

from experiments.provenance import head

RESULT = Path(__file__).resolve().parent / "results" / "short_runs.json"
COMMON = ["data.augmentation=basic", "train.epochs=3", "train.batch_size=32", "optim.warmup_epochs=1"]
B0 = ["model.size=b0", "data.image_size=96"]
XXS = ["model.size=xxs", "data.image_size=128"]  # attention needs multiples of 64
RUNS = {
    "efficientnetv2": B0,
    "efficientnetv2_eca": B0,
    "efficientnetv2_glu": B0,
    # Its ImageNet weights are on the hub; here the attention module trains from random ones.
    "efficientnetv2_pretrained": [*B0, "init.weights=", "optim.backbone_lr_factor=1.0"],
    "efficientnet_lite0": ["init.weights=", "data.image_size=96", "optim.backbone_lr_factor=1.0"],
    "mobilevit": XXS,
    "mobilevit_ir": XXS,
    "mobilevit_conv5": XXS,
    "pyramidnet_asam": ["data.image_size=32"],
    "swin": ["data.image_size=64", "model.window=4", "model.size=t"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--runs", required=True, type=Path)
    args = parser.parse_args()
    results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    commit = head()[:12]
    for recipe, keys in RUNS.items():
        if recipe in results:
            continue
        options = [f"--config={recipe}", *(f"--config.{key}" for key in (*keys, *COMMON))]
        workdir = args.runs / recipe
        command = [sys.executable, "-m", "wastejax.main", *options]
        subprocess.run([*command, f"--config.data.dir={args.data}", f"--workdir={workdir}"], check=True)
        with (workdir / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        report = json.loads((workdir / "report.json").read_text())
        results[recipe] = {
            "command": " ".join(["python -m wastejax.main", *options, "--config.data.dir=trashnet"]),
            "commit": commit,
            "date": datetime.date.today().isoformat(),
            "hardware": report["facts"]["hardware"],
            "parameters": report["facts"]["parameters"],
            "seconds": round(report["facts"]["seconds"]),
            "train_loss": [round(float(row["train_loss"]), 4) for row in rows],
            "val_top1": [round(float(row["val_top1"]), 4) for row in rows],
        }
        RESULT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
