"""Iterators that run in processes of their own, with their own interpreter lock and heap.

Each process sends what it makes through a pipe, one end of which only it holds: whichever side is killed, even in
the middle of an answer, the other finds the pipe closed. (grain's own processes wait for ever then, or need room
in shared memory, of which containers have little.)
"""

import atexit
import multiprocessing
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

import cloudpickle

from wastejax.errors import UserError

T = TypeVar("T")
_MAIN_HIDDEN = threading.Lock()


class Workers(Generic[T]):
    """Takes from several iterators in turn, each of which runs ahead in a process of its own.

    It ends with the first of them that does. `close` ends the processes, and so does the end of this one.
    """

    def __init__(self, makers: Sequence[Callable[[], Iterator[T]]]):
        """Starts the processes.

        Args:
            makers: called there, one in each; what they refer to is copied by cloudpickle.
        """
        context = multiprocessing.get_context("spawn")
        self._turn = 0
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        asked = []
        for _ in makers:
            here, there = context.Pipe(duplex=False)
            asks, asking = context.Pipe(duplex=False)
            _widen(here)
            process = context.Process(target=_work, args=(asks, there), daemon=True)
            with _main_hidden():
                process.start()
            there.close()  # the process holds the only other end
            asks.close()
            self._pipes.append(here)
            self._processes.append(process)
            asked.append(asking)
        # Before multiprocessing's own end, which waits for processes that it asked by SIGTERM.
        atexit.register(self.close)
        for maker, asking in zip(makers, asked, strict=True):
            with asking, suppress(BrokenPipeError):  # a process that ended is noticed when its turn comes
                _send(asking, maker)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """Returns the next one.

        Raises:
            UserError: the process whose turn it is was killed.
            Exception: whatever the iterator there raised.
        """
        if not self._pipes:
            raise StopIteration
        at = self._turn % len(self._pipes)
        self._turn += 1
        try:
            kind, value = self._pipes[at].recv()
        except (EOFError, OSError) as error:
            self._processes[at].join()
            code = self._processes[at].exitcode
            self.close()
            raise UserError(
                f"a process that reads images ended (exit code {code}; -9: killed, often for want of memory); "
                "--config.data.workers=0 reads in the process that trains"
            ) from error
        if kind == "made":
            return value
        self.close()
        if kind == "raised":
            raise value
        raise StopIteration

    def close(self) -> None:
        """Ends the processes; nothing more comes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.kill()
            process.join()
        self._pipes, self._processes = [], []
        atexit.unregister(self.close)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Has processes that start meanwhile not run the program again that this one runs.

    multiprocessing runs it again in each, for what is defined in it; cloudpickle sends that along. A script that
    trains without `if __name__ == "__main__"` would begin to train there too, or delete what it deletes.
    """
    main = sys.modules.get("__main__")
    names = ("__spec__", "__file__")
    with _MAIN_HIDDEN:
        kept = {name: getattr(main, name) for name in names if hasattr(main, name)}
        for name in kept:
            setattr(main, name, None)
        try:
            yield
        finally:
            for name, value in kept.items():
                setattr(main, name, value)


def _widen(pipe: Connection) -> None:
    """Has a pipe hold a megabyte where Linux lets it, so that a batch arrives at once and not in 64 KiB."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):  # the user's pipes hold all that they may: slower, no more
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)


def _send(pipe: Connection, maker: Any) -> None:
    """Sends a maker by cloudpickle, its arrays without a copy of them: of millions of images they are large."""
    arrays: list[memoryview] = []
    rest = cloudpickle.dumps(maker, protocol=5, buffer_callback=lambda array: arrays.append(array.raw()))
    pipe.send(len(arrays))
    for part in (rest, *arrays):
        pipe.send_bytes(part)


def _receive(pipe: Connection) -> Any:
    """Returns a maker, whose arrays can only be read."""
    rest, *arrays = [pipe.recv_bytes() for _ in range(1 + pipe.recv())]
    return cloudpickle.loads(rest, buffers=arrays)


def _work(asks: Connection, pipe: Connection) -> None:
    # Ctrl-C, and a cluster's wish to stop, reach this process too; a run still needs the batch of its last step.
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)
    try:
        try:
            with asks:
                maker = _receive(asks)
            for value in maker():
                pipe.send(("made", value))
            pipe.send(("ended", None))
        except BrokenPipeError:
            raise
        except Exception as error:
            error.add_note("".join(traceback.format_tb(error.__traceback__)))
            # By cloudpickle: its class may be defined in the program, which was not run here.
            pipe.send_bytes(cloudpickle.dumps(("raised", error)))
    except BrokenPipeError:
        pass  # the other side is gone
