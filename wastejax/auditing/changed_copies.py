"""Copies that a perceptual hash alone misses: mirrored, and cropped by about a tenth."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from wastejax.data.duplicates.comparing import agreements, map_in_threads
from wastejax.data.duplicates.hamming import near_pairs

# Smallest `agreement` of mirrored and cropped copies. Looking for them tries many more pairs than looking for plain
# copies, and so meets more look-alikes: of the pairs found in TrashNet and the household waste set those above 0.8
# showed the same thing, those below mostly did not, while 95 % of planted crops agree by more.
MIN_CHANGED_AGREEMENT = 0.8
_ROWS_AT_ONCE = 4096  # images that are hashed in one step
WINDOWS = (0.94, 0.88)  # sides of the windows that a cropped copy may show, relative to the image


def mirrored_pairs(gray: np.ndarray, groups: np.ndarray, hamming: int) -> np.ndarray:
    """Returns int64 [P, 2], pairs i < j from different groups of which one looks like the other mirrored.

    Args:
        gray: uint8 [N, g, g], small gray images.
        groups: int [N].
        hamming: largest number of differing bits of two hashes whose images are compared.
    """
    mirror = gray[:, :, ::-1]
    near = near_pairs(_hashes(gray), _hashes(mirror), hamming, groups)
    pairs = np.concatenate(
        [np.empty((0, 2), np.int64), *(found[found[:, 0] < found[:, 1]] for found in near)]
    )
    return pairs[agreements(gray, mirror, pairs) >= MIN_CHANGED_AGREEMENT]


def cropped_pairs(gray: np.ndarray, groups: np.ndarray, hamming: int) -> np.ndarray:
    """Returns int64 [P, 2], pairs from different groups of which the second looks like a window of the first.

    A crop of a tenth changes a perceptual hash beyond recognition, so that each image is also hashed through nine
    windows of two sizes. Arguments as for `mirrored_pairs`.
    """
    n, g, whole = len(gray), gray.shape[-1], _hashes(gray)

    def through(window: tuple[int, int, int]) -> np.ndarray:
        y, x, side = window
        windows = _hashes(gray[:, y : y + side, x : x + side])
        near = (pairs @ [n, 1] for pairs in near_pairs(windows, whole, hamming, groups))
        return np.unique(np.concatenate([np.empty(0, np.int64), *near]))

    found = np.empty(0, np.int64)  # pairs i, j as i * n + j; most are found through several windows
    for pairs in map_in_threads(through, _windows(g)):
        found = np.union1d(found, pairs)
    pairs = np.stack(np.divmod(found, n), 1)
    return pairs[agreements(gray, gray, pairs) >= MIN_CHANGED_AGREEMENT]


def _windows(g: int) -> Iterator[tuple[int, int, int]]:
    """Yields upper edge, left edge and side of each window that a cropped copy may show, pixels of `g`."""
    for side in (round(g * share) for share in WINDOWS):
        for y, x in product((0, (g - side) // 2, g - side), repeat=2):
            yield y, x, side


def _hashes(gray: np.ndarray) -> np.ndarray:
    """Returns uint64 [N], pHash (as `imagehash.phash`) of small gray images (uint8 [N, g, g])."""
    g = gray.shape[-1]
    waves = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(g) + 1) / (2 * g)).astype(np.float32)
    found = np.empty(len(gray), np.uint64)
    for start in range(0, len(gray), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        low = (waves @ gray[rows].astype(np.float32) @ waves.T).reshape(-1, 64)
        bits = low > np.median(low, axis=1, keepdims=True)
        found[rows] = np.packbits(bits, axis=1).view(">u8")[:, 0]
    return found
