"""What is found in a large set takes time for each image and class once, not for each pair of them."""

import time
from pathlib import Path

from wastejax.data.formats.any import open_path
from wastejax.data.formats.boxes import voc
from wastejax.data.formats.class_folders import from_walk
from wastejax.data.formats.walk import Walk


def walked(classes: int, images: int) -> Walk:
    paths = tuple((f"class{i % classes:05}", f"{i:06}.jpg") for i in range(images))
    return Walk(Path("/data"), paths, ("",) * images, frozenset(path[:1] for path in paths), {})


def seconds(classes: int, images: int) -> float:
    found = walked(classes, images)
    start = time.process_time()
    assert len(from_walk(found, "/data", "--data").classes) == classes
    return time.process_time() - start


def test_thousands_of_class_folders_take_no_longer_than_a_few():
    assert seconds(5000, 10_000) < 5 * seconds(5, 10_000) + 1


def test_annotations_of_voc_look_their_images_up_by_names_without_endings(tmp_path, monkeypatch):
    text = """<annotation><filename>{0}</filename><size><width>50</width><height>50</height></size>
        <object><name>can</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object>
        </annotation>"""
    (tmp_path / "Annotations").mkdir()
    for i in range(100):
        (tmp_path / f"Annotations/{i:06}.xml").write_text(text.format(f"{i:06}"))

    def spent(count: int) -> float:
        paths = tuple(("JPEGImages", f"{i:06}.jpg") for i in range(count))
        found = Walk(tmp_path, paths, ("",) * count, frozenset(), {})
        monkeypatch.setattr(voc, "walk", lambda root, key: found)
        start = time.process_time()
        assert len(open_path(tmp_path)) == 100
        return time.process_time() - start

    assert spent(20_000) < 3 * spent(100) + 1
