"""CVAT for images 1.1: one XML file of tags, boxes, polygons, ellipses and masks."""

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from wastejax.data.formats.boxes import Box, Corners, Reading, Tag
from wastejax.data.formats.boxes.find import Finder, Found, content_of
from wastejax.data.formats.class_folders import role_of
from wastejax.data.formats.source import Source
from wastejax.errors import ConfigError

IN_FOLDER = "annotations.xml"  # CVAT's name
_DRAWN = ("polyline", "points", "cuboid", "skeleton")  # no boxes


def open_cvat(path: Path, key: str, reading: Reading) -> Source:
    """Opens an export of CVAT, an XML file; its subsets are the splits where they are named so.

    Its images lie beside it, in images/ there, or anywhere below.
    """
    try:
        content = ElementTree.parse(path).getroot()
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        raise ConfigError(key, f"cannot read {path}: {error}") from None
    if content.tag != "annotations":
        raise ConfigError(
            key, f"{path} is no CVAT export: its root is <{content.tag}>; of Pascal VOC give the folder"
        )
    if content.find("track") is not None:
        raise ConfigError(key, f"{path} is of a video; export it as 'CVAT for images 1.1'")
    find, found = Finder(path, key), Found()
    for image in content.iter("image"):
        name, subset = image.get("name", ""), image.get("subset", "")
        with content_of(f"{path}: image {name!r}", key):
            size = (int(image.get("width", "")), int(image.get("height", "")))
            things = list(_labels(image, size, found.dropped))
            place = find(*([f"{subset}/{name}"] if subset else []), name)
        found.photographs[place] = role_of(subset) or ""
        found.things += [thing._replace(path=str(place)) for thing in things]
    return found.as_source("CVAT", path.parent, reading, key)


def _labels(image: ElementTree.Element, size: tuple[int, int], dropped: Counter[str]) -> Iterator[Box | Tag]:
    """Yields the labels of one image, without its path; a shape that cannot be cut out is a tag."""
    width, height = size
    if min(size) < 1:
        raise ValueError("has no width and height")
    for thing in image:
        label = thing.get("label", "")
        if thing.tag == "tag":
            yield Tag("", label, whole=True)
            continue
        if thing.tag not in ("box", "polygon", "ellipse", "mask", *_DRAWN):
            continue
        turned = float(thing.get("rotation") or 0) % 360
        reason = f"drawn as {thing.tag}" if thing.tag in _DRAWN else "rotated" if turned else ""
        if reason:
            dropped[reason] += 1
            yield Tag("", label)
            continue
        left, top, right, bottom = _corners(thing)
        yield Box("", label, (left / width, top / height, right / width, bottom / height), size)


def _corners(thing: ElementTree.Element) -> Corners:
    """Returns the corners of a shape, pixels."""

    def numbers(*names: str) -> list[float]:
        return [float(thing.attrib[name]) for name in names]

    if thing.tag == "box":
        left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
    elif thing.tag == "ellipse":
        x, y, rx, ry = numbers("cx", "cy", "rx", "ry")
        left, top, right, bottom = x - rx, y - ry, x + rx, y + ry
    elif thing.tag == "mask":
        left, top, width, height = numbers("left", "top", "width", "height")
        right, bottom = left + width, top + height
    else:
        points = [point.split(",") for point in thing.attrib["points"].split(";")]
        xs, ys = zip(*((float(x), float(y)) for x, y in points), strict=True)
        left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    return left, top, right, bottom
