"""Fine-tunes a bundle on several sources whose labels do not agree, before `another_camera.py` fits its classifier.

Command: python experiments/mixed_fit.py --bundle=BUNDLE --data=DIR --data2=DIR2 --state=STATE [KEY=VALUE ...]
BUNDLE is what `another_camera.py` made of a run; DIR and DIR2 are as there, and so are the images kept aside. The
training images of sources with a stated license are linked into STATE/mix, described by STATE/mix/mix.toml, and
trained on for two epochs with the stem and the first ten blocks frozen. STATE/blended is then between the bundle
and the new weights (Wortsman et al. 2022), for `another_camera.py --run=STATE/blended --state=STATE --blended`.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from experiments.another_camera import HOME, MIXED_ALPHA, Item, catalog, uncalibrated
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
    parser.add_argument("keys", nargs="*", help="config keys other than the recipe's, such as seed=18")
    args = parser.parse_args()
    mix = args.state / "mix"
    if not mix.exists():
        describe(catalog(args.data, args.data2), mix, SHARES)
    fine_tune(args.bundle, mix, args.state / "run", *args.keys)
    blend(args.bundle, args.state / "run", args.state / "blended")


def fine_tune(bundle: Path, mix: Path, workdir: Path, *keys: str) -> None:
    """Trains a bundle's network on what `describe` wrote; what was begun goes on."""
    keys = (*KEYS, f"data.dir={mix / 'mix.toml'}", f"init.weights={bundle}", *keys)
    command = [sys.executable, "-m", "wastejax.main", "--config=efficientnet_lite2"]
    command += [*(f"--config.{key}" for key in keys), f"--workdir={workdir}"]
    subprocess.run(command, check=True, cwd=ROOT)


def blend(before: Path, after: Path, path: Path) -> None:
    """Writes the bundle whose weights are `MIXED_ALPHA` of the way from one to the other."""
    start, new = load_bundle(before), load_bundle(after)
    mixed = jax.tree.map(
        lambda a, b: np.float32(MIXED_ALPHA * a + (1 - MIXED_ALPHA) * b),
        *({name: bundle.variables[name] for name in ("params", "batch_stats")} for bundle in (new, start)),
    )
    save_bundle(path, uncalibrated(replace(start, variables=mixed)), "int8")


def describe(items: list[Item], folder: Path, shares: Mapping[str, int]) -> None:
    """Writes links to the training images of some sources, one folder per label, and what labels mean.

    Args:
        items: the images there are.
        folder: where to write them, not there yet.
        shares: of the batches by source; 'nothing' are those of `NOTHING`. Of sources without one nothing is taken.
    """
    meanings: dict[tuple[str, str], tuple[str, ...]] = {}
    for item in items:
        source = "nothing" if item.source in NOTHING else item.source
        if source not in shares or item.split == "test" or (source == HOME and item.split == "val"):
            continue
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
    for name, share in shares.items():
        lines += [f"[sources.{name}]", f'path = "{name}"', f"weight = {share}"]
    (folder / "mix.toml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
