"""What is wrong with a data set before anything is trained on it. Looks only: no file is changed."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wastejax.auditing.changed_copies import cropped_pairs, mirrored_pairs
from wastejax.data.duplicates import Scan, components, group_duplicates, scan, scene_groups
from wastejax.data.each import Each, Read, in_threads
from wastejax.data.images import Header, read_header
from wastejax.data.images.formats import ENDINGS
from wastejax.data.sources import Source
from wastejax.data.split import members_of, stratified_group_split
from wastejax.progress import Count, Counts

SMALL = 64  # shorter side, pixels, below which an image is called small
LONG = 3  # ratio of the sides above which it is called elongated
_ENDINGS = frozenset(ending for endings in ENDINGS.values() for ending in endings)
SEEDS = tuple(range(17, 22))  # of the plain random splits whose leaks are counted


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found out about N files.

    Attributes:
        source: the files.
        seen: their hashes and gray versions, and which cannot be decoded.
        headers: N; None where not even a header can be read.
        exact: int32 [N], group of files with the same bytes.
        groups: int32 [N], group of near-duplicates, also mirrored and cropped ones; unreadable files are alone.
        mirrored: int64 [P, 2], pairs that agree once one of them is mirrored left to right.
        cropped: int64 [P, 2], pairs of which the second shows a part of the first, too small a part for the hash.
        scene: int64 [S], images that look like copies of each other but differ, too many for copies: a fixed
            camera, or one ground. In `groups` only those of the same bytes are together.
        confirmed: names of the files whose labels a person has confirmed.
    """

    source: Source
    seen: Scan
    headers: list[Header | None]
    exact: np.ndarray
    groups: np.ndarray
    mirrored: np.ndarray
    cropped: np.ndarray
    scene: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    confirmed: frozenset[str] = frozenset()

    @property
    def bad(self) -> dict[int, str]:
        """Index -> reason, of the files that cannot be decoded."""
        return self.seen.bad

    @property
    def good(self) -> np.ndarray:
        """int64 [M], the readable files."""
        return self.seen.good

    def groups_of_several(self) -> list[np.ndarray]:
        """Returns the members (int64) of each group of near-duplicates, the largest first."""
        return _several(self.groups)

    def conflicts(self) -> list[np.ndarray]:
        """Returns those groups whose members have different labels, the smallest, hence clearest, first.

        Where a person has confirmed the labels of all of them, they are none.
        """
        labels, names = self.source.labels, self.source.names
        return [
            g
            for g in self.groups_of_several()[::-1]
            if len(np.unique(labels[g])) > 1 and not self.confirmed.issuperset(names[i] for i in g)
        ]


class LabelError(NamedTuple):
    """An image that a model, trained without it, confidently gives another class.

    Attributes:
        image: index in the source.
        suggested: label, index into the source's classes.
        own: probability of the label it has.
        other: probability of the suggested one.
    """

    image: int
    suggested: int
    own: float
    other: float


def audit(
    source: Source,
    cache_dir: Path | None = None,
    hamming: int = 8,
    progress: Counts = lambda what, done, total: None,
    each: Each = in_threads,
) -> Audit:
    """Reads every file and compares all images with each other.

    Args:
        source: N files.
        cache_dir: where hashes are kept, see `duplicates.scan`.
        hamming: largest number of differing bits of two hashes whose images are compared.
        progress: is told how far it is.
        each: where files are read; they are compared here.
    """
    seen = scan(source, cache_dir, lambda done, total: progress("decoding", done, total), each)
    headers, exact = _read_headers(source, lambda done, total: progress("reading headers", done, total), each)
    good = seen.good
    gray = seen.gray[good]
    progress("comparing", 0, 3)
    twins = group_duplicates(seen.phash[good], gray, hamming)
    progress("comparing", 1, 3)
    mirrored = mirrored_pairs(gray, twins, hamming)
    progress("comparing", 2, 3)
    cropped = cropped_pairs(gray, twins, hamming)
    progress("comparing", 3, 3)

    groups = np.arange(len(source), dtype=np.int32)
    groups[good] = good[_first_of(twins)]
    mirrored, cropped = good[mirrored], good[cropped]
    groups = _merged(groups, np.concatenate([mirrored, cropped]))
    scene = good[np.isin(groups[good], scene_groups(groups[good], exact[good]))]
    groups[scene] = len(source) + _first_of(exact)[scene]  # unlike any other group
    mirrored, cropped = (p[~np.isin(p, scene).all(axis=1)] for p in (mirrored, cropped))
    return Audit(source, seen, headers, exact, groups, mirrored, cropped, scene)


