"""Label Studio's and CVAT's exports, as their documentation has them: crops, whole photographs, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wastejax.data.formats.any import open_path
from wastejax.data.formats.boxes import Reading
from wastejax.data.images import decode
from wastejax.errors import ConfigError

SIZE = (80, 60)
WHOLE = Reading(several=True)
PLAIN = Reading(margin=0)


def photo(path: Path, seed: int = 0, exif: bytes = b"", size: tuple[int, int] = SIZE) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif)
    return pixels


def rectangle(label: str, x: float, y: float, width: float, height: float, **more) -> dict:
    """A result of Label Studio; numbers are per cent of the sides."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]}
    about = {"original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0} | more.pop(
        "about", {}
    )
    return {
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        **about,
        "value": value | more,
    }


def choices(*names: str) -> dict:
    return {"type": "choices", "from_name": "kind", "to_name": "image", "value": {"choices": list(names)}}


def task(image: str, *results: dict, **more) -> dict:
    annotation = {"id": 1, "was_cancelled": False, "result": list(results)}
    return {"id": 1, "data": {"image": image}, "annotations": [annotation], "predictions": []} | more


def label_studio(root: Path, *tasks: dict) -> Path:
    (root / "project.json").write_text(json.dumps(tasks))
    return root / "project.json"


def cvat(root: Path, images: str) -> Path:
    (root / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{images}</annotations>'
    )
    return root


def cvat_image(name: str, shapes: str, **more: str) -> str:
    given = {"id": "0", "name": name, "width": str(SIZE[0]), "height": str(SIZE[1])} | more
    attributes = " ".join(f'{name}="{value}"' for name, value in given.items())
    return f"<image {attributes}>{shapes}</image>"


def crops_of(source) -> list[tuple[str, np.ndarray]]:
    return [
        (source.classes[label], np.asarray(decode(source.read(i)))) for i, label in enumerate(source.labels)
    ]


def test_rectangles_of_label_studio_become_crops_of_their_photograph(tmp_path):
    pixels = photo(tmp_path / "images" / "a.png")
    file = label_studio(
        tmp_path,
        task(
            "/data/upload/1/0123abcd-a.png", rectangle("can", 25, 50, 50, 25), rectangle("jar", 0, 0, 50, 50)
        ),
    )
    source = open_path(file, reading=PLAIN)
    found = dict(crops_of(source))
    np.testing.assert_array_equal(found["can"], pixels[30:45, 20:60])
    np.testing.assert_array_equal(found["jar"], pixels[:30, :40])
    assert source.groups == ("images/a.png",) * 2  # the photograph is not torn apart


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/7/0123abcd-my%20photo.png",
        "/data/local-files/?d=some/where/my%20photo.png",
        "s3://bucket/folder/my photo.png",
        "https://example.org/static/my%20photo.png?size=large",
        "my photo.png",
    ],
)
def test_images_of_label_studio_are_found_wherever_the_export_was_unpacked(tmp_path, image):
    photo(tmp_path / "deep" / "er" / "my photo.png")
    file = label_studio(tmp_path, task(image, rectangle("can", 0, 0, 50, 50)))
    assert open_path(file).names == ("deep/er/my photo.png#0",)


def test_what_cannot_be_cut_out_of_label_studio_is_counted_and_named(tmp_path):
    photo(tmp_path / "a.png")
    photo(tmp_path / "b.png", 1)
    brush = {"type": "brushlabels", "value": {"format": "rle", "rle": [1], "brushlabels": ["foil"]}}
    ellipse = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 10, "rotation": 0, "ellipselabels": ["lid"]}
    polygon = {"points": [[10, 10], [30, 10], [20, 40]], "polygonlabels": ["box"]}
    file = label_studio(
        tmp_path,
        task(
            "a.png",
            rectangle("can", 0, 0, 50, 50),
            rectangle("can", 10, 10, 20, 20, rotation=30),
            rectangle("can", 10, 10, 20, 20, rotation=360),
            rectangle("can", 10, 10, 0, 20),
            rectangle("can", 120, 10, 20, 20),
            rectangle("can", 10, 10, 20, 20, about={"image_rotation": 90}),
            brush,
            {"type": "ellipselabels", "value": ellipse},
            {"type": "polygonlabels", "value": polygon},
            {"type": "textarea", "value": {"text": ["a note"]}},
        ),
        task("b.png"),
        {"id": 3, "data": {"image": "nowhere.png"}, "annotations": []},
        {
            "id": 4,
            "data": {"image": "nowhere.png"},
            "annotations": [{"was_cancelled": True, "result": [choices("x")]}],
        },
    )
    source = open_path(file)
    assert sorted(source.classes[label] for label in source.labels) == ["box", "can", "can", "lid"]
    said = "\n".join(source.notes)
    for reason in (
        "1 rotated",
        "1 of zero size",
        "1 outside the photograph",
        "1 drawn as brush",
        "1 of a photograph turned in Label Studio",
        "tasks without an annotation, left out: 2",
        "photographs without a box that can be used, left out: 1",
    ):
        assert reason in said
    whole = open_path(file, reading=WHOLE)  # a rotated can is a can
    assert whole.label_names == ["box;can;foil;lid", ""]


