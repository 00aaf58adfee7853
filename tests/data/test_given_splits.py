"""Splits that the data come with are kept as they are, or refused in one line: never dropped in silence."""

import json
from pathlib import Path

import pytest
from PIL import Image

from wastejax.data.description import open_description
from wastejax.data.formats.any import open_path
from wastejax.errors import ConfigError


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(path)
    return path


def refused(root: Path, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as error:
        open_path(root)
    assert "\n" not in str(error.value)


def voc(root: Path, *names: str) -> None:
    for name in names:
        save(root / f"{name}.png")
        (root / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename><size><width>8</width><height>6</height></size>"
            "<object><name>can</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>6</ymax></bndbox>"
            "</object></annotation>"
        )


@pytest.mark.parametrize("train", ["train", "trainval"])
def test_what_the_lists_of_voc_do_not_name_is_left_out(tmp_path, train):
    (tmp_path / "Annotations").mkdir()
    voc(tmp_path, "a", "b", "c")
    for file in tmp_path.glob("*.xml"):
        file.rename(tmp_path / "Annotations" / file.name)
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / f"{train}.txt").write_text("a\n")
    (main / "test.txt").write_text("b\n")
    source = open_path(tmp_path)
    assert dict(zip(source.names, source.splits, strict=True)) == {"a.png#0": "train", "b.png#0": "test"}
    assert "photographs that ImageSets/Main does not list, left out: 1 (c.png)" in source.notes


@pytest.mark.parametrize(
    "names, train, val",
    [
        (("IMG 0", "IMG 1", "IMG 2"), "IMG 0\nIMG 1\n", "IMG 2\n"),
        (("IMG 0", "IMG 1", "IMG 2"), "IMG 0 1\nIMG 1 -1\n", "IMG 2  0\n"),
        (("IMG 0", "IMG 1", "IMG 2"), '"IMG 0"\n"IMG 1" -1\n', '"IMG 2"  1\n'),
        (("Monday/0", "Monday/1", "Tuesday/0"), "Monday/0\nMonday/1 -1\n", "Tuesday/0  1\n"),
        (("Monday/0", "Monday/1", "Tuesday/0"), "Monday\\0\nMonday\\1\n", "Tuesday\\0\n"),
        (("0", "1", "Tuesday/2"), "0 1\n1 -1\n", "Tuesday/2 1\n"),
    ],
)
def test_the_lists_of_voc_name_images_with_spaces_and_in_folders(tmp_path, names, train, val):
    for folder in ("Monday", "Tuesday"):
        (tmp_path / "JPEGImages" / folder).mkdir(parents=True)
        (tmp_path / "Annotations" / folder).mkdir(parents=True)
    voc(tmp_path / "JPEGImages", *names)
    for name in names:
        file = f"{name}.xml"
        (tmp_path / "JPEGImages" / file).rename(tmp_path / "Annotations" / file)
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text(train)
    (main / "val.txt").write_text(val)
    source = open_path(tmp_path)
    assert source.groups == tuple(f"JPEGImages/{name}.png" for name in names)
    assert source.splits == ("train", "train", "val")
    assert not any("ImageSets" in note for note in source.notes)


def test_annotations_of_voc_beside_the_folders_of_splits_are_refused(tmp_path):
    voc(tmp_path, "train/a", "test/b", "c")
    refused(tmp_path, r"'c\.png' is of none")


def coco(file: Path, image: str) -> None:
    save(file.parent.parent / "images" / image)
    file.parent.mkdir(exist_ok=True)
    content = {
        "images": [{"id": 1, "file_name": image, "width": 8, "height": 6}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 6]}],
        "categories": [{"id": 1, "name": "can"}],
    }
    file.write_text(json.dumps(content))


def test_a_file_of_coco_beside_those_of_splits_is_refused_by_name(tmp_path):
    for name in ("train2017", "val2017"):
        coco(tmp_path / "annotations" / f"instances_{name}.json", f"{name}.png")
    assert set(open_path(tmp_path).splits) == {"train", "val"}
    coco(tmp_path / "annotations" / "instances_extra.json", "extra.png")
    refused(tmp_path, r"'annotations/instances_extra\.json' is of none")


