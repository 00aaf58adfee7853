"""How well several objects in one image are found: mosaics of 2 to 9 objects on plain and on cluttered ground.

Command: python experiments/regions.py --data=HOUSEHOLD_WASTE --state=DIR [--model=RUN] [--tune]
The library's settings are scored on mosaics of test images, of the bundled model or a run; --tune says which would
be best on mosaics of validation images, and writes nothing. Studio images are cut out along their white ground;
others are pasted as tiles, frame and all, so that their boxes are looser than the objects. Mosaics and boxes are
kept in DIR, what is done is skipped; writes experiments/results/regions.json.
"""

import argparse
import csv
import itertools
import json
import random
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

from experiments.provenance import provenance
from wastejax.bundle import default_bundle
from wastejax.data.drawing.dataset import GROUNDS, _litter
from wastejax.data.drawing.pen import Pen
from wastejax.data.images import decode
from wastejax.data.sources import Source, open_folder
from wastejax.data.split import load_manifest
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.regions import Settings, candidates, choose, classify, distinct, iou

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "experiments" / "results" / "regions.json"
KEPT = RESULT.with_name("household_waste_kept.csv")
COUNTS = range(2, 10)
GROUND = {"plain": "default", "cluttered": "real_world"}
PER_CELL = {"val": 3, "test": 4}  # mosaics of each count and ground
LONGER, SHORTER = 1024, 768  # pixels
FILL = 0.4  # of the ground that objects cover, about
IOU = 0.3
# Boxes are proposed and classified once with all of these; what is chosen of them costs no network.
WIDEST = Settings(scales=(3.0, 4.0, 5.0), levels=(0.3, 0.45, 0.6, 0.75, 0.9), prominence=0.4)
GRID = {
    "scales": [(3.0,), (4.0,), (3.0, 4.0), (4.0, 5.0), (3.0, 4.0, 5.0)],
    "growth": [0.0, 0.2, 0.4, 0.7, 1.0],
    "overlap": [0.2, 0.3, 0.5],
    "least": [0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9],
}


class Thing(NamedTuple):
    """A pasted object: its class, its box in pixels, and whether it was cut out of its ground."""

    label: str
    box: tuple[int, int, int, int]
    cut: bool


def cut_out(image: Image.Image) -> Image.Image | None:
    """Returns a studio image's object as RGBA, cropped to it; None where the ground is not plain white."""
    pixels = np.asarray(image)
    bright = pixels.min(axis=-1) >= 232
    border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    if border.mean() < 0.97:
        return None
    marked, _ = ndimage.label(bright)
    edges = np.unique(np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]]))
    mask = ndimage.binary_opening(~np.isin(marked, edges[edges > 0]), iterations=2)
    parts, count = ndimage.label(mask)
    sizes = np.bincount(parts.ravel(), minlength=2)[1:]
    # Several things in one image have no box that is theirs.
    if not count or not 0.08 < mask.mean() < 0.85 or sizes.max() < 0.9 * sizes.sum():
        return None
    mask = parts == 1 + sizes.argmax()
    alpha = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
    rows, columns = ndimage.find_objects(mask.astype(int))[0]
    image = image.copy()
    image.putalpha(alpha)
    return image.crop((columns.start, rows.start, columns.stop, rows.stop))


def trimmed(image: Image.Image) -> Image.Image:
    """Returns the image without white bars at its edges, which belong to no tile."""
    dark = np.asarray(image).min(axis=-1) < 245
    sides = []
    for axis in (0, 1):
        seen = np.flatnonzero(dark.mean(axis=axis) > 0.02)
        sides.append((seen[0], seen[-1] + 1) if len(seen) else (0, dark.shape[1 - axis]))
    (left, right), (top, bottom) = sides
    return image.crop((int(left), int(top), int(right), int(bottom)))


