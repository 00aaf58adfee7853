"""Does `audit` take as long an image at 200,000 files as at 7,695? Images of a data set, each changed many times.

Command: python experiments/audit_many.py --data=HOUSEHOLD_WASTE --folder=DIR [--images=200000] [--before=CHECKOUT]
Each file is one image of the data set, turned by any angle, cut to 55 to 90 % of its sides, mirrored half of the
time, and changed in brightness, contrast and color. The first as many files as the data set has are the small set.
Each set is audited twice by a command of its own: with an empty cache, and again, when nothing is decoded.
`--before` names a checkout of an earlier commit, which is timed on the small set and one four times as large;
without it, its numbers stay. Images are kept in DIR, so that a second call does not draw them again.
Writes experiments/results/audit_many.json.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image, ImageEnhance, ImageOps

from experiments.provenance import ROOT, provenance

RESULT = ROOT / "experiments" / "results" / "audit_many.json"


def draw(original: Path, number: int, target: Path) -> None:
    """Writes a changed copy of an image, the same one for the same number."""
    if target.exists():
        return
    rng = random.Random(number)
    image = Image.open(original).convert("RGB")
    image = image.rotate(rng.uniform(0, 360), Image.Resampling.BILINEAR, fillcolor=image.getpixel((0, 0)))
    share = rng.uniform(0.55, 0.9)
    width, height = (round(side * share) for side in image.size)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    image = image.crop((left, top, left + width, top + height))
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(rng.uniform(0.7, 1.3))
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    image.save(part, "JPEG", quality=85)
    part.rename(target)


def drawn(originals: list[Path], folder: Path, count: int) -> Path:
    """Returns a folder with `count` changed copies in class folders."""
    targets = []
    for number in range(count):
        original = originals[number % len(originals)]
        targets.append(folder / original.parent.name / f"{number:07}_{original.stem}.jpg")
    with ProcessPoolExecutor(2) as pool:
        originals = [originals[number % len(originals)] for number in range(count)]
        for _ in pool.map(draw, originals, range(count), targets, chunksize=500):
            pass
    return folder


def linked(folder: Path, target: Path, count: int) -> Path:
    """Returns a folder with hard links to those drawn first."""
    for file in folder.glob("*/*.jpg"):
        if int(file.name[:7]) < count:
            link = target / file.parent.name / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                os.link(file, link)
    return target


def timed(data: Path, cache: Path, checkout: Path = ROOT) -> dict[str, Any]:
    """Returns what one audit took, its process by itself."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            *(sys.executable, "-m", "wastejax.main", "audit", f"--data={data}"),
            f"--out={Path(scratch) / 'out'}",
        ]
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=checkout,
            env=os.environ | {"WASTEJAX_CACHE": str(cache), "PYTHONPATH": ""},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{' '.join(command)} failed with {status}")
        seconds = time.perf_counter() - start
        found = json.loads((Path(scratch) / "out" / "audit.json").read_text())
    count = sum(1 for _ in data.glob("*/*.jpg"))
    return {
        "images": count,
        "seconds": round(seconds, 1),
        "images_per_second": round(count / seconds, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
        "near_duplicates": found["near_duplicates"]["num_images"],
    }


def audits(data: Path, scratch: Path) -> dict[str, Any]:
    cache = Path(tempfile.mkdtemp(dir=scratch))
    return {"empty_cache": timed(data, cache), "second_time": timed(data, cache)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--before", type=Path)
    args = parser.parse_args()
    originals = sorted(file for file in args.data.glob("*/*") if file.is_file())
    many = drawn(originals, args.folder / "many", args.images)
    few = linked(many, args.folder / "few", len(originals))
    print("drawn", flush=True)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        for name, data in (("few", few), ("many", many), ("few_again", few)):
            result[name] = audits(data, Path(scratch))
            print(name, result[name], flush=True)
        if args.before:
            middle = linked(many, args.folder / "middle", 4 * len(originals))
            commit = subprocess.check_output(
                ["git", "rev-parse", "--short", "HEAD"], cwd=args.before, text=True
            )
            before = {
                str(sum(1 for _ in data.glob("*/*.jpg"))): timed(
                    data, Path(tempfile.mkdtemp(dir=scratch)), args.before
                )
                for data in (few, middle)
            }
            result["before"] = {"commit": commit.strip(), **before}
            print("before", before, flush=True)
        elif RESULT.is_file():
            result["before"] = json.loads(RESULT.read_text())["before"]
    few_rate = (
        result["few"]["empty_cache"]["images_per_second"]
        + result["few_again"]["empty_cache"]["images_per_second"]
    ) / 2
    result["rate_many_over_few"] = round(result["many"]["empty_cache"]["images_per_second"] / few_rate, 3)
    said = "python experiments/audit_many.py " + " ".join(sys.argv[1:])
    said = re.sub(r"=/[^ ]*/", "=", said)
    RESULT.write_text(json.dumps({**provenance(said), **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
