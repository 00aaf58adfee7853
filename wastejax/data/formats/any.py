"""Opens labeled images in whichever layout they are."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

from wastejax.data.collections.labeled import open_tars, open_url, tar_files
from wastejax.data.collections.places import is_url
from wastejax.data.formats.boxes import CROPS, Reading
from wastejax.data.formats.boxes.coco import coco_files, open_coco
from wastejax.data.formats.boxes.cvat import IN_FOLDER as CVAT_IN_FOLDER
from wastejax.data.formats.boxes.cvat import open_cvat
from wastejax.data.formats.boxes.label_studio import open_label_studio
from wastejax.data.formats.boxes.table import box_tables, has_boxes, open_box_tables
from wastejax.data.formats.boxes.voc import open_voc, xml_files
from wastejax.data.formats.boxes.yolo import open_yolo, yolo_file
from wastejax.data.formats.class_folders import is_container, notes_on_names, open_folder, role_of
from wastejax.data.formats.parquet import image_column, open_parquet, parquet_files
from wastejax.data.formats.source import ReadFiles, Source
from wastejax.data.formats.table import metadata_files, open_tables
from wastejax.data.formats.walk import absolute, ignored, listed
from wastejax.errors import ConfigError
from wastejax.files import user_path

_ARCHIVES = (".zip", ".gz", ".tgz", ".7z", ".rar")
KINDS = (
    "a folder, or a file: .csv, .tsv, .jsonl or .parquet of files and labels or boxes, .json (COCO, Label "
    "Studio), .xml (CVAT), .yaml (YOLO), .tar"
)


def open_path(path: str | Path, key: str = "config.data.dir", reading: Reading = CROPS) -> Source:
    """Opens a folder or a file that describes labeled images.

    Folders: class folders; tar shards (WebDataset); Hugging Face's image folders (metadata.csv, .jsonl, .parquet)
    and Parquet files; YOLO (data.yaml or classes.txt); COCO (annotations/instances_*.json, or as of Roboflow);
    Roboflow's tables of boxes (_annotations.csv); CVAT for images (annotations.xml); Pascal VOC; or where there are
    no class folders, the annotation file there.
    Files: see `KINDS`. URLs: tar shards or class folders.

    Args:
        path: the folder or file.
        key: what to call it in error messages.
        reading: whether boxes become crops, or what photographs show.

    Raises:
        ConfigError: it is not there, or cannot be used.
    """
    source = _open(path, key, reading)
    if reading.several and source.shown is None:
        source = source.with_several()
    return replace(source, notes=(*source.notes, *notes_on_names(source.classes)))


def _open(path: str | Path, key: str, reading: Reading) -> Source:
    if is_url(path) and str(path).lower().endswith(_ARCHIVES):
        raise ConfigError(key, f"{path}: is an archive; download and unpack it, and give the folder")
    if is_url(path):
        return open_url(str(path), key)
    path = user_path(path)
    if path.is_file():
        return _open_file(path, key, reading)
    if not path.is_dir():
        return open_folder(path, key)  # says what is wrong
    whole = absolute(path)  # for annotations, whose photographs may lie above them or have absolute names
    if tables := metadata_files(path, key, reading.several) or box_tables(path, key):
        return _open_tables(tables, key, reading)
    if (files := parquet_files(path)) and image_column(files[0], key):
        return open_parquet(files, key, reading.several)
    if file := yolo_file(path):
        return open_yolo(absolute(file), key, reading)
    if coco_files(path):
        return open_coco(whole, key, reading)
    if (tars := tar_files(path)) and not any(p.is_dir() and not ignored(p.name) for p in path.iterdir()):
        return open_tars(tars, key)
    if (path / CVAT_IN_FOLDER).is_file():
        return open_cvat(whole / CVAT_IN_FOLDER, key, reading)
    if xml_files(path):
        return open_voc(whole, key, reading)
    return _open_folder(path, key, reading)


def _open_folder(path: Path, key: str, reading: Reading) -> Source:
    """Opens class folders; where there are none, the annotation file of the folder, or those of its split folders.

    A folder called `data` or `images` is no class where annotations lie beside it.

    Raises:
        ConfigError: as of `open_folder`, or there are several annotation files of one folder.
    """
    try:
        source = open_folder(path, key)
    except ConfigError:
        if annotated := _open_annotated(path, key, reading):
            return annotated
        raise
    others = [name for name in source.classes if not is_container(name)]
    if len(source.classes) > 1 and others == list(source.classes):
        return source
    within = source.read.root if isinstance(source.read, ReadFiles) else path
    annotated = _open_annotated(path, key, reading) or _open_annotated(within, key, reading)
    if annotated and len(source.classes) > 1:
        beside = f"folders beside the annotated photographs, not read: {listed(others)}"
        return replace(annotated, notes=(*annotated.notes, *([beside] if others else [])))
    return annotated or source


def _open_annotated(folder: Path, key: str, reading: Reading) -> Source | None:
    """Opens the annotation file that lies in a folder, or the COCO files in its split folders; None without.

    Raises:
        ConfigError: there are several in one folder, or they cannot be read.
    """
    if file := _the_one(annotation_files(folder), folder, key):
        return _open_file(file, key, reading)
    inner = {p: role for p in _inside(folder) if p.is_dir() and (role := role_of(p.name))}
    coco = {
        p: [f for f in annotation_files(p) if f.suffix.lower() == ".json" and not _is_list(f)] for p in inner
    }
    files = {p: _the_one(of_split, p, key) for p, of_split in coco.items()}
    splits = {absolute(file): inner[p] for p, file in files.items() if file}
    if not splits:
        return None
    source = open_coco(
        absolute(folder), key, reading, splits if len(splits) > 1 else dict.fromkeys(splits, "")
    )
    without = [p.name for p, file in files.items() if not file]
    bare = f"splits without an annotation file, left out: {listed(without)}"
    return replace(source, notes=(*source.notes, *([bare] if without else [])))


def _the_one(found: list[Path], folder: Path, key: str) -> Path | None:
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ConfigError(key, f"{str(folder)!r} holds several annotation files, {names}; name one of them")
    return found[0] if found else None


def annotation_files(folder: Path) -> list[Path]:
    """Returns the files of a folder that COCO, Label Studio or CVAT may have written, by what is in them."""
    return [file for file in _inside(folder) if file.is_file() and _is_annotation(file)]


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not ignored(path.name))
    except OSError:  # whoever walks through it says what is wrong
        return []


def _is_annotation(file: Path) -> bool:
    try:
        if file.suffix.lower() == ".xml":
            return ElementTree.parse(file).getroot().tag == "annotations"
        content = json.loads(file.read_text(encoding="utf-8-sig")) if file.suffix.lower() == ".json" else None
    except (OSError, ValueError, LookupError, RecursionError, ElementTree.ParseError):
        return False
    if isinstance(content, list):
        return bool(content) and isinstance(content[0], dict) and not {"data", "image"}.isdisjoint(content[0])
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content)


def _open_file(path: Path, key: str, reading: Reading) -> Source:
    ending, whole = path.suffix.lower(), absolute(path)
    if ending == ".parquet":
        if image_column(path, key):
            return open_parquet([path], key, reading.several)
        return _open_tables([path], key, reading)
    if ending in (".csv", ".tsv", ".jsonl", ".ndjson"):
        return _open_tables([path], key, reading)
    if ending == ".json":
        return (open_label_studio if _is_list(path) else open_coco)(whole, key, reading)
    if ending == ".xml":
        return open_cvat(whole, key, reading)
    if ending in (".yaml", ".yml"):
        return open_yolo(whole, key, reading)
    if ending == ".tar":
        return open_tars([str(path)], key)
    if ending in _ARCHIVES:
        raise ConfigError(key, f"{str(path)!r} is an archive; unpack it and give the folder")
    raise ConfigError(
        key, f"{str(path)!r} is not a folder, nor a description that is understood; give {KINDS}"
    )


def _open_tables(paths: list[Path], key: str, reading: Reading) -> Source:
    """Opens tables of files, or of boxes in these."""
    if has_boxes(paths[0], key):
        return open_box_tables([absolute(path) for path in paths], key, reading)
    return open_tables(paths, key, reading.several)


def _is_list(path: Path) -> bool:
    """Whether a JSON file holds a list, as Label Studio's exports do; COCO's hold an object."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(4096).lstrip()[:1] == "["
    except (OSError, UnicodeDecodeError):
        return False  # whoever reads it says what is wrong
