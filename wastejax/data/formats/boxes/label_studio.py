"""Label Studio's exports JSON and JSON-MIN: choices, rectangles, polygons and ellipses."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from wastejax.data.formats.boxes import Box, Corners, Reading, Tag
from wastejax.data.formats.boxes.find import Finder, Found, content_of
from wastejax.data.formats.labels import SEVERAL
from wastejax.data.formats.source import Source
from wastejax.errors import ConfigError

_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what it puts before the names of uploaded files
_SHAPES = ("rectanglelabels", "polygonlabels", "ellipselabels")
_OTHERS = ("brushlabels", "keypointlabels", "vectorlabels", "bitmasklabels", "videorectangle")
_CHOICES = ("choice", "label", "class")  # names of tags whose texts are choices in any case
_FURTHER = "further annotations of the same image, left out"
_ABOUT = frozenset(("image", "id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"))


# What says where a region is; all entries of one repeat it.
_NUMBERS = ("x", "y", "width", "height", "rotation", "radiusX", "radiusY", "points", "vertices", "rle")


class _Result(NamedTuple):
    """One entry of an annotation: its kind, such as 'choices', the value that it holds, and its region's id."""

    kind: str
    value: dict[str, Any]
    region: str = ""


def open_label_studio(path: Path, key: str, reading: Reading) -> Source:
    """Opens an export: a list of tasks, each with an image and what was said of it.

    A task of several annotators counts as the first who did not skip it said. Tasks that nobody has annotated are
    left out and counted; one whose annotation is empty shows none of the classes. Images lie beside the JSON file,
    in images/ there, or anywhere below.
    """
    with content_of(f"cannot read {path}", key):
        tasks = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise ConfigError(
            key, f"{path} is no COCO file, and of Label Studio's tasks no list, or an empty one"
        )
    find, found = Finder(path, key), Found()
    choices, unread = _fields_of_choices(tasks), Counter[str]()
    said: list[tuple[int, Path, list[_Result]]] = []
    for number, task in _firsts(tasks, found.counts):
        with content_of(f"{path}: task {number}", key):
            image = _image(task)
            if image is None:
                raise ValueError("Label Studio names no image in it")
            results = _results(task, found.counts, choices)
            if results is None:
                continue
            place = find(*_names(image))
            unread.update(_unread(task, image, choices))
        found.photographs[place] = ""
        said.append((number, place, results))
    labeled = any(_own(result) for _, _, results in said for result in results)
    for number, place, results in said:
        with content_of(f"{path}: task {number}", key):
            joined = _joined(results, labeled, reading.several, found.counts)
        for result in joined:
            with content_of(f"{path}: task {number}, {result.kind}", key):
                found.things += _labels(str(place), result, found.dropped)
    if unread and not found.things and not found.dropped:
        fields = ", ".join(map(repr, unread))
        raise ConfigError(
            key,
            f"{path}: holds no label that is read; texts of {fields} are none, as choices are read under 'choice', "
            "'label' or 'class': name the tag so, or export as JSON",
        )
    found.counts.update({f"texts of {name!r}, not read": count for name, count in unread.items()})
    return found.as_source("Label Studio", path.parent, reading, key)


