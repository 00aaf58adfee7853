"""Is each object of a video counted once? Clips of objects that pass on a belt, composed of studio images.

Command: python experiments/objects.py --data=HOUSEHOLD_WASTE --state=DIR [--clips=6]
Objects are cut out along their white ground and pass a ground that is drawn, in lanes, at 5 frames a second; they
are found by the bundled model and followed by `wastejax.deployment.regions.tracking`. Boxes are kept in DIR, the
frames are not; what is done is skipped. The bundled model has seen most of these images in training, so that this
measures counting, and finding at its best. Writes experiments/results/objects.json.
"""

import argparse
import json
import random
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from experiments.provenance import ROOT, provenance
from experiments.regions import cut_out, ground
from wastejax.data.images import decode
from wastejax.data.sources import open_folder
from wastejax.deployment.engines import load_engine
from wastejax.deployment.regions import Region, find_regions
from wastejax.deployment.regions.tracking import track

RESULT = ROOT / "experiments" / "results" / "objects.json"
SIZE = (640, 480)
EVERY = 0.2  # seconds
SPEEDS = (100, 200)  # pixels a second, by turns
OBJECTS = 6  # of a clip
LANES = (30, 250)  # upper edge, pixels
SIDE = 190  # of an object, the longer one, pixels
APART = 240  # between an object and the next, pixels


class Thing(NamedTuple):
    """An object that passes."""

    label: str
    image: Image.Image  # RGBA
    start: float  # second at which its left edge would be at -SIDE
    top: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=6)
    args = parser.parse_args()
    predictor = load_engine(None)
    rows = []
    for number in range(args.clips):
        speed = SPEEDS[number % len(SPEEDS)]
        things = choose_things(args.data, speed, number)
        kept = args.state / f"objects_{number}.json"
        frames = json.loads(kept.read_text()) if kept.is_file() else []
        for seconds, photo in list(clip(things, speed, number))[len(frames) :]:
            frames.append((seconds, [list(region) for region in find_regions(predictor, photo)]))
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(frames))
        rows.append({"speed": speed} | score(things, frames))
        print(rows[-1], flush=True)
    total: dict[str, Any] = {key: sum(row[key] for row in rows) for key in rows[0] if key != "speed"}
    command = provenance(shlex.join(["python", *sys.argv]))
    RESULT.write_text(json.dumps(command | {"total": total, "clips": rows}, indent=2) + "\n")


def choose_things(data: Path, speed: float, seed: int) -> list[Thing]:
    """Objects of different classes, in lanes, one after the other."""
    rng = random.Random(seed)
    source = open_folder(data)
    order = list(range(len(source)))
    rng.shuffle(order)
    things: list[Thing] = []
    for index in order:
        label = source.classes[source.labels[index]]
        cut = cut_out(decode(source.read(index), min_side=2 * SIDE))
        if cut is None or label in [thing.label for thing in things]:
            continue
        scale = SIDE / max(cut.size)
        cut = cut.resize((max(1, round(scale * cut.width)), max(1, round(scale * cut.height))))
        number = len(things)
        things.append(Thing(label, cut, APART * (number / 2) / speed, LANES[number % 2]))
        if len(things) == OBJECTS:
            break
    return things


def clip(things: list[Thing], speed: float, seed: int) -> Iterator[tuple[float, Image.Image]]:
    """Second and frame, until the last object is gone."""
    belt = ground("plain", SIZE, random.Random(seed))
    end = max(thing.start for thing in things) + (SIZE[0] + SIDE) / speed
    for number in range(round(end / EVERY)):
        frame = belt.copy()
        for thing in things:
            left = speed * (number * EVERY - thing.start) - SIDE
            if -SIDE < left < SIZE[0]:
                frame.paste(thing.image, (round(left), thing.top), thing.image)
        yield number * EVERY, frame.convert("RGB")


def score(things: list[Thing], frames: list[Any]) -> dict[str, int]:
    """Objects that there are, that are counted, of the right class; and boxes in all frames, the naive count."""
    found = [(seconds, [Region(*one[:3], tuple(one[3])) for one in regions]) for seconds, regions in frames]
    counted = Counter(one.label for one in track(found))
    truth = Counter(thing.label for thing in things)
    return {
        "objects": len(things),
        "counted": counted.total(),
        "right_class": (counted & truth).total(),
        "frames": len(frames),
        "boxes": int(np.sum([len(regions) for _, regions in frames])),
    }


if __name__ == "__main__":
    main()
