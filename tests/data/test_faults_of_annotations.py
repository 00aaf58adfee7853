"""Annotations that contradict themselves or what is beside them: no box goes to another photograph in silence."""

import json
from pathlib import Path

import pytest
from PIL import Image

from wastejax.data.formats.any import open_path
from wastejax.data.formats.boxes import Reading
from wastejax.errors import ConfigError

PLAIN = Reading(margin=0)


def photographs(folder: Path, *names: str, size: tuple[int, int] = (50, 40)) -> None:
    for i, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (40 * i, 9, 9)).save(file)


def coco(
    file: Path, *names: str, ids: tuple[int, ...] = (), categories: tuple[tuple[int, str], ...] = ()
) -> Path:
    """Writes a box for each name: of a can, a jar, a can, …"""
    numbers = ids or tuple(range(len(names)))
    images = [
        {"id": i, "file_name": name, "width": 50, "height": 40}
        for i, name in zip(numbers, names, strict=True)
    ]
    boxes = [
        {"id": i, "image_id": number, "category_id": i % 2, "bbox": [5, 5, 20, 20]}
        for i, number in enumerate(numbers)
    ]
    named = [{"id": i, "name": name} for i, name in categories or ((0, "can"), (1, "jar"))]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "categories": named, "annotations": boxes}))
    return file


def refused(path: Path, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as error:
        open_path(path, "--data", PLAIN)
    assert "\n" not in str(error.value)


def test_an_id_of_coco_that_is_two_images_or_two_classes_is_refused_by_both_names(tmp_path):
    photographs(tmp_path, "a.png", "b.png")
    refused(
        coco(tmp_path / "c.json", "a.png", "b.png", ids=(1, 1)), r"image 1 is 'a\.png' and 'b\.png'; give"
    )
    twice = ((0, "can"), (1, "jar"), (1, "lid"))
    refused(
        coco(tmp_path / "c.json", "a.png", "b.png", categories=twice), "category 1 is 'jar' and 'lid'; give"
    )


def test_an_id_of_coco_that_is_said_again_is_one(tmp_path):
    photographs(tmp_path, "a.png", "b.png")
    names, said_again = ("a.png", "b.png", "a.png"), ((0, "can"), (1, "jar"), (0, "can"))
    source = open_path(coco(tmp_path / "c.json", *names, ids=(0, 1, 0), categories=said_again), "--data")
    assert source.names == ("a.png#0", "a.png#1", "b.png#0")


def test_coco_lies_where_most_of_its_images_are_not_where_a_copy_of_one_is(tmp_path):
    photographs(tmp_path / "images", "a.png", "b.png", "c.png")
    photographs(tmp_path, "a.png", size=(25, 20))
    source = open_path(coco(tmp_path / "c.json", "a.png", "b.png", "c.png", "gone.png"), "--data", PLAIN)
    assert source.groups == tuple(f"images/{name}.png" for name in ("a", "b", "c", "gone"))
    with Image.open(tmp_path / "images/a.png") as image:
        assert image.size == (50, 40)


def test_a_copy_of_one_image_of_coco_does_not_hide_that_all_are_elsewhere(tmp_path):
    photographs(tmp_path / "photos/monday", "a.png", "b.png", "c.png")
    photographs(tmp_path / "photos", "a.png")
    names = ("monday/a.png", "monday/b.png", "monday/c.png")
    assert len(open_path(coco(tmp_path / "c.json", *names), "--data")) == 3
    (tmp_path / "photos/a.png").rename(tmp_path / "b.png")
    source = open_path(coco(tmp_path / "c.json", "a.png", "c.png"), "--data")
    assert source.groups == ("photos/monday/a.png", "photos/monday/c.png")


@pytest.mark.parametrize("folder", ["images", "photos/images", "."])
def test_names_with_backslashes_are_those_of_windows(tmp_path, folder):
    photographs(tmp_path / folder, "train/a.png", "train/b.png")
    source = open_path(coco(tmp_path / "c.json", "train\\a.png", "train\\b.png"), "--data")
    assert [Path(name).name for name in source.groups] == ["a.png", "b.png"]


def test_a_file_whose_name_has_a_backslash_keeps_it(tmp_path):
    photographs(tmp_path, "train\\a.png", "train/b.png")
    source = open_path(coco(tmp_path / "c.json", "train\\a.png", "train\\b.png"), "--data")
    assert set(source.groups) == {"train\\a.png", "train/b.png"}


def test_names_with_backslashes_in_cvat_are_those_of_windows(tmp_path):
    photographs(tmp_path, "train/a.png")
    box = '<box label="can" xtl="5" ytl="5" xbr="20" ybr="20"/>'
    image = f'<image name="train\\a.png" width="50" height="40">{box}</image>'
    (tmp_path / "annotations.xml").write_text(f"<annotations>{image}</annotations>")
    assert open_path(tmp_path, "--data").groups == ("train/a.png",)
