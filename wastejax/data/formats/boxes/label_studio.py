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
from wastejax.data.formats.source import Source
from wastejax.errors import ConfigError

_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what it puts before the names of uploaded files
_SHAPES = ("rectanglelabels", "polygonlabels", "ellipselabels")
_OTHERS = ("brushlabels", "keypointlabels", "vectorlabels", "bitmasklabels", "videorectangle")
_CHOICES = ("choice", "label", "class")  # names of tags whose texts are choices in any case
_ABOUT = frozenset(("image", "id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"))


class _Result(NamedTuple):
    """One entry of an annotation: its kind, such as 'choices', and the value that it holds."""

    kind: str
    value: dict[str, Any]


def open_label_studio(path: Path, key: str, reading: Reading) -> Source:
    """Opens an export: a list of tasks, each with an image and what was said of it.

    A task of several annotators counts as the first who did not skip it said. Tasks that nobody has annotated are
    left out and counted; one whose annotation is empty shows none of the classes.

    Args:
        path: the JSON file; its images lie beside it, in images/ there, or anywhere below.
        key: what to call it in error messages.
        reading: what becomes of the boxes.

    Raises:
        ConfigError: it is no such export, an image is not there, or there is nothing that can be used.
    """
    with content_of(f"cannot read {path}", key):
        tasks = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise ConfigError(
            key, f"{path} is no COCO file, and of Label Studio's tasks no list, or an empty one"
        )
    find, found = Finder(path, key), Found()
    choices, unread = _fields_of_choices(tasks), Counter[str]()
    for number, task in enumerate(tasks):
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
        for result in results:
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
    return [
        n for n, text in task.items() if isinstance(text, str) and text and text != image and n not in known
    ]


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
        counts["further annotations of the same image, left out"] += len(done) - 1
    entries = [entry for entry in done[0].get("result") or () if isinstance(entry.get("value"), dict)]
    sizes = ("original_width", "original_height", "image_rotation")
    return [
        _Result(str(e.get("type", "")).lower(), e["value"] | {name: e[name] for name in sizes if name in e})
        for e in entries
    ]


def _flat(task: dict[str, Any], choices: frozenset[str]) -> Iterator[_Result]:
    """Yields what a task of JSON-MIN says: lists of shapes, and choices (by name) as a text or a list of them."""
    for name, value in task.items():
        if isinstance(value, list):
            for shape in value:
                kind = next((k for k in (*_SHAPES, *_OTHERS) if isinstance(shape, dict) and k in shape), None)
                if kind:
                    yield _Result(kind, shape)
        elif isinstance(value, dict) and "choices" in value:
            yield _Result("choices", value)
        elif isinstance(value, str) and name in choices:
            yield _Result("choices", {"choices": [value]})


def _labels(path: str, result: _Result, dropped: Counter[str]) -> list[Box | Tag]:
    """Returns the labels of one entry; a shape that cannot be cut out is a tag of the photograph."""
    kind, value = result
    if kind == "choices":
        return [Tag(path, str(label), whole=True) for label in value["choices"]]
    if kind not in (*_SHAPES, *_OTHERS):
        return []  # texts, ratings and so on say nothing of classes
    labels = [str(label) for label in value.get(kind) or ()]
    turned = float(value.get("rotation") or 0) % 360
    if kind in _OTHERS:
        reason = f"drawn as {kind.removesuffix('labels')}"
    elif not labels:
        reason = "without a label"
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
