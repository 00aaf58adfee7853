"""The manifest of an audit of a given split, and what an audit says of corrections."""

import json
from pathlib import Path

import numpy as np
import pytest
from corrections_file import to_csv
from ml_collections import ConfigDict
from PIL import Image

from wastejax.auditing import run
from wastejax.auditing.run import Options, audit_folder
from wastejax.data.corrections import load_corrections
from wastejax.data.prepare import prepare
from wastejax.data.sources import open_folder
from wastejax.data.split import SPLITS, load_manifest, save_manifest
from wastejax.errors import UserError
from wastejax.evaluation.report.review import NAME
from wastejax.progress import Listener


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """Two classes of three images that are nothing alike."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("can", "jar"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            image.resize((100, 100), Image.Resampling.BICUBIC).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def test_a_listed_image_is_kept_beside_a_larger_copy_that_is_not_listed(data, tmp_path):
    source = open_folder(data)
    splits = np.array(["train", "val", "test"] * 2)
    save_manifest(tmp_path / "mine.csv", source, np.arange(6), splits)
    with Image.open(data / "can" / "1.png") as image:
        image.resize((200, 200)).save(data / "can" / "1_large.png")
    audit_folder(data, tmp_path / "out", Options(manifest=tmp_path / "mine.csv", write_manifest=True))
    listed = load_manifest(tmp_path / "out" / "manifest.csv", open_folder(data))
    assert listed.splits.tolist() == splits.tolist()


def test_the_manifest_of_corrected_data_is_named_with_the_corrections(data, tmp_path):
    file = tmp_path / "corrections.csv"
    file.write_text(to_csv([("can/0.png", "jar")]), encoding="utf-8")
    lines: list[str] = []
    audit_folder(
        data, tmp_path / "out", Options(write_manifest=True, corrections=file), Listener(lines.append)
    )
    manifest = tmp_path / "out" / "manifest.csv"
    options = f"--config.data.split.manifest={manifest} --config.data.corrections={file}"
    assert lines[-1].endswith(f"; train with {options}")
    source = open_folder(data)
    assert len(load_manifest(manifest, source, load_corrections(file).of(source).labels).indices) == 6


@pytest.mark.parametrize("all_of_them", [True, False])
def test_copies_whose_different_labels_are_confirmed_are_doubted_no_more(data, tmp_path, all_of_them):
    for name in ("can/copy.png", "jar/copy.png", "jar/copy2.png"):
        (data / name).write_bytes((data / "can" / "0.png").read_bytes())
    group = {f"{name}.png" for name in ("can/0", "can/copy", "jar/copy", "jar/copy2")}
    rows = [(name, name[:3]) for name in sorted(group)[0 if all_of_them else 1 :]]
    file = tmp_path / "corrections.csv"
    file.write_text(to_csv(rows), encoding="utf-8")
    facts = audit_folder(data, tmp_path / "out", Options(write_manifest=True, corrections=file))
    kept = load_manifest(tmp_path / "out" / "manifest.csv", (source := open_folder(data)))
    groups = {source.names[i]: int(g) for i, g in zip(kept.indices, kept.groups, strict=True)}
    if all_of_them:
        assert facts["label_conflicts"] == [] and not (tmp_path / "out" / NAME).exists()
        assert groups["can/0.png"] == groups["jar/copy.png"]
        assert len(groups) == 7 and len(set(groups.values())) == 6
        assert (
            len({s for i, s in zip(kept.indices, kept.splits, strict=True) if source.names[i] in group}) == 1
        )
    else:
        assert set(facts["label_conflicts"][0]["files"]) == group and (tmp_path / "out" / NAME).is_file()
        assert len(groups) == 5 and not group & set(groups)


def write_images(folder: Path, count: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(count):
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image.resize((100, 100), Image.Resampling.BICUBIC).save(folder / f"{i}.png")


def halves(root: Path, train: int = 5) -> Path:
    """Two classes, divided into train and test alone."""
    for seed, name in enumerate(("can", "jar")):
        write_images(root / "train" / name, train, seed)
        write_images(root / "test" / name, 2, seed + 10)
    return root


def trained_on(data: Path, manifest: Path) -> dict[str, int]:
    """Returns how many images training has in each split."""
    config = {"source": "folder", "dir": str(data), "on_bad_image": "raise", "leave_out": ()}
    split = {"ratios": (3, 1, 1), "group": "phash", "hamming": 8, "manifest": str(manifest)}
    dataset = prepare(ConfigDict(config | {"split": split}), 17, None)
    return {split: len(dataset.indices(split)) for split in SPLITS}


@pytest.mark.parametrize("by_csv", [False, True])
def test_a_part_that_the_given_splits_lack_is_taken_from_train(tmp_path, monkeypatch, by_csv):
    """Many sets have no val: training deals it from train, and refuses a manifest without."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    data, given = halves(tmp_path / "halves"), None
    if by_csv:
        given = tmp_path / "mine.csv"
        source = open_folder(data)
        save_manifest(given, source, np.arange(len(source)), source.splits)
    lines: list[str] = []
    options = Options(manifest=given, write_manifest=True)
    audit_folder(data, tmp_path / "out", options, Listener(lines.append))
    assert any(
        "the given split lacks a part, so some training images are set aside: 2 as val" in line
        for line in lines
    )
    assert lines[-1].endswith(
        f"; train with --config.data.split.manifest={tmp_path / 'out' / 'manifest.csv'}"
    )
    assert trained_on(data, tmp_path / "out" / "manifest.csv") == {"train": 8, "val": 2, "test": 4}


def test_a_manifest_that_is_too_little_to_train_on_is_called_so(tmp_path, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    data = halves(tmp_path / "halves", train=1)
    lines: list[str] = []
    audit_folder(data, tmp_path / "out", Options(write_manifest=True), Listener(lines.append))
    assert "; too little for training: " in lines[-1] and "train with" not in lines[-1]


def test_a_manifest_of_splits_without_train_is_refused_before_the_audit(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "audit", None)
    data = halves(tmp_path / "halves")
    (data / "train").rename(data / "val")
    with pytest.raises(UserError, match=r"--write-manifest: .*has no train to learn from"):
        audit_folder(data, tmp_path / "out", Options(write_manifest=True))


class Names(tuple):
    """Names that are not to be searched one by one: there may be a million, and as many corrections."""

    def index(self, *_):
        raise AssertionError("searched")


def test_the_labels_of_corrected_images_are_found_at_once(data, tmp_path, monkeypatch):
    def opened(folder, model):
        source = open_folder(folder)
        object.__setattr__(source, "names", Names(source.names))
        return source

    (data / "can" / "copy.png").write_bytes((data / "jar" / "0.png").read_bytes())  # to be reviewed
    monkeypatch.setattr(run, "_open", opened)
    file = tmp_path / "corrections.csv"
    file.write_text(to_csv([("can/0.png", "jar")]), encoding="utf-8")
    audit_folder(data, tmp_path / "out", Options(corrections=file))
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["corrections"]["relabeled"] == 1
    assert (tmp_path / "out" / "review.html").is_file()
