"""COCO: one JSON of images, boxes and categories; also as Roboflow exports it, one in each split's folder."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from wastejax.data.formats.boxes import Annotations, Box, Corners, Reading, Tag, as_source
from wastejax.data.formats.boxes.find import relative
from wastejax.data.formats.class_folders import role_of
from wastejax.data.formats.source import Source
from wastejax.data.formats.walk import walk
from wastejax.errors import ConfigError

IN_FOLDER = "_annotations.coco.json"  # Roboflow's name


def open_coco(path: Path, key: str, reading: Reading) -> Source:
    """Opens a COCO file, or the COCO files of a folder's splits.

    Args:
        path: the JSON, or a folder that holds `_annotations.coco.json` or folders that do.
        key: what to call it in error messages.
        reading: what becomes of the boxes.

    Raises:
        ConfigError: it is no COCO file, or has no box that can be used.
    """
    if path.is_dir():
        files = [path / IN_FOLDER] if (path / IN_FOLDER).is_file() else sorted(path.glob(f"*/{IN_FOLDER}"))
        root = path
    else:
        files, root = [path], path.parent
    photographs: dict[Path, str] = {}
    found: list[Box | Tag] = []  # with whole paths
    dropped: Counter[str] = Counter()
    for file in files:
        split = role_of(file.parent.name) or "" if len(files) > 1 else ""
        found += _labels(file, split, photographs, dropped, key)
    top, below = relative(root, photographs)
    things = [thing._replace(path=below[Path(thing.path)]) for thing in found]
    annotations = Annotations(
        top,
        "COCO",
        {below[where]: split for where, split in photographs.items()},
        [thing for thing in things if isinstance(thing, Box)],
        [thing for thing in things if isinstance(thing, Tag)],
        dropped,
    )
    return as_source(annotations, reading, key)


def _labels(
    file: Path, split: str, photographs: dict[Path, str], dropped: Counter[str], key: str
) -> list[Box | Tag]:
    """Returns the labels of one file, and adds its photographs; a box that cannot be used is a tag."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in content["images"]}
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        annotations = list(content["annotations"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"lacks {error}" if isinstance(error, KeyError) else error
        raise ConfigError(
            key, f"{file} is no COCO file with images, categories and annotations: {why}"
        ) from None
    place = _places(file, [str(image.get("file_name", "")) for image in images.values()], key)
    photographs |= dict.fromkeys(place.values(), split)
    found: list[Box | Tag] = []
    for annotation in annotations:
        image, name = images.get(annotation.get("image_id")), names.get(annotation.get("category_id"))
        if image is None or name is None:
            what = "image" if image is None else "category"
            raise ConfigError(
                key, f"{file}: annotation {annotation.get('id')} names no {what} that is listed"
            )
        corners = None
        reason = "crowd" if annotation.get("iscrowd") else "rotated" if _is_rotated(annotation) else ""
        if not reason:
            corners = _corners(annotation)
            reason = "" if corners else "without a box"
        size = _size(image)
        if not reason and size is None:
            raise ConfigError(key, f"{file}: image {image.get('file_name')!r} has no width and height")
        where = str(place[str(image["file_name"])])
        if reason or corners is None or size is None:
            dropped[reason] += 1
            found.append(Tag(where, name))
            continue
        w, h = size
        shares = (corners[0] / w, corners[1] / h, corners[2] / w, corners[3] / h)
        found.append(Box(where, name, shares, size, split))
    return found


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (
        (width, height) if isinstance(width, int) and isinstance(height, int) and width * height > 0 else None
    )


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
    for folder in (file.parent, above):
        for parts in walk(folder, key).images:
            found.setdefault(parts[-1], []).append(folder.joinpath(*parts))
        if all(len(found.get(Path(name).name, ())) == 1 for name in names):
            return {name: found[Path(name).name][0] for name in names}
        found.clear()
    raise ConfigError(
        key, f"{file}: its images, such as {names[:1]}, are not found beside it; put them there"
    )
