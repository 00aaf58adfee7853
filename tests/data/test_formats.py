"""The same images as class folders, CSV, COCO, YOLO, Pascal VOC and Hugging Face layouts; boxes; and bad input."""

import csv
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wastejax.data import images, pipeline
from wastejax.data.formats.any import open_path
from wastejax.data.formats.boxes import Reading
from wastejax.data.formats.table import open_tables
from wastejax.data.images import decode
from wastejax.data.prepare import prepare
from wastejax.data.sources import open_data
from wastejax.data.split import stratified_group_split
from wastejax.data.transforms import AUGMENTATIONS, Preprocessing
from wastejax.errors import ConfigError

CLASSES = ("can", "glass", "paper")


def photo(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Class folders of four photographs each."""
    root = tmp_path / "folder"
    for c, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(4):
            photo(10 * c + i, (64 + 2 * i, 48)).save(root / name / f"{name}{i}.{'jpg' if i % 2 else 'png'}")
    return root


def files(folder: Path) -> list[tuple[Path, str]]:
    return [(path, path.parent.name) for path in sorted(folder.rglob("*.*"))]


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def as_csv(folder: Path, out: Path) -> Path:
    out.mkdir()
    rows = [(path.relative_to(folder.parent), label) for path, label in files(folder)]
    lines = ["file,label", *(f"../{name},{label}" for name, label in rows)]
    (out / "list.csv").write_text("\n".join(lines))
    return out / "list.csv"


def flat(folder: Path, out: Path) -> list[tuple[Path, str]]:
    """Copies the images into one folder."""
    out.mkdir(parents=True)
    return [(Path(shutil.copy(path, out)), label) for path, label in files(folder)]


def as_coco(folder: Path, out: Path) -> Path:
    images, annotations = [], []
    for number, (path, label) in enumerate(flat(folder, out / "images")):
        width, height = size_of(path)
        images.append({"id": number, "file_name": path.name, "width": width, "height": height})
        box = [0, 0, width, height]
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": CLASSES.index(label) + 1,
                "bbox": box,
                "iscrowd": 0,
            }
        )
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    (out / "annotations").mkdir()
    file = out / "annotations" / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def as_yolo(folder: Path, out: Path) -> Path:
    for path, label in flat(folder, out / "images" / "train"):
        text = out / "labels" / "train" / f"{path.stem}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(f"{CLASSES.index(label)} 0.5 0.5 1 1\n")
    (out / "data.yaml").write_text(f"path: .\ntrain: images/train\nnames: {list(CLASSES)}\n")
    return out


def as_voc(folder: Path, out: Path) -> Path:
    (out / "Annotations").mkdir(parents=True)
    for path, label in flat(folder, out / "JPEGImages"):
        width, height = size_of(path)
        (out / "Annotations" / f"{path.stem}.xml").write_text(
            f"<annotation><filename>{path.name}</filename><size><width>{width}</width><height>{height}</height>"
            f"</size><object><name>{label}</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>{width}</xmax>"
            f"<ymax>{height}</ymax></bndbox></object></annotation>"
        )
    return out


def as_box_table(folder: Path, out: Path) -> Path:
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for path, label in flat(folder, out):
        width, height = size_of(path)
        rows.append(f"{path.name},{width},{height},{label},0,0,{width},{height}")
    (out / "_annotations.csv").write_text("\n".join(rows))
    return out


def as_image_folder(folder: Path, out: Path) -> Path:
    rows = [{"file_name": path.name, "label": label} for path, label in flat(folder, out)]
    (out / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return out


def as_parquet(folder: Path, out: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (out / "data").mkdir(parents=True)
    images = [{"bytes": path.read_bytes(), "path": path.name} for path, _ in files(folder)]
    table = pyarrow.table({"image": images, "label": [CLASSES.index(label) for _, label in files(folder)]})
    about = {"info": {"features": {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    parquet.write_table(table, out / "data" / "train-00000-of-00001.parquet", row_group_size=5)
    return out


FORMS = [as_csv, as_coco, as_yolo, as_voc, as_box_table, as_image_folder, as_parquet]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_give_the_same_batches_to_the_bit(folder, tmp_path, form):
    expected, source = open_path(folder), open_path(form(folder, tmp_path / "other"))
    assert source.classes == expected.classes and len(source) == 12
    order = np.argsort([name.split("#")[0].split("/")[-1] for name in source.names], kind="stable")
    source = source.select(order)  # files' names have the order of the folder
    np.testing.assert_array_equal(source.labels, expected.labels)
    augment = AUGMENTATIONS["strong"](Preprocessing(32), 0.3)
    for one, other in zip(
        *(
            pipeline.train_batches(
                pipeline.TrainingImages(pipeline.Reader(s), np.arange(12), augment, 5, seed=3), 0, 4
            )
            for s in (expected, source)
        ),
        strict=True,
    ):
        assert all(np.array_equal(one[key], other[key]) for key in one)
    again = pickle.loads(pickle.dumps(source.read))
    assert again(7) == source.read(7) == expected.read(7)


def annotated(tmp_path, boxes, size=(64, 48), **changes) -> Path:
    """Returns a COCO file of one photograph."""
    (tmp_path / "coco").mkdir()
    photo(1, size).save(tmp_path / "coco" / "a.png")
    image = {"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]} | changes.pop("image", {})
    rows = [{"id": i, "image_id": 1, "category_id": 1, **box} for i, box in enumerate(boxes)]
    file = tmp_path / "coco" / "labels.json"
    content = {"images": [image], "annotations": rows, "categories": [{"id": 1, "name": "can"}]}
    file.write_text(json.dumps(content | changes))
    return file


@pytest.mark.parametrize(
    "margin, expected", [(0, (10, 5, 30, 25)), (0.1, (8, 3, 32, 27)), (1, (0, 0, 50, 45))]
)
def test_a_box_is_the_crop_with_its_margin(tmp_path, margin, expected):
    source = open_path(annotated(tmp_path, [{"bbox": [10, 5, 20, 20]}]), reading=Reading(margin))
    crop = decode(source.read(0))
    assert np.array_equal(np.asarray(crop), np.asarray(photo(1).crop(expected)))
    assert source.groups == ("a.png",) and source.names == ("a.png#0",)


def test_boxes_that_cannot_be_used_are_counted_and_named(tmp_path):
    boxes = [
        {"bbox": [1, 1, 9, 9]},
        {"bbox": [0, 0, 0, 10]},
        {"bbox": [100, 0, 10, 10]},
        {"bbox": [0, 0, 9, 9], "iscrowd": 1},
        {"bbox": [0, 0, 9, 9], "attributes": {"rotation": 30.0}},
        {"bbox": [50, 40, 30, 30]},
        {"segmentation": [[4, 4, 20, 4, 20, 30]]},
        {},
    ]
    source = open_path(annotated(tmp_path, boxes))
    assert len(source) == 3
    assert source.notes[1:] == (
        "boxes left out: 1 crowd, 1 of zero size, 1 outside the photograph, 1 rotated, 1 without a box",
        "boxes that reach beyond the photograph, cut off there: 1",
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("kind", ["png", "tiff", "reduced jpg"])
def test_boxes_and_exif_agree(tmp_path, monkeypatch, orientation, stored, kind):
    """Annotated as seen, or on the pixels as they are stored, where the size tells."""
    k, near = (16, 3) if kind == "reduced jpg" else (1, 0)  # JPEG has noise at the edges of its blocks
    monkeypatch.setattr(images, "REDUCE_ABOVE", 60 * 40 * 128)
    upright = Image.new("RGB", (60 * k, 40 * k), "white")
    upright.paste((200, 0, 0), (5 * k, 10 * k, 25 * k, 20 * k))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's transpositions that undo the orientation
    pixels = upright.transpose(Image.Transpose(back[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    box = [5 * k, 10 * k, 20 * k, 10 * k]
    size = upright.size
    if stored and orientation > 4:
        red = np.argwhere(np.asarray(pixels)[..., 1] == 0)
        (top, left), (bottom, right) = red.min(0), red.max(0) + 1
        box, size = [int(v) for v in (left, top, right - left, bottom - top)], pixels.size
    name = f"a.{kind.split()[-1]}"
    about = {"image": {"file_name": name, "width": size[0], "height": size[1]}}
    file = annotated(tmp_path, [{"bbox": box}], **about)
    pixels.save(tmp_path / "coco" / name, exif=exif)
    crop = np.asarray(decode(open_path(file, reading=Reading(0)).read(0)))
    assert crop.shape == (10 * max(k // 2, 1), 20 * max(k // 2, 1), 3)
    assert (abs(crop.astype(int) - (200, 0, 0)) <= near).all()


def test_crops_of_one_photograph_stay_on_one_side(tmp_path):
    images, rows = [], []
    for i in range(12):
        photo(i, (96, 96)).save(tmp_path / f"{i:02}.png")
        images.append({"id": i, "file_name": f"{i:02}.png", "width": 96, "height": 96})
        rows += [
            {
                "id": 9 * i + k,
                "image_id": i,
                "category_id": k % 2,
                "bbox": [30 * (k % 3), 30 * (k // 3), 30, 30],
            }
            for k in range(6)
        ]
    categories = [{"id": 0, "name": "can"}, {"id": 1, "name": "glass"}]
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    from test_prepare import config_for

    for group in ("phash", "none"):
        dataset = prepare(config_for(file, split__group=group), 17, None)
        assert len(dataset.source) == 72
        sides = {}
        for name, split in zip(dataset.source.names, dataset.splits, strict=True):
            sides.setdefault(name.split("#")[0], set()).add(str(split))
        assert all(len(side) == 1 for side in sides.values()) and len(sides) == 12


def test_a_table_gives_splits_groups_and_domains(folder, tmp_path):
    with (tmp_path / "all.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")  # as spreadsheets write in much of Europe
        writer.writerow(("label", "file", "split", "group", "source"))
        for i, (path, label) in enumerate(files(folder)):
            split = ("Training", "valid", "TEST", "train")[i % 4]
            writer.writerow((label, path.relative_to(tmp_path), split, i // 2, "phone"))
    source = open_path(tmp_path / "all.csv")
    assert source.splits == ("train", "val", "test", "train") * 3
    assert source.groups == tuple(str(i // 2) for i in range(12)) and set(source.domains) == {"phone"}


def test_splits_of_yolo_and_polygons(folder, tmp_path):
    out = as_yolo(folder, tmp_path / "yolo")
    shutil.move(out / "images" / "train" / "can0.png", out / "images" / "val.png")
    (out / "images" / "val").mkdir()
    shutil.move(out / "images" / "val.png", out / "images" / "val" / "x.png")
    (out / "labels" / "val").mkdir()
    (out / "labels" / "val" / "x.txt").write_text("1 .25 .25 .5 .25 .5 .75\n2 .5 .2 .8 .5 .5 .8 .2 .5\n")
    (out / "labels" / "train" / "can1.txt").unlink()
    text = (out / "data.yaml").read_text()
    (out / "data.yaml").write_text(text + "val: ../images/val\n")
    source = open_path(out, reading=Reading(0))
    at = source.names.index("images/val/x.png#0")
    assert source.splits[at] == "val" and source.classes[source.labels[at]] == "glass"
    assert decode(source.read(at)).size == (16, 24)
    assert "boxes left out: 1 rotated" in source.notes
    assert "photographs without a box that can be used, left out: 1" in source.notes


def test_an_image_of_yolo_is_in_one_split_and_read_once(folder, tmp_path):
    out = as_yolo(folder, tmp_path / "yolo")
    before = len(open_path(out))
    text = (out / "data.yaml").read_text()
    (out / "data.yaml").write_text(text + "val: ../images/train\n")
    with pytest.raises(
        ConfigError, match=r"can0\.png is listed under train and under val; list each"
    ) as error:
        open_path(out)
    assert "\n" not in str(error.value)
    (out / "twice.txt").write_text("images/train/can0.png\nimages/train/can0.png\n")
    (out / "data.yaml").write_text("names: [can, glass, paper]\ntrain: [images/train, twice.txt]\n")
    source = open_path(out)
    assert len(source) == before and "images listed again in their split, read once: 2" in source.notes


def test_an_annotation_of_voc_names_its_image_by_its_own_name_too(folder, tmp_path):
    out = as_voc(folder, tmp_path / "voc")
    file = out / "Annotations" / "can0.xml"
    file.write_text(file.read_text().replace("can0.png", "gone0.png"))
    assert len(open_path(out)) == 12


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_an_annotation_of_voc_is_in_the_encoding_that_it_declares(folder, tmp_path, encoding):
    out = as_voc(folder, tmp_path / "voc")
    for file in (out / "Annotations").iterdir():
        text = file.read_text().replace("<name>can</name>", "<name>d\u00e9chet</name>")
        declared = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>\n{text}'
        file.write_bytes(declared.encode(encoding))
    (out / "ImageSets" / "Main").mkdir(parents=True)
    for split, named in (("train", "can glass"), ("test", "paper")):
        names = "".join(f"{name}{i}\n" for name in named.split() for i in range(4))
        (out / "ImageSets" / "Main" / f"{split}.txt").write_text(names, encoding="utf-8-sig")
    source = open_path(out)
    assert source.classes == ("d\u00e9chet", "glass", "paper")
    assert dict(zip(source.names, source.splits, strict=True))[source.names[0]] == "train"
    assert list(source.splits).count("test") == 4


def test_a_fold_is_no_split_and_no_class_and_that_is_told(folder, tmp_path):
    table = as_csv(folder, tmp_path / "csv")
    first, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{first},Fold", *(f"{row},{i % 2}" for i, row in enumerate(rows))]))
    source = open_path(table)
    assert source.splits is None and source.groups is None and source.classes == CLASSES
    assert [note for note in source.notes if "fold" in note] == [
        "column 'fold' is not read: 'split' (train, val, test) says who is where, 'group' what stays together"
    ]
    table.write_text(f"file,can,paper,fold\n../folder/{files(folder)[0][0].relative_to(folder)},1,0,3\n")
    assert open_tables([table], "--data", several=True).classes == ("can",)


def test_class_folders_with_annotations_beside_them_stay_class_folders(folder):
    (folder / "can" / "can0.xml").write_text("<annotation/>")
    (folder / "metadata.csv").write_text("file_name,license\ncan/can0.png,CC0\n")
    source = open_path(folder)
    assert len(source) == 12 and source.classes == CLASSES
    assert "1 .csv, 1 .xml" in source.notes[0]


SEVERAL = {"a.png": {"can", "glass"}, "b.png": {"paper"}, "c.png": set(), "d.png": {"can", "paper"}}


def shown(source) -> dict[str, set[str]]:
    """What each image shows, by its file's name."""
    return {
        Path(name).name: {source.classes[c] for c in np.flatnonzero(row)}
        for name, row in zip(source.names, source.shown, strict=True)
    }


@pytest.fixture
def photographs(tmp_path) -> Path:
    root = tmp_path / "several"
    (root / "images" / "train").mkdir(parents=True)
    for i, name in enumerate(SEVERAL):
        photo(i).save(root / "images" / "train" / name)
    return root


def several_csv(root: Path, cell) -> Path:
    lines = ["file,labels", *(f"images/train/{name},{cell(labels)}" for name, labels in SEVERAL.items())]
    (root / "list.csv").write_text("\n".join(lines))
    return root / "list.csv"


def with_semicolons(root: Path) -> Path:
    return several_csv(root, lambda labels: "; ".join(sorted(labels)))


def with_bars(root: Path) -> Path:
    rows = [f"images/train/{name};{'|'.join(sorted(labels))}" for name, labels in SEVERAL.items()]
    (root / "list.csv").write_text("\n".join(["file;labels", *rows]))
    return root / "list.csv"


def with_rows(root: Path) -> Path:
    rows = [f"images/train/{n},{label}" for n, labels in SEVERAL.items() for label in sorted(labels) or [""]]
    (root / "list.csv").write_text("\n".join(["file,label", *rows]))
    return root / "list.csv"


def with_columns(root: Path) -> Path:
    """As Roboflow exports several labels."""
    rows = [
        ",".join([f"images/train/{n}", *(str(int(c in labels)) for c in CLASSES)])
        for n, labels in SEVERAL.items()
    ]
    (root / "_classes.csv").write_text("\n".join([f"filename, {', '.join(CLASSES)}", *rows]))
    return root


def with_lists(root: Path) -> Path:
    rows = [{"file_name": f"images/train/{n}", "labels": sorted(labels)} for n, labels in SEVERAL.items()]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def as_boxes_of_coco(root: Path) -> Path:
    """Two boxes of a class are one label; of boxes that cannot be cut out the label counts all the same."""
    images = [{"id": i, "file_name": n, "width": 64, "height": 48} for i, n in enumerate(SEVERAL)]
    annotations = []
    for i, labels in enumerate(SEVERAL.values()):
        for k, label in enumerate([*labels, *labels]):
            box = {"image_id": i, "category_id": CLASSES.index(label), "bbox": [k, k, 9, 9]}
            annotations.append(box | ({"iscrowd": 1} if label == "glass" else {}))
    annotations.append({"image_id": 2, "category_id": 0, "bbox": [200, 0, 9, 9]})  # outside: nothing is shown
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    file = root / "coco.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def as_boxes_of_yolo(root: Path) -> Path:
    (root / "labels" / "train").mkdir(parents=True)
    for name, labels in SEVERAL.items():
        rows = [f"{CLASSES.index(label)} 0.5 0.5 0.2 0.2\n" for label in sorted(labels)]
        (root / "labels" / "train" / name).with_suffix(".txt").write_text("".join(rows))
    (root / "data.yaml").write_text(f"train: images/train\nnames: {list(CLASSES)}\n")
    return root


def as_boxes_of_table(root: Path) -> Path:
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for name, labels in SEVERAL.items():
        boxes = [f"{label},9,9,20,20" for label in sorted(labels)] or [",,,,"]
        rows += [f"images/train/{name},64,48,{box}" for box in boxes]
    (root / "boxes.csv").write_text("\n".join(rows))
    return root / "boxes.csv"


def as_rows_of_parquet(root: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images = [{"bytes": (root / "images" / "train" / n).read_bytes(), "path": n} for n in SEVERAL]
    numbers = [[CLASSES.index(label) for label in sorted(labels)] for labels in SEVERAL.values()]
    table = pyarrow.table({"image": images, "labels": numbers})
    about = {"info": {"features": {"labels": {"feature": {"names": list(CLASSES)}, "_type": "List"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    (root / "data").mkdir()
    parquet.write_table(table, root / "data" / "train-00000-of-00001.parquet")
    return root


SEVERAL_FORMS = [
    with_semicolons,
    with_bars,
    with_rows,
    with_columns,
    with_lists,
    as_boxes_of_coco,
    as_boxes_of_yolo,
    as_boxes_of_table,
    as_rows_of_parquet,
]


@pytest.mark.parametrize("form", SEVERAL_FORMS)
def test_several_labels_an_image_are_the_same_in_every_format(photographs, form):
    source = open_path(form(photographs), reading=Reading(several=True))
    assert source.classes == CLASSES
    found = shown(source)
    if form is as_rows_of_parquet:
        found = dict(zip(SEVERAL, found.values(), strict=True))
    assert found == SEVERAL
    for i, name in enumerate(SEVERAL):
        assert source.read(i) == (photographs / "images" / "train" / name).read_bytes()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            "file,label\na.png,can\na.png,glass\n",
            "; only models trained with --config.loss.kind=multilabel take",
        ),
        (
            'file,label\na.png,"can;glass"\nb.png,can\nc.png,glass\n',
            "; only models trained with --config.loss",
        ),
        ("file,label\na.png,can\na.png,can\n", ""),
    ],
)
def test_two_labels_of_one_image_say_which_models_take_them_whatever_command_reads(
    tmp_path, content, problem
):
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text(content)
    if not problem:
        assert len(open_path(tmp_path / "list.csv")) == 1
        return
    with pytest.raises(ConfigError, match=problem):
        open_path(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("file,labels\na.png,\n", "no row has both"),
        ("file,can,glass\na.png,1,0\nb.png,2,0\n", "must hold 0 or 1"),
        ("file,labels,split\na.png,can,train\na.png,glass,test\n", "twice"),
        ("file,note\na.png,can\n", "needs a column"),
    ],
)
def test_bad_tables_of_several_labels_are_one_line(tmp_path, content, problem):
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(ConfigError, match=problem) as error:
        open_path(tmp_path / "list.csv", reading=Reading(several=True))
    assert "\n" not in str(error.value)


def test_every_split_has_images_of_every_class_also_where_images_show_several():
    rng = np.random.default_rng(4)
    shown = rng.random((200, 6)) < [0.5, 0.4, 0.2, 0.1, 0.05, 0.03]
    labels = np.array([max(np.flatnonzero(row), default=6) for row in shown])
    splits = stratified_group_split(labels, [""] * 200, np.arange(200), shown=shown)
    for split, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        counts = shown[splits == split].sum(axis=0)
        assert (counts > 0).all()
        assert counts[:3] == pytest.approx(shown.sum(axis=0)[:3] * share, rel=0.35)


def test_a_description_reads_boxes_with_the_margin_that_is_asked_for(photographs):
    as_boxes_of_coco(photographs)
    (photographs / "all.toml").write_text('classes = "one"\n[sources.one]\npath = "coco.json"\n')
    plain = open_data(photographs / "coco.json", reading=Reading(0.5))
    assert open_data(photographs / "all.toml", reading=Reading(0.5)).read(0) == plain.read(0)
    whole = open_data(photographs / "all.toml", reading=Reading(several=True))
    assert {name.rpartition("/")[2]: labels for name, labels in shown(whole).items()} == SEVERAL


def test_a_round_trip_from_folders_to_coco_and_back_keeps_every_image_and_label(folder, tmp_path):
    source = open_path(as_coco(folder, tmp_path / "coco"))
    for i, (name, label) in enumerate(zip(source.names, source.label_names, strict=True)):
        out = tmp_path / "again" / label / Path(name.partition("#")[0]).name
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(source.read(i))
    again, before = open_path(tmp_path / "again"), open_path(folder)
    assert (again.names, again.label_names) == (before.names, before.label_names)
    assert all(again.read(i) == before.read(i) for i in range(len(before)))
