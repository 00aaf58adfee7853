"""Pairs of 64-bit hashes that differ in few bits: all of them, without comparing everything with everything."""

from collections.abc import Iterator
from itertools import combinations
from math import comb

import numpy as np

BITS = 64
_AT_ONCE = 1 << 21  # candidates compared in one step: some 50 MB of temporary arrays
_LONG = 64  # candidates of one hash, from which on it pays to look up where those of its own group lie
# Nanoseconds of a pair compared, of a candidate, of a look-up and of a step, about as measured; they only choose
# between ways of finding the same pairs.
_PAIR, _CANDIDATE, _LOOK_UP, _STEP = 3.7, 8.0, 30.0, 2e5


def near_pairs(
    a: np.ndarray, b: np.ndarray | None = None, hamming: int = 8, groups: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Yields the pairs of hashes that differ in at most `hamming` bits, each once, in no particular order.

    Many hashes are cut into parts: two that differ in few bits differ in very few of some part (multi-index
    hashing: Norouzi, Punjani and Fleet 2012, proposition 1), so that only hashes whose parts are nearly equal
    are compared. Time grows about linearly with the number of hashes where near ones are rare. Where they are not,
    as among the images of a fixed camera, `groups` leaves out what is known already before it is compared.

    Args:
        a: uint64 [N].
        b: uint64 [M]; None for the pairs within `a`.
        hamming: largest number of differing bits.
        groups: int [N], from 0; only pairs i, j of different groups count. `b` has to be as long as `a`.

    Yields:
        int64 [P, 2], i and j for which a[i] and b[j] are near; within `a` alone, i < j.
    """
    within = b is None
    others = a if b is None else b
    if not len(a) or not len(others):
        return
    parts = _best_parts(len(a), len(others), hamming)
    if parts:
        yield from _by_parts(a, others, hamming, parts, groups)
        return
    for pairs in _by_comparing(a, others, hamming, groups):
        yield pairs[pairs[:, 0] < pairs[:, 1]] if within else pairs


def radii(hamming: int, parts: int) -> list[int]:
    """Returns how many bits two hashes may differ in one of `parts` parts, or none of them is near.

    With `hamming` = q * parts + r, some of the first r + 1 parts differs in at most q bits or some other in at most
    q - 1: otherwise they differ in more than `hamming` bits together. A part of radius -1 need not be looked at.
    """
    q, r = divmod(hamming, parts)
    return [q if part <= r else q - 1 for part in range(parts)]


def _best_parts(n: int, m: int, hamming: int) -> int:
    """Returns into how many parts to cut hashes, 0 where comparing all pairs takes no longer."""
    costs = {0: _PAIR * n * m}
    for parts in range(2, 9):
        widths = [len(part) for part in np.array_split(np.arange(BITS), parts)]
        if max(widths) > 24:  # tables of 16 million entries at most
            continue
        costs[parts] = sum(
            sum(comb(width, bits) for bits in range(radius + 1))
            * (_STEP + n * (_LOOK_UP + _CANDIDATE * m / 2**width))
            for width, radius in zip(widths, radii(hamming, parts), strict=True)
        )
    return min(costs, key=lambda parts: costs[parts])


def _masks(width: int, radius: int) -> list[int]:
    """Returns every way in which parts of `width` bits differ in at most `radius` of them."""
    chosen = (bits for count in range(radius + 1) for bits in combinations(range(width), count))
    return [sum(1 << bit for bit in bits) for bits in chosen]


def _by_comparing(
    a: np.ndarray, b: np.ndarray, hamming: int, groups: np.ndarray | None
) -> Iterator[np.ndarray]:
    chunk = max(1, _AT_ONCE // len(b))
    for start in range(0, len(a), chunk):
        near = np.bitwise_count(a[start : start + chunk, None] ^ b) <= hamming
        if groups is not None:
            near &= groups[start : start + chunk, None] != groups
        i, j = np.nonzero(near)
        yield np.stack([i + start, j], 1)


def _by_parts(
    a: np.ndarray, b: np.ndarray, hamming: int, parts: int, groups: np.ndarray | None
) -> Iterator[np.ndarray]:
    within = a is b
    widths = [len(part) for part in np.array_split(np.arange(BITS), parts)]
    shifts = np.concatenate([[0], np.cumsum(widths)[:-1]]).tolist()
    limits = radii(hamming, parts)
    for part, (width, shift, radius) in enumerate(zip(widths, shifts, limits, strict=True)):
        if radius < 0:
            continue
        mine = _Sorted(a, shift, width, groups)
        theirs = mine if within else _Sorted(b, shift, width, groups)
        starts = np.searchsorted(theirs.parts, np.arange(2**width + 1, dtype=np.uint32)).astype(np.int64)
        for mask in _masks(width, radius):
            if within and mask:
                # The pair of parts (x, x ^ mask) is also (x ^ mask, x): once is enough.
                rows = np.flatnonzero(mine.parts >> np.uint32(mask.bit_length() - 1) & np.uint32(1) == 0)
            else:
                rows = np.arange(len(mine.parts))
            wanted = mine.parts[rows] ^ np.uint32(mask)
            low, high = starts[wanted], starts[wanted + np.uint32(1)]
            if within and not mask:
                low = rows + 1  # those after it in its own bucket
            if groups is not None:
                rows, low, high = theirs.without_own(rows, wanted, mine.groups[rows], low, high)
            filled = high > low
            for i, j in _candidates(rows[filled], low[filled], (high - low)[filled]):
                differing = mine.hashes[i] ^ theirs.hashes[j]
                near = np.bitwise_count(differing) <= hamming
                if groups is not None:
                    near &= mine.groups[i] != theirs.groups[j]
                i, j, differing = i[near], j[near], differing[near]
                new = ~_found_before(differing, part, widths, shifts, limits)
                pairs = np.stack([mine.order[i[new]], theirs.order[j[new]]], 1)
                yield np.sort(pairs, axis=1) if within else pairs


class _Sorted:
    """Hashes, uint64 [N], sorted by one of their parts, and where that is the same, by their groups."""

    def __init__(self, hashes: np.ndarray, shift: int, width: int, groups: np.ndarray | None):
        parts = (hashes >> np.uint64(shift) & np.uint64(2**width - 1)).astype(np.uint32)
        self.order = np.argsort(parts, kind="stable") if groups is None else np.lexsort((groups, parts))
        self.parts, self.hashes = parts[self.order], hashes[self.order]
        # Int64 [N], or empty.
        self.groups = np.empty(0, np.int64) if groups is None else groups[self.order].astype(np.int64)

    def without_own(
        self, rows: np.ndarray, parts: np.ndarray, groups: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cuts what is of a row's own group out of a long range of positions here; returns rows and ranges.

        Args:
            rows: int64 [R], what each range belongs to.
            parts: uint32 [R], the part that all of a range have.
            groups: int64 [R], the groups of the rows.
            low: int64 [R], first position of the ranges.
            high: int64 [R], the one after the last.
        """
        long = high - low > _LONG
        if not long.any():
            return rows, low, high
        keys = self.parts.astype(np.int64) << 32 | self.groups
        own = parts[long].astype(np.int64) << 32 | groups[long]
        start = np.maximum(np.searchsorted(keys, own), low[long])
        stop = np.maximum(np.searchsorted(keys, own, side="right"), low[long])
        return (
            np.concatenate([rows[~long], rows[long], rows[long]]),
            np.concatenate([low[~long], low[long], stop]),
            np.concatenate([high[~long], start, high[long]]),
        )


def _candidates(
    rows: np.ndarray, low: np.ndarray, counts: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields i and j (int64 [C]): each row with the `counts` positions from `low` on, a bounded number at once."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(rows):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _AT_ONCE, side="right")))
        part = slice(start, stop)
        total = int(ends[stop - 1] - before)
        first = ends[part] - counts[part] - before
        yield (
            np.repeat(rows[part], counts[part]),
            np.arange(total) + np.repeat(low[part] - first, counts[part]),
        )
        start = stop


def _found_before(
    differing: np.ndarray, part: int, widths: list[int], shifts: list[int], limits: list[int]
) -> np.ndarray:
    """Returns bool [P]: an earlier part has given this pair already."""
    found = np.zeros(len(differing), bool)
    for width, shift, limit in zip(widths[:part], shifts[:part], limits[:part], strict=True):
        found |= np.bitwise_count(differing >> np.uint64(shift) & np.uint64(2**width - 1)) <= limit
    return found
