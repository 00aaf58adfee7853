"""Images of many requests at once, computed together: what is waiting when the network is free is one batch."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class Batches:
    """Gathers images and hands out the rows of their probabilities.

    Nothing is held back to fill a batch: an image that finds the network free is computed alone, and those that
    arrive meanwhile go together. Sizes are powers of two, so that few programs are compiled and none is padded.
    """

    def __init__(
        self,
        probabilities: Callable[[np.ndarray], np.ndarray],
        largest: int,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Prepares an empty queue.

        Args:
            probabilities: uint8 [B, S, S, 3] -> float32 [B, C].
            largest: most images of one batch.
            observe: is told the size of every batch.
        """
        self._probabilities = probabilities
        self._largest = largest
        self._observe = observe
        self._waiting: deque[tuple[np.ndarray, asyncio.Future]] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "network")

    @property
    def sizes(self) -> list[int]:
        """Every size that a batch can have, largest first."""
        return [1 << i for i in reversed(range(self._largest.bit_length()))]

    async def row(self, square: np.ndarray) -> np.ndarray:
        """Returns float32 [C] for an image, uint8 [S, S, 3], when its turn has come."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((square, future))
        self._arrived.set()
        return await future

    async def work(self) -> None:
        """Computes batches for ever; one task runs this."""
        while True:
            await self._arrived.wait()
            batch = self._next()
            if not batch:
                self._arrived.clear()
                continue
            squares, futures = zip(*batch, strict=True)
            self._observe(len(batch))
            try:
                rows = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._probabilities, np.stack(squares)
                )
            except Exception as error:  # of the network: whoever asked is told, and the next batch goes on
                for future in futures:
                    if not future.done():
                        future.set_exception(RuntimeError(f"the network failed: {error}"))
                continue
            for future, row in zip(futures, rows, strict=True):
                if not future.done():
                    future.set_result(row)

    def _next(self) -> list[tuple[np.ndarray, asyncio.Future]]:
        """Takes the largest batch off the queue, without those that nobody waits for any more."""
        alive = [(square, future) for square, future in self._waiting if not future.done()]
        size = next((size for size in self.sizes if size <= len(alive)), 0)
        self._waiting = deque(alive[size:])
        return alive[:size]
