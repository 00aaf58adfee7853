#!/bin/sh
# label-studio-sdk 2.1.2 with pycocotools 2.0.11: Label Studio's COCO export counts annotations from 0, and COCOeval takes
# a matched id of 0 for "not matched". The first object of an export is therefore a miss that no detector can mend, and
# whoever finds it is charged with a false alarm. Detections that equal the annotations get an AP of 0.67 instead of 1
# below, as the class whose only object is the first one gets 0; with ids counted from 1 all is 1. pycocotools loads the
# file without a word and COCO's description of the format asks for an id, not for one above 0; in a file of thousands
# the one object only makes the score a little lower, and that of a rare class that happens to come first much lower.
# faster-coco-eval 1.8.0 gives the same numbers, but warns of them.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q label-studio-sdk==2.1.2 pycocotools==2.0.11 faster-coco-eval==1.8.0
cd "$folder"
venv/bin/python - <<'END' >log 2>&1 || { cat log; exit 1; }
import copy
import json
import warnings

import faster_coco_eval
from label_studio_sdk.converter import Converter
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("battery", "can", "glass")
SHOWN = ["battery"] + ["can", "glass"] * 5  # of each photograph the one object; the only battery is drawn first
tasks = []
for number, name in enumerate(SHOWN, 1):
    file = f"{number}.png"
    Image.new("RGB", (200, 200)).save(file)
    value = {"x": 10, "y": 10, "width": 50, "height": 40, "rotation": 0, "rectanglelabels": [name]}
    region = {"id": "r1", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value}
    region |= {"original_width": 200, "original_height": 200}
    annotation = {"id": number, "created_at": "2026-11-01T10:00:00Z", "was_cancelled": False, "result": [region]}
    tasks.append({"id": number, "data": {"image": file}, "annotations": [annotation]})
with open("tasks.json", "w") as file:
    json.dump(tasks, file)
labels = "".join(f'<Label value="{name}"/>' for name in NAMES)
shapes = f'<RectangleLabels name="label" toName="image">{labels}</RectangleLabels>'
config = f'<View><Image name="image" value="$image"/>{shapes}</View>'
Converter(config, ".", download_resources=False).convert_to_coco("tasks.json", "coco", is_dir=False)
with open("coco/result.json") as file:
    exported = json.load(file)
assert [a["id"] for a in exported["annotations"]] == list(range(11))
counted = copy.deepcopy(exported)
for annotation in counted["annotations"]:
    annotation["id"] += 1


def scores(content, coco, evaluate):
    """Returns the AP of perfect detections, over all classes and of each, and whether something warned of id 0."""
    with open("truth.json", "w") as file:
        json.dump(content, file)
    same = [{k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.9} for a in content["annotations"]]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        truth = coco("truth.json")
        evaluation = evaluate(truth, truth.loadRes(same), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    names = [category["name"] for category in truth.loadCats(truth.getCatIds())]
    each = {name: round(float(precision[:, :, i].mean()), 2) for i, name in enumerate(names)}
    return round(float(evaluation.stats[0]), 2), each, any("id 0" in str(warning.message) for warning in told)


found = {
    "as exported": scores(exported, COCO, COCOeval),
    "counted from 1": scores(counted, COCO, COCOeval),
    "as exported, faster-coco-eval": scores(exported, faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}
for name, (mean, each, warned) in found.items():
    print(f"FOUND {name}: {mean} {each}, {'warned' if warned else 'not warned'}")
low = (0.67, {"battery": 0.0, "can": 1.0, "glass": 1.0})
assert found["as exported"] == (*low, False), found
assert found["counted from 1"] == (1.0, dict.fromkeys(NAMES, 1.0), False), found
assert found["as exported, faster-coco-eval"] == (*low, True), found
END
sed -n 's/^FOUND //p' log
echo "pycocotools 2.0.11 counts the first object of Label Studio's COCO export as never found"
