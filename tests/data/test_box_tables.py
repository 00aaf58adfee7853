"""Tables with a row for each box are read as boxes, as every other format is, and not as labels of photographs."""

from pathlib import Path

import pytest
from PIL import Image

from wastejax.data.formats.any import open_path
from wastejax.data.formats.boxes import Reading
from wastejax.errors import ConfigError

HEAD = "filename,width,height,class,xmin,ymin,xmax,ymax"


def table(file: Path, *rows: str, head: str = HEAD) -> Path:
    """Writes a table, and a red photograph of 100 x 80 pixels, with a blue object, for each name in it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([head, *rows]))
    for row in rows:
        photo = Image.new("RGB", (100, 80), "red")
        photo.paste("blue", (10, 20, 40, 60))
        path = file.parent / row.split(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path)
    return file


def splits(path: Path) -> dict[str, str]:
    source = open_path(path)
    return dict(zip(source.names, source.splits, strict=True))


def test_each_row_is_a_crop_and_a_photograph_their_group(tmp_path):
    rows = ("a.png,100,80,can,10,20,40,60", "a.png,100,80,jar,0,0,10,10", "b.png,100,80,,,,,")
    source = open_path(table(tmp_path / "boxes.csv", *rows), reading=Reading(margin=0))
    assert source.names == ("a.png#0", "a.png#1") and source.label_names == ["can", "jar"]
    assert source.groups == ("a.png", "a.png") and source.splits is None
    (tmp_path / "crop.png").write_bytes(source.read(0))
    with Image.open(tmp_path / "crop.png") as crop:
        assert crop.size == (30, 40) and crop.getcolors() == [(1200, (0, 0, 255))]
    assert source.notes == (
        "read as a table of boxes: 2 boxes in 1 photographs, which stay whole in every split",
        "photographs without a box that can be used, left out: 1",
    )


def test_a_photograph_whose_boxes_nobody_named_is_none_without_any_of_the_classes(tmp_path):
    rows = ("a.png,100,80,can,10,20,40,60", "a.png,100,80, ,0,0,10,10", "b.png,100,80,,10,20,40,60")
    file = table(tmp_path / "boxes.csv", *rows, "c.png,100,80,,,,,")
    source = open_path(file, reading=Reading(several=True))
    assert source.names == ("a.png", "c.png") and source.label_names == ["can", ""]
    assert source.notes == (
        "read as a table of boxes: 2 whole photographs with 1 labels",
        "boxes left out: 2 without a label",
        "photographs of nothing but boxes without a label, left out: 1",
        "images that show none of the classes: 1",
    )
    assert "boxes left out: 2 without a label" in open_path(file).notes


def test_the_tables_of_roboflow_are_in_the_folders_of_its_splits(tmp_path):
    for split in ("train", "valid", "test"):
        table(tmp_path / split / "_annotations.csv", f"{split}.png,100,80,can,10,20,40,60")
    assert splits(tmp_path) == {
        "test/test.png#0": "test",
        "train/train.png#0": "train",
        "valid/valid.png#0": "val",
    }
    (tmp_path / "test" / "_annotations.csv").write_text("file,label\ntest.png,can\n")
    with pytest.raises(ConfigError, match="lies in no class folder"):
        open_path(tmp_path)


def test_splits_are_those_of_a_column_or_of_the_photographs_folders(tmp_path):
    rows = ("train/a.png,100,80,can,10,20,40,60", "test/b.png,100,80,jar,10,20,40,60")
    file = table(tmp_path / "boxes.csv", *rows)
    assert splits(file) == {"train/a.png#0": "train", "test/b.png#0": "test"}
    assert open_path(file).notes[-1].startswith("splits by the folders of the files")
    table(file, f"{rows[0]},test", f"{rows[1]},train", head=f"{HEAD},Split")
    assert splits(file) == {"train/a.png#0": "test", "test/b.png#0": "train"}
    table(file, f"{rows[0]},test", f"{rows[0]},train", head=f"{HEAD},split")
    with pytest.raises(ConfigError, match=r"a\.png is listed under test and under train"):
        open_path(file)


def test_columns_that_boxes_have_no_use_for_are_told(tmp_path):
    rows = ("a.png,100,80,can,10,20,40,60,belt 1,0", "b.png,100,80,jar,10,20,40,60,,0")
    source = open_path(table(tmp_path / "boxes.csv", *rows, head=f"{HEAD},group,difficult"))
    assert source.notes[1:] == ("rows with 'group', which is not read beside boxes: 1",)


def test_names_of_columns_may_be_in_capitals(tmp_path):
    row = "a.png,100,80,can,10,40,20,60"
    head = "FileName,Width,Height,Class,XMin,XMax,YMin,YMax"
    (box,) = open_path(table(tmp_path / "boxes.csv", row, head=head), reading=Reading(margin=0)).read.boxes
    assert box.corners == (0.1, 0.25, 0.4, 0.75) and box.size == (100, 80)
