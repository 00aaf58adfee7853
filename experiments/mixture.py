"""One description that mixes a folder, a COCO file and a Parquet file, trained end to end and scored by source.

Command: python experiments/mixture.py --data=DIR --data2=DIR2 --state=STATE
DIR holds trashnet/, DIR2 aquatrash/ with boxes.csv and garbage_v2/. Writes the three sources and two descriptions
to STATE, trains the recipe efficientnet_lite0 on all three and on the folder alone, and writes
experiments/results/mixture.json and .md: both, on the same test images. No weights are kept.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import wastejax
from experiments.provenance import ROOT, provenance
from wastejax.bundle import load_bundle
from wastejax.config import load_recipe
from wastejax.data.cache import cache_dir
from wastejax.data.pipeline import EvalBatches
from wastejax.data.prepare import Dataset, prepare
from wastejax.evaluation.evaluate import evaluate
from wastejax.evaluation.metrics import bootstrap_interval
from wastejax.files import write_json, write_text

CLASSES = ("cardboard", "glass", "metal", "paper", "plastic")
SEED = 17
FROM_FOLDER, FROM_PARQUET = 70, 60  # images of a class at most
SOURCES = {"folder": "TrashNet", "coco": "boxes of TACO photographs", "parquet": "Garbage Dataset"}
KEYS = {
    "data.image_size": 128,
    "init.preprocessing": False,
    "data.crop": 0.95,
    "train.epochs": 6,
    "train.batch_size": 32,
    "eval.batch_size": 32,
    "optim.warmup_epochs": 1.0,
    "optim.frozen_blocks": 6,
}


def write_folder(trashnet: Path, folder: Path) -> None:
    """Links images into class folders."""
    rng = np.random.default_rng(SEED)
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        files = sorted((trashnet / name).iterdir())
        for i in sorted(rng.permutation(len(files))[:FROM_FOLDER]):
            link = folder / name / files[i].name
            if not link.exists():
                link.symlink_to(files[i].resolve())


def write_coco(aquatrash: Path, file: Path) -> None:
    """Writes the boxes of photographs as COCO, the photographs linked beside it."""
    with (aquatrash / "boxes.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    (file.parent / "images").mkdir(parents=True, exist_ok=True)
    images: dict[str, dict[str, Any]] = {}
    annotations = []
    for number, row in enumerate(rows):
        name = row["file"]
        if name not in images:
            link = file.parent / "images" / name
            if not link.exists():
                link.symlink_to((aquatrash / name).resolve())
            with Image.open(link) as image:
                width, height = image.size
            images[name] = {"id": len(images), "file_name": name, "width": width, "height": height}
        x0, y0, x1, y1 = (float(row[side]) for side in ("x0", "y0", "x1", "y1"))
        annotations.append(
            {
                "id": number,
                "image_id": images[name]["id"],
                "category_id": CLASSES.index(row["label"]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
            }
        )
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    file.write_text(
        json.dumps({"images": list(images.values()), "annotations": annotations, "categories": categories})
    )


def write_parquet(garbage: Path, file: Path) -> None:
    """Writes images as Hugging Face does, bytes and a number of the class."""
    import pyarrow
    from pyarrow import parquet

    rng = np.random.default_rng(SEED)
    names = sorted(folder.name for folder in garbage.iterdir() if folder.is_dir())
    images, labels = [], []
    for label, name in enumerate(names):
        files = sorted((garbage / name).iterdir())
        for i in sorted(rng.permutation(len(files))[:FROM_PARQUET]):
            images.append({"bytes": files[i].read_bytes(), "path": files[i].name})
            labels.append(label)
    table = pyarrow.table({"image": images, "label": labels})
    about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(about)}), file, row_group_size=64
    )


def describe(state: Path, garbage: Path) -> tuple[Path, Path]:
    """Writes the description of all three sources, and that of the folder alone."""
    names = [folder.name for folder in garbage.iterdir() if folder.is_dir()]
    # What is none of the classes teaches not to be sure.
    meanings = ", ".join(
        f"{name} = {json.dumps([name] if name in CLASSES else [])}" for name in sorted(names)
    )
    head = f'classes = {json.dumps(CLASSES)}\n\n[sources.folder]\npath = "folder"\n'
    rest = (
        '\n[sources.coco]\npath = "coco/boxes.json"\n'
        f'\n[sources.parquet]\npath = "parquet/garbage.parquet"\nmeanings = {{ {meanings} }}\n'
    )
    (state / "all.toml").write_text(head + rest)
    (state / "folder.toml").write_text(head)
    return state / "all.toml", state / "folder.toml"


def train(state: Path, description: Path, manifest: Path | None) -> Path:
    """Trains, or resumes, one run, and returns its folder."""
    overrides = {**KEYS, "data.dir": str(description)}
    if manifest is not None:
        overrides["data.split.manifest"] = str(manifest)
    return Path(
        wastejax.train(
            "efficientnet_lite0", overrides=overrides, workdir=state / "runs" / description.stem, say=print
        )
    )


def of_folder(manifest: Path) -> Path:
    """Writes the rows of a manifest that the folder alone has."""
    with manifest.open(newline="") as lines:
        reader = csv.DictReader(lines)
        rows = [row for row in reader if row["file"].startswith("folder/")]
    out = manifest.with_name("folder_manifest.csv")
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames or ())
        writer.writeheader()
        writer.writerows(rows)
    return out


def scores(run: Path, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Scores a run by source on the test images that show one class."""
    bundle, source, test = load_bundle(run), dataset.source, dataset.indices("test")
    result = evaluate(
        bundle.logits, EvalBatches(source, test, bundle.preprocessing, 32), source, bundle.classes, test
    )
    right = result.logits.argmax(axis=1) == result.labels
    members = np.array(source.members)[result.indices]
    found = {}
    for name in SOURCES:
        mine = right[members == name]
        low, high = bootstrap_interval(mine)
        found[name] = {"images": len(mine), "top1": float(mine.mean()), "ci95": [low, high]}
    return found


