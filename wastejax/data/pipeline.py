"""grain: a source of encoded images -> batches, the same in (seed, step) whatever the number of workers.

A batch is {'image': uint8 [B, S, S, 3], 'label': int32 [B], 'index': int64 [B], 'mask': bool [B]}; `index` counts
in the source, so that a batch can name its files, and `mask` is False where a row only fills up the last batch.
Training batches also hold 'allowed', 'shown' and 'unsaid', bool [B, C], where the source has them.
"""

import math
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import grain
import numpy as np
from PIL import Image

from wastejax.data import images
from wastejax.data.cache import ArrayStore, build_store, cache_dir, stamp
from wastejax.data.images.resampling import FILTERS
from wastejax.data.sources import Source
from wastejax.data.transforms import ENOUGH, Augmentation, Preprocessing
from wastejax.data.workers import Workers
from wastejax.errors import UserError
from wastejax.progress import Count

Batch = dict[str, np.ndarray]
Decoded = TypeVar("Decoded")
MORE = ("allowed", "shown", "unsaid")  # of `Source`, where there is not one known class an image
NICE = 5  # of threads that read images: a third of the weight of those that compute with them
CACHED_SIDE = 256  # short side of training images at most, pixels, for inputs that are no larger: the study's


def cached_side(image_size: int, crop: float, min_crop_area: float) -> int:
    """Returns the short side to keep of training images, pixels.

    None of their crops has to be enlarged, but where that takes more than 256 pixels and more than evaluation looks
    at, so that a network of larger input is trained on what it is evaluated on.

    Args:
        image_size: side of the network's input, pixels.
        crop: evaluation's, see `Preprocessing`.
        min_crop_area: of the smallest square crop, as a share of the image.
    """
    most = CACHED_SIDE if image_size <= CACHED_SIDE else math.ceil(image_size / crop)
    return min(most, math.ceil(image_size / min(math.sqrt(min_crop_area), crop)))


def shrink(image: Image.Image, side: int = CACHED_SIDE, box: images.Box | None = None) -> Image.Image:
    """Returns the image, or the box of it, with a short side of at most `side`, aspect kept."""
    left, top, right, bottom = box or (0, 0, *image.size)
    width, height = right - left, bottom - top
    scale = side / min(width, height)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, FILTERS["bicubic"], box=box, reducing_gap=2.0)


def read_image(source: Source, index: int, decode: Callable[[bytes], Decoded]) -> Decoded:
    """Returns what is made of the bytes of an image that could be read when the run began, or a model was loaded.

    Raises:
        UserError: it has gone or was damaged since.
    """
    try:
        return decode(source.read(index))
    except (OSError, images.BadImage) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(
            f"{source.names[index]}: cannot be read any more ({why}); it could be when this began: bring it "
            "back and run the same command again"
        ) from error


@dataclass(frozen=True)
class Reader:
    """Images of a source, decoded and shrunk to `side`: from the cache where there is one, else from the file."""

    source: Source
    side: int = CACHED_SIDE
    store: ArrayStore | None = None
    position: dict[int, int] | None = None

    @property
    def threads(self) -> int:
        """How many read at once: decoding a file leaves Python to others, what the cache costs is mostly Python."""
        return 2 if self.store is None else 1

    def __call__(self, index: int) -> np.ndarray:
        """Returns the image with that index in the source, uint8 [H, W, 3]."""
        if self.store is not None and self.position is not None:
            return self.store[self.position[index]]
        decode = partial(images.decode_scaled, min_side=ENOUGH * self.side)
        image, box = read_image(self.source, index, decode)
        return np.asarray(shrink(image, self.side, box))


def reader(
    source: Source, indices: np.ndarray, cache: bool, side: int = CACHED_SIDE, progress: Count | None = None
) -> Reader:
    """Returns a reader of training images, after decoding them into the cache where `cache` is set."""
    files = Reader(source, side)
    if not cache:
        return files
    path = _cache_path("train", source, indices, side)
    store = build_store(path, indices.tolist(), files, progress)
    if store is None:
        return files
    return Reader(source, side, store, {index: i for i, index in enumerate(indices.tolist())})


def _cache_path(kind: str, source: Source, indices: np.ndarray, *parts: object) -> Path:
    files = [(source.names[i], source.stamps[i]) for i in indices.tolist()]
    return cache_dir() / "decoded" / f"{kind}-{stamp(source.origin, files, parts, images.versions())}.bin"


