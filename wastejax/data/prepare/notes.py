"""What a user should know of the images and of how they were split: one line each."""

from collections.abc import Sequence

import numpy as np

from wastejax.data.duplicates import exact_copies, group_duplicates, scene_groups
from wastejax.data.sources import Source
from wastejax.data.split import SPLITS, shorten

LARGE_GROUP = 0.05  # share of the set above which a group of near-duplicates is reported
_FINE = 2  # Hamming distance that is advised where a scene makes all images alike


def describe_scene(phash: np.ndarray, gray: np.ndarray, twins: np.ndarray) -> str:
    """Returns what to say where most images look alike and yet differ, with the ways out; '' elsewhere."""
    if not len(twins):
        return ""
    scenes = scene_groups(twins, exact_copies(phash, gray)[1])
    if not len(scenes):
        return ""
    count = int(np.sum(np.isin(twins, scenes)))
    finer = len(np.unique(group_duplicates(phash, gray, _FINE)))
    return (
        f"{count:,} of {len(twins):,} images look like copies of each other but differ: a fixed camera, or the "
        f"same background behind small objects? config.data.split.hamming={_FINE} is stricter ({finer:,} groups "
        "would be left), config.data.split.group='none' splits at random; or make train, val and test folders "
        "yourself, by day or place"
    )


def notes_on_dealt(
    splits: np.ndarray, dealt: Sequence[str], why: str = "the data have no such split"
) -> list[str]:
    """Tells which parts were dealt (names, with train) from the train part of splits (str [N]) that lack them."""
    taken = [f"{int(np.sum(splits == split)):,} as {split}" for split in dealt if split != "train"]
    return [f"{why}, so some training images are set aside: {' and '.join(taken)}"] if taken else []


def notes_on_split(
    source: Source, splits: np.ndarray, dealt: Sequence[str], lasting: Sequence[str]
) -> list[str]:
    """Describes the split: parts taken from train, and those of the `lasting` classes too small to split well."""
    notes = [] if source.splits is None else notes_on_dealt(splits, dealt)
    small, contents = [], source.contents
    for label, name in enumerate(source.classes):
        if name not in lasting:
            continue
        counts = [int(np.sum(splits[contents[:, label]] == split)) for split in SPLITS]
        if min(counts[1:]) == 1:
            small.append(f"{name} ({'/'.join(map(str, counts))})")
    if small:
        notes.append(
            f"classes with one image in val or test, whose scores mean little: {', '.join(shorten(small))} as "
            "train/val/test"
        )
    return notes


def notes_on_twins(source: Source, twins: np.ndarray, splits: np.ndarray) -> list[str]:
    """Describes near-duplicates (int [N] groups): how many, across classes or splits, and too large."""
    sizes = np.bincount(twins)
    repeated = np.flatnonzero(sizes > 1)
    if not len(repeated):
        return []
    count = int(sizes[repeated].sum())
    notes = [
        f"{count:,} of {len(source):,} images are near-duplicates of others, in {len(repeated):,} groups"
    ]
    across_classes = _groups_at_odds(source, twins)
    if across_classes:
        notes.append(
            f"groups of near-duplicates that span several classes (label errors?): {across_classes:,}"
        )
    held_out = np.isin(twins, twins[splits == "train"]) & (splits == "test")
    leaked = int(held_out.sum())
    if leaked:
        share = leaked / max(1, int(np.sum(splits == "test")))
        notes.append(
            f"{leaked:,} test images ({share:.0%}) have a near-duplicate in train, which flatters test "
            "accuracy; config.data.split.group='phash' on undivided folders avoids it"
        )
    large = repeated[sizes[repeated] > LARGE_GROUP * len(source)]
    if len(large):
        top = large[np.argmax(sizes[large])]
        member = source.names[int(np.argmax(twins == top))]
        notes.append(
            f"groups of near-duplicates over {LARGE_GROUP:.0%} of the set: {len(large)}, the largest of "
            f"{sizes[top]:,} images ({sizes[top] / len(source):.0%}), {member} among them"
        )
    return notes


def _groups_at_odds(source: Source, twins: np.ndarray) -> int:
    """Counts the groups (int [N]) of images whose labels cannot all be right."""
    if source.allowed is None:
        return _groups_with_several(twins, np.unique(source.label_names, return_inverse=True)[1])
    may_be = np.column_stack([source.allowed, ~source.allowed.any(axis=1)])
    order = np.argsort(twins, kind="stable")
    starts = np.flatnonzero(np.diff(twins[order], prepend=-1))
    return int(np.sum(~np.logical_and.reduceat(may_be[order], starts).any(axis=1)))


def notes_on_given(given: np.ndarray, splits: np.ndarray, by_manifest: bool) -> list[str]:
    """Tells how many groups that were given are torn apart by splits that were given too.

    Args:
        given: int [N], groups that the data or a manifest give, such as crops of one photograph.
        splits: str [N].
        by_manifest: a manifest gives the splits, and not the data.
    """
    torn = _groups_with_several(given, np.unique(splits, return_inverse=True)[1])
    if not torn:
        return []
    if by_manifest:
        who, where, todo = "the data or the manifest give", "the manifest", "write the manifest anew"
    else:
        who, where, todo = "the data give", "the data", "give the images of a group one split"
    return [
        f"groups that {who}, such as crops of one photograph, in several splits of {where}: {torn:,}; "
        f"that flatters the scores; {todo}"
    ]


def _groups_with_several(groups: np.ndarray, values: np.ndarray) -> int:
    """Counts the groups whose members differ in `values` (int [N], from 0)."""
    members, kinds = np.unique(groups, return_inverse=True)[1], int(values.max(initial=0)) + 1
    pairs = np.unique(members * kinds + values)
    return int(np.sum(np.bincount(pairs // kinds) > 1))
