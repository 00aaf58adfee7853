"""Crops of annotated photographs: what COCO, YOLO and Pascal VOC readers hand over, as a `Source`."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from wastejax.data.formats.source import Source
from wastejax.data.formats.walk import readable
from wastejax.data.images import BadImage, decode, read_file
from wastejax.errors import ConfigError

MARGIN = 0.1  # around a box, as a share of its longer side, unless config.data.box_margin says otherwise
_ORIENTATION_TAG = 0x0112
Corners = tuple[float, float, float, float]  # left, top, right, bottom


class Box(NamedTuple):
    """One annotated object.

    Attributes:
        path: of the photograph, below the root.
        label: its class.
        corners: as shares of the width and height of the photograph.
        size: width and height, pixels, that the annotation was made for; None where it does not say.
        split: 'train', 'val', 'test', or ''.
    """

    path: str
    label: str
    corners: Corners
    size: tuple[int, int] | None = None
    split: str = ""


def crops(
    root: Path, boxes: Sequence[Box], dropped: Mapping[str, int], margin: float, kind: str, key: str
) -> Source:
    """Returns one image for each box; the photographs are the groups that are not torn apart.

    Args:
        root: the folder that the boxes' paths lie below.
        boxes: all that could be read.
        dropped: reason -> count of others that are left out.
        margin: around each box, as a share of its longer side; what lies beyond the photograph is cut off.
        kind: of the annotations, for the notes.
        key: what to call their place in error messages.

    Raises:
        ConfigError: there is no box left.
    """
    counts = Counter(dropped)
    kept = []
    for box in boxes:
        reason, inside = _clipped(box)
        counts[reason] += bool(reason)
        kept += [inside] if inside else []
    cut = counts.pop("cut", 0)
    said = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()) if count)
    if not kept:
        raise ConfigError(key, f"holds no box that can be used{f'; left out: {said}' if said else ''}")
    kept.sort(key=lambda box: box.path)
    seen: Counter[str] = Counter()
    names = []
    for box in kept:
        names.append(f"{readable(box.path)}#{seen[box.path]}")
        seen[box.path] += 1
    classes = tuple(sorted({box.label for box in kept}))
    index = {name: i for i, name in enumerate(classes)}
    stamps = {path: stamp_of(root / path) for path in seen}
    notes = [
        f"read as {kind}: {len(kept):,} boxes in {len(seen):,} photographs, which stay whole in every split",
        *([f"boxes left out: {said}"] if said else []),
        *([f"boxes that reach beyond the photograph, cut off there: {cut:,}"] if cut else []),
    ]
    return Source(
        names=tuple(names),
        labels=np.array([index[box.label] for box in kept], np.int32),
        classes=classes,
        domains=("",) * len(kept),
        splits=tuple(box.split for box in kept) if all(box.split for box in kept) else None,
        read=ReadCrops(root, tuple(box.path for box in kept), tuple(kept), margin),
        stamps=tuple(f"{stamps[box.path]}-{box.corners}-{margin}" for box in kept),
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


def stamp_of(path: Path) -> str:
    """Returns what changes with a file's content."""
    try:
        stat = path.stat()
    except OSError:
        return "missing"
    return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"


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
    if box.size and box.size != image.size and box.size[::-1] == image.size:
        # The annotation was made on the photograph as it is stored, before EXIF turns it.
        left, top, right, bottom = _turned(box.corners, _orientation(data))
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


def _orientation(data: bytes) -> int:
    try:
        return int(Image.open(io.BytesIO(data)).getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # as in `images.decode`: plugins raise nearly anything
        return 1
