#!/bin/sh
# label-studio-sdk 2.1.2: of its box exporters only YOLO OBB knows where a turned rectangle of Label Studio lies. COCO turns
# it in per cents of the image, as if every image were square: on one of 1600 x 400 a bottle that stands upright comes out
# lying, four times as wide and a quarter as high as what was drawn. YOLO and Pascal VOC leave
# the angle away and write the box as it was before it was turned about its corner, also on square images. All three look
# like plain boxes, nothing is logged, and a YOLO and a COCO export of one project disagree. One would have guessed that a
# format without angles gets the upright box around the turned one, or a word that it was left out.
# Seen, left, top, right and bottom in pixels, on 1600 x 400: drawn and YOLO OBB 700 50 800 350, COCO 400 50 800 125,
# YOLO and VOC 800 50 1100 150; on 800 x 800: drawn, YOLO OBB and COCO 300 100 400 400, YOLO and VOC 400 100 700 200.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q label-studio-sdk==2.1.2
cd "$folder"
venv/bin/python - <<'END'
import json
from pathlib import Path
from xml.etree import ElementTree

from label_studio_sdk.converter import Converter
from PIL import Image

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="bottle"/></RectangleLabels></View>"""


def exported(size, corner, sides):
    """Exports one rectangle, turned clockwise by 90 degrees about its upper left corner, in four formats."""
    (w, h), (x, y), (long, short) = size, corner, sides
    work = Path(f"{w}x{h}")
    work.mkdir()
    Image.new("RGB", size).save(work / "belt.png")
    place = {"x": 100 * x / w, "y": 100 * y / h, "width": 100 * long / w, "height": 100 * short / h, "rotation": 90}
    region = {"id": "r1", "type": "rectanglelabels", "from_name": "label", "to_name": "image"}
    region |= {"original_width": w, "original_height": h, "value": place | {"rectanglelabels": ["bottle"]}}
    annotation = {"id": 1, "created_at": "2026-11-01T10:00:00Z", "was_cancelled": False, "result": [region]}
    tasks = work / "tasks.json"
    tasks.write_text(json.dumps([{"id": 1, "data": {"image": str(work / "belt.png")}, "annotations": [annotation]}]))
    converter = Converter(CONFIG, str(work), download_resources=False)
    converter.convert_to_coco(str(tasks), str(work / "coco"), is_dir=False)
    converter.convert_to_yolo(str(tasks), str(work / "yolo"), is_dir=False)
    converter.convert_to_yolo(str(tasks), str(work / "obb"), is_dir=False, is_obb=True)
    converter.convert_to_voc(str(tasks), str(work / "voc"), is_dir=False)
    found = {"drawn": (x - short, y, x, y + long)}
    points = [float(word) for word in (work / "obb/labels/belt.txt").read_text().split()[1:]]
    across, down = [w * v for v in points[::2]], [h * v for v in points[1::2]]
    found["YOLO OBB"] = (min(across), min(down), max(across), max(down))
    (box,) = (a["bbox"] for a in json.loads((work / "coco/result.json").read_text())["annotations"])
    found["COCO"] = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    cx, cy, bw, bh = (float(word) for word in (work / "yolo/labels/belt.txt").read_text().split()[1:])
    found["YOLO"] = ((cx - bw / 2) * w, (cy - bh / 2) * h, (cx + bw / 2) * w, (cy + bh / 2) * h)
    corners = ElementTree.parse(work / "voc/Annotations/belt.xml").find("object/bndbox")
    found["VOC"] = tuple(float(corners.find(name).text) for name in ("xmin", "ymin", "xmax", "ymax"))
    return {name: tuple(round(v) for v in box) for name, box in found.items()}


wide = exported((1600, 400), (800, 50), (300, 100))
square = exported((800, 800), (400, 100), (300, 100))
print("1600 x 400:", wide)
print("800 x 800:", square)
drawn, lying = (700, 50, 800, 350), (800, 50, 1100, 150)
assert wide == {"drawn": drawn, "YOLO OBB": drawn, "COCO": (400, 50, 800, 125), "YOLO": lying, "VOC": lying}, wide
drawn, lying = (300, 100, 400, 400), (400, 100, 700, 200)
assert square == {"drawn": drawn, "YOLO OBB": drawn, "COCO": drawn, "YOLO": lying, "VOC": lying}, square
END
echo "label-studio-sdk 2.1.2 writes turned rectangles where they are not: COCO unless square, YOLO and Pascal VOC always"
