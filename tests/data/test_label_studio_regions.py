"""Regions of Label Studio that several tags speak of, and JSON-MIN of several annotators."""

import json
from pathlib import Path

import pytest

from tests.data.test_annotation_exports import WHOLE, choices, label_studio, photo, rectangle, task
from wastejax.data.formats.any import open_path
from wastejax.errors import ConfigError

NOT_READ = "choices of regions beside their labels, not read: {}"


def entry(kind: str, region: str, x: float = 10, **said) -> dict:
    """What one tag says of a region; all of them repeat its numbers."""
    value = {"x": x, "y": 10, "width": 20, "height": 20, "rotation": 0} | said
    return {"id": region, "type": kind, "original_width": 80, "original_height": 60, "value": value}


def short(root: Path, *rows: dict) -> Path:
    """JSON-MIN."""
    (root / "short.json").write_text(json.dumps(rows))
    return root / "short.json"


@pytest.fixture
def folder(tmp_path) -> Path:
    for i, name in enumerate(("a.png", "b.png")):
        photo(tmp_path / name, i)
    return tmp_path


def test_a_rectangle_and_its_labels_are_one_box(folder):
    """<Rectangle> and <Labels> write an entry each, of one id."""
    one = entry("rectangle", "r"), entry("labels", "r", labels=["can"])
    two = entry("rectangle", "s", 50), entry("labels", "s", 50, labels=["jar"])
    source = open_path(
        label_studio(folder, task("a.png", *one, *two), task("b.png", rectangle("can", 1, 1, 9, 9)))
    )
    assert source.names == ("a.png#0", "a.png#1", "b.png#0")
    assert source.label_names == ["can", "jar", "can"]


def test_a_shape_without_a_label_is_counted(folder):
    shapes = entry("rectangle", "r"), entry("rectanglelabels", "s", 50, rectanglelabels=["can"])
    source = open_path(label_studio(folder, task("a.png", *shapes)))
    assert source.label_names == ["can"]
    assert "boxes left out: 1 without a label" in source.notes


@pytest.mark.parametrize("kind", ["rectangle", "brush"])
def test_a_photograph_of_shapes_without_a_label_alone_does_not_show_none_of_the_classes(folder, kind):
    named = entry("rectanglelabels", "s", rectanglelabels=["can"])
    source = open_path(
        label_studio(folder, task("a.png", named), task("b.png", entry(kind, "r"))), reading=WHOLE
    )
    assert source.names == ("a.png",)
    assert {
        "boxes left out: 1 without a label",
        "photographs of nothing but boxes without a label, left out: 1",
    } <= {*source.notes}


def test_the_short_export_has_shapes_and_labels_in_two_lists(folder):
    def shape(x: float, **said) -> dict:
        return entry("", "", x, **said)["value"] | {"original_width": 80, "original_height": 60}

    row = {
        "id": 1,
        "image": "a.png",
        "shape": [shape(10), shape(50), shape(70)],
        "name": [shape(10, labels=["can"]), shape(50, labels=["jar"])],
        "state": ["broken", "clean"],
    }
    source = open_path(short(folder, row))
    assert source.label_names == ["can", "jar"]
    assert "boxes left out: 1 without a label" in source.notes
    assert "texts of 'state', not read: 1" in source.notes


def test_choices_of_a_region_are_its_label_where_it_has_no_other(folder):
    one = entry("rectangle", "r"), entry("choices", "r", choices=["can"])
    two = entry("ellipse", "s", radiusX=9, radiusY=9), {"id": "s", **choices("jar")}
    file = label_studio(folder, task("a.png", *one), task("b.png", *two))
    source = open_path(file)
    assert (source.names, source.label_names) == (("a.png#0", "b.png#0"), ["can", "jar"])
    assert open_path(file, reading=WHOLE).label_names == ["can", "jar"]


def test_choices_of_labeled_regions_are_no_classes_and_counted(folder):
    one = rectangle("can", 10, 10, 20, 20) | {"id": "r"}, entry("choices", "r", choices=["broken"])
    bare = entry("rectangle", "s", 50), entry("choices", "s", 50, choices=["clean"])
    file = label_studio(folder, task("a.png", *one, *bare), task("b.png", rectangle("jar", 1, 1, 9, 9)))
    for source in (open_path(file), open_path(file, reading=WHOLE)):
        assert source.label_names == ["can", "jar"]
        assert NOT_READ.format(2) in source.notes


def test_two_choices_of_one_region_are_two_labels_or_refused(folder):
    both = entry("rectangle", "r"), entry("choices", "r", choices=["can", "jar"])
    file = label_studio(folder, task("a.png", *both))
    assert open_path(file, reading=WHOLE).label_names == ["can;jar"]
    with pytest.raises(ConfigError, match=r"task 0: a region has the choices 'can' and 'jar'.*multilabel"):
        open_path(file)


@pytest.mark.parametrize("value", [3, "can", None, [["can"]]])
def test_labels_of_another_shape_end_in_one_line_or_are_read(folder, value):
    file = label_studio(folder, task("a.png", entry("rectangle", "r"), entry("labels", "r", labels=value)))
    try:
        open_path(file)
    except ConfigError as error:
        assert "\n" not in str(error)


def test_the_short_export_counts_the_first_of_several_annotators(folder):
    def row(number: int, image: str, label: str, x: float = 10) -> dict:
        shape = entry("", "", x, rectanglelabels=[label])["value"]
        return {"id": number, "image": image, "label": [shape]}

    rows = row(1, "a.png", "can"), row(1, "a.png", "can", 11), row(2, "b.png", "jar")
    source = open_path(short(folder, *rows))
    assert source.names == ("a.png#0", "b.png#0")
    assert "further annotations of the same image, left out: 1" in source.notes
    rows = tuple({"id": n, "image": i, "choice": c} for n, i, c in ((1, "a.png", "can"), (1, "a.png", "jar")))
    source = open_path(
        short(folder, *rows, {"id": 1, "image": "b.png", "choice": "jar"})
    )  # of another project
    assert source.label_names == ["can", "jar"]
    assert "further annotations of the same image, left out: 1" in source.notes
