#!/bin/sh
# datumaro 1.13.12: rotated boxes of CVAT are read, as RotatedBbox, and left out where the set is written as COCO, Pascal
# VOC or YOLO, with no word in any log, down to debug; polygons are left out of Pascal VOC and YOLO alike. A photograph
# whose objects are all rotated becomes one that shows nothing, on which a detector is then taught to find nothing. CVAT
# lets every rectangle be turned, and one would have guessed at the upright box around it, or at its four corners as a
# polygon in COCO, which has polygons, or else at a warning. Below, one photograph has a box, a turned box and a polygon:
# all three are in what datumaro reads and in what it writes as CVAT, two in COCO, one in Pascal VOC and in YOLO.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datumaro==1.13.12
cd "$folder"
mkdir -p given/images
cat >given/train.xml <<'END'
<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><labels><label><name>can</name><attributes></attributes></label></labels></task></meta>
<image id="0" name="belt.png" width="400" height="300">
<box label="can" source="manual" occluded="0" xtl="10" ytl="10" xbr="30" ybr="40" z_order="0"></box>
<box label="can" source="manual" occluded="0" xtl="100" ytl="100" xbr="300" ybr="140" rotation="30" z_order="0"></box>
<polygon label="can" source="manual" occluded="0" points="200,200;260,200;230,260" z_order="0"></polygon>
</image></annotations>
END
venv/bin/python - 2>log <<'END' || { cat log; exit 1; }
import io
import json
import logging
import warnings
from pathlib import Path
from xml.etree import ElementTree

import datumaro as dm
from PIL import Image

Image.new("RGB", (400, 300)).save("given/images/belt.png")
told = io.StringIO()
logging.basicConfig(stream=told, level=logging.DEBUG, force=True)
given = dm.Dataset.import_from("given", "cvat")
kinds = sorted(type(shape).__name__ for item in given for shape in item.annotations)
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    for form in ("coco_instances", "voc", "yolo", "cvat"):
        given.export(form, form, save_media=True)
said = [line for line in told.getvalue().lower().splitlines() if any(word in line for word in ("rotat", "skip", "drop"))]
(coco,) = Path("coco_instances/annotations").glob("*.json")
(voc,) = Path("voc/Annotations").rglob("*.xml")
(yolo,) = Path("yolo").rglob("belt.txt")
(cvat,) = Path("cvat").glob("*.xml")
image = ElementTree.parse(cvat).find("image")
found = {
    "read": len(kinds),
    "COCO": len(json.loads(coco.read_text())["annotations"]),
    "Pascal VOC": len(ElementTree.parse(voc).findall("object")),
    "YOLO": len(yolo.read_text().splitlines()),
    "CVAT": len(image.findall("box") + image.findall("polygon")),
}
print(kinds, found, f"warnings: {[str(w.message) for w in warned]}, log: {said}")
assert kinds == ["Bbox", "Polygon", "RotatedBbox"], kinds
assert found == {"read": 3, "COCO": 2, "Pascal VOC": 1, "YOLO": 1, "CVAT": 3}, found
assert not said and not any("rotat" in str(w.message).lower() for w in warned)
END
echo "datumaro 1.13.12 leaves rotated boxes out of COCO, Pascal VOC and YOLO, and polygons out of the latter two"
