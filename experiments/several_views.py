"""Whether answers to several views of an image, averaged, are right more often: results/several_views.json.

Command: python experiments/several_views.py --data=DIR --data2=DIR2
DIR and DIR2 are as in another_camera.py. The bundled model answers to each image as a whole, mirrored, and to crops
of four fifths of its sides; probabilities are averaged over more and more of these. Scored are household_waste's
test images, and those of sources that it never learned from which show a class. A view costs an answer's time.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from experiments.another_camera import HOME, JUDGES, Item, catalog, taken
from experiments.provenance import provenance
from wastejax.bundle import default_bundle, load_bundle
from wastejax.data import images
from wastejax.deployment.predictor import softmax
from wastejax.evaluation.metrics import bootstrap_interval
from wastejax.files import write_json

RESULTS = Path(__file__).parent / "results"
SHARE = 0.8  # of the sides, in a crop
VIEWS = ("whole", "mirrored", "middle", "top left", "bottom right", "top right", "bottom left")
COMBINED = (1, 2, 3, 7)  # so many of them, from the first
BATCH = 32


def views(image: Image.Image) -> Iterator[Image.Image]:
    """Yields an image in all of `VIEWS`."""
    yield image
    yield ImageOps.mirror(image)
    width, height = (round(SHARE * side) for side in image.size)
    right, bottom = image.width - width, image.height - height
    for x, y in ((right // 2, bottom // 2), (0, 0), (right, bottom), (right, 0), (0, bottom)):
        yield image.crop((x, y, x + width, y + height))


def main() -> None:
    """Answers, scores and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "data2"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    bundle = load_bundle(default_bundle())
    items = [item for item in taken(catalog(args.data, args.data2)) if is_scored(item)]
    rows = []
    for start in range(0, len(items), BATCH):
        squares = [
            bundle.preprocessing(view)
            for item in items[start : start + BATCH]
            for view in views(images.decode(item.path.read_bytes()))
        ]
        rows.append(
            np.concatenate([np.asarray(bundle.logits(part)) for part in batches(squares)])[: len(squares)]
        )
    probabilities = softmax(np.concatenate(rows), bundle.temperature).reshape(len(items), len(VIEWS), -1)
    allowed = np.array([[name in item.allowed for name in bundle.classes] for item in items])
    sources = np.array([item.source for item in items])
    rights = {count: right_of(probabilities[:, :count], allowed) for count in COMBINED}
    found = {}
    for count, right in rights.items():
        found[", ".join(VIEWS[:count])] = {
            source: {
                "images": int(mine.sum()),
                "right": float(right[mine].mean()),
                "ci95": list(bootstrap_interval(right[mine])),
                "gained": int((right & ~rights[1])[mine].sum()),
                "lost": int((rights[1] & ~right)[mine].sum()),
            }
            for source in (HOME, *JUDGES[:2])
            for mine in [sources == source]
        }
    command = "python experiments/several_views.py --data=data --data2=data2"
    write_json(RESULTS / "several_views.json", provenance(command) | {"share": SHARE, "views": found})
    for name, row in found.items():
        print(name, {source: round(values["right"], 3) for source, values in row.items()})


def is_scored(item: Item) -> bool:
    """Returns whether the model never learned from an image that shows a class."""
    return bool(item.allowed) and (item.source in JUDGES or (item.source, item.split) == (HOME, "test"))


def batches(squares: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields uint8 [BATCH, S, S, 3], the last filled up."""
    for start in range(0, len(squares), BATCH):
        part = squares[start : start + BATCH]
        yield np.stack(part + part[:1] * (BATCH - len(part)))


def right_of(probabilities: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Returns bool [N], which images are answered right by the mean of float32 [N, V, C] over views."""
    return np.asarray(allowed[np.arange(len(allowed)), probabilities.mean(axis=1).argmax(axis=1)])


if __name__ == "__main__":
    main()