def summary(
    found: Audit, splits: Sequence[str] | np.ndarray | None = None, errors: Iterable[LabelError] | None = None
) -> dict[str, Any]:
    """Returns everything as JSON-ready numbers and file names.

    Args:
        found: by `audit`.
        splits: 'train', 'val' or 'test' per file, '' for none, whose leaks are counted; None where there are none.
        errors: likely label errors; None where no model was asked.
    """
    source, good = found.source, found.good
    several = found.groups_of_several()
    copies = _several(found.exact)
    return {
        "num_files": len(source),
        "num_readable": len(good),
        "num_classes": len(source.classes),
        "num_distinct": len(np.unique(found.groups[good])),
        "unreadable": {source.names[i]: reason for i, reason in sorted(found.bad.items())},
        "files": _describe_files(found),
        "classes": _describe_classes(found),
        "domains": dict(sorted(Counter(name or "unknown" for name in source.domains).items())),
        "notes": list(source.notes),
        "fixed_camera": _names(source, found.scene),
        "empty_folders": list(source.empty_folders),
        "exact_copies": {
            "num_images": sum(map(len, copies)),
            "num_groups": len(copies),
            "groups": [_names(source, group) for group in copies],
        },
        "near_duplicates": {
            "num_images": sum(map(len, several)),
            "num_groups": len(several),
            "num_to_drop": sum(map(len, several)) - len(several),
            "largest": max(map(len, several), default=1),
            "groups": [_names(source, group) for group in several],
        },
        "mirrored": [_names(source, pair) for pair in found.mirrored],
        "cropped": [_names(source, pair) for pair in found.cropped],
        "label_conflicts": [
            {"files": _names(source, g), "labels": [source.classes[label] for label in source.labels[g]]}
            for g in found.conflicts()
        ],
        "leaks": {
            "given_splits": None if splits is None else leaks(found.groups, np.asarray(splits)),
            "random_split": random_leaks(found),
        },
        "label_errors": None if errors is None else [_describe_error(source, error) for error in errors],
    }


def _describe_error(source: Source, error: LabelError) -> dict[str, Any]:
    return {
        "file": source.names[error.image],
        "label": source.classes[source.labels[error.image]],
        "suggested": source.classes[error.suggested],
        "p_label": round(error.own, 4),
        "p_suggested": round(error.other, 4),
    }


def leaks(groups: np.ndarray, splits: np.ndarray) -> dict[str, dict[str, int]]:
    """Counts, for val and test, the images that have a near-duplicate in train.

    Args:
        groups: int [N].
        splits: str [N].
    """
    seen = np.isin(groups, groups[splits == "train"])
    return {
        name: {"num_images": int(np.sum(splits == name)), "leaked": int(np.sum(seen & (splits == name)))}
        for name in ("val", "test")
    }


def random_leaks(found: Audit, ratios: Sequence[float] = (3, 1, 1)) -> dict[str, Any]:
    """Splits plainly at random, stratified, as the study did, and counts leaks into the test images.

    Returns:
        {'ratios', 'seeds', 'test_images', 'leaked', 'share'}, means over the seeds.
    """
    good = found.good
    labels, groups = found.source.labels[good], found.groups[good]
    domains = [found.source.domains[i] for i in good]
    counts = []
    for seed in SEEDS if len(good) else ():
        splits = stratified_group_split(labels, domains, np.arange(len(good)), ratios, seed)
        test = leaks(groups, splits)["test"]
        counts.append((test["num_images"], test["leaked"]))
    images, leaked = np.mean(counts, axis=0) if counts else (0, 0)
    return {
        "ratios": list(ratios),
        "seeds": list(SEEDS),
        "test_images": float(images),
        "leaked": float(leaked),
        "share": float(leaked / max(images, 1)),
    }


def clean(found: Audit, among: np.ndarray | None = None) -> np.ndarray:
    """Returns int64 [K], what is left without trouble, in order, of some files (bool [N]) or of all.

    Left out are unreadable files; all but one of each group of near-duplicates, the one with most pixels; and whole
    groups with conflicting labels, since nobody knows which is right; where a person has confirmed them, one of
    each label stays. Likely label errors stay: most of them are merely hard, and a test without its hard images
    flatters. They are for a person to look at.
    """
    doubtful = set(found.bad)
    for group in found.conflicts():
        doubtful |= set(group.tolist())
    candidates = range(len(found.source)) if among is None else np.flatnonzero(among).tolist()
    best: dict[tuple[int, int], int] = {}
    for i in sorted(set(candidates) - doubtful, key=lambda i: (-_pixels(found.headers[i]), i)):
        best.setdefault((int(found.groups[i]), int(found.source.labels[i])), i)
    return np.array(sorted(best.values()), np.int64)


