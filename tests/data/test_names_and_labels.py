"""Labels are read as they are meant, and go to the photograph that is named; what cannot be read is told."""

import json
import unicodedata
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from tests.data.test_annotation_exports import BOX, cvat, cvat_image, label_studio, photo, rectangle, task
from wastejax.data.collections.parts import images, parts_of
from wastejax.data.corrections import load_corrections
from wastejax.data.description import open_description
from wastejax.data.description.label_map import load_label_map
from wastejax.data.description.meant import meant_by
from wastejax.data.formats.any import open_path
from wastejax.data.formats.boxes import CROPS, Reading
from wastejax.errors import ConfigError

SEVERAL = Reading(several=True)
GLASS, PAPER = "유리", "종이"
PARTS = unicodedata.normalize("NFD", GLASS)  # as macOS writes it


def coco(root: Path, *names: str) -> Path:
    images = [{"id": i, "file_name": name, "width": 80, "height": 60} for i, name in enumerate(names)]
    rows = [{"image_id": i, "category_id": i % 2, "bbox": [0, 0, 40, 40]} for i in range(len(names))]
    categories = [{"id": 0, "name": "can"}, {"id": 1, "name": "jar"}]
    file = root / "all.json"
    file.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return file


def as_cvat(root: Path, *names: str) -> Path:
    return cvat(root, "".join(cvat_image(name, BOX) for name in names))


def as_label_studio(root: Path, *names: str) -> Path:
    tasks = [
        task(f"/data/local-files/?d={name}" if "/" in name else name, rectangle("can", 0, 0, 50, 50))
        for name in names
    ]
    return label_studio(root, *tasks)


FORMS = pytest.mark.parametrize("write", [coco, as_cvat, as_label_studio])


@FORMS
@pytest.mark.parametrize(
    ("there", "named"),
    [
        (["batch2/a.png"], ["batch1/a.png", "batch2/a.png"]),  # two names, one file
        (["batch2/a.png"], ["batch2/a.png", "batch1/a.png"]),
        (["new/a.png"], ["batch1/a.png", "batch2/a.png"]),
        (["batch2/a.png", "batch2/b.png"], ["batch1/a.png", "batch2/b.png"]),  # one folder is there
        (["deep/batch2/a.png", "deep/batch2/b.png"], ["batch1/a.png", "batch2/b.png"]),
    ],
)
def test_labels_go_to_no_other_photograph_of_the_same_name(tmp_path, write, there, named):
    for i, name in enumerate(there):
        photo(tmp_path / name, i)
    given = write(tmp_path, *named)
    if write is coco and set(named) & set(there):
        # The folder is known, and what lacks there is unreadable by its name.
        source = open_path(given)
        assert source.groups == tuple(sorted(named))
        return
    with pytest.raises(ConfigError, match=r"batch[12]/a\.png'.* not found beside it") as error:
        open_path(given)
    assert "\n" not in str(error.value)


@FORMS
@pytest.mark.parametrize(
    ("there", "named"),
    [
        (["new/a.png", "new/b.png"], ["a.png", "b.png"]),
        (["new/a.png", "new/b.png"], ["old/a.png", "old/b.png"]),  # the folder has another name now
        (["x/one/a.png", "x/two/a.png"], ["one/a.png", "two/a.png"]),
    ],
)
def test_photographs_are_found_where_their_names_are_certain(tmp_path, write, there, named):
    for i, name in enumerate(there):
        photo(tmp_path / name, i)
    assert open_path(write(tmp_path, *named)).groups == tuple(there if write is not coco else sorted(there))


def test_a_subset_of_cvat_need_not_be_a_folder(tmp_path):
    for i, name in enumerate(("x/one/a.png", "x/one/b.png", "train/c.png")):
        photo(tmp_path / name, i)
    images = [
        ("one/a.png", {"subset": "train"}),
        ("one/b.png", {"subset": "train"}),
        ("c.png", {"subset": "train"}),
    ]
    given = cvat(tmp_path, "".join(cvat_image(name, BOX, **more) for name, more in images))
    assert open_path(given / "annotations.xml").groups == ("train/c.png", "x/one/a.png", "x/one/b.png")


