"""COCO: one JSON of images, boxes and categories; also as Roboflow exports it, one in each split's folder."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wastejax.data.formats.boxes import Box, Corners, Reading, Tag
from wastejax.data.formats.boxes.find import Found, content_of, ending_with, place_of, placed
from wastejax.data.formats.class_folders import role_of
from wastejax.data.formats.source import Source
from wastejax.data.formats.splits import all_or_none, keep_split
from wastejax.data.formats.walk import not_read, walk
from wastejax.errors import ConfigError

IN_FOLDER = "_annotations.coco.json"  # Roboflow's name
# Photographs in each folder that may be theirs, spread over all: disks take long to answer.
_MOST_LOOKED_FOR = 256
_PREFIX = "instances_"  # what the splits' names follow in COCO's own, in annotations/


def open_coco(path: Path, key: str, reading: Reading, splits: Mapping[Path, str] | None = None) -> Source:
    """Opens a COCO file, or the COCO files of a folder's splits.

    They are those of `coco_files`, or the given ones with their `splits`, where they have other names.
    """
    root = path if path.is_dir() else path.parent
    if splits is None:
        files = coco_files(path) if path.is_dir() else [path]
        splits = {file: _split(file) if len(files) > 1 else "" for file in files}
    found = Found()
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
        called = _by_id(content["images"], "file_name", f"{file}: image", key)
        sizes = {image["id"]: _size(image) for image in content["images"]}
        images = {number: (name, sizes[number]) for number, name in called.items()}
        names = _by_id(content["categories"], "name", f"{file}: category", key)
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


def _by_id(entries: list[dict[str, Any]], field: str, what: str, key: str) -> dict[Any, str]:
    """Returns the name of each id.

    Raises:
        ConfigError: an id has two names, as in files that were put together as they are: whose are its boxes?
    """
    found: dict[Any, str] = {}
    for entry in entries:
        number, name = entry["id"], str(entry[field])
        if (before := found.setdefault(number, name)) != name:
            raise ConfigError(
                key,
                f"{what} {number!r} is {before!r} and {name!r}; give each an id of its own, or the files that "
                "were put together one by one",
            )
    return found


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
    """Finds the photographs: in the one of COCO's folders that has most of them, else by their names.

    Raises:
        ConfigError: none is there, or their names alone do not say which is which.
    """
    stem = re.sub(r"^(instances|annotations|labels)_", "", file.stem)
    own, above = file.parent, file.parent.parent
    folders = [own, own / "images", own / "data"]
    folders += [above, above / "images", above / stem, above / "images" / stem]
    some = names[:: -(-len(names) // _MOST_LOOKED_FOR) or 1]
    counts = [sum(place_of(name, folder).is_file() for name in some) for folder in folders]
    if 2 * max(counts) <= len(some):  # a few may be copies of others, which lie elsewhere
        try:
            return _by_name(file, names, key)
        except ConfigError:
            if not any(counts):
                raise
    # Those that are not there are named with all that cannot be read.
    best = folders[counts.index(max(counts))]
    return {name: place_of(name, best) for name in names}


def _by_name(file: Path, names: list[str], key: str) -> dict[str, Path]:
    """Returns where photographs lie below the folder of a file, or else below the one above it.

    Raises:
        ConfigError: one of them is not there, or not certain.
    """
    missing: list[str] = []
    for folder in (file.parent, file.parent.parent):
        below: dict[str, list[Path]] = {}
        for parts in walk(folder, key).images:
            below.setdefault(parts[-1], []).append(folder.joinpath(*parts))
        spelled = {name: name if Path(name).name in below else name.replace("\\", "/") for name in names}
        if (place := placed(spelled.values(), below)) is not None:
            return {name: place[spelled[name]] for name in names}
        missing = missing or [
            name for name, said in spelled.items() if not ending_with(said, below.get(Path(said).name, ()))
        ]
    for name in names:
        if problem := not_read(name):
            raise ConfigError(key, f"{file}: its image {name!r} {problem}")
    such = (missing or names)[:1]
    raise ConfigError(key, f"{file}: its images, such as {such}, are not found beside it; put them there")
