"""Fine-tunes a bundle on several sources whose labels do not agree, before `another_camera.py` fits its classifier.

Command: python experiments/mixed_fit.py --bundle=BUNDLE --data=DIR --data2=DIR2 --state=STATE
BUNDLE is what `another_camera.py` made of a run; DIR and DIR2 are as there, and so are the images kept aside. The
training images of sources with a stated license are linked into STATE/mix, described by STATE/mix/mix.toml, and
trained on for two epochs with the first eleven blocks frozen. STATE/blended is then between the bundle and the new
weights (Wortsman et al. 2022), for `another_camera.py --run=STATE/blended --state=STATE --blended`.
"""

import argparse
import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from experiments.another_camera import HOME, LICENSED, MIXED_ALPHA, Item, catalog
from wastejax.bundle import load_bundle, save_bundle

ROOT = Path(__file__).resolve().parents[1]
NOTHING = ("grocery_store", "negatives_ground", "negatives_ibm")
# Shares of the batches; what shows none of the classes is one source.
SHARES = {HOME: 6000, "trashnet": 1300, "aquatrash_crops": 450, "clothing_small": 150, "nothing": 350}
KEYS = (
    "data.progressive=176,192",
    "data.min_crop_area=0.25",
    "data.split.ratios=0.97,0.015,0.015",
    "loss.mixup=0",
    "loss.cutmix=0",
    "loss.label_smoothing=0.05",
    "train.epochs=2",
    "optim.learning_rate=1e-3",
    "optim.backbone_lr_factor=0.25",
    "optim.warmup_epochs=0.3",
    "optim.ema_decay=0.997",
    "optim.frozen_blocks=11",
)


def main() -> None:
    """Links, trains and blends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("bundle", "data", "data2", "state"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    mix = args.state / "mix"
    if not mix.exists():
        describe(catalog(args.data, args.data2), mix)
    keys = (*KEYS, f"data.dir={mix / 'mix.toml'}", f"init.weights={args.bundle}")
    command = [sys.executable, "-m", "wastejax.main", "--config=efficientnet_lite2"]
    command += [*(f"--config.{key}" for key in keys), f"--workdir={args.state / 'run'}"]
    subprocess.run(command, check=True, cwd=ROOT)
    start, new = load_bundle(args.bundle), load_bundle(args.state / "run")
    mixed = jax.tree.map(
        lambda a, b: np.float32(MIXED_ALPHA * a + (1 - MIXED_ALPHA) * b),
        *({name: bundle.variables[name] for name in ("params", "batch_stats")} for bundle in (new, start)),
    )
    save_bundle(
        args.state / "blended", replace(start, variables=mixed, temperature=1.0, thresholds={}), "int8"
    )


def describe(items: list[Item], folder: Path) -> None:
    """Writes links to the training images of the licensed sources, one folder per label, and what labels mean."""
    meanings: dict[tuple[str, str], tuple[str, ...]] = {}
    for item in items:
        if (
            item.source not in LICENSED
            or item.split == "test"
            or (item.source == HOME and item.split == "val")
        ):
            continue
        if item.source not in (*SHARES, *NOTHING):
            continue
        source = "nothing" if item.source in NOTHING else item.source
        label = item.path.parent.name if source != "nothing" else item.source
        meanings[source, label] = item.allowed
        link = folder / source / label / f"{item.path.parent.name}_{item.path.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(item.path.resolve())
    with (folder / "label_map.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("source", "label", "classes", "material"))
        rows = sorted(meanings.items())
        writer.writerows((*key, ";".join(allowed), "") for key, allowed in rows if key[0] != HOME)
    lines = [f'classes = "{HOME}"', 'labels = "label_map.csv"']
    for name, share in SHARES.items():
        lines += [f"[sources.{name}]", f'path = "{name}"', f"weight = {share}"]
    (folder / "mix.toml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
