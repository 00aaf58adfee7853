"""Bad input in every format is one line that names the place, and exit code 2; it never is a traceback."""

import json
import random
import re
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wastejax import main
from wastejax.data.formats.any import open_path
from wastejax.data.formats.boxes import Reading
from wastejax.errors import ConfigError, UserError

IMAGE = {"id": 1, "file_name": "a.png", "width": 64, "height": 48}
BOX = {"id": 5, "image_id": 1, "category_id": 2, "bbox": [1, 2, 30, 20]}
COCO = {"images": [IMAGE], "annotations": [BOX], "categories": [{"id": 2, "name": "can"}]}
SHAPE = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["can"]}
RESULT = {"type": "rectanglelabels", "original_width": 64, "original_height": 48, "value": SHAPE}
TASK = {"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": [RESULT]}]}
VOC = (
    "<annotation><filename>a.png</filename><size><width>64</width><height>48</height></size><object><name>can</name>"
    "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object></annotation>"
)
CVAT = (
    '<annotations><image id="0" name="a.png" width="64" height="48">'
    '<box label="can" xtl="1" ytl="2" xbr="30" ybr="20"/>'
    '<polygon label="can" points="1,2;30,2;30,20"/><tag label="street"/></image></annotations>'
)
BOXES = "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,64,48,can,1,2,30,20\n"

# Format -> its files beside a.png, the first of which is broken; and what is opened.
GOOD: dict[str, tuple[dict[str, str], str]] = {
    "COCO": ({"a.json": json.dumps(COCO)}, "a.json"),
    "Label Studio": ({"a.json": json.dumps([TASK])}, "a.json"),
    "CVAT": ({"annotations.xml": CVAT}, "."),
    "VOC": ({"a.xml": VOC}, "."),
    "YOLO": ({"data.yaml": "names: [can, jar]\ntrain: .\n", "a.txt": "0 .5 .5 .4 .4\n"}, "."),
    "YOLO labels": ({"a.txt": "0 .5 .5 .4 .4\n", "data.yaml": "names: [can, jar]\ntrain: .\n"}, "."),
    "CSV": ({"a.csv": "file,label,split\na.png,can,train\n"}, "a.csv"),
    "CSV of boxes": ({"a.csv": BOXES}, "a.csv"),
    "JSON lines": ({"a.jsonl": '{"file": "a.png", "label": "can"}\n'}, "a.jsonl"),
    "image folder": ({"metadata.csv": "file_name,label\na.png,can\n"}, "."),
}


def coco(**changes) -> str:
    return json.dumps(COCO | changes)


def tasks(**changes) -> str:
    return json.dumps([TASK | changes])


def results(*entries) -> str:
    return tasks(annotations=[{"result": list(entries)}])


