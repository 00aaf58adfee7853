"""How long training takes to start from a million images in shards, and how much memory that needs.

Command: python experiments/shards.py [--images=1000000] [--folder=DIR]
One image is written so many times, each under a name of its own. What is measured, in a process of its own, is what
`train` does with the data before its first step: open the shards, write the run's manifest, start the process that
reads and take the first batch. Memory is that of both processes at their peak, less what it is with 10,000 images.
Writes experiments/results/shards.json.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from provenance import provenance

from wastejax.config import apply_overrides, load_recipe
from wastejax.data import pipeline
from wastejax.data.collections.shards import PREFIX, Rows, write_shards
from wastejax.data.formats.source import Source
from wastejax.data.prepare import prepare
from wastejax.data.split import SPLITS, save_manifest
from wastejax.data.transforms import AUGMENTATIONS, Preprocessing
from wastejax.files import write_json

RESULTS = Path(__file__).resolve().parent / "results"
FEW = 10_000
CLASSES = 30


def write(folder: Path, count: int) -> dict[str, Any]:
    """Writes one image `count` times; returns seconds and size."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC).save(encoded, "JPEG")
    data = encoded.getvalue()
    numbers = np.arange(count)
    source = Source(
        names=tuple(f"class {i % CLASSES:02}/default/image {i:07}.jpg" for i in range(count)),
        labels=(numbers % CLASSES).astype(np.int32),
        classes=tuple(f"class {i:02}" for i in range(CLASSES)),
        domains=("default",) * count,
        splits=None,
        read=lambda index: data,
        stamps=("",) * count,
    )
    splits = np.array(SPLITS)[np.where(numbers // CLASSES % 5 < 3, 0, numbers // CLASSES % 5 - 2)]
    hashes = np.random.default_rng(1).integers(2**64, size=count, dtype=np.uint64)
    start = time.perf_counter()
    write_shards(folder, Rows(source, numbers, splits, hashes))
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "bytes_an_image": len(data),
        "bytes_on_disk": size,
    }


def start_up(folder: Path) -> dict[str, Any]:
    """Does what `train` does with the data before its first step; returns seconds and peak memory."""
    start = time.perf_counter()
    config = load_recipe("mobilevit_ir")
    apply_overrides(config, [f"--config.data.source={PREFIX}{folder}"])
    found = prepare(config.data, config.seed, None)
    opened = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        manifest = Path(scratch) / "manifest.csv"
        save_manifest(manifest, found.source, found.groups, found.splits, found.phash)
    listed = time.perf_counter()
    train = pipeline.compact(found.indices("train"))
    validation = pipeline.EvalBatches(found.source, found.indices("val"), Preprocessing(64), 64)
    augment = AUGMENTATIONS["basic"](Preprocessing(64), 0.35)
    images = pipeline.TrainingImages(pipeline.Reader(found.source, 64), train, augment, 64, config.seed)
    reading = pipeline.train_batches(images, 0, 10, workers=1)
    batch = next(iter(reading))
    done = time.perf_counter()
    assert batch["image"].shape == (64, 64, 64, 3) and len(validation)
    # The other child is multiprocessing's own, which keeps track of what has to be removed.
    worker = max(psutil.Process().children(), key=lambda child: child.memory_info().rss)
    result = {
        "images": len(found.source),
        "seconds": round(done - start, 2),
        "processor_seconds": round(sum(time_of(p) for p in (psutil.Process(), worker)), 2),
        "seconds_to_open": round(opened - start, 2),
        "seconds_to_write_the_manifest": round(listed - opened, 2),
        "peak_bytes": peak(psutil.Process().pid) + peak(worker.pid),
        "peak_bytes_of_each": [peak(psutil.Process().pid), peak(worker.pid)],
        "bytes_now": sum(psutil.Process(pid).memory_info().rss for pid in (psutil.Process().pid, worker.pid)),
    }
    reading.close()
    return result


def time_of(process: psutil.Process) -> float:
    """Returns the processor seconds of a process so far, imports included."""
    times = process.cpu_times()
    return times.user + times.system


def peak(pid: int) -> int:
    """Returns the largest resident set of a process so far, bytes."""
    lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument(
        "--folder", type=Path, help="where the shards are written (default: a temporary folder)"
    )
    parser.add_argument("--only-start", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_start:
        print(json.dumps(start_up(args.only_start)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        written, started = {}, {}
        for name, count in (("few", FEW), ("many", args.images)):
            written[name] = write(Path(scratch) / name, count)
            command = [sys.executable, __file__, f"--only-start={Path(scratch) / name}"]
            started[name] = json.loads(subprocess.check_output(command, text=True))
            print(name, written[name], started[name], flush=True)
    more = args.images - FEW
    grown = {
        key: round((started["many"][key] - started["few"][key]) / more, 1)
        for key in ("peak_bytes", "bytes_now")
    }
    result = {
        **provenance("python experiments/shards.py " + " ".join(sys.argv[1:])),
        "written": written["many"],
        "start_up": started,
        "bytes_an_image": grown,
    }
    write_json(RESULTS / "shards.json", result)


if __name__ == "__main__":
    main()