def ground(kind: str, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Draws what objects lie on, as the embedded data set does; cluttered ground has litter of no class."""
    canvas = Image.new("RGB", size)
    side = max(size)
    view = np.array([[side / 2, 0, size[0] / 2], [0, side / 2, size[1] / 2]])
    pen = Pen(
        canvas, rng, view, tilt=rng.uniform(0.08, 0.4), light=rng.choice([-1, 1]) * rng.uniform(0.2, 0.7)
    )
    rng.choice(GROUNDS[GROUND[kind]])(pen.at(0, 0, 1.1, rng.gauss(0, 0.3)))
    if kind == "cluttered":
        _litter(pen, rng.randint(8, 20))
    return canvas.filter(ImageFilter.GaussianBlur(1))


def place(
    taken: list[tuple[int, ...]], w: int, h: int, size: tuple[int, int], rng: random.Random
) -> tuple | None:
    """Returns a free box of these sides, a little apart from the others; None where none was found."""
    gap = 12
    for _ in range(300):
        x, y = rng.randint(0, max(size[0] - w, 0)), rng.randint(0, max(size[1] - h, 0))
        if all(x + w + gap <= a or c + gap <= x or y + h + gap <= b or d + gap <= y for a, b, c, d in taken):
            return x, y, x + w, y + h
    return None


def mosaic(
    objects: list[tuple[str, Image.Image]], kind: str, rng: random.Random
) -> tuple[Image.Image, list[Thing]]:
    """Composes an image of all objects on ground of a kind."""
    size = rng.choice([(LONGER, SHORTER), (SHORTER, LONGER)])
    canvas, things = ground(kind, size, rng), []
    usual = (FILL * LONGER * SHORTER / len(objects)) ** 0.5
    for label, image in objects:
        shrink = 1.0
        longer = min(usual * rng.uniform(0.8, 1.2), 0.5 * SHORTER)
        while True:
            factor = shrink * longer / max(image.size)
            w, h = (max(1, round(factor * side)) for side in image.size)
            if box := place([thing.box for thing in things], w, h, size, rng):
                break
            shrink *= 0.9
        pasted = image.resize((w, h), Image.Resampling.LANCZOS)
        canvas.paste(pasted.convert("RGB"), box[:2], pasted.getchannel("A") if image.mode == "RGBA" else None)
        things.append(Thing(label, box, image.mode == "RGBA"))
    return canvas, things


def in_split(source: Source, model: Path | None, split: str) -> list[int]:
    """Returns the images of a split of a run, or of those that the bundled model never learned from."""
    if model is None:
        with KEPT.open(newline="") as file:
            kept = {row["file"]: row["split"] for row in csv.DictReader(file)}
        return [i for i, name in enumerate(source.names) if kept.get(name) == split]
    manifest = load_manifest(model / "manifest.csv", source)
    return manifest.indices[manifest.splits == split].tolist()


def compose(split: str, model: Path | None, data: Path, folder: Path) -> list[dict]:
    """Draws the mosaics of a split into a folder, unless they are there, and returns what each shows."""
    listed = folder / "mosaics.json"
    if listed.is_file():
        return json.loads(listed.read_text())
    source = open_folder(data)
    rng, rows = random.Random(f"mosaics {split}"), []
    pool = in_split(source, model, split)
    rng.shuffle(pool)
    objects: dict[bool, list] = {True: [], False: []}  # cut out or not; one in six can be
    for i in pool:
        image = decode(source.read(i))
        cut = cut_out(image)
        objects[cut is not None].append((source.classes[source.labels[i]], cut or trimmed(image)))
    endless = {cut: itertools.cycle(some) for cut, some in objects.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for kind, count, n in itertools.product(GROUND, COUNTS, range(PER_CELL[split])):
        chosen = [next(endless[rng.random() < 0.5]) for _ in range(count)]
        image, things = mosaic(chosen, kind, rng)
        name = f"{kind}_{count}_{n}.jpg"
        image.save(folder / name, quality=92)
        rows.append({"file": name, "ground": kind, "count": count, "things": [t._asdict() for t in things]})
    listed.write_text(json.dumps(rows))
    return rows


def boxes_of(predictor, folder: Path, rows: list[dict], scales: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Proposes and classifies boxes in all mosaics at each scale by itself; kept in a file for each mosaic."""
    found: dict[str, np.ndarray] = {}
    for row in rows:
        kept = folder / f"{row['file']}_boxes.npz"
        if not kept.is_file():
            image, fresh = decode((folder / row["file"]).read_bytes()), {}
            for scale in scales:
                boxes = candidates(predictor, image, replace(WIDEST, scales=(scale,)))
                fresh[f"{row['file']} {scale} boxes"] = boxes
                fresh[f"{row['file']} {scale} rows"] = classify(predictor, image, boxes, WIDEST.margin)
            things = np.array([thing["box"] for thing in row["things"]], float)
            fresh[f"{row['file']} truth"] = classify(predictor, image, things, WIDEST.margin)
            np.savez(folder / "new.npz", **fresh)
            (folder / "new.npz").rename(kept)
        with np.load(kept) as stored:
            found |= dict(stored)
    return found


def matched(things: list[dict], boxes: np.ndarray, labels: list[str], aware: bool) -> np.ndarray:
    """Returns for each thing whether it was found: each box, the surest first, takes the thing it fits best."""
    truth = np.array([thing["box"] for thing in things], float)
    hit = np.zeros(len(things), bool)
    for box, label in zip(boxes, labels, strict=True):
        fits = iou(box, truth)
        fits[hit | (fits < IOU)] = 0
        if aware:
            fits[[thing["label"] != label for thing in things]] = 0
        if fits.max() > 0:
            hit[fits.argmax()] = True
    return hit


def merged(rows: list[dict], found: dict, scales: tuple[float, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the boxes of each mosaic at all these scales, as `candidates` gives them, and their probabilities."""
    result = []
    for row in rows:
        keys = [f"{row['file']} {scale}" for scale in scales]
        boxes = np.concatenate([found[f"{key} boxes"] for key in keys])
        kept = distinct(boxes)
        result.append((boxes[kept], np.concatenate([found[f"{key} rows"] for key in keys])[kept]))
    return result


def score(
    rows: list[dict], found: list[tuple[np.ndarray, np.ndarray]], classes: tuple[str, ...], settings: Settings
) -> list[dict]:
    """Returns for each mosaic what is found with these settings."""
    scored = []
    for row, (boxes, probabilities) in zip(rows, found, strict=True):
        best = probabilities.max(axis=1, initial=0)
        kept = choose(boxes, best, LONGER * SHORTER, settings)
        kept = kept[np.argsort(-best[kept], kind="stable")]
        labels = [classes[i] for i in probabilities[kept].argmax(axis=1)]
        hits = {
            key: matched(row["things"], boxes[kept], labels, key == "aware") for key in ("aware", "agnostic")
        }
        scored.append({**row, "said": len(kept), "hits": hits})
    return scored


def named(rows: list[dict], found: dict, classes: tuple[str, ...]) -> float:
    """Returns how often the class is right where the box is given: what no way of finding boxes can exceed."""
    right = [
        classes[row.argmax()] == thing["label"]
        for mosaic in rows
        for row, thing in zip(found[f"{mosaic['file']} truth"], mosaic["things"], strict=True)
    ]
    return round(float(np.mean(right)), 4)


def rates(scored: list[dict], draws: int = 2000) -> dict:
    """Returns recall, precision and F1 with 95 % bootstrap intervals over mosaics."""
    things = np.array([row["count"] for row in scored])
    said = np.array([row["said"] for row in scored])
    picks = np.random.default_rng(17).integers(len(scored), size=(draws, len(scored)))
    result: dict = {"mosaics": len(scored), "objects": int(things.sum()), "found": int(said.sum())}
    for key, name in (("agnostic", "class_agnostic"), ("aware", "class_aware")):
        hits = np.array([int(row["hits"][key].sum()) for row in scored])
        result[name] = {}
        for measure, of in (("recall", things), ("precision", said), ("f1", (things + said) / 2)):
            drawn = hits[picks].sum(axis=1) / np.maximum(of[picks].sum(axis=1), 1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            value = float(hits.sum() / max(of.sum(), 1))
            ci95 = [round(float(low), 4), round(float(high), 4)]
            result[name][measure] = {"value": round(value, 4), "ci95": ci95}
    return result


def tune(rows: list[dict], found: dict, classes: tuple[str, ...]) -> tuple[Settings, float]:
    """Returns the settings of `GRID` with the best class-aware F1, which is returned as well."""
    best, chosen = -1.0, WIDEST
    others = {key: values for key, values in GRID.items() if key != "scales"}
    for scales in GRID["scales"]:
        boxes = merged(rows, found, scales)
        for values in itertools.product(*others.values()):
            settings = replace(WIDEST, scales=scales, **dict(zip(others, values, strict=True)))
            scored = score(rows, boxes, classes, settings)
            hits = sum(int(row["hits"]["aware"].sum()) for row in scored)
            f1 = 2 * hits / sum(row["count"] + row["said"] for row in scored)
            if f1 > best + 1e-9:
                best, chosen = f1, settings
    return chosen, best


def table(result: dict) -> str:
    lines = ["ground, objects      recall  precision   any class: recall  precision"]
    for name, row in result.items():
        numbers = [
            row[k][m]["value"] for k in ("class_aware", "class_agnostic") for m in ("recall", "precision")
        ]
        lines.append(f"{name:20} {numbers[0]:6.1%} {numbers[1]:10.1%} {numbers[2]:18.1%} {numbers[3]:10.1%}")
    return "\n".join(lines)


def by_cell(scored: list[dict]) -> dict[str, dict]:
    """Returns the rates of all mosaics, of each ground, of each count of objects, and of each ground and count."""
    cells = {"all": rates(scored)}
    cells |= {g: rates([row for row in scored if row["ground"] == g]) for g in GROUND}
    cells |= {str(n): rates([row for row in scored if row["count"] == n]) for n in COUNTS}
    for g, n in itertools.product(GROUND, COUNTS):
        cells[f"{g} {n}"] = rates([row for row in scored if (row["ground"], row["count"]) == (g, n)])
    return cells


def by_kind(scored: list[dict]) -> dict[str, dict]:
    """Returns the recall of things that were cut out, and of those pasted as tiles."""
    result = {}
    for name, cut in (("cut out", True), ("tile", False)):
        chosen = [(row["hits"], i) for row in scored for i, t in enumerate(row["things"]) if t["cut"] == cut]
        hit = {k: round(float(np.mean([hits[k][i] for hits, i in chosen])), 4) for k in ("aware", "agnostic")}
        result[name] = {"objects": len(chosen), "recall": hit["aware"], "recall_any_class": hit["agnostic"]}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, help="a finished run, with its manifest (default: the bundled model)"
    )
    parser.add_argument("--data", type=Path, required=True, help="the images it was trained on")
    parser.add_argument("--state", type=Path, required=True, help="where mosaics are kept: a folder of yours")
    parser.add_argument("--tune", action="store_true", help="say the best settings for validation images")
    args = parser.parse_args()
    predictor = load_predictor(args.model or default_bundle())
    split, scales = ("val", WIDEST.scales) if args.tune else ("test", Settings().scales)
    rows = compose(split, args.model, args.data, args.state / split)
    found = boxes_of(predictor, args.state / split, rows, scales)
    settings = Settings()
    if args.tune:
        settings, f1 = tune(rows, found, predictor.classes)
        print(f"chosen on validation mosaics (class-aware F1 {f1:.1%}): {settings}")
    scored = score(rows, merged(rows, found, settings.scales), predictor.classes, settings)
    cells = by_cell(scored)
    print(table(cells))
    if args.tune:
        return
    command = "python experiments/regions.py --data=household_waste --state=DIR"
    result = {
        **provenance(command + (f" --model={args.model.name}" if args.model else "")),
        "iou": IOU,
        "settings": asdict(settings),
        "class_right_in_true_box": named(rows, found, predictor.classes),
        "test": cells,
        "by_kind": by_kind(scored),
    }
    # Numbers of one list on one line: there are many intervals.
    text = re.sub(
        r"\[\s+([-\d.,\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", json.dumps(result, indent=1)
    )
    RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
