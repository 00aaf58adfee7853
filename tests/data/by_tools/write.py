"""Writes small sets of drawn images with the tools that other people write theirs with.

Command: python tests/data/by_tools/write.py OUT [NAME …], with the packages of the chosen sets installed, in any
environment. What is committed beside this file was written so; `tools.json` says by which version of which tool.

Each object is a rectangle of its class's color on white ground, at whole pixels, so that a crop is right where it
is of that color alone and of the rectangle's size.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

Corners = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom are the first pixels beyond
COLORS = {"can": (200, 0, 0), "glass": (0, 160, 0), "paper": (0, 0, 220)}
CLASSES = tuple(COLORS)
SIZE = (64, 48)
PHOTOS: dict[str, list[tuple[str, Corners]]] = {
    "a.png": [("can", (4, 6, 24, 20)), ("glass", (30, 10, 50, 40))],
    "b.png": [("paper", (0, 0, 16, 12))],  # in the upper left corner
    "c.png": [("glass", (40, 30, 64, 48))],  # in the lower right corner
    "d.png": [("can", (10, 10, 31, 31)), ("paper", (33, 2, 60, 11))],
}
WHOLE = {"a.png": "can", "b.png": "paper", "c.png": "glass", "d.png": "can"}  # where an image has one label


def draw(folder: Path) -> list[Path]:
    """Saves the images."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, objects in PHOTOS.items():
        image = Image.new("RGB", SIZE, "white")
        for label, (left, top, right, bottom) in objects:
            ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=COLORS[label])
        image.save(folder / name)
    return [folder / name for name in PHOTOS]


def _detections(out: Path):
    import supervision as sv

    paths = [str(path) for path in draw(out)]
    found = {
        path: sv.Detections(
            xyxy=np.array([corners for _, corners in PHOTOS[Path(path).name]], float),
            class_id=np.array([CLASSES.index(label) for label, _ in PHOTOS[Path(path).name]]),
        )
        for path in paths
    }
    return sv.DetectionDataset(list(CLASSES), paths, found)


def coco(out: Path) -> None:
    _detections(out / "given").as_coco(str(out / "images"), str(out / "annotations.json"))
    _remove(out / "given")


def yolo(out: Path) -> None:
    """Supervision leaves the splits to its user: a line of data.yaml."""
    _detections(out / "given").as_yolo(str(out / "images"), str(out / "labels"), str(out / "data.yaml"))
    _remove(out / "given")
    with (out / "data.yaml").open("a") as file:
        file.write("train: images\n")


def voc(out: Path) -> None:
    _detections(out / "given").as_pascal_voc(str(out / "JPEGImages"), str(out / "Annotations"))
    _remove(out / "given")


def _datumaro(out: Path, form: str, val: tuple[str, ...] = ()) -> None:
    import datumaro as dm

    draw(out / "given")
    items = [
        dm.DatasetItem(
            id=Path(name).stem,
            subset="val" if name in val else "train",
            media=dm.Image.from_file(path=str(out / "given" / name)),
            annotations=[
                dm.Bbox(x0, y0, x1 - x0, y1 - y0, label=CLASSES.index(label), id=i, group=i)
                for i, (label, (x0, y0, x1, y1)) in enumerate(objects, 1)
            ],
        )
        for name, objects in PHOTOS.items()
    ]
    dm.Dataset.from_iterable(items, categories=list(CLASSES)).export(str(out), form, save_media=True)
    _remove(out / "given")


def coco_of_datumaro(out: Path) -> None:
    _datumaro(out, "coco")


def yolo_of_datumaro(out: Path) -> None:
    _datumaro(out, "yolo_ultralytics", val=("d.png",))


def voc_of_datumaro(out: Path) -> None:
    _datumaro(out, "voc")


def cvat(out: Path) -> None:
    """Datumaro is what CVAT itself exports by."""
    _datumaro(out, "cvat")