def test_two_uploads_are_not_one_photograph(tmp_path):
    photo(tmp_path / "a.png")
    shape = rectangle("can", 0, 0, 50, 50)
    with pytest.raises(ConfigError, match=r"89abcdef-a\.png' is not found beside it"):
        open_path(label_studio(tmp_path, *(task(f"{n}-a.png", shape) for n in ("01234567", "89abcdef"))))


def short(root: Path, *tasks: dict) -> Path:
    for name in ("a.png", "b.png"):
        photo(root / name)
    images = ("a.png", "b.png")
    (root / "short.json").write_text(
        json.dumps([{"id": 1, "image": image} | t for image, t in zip(images, tasks, strict=True)])
    )
    return root / "short.json"


def test_one_choice_under_the_name_of_its_tag_is_read_where_the_name_has_choices(tmp_path):
    file = short(tmp_path, {"material": "glass"}, {"material": {"choices": ["can", "paper"]}})
    assert open_path(file, reading=SEVERAL).label_names == ["glass", "can;paper"]


def test_texts_that_may_be_choices_are_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"texts of 'material' are none.*name the tag so, or export as JSON"
    ):
        open_path(short(tmp_path, {"material": "glass"}, {"material": "can"}))
    source = open_path(short(tmp_path, {"choice": "glass", "by": "me"}, {"choice": "can"}))
    assert source.label_names == ["glass", "can"] and "texts of 'by', not read: 1" in source.notes


def jsonl(root: Path, *rows: dict) -> Path:
    lines = [json.dumps({"file": f"{i}.png"} | row) for i, row in enumerate(rows)]
    (root / "list.jsonl").write_text("\n".join(lines))
    return root / "list.jsonl"


def test_group_0_is_a_group_and_null_is_none(tmp_path):
    rows = [{"label": "can", "group": group} for group in (0, 0, 1, None, float("nan"))]
    assert open_path(jsonl(tmp_path, *rows)).groups == ("0", "0", "1", "", "")


def test_columns_that_the_first_rows_of_json_lines_lack_are_read(tmp_path):
    rows = [
        {},
        {"label": "can"},
        {"label": "can", "group": "g", "domain": "default"},
        {"label": "jar", "photo": 7},
    ]
    source = open_path(jsonl(tmp_path, *rows))
    assert source.groups == ("", "g", "7") and source.domains == ("", "default", "")
    assert source.notes == ("rows without a file or a label, left out: 1",)
    with pytest.raises(ConfigError, match="some files have a split and some have none"):
        open_path(jsonl(tmp_path, {"label": "can"}, {"label": "jar", "split": "test"}))
    assert any(
        "column 'fold' is not read" in note for note in open_path(jsonl(tmp_path, *rows, {"fold": 1})).notes
    )
    with pytest.raises(ConfigError, match="column 'jar' must hold 0 or 1, has a row without it"):
        open_path(jsonl(tmp_path, {"can": 1, "lid": 0}, {"can": 0, "lid": 1, "jar": 1}), reading=SEVERAL)


def test_metadata_whose_first_row_has_no_label_are_read(tmp_path):
    rows = [{"file_name": "a.png"}, {"file_name": "b.png", "label": "can"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert open_path(tmp_path).names == ("b.png",)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "parquet with images"])