_stepped_back = threading.local()


def _step_back() -> None:
    """Has the calling thread leave the cores to training, where training is on the CPU too.

    A step leaves cores idle at times, which are enough to read images in; where reading takes a core from one of
    the threads that compute, the others wait for that one. Only Linux has a priority for each thread.
    """
    if sys.platform == "linux" and not hasattr(_stepped_back, "done"):
        _stepped_back.done = True
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)


class _Order:
    """Positions in the endless sequence of training images -> their indices: a new random order every round.

    With several parts, the sequence takes one image of each in turn, or as the turns say.
    """

    def __init__(self, parts: list[np.ndarray], seed: int, turns: np.ndarray | None = None):
        self.parts, self.seed = parts, seed
        # The part that each position takes, again and again, and how many of these turns that part had before.
        self._turns = np.arange(len(parts)) if turns is None else turns
        counts = np.zeros(len(parts), np.int64)
        before = []
        for k in self._turns:
            before.append(int(counts[k]))
            counts[k] += 1
        self._before, self._counts = before, counts.tolist()
        self._rounds: dict[tuple[int, int], np.ndarray] = {}

    def __getitem__(self, position: int) -> int:
        lap, slot = divmod(position, len(self._turns))
        k = int(self._turns[slot])
        at = lap * self._counts[k] + self._before[slot]
        turn, i = divmod(at, len(self.parts[k]))
        order = self._rounds.get((k, turn))
        if order is None:
            order = np.random.default_rng((self.seed, k, turn)).permutation(self.parts[k])
            self._rounds[k, turn] = order
            self._rounds.pop((k, turn - 2), None)  # the one before may still be read by another thread
        return int(order[i])


def take_turns(shares: Sequence[float]) -> np.ndarray:
    """Returns which of K parts each of L successive turns takes, int64 [L], so that turns follow the shares.

    Each turn goes to the part that is furthest behind its share, so that a few turns in a row already come close.

    Args:
        shares: K positive numbers.
    """
    share = np.asarray(shares, np.float64) / np.sum(shares)
    length = math.ceil(20 / share.min())  # the smallest part has at least twenty turns
    taken = np.zeros(len(share))
    turns = np.empty(length, np.int64)
    for i in range(length):
        # Rounded: a tie must break the same way on every processor.
        k = int(np.argmax(np.round(share * (i + 1) - taken, 9)))
        turns[i] = k
        taken[k] += 1
    return turns


