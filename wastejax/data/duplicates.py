"""Near-duplicate pictures: one pass over the files, perceptual hashes, and groups of the same picture."""

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from wastejax.data.images import BadImage, decode
from wastejax.data.sources import Source

GREY = 16  # side of the small grey versions, pixels
MAX_DIFFERENCE = 0.35  # of two small grey versions, see `grey_difference`
_CACHE_FILE = "scan-v1.npz"  # count up when what is computed per picture changes
_DECODE_SIDE = 256  # JPEGs may be decoded down to this, in their own steps of two


class Scan(NamedTuple):
    """What one pass over N pictures found out.

    Attributes:
        phash: uint64 [N], 64-bit perceptual hash (0 for unreadable files).
        grey: uint8 [N, GREY, GREY], small grey version.
        bad: index -> reason, of the files that cannot be decoded.
    """

    phash: np.ndarray
    grey: np.ndarray
    bad: dict[int, str]


def scan(
    source: Source, cache_dir: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Scan:
    """Decodes every picture once; what was seen before under the same name and stamp comes from the cache.

    Args:
        source: N pictures.
        cache_dir: where the cache is kept; None for no cache. Unreadable files are never cached.
        progress: called with (pictures done, pictures to read) as reading goes on, if any must be read.
    """
    phash = np.zeros(len(source), np.uint64)
    grey = np.zeros((len(source), GREY, GREY), np.uint8)
    keys = _cache_keys(source)
    cached_keys, cached_phash, cached_grey = _load_cache(cache_dir)
    row = {key: i for i, key in enumerate(cached_keys.tolist())}
    known = np.array([row.get(key, -1) for key in keys.tolist()], np.int64)
    hit = known >= 0
    phash[hit], grey[hit] = cached_phash[known[hit]], cached_grey[known[hit]]

    bad: dict[int, str] = {}
    todo = np.flatnonzero(~hit).tolist()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # PIL decodes outside the interpreter lock
        for done, (i, result) in enumerate(
            zip(todo, pool.map(lambda i: _look(source, i), todo), strict=True), 1
        ):
            if isinstance(result, str):
                bad[i] = result
            else:
                phash[i], grey[i] = result
            if progress is not None:
                progress(done, len(todo))
    fresh = np.array([i for i in todo if i not in bad], np.int64)
    if cache_dir is not None and len(fresh):
        _save_cache(
            cache_dir,
            np.concatenate([cached_keys, keys[fresh]]),
            np.concatenate([cached_phash, phash[fresh]]),
            np.concatenate([cached_grey, grey[fresh]]),
        )
    return Scan(phash, grey, bad)


def group_duplicates(phash: np.ndarray, grey: np.ndarray, hamming: int = 8) -> np.ndarray:
    """Groups pictures that are near-duplicates of each other, directly or over others.

    Two pictures are near-duplicates where their hashes differ in at most `hamming` of 64 bits and their small
    grey versions agree (`grey_difference` at most `MAX_DIFFERENCE`): hashes alone also join plain drawings.

    Args:
        phash: uint64 [N].
        grey: uint8 [N, g, g].
        hamming: largest number of differing bits; below 0 nothing is grouped.

    Returns:
        int32 [N], group ids from 0, in order of first appearance.
    """
    pairs = near_pairs(phash, hamming)
    pairs = pairs[grey_difference(grey[pairs[:, 0]], grey[pairs[:, 1]]) <= MAX_DIFFERENCE]
    n = len(phash)
    edges = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, groups = connected_components(edges, directed=False)
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int32)


def near_pairs(phash: np.ndarray, hamming: int, chunk: int = 512) -> np.ndarray:
    """Returns int64 [P, 2], the pairs i < j whose hashes (uint64 [N]) differ in at most `hamming` bits."""
    pairs = [np.empty((0, 2), np.int64)]
    for start in range(0, len(phash), chunk):
        block = phash[start : start + chunk]
        distance = np.bitwise_count(block[:, None] ^ phash[None, start:])
        i, j = np.nonzero(distance <= hamming)
        pairs.append(np.stack([i, j], 1)[i < j] + start)
    return np.concatenate(pairs)


def grey_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns float32 [P], how far small grey pictures (uint8 [P, g, g]) are apart: sqrt(1 - correlation)."""
    a, b = (_standardise(x) for x in (a, b))
    return np.sqrt(np.maximum(0, 1 - np.einsum("pk,pk->p", a, b)))


def _standardise(grey: np.ndarray) -> np.ndarray:
    x = grey.reshape(len(grey), -1).astype(np.float32)
    x = x - x.mean(1, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def _look(source: Source, index: int) -> tuple[np.uint64, np.ndarray] | str:
    """Returns hash and small grey version of one picture, or why it cannot be read."""
    try:
        image = decode(source.read(index), min_side=_DECODE_SIDE)
    except BadImage as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    bits = imagehash.phash(image).hash.ravel()
    small = image.convert("L").resize((GREY, GREY), Image.Resampling.BOX)
    return np.packbits(bits).view(">u8")[0], np.asarray(small)


def _cache_keys(source: Source) -> np.ndarray:
    """Returns bytes [N]: digests of name and stamp."""
    texts = (f"{name}\n{stamp}" for name, stamp in zip(source.names, source.stamps, strict=True))
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(digests, "V16")


def _load_cache(cache_dir: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        if cache_dir is not None:
            with np.load(Path(cache_dir) / _CACHE_FILE) as cache:
                return cache["keys"], cache["phash"], cache["grey"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there yet, or damaged: it is only a cache
    return np.empty(0, "V16"), np.empty(0, np.uint64), np.empty((0, GREY, GREY), np.uint8)


def _save_cache(cache_dir: Path, keys: np.ndarray, phash: np.ndarray, grey: np.ndarray) -> None:
    """Replaces the cache in one step, so that a run that is killed leaves the old one."""
    Path(cache_dir).mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache_dir, suffix=".tmp", delete=False) as file:
        np.savez(file, keys=keys, phash=phash, grey=grey)
    Path(file.name).replace(Path(cache_dir) / _CACHE_FILE)
