"""Annotated photographs, as the readers of COCO, YOLO, Pascal VOC and so on hand them over, as a `Source`.

Each reader takes the path of a file or folder, the `key` to call it by in error messages, and the `reading`: what
becomes of the boxes. It raises a ConfigError where the annotations cannot be read, a photograph is not there, or
there is nothing that can be used.
"""

import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from wastejax.data.formats.csv_file import composed
from wastejax.data.formats.labels import SEVERAL
from wastejax.data.formats.source import ReadFiles, Source, numbered
from wastejax.data.formats.splits import all_or_none
from wastejax.data.formats.walk import readable, stamp_of
from wastejax.data.images import BadImage, Header, decode, read_file, read_header
from wastejax.errors import ConfigError

MARGIN = 0.1  # around a box, as a share of its longer side, unless config.data.box_margin says otherwise
_UNNAMED = "without a label"  # why a box is left out
MULTILABEL = "multilabel"  # the value of config.loss.kind for several labels per image
Corners = tuple[float, float, float, float]  # left, top, right, bottom


class Reading(NamedTuple):
    """What becomes of labels and boxes.

    Attributes:
        margin: around boxes that become crops, as a share of their longer side.
        several: images have any number of labels: photographs stay whole and show what their boxes show.
    """

    margin: float = MARGIN
    several: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Reading":
        """Returns what a recipe, or the config of a model, says."""
        several = config.get("loss", {}).get("kind") == MULTILABEL
        return cls(config["data"].get("box_margin", MARGIN), several)


CROPS = Reading()


class Box(NamedTuple):
    """One annotated object.

    Attributes:
        path: of the photograph, below the root.
        label: its class; '' where somebody drew it and did not say.
        corners: as shares of the width and height of the photograph.
        size: width and height, pixels, that the annotation was made for; None where it does not say.
        split: 'train', 'val', 'test', or ''.
    """

    path: str
    label: str
    corners: Corners
    size: tuple[int, int] | None = None
    split: str = ""


class Tag(NamedTuple):
    """A label, or '', without a place in its photograph: of a box that is not cut out; `whole`, of all of it."""

    path: str
    label: str
    whole: bool = False


@dataclass(frozen=True)
class Annotations:
    """What a reader found.

    Attributes:
        root: the folder that all paths lie below.
        kind: their format, for the notes.
        photographs: path -> split, '' for none, of all that are listed, with and without boxes.
        boxes: all that could be read.
        tags: labels of photographs, which count where images have several labels, or where no box can be used.
        dropped: reason -> count of boxes that cannot be used.
        notes: what else the reader should know, one line each.
    """

    root: Path
    kind: str
    photographs: Mapping[str, str]
    boxes: Sequence[Box]
    tags: Sequence[Tag] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


def as_source(found: Annotations, reading: Reading, key: str) -> Source:
    """Returns one image for each box, or for each photograph: where images have several labels, or tags alone.

    Args:
        found: the annotations.
        reading: which of the two.
        key: what to call their place in error messages.

    Raises:
        ConfigError: there is no box, or no label, left; or some photographs have a split and some have none.
    """
    all_or_none(found.photographs.items(), str(found.root), key)
    # Tools keep the spaces that people type: they are no other class.
    boxes = [box._replace(label=composed(box.label).strip()) for box in found.boxes]
    tags = [tag._replace(label=composed(tag.label).strip()) for tag in found.tags]
    things: list[Box | Tag] = [*boxes, *tags]
    unnamed = [thing.path for thing in things if not thing.label]
    found = replace(
        found,
        boxes=[box for box in boxes if box.label],
        tags=[tag for tag in tags if tag.label],
        dropped={**found.dropped, _UNNAMED: len(unnamed)},
    )
    whole = [tag for tag in found.tags if tag.whole]
    if reading.several:
        source = _whole(found, unnamed, key)
    elif whole and not _inside(found)[0]:
        source = _tagged(found, whole, key)
    else:
        source = _crops(found, reading.margin, key)
        beside = [f"labels of whole photographs, not used beside boxes: {len(whole):,}"] if whole else []
        source = replace(source, notes=(*source.notes, *beside))
    return replace(source, notes=(*source.notes, *found.notes))


