"""Where the time of an ONNX file goes on this machine, by the runtimes' own accounts."""

import importlib.util
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

RUNS, WARM = 20, 3
Shares = list[tuple[str, int, float]]


def shares(path: Path, entry: np.ndarray) -> Shares:
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
    return _ordered(time, count)


def openvino_shares(path: Path, entry: np.ndarray) -> Shares:
    """Returns the same of OpenVINO, by the names of its own operators; what it computes in no time is left out."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # see `onnx.load_openvino`
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": "YES"}
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    time: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for run in range(WARM + RUNS):
        request.infer([entry])
        for node in request.profiling_info if run >= WARM else ():
            if spent := node.real_time.total_seconds():
                time[node.node_type] += spent
                count[node.node_type] += 1
    return _ordered(time, count)


def _ordered(time: Counter[str], count: Counter[str]) -> Shares:
    whole = sum(time.values())
    return [(name, round(count[name] / RUNS), spent / whole) for name, spent in time.most_common()]


def profile(path: Path, entry: np.ndarray) -> Iterator[str]:
    """Yields the lines of `wastejax export --profile`."""
    runtimes = {"ONNX Runtime": shares}
    if importlib.util.find_spec("openvino"):
        runtimes["OpenVINO"] = openvino_shares
    for runtime, of in runtimes.items():
        yield f"where the time goes in {runtime}, {len(entry)} at once:"
        for name, count, share in of(path, entry):
            yield f"  {share:6.1%}  {name} ({count})"