@dataclass(frozen=True)
class Mix:
    """What a data description adds to the training images.

    Attributes:
        members: N names, the source that each image belongs to.
        weights: source -> share of the batches.
    """

    members: tuple[str, ...]
    weights: Mapping[str, float]

    def parts(self, indices: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns the training images (int64) of each source that has any, and the turns that they take."""
        members = np.array(self.members)[indices]
        names = [name for name in self.weights if np.any(members == name)]
        return [indices[members == name] for name in names], take_turns([self.weights[n] for n in names])


@dataclass(frozen=True)
class TrainingImages:
    """What training batches are made of, and how they are drawn.

    Attributes:
        read: index in the source -> image.
        indices: int64 or int32, the training images.
        augment: (image, random.Random) -> uint8 [S, S, 3].
        batch_size: images per batch; batches run on across the end of an epoch, so that all are full.
        seed: of order and augmentation; the batch of a step depends on (seed, step) alone.
        balanced: draw every class equally often.
        part: (k, n): yield only the k-th n-th of the rows of each batch, where n machines share it.
        mix: of a data description: the batches draw its sources by weight.
    """

    read: Reader
    indices: np.ndarray
    augment: Augmentation
    batch_size: int
    seed: int
    balanced: bool = False
    part: tuple[int, int] = (0, 1)
    mix: Mix | None = None

    def order(self) -> _Order:
        """Returns which image each position of the endless sequence shows."""
        if self.mix is not None:
            parts, turns = self.mix.parts(self.indices)
            return _Order(parts, self.seed, turns)
        if not self.balanced:
            return _Order([self.indices], self.seed)
        labels = self.read.source.labels[self.indices]
        return _Order([self.indices[labels == c] for c in np.unique(labels)], self.seed)


@dataclass(frozen=True)
class _Rows:
    """A source for grain whose elements are whole batches, since each element costs it as much as a crop does."""

    images: TrainingImages
    order: _Order  # position -> index in the source
    size: int  # images per batch
    count: int  # batches there are

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int) -> Batch:
        _step_back()
        positions = range(at * self.size, (at + 1) * self.size)
        index = [self.order[p] for p in positions]
        read, augment, seed = self.images.read, self.images.augment, self.images.seed
        squares = [
            # Each image its own generator, so that it is the same whichever process reads it.
            augment(read(i), random.Random(seed << 64 | p))
            for i, p in zip(index, positions, strict=True)
        ]
        batch = {
            "image": np.stack(squares),
            "label": read.source.labels[index].astype(np.int32),
            "index": np.array(index, np.int64),
            "mask": np.ones(self.size, bool),
        }
        more = {name: getattr(read.source, name) for name in MORE}
        return batch | {name: rows[index] for name, rows in more.items() if rows is not None}


def compact(indices: np.ndarray) -> np.ndarray:
    """Returns indices in 32 bits where they fit: of millions of images there are several copies."""
    return indices.astype(np.int32) if not len(indices) or indices.max() < 2**31 else indices


def train_batches(
    images: TrainingImages, start: int, stop: int, workers: int = 0
) -> grain.DatasetIterator[Batch] | Workers[Batch]:
    """Returns the batches of training steps `start`..`stop`; to be closed where not all of them are taken.

    Args:
        images: what to draw.
        start: first step, where a run resumes.
        stop: the step after the last.
        workers: processes that read; 0 has threads of this one do it.
    """
    k, n = images.part
    # Every n-th of smaller batches: the rows that all parts have together are those of one large batch, in order.
    rows = _Rows(images, images.order(), images.batch_size // n, stop * n)
    batches = grain.MapDataset.source(rows)[start * n + k :: n]
    options = grain.ReadOptions(num_threads=images.read.threads, prefetch_buffer_size=4)

    def every(step: int, first: int) -> grain.DatasetIterator[Batch]:
        return iter(batches[first::step].to_iter_dataset(options))

    return Workers([partial(every, workers, w) for w in range(workers)]) if workers else every(1, 0)


class EvalBatches:
    """All images once, in order, evaluation's way; the last batch is filled up with masked copies."""

    def __init__(
        self,
        source: Source,
        indices: np.ndarray,
        preprocessing: Preprocessing,
        batch_size: int,
        cache: bool = False,
        progress: Count | None = None,
        part: tuple[int, int] = (0, 1),
    ):
        """Prepares the batches; iterating yields them, as often as one likes.

        Args:
            source: the images.
            indices: int64, which of them.
            preprocessing: the model's.
            batch_size: rows of every batch, the last one included.
            cache: keep the finished squares, so that every later pass only reads.
            progress: called with (done, total) while caching.
            part: (k, n): of each batch read only the k-th n-th of the images, where n machines share it; label,
                index and mask are whole all the same.
        """
        self.source, self.indices, self.batch_size = source, indices, batch_size
        k, n = part
        self.rows = slice(k * batch_size // n, (k + 1) * batch_size // n)
        position = np.arange(len(indices))
        row = position % batch_size
        indices = indices[(self.rows.start <= row) & (row < self.rows.stop)]
        self.image_size = preprocessing.image_size

        def square(index: int) -> np.ndarray:
            return read_image(source, index, preprocessing.of_file)

        store = None
        if cache:
            shape = (preprocessing.image_size, preprocessing.crop, preprocessing.interpolation)
            store = build_store(
                _cache_path("eval", source, indices, shape), indices.tolist(), square, progress
            )
        self._dataset = (
            grain.MapDataset.source(indices).map(lambda i: square(int(i)))
            if store is None
            else grain.MapDataset.source(store)
        )

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yields every batch once."""
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2 * self.batch_size)
        squares = iter(self._dataset.to_iter_dataset(options))
        B, S = self.batch_size, self.image_size
        for start in range(0, len(self.indices), B):
            index = self.indices[start : start + B]
            real = len(range(len(index))[self.rows])
            image = np.zeros((self.rows.stop - self.rows.start, S, S, 3), np.uint8)
            for row in range(real):
                image[row] = next(squares)
            fill = B - len(index)
            index = np.pad(index, (0, fill), mode="edge")
            yield {
                "image": image,
                "label": self.source.labels[index].astype(np.int32),
                "index": index.astype(np.int64),
                "mask": np.arange(B) < B - fill,
            }
