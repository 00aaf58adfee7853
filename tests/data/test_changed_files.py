"""What was changed since it was read is read anew, also within one process."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from wastejax.data.collections.shards import Rows, open_shards, write_shards
from wastejax.data.duplicates import scan
from wastejax.data.formats.any import open_path

CELL = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def photo(path: Path, seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(path)


def write(path: Path, cells: list[dict | None], **options) -> Path:
    labels = ["can" if i % 2 else "jar" for i in range(len(cells))]
    table = pyarrow.table({"image": pyarrow.array(cells, CELL), "label": labels})
    parquet.write_table(table, path, **options)
    return path


@pytest.mark.parametrize("statistics", [True, False])
def test_an_image_that_parquet_only_names_is_hashed_anew_once_it_changes(tmp_path, statistics):
    for i in range(3):
        photo(tmp_path / f"{i}.png", i)
    cells = [{"bytes": None, "path": f"{i}.png"} for i in range(3)]
    cells.append({"bytes": (tmp_path / "0.png").read_bytes(), "path": "elsewhere.png"})
    file = write(tmp_path / "t.parquet", cells, write_statistics=statistics)
    before = open_path(file)
    hashes = scan(before, tmp_path / "cache").phash.copy()
    photo(tmp_path / "0.png", 7)
    after = open_path(file)
    assert [a == b for a, b in zip(before.stamps, after.stamps, strict=True)] == [False, True, True, True]
    assert (scan(after, tmp_path / "cache").phash == hashes).tolist() == [False, True, True, True]


def test_the_stamps_of_images_in_parquet_itself_are_those_of_the_file_alone(tmp_path, monkeypatch):
    photo(tmp_path / "0.png", 0)
    cells = [{"bytes": (tmp_path / "0.png").read_bytes(), "path": "0.png"}] * 2
    file = write(tmp_path / "t.parquet", cells)
    before = open_path(file).stamps
    photo(tmp_path / "0.png", 1)
    assert open_path(file).stamps == before


@pytest.mark.parametrize("kind", ["bytes", "structs"])
def test_parquet_that_is_written_anew_is_read_anew(tmp_path, kind):
    for content in (b"old", b"new"):
        images = [b"%s %d" % (content, i) for i in range(4)]
        cells = images if kind == "bytes" else pyarrow.array([{"bytes": b, "path": ""} for b in images], CELL)
        count = 4 if content == b"old" else 2
        table = pyarrow.table({"image": cells, "label": ["can", "jar"] * 2})
        parquet.write_table(table, tmp_path / "t.parquet", row_group_size=count)
        source = open_path(tmp_path / "t.parquet")
        assert [source.read(i) for i in range(4)] == images


def test_shards_that_are_written_anew_have_their_new_names_and_images(tmp_path):
    for day, count in (("mon", 3), ("tue", 3)):
        for label in ("can", "jar"):
            for i in range(count):
                photo(tmp_path / day / label / f"{day}{i}.png", i)
        plain = open_path(tmp_path / day)
        splits, hashes = np.array(["train"] * len(plain)), scan(plain).phash
        write_shards(tmp_path / "shards", Rows(plain, np.arange(len(plain)), splits, hashes))
        found = open_shards(tmp_path / "shards").source
        assert list(found.names) == list(plain.names) and found.names[2] == plain.names[2]
        assert [found.read(i) for i in range(len(found))] == [plain.read(i) for i in range(len(plain))]


def test_a_shard_that_is_put_in_the_place_of_another_is_opened_anew(tmp_path):
    for day in (1, 2):
        for label in ("can", "jar"):
            photo(tmp_path / f"{day}" / label / "0.png", day)
        plain = open_path(tmp_path / f"{day}")
        rows = Rows(plain, np.arange(2), np.array(["train"] * 2), scan(plain).phash)
        write_shards(tmp_path / f"shards{day}", rows)
    (old,), (new,) = ((tmp_path / f"shards{day}").glob("*.array_record") for day in (1, 2))
    before = open_shards(tmp_path / "shards1").source.read(0)
    new.replace(old)
    assert open_shards(tmp_path / "shards1").source.read(0) == open_path(tmp_path / "2").read(0) != before


def test_a_crop_is_another_where_its_photograph_was_annotated_at_another_size(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    stamps = set()
    for width, height in ((60, 40), (40, 60)):
        box = [width // 4, height // 4, width // 2, height // 2]
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": width, "height": height}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box}],
            "categories": [{"id": 1, "name": "can"}],
        }
        (tmp_path / "coco.json").write_text(json.dumps(content))
        stamps.update(open_path(tmp_path / "coco.json").stamps)
    assert len(stamps) == 2