UNREAD = r"is not read \(convert them to JPEG or PNG\)"
# Format -> (what stands in its first file instead, what is said of it).
BAD: dict[str, list[tuple[str | bytes, str]]] = {
    "COCO": [
        ("{", "is no COCO file"),
        (b"\xff\xfe\x00", "is no COCO file"),
        ("[" * 100_000, "recursion|Stack overflow"),
        (coco(categories=3), "is no COCO file"),
        (json.dumps({"images": [], "annotations": []}), "lacks 'categories'"),
        (coco(images=[{"id": 1, "width": 9, "height": 9}]), "lacks 'file_name'"),
        (coco(images=[7]), "is no COCO file"),
        (coco(images=[IMAGE | {"file_name": "gone.png"}]), "are not found"),
        (coco(images=[IMAGE | {"file_name": "deep/a.psd"}]), UNREAD),
        (coco(images=[IMAGE | {"width": None}]), "has no width and height"),
        (coco(images=[IMAGE | {"width": -64, "height": -48}]), "has no width and height"),
        (coco(annotations=[]), "holds no box"),
        (coco(annotations=[1]), "annotation 0 of 1"),
        (coco(annotations=[BOX, BOX | {"image_id": 9}]), "annotation 1 of 2: names no image"),
        (coco(annotations=[BOX | {"image_id": []}]), "annotation 0 of 1"),
        (coco(annotations=[BOX | {"category_id": 9}]), "names no category"),
        (coco(annotations=[BOX | {"bbox": 5}]), "annotation 0 of 1"),
        (coco(annotations=[BOX | {"bbox": [1, 2, 3]}]), "left out: 1 without a box"),
        (coco(annotations=[BOX | {"bbox": [1, 2, "x", 3]}]), "left out: 1 without a box"),
        (coco(annotations=[BOX | {"bbox": [90, 2, 3, 3]}]), "left out: 1 outside the photograph"),
    ],
    "Label Studio": [
        ("[]", "empty"),
        ("[1, 2]", "no COCO file"),
        ("[{", "cannot read"),
        (tasks(data={"text": "hello"}), "names no image"),
        (tasks(data={"image": "gone.png"}), "is not found beside it"),
        (tasks(data={"image": "gone.psd"}), UNREAD),
        (tasks(data={"image": "x" * 5000 + ".png"}), "task 0|is not found beside it"),
        (tasks(annotations=[]), "without an annotation|no box"),
        (tasks(annotations=5), "task 0"),
        (tasks(annotations=[5]), "task 0"),
        (results(7), "task 0"),
        (results({"type": "choices", "value": {}}), "choices: lacks 'choices'"),
        (results(RESULT | {"value": SHAPE | {"x": "left"}}), "task 0, rectanglelabels: could not convert"),
        (results(RESULT | {"value": {"rectanglelabels": ["can"]}}), "rectanglelabels: lacks 'x'"),
    ],
    "CVAT": [
        ("<annotations><image", "cannot read"),
        ("<annotation/>", "no CVAT export"),
        ('<annotations><track id="0" label="a"/></annotations>', "of a video"),
        ("<annotations/>", "holds no box"),
        (CVAT.replace("a.png", "gone.png"), "is not found beside it"),
        (CVAT.replace("a.png", "gone.psd"), UNREAD),
        (CVAT.replace('width="64"', 'width="0"'), "no width and height"),
        (CVAT.replace('width="64"', 'width="wide"'), "invalid literal"),
        (CVAT.replace(' ytl="2"', ""), "lacks 'ytl'"),
        (CVAT.replace("1,2;30,2;30,20", "1;2"), "image 'a.png'"),
        ('<?xml version="1.0" encoding="nonsense"?>' + CVAT, "cannot read"),
    ],
    "VOC": [
        (VOC.replace("<bndbox>", "<bndbox"), "is no Pascal VOC file"),
        (VOC.replace("<xmin>1</xmin>", ""), "has no box of four numbers"),
        (VOC.replace(">64<", ">wide<"), "is no Pascal VOC file"),
        (VOC.replace("<name>can</name>", ""), "an object has no name"),
        (VOC.replace("<xmax>30", "<xmax>nan"), "left out: 1 without numbers"),
        (VOC.replace("<xmin>1", "<xmin>70"), "left out: 1 of zero size"),
    ],
    "YOLO": [
        ("names: [", "cannot read"),
        (b"\xff\xfe\x00", "cannot read"),
        ("- a", "is no YOLO description"),
        ("train: .\n", "lacks `names`"),
        ("names: {a: can}\ntrain: .\n", "`names` must be a list"),
        ("names: [can]\ntrain: nowhere\n", "there is no"),
        ("names: [can]\n", "names no images"),
        ("names: [can]\ntrain: a.png\n", "train: "),  # an image where a list of images should be
    ],
    "YOLO labels": [
        ("7 .5 .5 1 1", r"a\.txt:1: .* a class from 0 to 1"),
        ("can .5 .5 1 1", "a class from 0 to 1"),
        ("1e999 .5 .5 1 1", "a class from 0 to 1"),
        ("0 .5 .5 .4 .4\n0 .5 .5", r"a\.txt:2: needs 4 numbers"),
        ("0 .5 .5 .4 nan", "left out: 1 without numbers"),
        ("", "holds no box"),
    ],
    "CSV": [
        ("name,kind\na.png,can\n", "needs a column 'file'"),
        ("file,kind\na.png,can\n", "needs a column 'label'"),
        ("file,label\n", "lists no file"),
        ("", "lists no file"),
        ("file,label\na.png,can\na.png,jar\n", "lists a.png twice"),
        ("file,label,split\na.png,can,later\n", "has split 'later'"),
        ("file,label,split\na.png,can,train\nb.png,can,\n", "some files have a split and some have none"),
        ("file,label\n,\n", "no row has both"),
        (b"\xff\xfe\x00", "cannot read"),
        ("file,label\na\0.png,can\n", "holds a zero byte|cannot read"),
    ],
    "CSV of boxes": [
        (
            BOXES.replace("height,", "deep,"),
            "no column 'height' of its photographs, in pixels; add it, or export",
        ),
        (BOXES.replace("class,", "kind,"), "needs a column 'labels'"),
        (BOXES.replace("64,", ","), "row 1: width must be a number, is ''"),
        (BOXES.replace("64,", "0,"), "row 1: width and height must be at least 1"),
        (BOXES.replace("64,", "1e999,"), r"a\.csv: row 1"),
        (BOXES.replace("30,", "wide,"), "row 1: xmax must be a number, is 'wide'"),
        (BOXES.replace("30,", "nan,"), "left out: 1 without numbers"),
        (BOXES.replace("1,2,30,20", ",,,"), "left out: 1 without a box"),
        (BOXES.replace("can,", ","), "left out: 1 without a label"),
        (BOXES.replace("a.png", "gone.png"), "is not found beside it"),
        (BOXES.replace("a.png", "gone.psd"), UNREAD),
        (BOXES.replace("a.png", "a\0.png"), "is not found beside it|row 1|cannot read"),
        (BOXES.replace("a.png", ""), "holds no box"),
    ],
    "JSON lines": [("{\n", "cannot read"), ("[1]\n", "cannot read"), ('{"a": 1}\n', "needs a column")],
    "image folder": [
        ("file_name,label\na.png,\n", "no row has both"),
        ("file_name,label\na.png,can\na.png,jar\n", "twice"),
    ],
}


