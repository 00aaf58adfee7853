"""How much memory each step takes an image: peak of Python's and NumPy's at two sizes, and what it grew by.

Command: python experiments/memory.py [--few=2000] [--many=10000]
Images are one small PNG under so many names (hard links) as long as those of photographs. tracemalloc counts what
Python and NumPy allocate; of pyarrow and the decoders, which hold some images at a time, it sees nothing.
Writes experiments/results/memory.json.
"""

import argparse
import os
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from provenance import ROOT, provenance

from wastejax.auditing.findings import audit
from wastejax.config import apply_overrides, load_recipe
from wastejax.data import pipeline
from wastejax.data.collections.shards import PREFIX, Rows, write_shards
from wastejax.data.duplicates import group_duplicates, scan
from wastejax.data.prepare import prepare
from wastejax.data.sources import open_folder
from wastejax.data.split import SPLITS
from wastejax.files import write_json

RESULTS = Path(__file__).resolve().parent / "results"


def draw(folder: Path, count: int) -> Path:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    folder.mkdir(parents=True)
    Image.fromarray(image).save(folder / "one.png")
    for i in range(count):
        path = folder / "data" / f"class_{i % 10}" / f"IMG_20261129_{i:09}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / "one.png", path)
    return folder / "data"


def peak(work: Callable[[], Any]) -> tuple[int, Any]:
    """Returns the largest number of bytes that were allocated at once, and the result."""
    tracemalloc.start()
    result = work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most, result


def measure(folder: Path, count: int) -> dict[str, int]:
    """Returns the peak of each step at this number of images, bytes."""
    sys.path.insert(0, str(ROOT / "tests" / "deployment"))
    sys.path.insert(0, str(ROOT / "tests"))
    import test_many

    from wastejax.deployment.images import find
    from wastejax.deployment.many import job

    data = draw(folder, count)
    found = {}
    found["list a folder"], source = peak(lambda: open_folder(data))
    found["decode and hash"], _ = peak(lambda: scan(source, folder / "cache"))
    found["hashes from the cache"], _ = peak(lambda: scan(source, folder / "cache"))
    rng = np.random.default_rng(1)
    phash = rng.integers(2**64, size=count, dtype=np.uint64)
    gray = rng.integers(256, size=(count, 32, 32), dtype=np.uint8)
    found["group near-duplicates"], _ = peak(lambda: group_duplicates(phash, gray))
    found["audit, all of it"], _ = peak(lambda: audit(source, folder / "cache"))
    splits = np.array(SPLITS)[np.arange(count) // 10 % 5 % 3]
    rows = Rows(source, np.arange(count), splits, phash)
    found["shard, without looking for near-duplicates"], _ = peak(
        lambda: write_shards(folder / "shards", rows)
    )
    config = load_recipe("mobilevit_ir")
    apply_overrides(config, [f"--config.data.dir={data}", "--config.data.split.group=none"])
    found["start training from a folder"], _ = peak(lambda: prepare(config.data, 17, None))
    config = load_recipe("mobilevit_ir")
    apply_overrides(config, [f"--config.data.source={PREFIX}{folder / 'shards'}"])

    def start() -> Any:
        opened = prepare(config.data, 17, None)
        train = pipeline.compact(opened.indices("train"))
        images = pipeline.TrainingImages(pipeline.Reader(opened.source), train, None, 64, 17)
        order = images.order()
        return opened, images, order, order[0]

    found["start training from shards"], _ = peak(start)
    job.load_engine = lambda *arguments: test_many.mean_colors()
    (folder / "model.onnx").write_bytes(b"a model")
    found["predict: names"], _ = peak(lambda: find([str(data)], lambda _: None))
    asked = job.Asked(str(folder / "model.onnx"), reject_below=0.5)
    found["predict --out"], _ = peak(
        lambda: job.predict_parts([str(data)], folder / "out", asked, part_size=1000)
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=2_000)
    parser.add_argument("--many", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch) / "imports", 100)
        few = measure(Path(scratch) / "few", args.few)
        many = measure(Path(scratch) / "many", args.many)
    rows = {
        name: {
            "peak_bytes": many[name],
            "bytes_an_image": round((many[name] - few[name]) / (args.many - args.few), 1),
        }
        for name in many
    }
    said = provenance("python experiments/memory.py " + " ".join(sys.argv[1:]))
    write_json(RESULTS / "memory.json", {**said, "images": [args.few, args.many], "steps": rows})
    for name, row in rows.items():
        print(name, row)


if __name__ == "__main__":
    main()