def _tagged(found: Annotations, tags: Sequence[Tag], key: str) -> Source:
    """Returns the photographs, each with the one label that it has as a whole."""
    labels: dict[str, str] = {}
    for tag in tags:
        if labels.setdefault(tag.path, tag.label) != tag.label:
            raise ConfigError(
                key,
                f"{tag.path}: is labeled {labels[tag.path]!r} and {tag.label!r}; {SEVERAL}",
            )
    paths = tuple(sorted(labels))
    bare = len(found.photographs) - len(paths)
    source = _photographs(found, paths).with_several([[labels[path]] for path in paths])
    notes = [
        f"read as {found.kind}: {len(paths):,} whole photographs with a label each",
        *([f"photographs without a label, left out: {bare:,}"] if bare else []),
        *([f"boxes left out: {said}"] if (said := _counted(_inside(found)[1])) else []),
    ]
    return replace(source, shown=None, notes=tuple(notes))


def _inside(found: Annotations) -> tuple[list[Box], Counter[str]]:
    """Returns what can be used of the boxes; and reason -> count of those that are not used, 'cut' of a part."""
    kept, counts = [], Counter(found.dropped)
    for box in found.boxes:
        reason, inside = _clipped(box)
        counts[reason] += bool(reason)
        kept += [inside] if inside else []
    return kept, counts


def _photographs(found: Annotations, paths: tuple[str, ...]) -> Source:
    """Returns whole photographs, without labels."""
    splits = tuple(found.photographs[path] for path in paths)
    return Source(
        names=tuple(readable(path) for path in paths),
        labels=np.zeros(len(paths), np.int32),
        classes=(),
        domains=("",) * len(paths),
        splits=splits if all(splits) else None,
        read=ReadFiles(found.root, paths),
        stamps=tuple(stamp_of(found.root / path) for path in paths),
        origin=str(found.root.resolve()),
    )


def _whole(found: Annotations, unnamed: Collection[str], key: str) -> Source:
    """Returns the photographs, each with the classes of its boxes and tags; one without shows none of them.

    What a photograph shows that has nothing but `unnamed` things in it nobody knows.
    """
    unknown = {*unnamed} - {box.path for box in found.boxes} - {tag.path for tag in found.tags}
    sets: dict[str, set[str]] = {path: set() for path in sorted({*found.photographs} - unknown)}
    counts = Counter({_UNNAMED: len(unnamed)})
    for box in found.boxes:
        reason, inside = _clipped(box)
        counts[reason] += inside is None
        if inside:
            sets[box.path].add(box.label)
    for tag in found.tags:
        sets[tag.path].add(tag.label)
    paths, said = tuple(sets), _counted(counts)
    if not any(sets.values()):
        left_out = f"; boxes left out: {said}" if said else ""
        raise ConfigError(key, f"no photograph has a label that can be used{left_out}")
    notes = [
        f"read as {found.kind}: {len(paths):,} whole photographs with {sum(map(len, sets.values())):,} labels",
        *([f"boxes left out: {said}"] if said else []),
        *([f"photographs of nothing but boxes {_UNNAMED}, left out: {len(unknown):,}"] if unknown else []),
    ]
    source = replace(_photographs(found, paths), notes=tuple(notes))
    return source.with_several(list(sets.values()))


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()) if count and reason)