def write(folder: Path, form: str, content: str | bytes | None = None) -> Path:
    """Writes a set, its first file with other content; returns what is to be opened."""
    files, opened = GOOD[form]
    Image.new("RGB", (64, 48), "red").save(folder / "a.png")
    (folder / "b.png").write_text("no image")
    for name, text in files.items():
        (folder / name).write_text(text)
    if content is not None:
        first = folder / next(iter(files))
        first.write_bytes(content) if isinstance(content, bytes) else first.write_text(content)
    return folder / opened


@pytest.mark.parametrize("form", GOOD)
def test_what_is_broken_here_is_right_otherwise(tmp_path, form):
    assert open_path(write(tmp_path, form)).label_names[0] == "can"


@pytest.mark.parametrize(
    ("form", "content", "problem"), [(f, *case) for f, cases in BAD.items() for case in cases]
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, form, content, problem, monkeypatch, capsys):
    path = write(tmp_path, form, content)
    out = tmp_path.with_name(f"{tmp_path.name}-audit")
    monkeypatch.setattr(sys, "argv", ["wastejax", "audit", f"--data={path}", f"--out={out}"])
    with pytest.raises(SystemExit) as stop:
        main.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and re.match(rf"error: --data: .*({problem})", said) and said.count("\n") == 1
    assert not out.exists()


def test_photographs_of_another_kind_are_named_beside_labels(tmp_path):
    path = write(tmp_path, "YOLO")
    (tmp_path / "layers.psd").touch()
    assert "files left out by their ending: 1 .psd (convert them to JPEG or PNG)" in open_path(path).notes
    voc = tmp_path / "voc"
    voc.mkdir()
    write(voc, "VOC")
    (voc / "c.xml").write_text(VOC.replace("a.png", "c.psd"))
    with pytest.raises(ConfigError, match=f"c.psd' {UNREAD}"):
        open_path(voc)


OTHERS = {
    "a.zip": (b"PK", "unpack it"),
    "a.txt": (b"a.png", "not a folder, nor a description"),
    "a.parquet": (b"no", "cannot read"),
    "a.tar": (b"no", "a.tar"),
    "nowhere": (None, "nowhere"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_files_that_are_no_description(tmp_path, name):
    content, problem = OTHERS[name]
    if name == "a.parquet":
        pytest.importorskip("pyarrow")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=problem) as error:
        open_path(tmp_path / name, "--data")
    assert "\n" not in str(error.value)


VALUES = [None, True, -1, 0, 1e308, "", "x", "\0", "nan", [], [[]], {}, [1, "a"], {"id": []}, 10**400]


def shaken(value, rng: random.Random):
    """Returns a JSON value, a part of which is another one or gone."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(VALUES)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    copy = value.copy()
    if rng.random() < 0.2:
        del copy[key]
    else:
        copy[key] = shaken(value[key], rng)
    return copy


def shaken_text(text: str, rng: random.Random) -> str:
    """Returns a text, a word of which is another one or gone, or which ends early."""
    words = re.findall(r"\w+|\W", text)
    at = rng.randrange(len(words))
    if rng.random() < 0.1:
        return "".join(words[:at])
    words[at] = rng.choice(
        ["", "-1", "0", "1e999", "nan", "x", "\0", "é" * 3000, "<a>", '"', "\n", "99999999999999"]
    )
    return "".join(words)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(GOOD)), st.booleans(), st.integers(0, 2**32))
def test_whatever_is_broken_it_is_read_or_told_in_one_line(tmp_path_factory, form, several, seed):
    rng = random.Random(seed)
    folder = tmp_path_factory.mktemp("shaken")
    text = next(iter(GOOD[form][0].values()))
    broken = (
        json.dumps(shaken(json.loads(text), rng))
        if form in ("COCO", "Label Studio")
        else shaken_text(text, rng)
    )
    try:
        source = open_path(write(folder, form, broken), "--data", Reading(several=several))
        assert len(source) == len(source.labels) and len(source.names) == len(set(source.names))
    except UserError as error:
        assert "\n" not in str(error)
    finally:
        shutil.rmtree(folder)
