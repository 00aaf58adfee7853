"""What a leaking split is worth: one network on a plain random and on grouped splits of a set with planted copies.

Command: python experiments/leakage.py --data=TRASHNET --state=DIR
Half of the images get one changed copy each, so that a third of the set is redundant, as in the study's data. The
splits: "random"; "grouped", as training does it, by perceptual hash; "audited", by the groups that `audit` finds,
which looks for mirrored and cropped copies too.
What is done already is skipped, so it can be stopped at any time. Writes experiments/results/leakage.json; the
images stay in DIR.
"""

import argparse
import csv
import datetime
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from experiments.provenance import head
from wastejax.auditing.findings import audit
from wastejax.bundle import load_bundle
from wastejax.data.images import decode
from wastejax.data.pipeline import EvalBatches
from wastejax.data.sources import open_folder
from wastejax.data.split import load_manifest, save_manifest, stratified_group_split
from wastejax.evaluation.evaluate import evaluate
from wastejax.evaluation.metrics import bootstrap_interval

ROOT = Path(__file__).resolve().parents[1]
MARK = "__copy_"
KEYS = (
    "model.size=xxs",
    "data.image_size=64",
    "data.augmentation=basic",
    "train.epochs=20",
    "train.batch_size=32",
    "optim.weight_decay=0.05",
)
SPLITS = ("random", "grouped", "audited")


def resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.BICUBIC)


def recompressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=35)
    return decode(buffer.getvalue())


def flipped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def recolored(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(0.6)).enhance(1.15)


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    w, h = round(0.92 * image.width), round(0.92 * image.height)
    left, top = int(rng.integers(image.width - w + 1)), int(rng.integers(image.height - h + 1))
    return image.crop((left, top, left + w, top + h))


CHANGES = {f.__name__: f for f in (resized, recompressed, flipped, recolored, cropped)}


def plant(data: Path, to: Path, seed: int = 17) -> None:
    """Writes every image of a class folder and one changed copy of each second one; nothing where it is done."""
    done = to.with_name(f"{to.name}.done")
    if done.is_file():
        return
    source, rng = open_folder(data), np.random.default_rng(seed)
    chosen = rng.permutation(len(source))[: len(source) // 2]
    change_of = dict(zip(chosen.tolist(), np.resize(list(CHANGES), len(chosen)).tolist(), strict=True))
    for i, name in enumerate(source.names):
        path = to / source.classes[source.labels[i]] / Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(i))
        if i in change_of:
            copy = CHANGES[change_of[i]](decode(source.read(i)), rng)
            copy.save(path.with_name(f"{path.stem}{MARK}{change_of[i]}.jpg"), quality=90)
    done.touch()


def original(name: str) -> str:
    """Returns the class and stem of the image that a file shows, or was copied from."""
    return str(Path(name).with_suffix("")).partition(MARK)[0]


def audited(images: Path, manifest: Path, seed: int) -> None:
    """Writes a split that keeps each group of the audit's on one side; nothing where it is done."""
    if not manifest.is_file():
        found = audit(open_folder(images))
        source, groups = found.source, found.groups
        splits = stratified_group_split(source.labels, source.domains, groups, seed=seed)
        save_manifest(manifest, source, groups, splits)


def train(images: Path, workdir: Path, keys: list[str]) -> str:
    """Trains one network, or goes on with it, and returns the command."""
    options = ["--config=mobilevit_ir", *(f"--config.{key}" for key in (*KEYS, *keys))]
    if not (workdir / "report.json").is_file():
        command = [sys.executable, "-m", "wastejax.main", *options, f"--config.data.dir={images}"]
        subprocess.run([*command, f"--workdir={workdir}"], check=True, cwd=ROOT)
    return re.sub(r"=/\S*/", "=", " ".join(["python -m wastejax.main", *options]))


def rate(correct: np.ndarray) -> dict:
    """Returns top-1 of some images with its 95 % bootstrap interval."""
    if not len(correct):
        return {"num_images": 0, "top1": None, "ci95": None}
    top1, interval = float(correct.mean()), bootstrap_interval(correct)
    return {"num_images": len(correct), "top1": round(top1, 4), "ci95": [round(x, 4) for x in interval]}