def _read_headers(source: Source, progress: Count, each: Each) -> tuple[list[Header | None], np.ndarray]:
    """Returns the header of each file, and int32 [N], groups of files with the same bytes."""
    found: list[tuple[Header | None, bytes]] = []
    for one in each(_header, source.read, range(len(source))):
        found.append(one)
        progress(len(found), len(source))
    first: dict[bytes, int] = {}
    return [h for h, _ in found], np.array([first.setdefault(d, len(first)) for _, d in found], np.int32)


def _header(read: Read, index: int) -> tuple[Header | None, bytes]:
    """Returns the header of a file and a digest of its bytes."""
    try:
        data = read(index)
    except OSError:
        return None, index.to_bytes(8, "big")  # unlike any digest: that has 16 bytes
    return read_header(data), hashlib.blake2b(data, digest_size=16).digest()


def _first_of(groups: np.ndarray) -> np.ndarray:
    """Returns int64 [N], for each item the first of its group."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return first[inverse]


def _merged(groups: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Returns int32 [N], the groups (int [N], below N) after joining those of each pair (int [P, 2])."""
    a = np.concatenate([np.arange(len(groups)), pairs[:, 0]])
    b = np.concatenate([groups, groups[pairs[:, 1]]])
    return components(a, b, len(groups)).astype(np.int32)


def _several(groups: np.ndarray) -> list[np.ndarray]:
    """Returns the members of each group of more than one, the largest first."""
    several = [part for part in members_of(groups) if len(part) > 1]
    return sorted(several, key=lambda part: (-len(part), part[0]))


def _names(source: Source, indices: Iterable[int]) -> list[str]:
    return [source.names[i] for i in indices]


def _pixels(header: Header | None) -> int:
    return header.width * header.height if header else 0


def _describe_files(found: Audit) -> dict[str, Any]:
    """Counts formats, modes and sizes, and names what is unusual."""
    named = [(found.source.names[i], h) for i, h in enumerate(found.headers) if h and i not in found.bad]
    odd: dict[str, list[str]] = {}
    for name, header in named:
        for what in _oddities(name, header):
            odd.setdefault(what, []).append(name)
    sizes = Counter(f"{h.width}x{h.height}" for _, h in named)
    sides = [min(h.width, h.height) for _, h in named]
    return {
        "formats": dict(Counter(h.format for _, h in named).most_common()),
        "modes": dict(Counter(h.mode for _, h in named).most_common()),
        "num_sizes": len(sizes),
        "commonest_sizes": dict(sizes.most_common(10)),
        "shorter_side": {"smallest": min(sides, default=0), "largest": max(sides, default=0)},
        "odd": dict(sorted(odd.items())),
    }


def _oddities(name: str, header: Header) -> list[str]:
    short, long = sorted((header.width, header.height))
    ending = Path(name).suffix.lower()
    # Crops (`a.jpg#0`) and images in tables have names, and no ending that says what they are.
    misnamed = ending in _ENDINGS and ending not in ENDINGS.get(header.format, (ending,))
    checks = {
        f"mode {header.mode}": header.mode != "RGB",
        "turned by EXIF": header.rotated,
        "animated": header.animated,
        f"small, a side under {SMALL} px": short < SMALL,
        f"elongated, sides over {LONG}:1": long > LONG * short,
        f"{header.format} named {ending}": misnamed,
    }
    return [what for what, true in checks.items() if true]


def _describe_classes(found: Audit) -> dict[str, Any]:
    """Counts each class: files, readable ones, distinct ones, and by domain."""
    source, good = found.source, found.good
    domains = np.array([name or "unknown" for name in source.domains])
    by_name: dict[str, dict[str, Any]] = {}
    for label, name in enumerate(source.classes):
        mine = good[source.labels[good] == label]
        by_name[name] = {
            "num_files": int(np.sum(source.labels == label)),
            "num_readable": len(mine),
            "num_distinct": len(np.unique(found.groups[mine])),
            "domains": {str(d): int(np.sum(domains[mine] == d)) for d in np.unique(domains[mine])},
        }
    counts = [c["num_readable"] for c in by_name.values()]
    return {
        "by_name": by_name,
        "smallest": min(counts, default=0),
        "largest": max(counts, default=0),
        "imbalance": max(counts, default=0) / max(min(counts, default=0), 1),
    }
