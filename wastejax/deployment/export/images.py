"""Images that an exported file is checked and calibrated with."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wastejax.bundle import Bundle
from wastejax.data import images
from wastejax.data.drawing import dataset as synthetic
from wastejax.data.sources import Source
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.images import find
from wastejax.errors import UserError
from wastejax.evaluation.evaluate import match_classes
from wastejax.evaluation.images import Asked, MovedError, asked_images, manifest_of

CALIBRATION_IMAGES = 256


class Sample(NamedTuple):
    """Images for a network to be checked or calibrated with.

    Attributes:
        images: uint8 [N, S, S, 3].
        labels: their classes, int [N], or bool [N, C] where they show any number; None where nobody knows.
        origin: where they are from.
    """

    images: np.ndarray
    labels: np.ndarray | None
    origin: str


def has_images(asked: Asked) -> bool:
    """Returns whether there are photographs to check with: the user's, or a run's own."""
    return bool(asked.data) or manifest_of(asked.model) is not None


def drawn(bundle: Bundle, count: int) -> Sample:
    """Returns drawn images, for want of others."""
    names = synthetic.CLASSES
    made = [synthetic.draw(names[i % len(names)], i, "real_world") for i in range(count)]
    return Sample(np.stack([bundle.preprocessing(image) for image in made]), None, "drawn images")


def checking_images(asked: Asked, bundle: Bundle, split: str, count: int) -> Sample:
    """Returns up to `count` images of a split of `asked.data`, or of the run's; else drawn ones to test with."""
    size = bundle.preprocessing
    if not has_images(asked):
        return drawn(bundle, min(count, 64))
    try:
        chosen = chosen_images(asked, bundle, split, count)
    except MovedError:  # a run may be exported where its images are not
        if split != "test":
            raise
        return drawn(bundle, min(count, 64))
    squares, good = readable(chosen.source.read, chosen.indices, size)
    if not len(good):
        raise UserError(f"none of the {chosen.origin} can be read; give others with --data")
    return Sample(squares, chosen.labels[good], chosen.origin)


class Chosen(NamedTuple):
    """Images for a network to be checked with, not read yet.

    Attributes:
        source: where they are from.
        indices: int64 [N], which of it.
        labels: bool [N, C], the classes of the network that they show.
        origin: in words.
    """

    source: Source
    indices: np.ndarray
    labels: np.ndarray
    origin: str


def chosen_images(asked: Asked, bundle: Bundle, split: str, count: int) -> Chosen:
    """Returns up to `count` images of a split of `asked.data`, or of the run's, always the same ones."""
    asked = replace(asked, split=split)
    try:
        source, indices = asked_images(asked, bundle.config)
    except UserError:
        if not asked.data:
            raise
        # Neither split nor the run's own: all will do.
        source, indices = asked_images(replace(asked, split=None), bundle.config)
    if not len(indices):
        raise UserError(f"the {split} split has no images to check or calibrate with; give some with --data")
    known = match_classes(bundle.classes, source.classes)
    chosen = np.random.default_rng(17).permutation(indices)[:count]
    shown = source.contents[chosen]
    labels = np.stack([np.isin(np.arange(len(bundle.classes)), known[row]) for row in shown])
    return Chosen(source, chosen, labels, f"images of {asked.data or f'the {split} split'}")


def readable(
    read: Callable[[int], bytes], indices: Iterable[int], preprocessing: Preprocessing, most: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Reads images, `most` at most; those that cannot be are left out, for `eval` and `predict` report them.

    Returns:
        uint8 [M, S, S, 3] and int64 [M], which of the indices these are, from 0.
    """
    squares, good = [], []
    for at, i in enumerate(indices):
        try:
            squares.append(preprocessing.of_file(read(int(i))))
        except (images.BadImage, OSError):
            continue
        good.append(at)
        if len(good) == most:
            break
    side = preprocessing.image_size
    return np.array(squares, np.uint8).reshape(-1, side, side, 3), np.array(good, np.int64)


def calibration_images(asked: Asked, bundle: Bundle, folder: str | Path | None) -> Sample:
    """Returns images to take the ranges of 8 bits from: up to `CALIBRATION_IMAGES` of a folder, classes or none.

    Args:
        asked: whose validation images are taken where there is no folder.
        bundle: whose preprocessing they go through.
        folder: images, also in folders below.

    Raises:
        UserError: there is no readable image.
    """
    if folder is None:
        return checking_images(asked, bundle, "val", CALIBRATION_IMAGES)
    names = find([str(folder)], lambda _: None)
    order = np.random.default_rng(17).permutation(len(names))
    squares, _ = readable(
        lambda i: images.read_file(names[i]), order, bundle.preprocessing, CALIBRATION_IMAGES
    )
    if not len(squares):
        raise UserError(f"--calibrate={folder}: no readable images")
    return Sample(squares, None, f"images of {folder}")
