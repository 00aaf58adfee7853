#!/bin/sh
# datasets 5.2.0: load_dataset("imagefolder", data_dir=...) takes splits from words ("train", "test", "val", "eval",
# "dev" and so on) in the names of all folders and files, class folders included, and as soon as one file has such a
# word it leaves out whatever has none. Digits around a word count as its ends, so that COCO's own names,
# COCO_train2014_..., have one. Who adds such images to a collection of phone photographs trains on COCO alone: same
# classes, labels and split "train", and no line in the log, down to debug, tells of the photographs. One file
# "can-test.png" makes a set of that one image, and a class folder "covid_test" one of that class, in a split "test" and
# both without labels. The documentation says that a split is found by these words, not that whatever has none is left
# out. One would have guessed that the rest goes to "train", where it goes if no name has such a word, and that class
# folders only name classes.
# With data_files={"train": "folder/**"} all images are read.
# Seen: 75 images are read as 75; of these, 15 named by COCO, 15 alone are; one "can-test.png" leaves 1.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pillow
cd "$folder"
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
from pathlib import Path

import datasets
from PIL import Image

datasets.logging.set_verbosity_debug()
PHOTOGRAPHS, FURTHER = 20, 5  # of each class


def loaded(name, further, folders=("bottle", "can", "paper"), renamed=None, **options):
    """Makes class folders and returns of each split how many images were read, and their classes if there are any."""
    for folder in folders:
        place = Path(name, folder)
        place.mkdir(parents=True)
        for number in range(PHOTOGRAPHS):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(place / f"IMG_{number:04}.png")
        for number in range(FURTHER):
            Image.new("RGB", (8, 8), (0, number, 0)).save(place / further.format(number))
    if renamed:
        Path(name, renamed[0]).rename(Path(name, renamed[1]))
    read = datasets.load_dataset("imagefolder", **(options or {"data_dir": name}))
    return {
        split: (len(rows), rows.features["label"].names if "label" in rows.features else None)
        for split, rows in read.items()
    }


plain, coco = "COCO_{:012}.png", "COCO_train2014_{:012}.png"
classes = ["bottle", "can", "paper"]
cases = {
    "no word": (loaded("no_word", plain), {"train": (75, classes)}),
    "names of COCO": (loaded("coco", coco), {"train": (15, classes)}),
    "the same, as data_files": (
        loaded("again", coco, data_files={"train": "again/**"}),
        {"train": (75, classes)},
    ),
    "one file": (
        loaded("one", plain, renamed=("can/IMG_0003.png", "can/can-test.png")),
        {"test": (1, None)},
    ),
    "a class folder": (
        loaded("kits", plain, folders=("bottle", "can", "covid_test")),
        {"test": (25, None)},
    ),
}
for name, (found, _) in cases.items():
    print(f"{name}: {found}")
for name, (found, expected) in cases.items():
    assert found == expected, (name, found, expected)
PYTHON
if grep -i 'IMG_\|ignor\|left out\|skip' log; then exit 1; fi
echo "datasets 5.2.0 reads of 75 images in class folders 15, those whose names have a word for a split, or a single one"