def test_an_image_in_the_lists_of_two_splits_of_voc_is_refused(tmp_path):
    voc(tmp_path, "a", "b", "c")
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    for name, listed in (("trainval", "a b"), ("train", "a"), ("val", "b"), ("test", "c")):
        (main / f"{name}.txt").write_text("\n".join(listed.split()))
    assert open_path(tmp_path).splits == ("train", "val", "test")
    (main / "val.txt").write_text("b\na\n")
    refused(tmp_path, r"val\.txt: a is listed under train and under val; list each image under one")
    (main / "val.txt").write_text("b\n")
    (main / "trainval.txt").write_text("a\nb\nc\n")
    refused(tmp_path, r"trainval\.txt: c is listed under test and under train")


def test_an_image_in_the_files_of_two_splits_of_coco_is_refused(tmp_path):
    for name in ("train2017", "val2017"):
        coco(tmp_path / "annotations" / f"instances_{name}.json", "a.png")
    refused(tmp_path, r"val2017\.json: a\.png is listed under train and under val")


def test_images_of_cvat_in_no_subset_beside_those_of_splits_are_refused(tmp_path):
    images = ""
    for name, subset in (("a", 'subset="train"'), ("b", 'subset="test"'), ("c", "")):
        save(tmp_path / f"{name}.png")
        box = '<box label="can" xtl="0" ytl="0" xbr="8" ybr="6"/>'
        images += f'<image name="{name}.png" {subset} width="8" height="6">{box}</image>'
    (tmp_path / "annotations.xml").write_text(f"<annotations>{images}</annotations>")
    refused(tmp_path, r"'c\.png' is of none")


def parquet(path: Path, **columns) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"label": ["can", "jar"], **columns}
    images = [{"bytes": b"", "path": ""}] * len(columns["label"])
    parquet.write_table(pyarrow.table({"image": images, **columns}), path)


def test_a_parquet_file_of_no_split_beside_those_of_splits_is_refused_by_name(tmp_path):
    for name in ("train", "test"):
        parquet(tmp_path / f"waste-{name}-00000-of-00001.parquet")
    assert sorted(open_path(tmp_path).splits) == ["test", "test", "train", "train"]
    parquet(tmp_path / "unlabeled-00000-of-00001.parquet", label=[-1, -1])
    assert sorted(open_path(tmp_path).splits) == ["test", "test", "train", "train"]
    parquet(tmp_path / "unlabeled-00000-of-00001.parquet")
    refused(tmp_path, "'unlabeled-00000-of-00001' is of none")


def test_columns_of_parquet_give_splits_and_groups(tmp_path):
    file = tmp_path / "all.parquet"
    parquet(file, split=["Training", "testing"], group=[3, None])
    source = open_path(file)
    assert source.splits == ("train", "test") and source.groups == ("3", "")
    parquet(file, split=["train", None])
    refused(file, r"'all\.parquet, row 1' is of none")
    parquet(file, split=["train", "east"])
    refused(file, r"row 1 has split 'east'; must be train, val or test")


@pytest.mark.parametrize("loose", ["glass/cover.png", "metal/more/1.png", "paper/1.png"])
def test_an_image_beside_the_splits_of_its_class_is_refused_by_name(tmp_path, loose):
    for name in ("glass", "metal"):
        for split in ("train", "test"):
            save(tmp_path / name / split / "0.png")
    assert set(open_path(tmp_path).splits) == {"train", "test"}
    save(tmp_path / loose)
    refused(tmp_path, f"'{loose}' lies in none|'glass' and 'metal' hold folders of the same names")


def table(root: Path, *names: str) -> Path:
    rows = [f"{name},{('can', 'jar')[i % 2]}" for i, name in enumerate(names)]
    (root / "list.csv").write_text("\n".join(["file,label", *rows]))
    return root / "list.csv"


