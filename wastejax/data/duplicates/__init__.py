"""Near-duplicate images: one pass over the files, perceptual hashes, and groups of the same image."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from wastejax.data.duplicates.hamming import near_pairs
from wastejax.data.duplicates.scan_cache import Look, ScanCache
from wastejax.data.formats.source import Source
from wastejax.data.images import VERSION, BadImage, decode
from wastejax.progress import Count

GRAY = 32  # side of the small gray versions, pixels
# Smallest `agreement` of near-duplicates, found by looking at the pairs with near hashes in TrashNet and the
# household waste set: above 0.8 nearly all are one image, below 0.55 few (cropped by more than is searched), and
# between lie near-duplicates with another banner and look-alikes. A missed near-duplicate leaks into the
# test set while a look-alike in the group does no harm, so the limit is on the low side.
MIN_AGREEMENT = 0.65
_MAX_DIFFERENCE = (
    0.6  # of grays where images had to be aligned, relative to their contrast; found in the same way
)
_EQUAL = 0.9  # as they lie: no need to search
_MIN_COARSE_AGREEMENT = 0.5  # no pair below it was found to agree on a closer look
_TEMPLATE = 0.8  # side of the middle part that is looked for, relative to the image
_FLAT = 10.0  # norm of the detail, gray levels, below which an image counts as flat
_SCALES = (0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15)
_ROWS_AT_ONCE = 4096  # images whose gray versions are summed or compared in one step
_PAIRS_AT_ONCE = 128
_THREADS = 4  # each of which holds some 100 MB of temporary arrays
SCENE_SHARE, SCENE_SIZE = 0.3, 10  # of a set, from which on a group of differing images is a scene
_CACHE_FILE = f"scan-v3.{VERSION}.sqlite"  # count up when what is computed per image changes
_DECODE_SIDE = 256  # JPEGs may be decoded down to this, in their own steps of two

Item = TypeVar("Item")


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


def scan(source: Source, cache_dir: Path | None = None, progress: Count | None = None) -> Scan:
    """Decodes every image once; what was seen before under the same name and stamp comes from the cache.

    Args:
        source: N images.
        cache_dir: where the cache is kept; None for no cache. Unreadable files are never cached.
        progress: called with (images done, images to read) as reading goes on, if any must be read.
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
    pool = ThreadPoolExecutor(os.cpu_count())  # PIL decodes outside the interpreter lock
    try:
        # In parts: what is done is kept although the rest is not, and as few images are waited for at once.
        for part in _parts(len(todo)):
            fresh = []
            indices = todo[part.start : part.stop].tolist()
            looks = pool.map(lambda i: _look(source, i), indices)
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
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for thousands of files
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
    groups = groups[inverse]
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int32)


def in_threads(do: Callable[[Item], np.ndarray], items: Iterable[Item]) -> Iterator[np.ndarray]:
    """Yields what `do` makes of each item, in their order; NumPy computes outside the interpreter lock."""
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    try:
        yield from pool.map(do, items)
    finally:
        pool.shutdown(cancel_futures=True)


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


def joined_groups(groups: np.ndarray, given: Sequence[str]) -> np.ndarray:
    """Returns groups in which images also stay together where they were given the same group.

    Args:
        groups: int [N], from `group_duplicates`.
        given: per image the name of a group that it belongs to, '' for none.

    Returns:
        int32 [N], group ids from 0, in order of first appearance.
    """
    names, index = np.unique(np.array([*given, ""]), return_inverse=True)
    count, index = int(groups.max(initial=-1)) + 1, index[:-1]
    named = np.array([name != "" for name in names])[index]
    n = count + len(names)
    edges = coo_matrix(
        (np.ones(int(named.sum()), np.int8), (groups[named], count + index[named])), shape=(n, n)
    )
    joined = connected_components(edges, directed=False)[1][groups]
    _, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
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
    """Joins groups where images of a pair agree; a pair whose images are in one group already is not compared.

    Args:
        groups: int [N], from 0.
        pairs: int64 [P, 2].
        gray: uint8 [N, g, g].

    Returns:
        int [N], from 0.
    """
    step = max(4096, len(groups) // 8)
    while len(pairs := pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]]):
        edges, n = groups[_confirmed(pairs[:step], gray)], int(groups.max()) + 1
        graph = coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(n, n))
        groups = connected_components(graph, directed=False)[1][groups]
        pairs = pairs[step:]
    return groups


