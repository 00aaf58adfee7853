"""YOLO: data.yaml, and for each image a text file of boxes or polygons in shares of its sides."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wastejax.data.formats.boxes import Box, Reading, Tag
from wastejax.data.formats.boxes.find import Found, content_of, place_of
from wastejax.data.formats.source import Source
from wastejax.data.formats.splits import keep_split
from wastejax.data.formats.walk import absolute, by_ending, is_image, listed, walk
from wastejax.errors import ConfigError, imported

SPLITS = ("train", "val", "test")
DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml")
CLASSES = "classes.txt"
_OWN = (".txt", ".yaml", ".yml", ".cache")  # endings of files that belong to the format


@dataclass
class _PassedOver:
    """What is said of what a description names and what lies there."""

    others: Counter[str] = field(default_factory=Counter)  # ending -> count of files that are no images
    repeated: int = 0  # images listed again in their split
    absent: list[str] = field(default_factory=list)  # listed images that are not there
    tests: list[str] = field(default_factory=list)  # places of test images that are not there

    def notes(self) -> list[str]:
        left_out = by_ending({ending: count for ending, count in self.others.items() if ending not in _OWN})
        absent = f"{len(self.absent):,} ({listed(self.absent)})"
        return [
            *([f"files left out by their ending: {left_out}"] if left_out else []),
            *([f"images listed again in their split, read once: {self.repeated:,}"] if self.repeated else []),
            *([f"listed images that are not there: {absent}"] if self.absent else []),
            *(f"test images at {place!r}, which is not there, passed over" for place in self.tests),
        ]


def open_yolo(path: Path, key: str, reading: Reading) -> Source:
    """Opens a YOLO data set by its data.yaml, or classes.txt; see `yolo_file`."""
    content = _read_classes(path, key) if path.name == CLASSES else _read_yaml(path, key)
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise ConfigError(key, f"{path}: lacks `names`, the list of classes")
    with content_of(f"{path}: `names` must be a list, or numbers and names", key):
        names = {int(number): str(name) for number, name in names.items()}
    with content_of(
        f"{path}: `kpt_shape` must be two numbers, of keypoints and of what is said of each", key
    ):
        keypoints = _numbers_of_keypoints(content)
    found, passed_over = Found(), _PassedOver()
    found.photographs = _listed(path, content, key, passed_over)
    found.notes = passed_over.notes()
    if {*found.photographs.values()} == {"train"}:  # the format has no images without a split
        found.photographs = dict.fromkeys(found.photographs, "")
        alone = "no other split beside 'train': its images are taken as undivided"
        found.notes += [] if path.name == CLASSES else [alone]
    labels = _label_files(found.photographs)
    for image in found.photographs:
        for label, points in _rows(labels[image], names, keypoints, key):
            if points is None:
                found.dropped["rotated"] += 1
                found.things.append(Tag(str(image), label))
                continue
            x, y = points[::2], points[1::2]
            found.things.append(Box(str(image), label, (min(x), min(y), max(x), max(y))))
    return found.as_source("YOLO", path.parent, reading, key)


def yolo_file(folder: Path) -> Path | None:
    """Returns what describes a YOLO data set in a folder; None where it is none.

    Label Studio and labelImg write classes.txt instead of data.yaml; labels are in labels/ or beside the images.
    """
    found = next((folder / name for name in DESCRIPTIONS if (folder / name).is_file()), None)
    if found is not None or not (folder / CLASSES).is_file():
        return found
    labels = folder / "labels"
    there = any(labels.glob("**/*.txt")) if labels.is_dir() else any(map(_has_labels, folder.iterdir()))
    return folder / CLASSES if there else None


def _has_labels(file: Path) -> bool:
    return is_image(file.name) and file.with_suffix(".txt").is_file()


def _read_classes(path: Path, key: str) -> dict[str, Any]:
    """Returns what data.yaml would say: a class per line, and the images as one split."""
    with content_of(f"cannot read {path}", key):
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    return {"names": names, "train": "images" if (path.parent / "images").is_dir() else "."}


def _read_yaml(path: Path, key: str) -> dict[str, Any]:
    yaml = imported("yaml", str(path), "PyYAML")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(key, f"cannot read {path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(key, f"{path} is no YOLO description with names, train and val")
    return content


def _numbers_of_keypoints(content: dict[str, Any]) -> int | None:
    """Returns how many numbers of keypoints follow each box; None where there are none."""
    if not content.get("kpt_shape"):
        return None
    keypoints, of_each = content["kpt_shape"]
    return int(keypoints) * int(of_each)


def _listed(path: Path, content: dict[str, Any], key: str, passed_over: _PassedOver) -> dict[Path, str]:
    """Returns the split of each image.

    Raises:
        ConfigError: there is no image, or one is listed in two splits: its boxes would count twice, and be tested
            as they were learned.
    """
    found: dict[Path, str] = {}
    for split in SPLITS:
        given = content.get(split) or (content.get("valid") if split == "val" else None)
        for place in given if isinstance(given, list) else [given] if given else []:
            with content_of(f"{path}: {split}", key):
                where = _where(path, content, str(place), split, key)
                images = _images(where, key, passed_over) if where else []
            passed_over.tests += [] if where else [str(place)]
            for image in images:
                passed_over.repeated += image in found
                keep_split(found, image, split, image.name, path, key)
    if not found:
        raise ConfigError(key, f"{path}: names no images under train, val or test")
    return found


def _where(path: Path, content: dict[str, Any], place: str, split: str, key: str) -> Path | None:
    """Returns the folder, or the list, of a split's images; None where those of a test are not there.

    Raises:
        ConfigError: others are not there. Exports name a test whether they have one or not.
    """
    base = path.parent / str(content.get("path") or "")
    # Roboflow writes ../train/images and means train/images.
    tried = [base / place, path.parent / place, path.parent / place.removeprefix("../")]
    where = next((absolute(folder) for folder in tried if folder.exists()), None)
    if where is None and split != "test":
        raise ConfigError(key, f"{path}: there is no {absolute(tried[-1])}, where {split} images should be")
    return where


def _images(where: Path, key: str, passed_over: _PassedOver) -> list[Path]:
    """Returns the images of one split: those below a folder, or those that a text file lists.

    Raises:
        ConfigError: none of those that are listed is there.
    """
    if where.is_dir():
        found = walk(where, key)
        passed_over.others.update(found.left_out())
        return [where.joinpath(*parts) for parts in found.images]
    lines = [line.strip() for line in where.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    images, absent = [], []
    for line in lines:
        # CVAT writes data/images and means images.
        tried = [place_of(line, where.parent), place_of(line.removeprefix("data/"), where.parent)]
        there = next((place for place in tried if place.is_file()), None)
        images.append(absolute(there or tried[0]))
        absent += [] if there else [line]
    if absent and len(absent) == len(images):
        raise ConfigError(
            key, f"{where}: of {len(images):,} images that it lists none is there, such as {images[0]}"
        )
    passed_over.absent += absent
    return images


def _label_files(images: Iterable[Path]) -> dict[Path, Path]:
    """Returns where the boxes of each image are, whether they are there or not: .txt for its ending.

    For all images of a folder it is the first place where one of them has any: labels/ for the last images/ in the
    path; beside the images, as a folder above the set may be called images; or either at the target of a link.
    """
    of_folder: dict[Path, list[Path]] = {}
    for image in images:
        of_folder.setdefault(image.parent, []).append(image)
    found: dict[Path, Path] = {}
    for of_one in of_folder.values():
        places = ({image: place(image) for image in of_one} for place in _PLACES)
        found |= next(
            (files for files in places if any(file.is_file() for file in files.values())),
            {image: _in_labels(image) for image in of_one},
        )
    return found


def _in_labels(image: Path) -> Path:
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return _beside(Path(*parts))


def _beside(image: Path) -> Path:
    return image.with_suffix(".txt")


_PLACES: tuple[Callable[[Path], Path], ...] = (
    _in_labels,
    _beside,
    lambda image: _in_labels(image.resolve()),
    lambda image: _beside(image.resolve()),
)


def _rows(
    file: Path, names: dict[int, str], keypoints: int | None, key: str
) -> list[tuple[str, Sequence[float] | None]]:
    """Returns the class and the points x, y, x, y, … of each object; None for those of a rotated box.

    Where there are `keypoints`, so many numbers of theirs follow a box; without, the same would be a polygon.
    """
    if not file.is_file():
        return []
    rows: list[tuple[str, Sequence[float] | None]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            first, *rest = (float(word) for word in line.split())
            label = names[int(first)]
        except (ValueError, KeyError, OverflowError):
            raise ConfigError(
                key, f"{file}:{number}: {line[:60]!r} does not begin with a class from 0 to {max(names)}"
            ) from None
        if keypoints is not None and len(rest) == 4 + keypoints:
            rest = rest[:4]
        if len(rest) == 4:
            x, y, w, h = rest
            rows.append((label, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)))
        elif len(rest) >= 6 and len(rest) % 2 == 0 and keypoints is None:
            rows.append((label, None if _is_rotated(rest) else rest))
        else:
            more = "or the points of a polygon" if keypoints is None else f"and {keypoints} of keypoints"
            raise ConfigError(key, f"{file}:{number}: needs 4 numbers, {more}, after the class")
    return rows


def _is_rotated(points: Sequence[float]) -> bool:
    """Whether four points are those of a box that is turned; a few more or fewer are a polygon."""
    if len(points) != 8:
        return False
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = zip(points[::2], points[1::2], strict=True)
    parallel = abs(ax + cx - bx - dx) + abs(ay + cy - by - dy) < 1e-3
    return parallel and min(abs(bx - ax), abs(by - ay)) > 1e-3
