"""Annotations that contradict themselves or what is beside them: no box goes to another photograph in silence."""

import io
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


def voc(file: Path, names: str, label: str = "can") -> None:
    """Writes an XML file of one box, which says that its photograph is called so."""
    corners = "<xmin>11</xmin><ymin>11</ymin><xmax>30</xmax><ymax>30</ymax>"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"<annotation><filename>{names}</filename><size><width>50</width><height>40</height></size>"
        f"<object><name>{label}</name><bndbox>{corners}</bndbox></object></annotation>"
    )


def test_boxes_of_voc_stay_with_the_photograph_that_is_called_like_their_file(tmp_path):
    photographs(tmp_path / "JPEGImages", "a.png", "a_flip.png", "b.png")
    photographs(tmp_path / "masks", "a_flip.png", "0001.png")
    voc(tmp_path / "Annotations/a.xml", "a.png")
    voc(tmp_path / "Annotations/a_flip.xml", "a.png", "jar")
    voc(tmp_path / "Annotations/0001.xml", "b.png", "lid")
    source = open_path(tmp_path, "--data")
    assert source.groups == ("JPEGImages/a.png", "JPEGImages/a_flip.png", "JPEGImages/b.png")
    assert source.label_names == ["can", "jar", "lid"]
    said = "XML files that name the photograph of another, read by their own names: 1 (a_flip.xml)"
    assert said in source.notes


def test_voc_without_a_size_needs_a_photograph_that_can_be_read(tmp_path):
    photographs(tmp_path, "a.png")
    voc(tmp_path / "a.xml", "a.png")
    file = tmp_path / "a.xml"
    file.write_text(file.read_text().replace("<width>50</width>", ""))
    assert len(open_path(tmp_path, "--data")) == 1
    (tmp_path / "a.png").write_text("no image")
    refused(tmp_path, r"a\.xml: says no width and height, and its image cannot be read: not an image")


def test_a_second_file_of_voc_for_a_photograph_is_refused_with_both_files(tmp_path):
    photographs(tmp_path / "JPEGImages", "a.png")
    for name in ("a", "a_flip"):
        voc(tmp_path / f"Annotations/{name}.xml", "a.png")
    refused(tmp_path, r"JPEGImages/a\.png is the photograph of .*a\.xml and of .*a_flip\.xml; move one")


def test_masks_among_annotations_of_voc_are_no_photographs(tmp_path):
    photographs(tmp_path / "images", "a.jpg", "a_flip.jpg")
    photographs(tmp_path / "annotations/trimaps", "a.png", "a_flip.png")
    for name in ("a", "a_flip"):
        voc(tmp_path / f"annotations/xmls/{name}.xml", "a.jpg")
    assert open_path(tmp_path, "--data").groups == ("images/a.jpg", "images/a_flip.jpg")
    voc(tmp_path / "annotations/xmls/a.xml", "a")
    refused(tmp_path, r"a\.xml: its image 'a' is there 2 times")


@pytest.mark.parametrize("folder", ["annotations", "Annotations", "ANNOTATIONS"])
def test_annotations_of_voc_are_found_in_a_folder_of_any_case_and_in_split_folders(tmp_path, folder):
    for split in ("train", "test"):
        photographs(tmp_path / "split" / split / "images", "a.png")
        voc(tmp_path / "split" / split / folder / "a.xml", "a.png")
    source = open_path(tmp_path / "split", "--data")
    assert source.groups == ("test/images/a.png", "train/images/a.png")
    assert source.splits == ("test", "train") and source.classes == ("can",)
    source = open_path(tmp_path / "split/train", "--data")
    assert source.groups == ("images/a.png",) and source.classes == ("can",)


def test_an_export_of_cvat_among_annotations_of_voc_says_to_name_it(tmp_path):
    photographs(tmp_path / "images", "a.png")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/all.xml").write_text("<annotations/>")
    refused(tmp_path, r"all\.xml is no Pascal VOC file; if it is CVAT's, give the file itself")


@pytest.mark.parametrize("several", [False, True])
def test_photographs_of_voc_without_a_file_are_counted_and_masks_are_not(tmp_path, several):
    photographs(tmp_path / "JPEGImages", "a.png", "b.png", "c.png")
    photographs(tmp_path / "SegmentationClass", "a.gif", "d.gif")
    voc(tmp_path / "Annotations/a.xml", "a.png")
    (tmp_path / "Annotations/.a.xml").write_text("of a Mac")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a 1\nb -1\n")
    source = open_path(tmp_path, "--data", Reading(several=several))
    bare = "photographs without an XML file, left out: 2 (JPEGImages/b.png, JPEGImages/c.png)"
    assert len(source) == 1 and bare in source.notes
    assert "names in ImageSets/Main without an XML file: 1 (b)" in source.notes


def yolo(root: Path, description: str, row: str = "0 .5 .5 .4 .5") -> Path:
    """Writes two photographs with a box each, as train, and their data.yaml."""
    photographs(root / "images/train", "0.png", "1.png")
    (root / "labels/train").mkdir(parents=True)
    for i in range(2):
        (root / f"labels/train/{i}.txt").write_text(f"{row}\n")
    (root / "data.yaml").write_text(f"names: [can, jar]\n{description}\n")
    return root


