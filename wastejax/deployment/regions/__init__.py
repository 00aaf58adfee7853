"""Several objects in one image, found by a classifier that never saw a box.

Three steps, each of which can be looked at:
1. Propose. The network is run over the whole image, larger than it was trained at, and its linear head applied at
   every position (`Model.dense`). Where a class stands out, connected positions make a box, at several levels, so
   that neighbors that run together at a low level come apart at a high one.
2. Classify. Each box is cut out with its surroundings and classified like an image of its own.
3. Choose. Of boxes that overlap, the one with the best score stays (greedy non-maximum suppression); unsure ones
   go.

The maps are those of Zhou et al. (2016, CAM); running a classifier densely and classifying proposals again follow
Sermanet et al. (2014, OverFeat) and Girshick et al. (2014, R-CNN).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from wastejax.deployment.heatmaps import dense_of
from wastejax.deployment.predictor import Predictor

STEP = 64  # pixels: sides that every network takes, and few shapes to compile
FINER = 4  # positions are interpolated this many times before boxes are drawn around them
SMALLEST = 0.03  # of the longer side of the image: less is no object
FLAT = 3.0  # gray levels, standard deviation in each channel: an empty table or sky, with its noise
BATCH = 16  # crops that are classified at once


@dataclass(frozen=True)
class Settings:
    """What was chosen on mosaics of validation images by experiments/regions.py; `least` on photographs of litter.

    Attributes:
        scales: the longer side of what the network is shown, in units of its input size.
        levels: shares of a map's maximum; a box is drawn around what lies above.
        prominence: share of the image's largest evidence that a class must reach somewhere to be looked at.
        margin: surroundings that a box is classified with, on each side, as a share of the box.
        growth: a box's score is its probability times its area (as a share of the image) to this power, so that
            a whole object wins against its own surest part.
        overlap: two boxes show the same object where they share more than this of the smaller.
        least: probability under which nothing is reported.
    """

    scales: tuple[float, ...] = (3.0, 4.0)
    levels: tuple[float, ...] = (0.3, 0.45, 0.6, 0.75, 0.9)
    prominence: float = 0.4
    margin: float = 0.1
    growth: float = 1.0
    overlap: float = 0.2
    least: float = 0.5


class Region(NamedTuple):
    """An object: its class, bin ('' where no rule is known), probability, and box in pixels of the upright image.

    The box is left, top, right, bottom; right and bottom lie outside.
    """

    label: str
    bin: str
    probability: float
    box: tuple[int, int, int, int]


def find_regions(predictor: Predictor, image: Image.Image, settings: Settings | None = None) -> list[Region]:
    """Returns the distinct objects in an image, the surest first.

    Args:
        predictor: one with class maps of images of any sides.
        image: RGB, of any size.
        settings: None for those that were chosen.

    Raises:
        UserError: the model is an exported file that has no such maps.
    """
    settings = settings or Settings()
    boxes = candidates(predictor, image, settings)
    rows = classify(predictor, image, boxes, settings.margin)
    size = image.width * image.height
    kept = choose(boxes, rows.max(axis=1, initial=0), size, settings)
    labels = [predictor.classes[i] for i in rows[kept].argmax(axis=1)]
    found = [
        Region(label, predictor.bin_of(label), float(rows[i].max()), _whole(boxes[i]))
        for label, i in zip(labels, kept, strict=True)
    ]
    return sorted(found, key=lambda region: -region.probability)


def candidates(predictor: Predictor, image: Image.Image, settings: Settings) -> np.ndarray:
    """Returns boxes where an object may be, in pixels, float64 [N, 4], each about once."""
    found, whole = [], np.array([image.width, image.height] * 2)
    for scale in settings.scales:
        logits = _maps(predictor, image, scale)
        boxes = propose(logits, settings.levels, settings.prominence) * whole
        # A long strip is itself lower than this share of its length.
        least = min(SMALLEST * whole.max(), whole.min())
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= least).all(axis=1)]
        found.append(boxes[distinct(boxes)])
    boxes = np.concatenate(found)
    boxes = boxes[~empty(image, boxes)]
    return boxes[distinct(boxes)]


def empty(image: Image.Image, boxes: np.ndarray, side: int = 512) -> np.ndarray:
    """Returns bool [N], which boxes show one even ground: a classifier that knows no "nothing" is sure of it.

    Args:
        image: RGB.
        boxes: float [N, 4], in pixels.
        side: longer side of the image as it is looked at, pixels.
    """
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32)
    scale = np.array([small.width / image.width, small.height / image.height] * 2)
    flat = []
    for left, top, right, bottom in boxes * scale:
        inside = pixels[
            int(top) : max(int(top) + 1, round(bottom)), int(left) : max(int(left) + 1, round(right))
        ]
        flat.append(bool(inside.reshape(-1, 3).std(axis=0).max() < FLAT))
    return np.array(flat, bool)


def _maps(predictor: Predictor, image: Image.Image, scale: float) -> np.ndarray:
    """Returns the logits at every position, float32 [h, w, C], of the image at a scale."""
    sides = shown_sides(image.width, image.height, scale, predictor.preprocessing.image_size)
    pixels = np.asarray(image.resize(sides, Image.Resampling.BICUBIC))
    return np.asarray(dense_of(predictor, "regions", any_side=True)(pixels[None]))[0]


def shown_sides(width: int, height: int, scale: float, image_size: int) -> tuple[int, int]:
    """Returns the sides (width, height) at which the network is shown a whole image, multiples of `STEP`.

    Rounded sides stretch the image by a few per cent, as random crops did in training.

    Args:
        width: of the image, pixels.
        height: of the image, pixels.
        scale: the longer side of what is shown, in units of `image_size`.
        image_size: what the network was trained at, pixels.
    """
    longer = scale * image_size / max(width, height)
    wide, high = (max(STEP, STEP * round(longer * side / STEP)) for side in (width, height))
    return wide, high


def propose(logits: np.ndarray, levels: tuple[float, ...], prominence: float) -> np.ndarray:
    """Returns boxes around what stands out, in shares of the image.

    Args:
        logits: at every position, float [h, w, C].
        levels: see `Settings`.
        prominence: see `Settings`.

    Returns:
        float64 [N, 4]: left, top, right, bottom, from 0 to 1. Boxes of the strongest class of each position, and
        of every prominent class by itself, which keeps neighbors of different classes apart.
    """
    # What lifts all classes alike changes no probability.
    excess = logits - logits.mean(axis=-1, keepdims=True)
    largest = excess.max(axis=(0, 1))
    classes = np.flatnonzero((largest >= prominence * largest.max()) & (largest > 0))
    maps = [excess.max(axis=-1), *(excess[..., c] for c in classes)]
    boxes = [box for one in maps for level in levels for box in _components(one, level)]
    return np.array(boxes, np.float64).reshape(-1, 4)


def _components(heat: np.ndarray, level: float) -> list[tuple[float, float, float, float]]:
    """Returns the boxes of connected positions above a level, in shares of the map."""
    if heat.max() <= 0:
        return []
    h, w = (FINER * side for side in heat.shape)
    smooth = np.asarray(Image.fromarray(heat.astype(np.float32)).resize((w, h), Image.Resampling.BILINEAR))
    marked, _ = ndimage.label(smooth >= level * smooth.max())
    return [
        (columns.start / w, rows.start / h, columns.stop / w, rows.stop / h)
        for rows, columns in ndimage.find_objects(marked)
    ]


def classify(predictor: Predictor, image: Image.Image, boxes: np.ndarray, margin: float) -> np.ndarray:
    """Returns the probabilities of what is in each box, float32 [N, C].

    A box is widened by the margin and to a square within the image, for the network knows squares.
    """
    size = predictor.preprocessing.image_size
    crops = []
    for box in boxes:
        square = surroundings(box, image.width, image.height, margin)
        crops.append(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=square)))
    return predictor.batched(crops, BATCH)


def surroundings(
    box: np.ndarray, width: int, height: int, margin: float
) -> tuple[float, float, float, float]:
    """Returns the box with a margin, widened to a square and moved into the image; cut where it is too large."""
    left, top, right, bottom = box
    side = (1 + 2 * margin) * max(right - left, bottom - top)
    cut = []
    for low, high, whole in ((left, right, width), (top, bottom, height)):
        length = min(max(side, high - low), whole)
        start = min(max((low + high - length) / 2, 0), whole - length)
        cut.append((start, start + length))
    (x0, x1), (y0, y1) = cut
    return x0, y0, x1, y1


def choose(boxes: np.ndarray, probabilities: np.ndarray, image_area: float, settings: Settings) -> np.ndarray:
    """Returns the indices of the boxes that stay, int64 [K], best score first.

    Args:
        boxes: float [N, 4].
        probabilities: of the likeliest class in each, float [N].
        image_area: of the whole image, in the boxes' unit squared.
        settings: `growth`, `overlap` and `least` count.
    """
    score = probabilities * (areas(boxes) / image_area) ** settings.growth
    kept: list[int] = []
    for i in np.argsort(-score, kind="stable"):
        if probabilities[i] < settings.least:
            continue
        smaller = np.minimum(areas(boxes[i]), areas(boxes[kept]))
        if (shared(boxes[i], boxes[kept]) <= settings.overlap * smaller).all():
            kept.append(int(i))
    return np.array(kept, np.int64)


def distinct(boxes: np.ndarray, same: float = 0.8) -> np.ndarray:
    """Returns the indices of boxes none of which has more than `same` IoU with an earlier one, int64 [K]."""
    kept: list[int] = []
    for i, box in enumerate(boxes):
        if (iou(box, boxes[kept]) <= same).all():
            kept.append(i)
    return np.array(kept, np.int64)


def areas(boxes: np.ndarray) -> np.ndarray:
    """Returns the areas of boxes [..., 4]."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def shared(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns the area that a box has in common with each of some boxes, [N]."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    return np.maximum(sides, 0).prod(axis=1)


def iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns intersection over union of a box with each of some boxes, [N]."""
    common = shared(box, boxes)
    return common / (areas(box) + areas(boxes) - common)


def _whole(box: np.ndarray) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(float(x)) for x in box)
    return left, top, right, bottom
