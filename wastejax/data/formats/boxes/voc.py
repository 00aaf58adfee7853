"""Pascal VOC: an XML file of boxes for each image."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from wastejax.data.formats.boxes import Annotations, Box, Corners, Reading, Tag, as_source
from wastejax.data.formats.boxes.find import content_of
from wastejax.data.formats.class_folders import role_of
from wastejax.data.formats.source import Source
from wastejax.data.formats.splits import keep_split
from wastejax.data.formats.walk import is_image, not_read, walk
from wastejax.data.formats.walk import listed as names_of
from wastejax.data.images import BadImage, decode, read_file
from wastejax.errors import ConfigError


class _Images(NamedTuple):
    """The paths of images, by their last part, and by that without its ending."""

    by_name: dict[str, list[str]]
    by_stem: dict[str, list[str]]


def open_voc(path: Path, key: str, reading: Reading) -> Source:
    """Opens a folder with Annotations/*.xml and JPEGImages/, or with XML files beside the images.

    Splits are those of ImageSets/Main/train.txt (or trainval.txt), val.txt and test.txt, or of folders that are
    named so. What the lists do not name is left out, as the VOC devkit does, and noted.

    Corners are pixels, counted from 1, and belong to the box, as the VOC devkit defines them. Where a corner of the
    set is 0, its tool counts from 0 instead.

    Args:
        path: the folder.
        key: what to call it in error messages.
        reading: what becomes of the boxes.

    Raises:
        ConfigError: a file is malformed, names no image that is there, or there is no box that can be used;
            or some folders are splits and some are not.
    """
    images = _Images({}, {})
    for parts in walk(path, key).images:
        images.by_name.setdefault(parts[-1], []).append("/".join(parts))
        images.by_stem.setdefault(Path(parts[-1]).stem, []).append("/".join(parts))
    listed = _listed(path, key)
    found: list[Box | Tag] = []
    photographs: dict[str, str] = {}
    for file in xml_files(path):
        found += _labels(file, path, images, listed, photographs, key)
    boxes = [thing for thing in found if isinstance(thing, Box)]
    if all(min(box.corners[:2]) > 0 for box in boxes):
        boxes = [box._replace(corners=_from_zero(box)) for box in boxes]
    notes = _leave_out_unlisted(photographs) if listed else []
    boxes = [box for box in boxes if box.path in photographs]
    rotated = [thing for thing in found if isinstance(thing, Tag) and thing.path in photographs]
    dropped = {"rotated": len(rotated)}
    return as_source(
        Annotations(path, "Pascal VOC", photographs, boxes, rotated, dropped, notes), reading, key
    )


def _leave_out_unlisted(photographs: dict[str, str]) -> list[str]:
    """Takes away the photographs that no list of splits names, and returns a note on them."""
    unlisted = [name for name, split in photographs.items() if not split]
    for name in unlisted:
        del photographs[name]
    said = (
        f"photographs that ImageSets/Main does not list, left out: {len(unlisted):,} ({names_of(unlisted)})"
    )
    return [said] if unlisted else []


def xml_files(path: Path) -> list[Path]:
    """Returns the annotation files of a folder; none where it is no such folder."""
    if (path / "Annotations").is_dir():
        return sorted((path / "Annotations").rglob("*.xml"))
    # Beside the images, in a folder that is no class folder.
    folders = [path, *(p for p in sorted(path.iterdir()) if p.is_dir() and role_of(p.name))]
    files = [file for folder in folders for file in sorted(folder.glob("*.xml"))]
    images = {p.stem for folder in folders for p in folder.iterdir() if is_image(p.name)}
    return files if any(file.stem in images for file in files) else []


def _from_zero(box: Box) -> Corners:
    """Returns the corners of a box whose upper left pixel is counted as 1, 1."""
    left, top, right, bottom = box.corners
    width, height = box.size or (1, 1)
    return left - 1 / width, top - 1 / height, right, bottom


def _listed(path: Path, key: str) -> dict[str, str]:
    """Returns the split of each image, by its name without ending, of ImageSets/Main."""
    found: dict[str, str] = {}
    both: dict[str, str] = {}  # of trainval.txt: what train.txt and val.txt name too is theirs
    for name in ("trainval", "train", "val", "test"):
        split = name.removesuffix("val") or name
        file = path / "ImageSets" / "Main" / f"{name}.txt"
        if not file.is_file():
            continue
        with content_of(f"cannot read {file}", key):
            # Whatever the computer's own encoding is; bytes that are none are as in names of files.
            lines = file.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        for image in (line.split()[0] for line in lines if line.strip()):
            if name == "trainval":
                both[image] = split
            else:
                keep_split(found, image, split, image, file, key)
    for image, split in both.items():
        if found.get(image) != "val":
            keep_split(found, image, split, image, path / "ImageSets" / "Main" / "trainval.txt", key)
    return found


def _labels(
    file: Path,
    root: Path,
    images: _Images,
    listed: dict[str, str],
    photographs: dict[str, str],
    key: str,
) -> list[Box | Tag]:
    """Returns the labels of one file, and adds its photograph with its split; a rotated box is a tag."""
    try:
        content = ElementTree.parse(file).getroot()
        size = (int(content.findtext("size/width") or 0), int(content.findtext("size/height") or 0))
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise ConfigError(key, f"{file} is no Pascal VOC file: {error}") from None
    name = Path((content.findtext("filename") or file.stem).replace("\\", "/")).name
    places = images.by_name.get(name) or images.by_stem.get(file.stem, [])
    beside = [p for p in places if (root / p).parent == file.parent]
    if len(beside or places) != 1:
        problem = f"is there {len(places)} times" if places else not_read(name) or "is not there"
        raise ConfigError(key, f"{file}: its image {name!r} {problem}")
    image = (beside or places)[0]
    split = listed.get(file.stem) or role_of(file.parent.name) or ""
    if min(size) < 1:  # some tools leave it out
        try:
            size = decode(read_file(root / image)).size
        except (OSError, BadImage) as error:
            raise ConfigError(
                key, f"{file}: says no width and height, and its image cannot be read: {error}"
            ) from None
    photographs[image] = split
    found: list[Box | Tag] = []
    for thing in content.iter("object"):
        label = (thing.findtext("name") or "").strip()
        if not label:
            raise ConfigError(key, f"{file}: an object has no name")
        if thing.find("robndbox") is not None and thing.find("bndbox") is None:
            found.append(Tag(image, label))
            continue
        texts = [thing.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        try:
            left, top, right, bottom = (float(text or "") for text in texts)
        except ValueError:
            raise ConfigError(key, f"{file}: an object {label!r} has no box of four numbers") from None
        w, h = size
        found.append(Box(image, label, (left / w, top / h, right / w, bottom / h), size, split))
    return found