def test_known_columns_are_read_in_capitals_from_every_table(tmp_path, ending):
    rows = [("a.png", "can", "train", "g"), ("b.png", "jar", "test", "h")]
    columns = ("File", "Label", "Split", "GROUP")
    path = tmp_path / f"list.{ending[:7]}"
    if ending == "csv":
        path.write_text("\n".join(map(",".join, [columns, *rows])))
    elif ending == "jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows))
    else:
        table = pyarrow.table(dict(zip(columns, zip(*rows, strict=True), strict=True)))
        parquet.write_table(table.append_column("i", [[b"x"] * 2]) if "images" in ending else table, path)
    source = open_path(path)
    assert source.label_names == ["can", "jar"]
    assert source.splits == ("train", "test") and source.groups == ("g", "h")


def test_a_list_of_labels_is_no_class_of_its_own(tmp_path):
    file = jsonl(tmp_path, {"label": ["can"]}, {"label": ["can", "jar"]})
    with pytest.raises(ConfigError, match=r"1\.png: has 2 labels, can, jar; .*config\.loss\.kind=multilabel"):
        open_path(file)
    assert open_path(file, reading=SEVERAL).label_names == ["can", "can;jar"]
    assert open_path(jsonl(tmp_path, {"label": ["can"]}, {"label": [None, "jar"]})).label_names == [
        "can",
        "jar",
    ]


@pytest.mark.parametrize("between", [";", "|", " ; "])
def test_a_cell_of_several_labels_is_no_class_of_its_own(tmp_path, between):
    file = tmp_path / "list.csv"
    file.write_text(f'file,label\na.png,"can{between}jar"\nb.png,can\nc.png,jar\n')
    with pytest.raises(
        ConfigError, match=r"list\.csv: a\.png has 2 labels, can, jar; .*loss\.kind=multilabel"
    ):
        open_path(file)
    assert open_path(file, reading=SEVERAL).label_names == ["can;jar", "can", "jar"]


@pytest.mark.parametrize("form", ["json lines", "parquet with images", "boxes"])
@pytest.mark.parametrize("reading", [CROPS, SEVERAL])
def test_which_of_several_columns_of_labels_is_read_is_told(tmp_path, form, reading):
    rows = [{"label": "0", "category": "can"}, {"label": "1", "category": "jar"}]
    if form == "json lines":
        file = jsonl(tmp_path, *rows)
    elif form == "parquet with images":
        file = tmp_path / "rows.parquet"
        parquet.write_table(pyarrow.Table.from_pylist([row | {"image": b"x"} for row in rows]), file)
    else:
        photo(tmp_path / "a.png")
        head = "filename,width,height,label,category,xmin,ymin,xmax,ymax"
        file = tmp_path / "boxes.csv"
        file.write_text(
            "\n".join([head, *(f"a.png,50,40,{row['label']},{row['category']},1,1,9,9" for row in rows)])
        )
    source = open_path(file, reading=reading)
    assert source.classes == ("0", "1")
    assert source.notes[-1] == "labels are those of the column 'label'; not read: 'category'"


def test_a_label_of_which_a_part_is_another_is_told(tmp_path):
    rows = [{"label": label} for label in ("can;lid", "can", "a;b")]
    source = open_path(jsonl(tmp_path, *rows))
    assert source.classes == ("a;b", "can", "can;lid")
    assert source.notes == ("labels that may be lists of several, each read as one: 'can;lid'",)


def test_a_row_without_a_column_of_0_and_1_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="column 'jar' must hold 0 or 1, has a row without it"):
        open_path(jsonl(tmp_path, {"can": 1, "jar": 0}, {"can": 1}), reading=SEVERAL)