def test_choices_of_label_studio_label_whole_photographs(tmp_path):
    for i in range(3):
        photo(tmp_path / f"{i}.png", i)
    file = label_studio(
        tmp_path, task("0.png", choices("can")), task("1.png", choices("jar")), task("2.png", choices())
    )
    source = open_path(file)
    assert (source.names, source.label_names, source.shown) == (("0.png", "1.png"), ["can", "jar"], None)
    assert source.read(1) == (tmp_path / "1.png").read_bytes()
    assert "photographs without a label, left out: 1" in source.notes
    assert open_path(file, reading=WHOLE).label_names == ["can", "jar", ""]
    file = label_studio(tmp_path, task("0.png", choices("can", "jar")))
    assert open_path(file, reading=WHOLE).label_names == ["can;jar"]
    with pytest.raises(ConfigError, match=r"config\.loss\.kind=multilabel"):
        open_path(file)


def test_the_short_export_of_label_studio_says_the_same(tmp_path):
    photo(tmp_path / "a.png")
    shape = {"x": 25, "y": 50, "width": 50, "height": 25, "rotation": 0, "rectanglelabels": ["can"]}
    size = {"original_width": SIZE[0], "original_height": SIZE[1]}
    (tmp_path / "long.json").write_text(json.dumps([task("a.png", rectangle("can", 25, 50, 50, 25))]))
    (tmp_path / "short.json").write_text(json.dumps([{"id": 1, "image": "a.png", "label": [shape | size]}]))
    long, short = (open_path(tmp_path / f"{name}.json") for name in ("long", "short"))
    assert (long.names, long.classes, long.read(0)) == (short.names, short.classes, short.read(0))
    (tmp_path / "short.json").write_text(json.dumps([{"id": 1, "image": "a.png", "choice": "can"}]))
    assert open_path(tmp_path / "short.json").label_names == ["can"]


def test_the_first_annotator_counts_and_the_others_are_counted(tmp_path):
    photo(tmp_path / "a.png")
    annotations = [{"result": [choices("can")]}, {"result": [choices("jar")]}]
    source = open_path(label_studio(tmp_path, task("a.png", annotations=annotations)))
    assert source.label_names == ["can"]
    assert "further annotations of the same image, left out: 1" in source.notes


def test_shapes_of_cvat_become_crops_and_subsets_splits(tmp_path):
    pixels = photo(tmp_path / "images" / "train" / "a.png")
    photo(tmp_path / "images" / "Test" / "a.png", 1)
    shapes = (
        '<box label="can" occluded="0" xtl="20" ytl="30" xbr="60" ybr="45" z_order="0"><attribute name="x">1'
        '</attribute></box><polygon label="box" points="1.0,2.0;11.0,2.0;5.0,9.0"/>'
        '<ellipse label="lid" cx="40" cy="30" rx="10" ry="5"/>'
        '<mask label="bag" rle="1,2" left="5" top="6" width="7" height="8"/>'
    )
    root = cvat(
        tmp_path,
        cvat_image("a.png", shapes, subset="train")
        + cvat_image("a.png", '<box label="can" xtl="0" ytl="0" xbr="9" ybr="9"/>', subset="Test"),
    )
    for path in (root, root / "annotations.xml"):
        source = open_path(path, reading=PLAIN)
        assert sorted(source.splits) == ["test"] + ["train"] * 4
        cut = {label: image for label, image in crops_of(source) if label != "can"}
        np.testing.assert_array_equal(cut["box"], pixels[2:9, 1:11])
        np.testing.assert_array_equal(cut["lid"], pixels[25:35, 30:50])
        np.testing.assert_array_equal(cut["bag"], pixels[6:14, 5:12])