@pytest.mark.parametrize(
    "names",
    [
        ("train/0.png", "train/1.png", "valid/2.png", "test/3.png"),
        ("images/train/can/0.png", "images/train/jar/1.png", "images/valid/2.png", "images/test/3.png"),
        ("can/train/0.png", "jar/train/1.png", "can/valid/2.png", "jar/test/3.png"),
        (
            "/train/set/train/0.png",
            "/train/set/train/1.png",
            "/train/set/valid/2.png",
            "/train/set/test/3.png",
        ),
    ],
)
def test_folders_of_the_files_in_a_table_give_the_splits_where_no_row_does(tmp_path, names):
    source = open_path(table(tmp_path, *names))
    splits = {name[-5:]: split for name, split in zip(source.names, source.splits, strict=True)}
    assert splits == {"0.png": "train", "1.png": "train", "2.png": "val", "3.png": "test"}
    (note,) = source.notes
    assert note.startswith("splits by the folders of the files") and "'valid' is val" in note


def test_metadata_above_the_folders_of_splits_keep_these(tmp_path):
    table(tmp_path, "train/0.png", "test/1.png").rename(tmp_path / "metadata.csv")
    assert open_path(tmp_path).splits == ("test", "train")


def test_a_column_split_counts_more_than_the_folders_of_the_files(tmp_path):
    (tmp_path / "list.csv").write_text("file,label,split\ntrain/0.png,can,test\ntest/1.png,jar,train\n")
    source = open_path(tmp_path / "list.csv")
    assert source.splits == ("train", "test") and source.notes == ()


def test_a_file_of_a_table_beside_the_folders_of_splits_is_refused_by_name(tmp_path):
    refused(table(tmp_path, "train/0.png", "test/1.png", "extra/2.png"), r"'extra/2\.png' is of none")


@pytest.mark.parametrize("names", [("train/0.png", "train/1.png"), ("train/0.png", "more/1.png")])
def test_files_in_the_folder_of_one_split_are_undivided_and_that_is_told(tmp_path, names):
    source = open_path(table(tmp_path, *names))
    assert source.splits is None
    assert source.notes == ("no other split beside 'train': its images are taken as undivided",)


@pytest.mark.parametrize(
    ("name", "said", "note"),
    [
        ("classes.txt", "can\njar\n", ()),
        (
            "data.yaml",
            "names: [can, jar]\ntrain: images\n",
            ("no other split beside 'train': its images are taken as undivided",),
        ),
    ],
)
def test_a_yolo_set_of_one_split_is_undivided_and_described_beside_others_that_are(
    tmp_path, name, said, note
):
    (tmp_path / "boxes" / "labels").mkdir(parents=True)
    for i in range(2):
        save(tmp_path / "boxes" / "images" / f"{i}.png")
        (tmp_path / "boxes" / "labels" / f"{i}.txt").write_text(f"{i} .5 .5 .5 .5\n")
        save(tmp_path / "home" / ("can", "jar")[i] / "0.png")
    (tmp_path / "boxes" / name).write_text(said)
    source = open_path(tmp_path / "boxes")
    assert source.splits is None and source.notes[1:] == note
    (tmp_path / "data.toml").write_text(
        'classes = "home"\n[sources.home]\npath = "home"\n[sources.boxes]\npath = "boxes"\n'
    )
    both = open_description(tmp_path / "data.toml").source
    assert len(both) == 4 and both.splits is None


@pytest.mark.parametrize("role", ["val", "test"])
def test_a_yolo_set_of_val_or_test_alone_stays_that(tmp_path, role):
    (tmp_path / "labels").mkdir()
    for i in range(2):
        save(tmp_path / "images" / f"{i}.png")
        (tmp_path / "labels" / f"{i}.txt").write_text(f"{i} .5 .5 .5 .5\n")
    (tmp_path / "data.yaml").write_text(f"names: [can, jar]\n{role}: images\n")
    assert open_path(tmp_path).splits == (role, role)
