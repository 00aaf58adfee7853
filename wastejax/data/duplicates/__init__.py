"""Near-duplicate images: one pass over the files, perceptual hashes, and groups of the same image."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from wastejax.data.duplicates.comparing import agreements
from wastejax.data.duplicates.hamming import near_pairs
from wastejax.data.duplicates.scan_cache import Look, ScanCache
from wastejax.data.each import Each, Read, in_threads
from wastejax.data.formats.source import Source
from wastejax.data.images import VERSION, BadImage, decode
from wastejax.progress import Count

GRAY = 32  # side of the small gray versions, pixels
# Smallest `agreement` of near-duplicates, found by looking at the pairs with near hashes in TrashNet and the
# household waste set: above 0.8 nearly all are one image, below 0.55 few (cropped by more than is searched), and
# between lie near-duplicates with another banner and look-alikes. A missed near-duplicate leaks into the
# test set while a look-alike in the group does no harm, so the limit is on the low side.
MIN_AGREEMENT = 0.65
_ROWS_AT_ONCE = 4096  # images whose gray versions are summed or compared in one step
SCENE_SHARE, SCENE_SIZE = 0.3, 10  # of a set, from which on a group of differing images is a scene
_CACHE_FILE = f"scan-v3.{VERSION}.sqlite"  # count up when what is computed per image changes
_DECODE_SIDE = 256  # JPEGs may be decoded down to this, in their own steps of two


class Scan(NamedTuple):
    """What one pass over N images found out.

    Attributes:
        phash: uint64 [N], 64-bit perceptual hash (0 for unreadable files).
        gray: uint8 [N, GRAY, GRAY], small gray version.
        bad: index -> reason, of the files that cannot be decoded.
    """

    phash: np.ndarray
    gray: np.ndarray
    bad: dict[int, str]

    @property
    def good(self) -> np.ndarray:
        """int64 [M], the readable files."""
        return np.setdiff1d(np.arange(len(self.phash)), list(self.bad)).astype(np.int64)


def scan(
    source: Source, cache_dir: Path | None = None, progress: Count | None = None, each: Each = in_threads
) -> Scan:
    """Decodes every image once; what was seen before under the same name and stamp comes from the cache.

    Args:
        source: N images.
        cache_dir: where the cache is kept; None for no cache. Unreadable files are never cached.
        progress: called with (images done, images to read) as reading goes on, if any must be read.
        each: where images are read.
    """
    phash = np.zeros(len(source), np.uint64)
    gray = np.zeros((len(source), GRAY, GRAY), np.uint8)
    known = np.zeros(len(source), bool)
    cache = ScanCache(None if cache_dir is None else Path(cache_dir) / _CACHE_FILE)
    for part in _parts(len(source)):
        keys = [_cache_key(source, i) for i in part]
        place = dict(zip(keys, part, strict=True))
        for key, of_image, small in cache.find(keys):
            i = place[key]
            phash[i], gray[i], known[i] = of_image, small.reshape(GRAY, GRAY), True

    bad: dict[int, str] = {}
    todo = np.flatnonzero(~known)
    try:
        # In parts: what is done is kept although the rest is not.
        for part in _parts(len(todo)):
            fresh = []
            indices = todo[part.start : part.stop].tolist()
            looks = each(_look, source.read, indices)
            for done, (i, look) in enumerate(zip(indices, looks, strict=True), part.start + 1):
                if isinstance(look, str):
                    bad[i] = look
                else:
                    phash[i], gray[i] = look
                    fresh.append(Look(_cache_key(source, i), phash[i], gray[i]))
                if progress is not None:
                    progress(done, len(todo))
            cache.add(fresh)
    finally:
        cache.close()
    return Scan(phash, gray, bad)


def _parts(count: int) -> Iterator[range]:
    return (range(start, min(start + _ROWS_AT_ONCE, count)) for start in range(0, count, _ROWS_AT_ONCE))


def group_duplicates(phash: np.ndarray, gray: np.ndarray, hamming: int = 8) -> np.ndarray:
    """Groups images that are near-duplicates of each other, directly or over others.

    Two images are near-duplicates where their hashes differ in at most `hamming` of 64 bits and their small
    gray versions agree (`agreement` at least `MIN_AGREEMENT`): hashes alone also join plain drawings, and
    objects of one shape on a white ground.

    Args:
        phash: uint64 [N].
        gray: uint8 [N, g, g].
        hamming: largest number of differing bits.

    Returns:
        int32 [N], group ids from 0, in order of first appearance.
    """
    if not len(phash):
        return np.empty(0, np.int32)
    first, inverse = exact_copies(phash, gray)  # a hundred copies of one image are 4,950 pairs
    phash, gray = phash[first], gray[first]
    # What neighbors show already spares most pairs where many images look alike, as those of a fixed camera do.
    groups = _joined(np.arange(len(phash)), _neighbors(phash, hamming), gray)
    for pairs in _gathered(near_pairs(phash, hamming=hamming, groups=groups), max(4096, len(phash) // 8)):
        groups = _joined(groups, pairs, gray)
    return _in_order(groups[inverse])


def exact_copies(phash: np.ndarray, gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns int64 [M], one image of each look (hash and gray version), and int64 [N], which of them each is.

    Images are sorted by a sum of their grays that fits 64 bits, and neighbors compared, so that memory stays that
    of a few numbers an image.
    """
    factors = np.random.default_rng(0).integers(2**64, size=gray[0].size, dtype=np.uint64)
    sums = phash.copy()
    for start in range(0, len(gray), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        sums[rows] += gray[rows].reshape(-1, len(factors)).astype(np.uint64) @ factors
    order = np.argsort(sums, kind="stable")
    new = np.ones(len(order), bool)
    candidates = np.flatnonzero(sums[order[1:]] == sums[order[:-1]]) + 1
    for start in range(0, len(candidates), _ROWS_AT_ONCE):
        at = candidates[start : start + _ROWS_AT_ONCE]
        i, j = order[at - 1], order[at]
        new[at] = (phash[i] != phash[j]) | (gray[i] != gray[j]).any((1, 2))
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.cumsum(new) - 1
    return order[new], inverse


def joined_groups(groups: np.ndarray, given: Sequence[str] | None) -> np.ndarray:
    """Returns groups in which images also stay together where they were given the same group.

    Args:
        groups: int [N], from `group_duplicates`.
        given: per image the name of a group that it belongs to, '' for none; None where no image has any.

    Returns:
        int32 [N], group ids from 0, in order of first appearance; `groups` itself where none is given.
    """
    if given is None:
        return groups
    names, index = np.unique(np.array([*given, ""]), return_inverse=True)
    count, index = int(groups.max(initial=-1)) + 1, index[:-1]
    named = np.array([name != "" for name in names])[index]
    return _in_order(components(groups[named], count + index[named], count + len(names))[groups])


def components(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """Returns int32 [N], the groups of `count` items, from 0, of which each a[i] and b[i] (int [P]) are in one."""
    edges = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    return connected_components(edges, directed=False)[1]


def _in_order(groups: np.ndarray) -> np.ndarray:
    """Returns groups, int32 [N], numbered from 0 in the order in which they first appear."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int32)


def scene_groups(groups: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """Returns the groups that are one scene rather than one image: large, and of images that differ.

    A fixed camera in front of one ground makes small objects look like copies of each other.

    Args:
        groups: int [N], of near-duplicates.
        looks: int [N], the same number for images that are the same.

    Returns:
        int64 [G], ids of such groups, the largest first.
    """
    sizes = np.bincount(groups)
    distinct = np.bincount(np.unique(np.stack([groups, looks]), axis=1)[0])
    found = np.flatnonzero((sizes >= max(SCENE_SIZE, SCENE_SHARE * len(groups))) & (2 * distinct >= sizes))
    return found[np.argsort(-sizes[found], kind="stable")]


def _neighbors(phash: np.ndarray, hamming: int) -> np.ndarray:
    """Returns int64 [P, 2], pairs i < j of near hashes (uint64 [N]) that are neighbors in one of four orders."""
    found = [np.empty((0, 2), np.int64)]
    for bits in np.arange(0, 64, 16, dtype=np.uint64):
        order = np.argsort(phash << bits | phash >> np.uint64(64 - bits) if bits else phash)
        near = np.bitwise_count(phash[order[1:]] ^ phash[order[:-1]]) <= hamming
        found.append(np.sort(np.stack([order[:-1][near], order[1:][near]], 1), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _gathered(found: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Yields pairs (int64 [P, 2]), at least so many at once but for the last."""
    parts: list[np.ndarray] = []
    for pairs in found:
        parts.append(pairs)
        if sum(map(len, parts)) >= count:
            yield np.concatenate(parts)
            parts = []
    if parts:
        yield np.concatenate(parts)


def _joined(groups: np.ndarray, pairs: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """Joins groups (int [N], from 0) where images (uint8 [N, g, g]) of a pair (int64 [P, 2]) agree.

    A pair whose images are in one group already is not compared.
    """
    step = max(4096, len(groups) // 8)
    while len(pairs := pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]]):
        some = pairs[:step]
        a, b = groups[some[agreements(gray, gray, some) >= MIN_AGREEMENT]].T
        groups = components(a, b, int(groups.max()) + 1)[groups]
        pairs = pairs[step:]
    return groups


def _look(read: Read, index: int) -> tuple[np.uint64, np.ndarray] | str:
    """Returns hash and small gray version of one image, or why it cannot be read."""
    try:
        image = decode(read(index), min_side=_DECODE_SIDE)
    except BadImage as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    bits = imagehash.phash(image).hash.ravel()
    small = image.convert("L").resize((GRAY, GRAY), Image.Resampling.BOX)
    return np.packbits(bits).view(">u8")[0], np.asarray(small)


def _cache_key(source: Source, index: int) -> bytes:
    """Returns a digest of origin, name and stamp."""
    text = f"{source.origin}\n{source.names[index]}\n{source.stamps[index]}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
