"""How soon an answer is there, with jax and the fastest engine, against an earlier build.

Command: python experiments/felt.py EARLIER [--parts=first,folder,large,serve] [--images=2000] [--rounds=7]
EARLIER is a checkout of the commit to compare with, which computes with jax alone. The bundled model of each build,
in processes of their own, in turn, for the machine may be busy with other things. Writes
experiments/results/speed/felt.json and .md.
Of each process the time that it took, the processor's time, which others' work disturbs least, and the largest
memory. Parts that are not asked for keep the numbers that they have.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments import serving
from experiments.provenance import head, provenance
from wastejax.data.drawing import dataset as synthetic
from wastejax.evaluation.report.markdown import table
from wastejax.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results" / "speed"
EARLIER, FASTEST = "earlier", "onnxruntime"
ENGINES = (EARLIER, "jax", FASTEST)
SMALL, LARGE = (800, 600), (4000, 3000)  # pixels; the second as a phone has them
DRAWN = 32


def run(engine: str, earlier: Path, *arguments: str) -> dict[str, float]:
    """Runs `wastejax predict`; returns its seconds, its processor's seconds, its MiB, and its images per second."""
    command = [sys.executable, "-m", "wastejax.main", "predict", *arguments]
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        root, env = build(engine, earlier)
        process = subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode()
    if process.returncode:
        raise SystemExit(text)
    rate = re.search(r"([\d.,]+) images/s", text)
    assert rate is not None
    return {
        "seconds": seconds,
        "processor": usage.ru_utime + usage.ru_stime,
        "mib": usage.ru_maxrss / 1024,
        "images_per_second": float(rate[1].replace(",", "")),
    }


def build(engine: str, earlier: Path) -> tuple[Path, dict[str, str]]:
    """Returns the checkout and the environment that answer with an engine; there, `python -m` finds wastejax."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "WASTEJAX_ENGINE")}
    return (earlier, env) if engine == EARLIER else (ROOT, env | {"WASTEJAX_ENGINE": engine})


def draw(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Writes JPEGs of so many pixels, of few drawn images: decoding takes the same time."""
    folder.mkdir()
    for i in range(count):
        if i < DRAWN:
            name = synthetic.CLASSES[i % len(synthetic.CLASSES)]
            image = (
                synthetic.draw(name, i, "real_world").convert("RGB").resize(size, Image.Resampling.BICUBIC)
            )
            image.save(folder / f"{i:05}.jpg", quality=90)
        else:
            (folder / f"{i:05}.jpg").write_bytes((folder / f"{i % DRAWN:05}.jpg").read_bytes())


def in_turn(rounds: int, earlier: Path, *arguments: str) -> dict[str, dict[str, float]]:
    """Returns medians over rounds, of which one more is not counted."""
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    for _ in range(rounds + 1):
        for engine in ENGINES:
            found[engine].append(run(engine, earlier, *arguments))
            print(engine, found[engine][-1], flush=True)
    return {engine: medians(rows[1:]) for engine, rows in found.items()}


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Returns the median of each value."""
    return {key: round(float(np.median([row[key] for row in rows])), 3) for key in rows[0]}


def serve(seconds: float, rounds: int, earlier: Path) -> dict[str, dict[str, float]]:
    """Returns what 1 and 8 clients get of a server, medians over rounds."""
    serving.CONCURRENCY = (1, 8)
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    for _ in range(rounds):
        for engine in ENGINES:
            with serving.serving(None, *build(engine, earlier)) as server:
                serving.load(server, 1)
                one, eight = serving.load(server, seconds)
                found[engine].append(
                    {
                        "p50_of_1": one["ms_p50"],
                        "rate_of_8": eight["per_second"],
                        "mib": server.memory("VmHWM"),
                    }
                )
    return {engine: medians(rows) for engine, rows in found.items()}


def report(result: Mapping[str, Any]) -> str:
    """Returns the page of a measurement."""
    rows = []

    def row(what: str, part: str, key: str, unit: str, target: str = "") -> None:
        if part in result:
            values = {engine: result[part][engine][key] for engine in ENGINES}
            ratios = (f"{values[FASTEST] / values[engine]:.2f}" for engine in ENGINES[:2])
            rows.append([what, *(f"{value:g} {unit}" for value in values.values()), *ratios, target])

    row("cold process to printed answer", "first", "seconds", "s", "at most 0.45")
    row("the same, time of the processor", "first", "processor", "s")
    row("the same, memory", "first", "mib", "MiB")
    row("a folder of JPEGs", "folder", "images_per_second", "images/s", "at least 1.8")
    row("the same, time of the processor", "folder", "processor", "s")
    row("the same, memory", "folder", "mib", "MiB")
    row("a folder of JPEGs of 12 megapixels", "large", "images_per_second", "images/s", "at least 2")
    row("the same, time of the processor", "large", "processor", "s")
    row("server, p50 of 1 client", "serve", "p50_of_1", "ms", "at most 0.6")
    row("server, answers of 8 clients", "serve", "rate_of_8", "answers/s", "at least 1.6")
    row("server, memory", "serve", "mib", "MiB", "at most 1")
    lines = [
        f"{part}: `{about['command']}`, commit {about['commit']} against {about['earlier']}, {about['date']}, "
        f"{about['hardware']}, load {about['load']}"
        for part, about in result["measured"].items()
    ]
    names = ["what", "before, jax", "now, jax", "now, ONNX Runtime", "relative to before", "to jax", "wanted"]
    return (
        "\n".join(["# How soon an answer is there", "", *table(names, rows), "", "\n\n".join(lines)]) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("earlier", type=Path, metavar="EARLIER")
    parser.add_argument("--parts", default="first,folder,large,serve")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=6)
    args = parser.parse_args()
    file = RESULTS / "felt.json"
    result = json.loads(file.read_text()) if file.is_file() else {"measured": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder, large = Path(scratch) / "small", Path(scratch) / "large"
        draw(folder, max(args.images, 1), SMALL)
        for part in args.parts.split(","):
            if part == "first":
                result[part] = in_turn(args.rounds, args.earlier, str(folder / "00000.jpg"))
            elif part == "folder":
                result[part] = in_turn(args.rounds, args.earlier, str(folder), "--format=csv")
            elif part == "large":
                draw(large, max(args.images // 10, 1), LARGE)
                result[part] = in_turn(args.rounds, args.earlier, str(large), "--format=csv")
            else:
                result[part] = serve(args.seconds, args.rounds, args.earlier)
            about = provenance(f"python experiments/felt.py EARLIER {' '.join(sys.argv[2:])}".strip())
            about["earlier"] = head(args.earlier)[:12]
            result["measured"][part] = about | {"load": round(os.getloadavg()[0], 1)}
            write_json(file, result)
            write_text(RESULTS / "felt.md", report(result))


if __name__ == "__main__":
    main()