def _crops(found: Annotations, margin: float, key: str) -> Source:
    """Returns one image for each box; the photographs are the groups that are not torn apart.

    What a margin has beyond the photograph is cut off.
    """
    root = found.root
    kept, counts = _inside(found)
    cut = counts.pop("cut", 0)
    said = _counted(counts)
    if not kept:
        raise ConfigError(key, f"holds no box that can be used{f'; left out: {said}' if said else ''}")
    kept.sort(key=lambda box: box.path)
    seen: Counter[str] = Counter()
    names = []
    for box in kept:
        names.append(f"{readable(box.path)}#{seen[box.path]}")
        seen[box.path] += 1
    bare = len(found.photographs) - len(seen)
    classes, labels = numbered([box.label for box in kept])
    stamps = {path: stamp_of(root / path) for path in seen}
    notes = [
        f"read as {found.kind}: {len(kept):,} boxes in {len(seen):,} photographs, which stay whole in every split",
        *([f"photographs without a box that can be used, left out: {bare:,}"] if bare else []),
        *([f"boxes left out: {said}"] if said else []),
        *([f"boxes that reach beyond the photograph, cut off there: {cut:,}"] if cut else []),
    ]
    return Source(
        names=tuple(names),
        labels=labels,
        classes=classes,
        domains=("",) * len(kept),
        splits=tuple(box.split for box in kept) if all(box.split for box in kept) else None,
        read=ReadCrops(root, tuple(box.path for box in kept), tuple(kept), margin),
        # The size, too, says where the crop is: whether the photograph was annotated before EXIF turns it.
        stamps=tuple(f"{stamps[box.path]}-{box.corners}-{box.size}-{margin}" for box in kept),
        origin=str(root.resolve()),
        groups=tuple(box.path for box in kept),
        notes=tuple(notes),
    )


def _clipped(box: Box) -> tuple[str, Box | None]:
    """Returns why a box is not used, or 'cut' where a part of it is; and what is used of it, if anything."""
    left, top, right, bottom = box.corners
    if not np.isfinite(box.corners).all():
        return "without numbers", None
    if not (right > left and bottom > top):
        return "of zero size", None
    inside = (max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0))
    if not (inside[2] > inside[0] and inside[3] > inside[1]):
        return "outside the photograph", None
    pixel = 1.5 / min(box.size) if box.size else 0.005
    reach = max(a - b for a, b in zip((*inside[:2], right, bottom), (left, top, *inside[2:]), strict=True))
    return "cut" if reach > pixel else "", box._replace(corners=inside)


@dataclass(frozen=True)
class ReadCrops:
    """Reads crops, losslessly encoded; a photograph as it is where the box is all of it."""

    root: Path
    paths: tuple[str, ...]
    boxes: tuple[Box, ...]
    margin: float

    def __call__(self, index: int) -> bytes:
        """Returns the bytes of one crop; raises OSError, also where the photograph cannot be decoded."""
        box = self.boxes[index]
        data = read_file(self.root / self.paths[index])
        try:
            image = decode(data)
        except BadImage as error:
            raise OSError(str(error)) from error
        left, top, right, bottom = _pixels(box, data, image, self.margin)
        if (left, top, right, bottom) == (0, 0, *image.size):
            return data
        file = io.BytesIO()
        image.crop((left, top, right, bottom)).save(file, "PNG", compress_level=1)
        return file.getvalue()


def _pixels(box: Box, data: bytes, image: Image.Image, margin: float) -> tuple[int, int, int, int]:
    """Returns the crop of an upright image, pixels."""
    left, top, right, bottom = box.corners
    if box.size and box.size != image.size and (header := read_header(data)):
        # Of the photograph upright, which may have been decoded at a reduced scale.
        full = _full_size(header, image)
        if box.size != full and box.size[::-1] == full:
            # The annotation was made on the photograph as it is stored, before EXIF turns it.
            left, top, right, bottom = _turned(box.corners, header.orientation)
    width, height = image.size
    more = margin * max((right - left) * width, (bottom - top) * height)
    x0, y0 = max(round(left * width - more), 0), max(round(top * height - more), 0)
    x1, y1 = min(round(right * width + more), width), min(round(bottom * height + more), height)
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _turned(corners: Corners, orientation: int) -> Corners:
    """Returns corners in an upright image of those in the stored one, both as shares (EXIF 2.3, Orientation)."""
    left, top, right, bottom = corners
    return {
        5: (top, left, bottom, right),
        6: (1 - bottom, left, 1 - top, right),
        7: (1 - bottom, 1 - right, 1 - top, 1 - left),
        8: (top, 1 - right, bottom, 1 - left),
    }.get(orientation, corners)


def _full_size(header: Header, image: Image.Image) -> tuple[int, int]:
    """Returns width and height that an upright image would have at full scale."""
    stored = (header.width, header.height)
    if image.size in (stored, stored[::-1]):
        return image.size
    return stored[::-1] if header.orientation > 4 else stored
