"""Where the time of an ONNX file goes on this machine, by ONNX Runtime's own account."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

RUNS, WARM = 20, 3


def shares(path: Path, entry: np.ndarray) -> list[tuple[str, int, float]]:
    """Returns operators as ONNX Runtime computes them, the costliest first.

    Args:
        path: an .onnx file.
        entry: its input.

    Returns:
        Of each kind of operator its name, how many there are, and its share of the time of all, 0..1. Names that
        ONNX does not know are ONNX Runtime's own, of several operators computed as one.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.log_severity_level = True, 3
    with tempfile.TemporaryDirectory() as scratch:
        options.profile_file_prefix = str(Path(scratch) / "profile")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(WARM + RUNS):
            session.run(None, {session.get_inputs()[0].name: entry})
        events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event for event in events if event["name"].endswith("_kernel_time")]
    kernels = kernels[len(kernels) * WARM // (WARM + RUNS) :]
    time: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for event in kernels:
        time[event["args"]["op_name"]] += event["dur"]
        count[event["args"]["op_name"]] += 1
    whole = sum(time.values())
    return [(name, count[name] // RUNS, spent / whole) for name, spent in time.most_common()]


def profile(path: Path, entry: np.ndarray) -> Iterator[str]:
    """Yields the lines of `wastejax export --profile`."""
    yield f"where the time goes in ONNX Runtime, {len(entry)} at once:"
    for name, count, share in shares(path, entry):
        yield f"  {share:6.1%}  {name} ({count})"