def score(images: Path, workdir: Path, groups: dict[str, str]) -> dict:
    """Scores a run on its test images, and on those whose near-duplicates were and were not trained on.

    Args:
        images: the set.
        workdir: the run.
        groups: the audit's group of each file: TrashNet has a few twins of its own.
    """
    source = open_folder(images)
    listed = load_manifest(workdir / "manifest.csv", source)
    source = source.select(listed.indices)
    names = [source.names[i] for i in np.flatnonzero(listed.splits == "train")]
    trained = {original(name) for name in names} | {groups[name] for name in names}
    test = np.flatnonzero(listed.splits == "test")
    bundle = load_bundle(workdir)
    batches = EvalBatches(source, test, bundle.preprocessing, 64)
    result = evaluate(bundle.logits, batches, source, bundle.classes, test)
    correct = result.logits.argmax(axis=1) == result.labels
    tested = [source.names[i] for i in result.indices]
    seen = np.array([original(name) in trained or groups[name] in trained for name in tested])
    return {
        "test": rate(correct),
        "twin_in_train": rate(correct[seen]),
        "unseen": rate(correct[~seen]),
    }


def read_groups(manifest: Path) -> dict[str, str]:
    """Returns the group of each file of a manifest."""
    with manifest.open(encoding="utf-8") as file:
        return {row["file"]: f"group {row['group']}" for row in csv.DictReader(file)}


def detected(groups: dict[str, str]) -> dict[str, float]:
    """Returns the share of planted copies of each kind that are in one group with their originals."""
    group_of = {original(name): group for name, group in groups.items() if MARK not in name}
    found: dict[str, list[bool]] = {kind: [] for kind in CHANGES}
    for name, group in groups.items():
        if MARK in name:
            found[Path(name).stem.partition(MARK)[2]].append(group == group_of[original(name)])
    return {kind: round(float(np.mean(hits)), 4) for kind, hits in found.items()}


def write(out: Path, args: argparse.Namespace, commit: str, runs: dict[str, Path], pairs: list[dict]) -> None:
    """Writes what is known so far."""
    seeds = " ".join(str(pair["seed"]) for pair in pairs)
    groups = {split: read_groups(runs[split] / "manifest.csv") for split in SPLITS if split != "random"}
    names = list(groups["audited"])
    result = {
        "command": f"python experiments/leakage.py --data={args.data.name} --state=DIR --seeds {seeds}",
        "commit": commit[:12],
        "date": datetime.date.today().isoformat(),
        "hardware": json.loads((runs["grouped"] / "report.json").read_text())["facts"]["hardware"],
        "set": {
            "from": args.data.name,
            "pictures": len(names),
            "planted_copies": sum(MARK in name for name in names),
            "share_of_copies_grouped_with_their_original": {s: detected(g) for s, g in groups.items()},
        },
        "mean_top1": {s: round(float(np.mean([p[s]["test"]["top1"] for p in pairs])), 4) for s in SPLITS},
        "pairs": pairs,
    }
    text = json.dumps(result, indent=1)
    # Intervals on one line.
    text = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda numbers: "[" + " ".join(numbers[1].split()) + "]", text)
    out.write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--state", required=True, type=Path, help="for the planted set and the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[17], help="of split and training")
    parser.add_argument("--commit", help="what is run (default: HEAD)")
    parser.add_argument("--out", type=Path, default=ROOT / "experiments" / "results" / "leakage.json")
    args = parser.parse_args()
    commit = args.commit or head()
    state = args.state.resolve()
    images = state / "images"
    plant(args.data, images)
    pairs: list[dict] = []
    for seed in args.seeds:
        manifest = state / f"audited-{seed}.csv"
        audited(images, manifest, seed)
        keys = {
            "random": "data.split.group=none",
            "grouped": "data.split.group=phash",
            "audited": f"data.split.manifest={manifest}",
        }
        runs = {split: state / f"{split}-{seed}" for split in SPLITS}
        commands = {
            split: train(images, workdir, [keys[split], f"seed={seed}"]) for split, workdir in runs.items()
        }
        groups = read_groups(manifest)
        scores = {split: score(images, workdir, groups) for split, workdir in runs.items()}
        pairs.append({"seed": seed, "commands": commands, **scores})
        write(args.out, args, commit, runs, pairs)
        for split in SPLITS:
            print(seed, split, json.dumps(scores[split]), flush=True)


if __name__ == "__main__":
    main()
