"""COCO: one JSON of images, boxes and categories; also as Roboflow exports it, one in each split's folder."""

import json
import re
from pathlib import Path
from typing import Any

from wastejax.data.formats.boxes import Box, Corners, Reading, Tag
from wastejax.data.formats.boxes.find import Found, content_of, ending_with, placed
from wastejax.data.formats.class_folders import role_of
from wastejax.data.formats.source import Source
from wastejax.data.formats.splits import all_or_none, keep_split
from wastejax.data.formats.walk import not_read, walk
from wastejax.errors import ConfigError

IN_FOLDER = "_annotations.coco.json"  # Roboflow's name
_PREFIX = "instances_"  # what the splits' names follow in COCO's own, in annotations/


def open_coco(path: Path, key: str, reading: Reading) -> Source:
    """Opens a COCO file, or the COCO files of a folder's splits.

    Args:
        path: the JSON, or a folder, see `coco_files`.
        key: what to call it in error messages.
        reading: what becomes of the boxes.

    Raises:
        ConfigError: it is no COCO file, has no box that can be used, or is of no split beside those of splits.
    """
    if path.is_dir():
        files, root = coco_files(path), path
    else:
        files, root = [path], path.parent
    found = Found()
    splits = {file: _split(file) if len(files) > 1 else "" for file in files}
    all_or_none(
        ((file.relative_to(root).as_posix(), split) for file, split in splits.items()), str(root), key
    )
    for file, split in splits.items():
        _read(file, split, found, key)
    return found.as_source("COCO", root, reading, key)


def coco_files(folder: Path) -> list[Path]:
    """Returns the COCO files of a folder: as Roboflow exports them, or as COCO itself has them; none of others."""
    top = [folder / IN_FOLDER] if (folder / IN_FOLDER).is_file() else sorted(folder.glob(f"*/{IN_FOLDER}"))
    return top or sorted((folder / "annotations").glob(f"{_PREFIX}*.json"))


def _split(file: Path) -> str:
    name = file.parent.name if file.name == IN_FOLDER else file.stem.removeprefix(_PREFIX)
    return role_of(name) or ""


def _read(file: Path, split: str, found: Found, key: str) -> None:
    """Adds the photographs and labels of one file; a box that cannot be used is a tag."""
    with content_of(f"{file} is no COCO file with images, categories and annotations", key):
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        images = {image["id"]: (str(image["file_name"]), _size(image)) for image in content["images"]}
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        annotations = list(content["annotations"])
        place = _places(file, [name for name, _ in images.values()], key)
    for name, photograph in place.items():
        keep_split(found.photographs, photograph, split, name, file, key)
    for number, annotation in enumerate(annotations):
        with content_of(f"{file}: annotation {number} of {len(annotations)}", key):
            if annotation["image_id"] not in images:
                raise ValueError("names no image that is listed")
            if annotation["category_id"] not in names:
                raise ValueError("names no category that is listed")
            (image, size), label = images[annotation["image_id"]], names[annotation["category_id"]]
            reason = "crowd" if annotation.get("iscrowd") else "rotated" if _is_rotated(annotation) else ""
            corners = None if reason else _corners(annotation)
            if corners is None:
                found.dropped[reason or "without a box"] += 1
                found.things.append(Tag(str(place[image]), label))
                continue
            if size is None:
                raise ValueError(f"its image {image!r} has no width and height")
            w, h = size
            shares = (corners[0] / w, corners[1] / h, corners[2] / w, corners[3] / h)
            found.things.append(Box(str(place[image]), label, shares, size))


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    """Returns width and height, which pandas writes as 640.0; None where there are none."""
    sides = [image.get("width"), image.get("height")]
    whole = [int(side) for side in sides if isinstance(side, int | float) and side > 0 and side == side // 1]
    return (whole[0], whole[1]) if len(whole) == 2 else None


def _is_rotated(annotation: dict[str, Any]) -> bool:
    box, attributes = annotation.get("bbox") or (), annotation.get("attributes") or {}
    return len(box) == 5 or bool(isinstance(attributes, dict) and attributes.get("rotation"))


def _corners(annotation: dict[str, Any]) -> Corners | None:
    """Returns the corners in pixels, of the box or of the polygons; None where there is neither."""
    try:
        if annotation.get("bbox"):
            x, y, w, h = (float(v) for v in annotation["bbox"])
            return x, y, x + w, y + h
        points = [float(v) for polygon in annotation.get("segmentation") or () for v in polygon]
    except (TypeError, ValueError):
        return None
    return (min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])) if points[:5] else None


def _places(file: Path, names: list[str], key: str) -> dict[str, Path]:
    """Finds the photographs: beside the JSON or where COCO has them, else by their names alone."""
    stem = re.sub(r"^(instances|annotations|labels)_", "", file.stem)
    above = file.parent.parent
    folders = [
        file.parent,
        file.parent / "images",
        above,
        above / "images",
        above / stem,
        above / "images" / stem,
    ]
    for folder in folders:
        if names and (folder / names[0]).is_file():
            return {name: folder / name for name in names}
    found: dict[str, list[Path]] = {}
    missing: list[str] = []
    for folder in (file.parent, above):
        for parts in walk(folder, key).images:
            found.setdefault(parts[-1], []).append(folder.joinpath(*parts))
        if place := placed(names, found):
            return place
        missing = missing or [name for name in names if not ending_with(name, found.get(Path(name).name, ()))]
        found.clear()
    for name in names:
        if problem := not_read(name):
            raise ConfigError(key, f"{file}: its image {name!r} {problem}")
    such = (missing or names)[:1]
    raise ConfigError(key, f"{file}: its images, such as {such}, are not found beside it; put them there")
