"""Several objects in real photographs of litter, where `regions.py` has mosaics: results/regions_litter.json.

Command: python experiments/regions_litter.py --photos=DIR --labels=CSV --state=STATE [--most=N] [--seconds=N]
DIR holds photographs and boxes.csv (file, x0, y0, x1, y1, label); CSV is what labels mean, see `label_map`. What
the bundled model sees of every box that it proposes is kept in STATE, so that it can be ended at any time; with
--seconds it ends itself. Scored are the settings as they are, and settings that were chosen on one half of the
photographs and judged on the other, by turns. Boxes are incomplete in DIR: recall is fair, precision a lower bound.
"""

import argparse
import csv
import itertools
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from experiments.provenance import provenance
from wastejax.bundle import Bundle, default_bundle, load_bundle
from wastejax.data.description.label_map import LabelMap, load_label_map
from wastejax.data.images import decode
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.predictor import softmax
from wastejax.deployment.regions import Settings, candidates, choose, iou, surroundings
from wastejax.files import write_json
from wastejax.training.heads import logits_of

RESULTS = Path(__file__).parent / "results"
SOURCE = "aquatrash"  # in the label map
IOU = 0.3
GRID = {
    "growth": [0.0, 0.4, 1.0],
    "least": [0.35, 0.5, 0.65, 0.8, 0.9],
}
SURE = ("class", "bin")  # what has to be as likely as `least`
MOST = (1, 2, 4, 100)  # boxes of a photograph
BATCH = 16


class Photo(NamedTuple):
    """A photograph: its area, labeled boxes and their labels, proposed boxes, and the probabilities in each."""

    area: float
    truth: np.ndarray
    labels: list[str]
    boxes: np.ndarray
    probabilities: np.ndarray


class Chosen(NamedTuple):
    """How boxes are chosen: `regions.Settings`, what has to be sure, and how many of a photograph at most."""

    settings: Settings
    sure: str
    most: int


AS_IT_IS = Chosen(Settings(), "class", 100)


def main() -> None:
    """Looks, chooses, scores and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("photos", "labels", "state"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--most", type=int, help="photographs at most, the first by name (default: all)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop looking after these")
    args = parser.parse_args()
    photos = look(args.photos, args.state, args.seconds, args.most)
    if photos is None:
        print("there is more to look at; the same command goes on")
        return
    bundle, label_map = load_bundle(default_bundle()), load_label_map(args.labels)
    rows = {"as it is": rates([outcome(photo, bundle, label_map, AS_IT_IS) for photo in photos])}
    chosen, judged = [], []
    for fold in (0, 1):
        best = tune(photos[1 - fold :: 2], bundle, label_map)
        chosen.append(asdict(best.settings) | {"sure": best.sure, "most": best.most})
        judged += [outcome(photo, bundle, label_map, best) for photo in photos[fold::2]]
    rows["settings chosen on the other half"] = rates(judged)
    rows["all boxes that are proposed"] = rates([ceiling(photo, bundle, label_map) for photo in photos])
    command = "python experiments/regions_litter.py --photos=aquatrash --labels=label_map.csv --state=STATE"
    command += f" --most={args.most}" if args.most else ""
    result = provenance(command) | {"iou": IOU, "photos": len(photos), "chosen": chosen, "rows": rows}
    write_json(RESULTS / "regions_litter.json", result)
    for name, row in rows.items():
        print(name, {key: value for key, value in row.items() if not key.endswith("ci95")})


def look(folder: Path, state: Path, seconds: float, most: int | None) -> list[Photo] | None:
    """Proposes boxes in each photograph and keeps what is seen in them; None where time is over before."""
    bundle = load_bundle(default_bundle())
    with (folder / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    began, photos = time.monotonic(), []
    state.mkdir(parents=True, exist_ok=True)
    predictor = None
    for name in sorted({row["file"] for row in rows})[:most]:
        kept = state / f"{name}.npz"
        image = decode((folder / name).read_bytes())
        if not kept.is_file():
            if time.monotonic() - began > seconds:
                return None
            predictor = predictor or load_predictor(default_bundle())
            boxes = candidates(predictor, image, Settings())
            np.savez(state / "new.npz", boxes=boxes, features=seen_in(bundle, image, boxes))
            (state / "new.npz").rename(kept)
        mine = [row for row in rows if row["file"] == name]
        truth = np.array([[float(row[key]) for key in ("x0", "y0", "x1", "y1")] for row in mine])
        with np.load(kept) as stored:
            boxes, features = stored["boxes"], stored["features"]
        area = float(image.width * image.height)
        p = softmax(logits_of(bundle, features), bundle.temperature)
        photos.append(Photo(area, truth, [row["label"] for row in mine], boxes, p))
    return photos


def seen_in(bundle: Bundle, image: Image.Image, boxes: np.ndarray) -> np.ndarray:
    """Returns what the classifier sees of each box, float32 [N, D], as `regions.classify` cuts it out."""
    size = bundle.preprocessing.image_size
    found = []
    for start in range(0, len(boxes), BATCH):
        part = boxes[start : start + BATCH]
        crops = np.zeros((BATCH, size, size, 3), np.uint8)
        for i, box in enumerate(part):
            square = surroundings(box, image.width, image.height, Settings().margin)
            crops[i] = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=square))
        found.append(np.asarray(bundle.features(crops))[: len(part)])
    width = bundle.variables["params"]["classifier"]["kernel"].shape[0]
    return np.concatenate([np.zeros((0, width), np.float32), *found])


def outcome(photo: Photo, bundle: Bundle, label_map: LabelMap, chosen: Chosen) -> dict[str, int]:
    """Counts a photograph's objects, boxes, objects found, and found with the right material."""
    p = photo.probabilities
    best = p.argmax(axis=1)
    sure = p.max(axis=1, initial=0)
    if chosen.sure == "bin" and bundle.bins is not None:
        names = np.array(bundle.bins)
        sure = np.where(names[best][:, None] == names, p, 0).sum(axis=1)
    kept = choose(photo.boxes, sure, photo.area, chosen.settings)[: chosen.most]
    kept = kept[np.argsort(-sure[kept], kind="stable")]
    return counted(photo, bundle, label_map, kept, best)


