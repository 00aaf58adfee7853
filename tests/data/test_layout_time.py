"""What is found in a large set takes work for each image and class once, not for each pair of them."""

import sys
from pathlib import Path

from wastejax.data.formats.any import open_path
from wastejax.data.formats.boxes import voc
from wastejax.data.formats.class_folders import from_walk
from wastejax.data.formats.walk import Walk


class Name(str):
    """A folder's name that counts how often such are compared."""

    compared = 0
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)


def compared(classes: int, images: int) -> int:
    paths = tuple((Name(f"class{i % classes:05}"), f"{i:06}.jpg") for i in range(images))
    found = Walk(Path("/data"), paths, ("",) * images, frozenset(path[:1] for path in paths), {})
    Name.compared = 0
    assert len(from_walk(found, "/data", "--data").classes) == classes
    return Name.compared


def test_each_image_is_compared_with_few_class_folders():
    assert compared(500, 1000) < 20 * 1000


def test_annotations_of_voc_look_their_images_up_by_names_without_endings(tmp_path, monkeypatch):
    text = """<annotation><filename>{0}</filename><size><width>50</width><height>50</height></size>
        <object><name>can</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object>
        </annotation>"""
    (tmp_path / "Annotations").mkdir()
    for i in range(100):
        (tmp_path / f"Annotations/{i:06}.xml").write_text(text.format(f"{i:06}"))

    def calls(count: int) -> int:
        paths = tuple(("JPEGImages", f"{i:06}.jpg") for i in range(count))
        found = Walk(tmp_path, paths, ("",) * count, frozenset(), {})
        monkeypatch.setattr(voc, "walk", lambda root, key: found)
        made = 0

        def count_call(*_: object) -> None:
            nonlocal made
            made += 1

        sys.setprofile(count_call)
        try:
            assert len(open_path(tmp_path)) == 100
        finally:
            sys.setprofile(None)
        return made

    assert calls(2000) - calls(1000) < 150 * 1000  # an image more is not looked at by each of the annotations
