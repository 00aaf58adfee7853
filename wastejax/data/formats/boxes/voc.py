"""Pascal VOC: an XML file of boxes for each image."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from wastejax.data.formats.boxes import Annotations, Box, Corners, Reading, Tag, as_source
from wastejax.data.formats.boxes.find import content_of, ending_with
from wastejax.data.formats.class_folders import role_of
from wastejax.data.formats.source import Source
from wastejax.data.formats.splits import keep_split
from wastejax.data.formats.walk import ignored, is_image, not_read, walk
from wastejax.data.formats.walk import listed as names_of
from wastejax.data.images import BadImage, decode, read_file
from wastejax.errors import ConfigError

_FOLDER = "annotations"  # the devkit's name for the folder of XML files, in lower case


class _Images:
    """The images of a folder, and whose XML file each of them has."""

    def __init__(self, root: Path, key: str) -> None:
        self.root, self.key = root, key  # the folder, and what to call it in error messages
        self._by_name: dict[str, list[PurePosixPath]] = {}
        self._by_stem: dict[str, list[PurePosixPath]] = {}
        self._file_of: dict[PurePosixPath, Path] = {}
        self._others: list[str] = []  # files that name another photograph which is there
        for parts in walk(root, key).images:
            place = PurePosixPath(*parts)
            self._by_name.setdefault(place.name, []).append(place)
            self._by_stem.setdefault(place.stem, []).append(place)

    def of(self, file: Path, name: str) -> str:
        """Returns the image of an XML file, below the root: the one called like the file, else as the file says.

        Copied and renamed files, as of augmented photographs, often keep the name that the first of them had. What
        lies nearer to the file comes first.

        Raises:
            ConfigError: there is none, or several, or another file has it already.
        """
        named, called = self._by_name.get(PurePosixPath(name).name, []), self._by_stem.get(file.stem, [])
        named = ending_with(name, named) or named
        folders = {place.parent for place in named}  # elsewhere a mask may be called like the file
        stale = PurePosixPath(name).stem != file.stem
        own = [place for place in called if place.parent in folders] if stale else []
        near = _nearest(PurePosixPath(file.relative_to(self.root).as_posix()), [*own, *named] or called)
        places = [place for place in near if place in own] or near
        if len(places) != 1:
            problem = f"is there {len(places)} times" if places else not_read(name) or "is not there"
            raise ConfigError(self.key, f"{file}: its image {name!r} {problem}")
        image = places[0]
        self._others += [file.name] if named and image not in named else []
        if (before := self._file_of.setdefault(image, file)) != file:
            raise ConfigError(
                self.key, f"{image} is the photograph of {before} and of {file}; move one of the two away"
            )
        return str(image)

    def notes(self, unknown: Sequence[str]) -> list[str]:
        """Returns what to say of names that contradict each other, and of photographs without an XML file.

        Args:
            unknown: names without an XML file that lists of splits hold.
        """
        folders = {image.parent for image in self._file_of}  # of photographs: others may hold masks
        bare = [
            str(image)
            for images in self._by_name.values()
            for image in images
            if image.parent in folders and image not in self._file_of
        ]
        said = {
            "photographs without an XML file, left out": bare,
            "names in ImageSets/Main without an XML file": unknown,
            "XML files that name the photograph of another, read by their own names": self._others,
        }
        return [f"{what}: {len(names):,} ({names_of(names)})" for what, names in said.items() if names]


def _nearest(file: PurePosixPath, places: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    """Returns those of the places that lie beside a file; else below the first folder above it that has any.

    Folders of annotations do not count as such: photographs are not in them, but masks may be.
    """
    if beside := [place for place in places if place.parent == file.parent]:
        return beside
    parts = [part.lower() for part in file.parent.parts]
    above = PurePosixPath(*file.parts[: parts.index(_FOLDER)]) if _FOLDER in parts else file.parent
    within = ([place for place in places if place.is_relative_to(up)] for up in (above, *above.parents))
    return next((found for found in within if found), [])


def open_voc(path: Path, key: str, reading: Reading) -> Source:
    """Opens a folder with Annotations/*.xml and JPEGImages/, or with XML files beside the images.

    Splits are those of ImageSets/Main/train.txt (or trainval.txt), val.txt and test.txt, or of folders that are
    named so. What the lists do not name is left out, as the VOC devkit does, and noted.

    Corners are pixels, counted from 1, and belong to the box, as the VOC devkit defines them. Where a corner of the
    set is 0, its tool counts from 0 instead.
    """
    images = _Images(path, key)
    files = xml_files(path)
    listed, unknown = _listed(path, files, key)
    found: list[Box | Tag] = []
    photographs: dict[str, str] = {}
    for file in files:
        found += _labels(file, images, listed, photographs)
    boxes = [thing for thing in found if isinstance(thing, Box)]
    if all(min(box.corners[:2]) > 0 for box in boxes):
        boxes = [box._replace(corners=_from_zero(box)) for box in boxes]
    notes = images.notes(unknown)
    notes += _leave_out_unlisted(photographs) if listed or unknown else []
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
    folders = [path, *(p for p in sorted(path.iterdir()) if p.is_dir() and role_of(p.name))]
    for among in (folders[:1], folders[1:]):
        of_these = [file for folder in among for file in _in_annotations(folder)]
        if of_these:
            return of_these
    # Beside the images, in a folder that is no class folder.
    files = [file for folder in folders for file in sorted(folder.glob("*.xml"))]
    images = {p.stem for folder in folders for p in folder.iterdir() if is_image(p.name)}
    return files if any(file.stem in images for file in files) else []


def _in_annotations(folder: Path) -> list[Path]:
    """Returns the XML files in a folder's `Annotations`, which others than the devkit write in lower case."""
    named = [p for p in sorted(folder.iterdir()) if p.name.lower() == _FOLDER and p.is_dir()]
    found = [(file, file.relative_to(inner)) for inner in named for file in sorted(inner.rglob("*.xml"))]
    return [file for file, below in found if not any(map(ignored, below.parts))]


def _from_zero(box: Box) -> Corners:
    """Returns the corners of a box whose upper left pixel is counted as 1, 1."""
    left, top, right, bottom = box.corners
    width, height = box.size or (1, 1)
    return left - 1 / width, top - 1 / height, right, bottom


def _listed(path: Path, files: Sequence[Path], key: str) -> tuple[dict[Path, str], list[str]]:
    """Returns the split of each XML file that ImageSets/Main names, and the names there that no file has."""
    called, main = _by_names(path, files), path / "ImageSets" / "Main"
    found: dict[Path, str] = {}
    both: dict[Path, str] = {}  # of trainval.txt: what train.txt and val.txt name too is theirs
    unknown: dict[str, None] = {}
    for name in ("trainval", "train", "val", "test"):
        split, into = name.removesuffix("val") or name, both if name == "trainval" else found
        listing = main / f"{name}.txt"
        if not listing.is_file():
            continue
        with content_of(f"cannot read {listing}", key):
            # Whatever the computer's own encoding is; bytes that are none are as in names of files.
            lines = listing.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        for line in filter(None, map(str.strip, lines)):
            # Names may hold spaces, and may be followed by whether their images show a class.
            names = [_plain(part) for part in (line, line.rsplit(maxsplit=1)[0], line.split()[0])]
            named = next((called[part] for part in names if part in called), [])
            unknown |= {} if named else {re.sub(r"\s+-?[01]$", "", names[0]): None}
            for file in named:
                keep_split(into, file, split, file.stem, listing, key)
    for file, split in both.items():
        if found.get(file) != "val":
            keep_split(found, file, split, file.stem, main / "trainval.txt", key)
    return found, list(unknown)


def _by_names(path: Path, files: Iterable[Path]) -> dict[str, list[Path]]:
    """Returns the XML files by what a list may call them: without ending, with or without the folders above.

    A name without folders is that of the files which lie highest.
    """
    called: dict[str, list[Path]] = {}
    for file in sorted(files, key=lambda file: len(file.parts)):
        parts = file.relative_to(path).with_suffix("").parts
        for start in range(len(parts)):
            same = called.setdefault("/".join(parts[start:]), [])
            same += [file] if not same or len(same[0].parts) == len(file.parts) else []
    return called


def _plain(name: str) -> str:
    """Returns a name without quotes, and with slashes as a path has them."""
    return name.strip('"').replace("\\", "/")


def _labels(
    file: Path, images: _Images, listed: Mapping[Path, str], photographs: dict[str, str]
) -> list[Box | Tag]:
    """Returns the labels of one file, and adds its photograph with its split; a rotated box is a tag."""
    root, key = images.root, images.key
    try:
        content = ElementTree.parse(file).getroot()
        size = (int(content.findtext("size/width") or 0), int(content.findtext("size/height") or 0))
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise ConfigError(key, f"{file} is no Pascal VOC file: {error}") from None
    if content.tag == "annotations":
        raise ConfigError(key, f"{file} is no Pascal VOC file; if it is CVAT's, give the file itself")
    name = (content.findtext("filename") or file.stem).strip().replace("\\", "/")
    image = images.of(file, name)
    folders = file.relative_to(root).parent.parts
    split = listed.get(file) or next((role for part in reversed(folders) if (role := role_of(part))), "")
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