def label_studio(out: Path) -> None:
    """COCO, made Label Studio's tasks by its importer; these, as if a person had agreed, are exported as JSON."""
    from label_studio_sdk.converter.imports.coco import convert_coco_to_ls

    draw(out / "images")
    images = [
        {"id": i, "file_name": name, "width": SIZE[0], "height": SIZE[1]} for i, name in enumerate(PHOTOS)
    ]
    boxes = [
        {"id": 10 * i + k, "image_id": i, "category_id": CLASSES.index(label), "iscrowd": 0,
         "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": [], "area": (x1 - x0) * (y1 - y0)}
        for i, objects in enumerate(PHOTOS.values()) for k, (label, (x0, y0, x1, y1)) in enumerate(objects)
    ]  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    given = out / "given.json"
    given.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    convert_coco_to_ls(
        str(given),
        str(out / "project.json"),
        out_type="annotations",
        image_root_url="/data/local-files/?d=images",
    )
    for name in ("given.json", "project.label_config.xml"):
        (out / name).unlink(missing_ok=True)


def yolo_of_label_studio(out: Path) -> None:
    """What the button "YOLO" of Label Studio makes of the tasks above: classes.txt and no data.yaml."""
    from label_studio_sdk.converter import Converter

    label_studio(out / "given")
    config = "".join(f'<Label value="{name}"/>' for name in CLASSES)
    shapes = f'<RectangleLabels name="label_rectangles" toName="image">{config}</RectangleLabels>'
    given = out / "given" / "project.json"
    numbered = [task | {"id": number} for number, task in enumerate(json.loads(given.read_text()), 1)]
    given.write_text(json.dumps(numbered))  # as they are once imported
    converter = Converter(
        f'<View><Image name="image" value="$image"/>{shapes}</View>', str(out), download_resources=False
    )
    converter.convert_to_yolo(str(given), str(out), is_dir=False)
    draw(out / "images")
    shutil.rmtree(out / "given")


def _dataset(paths: list[Path]):
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    rows = {"image": [str(path) for path in paths], "label": [CLASSES.index(WHOLE[p.name]) for p in paths]}
    return Dataset.from_dict(
        rows, features=Features({"image": ImageFeature(), "label": ClassLabel(names=list(CLASSES))})
    )


def parquet(out: Path) -> None:
    """As Hugging Face's `datasets` publishes them (push_to_hub): bytes, and numbers of a ClassLabel."""
    from datasets.table import embed_table_storage

    given = _dataset(draw(out / "given"))
    embedded = given.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)
    (out / "data").mkdir()
    embedded.to_parquet(str(out / "data" / "train-00000-of-00001.parquet"))
    _remove(out / "given")


def parquet_of_paths(out: Path) -> None:
    """As `Dataset.to_parquet` writes images that are files: their paths alone."""
    os.chdir(out)
    _dataset(draw(Path("images"))).to_parquet("list.parquet")


def image_folder(out: Path) -> None:
    """Hugging Face's image folder: images, and a metadata file that `datasets` writes."""
    from datasets import Dataset

    draw(out)
    Dataset.from_dict({"file_name": list(WHOLE), "label": list(WHOLE.values())}).to_json(
        str(out / "metadata.jsonl")
    )


SETS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "coco": ("supervision", coco),
    "yolo": ("supervision", yolo),
    "voc": ("supervision", voc),
    "coco_of_datumaro": ("datumaro", coco_of_datumaro),
    "yolo_of_datumaro": ("datumaro", yolo_of_datumaro),
    "voc_of_datumaro": ("datumaro", voc_of_datumaro),
    "cvat": ("datumaro", cvat),
    "label_studio": ("label-studio-sdk", label_studio),
    "yolo_of_label_studio": ("label-studio-sdk", yolo_of_label_studio),
    "parquet": ("datasets", parquet),
    "parquet_of_paths": ("datasets", parquet_of_paths),
    "image_folder": ("datasets", image_folder),
}


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def main() -> None:
    out, *names = sys.argv[1:]
    out = str(Path(out).resolve())
    about = Path(out) / "tools.json"
    tools = json.loads(about.read_text()) if about.is_file() else {}
    for name in names or SETS:
        tool, write = SETS[name]
        (Path(out) / name).mkdir(parents=True)
        write(Path(out) / name)
        tools[name] = f"{tool} {version(tool)}"
        about.write_text(json.dumps(tools, indent=2) + "\n")


if __name__ == "__main__":
    main()
