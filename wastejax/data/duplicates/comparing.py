"""How well two small gray images agree, also where one is a shifted and scaled part of the other."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

# Of grays where images had to be aligned, relative to their contrast; found in the same way.
_MAX_DIFFERENCE = 0.6
_EQUAL = 0.9  # as they lie: no need to search
_MIN_COARSE_AGREEMENT = 0.5  # no pair below it was found to agree on a closer look
_TEMPLATE = 0.8  # side of the middle part that is looked for, relative to the image
_FLAT = 10.0  # norm of the detail, gray levels, below which an image counts as flat
_SCALES = (0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15)
_PAIRS_AT_ONCE = 256
_THREADS = 4  # each of which holds some 100 MB of temporary arrays

Item = TypeVar("Item")


def map_in_threads(do: Callable[[Item], np.ndarray], items: Iterable[Item]) -> Iterator[np.ndarray]:
    """Yields what `do` makes of each item, in their order; NumPy computes outside the interpreter lock."""
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    try:
        # A product's own threads would wait for each other's turn.
        with threadpool_limits(1, user_api="blas"):
            yield from pool.map(do, items)
    finally:
        pool.shutdown(cancel_futures=True)


def agreements(a: np.ndarray, b: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Returns float32 [P], the `agreement` of a[i] and b[j] (uint8 [N, g, g]) of each pair (int64 [P, 2])."""

    def of_part(start: int) -> np.ndarray:
        i, j = pairs[start : start + _PAIRS_AT_ONCE].T
        return agreement(a[i], b[j])

    starts = range(0, len(pairs), _PAIRS_AT_ONCE)
    return np.concatenate([np.zeros(0, np.float32), *map_in_threads(of_part, starts)])


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

    best = _search_all_over(a_coarse, b_coarse)
    close = best[:, 0] >= _MIN_COARSE_AGREEMENT
    _, y, x, side = best[close].T
    fine = np.full((len(y), 4), -1, np.float32)
    steps = np.arange(-1, 1.01, 0.5)
    for step in (-1, 0, 1):
        near_y, near_x = y[:, None] + steps, x[:, None] + steps
        _search(a_fine[close], b_fine[close], near_y, near_x, np.minimum(side + step, g), fine)
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


def _search_all_over(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlates the middle of `b` with windows of `a` of every scale and shift, at half of the points.

    The windows are the same for all pairs, which lie side by side in memory, so that few large products of matrices
    take the place of many small ones. Both are details, float32 [P, g, g]. Returns float32 [P, 4], correlation,
    vertical and horizontal center, and side of the best window.
    """
    count, g, _ = a.shape
    n = g // 2
    target = np.ascontiguousarray(_middle(b, n).transpose(2, 1, 0))
    pixels = np.ascontiguousarray(a.transpose(1, 2, 0))
    best = np.full((4, count), -1, np.float32)
    for side in np.multiply(_SCALES, _TEMPLATE * g):
        reach = np.arange(0, (g - side) / 2, 2)
        centers = g / 2 + np.concatenate([-reach[:0:-1], reach])
        k, sampled = len(centers), _sampling(centers, np.full(1, side), n, g)
        for center, columns in zip(centers, sampled, strict=True):
            strips = (columns @ pixels).swapaxes(0, 1)
            windows = (sampled.reshape(k * n, g) @ strips).reshape(n, k, n, count)
            scores = np.einsum("xkyp,xyp->kp", windows, target)
            np.multiply(windows, windows, out=windows)
            scores /= np.maximum(np.sqrt(windows.sum(axis=(0, 2))), 1e-6)
            at = scores.argmax(axis=0)
            found = np.stack(np.broadcast_arrays(scores[at, np.arange(count)], centers[at], center, side))
            best = np.where(found[0] > best[0], found, best).astype(np.float32)
    return best.T


def _search(
    a: np.ndarray, b: np.ndarray, y: np.ndarray, x: np.ndarray, side: np.ndarray, best: np.ndarray
) -> None:
    """Correlates the middle of `b` with square windows of `a`, both sampled at all g x g points.

    Args:
        a: float32 [P, g, g], details.
        b: float32 [P, g, g], details.
        y: float [P, K], vertical centers of the windows, pixels; every one is combined with every `x`.
        x: float [P, K], horizontal centers.
        side: float [P], side of the windows, pixels.
        best: float32 [P, 4], correlation, center and side of the best window so far, updated in place.
    """
    (count, g, _), k = a.shape, y.shape[1]
    target = _middle(b, g)
    rows = _sampling(y, side[:, None], g, g).reshape(count, k * g, g)
    columns = _sampling(x, side[:, None], g, g).reshape(count, k * g, g)
    windows = (rows @ a @ columns.swapaxes(1, 2)).reshape(count, k, g, k, g)
    energy = np.einsum("piyjx,piyjx->pij", windows, windows)
    scores = np.einsum("piyjx,pyx->pij", windows, target) / np.maximum(np.sqrt(energy), 1e-6)
    at = scores.reshape(count, k * k).argmax(1)
    i, j, every = at // k, at % k, np.arange(count)
    found = np.stack([scores[every, i, j], y[every, i], x[every, j], side], 1)
    better = found[:, 0] > best[:, 0]
    best[better] = found[better]


def _middle(b: np.ndarray, n: int) -> np.ndarray:
    """Returns float32 [P, n, n], the middle of details (float32 [P, g, g]) at n x n points, of norm 1."""
    g = b.shape[-1]
    sampled = _sampling(np.array(g / 2), np.array(_TEMPLATE * g), n, g)
    return _normalized(sampled @ b @ sampled.T)


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
