"""Images with the evidence for their class laid over them, and files for them that replace none."""

import re
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wastejax.data.images import jpeg
from wastejax.deployment.images import STDIN
from wastejax.deployment.predictor import Predictor
from wastejax.errors import UserError
from wastejax.evaluation.heatmaps import blend, evidence

LARGEST = 1024  # pixels of the longer side of a drawn image
UNSEEN = 0.35  # brightness of what the network is not shown
QUALITY = 90
LONGEST_NAME = 200  # bytes; file systems take 255


def heat_map(predictor: Predictor, image: Image.Image, label: str | None = None) -> Image.Image:
    """Returns an image with the evidence for a class laid over the square that the network is shown.

    Args:
        predictor: one with class maps.
        image: RGB.
        label: the class; the likeliest if None.

    Returns:
        RGB, at most `LARGEST` pixels a side; dark outside that square.

    Raises:
        UserError: the model is an exported file without a class map.
    """
    logits = np.asarray(dense_of(predictor, "heat maps")(predictor.preprocessing(image)[None]))[0]
    index = int(logits.mean((0, 1)).argmax()) if label is None else predictor.classes.index(label)
    small = image.copy()
    small.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    shown = np.asarray(small)
    left, top, right, bottom = predictor.preprocessing.box(*shown.shape[1::-1])
    left, top, right, bottom = floor(left), floor(top), ceil(right), ceil(bottom)  # a pixel at least
    inside = shown[top:bottom, left:right]
    drawn = np.rint(shown * UNSEEN).astype(np.uint8)
    drawn[top:bottom, left:right] = blend(inside, evidence(logits, index, predictor.multilabel))
    return Image.fromarray(drawn)


def dense_of(predictor: Predictor, wanted: str, any_side: bool = False) -> Callable[[np.ndarray], Any]:
    """Returns the network at every position.

    Args:
        predictor: the model.
        wanted: what comes from it, in the plural.
        any_side: images of any sides are to be looked at.

    Raises:
        UserError: the model is an exported file without a class map, or one of images of its own size alone.
    """
    if predictor.dense is None:
        raise UserError(
            f"{predictor.path}: has no class map, which {wanted} come from; export it with --class-map, or name the"
            " run or bundle"
        )
    if any_side and not predictor.any_side:
        raise UserError(
            f"{predictor.path}: has class maps of images of one size alone, which a heat map takes, but finding "
            "several objects does not; name the run or bundle, or with it --engine=jax"
        )
    return predictor.dense


def save_drawn(image: Image.Image, folder: str | Path, name: str, label: str) -> Path:
    """Writes a JPEG named after the image and what it shows, beside what is there.

    Args:
        image: RGB.
        folder: made if need be.
        name: of the original, as `images.find` gives it; '-' becomes 'stdin'.
        label: what the file is called after the original's name.

    Returns:
        FOLDER/<stem>_<label>.jpg, or FOLDER/<stem>_<label>_2.jpg and so on where there is one already.

    Raises:
        UserError: the folder cannot be written.
    """
    stem = "stdin" if name == STDIN else Path(name).stem
    # Surrogates stand for bytes of a name that is not UTF-8.
    base = re.sub(r'[\\/:*?"<>|\x00-\x1f\ud800-\udfff]', "_", f"{stem}_{label}")
    base = base.encode()[:LONGEST_NAME].decode(errors="ignore")
    encoded = jpeg(image, QUALITY)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = folder / (f"{base}.jpg" if number == 1 else f"{base}_{number}.jpg")
            with suppress(FileExistsError), path.open("xb") as file:  # fails where a file is: none is lost
                file.write(encoded)
                break
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({(error.strerror or str(error)).lower()})") from None
    return path
