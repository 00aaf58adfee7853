#!/bin/sh
# Pillow 13.0.0 with OpenCV 5.0.0.93 (headless): a photograph with EXIF orientation 6, saved by Pillow as JPEG, PNG, WebP
# and AVIF, comes out of cv2.imread upright, but for AVIF, which lies on its side. AVIF has properties of its own for
# turning and mirroring (irot, imir), which readers must heed; Pillow takes the orientation out of the EXIF data and
# writes them, and gives it back as EXIF orientation when it opens the file. OpenCV decodes AVIF without
# looking at them, also in 4.14.0.94. So a detector that is fed by OpenCV sees phone photographs upright until they are
# stored as AVIF, boxes drawn on the upright image then lie elsewhere, and checking the orientation with Pillow shows
# the same 6 for all four.
# Seen: OpenCV gives 60 x 100 for JPEG, PNG and WebP, and 100 x 60 for AVIF, whose upper left corner is blue, not red.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==13.0.0 opencv-python-headless==5.0.0.93
cd "$folder"
venv/bin/python - <<'END'
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

ORIENTATION = 0x0112
pixels = np.full((60, 100, 3), 255, np.uint8)
pixels[:30, :50] = 0, 0, 255  # blue at the upper left as stored,
pixels[30:, :50] = 255, 0, 0  # red below it: upright it is at the upper left, once turned clockwise by a quarter
stored = Image.fromarray(pixels)
exif = Image.Exif()
exif[ORIENTATION] = 6
NAMES = {(255, 0, 0): "red", (0, 0, 255): "blue", (255, 255, 255): "white"}


def corner(image):
    """Returns the width and height, and the color near the upper left corner."""
    near = min(NAMES, key=lambda color: np.abs(image[10, 10].astype(int) - color).sum())
    return image.shape[1], image.shape[0], NAMES[near]


found = {}
for ending in ("jpg", "png", "webp", "avif"):
    file = f"photograph.{ending}"
    stored.save(file, exif=exif)
    with Image.open(file) as image:
        said = image.getexif().get(ORIENTATION)
        upright = corner(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    read = corner(cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB))
    found[ending] = said, upright, read
    print(f"{ending}: Pillow says orientation {said}, upright {upright}; OpenCV reads {read}")
assert b"irot" in Path("photograph.avif").read_bytes()
upright, lying = (60, 100, "red"), (100, 60, "blue")
assert all(found[ending] == (6, upright, upright) for ending in ("jpg", "png", "webp")), found
assert found["avif"] == (6, upright, lying), found
END
echo "OpenCV 5.0.0.93 turns JPEG, PNG and WebP upright, but not an AVIF of Pillow 13.0.0"
