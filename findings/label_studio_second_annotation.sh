#!/bin/sh
# label-studio-sdk 2.1.2: of a photograph that was annotated twice, by a second person or by somebody who mended a copy,
# the YOLO and Pascal VOC exports hold the oldest annotation alone, and the COCO export holds all of them, each as an
# image of its own with an id of its own and the same file_name. The converter goes from the newest to the oldest, and
# each writes over the label file of the one before; that one of them was chosen as ground truth does not count. So a
# bottle that was found at the second look is in no YOLO label, and a split of the COCO file by image ids can have one
# photograph in training and test, with different boxes. Nothing is logged, and with one annotation a task all agree.
# One would have guessed at the newest or the chosen one, and at one image for one file, as in COCO's own files. YOLO's
# part is reported as HumanSignal/label-studio#5421.
# Seen: two annotations, an older of one can, and a newer, chosen one of a bottle and the can. YOLO and VOC: can. COCO:
# two images of one file, bottle and can in the first, can in the second.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q label-studio-sdk==2.1.2
cd "$folder"
venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
import io
import json
import logging
from pathlib import Path
from xml.etree import ElementTree

from label_studio_sdk.converter import Converter
from PIL import Image

CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="bottle"/><Label value="can"/></RectangleLabels></View>"""
told = io.StringIO()
logging.basicConfig(stream=told, level=logging.WARNING)


def region(label, left):
    place = {"x": left, "y": 10, "width": 10, "height": 10, "rotation": 0, "rectanglelabels": [label]}
    given = {"id": label, "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": place}
    return given | {"original_width": 400, "original_height": 300}


older = {"id": 1, "completed_by": 1, "created_at": "2026-11-01T10:00:00Z", "result": [region("can", 10)]}
newer = {"id": 2, "completed_by": 2, "created_at": "2026-11-02T10:00:00Z"}
newer |= {"result": [region("can", 11), region("bottle", 50)], "ground_truth": True}


def exported(name, *annotations):
    """Returns the labels of each image in YOLO, VOC and COCO."""
    work = Path(name)
    work.mkdir()
    Image.new("RGB", (400, 300)).save(work / "belt.png")
    task = {"id": 1, "data": {"image": str(work / "belt.png")}, "annotations": list(annotations)}
    tasks = work / "tasks.json"
    tasks.write_text(json.dumps([task]))
    converter = Converter(CONFIG, project_dir=None, download_resources=False)
    for form, convert in (("yolo", converter.convert_to_yolo), ("voc", converter.convert_to_voc)):
        convert(str(tasks), str(work / form), output_image_dir=str(work / form / "images"), is_dir=False)
    images = work / "coco" / "images"
    converter.convert_to_coco(str(tasks), str(work / "coco"), output_image_dir=str(images), is_dir=False)
    names = (work / "yolo/classes.txt").read_text().split()
    (labels,) = (work / "yolo/labels").glob("*.txt")
    (voc,) = (work / "voc").rglob("*.xml")
    coco = json.loads((work / "coco/result.json").read_text())
    kinds = {kind["id"]: kind["name"] for kind in coco["categories"]}
    of_image = {image["id"]: [] for image in coco["images"]}
    for one in coco["annotations"]:
        of_image[one["image_id"]].append(kinds[one["category_id"]])
    assert len({image["file_name"] for image in coco["images"]}) == 1
    return {
        "YOLO": [sorted(names[int(line.split()[0])] for line in labels.read_text().splitlines())],
        "VOC": [sorted(one.findtext("name") for one in ElementTree.parse(voc).findall("object"))],
        "COCO": [sorted(of_image[image]) for image in sorted(of_image)],
    }


once, twice = exported("once", newer), exported("twice", older, newer)
print("once:", once)
print("twice:", twice)
both = ["bottle", "can"]
assert once == {"YOLO": [both], "VOC": [both], "COCO": [both]}, once
assert twice == {"YOLO": [["can"]], "VOC": [["can"]], "COCO": [both, ["can"]]}, twice
assert exported("listed_otherwise", newer, older) == twice
assert "annotation" not in told.getvalue() and "overwrit" not in told.getvalue(), told.getvalue()
PYTHON
echo "label-studio-sdk 2.1.2 writes the oldest of two annotations to YOLO and VOC, both as two images to COCO"
