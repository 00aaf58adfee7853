"""Networks in processes of their own, asked to take their turns: other runtimes' (`peer_worker.py`), or ours."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from wastejax.benchmark.networks import Case
from wastejax.benchmark.timing import RunnerError
from wastejax.models.cost import NUM_CLASSES

PEERS = ("timm", "onnx", "openvino")
WORKER = Path(__file__).with_name("peer_worker.py")
OWN_WORKER = "wastejax.benchmark.own_worker"
OURS = ("jax", "stock")  # run by `own_worker.py`, where the memory of a process is asked for


class PeerError(RunnerError):
    """The peer cannot run this case, or died; the message says why."""


class Peer:
    """A running peer; a context manager, since its process must not outlive the benchmark.

    Attributes:
        forms: ways in which it can run the network, such as PyTorch's memory formats.
        without: other such ways, and why they cannot be had.
        about: its versions, and the device that it runs on.
    """

    def __init__(self, case: Case, threads: int, python: str = sys.executable, **more: Any):
        """Starts the process and waits until the network is built.

        Args:
            case: what to run; its runtime is one of `PEERS` or `OURS`.
            threads: that the peer may use.
            python: the interpreter that has the peer installed.
            more: of the case, such as `onnx`, the file to run, or `form`, the only one that is wanted.

        Raises:
            PeerError: it is not installed, or cannot run the case.
        """
        spec = asdict(case) | {"threads": threads, "num_classes": NUM_CLASSES} | more
        self._scratch = tempfile.TemporaryDirectory()
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed in `close`
        # Huge pages and the set of processors are inherited. An installed wastejax must not shadow the peer's own.
        worker = ["-m", OWN_WORKER] if case.runtime in OURS else ["-P", str(WORKER)]
        # A program that an earlier benchmark left would tell nothing about the time that compiling takes.
        own = {"OMP_NUM_THREADS": str(threads), "TORCHINDUCTOR_CACHE_DIR": self._scratch.name}
        self._process = subprocess.Popen(
            [python, *worker, json.dumps(spec)],
            env=os.environ | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            ready = self._answer()
            if "missing" in ready:
                raise PeerError(ready["missing"])
        except PeerError:
            self.close()
            raise
        self.forms: list[str] = ready["forms"]
        self.without: dict[str, str] = ready.get("without", {})
        self.about: dict[str, Any] = ready["about"]

    def run(self, form: str, calls: int) -> list[float]:
        """Returns the seconds of so many calls; raises PeerError where the process dies."""
        return self._ask(form, calls)["seconds"]

    def peak(self, form: str, calls: int) -> float | None:
        """Returns the most memory of its process during so many calls, or of its card, in MiB; None if unknown."""
        return self._ask(form, calls)["peak_mib"]

    def _ask(self, form: str, calls: int) -> Any:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead: `_answer` says why
            self._process.stdin.write(json.dumps([form, calls]) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line.endswith("\n"):  # or it died on the way
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines() or ["without a word"]
        raise PeerError(f"ended with code {code}: {said[-1]}")

    def close(self) -> None:
        """Ends the process."""
        with self._process:
            if self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):  # where it died, what it was not sent anymore
                    self._process.stdin.close()
            self._process.terminate()
        self._errors.close()
        self._scratch.cleanup()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