def _confirmed(pairs: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """Returns those of the pairs (int64 [P, 2]) whose gray images agree."""
    return pairs[agreements(gray, gray, pairs) >= MIN_AGREEMENT]


def agreements(a: np.ndarray, b: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Returns float32 [P], the `agreement` of a[i] and b[j] (uint8 [N, g, g]) of each pair (int64 [P, 2])."""

    def of_part(start: int) -> np.ndarray:
        i, j = pairs[start : start + _PAIRS_AT_ONCE].T
        return agreement(a[i], b[j])

    starts = range(0, len(pairs), _PAIRS_AT_ONCE)
    return np.concatenate([np.zeros(0, np.float32), *in_threads(of_part, starts)])


def agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Looks for the middle of each image `b` in its image `a`, and returns how well the details agree.

    Stock images come with and without a banner, which shifts and scales the rest, so shifts of up to a sixth and
    scales of up to 15 % are tried: coarsely all over, then finely around the best. What is compared is detail, the
    image minus its blur: the silhouette of a bottle on white correlates with any other bottle. Then the grays
    must be alike too, or a yellow bottle would agree with a black one.

    Args:
        a: uint8 [P, g, g].
        b: uint8 [P, g, g].

    Returns:
        float32 [P], the best correlation, 1 for equal images; 0 where details agree but grays do not.
    """
    g = a.shape[-1]
    a_fine, b_fine = _detail(a, radius=2), _detail(b, radius=2)
    result = np.einsum("pyx,pyx->p", a_fine, b_fine)
    todo = np.flatnonzero(result < _EQUAL)
    a, b, a_fine, b_fine = a[todo], b[todo], a_fine[todo], b_fine[todo]
    a_coarse, b_coarse = _detail(a, radius=4), _detail(b, radius=4)

    best = np.full((len(todo), 4), -1, np.float32)  # agreement, center y, center x, side
    for side in np.multiply(_SCALES, _TEMPLATE * g):
        reach = np.arange(0, (g - side) / 2, 2)
        centers = g / 2 + np.concatenate([-reach[:0:-1], reach])[None]
        _search(a_coarse, b_coarse, centers, centers, np.full(1, side), g // 2, best)
    close = best[:, 0] >= _MIN_COARSE_AGREEMENT
    _, y, x, side = best[close].T
    fine = np.full((len(y), 4), -1, np.float32)
    steps = np.arange(-1, 1.01, 0.5)
    for step in (-1, 0, 1):
        near_y, near_x = y[:, None] + steps, x[:, None] + steps
        _search(a_fine[close], b_fine[close], near_y, near_x, np.minimum(side + step, g), g, fine)
    fine[_difference(a[close], b[close], *fine[:, 1:].T) > _MAX_DIFFERENCE, 0] = 0
    best[close] = fine
    result[todo] = best[:, 0]
    return result


def _difference(a: np.ndarray, b: np.ndarray, y: np.ndarray, x: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Returns float32 [P], the RMS difference of windows of `a` and the middle of `b`, relative to contrast."""
    g = a.shape[-1]
    middle = _sampling(np.array(g / 2), np.array(_TEMPLATE * g), g, g)
    b = middle @ b.astype(np.float32) @ middle.T
    a = _sampling(y, side, g, g) @ a.astype(np.float32) @ _sampling(x, side, g, g).swapaxes(1, 2)
    contrast = (a.var((1, 2)) + b.var((1, 2))) / 2
    return np.sqrt(((a - b) ** 2).mean((1, 2)) / np.maximum(contrast, 1))


def _search(
    a: np.ndarray, b: np.ndarray, y: np.ndarray, x: np.ndarray, side: np.ndarray, n: int, best: np.ndarray
) -> None:
    """Correlates the middle of `b` with square windows of `a`, all sampled at n x n points.

    Args:
        a: float32 [P, g, g], details.
        b: float32 [P, g, g], details.
        y: float [P or 1, K], vertical centers of the windows, pixels; every one is combined with every `x`.
        x: float [P or 1, K], horizontal centers.
        side: float [P or 1], side of the windows, pixels.
        n: samples along a side.
        best: float32 [P, 4], correlation, center and side of the best window so far, updated in place.
    """
    (count, g, _), k = a.shape, y.shape[1]
    middle = _sampling(np.array(g / 2), np.array(_TEMPLATE * g), n, g)
    target = _normalized(middle @ b @ middle.T)
    rows = _sampling(y, side[:, None], n, g).reshape(len(y), k * n, g)
    columns = _sampling(x, side[:, None], n, g).reshape(len(x), k * n, g)
    windows = (rows @ a @ columns.swapaxes(1, 2)).reshape(count, k, n, k, n)
    energy = np.einsum("piyjx,piyjx->pij", windows, windows)
    scores = np.einsum("piyjx,pyx->pij", windows, target) / np.maximum(np.sqrt(energy), 1e-6)
    at = scores.reshape(count, k * k).argmax(1)
    i, j, every = at // k, at % k, np.arange(count)
    y, x = (np.broadcast_to(centers, (count, k)) for centers in (y, x))
    found = np.stack([scores[every, i, j], y[every, i], x[every, j], np.broadcast_to(side, count)], 1)
    better = found[:, 0] > best[:, 0]
    best[better] = found[better]


def _sampling(center: np.ndarray, side: np.ndarray, n: int, g: int) -> np.ndarray:
    """Returns float32 [..., n, g], what samples n points along `side` pixels around `center` from g pixels."""
    center, side = center[..., None, None], side[..., None, None]
    points = np.clip(center + ((np.arange(n)[:, None] + 0.5) / n - 0.5) * side - 0.5, 0, g - 1)
    weights = np.maximum(0, 1 - np.abs(points - np.arange(g)) / np.maximum(1, side / n))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def _detail(gray: np.ndarray, radius: int) -> np.ndarray:
    """Returns float32 [P, g, g], images (uint8 [P, g, g]) less their blur over `radius` pixels, of norm 1."""
    g = gray.shape[-1]
    blur = (np.abs(np.arange(g)[:, None] - np.arange(g)) <= radius).astype(np.float32)
    blur /= blur.sum(1, keepdims=True)
    x = gray.astype(np.float32)
    return _normalized(x - blur @ x @ blur.T, _FLAT)


def _normalized(x: np.ndarray, least: float = 1e-6) -> np.ndarray:
    """Scales images (float32 [P, h, w]) to norm 1 where their norm is at least `least`."""
    return x / np.maximum(np.linalg.norm(x, axis=(1, 2), keepdims=True), least)


def _look(source: Source, index: int) -> tuple[np.uint64, np.ndarray] | str:
    """Returns hash and small gray version of one image, or why it cannot be read."""
    try:
        image = decode(source.read(index), min_side=_DECODE_SIDE)
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
