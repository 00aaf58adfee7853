"""How a run is asked to stop: SIGTERM and Ctrl-C are answered at once, also while XLA compiles.

Python runs signal handlers in the main thread and between two of its own instructions, and compiling is a single
one that lasts minutes. So the signal is taken by a thread that waits for it: Python's C handler writes the signal's
number to a socket, and XLA lets other threads run while it compiles.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from wastejax.progress import Say

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Ends the process at once where nothing can be lost by it, and asks for a stop after the step elsewhere.

    A second signal ends the process at once anywhere. A context manager.

    Args:
        say: prints a line.
        exits: whether the process is ours to end. If not, as in a notebook, a signal does there what it did before,
            once Python comes to it, or on leaving where a stop after the step was to come first; and in another
            thread than the main one, signals are left alone, as is one that is ignored.

    Attributes:
        requested: the step under way is to be the last.
        kept: what to say of what was done so far, where the process ends at once.
        code: the exit code there; None for 128 + the signal's number, as a shell has it.
        leaving: called before such an end, as to tidy up a terminal.
    """

    def __init__(self, say: Say, exits: bool = False) -> None:
        self.requested = False
        self.kept = "nothing was trained yet; the same command begins anew"
        self.code: int | None = None
        self.leaving: list[Callable[[], None]] = []
        self._say, self._exits = say, exits
        self._waits = False
        self._owed: int | None = None  # the signal that was answered by `requested`, and by nothing else yet
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in SIGNALS:
            if not self._exits and signal.getsignal(number) in (signal.SIG_IGN, None):
                continue
            self._before[number] = signal.signal(number, self._hear)
        if self._exits:
            self._here, self._there = socket.socketpair()
            self._there.setblocking(False)  # `set_wakeup_fd` asks for it: the C handler must not wait
            self._descriptor = signal.set_wakeup_fd(self._there.fileno(), warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._watch, name="stop", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._before and self._exits:
            signal.set_wakeup_fd(self._descriptor)
            self._there.close()  # which ends the thread
            self._thread.join()
            self._here.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # Or whoever called would go on as if all had been done. An exception tells them by itself.
        if self._owed is not None and kind is None and not self._exits:
            signal.raise_signal(self._owed)

    @contextmanager
    def after_the_step(self) -> Iterator[None]:
        """Where something would be lost: a first signal only sets `requested`."""
        before, self._waits = self._waits, True
        try:
            yield
        finally:
            self._waits = before

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside of `after_the_step`, for what takes long and loses nothing."""
        before, self._waits = self._waits, False
        try:
            if self.requested and self._owed is not None:  # the signal came just before
                self._end(self._owed)
            yield
        finally:
            self._waits = before

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """Is called between two instructions of the main thread; where the thread watches, it has answered."""
        if not self._exits:
            self._answer(number)

    def _watch(self) -> None:
        while numbers := self._here.recv(1):
            if numbers[0] in SIGNALS:
                self._answer(numbers[0])

    def _answer(self, number: int) -> None:
        if self._waits and not self.requested:
            self._owed = number
            # Said first: from `requested` on, the main thread may print and end the process.
            try:
                self._say(
                    "stopping after the step under way, with a checkpoint; a second signal stops at once"
                )
            finally:
                self.requested = True
        else:
            self._end(number)

    def _end(self, number: int) -> None:
        if not self._exits:
            self._owed = None
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
            return
        for leave in self.leaving:
            leave()
        # The reader of a pipe may be gone, as is usual after Ctrl-C.
        with suppress(OSError, ValueError):
            self._say(f"stopped; {self.kept}")
            sys.stderr.flush()
        # Not by an exception: the main thread is not listening. Processes that read images end with this one.
        os._exit(128 + number if self.code is None else self.code)