def _firsts(tasks: list[dict[str, Any]], counts: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields number and task; JSON-MIN repeats one for each annotator: the first counts, the others are counted."""
    seen: set[tuple[str, str | None]] = set()
    for number, task in enumerate(tasks):
        name = (str(task.get("id")), _image(task))
        if _is_flat(task) and name in seen:
            counts[_FURTHER] += 1
            continue
        seen.add(name)
        yield number, task


def _fields_of_choices(tasks: list[dict[str, Any]]) -> frozenset[str]:
    """Returns the names under which JSON-MIN has choices: a list of them in some task, a text where it is one."""
    flat = [task for task in tasks if _is_flat(task)]
    listed = {
        name
        for task in flat
        for name, value in task.items()
        if isinstance(value, dict) and "choices" in value
    }
    return frozenset({*_CHOICES, *listed})


def _is_flat(task: dict[str, Any]) -> bool:
    """Whether a task is of JSON-MIN."""
    return "data" not in task and task.get("annotations", task.get("completions")) is None


def _unread(task: dict[str, Any], image: str, choices: frozenset[str]) -> list[str]:
    """Returns the names of a JSON-MIN task's texts that are not read, though they may be labels."""
    if not _is_flat(task):
        return []
    known = choices | _ABOUT
    texts = {n: said for n, said in task.items() if isinstance(said, str) and said and n not in known}
    # Choices of several regions are a list of texts, which does not say whose they are.
    listed = {n: said for n, said in task.items() if isinstance(said, list) and n not in _ABOUT}
    lists = [n for n, said in listed.items() if any(isinstance(text, str) for text in said)]
    return [*(n for n, text in texts.items() if text != image), *lists]


def _image(task: dict[str, Any]) -> str | None:
    """Returns where a task's image is: the value of `image`, or the one text that names an image file."""
    inner = task.get("data")
    data = inner if isinstance(inner, dict) else task
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    if "image" in texts:
        return texts["image"]
    named = [
        v for v in texts.values() if re.search(r"\.(jpe?g|png|webp|bmp|gif|tiff?|avif|heic)(\?|$)", v, re.I)
    ]
    return named[0] if named else None


def _names(image: str) -> list[str]:
    """Returns what the file may be called: as Label Studio keeps it, and as it was before the upload."""
    address = urlsplit(image)
    local = parse_qs(address.query).get("d")  # /data/local-files/?d=folder/name.jpg
    path = unquote(local[0] if local else address.path).lstrip("/")
    name = Path(path).name
    plain = _UPLOADED.sub("", name)
    # Where an upload is kept says nothing of where it was; other folders may be those of the photographs.
    kept = not local and bool(_UPLOADED.match(name))
    return list(dict.fromkeys([name, plain, path] if kept else [path, name, plain]))


def _results(task: dict[str, Any], counts: Counter[str], choices: frozenset[str]) -> list[_Result] | None:
    """Returns what was said of a task; None where nobody said anything."""
    annotations = task.get("annotations", task.get("completions"))
    if _is_flat(task):
        return list(_flat(task, choices))
    done = [a for a in annotations or () if not (a.get("was_cancelled") or a.get("skipped"))]
    if not done:
        counts["tasks without an annotation, left out"] += 1
        return None
    if len(done) > 1:
        counts[_FURTHER] += len(done) - 1
    entries = [entry for entry in done[0].get("result") or () if isinstance(entry.get("value"), dict)]
    sizes = ("original_width", "original_height", "image_rotation")
    return [
        _Result(
            str(e.get("type", "")).lower(),
            e["value"] | {name: e[name] for name in sizes if name in e},
            str(e.get("id") or ""),
        )
        for e in entries
    ]


def _flat(task: dict[str, Any], choices: frozenset[str]) -> Iterator[_Result]:
    """Yields what a task of JSON-MIN says: lists of shapes, and choices (by name) as a text or a list of them."""
    for name, value in task.items():
        if isinstance(value, list):
            kinds = (*_SHAPES, *_OTHERS, "labels", "choices")
            for shape in value:
                if isinstance(shape, dict):  # of <Rectangle> it has neither a label nor its kind
                    yield _Result(next((k for k in kinds if k in shape), ""), shape)
        elif isinstance(value, dict) and "choices" in value:
            yield _Result("choices", value)
        elif isinstance(value, str) and name in choices:
            yield _Result("choices", {"choices": [value]})


def _own(result: _Result) -> Any:
    """Returns the labels that an entry gives its region, whatever choices say of it; as they are in the file."""
    return result.value.get(result.kind) if result.kind in (*_SHAPES, *_OTHERS, "labels") else None


def _joined(results: list[_Result], labeled: bool, several: bool, counts: Counter[str]) -> list[_Result]:
    """Returns what is of no region as it is, and each region once, with all of its labels.

    Choices `perRegion` are the labels of regions that have no others.

    Args:
        results: the entries of one annotation.
        labeled: regions have other labels, in this annotation or another one: choices say something else of them.
        several: choices may give a region several labels.
        counts: takes the choices that are not used.

    Raises:
        ValueError: choices give a region several labels, and it may have but one.
    """
    joined, regions = _regions(results)
    for entries in regions:
        labels = [str(label) for entry in entries for label in _own(entry) or ()]
        chosen = [str(c) for entry in entries if entry.kind == "choices" for c in entry.value["choices"]]
        if labeled and chosen:
            counts["choices of regions beside their labels, not read"] += len(chosen)
        elif len(set(chosen)) > 1 and not several:
            two = " and ".join(map(repr, sorted(set(chosen))[:2]))
            raise ValueError(f"a region has the choices {two}; {SEVERAL}")
        kind = _kind(entries)
        value = {name: part for entry in reversed(entries) for name, part in entry.value.items()}
        joined.append(_Result(kind, value | {kind: labels if labeled else chosen}))
    return joined


def _regions(results: list[_Result]) -> tuple[list[_Result], list[list[_Result]]]:
    """Returns the entries that are of no region, and those of each region.

    There is an entry for each tag that says something of a region: <Rectangle> its shape, <Labels> its labels. They
    have its id, which JSON-MIN leaves out, and repeat its numbers; choices that other programs write may not.
    """
    regions: dict[tuple[str, str], list[_Result]] = {}
    of_id: dict[str, list[_Result]] = {}
    bare = []
    for result in results:
        numbers = {name: result.value[name] for name in _NUMBERS if name in result.value}
        if not numbers:
            bare.append(result)
            continue
        entries = regions.setdefault((result.region, repr(numbers)), [])
        entries.append(result)
        if result.region:
            of_id.setdefault(result.region, entries)
    alone: list[_Result] = []
    for result in bare:
        of_id.get(result.region, alone).append(result)
    return alone, list(regions.values())


def _kind(entries: list[_Result]) -> str:
    """Returns which of `_SHAPES` or `_OTHERS` a region is: by an entry of its shape, or else by its numbers."""
    for kind in (entry.kind for entry in entries):
        for known in (kind, f"{kind}labels"):
            if known in (*_SHAPES, *_OTHERS):
                return known
    names = {name for entry in entries for name in entry.value}
    by_number = {
        "points": "polygonlabels",
        "radiusX": "ellipselabels",
        "rle": "brushlabels",
        "vertices": "vectorlabels",
        "height": "rectanglelabels",
    }
    return next((kind for name, kind in by_number.items() if name in names), "keypointlabels")


def _labels(path: str, result: _Result, dropped: Counter[str]) -> list[Box | Tag]:
    """Returns the labels of one entry; a shape that cannot be cut out is a tag of the photograph."""
    kind, value, _ = result
    if kind == "choices":
        return [Tag(path, str(label), whole=True) for label in value["choices"]]
    if kind == "labels" and value.get(kind):
        dropped["without a shape"] += 1
    if kind not in (*_SHAPES, *_OTHERS):
        return []  # texts, ratings and so on say nothing of classes
    labels = [str(label) for label in value.get(kind) or ()]
    if not labels:
        return [Tag(path, "")]
    turned = float(value.get("rotation") or 0) % 360
    if kind in _OTHERS:
        reason = f"drawn as {kind.removesuffix('labels')}"
    elif value.get("image_rotation"):
        reason = "of a photograph turned in Label Studio"
    else:
        reason = "rotated" if turned else ""
    if reason:
        dropped[reason] += 1
        return [Tag(path, label) for label in labels]
    size = (int(value.get("original_width") or 0), int(value.get("original_height") or 0))
    return [Box(path, label, _corners(kind, value), size if min(size) > 0 else None) for label in labels]


def _corners(kind: str, value: dict[str, Any]) -> Corners:
    """Returns the corners as shares, of numbers in per cent of the photograph's sides."""
    if kind == "polygonlabels":
        xs, ys = zip(*((float(x), float(y)) for x, y in value["points"]), strict=True)
        corners = (min(xs), min(ys), max(xs), max(ys))
    else:
        x, y = float(value["x"]), float(value["y"])
        if kind == "ellipselabels":
            rx, ry = float(value["radiusX"]), float(value["radiusY"])
            corners = (x - rx, y - ry, x + rx, y + ry)
        else:
            corners = (x, y, x + float(value["width"]), y + float(value["height"]))
    left, top, right, bottom = (number / 100 for number in corners)
    return left, top, right, bottom
