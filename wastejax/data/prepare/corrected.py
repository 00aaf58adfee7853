"""What corrections of labels do to the images that are trained on, and to those of classes that are left out."""

from collections.abc import Sequence

import numpy as np

from wastejax.data.corrections import Changes
from wastejax.data.sources import Source
from wastejax.errors import ConfigError


def trained_on(source: Source, changes: Changes, leave_out: Sequence[str]) -> tuple[Source, np.ndarray]:
    """Returns the images that corrections leave to train on and to judge by, with their labels, and which they are.

    Args:
        source: N images of the classes that are not left out.
        changes: what corrections say of them.
        leave_out: classes that are left out; images that are corrected to one are not trained on.

    Returns:
        M images, and int64 [M], their places among the N.
    """
    away = {name for name, label in changes.labels.items() if label in leave_out} | changes.dropped
    if not changes.labels and not away:
        return source, np.arange(len(source))
    stay = np.array([i for i, name in enumerate(source.names) if name not in away], np.int64)
    return changes.relabeled(source).select(stay).with_shown_classes(), stay


def asked_of(source: Source, changes: Changes) -> Source:
    """Returns images as they are asked whether every class can be learned and scored: before corrections.

    In a data description a correction may be all that tells the class of an image, and counts at once.
    """
    return source if source.allowed is None else changes.relabeled(source)


def notes_on_changes(changes: Changes, leave_out: Sequence[str]) -> list[str]:
    """Tells what corrections change, as `trained_on` does it."""
    said = ", ".join(f"{count:,} {what}" for what, count in changes.counts.items())
    notes = [f"corrections of labels: {said}; they stay in their splits"]
    away = sum(label in leave_out for label in changes.labels.values())
    if away:
        notes.append(f"{away:,} images corrected to classes that are left out are not trained on")
    if changes.gone:
        notes.append(f"{changes.gone:,} corrections drop images that are not there any more")
    return notes


def held_out(source: Source, foreign: np.ndarray, leave_out: Sequence[str], changes: Changes) -> np.ndarray:
    """Returns those images of classes that are left out which are out of distribution after the corrections.

    Args:
        source: images with the labels of the data.
        foreign: int64 [M], those of the classes that are left out.
        leave_out: these classes.
        changes: what corrections say of the images.
    """
    away = {name for name, label in changes.labels.items() if label not in leave_out} | changes.dropped
    return foreign[[source.names[i] not in away for i in foreign]]


def select_held_out(
    source: Source, foreign: np.ndarray, leave_out: Sequence[str], changes: Changes, notes: list[str]
) -> Source:
    """Returns the images of `held_out` and notes the others; raises a ConfigError where there are none."""
    stay = held_out(source, foreign, leave_out, changes)
    away = {source.names[i] for i in np.setdiff1d(foreign, stay)} - changes.dropped
    if away:
        notes.append(
            f"{len(away):,} images of classes that are left out are corrected to others: they are neither trained "
            "on nor tested with"
        )
    if not len(stay):
        raise ConfigError("config.data.leave_out", "the corrections leave no image of its classes")
    return source.select(stay)