def test_what_cannot_be_cut_out_of_cvat_is_counted_and_named(tmp_path):
    photo(tmp_path / "a.png")
    shapes = (
        '<box label="can" xtl="1" ytl="1" xbr="20" ybr="20"/>'
        '<box label="jar" xtl="1" ytl="1" xbr="20" ybr="20" rotation="45.0"/>'
        '<box label="jar" xtl="5" ytl="5" xbr="5" ybr="20"/><box label="jar" xtl="90" ytl="5" xbr="99" ybr="20"/>'
        '<polyline label="string" points="1,1;2,2"/><points label="cap" points="3,3"/><tag label="street"/>'
    )
    root = cvat(tmp_path, cvat_image("a.png", shapes))
    source = open_path(root)
    assert source.classes == ("can",)
    said = "\n".join(source.notes)
    for reason in ("1 rotated", "1 of zero size", "1 outside", "1 drawn as polyline", "1 drawn as points"):
        assert reason in said
    assert "labels of whole photographs, not used beside boxes: 1" in source.notes
    assert open_path(root, reading=WHOLE).label_names == ["can;cap;jar;street;string"]


def test_tags_of_cvat_label_whole_photographs(tmp_path):
    photo(tmp_path / "images" / "a.png")
    photo(tmp_path / "images" / "b.png", 1)
    root = cvat(
        tmp_path, cvat_image("a.png", '<tag label="can"/>') + cvat_image("b.png", '<tag label="jar"/>')
    )
    assert open_path(root).label_names == ["can", "jar"]


@pytest.mark.parametrize("tool", ["label studio", "cvat"])
def test_tags_label_photographs_though_something_is_drawn_that_cannot_be_used(tmp_path, tool):
    """One stray line, or an empty box, refused the whole set."""
    for i, name in enumerate(("a.png", "b.png")):
        photo(tmp_path / name, i)
    if tool == "cvat":
        drawn = '<polyline label="x" points="1,1;2,2"/><box label="x" xtl="5" ytl="5" xbr="5" ybr="9"/>'
        images = cvat_image("a.png", f'<tag label="can"/>{drawn}') + cvat_image("b.png", '<tag label="jar"/>')
        source, kind = open_path(cvat(tmp_path, images)), "polyline"
    else:
        point = {"type": "keypointlabels", "value": {"x": 1, "y": 1, "width": 1, "keypointlabels": ["x"]}}
        flat = rectangle("x", 10, 10, 0, 20)
        tasks = task("a.png", choices("can"), point, flat), task("b.png", choices("jar"))
        source, kind = open_path(label_studio(tmp_path, *tasks)), "keypoint"
    assert (source.names, source.label_names) == (("a.png", "b.png"), ["can", "jar"])
    assert f"boxes left out: 1 drawn as {kind}, 1 of zero size" in source.notes


def test_spaces_around_a_label_make_no_other_class_and_nearly_the_same_names_are_said(tmp_path):
    photo(tmp_path / "a.png")
    at = 'xtl="1" ytl="1" xbr="20" ybr="20"'
    labels = ("can", "can ", "Can", "jar")
    source = open_path(
        cvat(tmp_path, cvat_image("a.png", "".join(f'<box label="{label}" {at}/>' for label in labels)))
    )
    assert source.classes == ("Can", "can", "jar")
    assert "classes with nearly the same name: 'Can' and 'can'; are they one?" in source.notes


@pytest.mark.parametrize("tool", ["label studio", "cvat"])
@pytest.mark.parametrize("upright", [True, False])
def test_boxes_agree_with_the_exif_orientation(tmp_path, tool, upright):
    """Annotated on the image as it is shown, or as it is stored: 80 x 60, shown 60 x 80."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    photo(tmp_path / "a.png", exif=exif.tobytes())
    shown = np.asarray(decode((tmp_path / "a.png").read_bytes()))
    assert shown.shape == (80, 60, 3)
    width, height = (60, 80) if upright else (80, 60)
    # The left quarter and upper half of what is shown; stored, that is the lower quarter and left half.
    left, top, right, bottom = (0, 0, 15, 40) if upright else (0, 45, 40, 60)
    if tool == "cvat":
        box = f'<box label="can" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"/>'
        given = cvat(tmp_path, cvat_image("a.png", box, width=str(width), height=str(height)))
    else:
        numbers = (100 * left / width, 100 * top / height, 100 * (right - left) / width)
        about = {"original_width": width, "original_height": height}
        result = rectangle("can", *numbers, 100 * (bottom - top) / height, about=about)
        given = label_studio(tmp_path, task("a.png", result))
    ((_, crop),) = crops_of(open_path(given, reading=PLAIN))
    np.testing.assert_array_equal(crop, shown[:40, :15])


BOX = '<box label="can" xtl="0" ytl="0" xbr="9" ybr="9"/>'


def test_two_photographs_of_one_name_are_not_guessed_between(tmp_path):
    photo(tmp_path / "x" / "a.png")
    photo(tmp_path / "y" / "a.png", 1)
    with pytest.raises(ConfigError, match="is there 2 times"):
        open_path(cvat(tmp_path, cvat_image("a.png", BOX)))
    assert open_path(cvat(tmp_path, cvat_image("y/a.png", BOX))).names == ("y/a.png#0",)