def rows_of_parquet(root: Path, labels: list, names: list[str] | None = None) -> Path:
    table = pyarrow.table({"image": [b"x"] * len(labels), "label": labels})
    if names:
        about = {"info": {"features": {"label": {"names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    parquet.write_table(table, root / "rows.parquet")
    return root / "rows.parquet"


IMAGE = {"bytes": b"image", "path": None}
MASK = {"bytes": b"mask", "path": None}


@pytest.mark.parametrize(
    ("columns", "others"),
    [
        ({"mask": MASK, "image": IMAGE}, "'mask'"),
        ({"mask": b"mask", "Image": b"image"}, "'mask'"),
        ({"id": b"x1", "scan": IMAGE}, "'id'"),  # called neither: {bytes, path} is how images are kept
        ({"thumb": MASK, "id": b"x1", "photo": b"image"}, "'id', 'thumb'"),
        ({"scan": b"image", "hash": b"mask"}, "'hash'"),
        ({"photo": IMAGE, "group": {"day": "1"}}, "'group'"),
        ({"photo": IMAGE}, ""),
    ],
)
def test_the_column_of_images_is_the_one_that_is_called_so(tmp_path, columns, others):
    rows = [columns | {"label": label} for label in ("can", "jar")]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    source = open_path(tmp_path / "rows.parquet")
    assert source.read(0) == source.read(1) == b"image" and source.groups is None
    assert [note.partition("not read: ")[2] for note in source.notes[1:]] == ([others] if others else [])
    said: list[str] = []
    (part,) = parts_of([str(tmp_path / "rows.parquet")], 10, said.append)
    assert [load() for _, load in images(part)] == [b"image", b"image"]
    expected = [others] if others and "group" not in columns else []  # groups are of training alone
    assert [line.partition("not read: ")[2] for line in said] == expected


def test_a_photograph_named_beside_the_images_is_their_group(tmp_path):
    rows = [{"photo": IMAGE, "image": IMAGE, "group_id": n, "label": "can"} for n in (1, 1, 2)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert open_path(tmp_path / "rows.parquet").groups == ("1", "1", "2")


def test_rows_of_parquet_without_a_label_are_counted(tmp_path):
    source = open_path(rows_of_parquet(tmp_path, ["can", None, "jar", " "]))
    assert source.label_names == ["can", "jar"] and "rows without a label, left out: 2" in source.notes
    numbered = open_path(rows_of_parquet(tmp_path, [0, -1, 1], ["can", "jar"]))
    assert numbered.label_names == ["can", "jar"] and "rows without a label, left out: 1" in numbered.notes
    listed = open_path(rows_of_parquet(tmp_path, [["can", None], [], ["jar"]]), reading=SEVERAL)
    assert listed.label_names == ["can", "", "jar"]
    assert "labels without a name in lists, left out: 1" in listed.notes


@pytest.mark.parametrize("none", ["", [], " ; "])
@pytest.mark.parametrize("form", ["json lines", "parquet of files", "parquet of images"])
def test_an_empty_cell_shows_none_of_the_classes_and_a_missing_one_says_nothing(tmp_path, form, none):
    as_cell = (lambda *labels: list(labels)) if none == [] else (lambda *labels: ";".join(labels))
    labels = [as_cell("can", "jar"), as_cell("can"), none, None, as_cell("jar")]
    if form == "json lines":
        file = jsonl(tmp_path, *({"labels": of_row} for of_row in labels), {})
    elif form == "parquet of images":
        file = rows_of_parquet(tmp_path, labels)
    else:
        file = tmp_path / "files.parquet"
        rows = [{"file": f"{i}.png", "labels": of_row} for i, of_row in enumerate(labels)]
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    source = open_path(file, reading=SEVERAL)
    assert source.label_names == ["can;jar", "can", "", "jar"]
    assert "images that show none of the classes: 1" in source.notes
    left_out = {"json lines": "rows without a file or a label, left out: 2"}
    left_out |= {"parquet of files": "rows without a file or a label, left out: 1"}
    assert left_out.get(form, "rows without a label, left out: 1") in source.notes


def test_what_is_no_label_in_parquet_is_none_in_json_lines(tmp_path):
    file = jsonl(tmp_path, {"labels": ["can", None]}, {"labels": [None]}, {"labels": -1}, {"labels": "jar"})
    source = open_path(file, reading=SEVERAL)
    assert source.label_names == ["can", "jar"]
    assert {"labels without a name in lists, left out: 1", "rows without a file or a label, left out: 2"} == {
        *source.notes
    }


@pytest.mark.parametrize("between", [";", "|", " ; "])
def test_a_cell_of_several_labels_in_parquet_is_read_as_in_a_table(tmp_path, between):
    file = rows_of_parquet(tmp_path, [f"can{between}jar", "can ", " jar"])
    with pytest.raises(
        ConfigError, match=r"rows\.parquet: row 0 has 2 labels, can, jar; .*loss\.kind=multilabel"
    ):
        open_path(file)
    source = open_path(file, reading=SEVERAL)
    assert source.label_names == ["can;jar", "can", "jar"] and source.classes == ("can", "jar")
    assert source.notes == ("read as Parquet: 1 files",)
    maybe = open_path(rows_of_parquet(tmp_path, ["can;lid", "can", " can", "a;b"]))
    assert maybe.classes == ("a;b", "can", "can;lid")
    assert "labels that may be lists of several, each read as one: 'can;lid'" in maybe.notes


def test_names_of_numbered_labels_are_no_lists(tmp_path):
    names = ["can", "jar", "can;jar"]
    for reading in (CROPS, SEVERAL):
        assert open_path(rows_of_parquet(tmp_path, [0, 1, 2], names), reading=reading).classes[1] == "can;jar"


def test_a_number_beyond_the_names_of_parquet_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="row 1: has label number 7, and the file names those from 0 to 1"):
        open_path(rows_of_parquet(tmp_path, [0, 7], ["can", "jar"]))


def test_labels_that_macos_writes_in_parts_are_the_same_labels(tmp_path):
    (tmp_path / "list.csv").write_text(f"file,label\na.png,{GLASS}\nb.png,{PARTS}\nc.png,{PAPER}\n")
    (tmp_path / "map.csv").write_text(f"label,classes\n{PARTS},glass\n{PAPER},paper\n")
    (tmp_path / "fix.csv").write_text(f"file,label,old_label\nc.png,{PARTS},{PAPER}\n")
    source = open_path(tmp_path / "list.csv")
    assert source.classes == (GLASS, PAPER)
    meant = meant_by(source, ("glass", "paper"), tmp_path, tmp_path / "map.csv").allowed
    assert meant.tolist() == [[True, False], [True, False], [False, True]]
    assert load_label_map(tmp_path / "map.csv").of("").keys() == {GLASS, PAPER}
    changed = load_corrections(tmp_path / "fix.csv").of(source).applied(source)
    assert changed.label_names == [GLASS] * 3
    photo(tmp_path / "a.png")
    boxes = BOX.replace("can", GLASS) + BOX.replace("can", PARTS)
    assert open_path(cvat(tmp_path, cvat_image("a.png", boxes)) / "annotations.xml").classes == (GLASS,)
    assert open_path(rows_of_parquet(tmp_path, [GLASS, PARTS, PAPER])).classes == (GLASS, PAPER)


def test_groups_of_files_whose_names_macos_writes_in_parts_are_kept(tmp_path):
    for i in range(2):
        for label in (PAPER, "can"):
            photo(tmp_path / "data" / label / f"{PAPER}{i}.png")
    parts = unicodedata.normalize("NFD", PAPER)
    assert parts != PAPER
    rows = "".join(f"{parts}/{parts}{i}.png,one\n" for i in range(2))
    (tmp_path / "groups.csv").write_text(f"file,group\n{rows}", encoding="utf-8")
    described = 'classes = ["can", "paper"]\n[sources.a]\npath = "data"\ngroups = "groups.csv"\n'
    meant = f'[sources.a.meanings]\ncan = ["can"]\n"{PAPER}" = ["paper"]\n'
    (tmp_path / "set.toml").write_text(described + meant, encoding="utf-8")
    source = open_description(tmp_path / "set.toml").source
    assert sorted(source.groups) == ["", "", "a/one", "a/one"]