def counted(
    photo: Photo, bundle: Bundle, label_map: LabelMap, kept: np.ndarray, best: np.ndarray
) -> dict[str, int]:
    """Matches boxes, the surest first, each with the object that it fits best."""
    meanings, made_of = label_map.of(SOURCE), label_map.materials(bundle.classes) or ()
    found = {"objects": len(photo.truth), "boxes": len(kept), "found": 0, "right_material": 0}
    for key, aware in (("found", False), ("right_material", True)):
        hit = np.zeros(len(photo.truth), bool)
        for i in kept:
            fits = iou(photo.boxes[i], photo.truth)
            fits[hit | (fits < IOU)] = 0
            if aware:
                said = made_of[int(best[i])]
                fits[[not said & meanings[label].materials for label in photo.labels]] = 0
            if fits.max() > 0:
                hit[fits.argmax()] = True
        found[key] = int(hit.sum())
    return found


def ceiling(photo: Photo, bundle: Bundle, label_map: LabelMap) -> dict[str, int]:
    """Counts all boxes that are proposed: no choice of them finds more."""
    p = photo.probabilities
    order = np.argsort(-p.max(axis=1, initial=0), kind="stable")
    return counted(photo, bundle, label_map, order, p.argmax(axis=1))


def tune(photos: list[Photo], bundle: Bundle, label_map: LabelMap) -> Chosen:
    """Returns what has the best F1 of objects found with the right material."""
    most, best = -1.0, AS_IT_IS
    for values in itertools.product(*GRID.values(), SURE, MOST):
        settings = replace(Settings(), **dict(zip(GRID, values[:-2], strict=True)))
        chosen = Chosen(settings, *values[-2:])
        counts = [outcome(photo, bundle, label_map, chosen) for photo in photos]
        right, objects, boxes = (
            sum(c[key] for c in counts) for key in ("right_material", "objects", "boxes")
        )
        if 2 * right / (objects + boxes) > most:
            most, best = 2 * right / (objects + boxes), chosen
    return best


def rates(counts: list[dict[str, int]], draws: int = 2000) -> dict[str, Any]:
    """Returns recall, recall with the right material, and precision, with 95 % intervals over photographs."""
    values = {key: np.array([row[key] for row in counts]) for key in counts[0]}
    picks = np.random.default_rng(17).integers(len(counts), size=(draws, len(counts)))
    result: dict[str, Any] = {key: int(value.sum()) for key, value in values.items()}
    for name, top, of in (
        ("recall", "found", "objects"),
        ("recall_right_material", "right_material", "objects"),
        ("precision", "found", "boxes"),
        ("precision_right_material", "right_material", "boxes"),
    ):
        drawn = values[top][picks].sum(axis=1) / np.maximum(values[of][picks].sum(axis=1), 1)
        result[name] = float(values[top].sum() / max(values[of].sum(), 1))
        result[f"{name}_ci95"] = [float(x) for x in np.quantile(drawn, [0.025, 0.975])]
    return result


if __name__ == "__main__":
    main()
