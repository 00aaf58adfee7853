"""Photographs are found however they, and the annotations that name them, are referred to."""

import json
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import pytest
from PIL import Image

from wastejax.data.formats.any import open_path
from wastejax.data.formats.boxes import Reading
from wastejax.data.formats.boxes.find import folder_of_all
from wastejax.errors import ConfigError


def photographs(folder: Path, count: int = 4) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        Image.new("RGB", (50, 40), (i * 40, 9, 9)).save(path)
    return paths


def coco(file: Path, names: list[str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    boxes = [
        {"id": i, "image_id": i, "category_id": i % 2, "bbox": [5, 5, 20, 20]} for i, _ in enumerate(names)
    ]
    images = [{"id": i, "file_name": name, "width": 50, "height": 40} for i, name in enumerate(names)]
    categories = [{"id": 0, "name": "can"}, {"id": 1, "name": "jar"}]
    file.write_text(json.dumps({"images": images, "categories": categories, "annotations": boxes}))
    return file


def cvat(file: Path, names: list[str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    box = '<box label="{}" xtl="5" ytl="5" xbr="20" ybr="20"/>'
    images = "".join(
        f'<image name="{name}" width="50" height="40">{box.format(["can", "jar"][i % 2])}</image>'
        for i, name in enumerate(names)
    )
    file.write_text(f"<annotations>{images}</annotations>")
    return file


def label_studio(file: Path, names: list[str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    tasks = [{"image": name, "choice": ["can", "jar"][i % 2]} for i, name in enumerate(names)]
    file.write_text(json.dumps(tasks))
    return file


@pytest.mark.parametrize("write", [coco, cvat])
def test_a_relative_path_to_annotations_of_absolute_names_comes_to_an_end(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    paths = photographs(tmp_path / "photos")
    file = write(tmp_path / f"labels/a{'.json' if write is coco else '.xml'}", [str(path) for path in paths])
    source = open_path(file.relative_to(tmp_path), "--data")
    assert source.names == open_path(file, "--data").names == tuple(f"photos/{i}.jpg#0" for i in range(4))


@pytest.mark.parametrize("write", [coco, cvat, label_studio])
def test_a_path_from_the_folder_of_the_annotations_means_what_the_absolute_one_does(
    tmp_path, monkeypatch, write: Callable[[Path, list[str]], Path]
):
    paths = photographs(tmp_path / ("images" if write is coco else "labels/images"))
    file = write(tmp_path / f"labels/a{'.xml' if write is cvat else '.json'}", [path.name for path in paths])
    monkeypatch.chdir(file.parent)
    expected = open_path(file, "--data")
    assert len(expected) == 4
    for given in (file.name, f"../labels/{file.name}"):
        source = open_path(given, "--data")
        assert (source.names, source.origin) == (expected.names, expected.origin)
        assert source.read(0) == expected.read(0)


def test_a_path_that_leaves_a_link_is_taken_as_the_system_takes_it(tmp_path, monkeypatch):
    photographs(tmp_path / "disk/set/can"), photographs(tmp_path / "disk/set/jar")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/link").symlink_to(tmp_path / "disk/set/can")
    monkeypatch.chdir(tmp_path / "work")
    assert len(open_path("link/..", "--data")) == 8


def test_photographs_on_several_drives_are_one_line(tmp_path):
    drives = [PureWindowsPath("D:/a/0.jpg"), PureWindowsPath("E:/1.jpg")]
    with pytest.raises(ConfigError, match="move them together"):
        folder_of_all(PureWindowsPath("D:/a/labels"), drives, "--data")
    assert folder_of_all(PureWindowsPath("D:/a/labels"), drives[:1], "--data") == PureWindowsPath("D:/a")


def yolo(root: Path, labels: str, train: str = "images/train") -> Path:
    for i in range(4):
        file = root / labels / f"{i}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{i % 2} .5 .5 .4 .4\n")
    (root / "data.yaml").write_text(f"names: [can, jar]\ntrain: {train}\n")
    return root


def linked(folder: Path, targets: list[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for target in targets:
        (folder / target.name).symlink_to(target)


@pytest.mark.parametrize("links", ["files", "some files", "the folder"])
@pytest.mark.parametrize("listed", [False, True])
def test_labels_of_yolo_are_found_where_its_images_are_links(tmp_path, links, listed):
    stored = photographs(tmp_path / "store")
    root, train = tmp_path / "set", tmp_path / "set/images/train"
    if links == "the folder":
        train.parent.mkdir(parents=True)
        train.symlink_to(tmp_path / "store")
    else:
        linked(train, stored[: 4 if links == "files" else 2])
        for path in stored[4 if links == "files" else 2 :]:
            path.rename(train / path.name)
    yolo(root, "labels/train", "train.txt" if listed else "images/train")
    (root / "train.txt").write_text("".join(f"./images/train/{i}.jpg\n" for i in range(4)))
    source = open_path(root, "--data")
    assert source.names == tuple(f"images/train/{i}.jpg#0" for i in range(4))
    assert source.label_names == ["can", "jar"] * 2
    several = open_path(root, "--data", Reading(several=True))
    assert several.label_names == ["can", "jar"] * 2


def test_labels_of_yolo_beside_what_its_images_are_links_to_are_found(tmp_path):
    linked(tmp_path / "set/train", photographs(tmp_path / "store/images"))
    yolo(tmp_path / "store", "labels")
    yolo(tmp_path / "set", "unused", "train")
    assert open_path(tmp_path / "set", "--data").label_names == ["can", "jar"] * 2


@pytest.mark.parametrize("above", ["images", "photos"])
def test_labels_of_yolo_beside_its_images_are_found_in_a_folder_of_any_name(tmp_path, above):
    root = tmp_path / above / "waste"
    photographs(root)
    yolo(root, ".")
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("can\njar\n")
    assert open_path(root, "--data").label_names == ["can", "jar"] * 2


def test_a_text_beside_an_image_is_no_label_where_labels_are_in_a_folder_of_their_own(tmp_path):
    photographs(tmp_path / "set/images/train", 5)
    yolo(tmp_path / "set", "labels/train")
    (tmp_path / "set/images/train/4.txt").write_text("a can in the grass\n")
    source = open_path(tmp_path / "set", "--data")
    assert len(source) == 4 and "photographs without a box that can be used, left out: 1" in source.notes


def test_a_size_that_is_written_as_a_fraction_is_a_size(tmp_path):
    paths = photographs(tmp_path / "images", 2)
    file = coco(tmp_path / "coco.json", [path.name for path in paths])
    plain = open_path(file, "--data")
    file.write_text(
        file.read_text().replace('"width": 50', '"width": 50.0').replace('"height": 40', '"height": 4e1')
    )
    source = open_path(file, "--data")
    assert [source.read(i) for i in range(2)] == [plain.read(i) for i in range(2)]
    assert source.stamps == plain.stamps
    file.write_text(file.read_text().replace("50.0", "50.5"))
    with pytest.raises(ConfigError, match="has no width and height"):
        open_path(file, "--data")


@pytest.mark.parametrize("folders", [("images",), ("images/Monday", "images/Tuesday")])
def test_frames_of_a_video_that_cvat_names_without_an_ending_are_found(tmp_path, folders):
    names = []
    for folder in folders:
        names += [path.with_suffix("") for path in photographs(tmp_path / folder, 2)]
    called = [path.relative_to(tmp_path / "images").as_posix() for path in names]
    cvat(tmp_path / "annotations.xml", called)
    assert open_path(tmp_path).groups == tuple(f"images/{name}.jpg" for name in called)
    (names[1].with_suffix(".png")).write_bytes(names[1].with_suffix(".jpg").read_bytes())
    with pytest.raises(ConfigError, match=f"its image '{called[1]}' is there 2 times"):
        open_path(tmp_path)
