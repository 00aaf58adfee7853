"""`predict --out` over many small images: by one process and by Ray, killed and continued, and what each costs.

Command: python experiments/many_images.py [--images=200000] [--folder=DIR]
Images are 48 x 32 JPEGs, 2,000 of them under so many names (hard links), some of them damaged. The network is the
smallest there is, at 32 px, with random weights: what is measured is everything around it. Each way is killed three
times by SIGKILL and continued by the same command. Rates are those of the last, longest stretch: with the start of
the model (and of Ray), and from the first to the last of its files, without.
Writes experiments/results/many_images.json.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as parquet
from PIL import Image
from provenance import ROOT, provenance

from wastejax.files import write_json

RESULTS = Path(__file__).resolve().parent / "results"
DIFFERENT = 2000
KILLED_AT = (0.05, 0.15, 0.25)  # of all parts


def draw(folder: Path, count: int) -> None:
    """Writes `count` names of `DIFFERENT` small images, one in a hundred of these cut short."""
    rng = np.random.default_rng(17)
    originals = []
    for i in range(DIFFERENT):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8))
        path = folder / "originals" / f"{i:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((48, 32), Image.Resampling.BICUBIC).save(path)
        if i % 100 == 99:
            path.write_bytes(path.read_bytes()[:300])
        originals.append(path)
    for i in range(count):
        path = folder / "images" / f"{i // 1000:04}" / f"{i:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals[i % DIFFERENT], path)


def part_size(count: int) -> int:
    return max(100, count // 200)


def command(folder: Path, out: str, ray: bool, part: int) -> list[str]:
    return [
        *(sys.executable, "-m", "wastejax.main", "predict", str(folder / "images")),
        *(f"--out={folder / out}", f"--model={folder / 'bundle'}", "--engine=jax", f"--part-size={part}"),
        *("--batch-size=256", f"--workers={'ray' if ray else 'local'}"),
    ]


def killed(folder: Path, out: str, ray: bool, count: int) -> dict[str, Any]:
    """Answers all images, killed three times; returns rates, peak memory and how far it was at each kill."""
    environment = os.environ | {"WASTEJAX_HUGEPAGES": "0", "RAY_AUTH_MODE": "disabled"}
    at, part = [], part_size(count)
    for share in KILLED_AT:
        process = subprocess.Popen(
            command(folder, out, ray, part), cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )
        while (
            len(list((folder / out).glob("part-*.parquet"))) < share * count / part and process.poll() is None
        ):
            time.sleep(0.1)
        assert process.poll() is None, "it ended before it was killed: take more images"
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        at.append(len(list((folder / out).glob("part-*.parquet"))))
        psutil.wait_procs(children, timeout=30)  # Ray's end by themselves once their driver has gone
        for child in children:
            if child.is_running():
                child.kill()
    start, began = time.perf_counter(), time.time()
    process = subprocess.Popen(
        command(folder, out, ray, part), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    most = 0
    while process.poll() is None:
        try:
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            most = max(most, sum(each.memory_info().rss for each in tree))
        except psutil.Error:
            pass
        time.sleep(0.5)
    said = (process.stderr.read() if process.stderr else "").strip().splitlines()[-1]
    now, took = re.search(r"; ([\d,]+) in ([\d.]+) s", said).groups()
    now, took = int(now.replace(",", "")), float(took)
    ends = sorted(file.stat().st_mtime for file in (folder / out).glob("part-*.parquet"))
    ends = [end for end in ends if end > began]
    running = (len(ends) - 1) * part / (ends[-1] - ends[0])
    return {
        "parts_at_kills": at,
        "last_stretch": {"images": now, "seconds": took, "images_per_second": round(now / took, 1)},
        "images_per_second_running": round(running, 1),
        "seconds_of_the_process": round(time.perf_counter() - start, 1),
        "peak_mib": round(most / 2**20),
    }


def rows(folder: Path) -> dict[str, Any]:
    """Returns all rows by name; raises where one is double."""
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("part-*.parquet")):
        for row in parquet.read_table(file).to_pylist():
            assert row["file"] not in found
            found[row["file"]] = row
    return found


def measure(folder: Path, count: int) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT / "tests"))
    from small_models import write_bundle

    write_bundle(folder / "bundle", image_size=32)
    draw(folder, count)
    result: dict[str, Any] = {"images": count, "part_size": part_size(count)}
    for name in ("local", "ray"):
        result[name] = killed(folder, name, name == "ray", count)
        print(name, result[name], flush=True)
    here, there = rows(folder / "local"), rows(folder / "ray")
    rate = {name: result[name]["images_per_second_running"] for name in ("local", "ray")}
    return result | {
        "rows": len(here),
        "unreadable": sum(bool(row["reason"]) for row in here.values()),
        "same_answers": here == there,
        "ray_over_local": round(rate["ray"] / rate["local"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000, help="(200,000)")
    parser.add_argument(
        "--folder", type=Path, help="where the images are drawn (default: a temporary folder)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        result = measure(Path(scratch), args.images)
    said = provenance("python experiments/many_images.py " + " ".join(sys.argv[1:]))
    write_json(RESULTS / "many_images.json", {**said, **result})


if __name__ == "__main__":
    main()
