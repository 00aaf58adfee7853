"""How fast exported files are: against those of an earlier commit, against each other, and against timm's own.

    python experiments/exported_files.py write FILES            # our files, of networks that nobody trained
    python experiments/exported_files.py write BEFORE           # likewise, with an earlier commit on PYTHONPATH
    python experiments/exported_files.py timm FILES             # timm's, by its own export (torch.onnx)
    python experiments/exported_files.py measure FILES BEFORE   # all of them, interleaved

The last writes experiments/results/speed/exported_files.json and .md. Ours take bytes and give probabilities,
timm's take normalized floats and give logits: what that costs is ours.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.provenance import provenance

RESULTS = Path(__file__).resolve().parent / "results" / "speed"
CLASSES = 30
NETWORKS = {
    "efficientnetv2_s": 256,
    "efficientnetv2_s_eca": 256,
    "efficientnetv2_b0": 224,
    "mobilevit_s": 256,
    "mobilevit_s_ir": 256,
}
TIMM = {
    "efficientnetv2_s": "tf_efficientnetv2_s",
    "efficientnetv2_b0": "tf_efficientnetv2_b0",
    "mobilevit_s": "mobilevit_s",
}
ECA, SE = "efficientnetv2_s_eca", "efficientnetv2_s"
RUNS = {1: 25, 32: 3}  # of each batch size


def write(folder: Path) -> None:
    """Writes our networks as ONNX, with drawn weights."""
    import jax

    from wastejax.bundle import Bundle
    from wastejax.data.transforms import Preprocessing
    from wastejax.deployment.export import write_export
    from wastejax.models import MODELS, create_model

    folder.mkdir(parents=True, exist_ok=True)
    for name, size in NETWORKS.items():
        if (folder / f"{name}.onnx").is_file():
            continue
        init = partial(create_model(MODELS[name], CLASSES).init, image_size=size)
        shapes = jax.eval_shape(init, jax.random.key(0))
        variables = jax.tree_util.tree_map_with_path(_drawn, shapes)
        classes = tuple(f"class_{i:02}" for i in range(CLASSES))
        bundle = Bundle(variables, {"model": MODELS[name]}, classes, Preprocessing(size), path=folder)
        write_export(bundle, folder / f"{name}.onnx")
        print(f"written: {name}.onnx", flush=True)


def _drawn(path: Any, leaf: Any) -> np.ndarray:
    """Returns kernels as He et al. draw them, ones for scales and variances, and zeros."""
    if len(leaf.shape) > 1:
        deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return np.random.default_rng(0).normal(0, deviation, leaf.shape).astype(np.float32)
    return np.full(leaf.shape, path[-1].key in ("scale", "var", "kernel"), np.float32)


def write_timm(folder: Path) -> None:
    """Writes timm's networks by timm's own function, for any number of images."""
    import timm
    from timm.utils.onnx import onnx_export

    for name, theirs in TIMM.items():
        model = timm.create_model(theirs, num_classes=CLASSES, exportable=True).eval()
        size = (3, NETWORKS[name], NETWORKS[name])
        onnx_export(model, str(folder / f"timm_{name}.onnx"), input_size=size, batch_size=2, check=False)
        print(f"written: timm_{name}.onnx", flush=True)


def node_times(paths: Mapping[str, Path], batch: int, runs: int) -> dict[str, np.ndarray]:
    """Returns the microseconds of every operator of each file in each run, [runs, operators], on one thread.

    The files take turns; the first run of each is not counted.
    """
    import onnxruntime

    from wastejax.deployment.formats.about import ABOUT

    sessions, rng = {}, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in paths.items():
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level, options.enable_profiling = 1, 3, True
            options.profile_file_prefix = f"{scratch}/{name.replace('/', '_')}"
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            entry = session.get_inputs()[0]
            kind = np.dtype(np.uint8 if entry.type == "tensor(uint8)" else np.float32)
            about = session.get_modelmeta().custom_metadata_map.get(ABOUT)
            # Ours may leave the sides open.
            side = json.loads(about)["preprocessing"]["image_size"] if about else None
            shape = [side if isinstance(length, str) else length for length in entry.shape[1:]]
            sessions[name] = session, {entry.name: _images(rng, (batch, *shape), kind)}
        for _ in range(runs + 1):
            for session, given in sessions.values():
                session.run(None, given)
        times = {}
        for name, (session, _) in sessions.items():
            events = json.loads(Path(session.end_profiling()).read_text())
            taken = [event["dur"] for event in events if event["name"].endswith("_kernel_time")]
            times[name] = np.reshape(taken, (runs + 1, -1))[1:]
    return times


def _images(rng: np.random.Generator, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    drawn = rng.integers(0, 256, shape) if kind == np.uint8 else rng.normal(size=shape)
    return np.asarray(drawn, kind)


def measure(files: Path, before: Path) -> dict[str, Any]:
    """Returns the ratios that are asked for, as far as their files are there."""
    import onnxruntime

    from wastejax import machine
    from wastejax.benchmark.timing import ratio

    pairs = {(ECA, SE): "ECA + Leaky ReLU / SE + SiLU"}
    pairs |= {(name, f"before/{name}"): "now / before" for name in NETWORKS}
    pairs |= {(name, f"timm_{name}"): "ours / timm's export" for name in TIMM}
    where = {
        name: (before if name.startswith("before/") else files) / f"{Path(name).name}.onnx"
        for name in sorted({name for pair in pairs for name in pair})
    }
    where = {name: path for name, path in where.items() if path.is_file()}
    rows = []
    for batch, runs in RUNS.items():
        times = node_times(where, batch, runs)
        for (first, second), what in pairs.items():
            if first not in times or second not in times:
                continue
            least = times[first].min(0).sum() / times[second].min(0).sum()
            whole = ratio(*([[run] for run in times[name].sum(1)] for name in (first, second)))
            row = {"what": what, "file": first, "batch": batch, "runs": runs, "least": round(float(least), 3)}
            rows.append(row | {key: round(value, 3) for key, value in whole._asdict().items()})
            print(rows[-1], flush=True)
    return {
        **provenance("python experiments/exported_files.py measure FILES BEFORE"),
        "before": "758b077d",
        "instructions": sorted(machine.instructions() & {"avx2", "avx512f", *machine.BYTE_PRODUCTS}),
        "load": round(os.getloadavg()[0], 1),
        "onnxruntime": onnxruntime.__version__,
        "ratios": rows,
        "notes": [],  # written by hand: what was not measured, and what was aimed at and missed
    }


def report(result: dict[str, Any]) -> list[str]:
    """Returns the lines of the page of a measurement."""
    known = ", ".join(result["instructions"])
    lines = [
        "# Exported files: time of one over that of another",
        "",
        f"`{result['command']}`, commit {result['commit']} (before: {result['before']}), {result['date']};",
        f"{result['hardware']} ({known}), ONNX Runtime {result['onnxruntime']}, one thread. The machine was",
        f"shared: load {result['load']} on two cores. Files take turns. *Least*: of the sums over all operators of",
        "the least time that each took in any run, which others' work disturbs least; *whole runs*: median over",
        "the runs, with its 95 % bootstrap interval.",
        "",
        "| what | network | batch | runs | least | whole runs |",
        "|---|---|---|---|---|---|",
    ]
    row = "| {what} | {file} | {batch} | {runs} | **{least:.2f}** | {value:.2f} ({low:.2f} to {high:.2f}) |"
    lines += [row.format(**ratio) for ratio in result["ratios"]]
    return [*lines, "", *result["notes"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("write", "timm", "measure"))
    parser.add_argument("folders", nargs="+", type=Path)
    args = parser.parse_args()
    if args.what == "write":
        write(args.folders[0])
    elif args.what == "timm":
        write_timm(args.folders[0])
    else:
        result = measure(*args.folders)
        (RESULTS / "exported_files.json").write_text(json.dumps(result, indent=1) + "\n")
        (RESULTS / "exported_files.md").write_text("\n".join(report(result)) + "\n")


if __name__ == "__main__":
    main()