def test_keypoints_of_yolo_are_no_polygon_where_it_says_how_many_there_are(tmp_path):
    root = yolo(tmp_path, "train: images/train\nkpt_shape: [2, 2]", "0 .5 .5 .4 .5 .9 .9 .95 .95")
    with Image.open(io.BytesIO(open_path(root, "--data", PLAIN).read(0))) as crop:
        assert crop.size == (20, 20)
    (root / "labels/train/1.txt").write_text("0 .5 .5 .4 .5 .9 .9\n")
    refused(root, r"1\.txt:1: needs 4 numbers, and 4 of keypoints, after the class")
    (root / "data.yaml").write_text("names: [can]\ntrain: images/train\nkpt_shape: 17\n")
    refused(root, "`kpt_shape` must be two numbers")


def test_test_images_of_yolo_that_are_not_there_are_passed_over_and_told(tmp_path):
    root = yolo(tmp_path, "train: ../images/train\ntest: ../images/test")
    source = open_path(root, "--data")
    assert len(source) == 2
    assert "test images at '../images/test', which is not there, passed over" in source.notes
    (root / "data.yaml").write_text("names: [can]\ntrain: images/train\nval: ../images/val\n")
    refused(root, rf"there is no {root}/images/val, where val images should be")


def test_listed_images_of_yolo_that_are_not_there_are_counted_by_name(tmp_path):
    root = yolo(tmp_path, "train: train.txt")
    (root / "train.txt").write_text("data/images/train/0.png\nimages\\train\\1.png\nimages/train/gone.png\n")
    source = open_path(root, "--data")
    assert source.groups == ("images/train/0.png", "images/train/1.png")
    assert "listed images that are not there: 1 (images/train/gone.png)" in source.notes
    (root / "train.txt").write_text("elsewhere/0.png\nelsewhere/1.png\n")
    refused(root, r"train\.txt: of 2 images that it lists none is there, such as .*elsewhere/0\.png")


def test_files_of_yolo_may_begin_with_a_byte_order_mark(tmp_path):
    """As Windows' Notepad and PowerShell write them."""
    root = yolo(tmp_path, "train: train.txt")
    (root / "train.txt").write_text("images/train/0.png\nimages/train/1.png\n")
    for file in root.rglob("*.[ty]*"):
        file.write_text(file.read_text(), encoding="utf-8-sig")
    source = open_path(root, "--data")
    assert source.groups == ("images/train/0.png", "images/train/1.png")
    assert not any("not there" in note for note in source.notes)


def zerowaste(root: Path, *splits: str) -> Path:
    """Writes photographs, masks and a COCO file into a folder for each split."""
    for split in splits:
        names = [f"{split}{i}.png" for i in range(2)]
        photographs(root / split / "data", *names)
        photographs(root / split / "sem_seg", *names)
        coco(root / split / "labels.json", *names)
    return root


@pytest.mark.parametrize("above", [".", "zerowaste-f"])
def test_coco_files_in_split_folders_are_read_and_not_the_folders_of_images_and_masks(tmp_path, above):
    root = zerowaste(tmp_path / above, "train", "validation", "test")
    source = open_path(tmp_path, "--data")
    assert source.classes == ("can", "jar") and source.splits == ("test",) * 2 + ("train",) * 2 + ("val",) * 2
    assert source.groups[2:4] == ("train/data/train0.png", "train/data/train1.png")
    assert "folders beside the annotated photographs, not read: sem_seg" in source.notes
    one = open_path(root / "train", "--data")
    assert one.groups == ("data/train0.png", "data/train1.png") and one.splits is None
    assert one.notes == open_path(root / "train/labels.json", "--data").notes + source.notes[-1:]


def test_a_split_whose_coco_file_lists_no_image_is_an_empty_one(tmp_path):
    for split, names in (("train", ("a.png", "b.png")), ("valid", ("c.png", "d.png")), ("test", ())):
        photographs(tmp_path / split, *names)
        coco(tmp_path / split / "_annotations.coco.json", *names)
    source = open_path(tmp_path, "--data")
    assert source.groups == ("train/a.png", "train/b.png", "valid/c.png", "valid/d.png")
    assert source.splits == ("train", "train", "val", "val")
    refused(tmp_path / "test", "holds no box that can be used")


def test_a_split_folder_without_a_coco_file_is_told_and_one_with_two_refused(tmp_path):
    root = zerowaste(tmp_path, "train", "val", "test")
    (root / "test/labels.json").unlink()
    source = open_path(root, "--data")
    assert source.splits == ("train", "train", "val", "val")
    assert "splits without an annotation file, left out: test" in source.notes
    coco(root / "val/more.json", "val0.png")
    refused(root, r"val' holds several annotation files, labels\.json, more\.json; name one of them")


def test_class_folders_stay_classes_where_annotations_lie_in_their_splits(tmp_path):
    for split in ("train", "test"):
        photographs(tmp_path / split, f"can/{split}.png", f"jar/{split}.png")
        coco(tmp_path / split / "labels.json", f"can/{split}.png", f"jar/{split}.png")
    source = open_path(tmp_path, "--data")
    assert source.groups is None and source.names[0] == "test/can/test.png"
    assert source.classes == ("can", "jar")