def table(result: dict[str, Any]) -> list[str]:
    """Returns the lines of the table."""
    lines = [
        "| source | given as | training images | test images | right, by the folder alone | right, by all three |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, title in SOURCES.items():
        alone, mixed = (result[run][name] for run in ("folder", "all"))
        cells = [
            f"{100 * s['top1']:.1f} % ({100 * s['ci95'][0]:.0f} to {100 * s['ci95'][1]:.0f})"
            for s in (alone, mixed)
        ]
        counts = (f"{result['training_images'][name]:,}", f"{alone['images']:,}")
        lines.append(f"| {' | '.join((title, name, *counts, *cells))} |")
    about = result["about"]
    commit = (
        f"{about['commit']} (trained at {about['trained_at']})" if "trained_at" in about else about["commit"]
    )
    return [*lines, "", f"`{about['command']}`, commit {commit}, {about['date']}, {about['hardware']}."]


def main() -> None:
    """Writes the sources, trains, scores, and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("data", "data2", "state"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument(
        "--trained-at", default="", help="the commit of finished runs in STATE, if another one"
    )
    args = parser.parse_args()
    state, garbage = args.state.resolve(), args.data2 / "garbage_v2"
    write_folder(args.data / "trashnet", state / "folder")
    write_coco(args.data2 / "aquatrash", state / "coco" / "boxes.json")
    write_parquet(garbage, state / "parquet" / "garbage.parquet")
    mixed, alone = describe(state, garbage)
    run = train(state, mixed, None)
    runs = {"all": run, "folder": train(state, alone, of_folder(run / "manifest.csv"))}
    config = load_recipe("efficientnet_lite0")
    config.data.dir, config.data.split.manifest = str(mixed), str(run / "manifest.csv")
    dataset = prepare(config.data, SEED, cache_dir())
    members = np.array(dataset.source.members)[dataset.indices("train")]
    command = f"python experiments/mixture.py --data={args.data} --data2={args.data2} --state={args.state}"
    result = {
        "about": provenance(command) | ({"trained_at": args.trained_at} if args.trained_at else {}),
        "keys": KEYS,
        "training_images": {name: int(np.sum(members == name)) for name in SOURCES},
        **{name: scores(folder, dataset) for name, folder in runs.items()},
    }
    out = ROOT / "experiments" / "results"
    write_json(out / "mixture.json", result)
    write_text(out / "mixture.md", "\n".join(table(result)) + "\n")
    print("\n".join(table(result)))


if __name__ == "__main__":
    main()
