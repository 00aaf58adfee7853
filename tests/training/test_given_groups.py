"""What the data say belongs together stays together: in a manifest of an audit, in training on one, in adapt."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.common import get_config
from tests.small_models import CLASSES, write_bundle
from wastejax.auditing.run import Options, audit_folder
from wastejax.bundle import load_bundle
from wastejax.data.duplicates import joined_groups
from wastejax.data.prepare import NOT_COMPARED, prepare
from wastejax.data.sources import open_data
from wastejax.data.split import load_manifest, save_manifest
from wastejax.errors import ConfigError
from wastejax.training.cameras import look


@pytest.fixture
def boxes(tmp_path) -> Path:
    """A COCO file of 12 photographs, of four boxes that look nothing alike each."""
    rng = np.random.default_rng(0)
    images, rows = [], []
    for i in range(12):
        small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        small.resize((96, 96), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 96, "height": 96})
        rows += [
            {"image_id": i, "category_id": k % 2, "bbox": [48 * (k % 2), 48 * (k // 2), 48, 48]}
            for k in range(4)
        ]
    categories = [{"id": k, "name": CLASSES[k]} for k in range(2)]
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return file


def sides(names, splits) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, split in zip(names, splits, strict=True):
        found.setdefault(name.split("#")[0], set()).add(str(split))
    return found


def test_the_manifest_of_an_audit_tears_no_photograph_apart(boxes, tmp_path):
    audit_folder(boxes, tmp_path / "out", Options(write_manifest=True))
    source = open_data(boxes)
    listed = load_manifest(tmp_path / "out" / "manifest.csv", source)
    found = sides([source.names[i] for i in listed.indices], listed.splits)
    assert len(found) == 12 and all(len(side) == 1 for side in found.values())


def test_a_manifest_that_tears_photographs_apart_is_told(boxes, tmp_path):
    source = open_data(boxes)
    torn = np.array(["train", "val", "test", "train"] * 12)
    config = get_config().data
    config.dir, config.split.manifest = str(boxes), str(tmp_path / "torn.csv")
    save_manifest(tmp_path / "torn.csv", source, np.arange(48), torn)
    assert any("in several splits of the manifest: 12" in note for note in prepare(config, 17, None).notes)
    whole = np.repeat(["train", "val", "test", "train"], 12)
    save_manifest(tmp_path / "torn.csv", source, np.arange(48), whole)
    assert not any("several splits" in note for note in prepare(config, 17, None).notes)


def table(folder: Path, columns: str) -> Path:
    """A CSV of the photographs by turns in train, val and test, six by six of one group."""
    rows = [
        {
            "file": f"{i}.png",
            "label": "ab"[i % 2],
            "domain": "",
            "group": f"street {i // 6}",
            "split": ("train", "val", "test")[i // 2 % 3],
        }
        for i in range(12)
    ]
    names = columns.split(",")
    path = folder / f"{'_'.join(names)}.csv"
    path.write_text("\n".join([columns, *(",".join(row[name] for name in names) for row in rows)]) + "\n")
    return path


def test_groups_that_the_splits_of_the_data_tear_apart_are_told(boxes, tmp_path):
    config = get_config().data
    config.dir = str(table(boxes.parent, "file,label,split,group"))
    told = "groups that the data give, such as crops of one photograph, in several splits of the data: 2; "
    assert any(note.startswith(told) for note in prepare(config, 17, None).notes)
    config.dir = str(table(boxes.parent, "file,label,group"))
    config.split.ratios = (1, 1, 1)
    with pytest.raises(ConfigError, match="2 groups"):  # which are not torn apart here
        prepare(config, 17, None)


def test_groups_of_a_description_that_its_splits_tear_apart_are_told(boxes, tmp_path):
    table(tmp_path, "file,label,split")
    table(tmp_path, "file,group")
    config = get_config().data
    config.dir = str(tmp_path / "all.toml")
    (tmp_path / "all.toml").write_text(
        'classes = ["a", "b"]\n[sources.one]\npath = "file_label_split.csv"\ngroups = "file_group.csv"\n'
    )
    assert any("in several splits of the data: 2; " in note for note in prepare(config, 17, None).notes)


def test_groups_of_a_manifest_that_it_tears_apart_are_told(boxes, tmp_path):
    config = get_config().data
    config.dir = str(table(tmp_path, "file,label"))
    config.split.manifest = str(table(tmp_path, "file,label,domain,group,split"))
    notes = prepare(config, 17, None).notes
    assert any("in several splits of the manifest: 2; " in note for note in notes)
    assert NOT_COMPARED in notes


def test_adapt_keeps_crops_of_one_photograph_in_one_fold(boxes, tmp_path):
    bundle = load_bundle(write_bundle(tmp_path / "bundle"))
    seen = look(bundle, boxes, None, lambda line: None)
    assert len(seen.groups) == 48 and len(np.unique(seen.groups)) == 12


def test_groups_are_what_they_were_where_none_is_given():
    groups = np.array([3, 1, 3])
    assert joined_groups(groups, None) is groups
