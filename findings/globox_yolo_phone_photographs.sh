#!/bin/sh
# globox 2.9.0 with supervision 0.31.2: AnnotationSet.from_yolo_v5 scales the labels, which are fractions of the image
# as it is seen, by the width and height in the JPEG's header, and does not look at the EXIF orientation beside them.
# Phones store a photograph that was taken upright as a lying one with orientation 6. Its boxes come out elsewhere and
# in other proportions, and save_coco writes them with width and height exchanged, without a word, whereas supervision,
# OpenCV, browsers and labeling tools take the photograph as upright. One would have guessed that images which are
# opened for nothing but their size are measured as all those see them.
# Seen: of one can, labeled twice, on the same photograph turned by EXIF and turned in its pixels, supervision reads the
# same box both times, 39 5 51 15 of 60 x 100; globox that for the latter, and 65 3 85 9 of 100 x 60 for the former: it
# does not touch the can in any pixel. The same labels written to COCO and read with supervision keep the wrong place.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q globox==2.9.0 supervision==0.31.2
cd "$folder"
venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
import json
from pathlib import Path

import numpy as np
import supervision as sv
from globox import AnnotationSet
from PIL import Image, ImageOps

LEFT, TOP, RIGHT, BOTTOM = can = (39, 5, 51, 15)  # of the photograph as it is seen, 60 wide and 100 high
Path("images").mkdir()
Path("labels").mkdir()
seen = np.full((100, 60, 3), 255, np.uint8)
seen[TOP:BOTTOM, LEFT:RIGHT] = 200, 0, 0
upright = Image.fromarray(seen)
exif = Image.Exif()
exif[0x0112] = 6  # to be turned clockwise by a quarter
upright.save("images/pixels.jpg", quality=95)
upright.transpose(Image.Transpose.ROTATE_90).save("images/exif.jpg", exif=exif, quality=95)
label = f"0 {(LEFT + RIGHT) / 120} {(TOP + BOTTOM) / 200} {(RIGHT - LEFT) / 60} {(BOTTOM - TOP) / 100}\n"
for name in ("pixels", "exif"):
    with Image.open(f"images/{name}.jpg") as image:
        shown = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert shown.shape == seen.shape and shown[10, 45, 1] < 60 < 200 < shown[50, 20, 1]
    Path(f"labels/{name}.txt").write_text(label)
Path("data.yaml").write_text("nc: 1\nnames: [can]\n")


def by_supervision(found):
    return {
        Path(path).stem: (image.shape[1::-1], tuple(np.rint(boxes.xyxy[0]).astype(int).tolist()))
        for path, image, boxes in found
    }


read = AnnotationSet.from_yolo_v5("labels", image_folder="images")
read.save_coco("globox.json", label_to_id={"0": 1}, imageid_to_id={"pixels.jpg": 1, "exif.jpg": 2})
by_globox = {Path(one.image_id).stem: (one.image_size, tuple(round(x) for x in one.boxes[0].ltrb)) for one in read}
direct = by_supervision(sv.DetectionDataset.from_yolo("images", "labels", "data.yaml"))
passed_on = by_supervision(sv.DetectionDataset.from_coco("images", "globox.json"))
images = json.loads(Path("globox.json").read_text())["images"]
written = {Path(one["file_name"]).stem: (one["width"], one["height"]) for one in images}
for name in ("pixels", "exif"):
    print(f"{name}: globox {by_globox[name]}, supervision {direct[name]}, by way of globox {passed_on[name]}")
right, wrong = ((60, 100), can), ((100, 60), (65, 3, 85, 9))
assert direct == {"pixels": right, "exif": right}, direct
assert by_globox == {"pixels": right, "exif": wrong}, by_globox
assert written == {"pixels": (60, 100), "exif": (100, 60)}, written
assert passed_on == {"pixels": right, "exif": ((60, 100), wrong[1])}, passed_on
PYTHON
test "$(grep -ci 'exif\|orientation' log)" = 0
echo "globox 2.9.0 puts YOLO's boxes elsewhere on photographs that EXIF turns; supervision 0.31.2 does not"
