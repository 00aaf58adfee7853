"""Small sets written by the tools that people write theirs with (by_tools/write.py) are read as they were drawn."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from by_tools import write

from wastejax.data.formats.any import open_path
from wastejax.data.formats.boxes import Reading
from wastejax.data.images import decode
from wastejax.errors import ConfigError

HERE = Path(write.__file__).parent
COMMITTED = json.loads((HERE / "tools.json").read_text())  # set -> tool and version
WHOLE = ("parquet", "parquet_of_paths", "image_folder")  # sets of one label an image
OPENED = {"coco": "annotations.json"}  # of the others the folder
OPENED |= {"label_studio": "project.json", "cvat": "train.xml"}


def check(folder: Path, name: str) -> None:
    """Every crop is of its class's color alone and has the size of its rectangle."""
    source = open_path(folder / name / OPENED.get(name, ""), reading=Reading(margin=0))
    assert set(source.classes) == set(write.CLASSES)
    found, expected = [], []
    for i, label in enumerate(source.label_names):
        image = decode(source.read(i))
        if name not in WHOLE:
            assert (np.asarray(image) == write.COLORS[label]).all()
        found.append((label, image.size))
    for photo, objects in write.PHOTOS.items():
        if name in WHOLE:
            expected.append((write.WHOLE[photo], write.SIZE))
            continue
        expected += [(label, (right - left, bottom - top)) for label, (left, top, right, bottom) in objects]
    assert sorted(found) == sorted(expected)
    if name not in WHOLE:
        several = open_path(folder / name / OPENED.get(name, ""), reading=Reading(several=True))
        shown = sorted({label for label, _ in objects} for objects in write.PHOTOS.values())
        assert sorted(set(labels.split(";")) for labels in several.label_names) == shown


@pytest.mark.parametrize("name", COMMITTED)
def test_a_set_is_read_as_it_was_drawn(name):
    if name.startswith("parquet"):
        pytest.importorskip("pyarrow")
    if name.startswith("yolo"):
        pytest.importorskip("yaml")
    check(HERE, name)


@pytest.mark.parametrize("name", ["coco", "cvat", "label_studio"])
def test_the_folder_may_be_named_instead_of_the_one_file_in_it(name, tmp_path):
    """The newcomer's way; `images` would be its only class. Beside class folders such a file is but a file."""
    source, folder = open_path(HERE / name / OPENED[name]), open_path(HERE / name)
    assert (source.names, source.label_names) == (folder.names, folder.label_names)
    shutil.copytree(HERE / name, tmp_path / "set")
    file = tmp_path / "set" / OPENED[name]
    shutil.copy(file, file.with_stem("again"))
    with pytest.raises(ConfigError, match=r"several annotation files, .*again"):
        open_path(tmp_path / "set")
    for label in ("can", "glass"):
        shutil.copytree(HERE / name / "images", tmp_path / "set" / label)
    shutil.rmtree(tmp_path / "set" / "images")
    assert open_path(tmp_path / "set").classes == ("can", "glass")


@pytest.mark.slow
@pytest.mark.parametrize("name", write.SETS)
def test_what_the_installed_tool_writes_today_is_read_alike(tmp_path, name):
    tool, _ = write.SETS[name]
    pytest.importorskip(tool.replace("-", "_"))
    # A process of its own: what the tools bring along warns, and warnings are errors here.
    subprocess.run([sys.executable, write.__file__, str(tmp_path), name], check=True, timeout=300)
    check(tmp_path, name)


@pytest.mark.slow
def test_the_formats_own_readers_agree(tmp_path):
    """What pycocotools and Hugging Face's datasets make of the same sets."""
    coco = pytest.importorskip("pycocotools.coco").COCO(str(HERE / "coco" / "annotations.json"))
    names = {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())}
    source = open_path(HERE / "coco" / "annotations.json")
    assert sorted(source.label_names) == sorted(names[a["category_id"]] for a in coco.anns.values())
    datasets = pytest.importorskip("datasets")
    folder = datasets.load_dataset(
        "imagefolder", data_dir=str(HERE / "image_folder"), cache_dir=str(tmp_path)
    )
    source = open_path(HERE / "image_folder")
    assert sorted(source.label_names) == sorted(map(str, folder["train"]["label"]))
