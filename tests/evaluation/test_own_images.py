"""Which images a run is scored on: moved ones are known again, and those it learned from are left out."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from corrections_file import to_csv
from PIL import Image, ImageOps
from small_models import CLASSES, draw_images

from wastejax.data.corrections import Changes
from wastejax.data.duplicates import scan
from wastejax.data.sources import open_folder
from wastejax.data.split import save_manifest
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked, asked_images, given_images, manifest_of

SPLITS = np.array(["train", "train", "val", "test", "test"] * 4)


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A run on tmp_path/images, of which every fifth image is val and two fifths are test."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    source = open_folder(draw_images(tmp_path / "images", 20))
    folder = tmp_path / "run"
    (folder / "bundle").mkdir(parents=True)
    save_manifest(folder / "manifest.csv", source, np.arange(20), SPLITS, scan(source).phash)
    return folder


def config(root: Path) -> dict:
    return {"data": {"source": "folder", "dir": str(root / "images"), "leave_out": ()}}


def names(answer) -> list[str]:
    source, indices = answer
    return [source.names[i] for i in indices]


def test_of_its_own_images_a_run_is_scored_on_those_it_never_saw(run, tmp_path):
    source = open_folder(tmp_path / "images")
    test = [name for name, split in zip(source.names, SPLITS, strict=True) if split == "test"]
    said: list[str] = []
    for model in (run, run / "bundle"):
        said.clear()
        assert names(asked_images(Asked(model, tmp_path / "images"), config(tmp_path), said.append)) == test
        assert said == [
            "note: 8 of 20 images were trained on, 4 chose the best epoch: they are left out (--split=train and "
            "--split=val score them)"
        ]
    assert names(asked_images(Asked(run), config(tmp_path))) == test


@pytest.mark.parametrize("where", ["moved", "moved/images/images", "split/test", "renamed", "encoded"])
def test_moved_images_are_known_again(run, tmp_path, where):
    """In another folder, deeper, in a folder more, under other names, and encoded anew."""
    old = tmp_path / "images"
    new = tmp_path / where
    shutil.copytree(old, new)
    shutil.rmtree(old)
    for i, path in enumerate(sorted(p for p in new.rglob("*.*") if where in ("renamed", "encoded"))):
        if where == "renamed":
            path.rename(path.with_name(f"new{i}{path.suffix}"))
        else:
            Image.open(path).convert("RGB").save(path, **({"quality": 88} if path.suffix == ".jpg" else {}))
    top = tmp_path / where.split("/")[0]
    for split in ("train", "val", "test"):
        chosen = asked_images(Asked(run, top, split), config(tmp_path))
        assert len(chosen[1]) == np.sum(split == SPLITS)
    assert len(asked_images(Asked(run, top), config(tmp_path))[1]) == 8
    with pytest.raises(UserError, match=r"does not exist.*were they moved\? Give --data"):
        asked_images(Asked(run), config(tmp_path))


def test_new_images_beside_its_own_are_scored_too(run, tmp_path):
    for path in sorted((tmp_path / "images" / "glass").iterdir()):
        ImageOps.invert(Image.open(path).convert("RGB")).save(path.with_name(f"new_{path.stem}.png"))
    chosen = names(asked_images(Asked(run, tmp_path / "images"), config(tmp_path)))
    assert len(chosen) == 8 + 4 and sum("new_" in name for name in chosen) == 4


def test_other_images_of_the_same_names_are_not_its_own(run, tmp_path):
    for path in (tmp_path / "images").rglob("*.*"):
        ImageOps.invert(Image.open(path).convert("RGB")).save(path)
    said: list[str] = []
    assert len(asked_images(Asked(run, tmp_path / "images"), config(tmp_path), said.append)[1]) == 20
    assert said == []
    with pytest.raises(UserError, match="has no test/ folder, and its images are not those of the run"):
        asked_images(Asked(run, tmp_path / "images", "test"), config(tmp_path))


def test_images_that_were_all_trained_on_are_scored_and_said(run, tmp_path):
    source = open_folder(tmp_path / "images")
    for name, split in zip(source.names, SPLITS, strict=True):
        if split == "test":
            (tmp_path / "images" / name).unlink()
    said: list[str] = []
    assert len(asked_images(Asked(run, tmp_path / "images"), config(tmp_path), said.append)[1]) == 12
    assert said == ["note: 8 of 12 images were trained on, 4 chose the best epoch: the scores flatter"]


def test_two_runs_are_compared_on_what_neither_learned_from(run, tmp_path):
    source = open_folder(tmp_path / "images")
    other = tmp_path / "other"
    other.mkdir()
    splits = np.where(np.arange(20) < 10, "train", "test")
    save_manifest(other / "manifest.csv", source, np.arange(20), splits, scan(source).phash)
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    expected = np.flatnonzero((SPLITS == "test") & (splits == "test")).tolist()
    for split in (None, "test"):
        found = given_images(Asked(run, tmp_path / "elsewhere", split), [run, other], config(tmp_path))
        assert found[1].tolist() == expected


def test_classes_left_out_of_training_are_left_out_of_scores(run, tmp_path):
    said: list[str] = []
    data = config(tmp_path)["data"] | {"leave_out": ("glass",)}
    source, _ = asked_images(Asked(run, tmp_path / "images"), {"data": data}, said.append)
    assert source.classes == tuple(name for name in CLASSES if name != "glass")
    assert said[0] == "note: glass left out, as in training"


def test_a_manifest_of_an_older_run_is_matched_by_names(run, tmp_path):
    manifest = run / "manifest.csv"
    rows = list(csv.DictReader(io.StringIO(manifest.read_text())))
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "label", "domain", "group", "split"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    assert len(asked_images(Asked(run, tmp_path / "elsewhere", "test"), config(tmp_path))[1]) == 8


def test_a_bundle_that_is_no_run_has_no_manifest(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps({}))
    assert manifest_of(tmp_path / "bundle") is None and manifest_of(None) is None


def test_a_run_that_was_trained_with_corrections_is_scored_with_them(run, tmp_path):
    """Its own images bear the corrected labels, are still its own where they lie, and newer corrections win."""
    source = open_folder(tmp_path / "images")
    test = [source.names[i] for i in np.flatnonzero(SPLITS == "test")]
    wrong, bad, newer = test[0], test[1], test[2]
    (run / "corrections.csv").write_text(to_csv([(wrong, "glass"), (bad, "drop")]))
    fixed = Changes({wrong: "glass"}, frozenset([bad])).applied(source)
    keep = [i for i, name in enumerate(source.names) if name != bad]
    save_manifest(run / "manifest.csv", fixed, np.arange(19), SPLITS[keep], scan(fixed).phash)

    def scored(asked):
        said: list[str] = []
        source, indices = asked_images(asked, config(tmp_path), said.append)
        return {source.names[i]: source.classes[source.labels[i]] for i in indices}, said

    labels = {name: source.classes[label] for name, label in zip(source.names, source.labels, strict=True)}
    expected = {name: labels[name] for name in test if name != bad} | {wrong: "glass"}
    assert scored(Asked(run))[0] == expected
    as_they_lie, said = scored(Asked(run, tmp_path / "images"))
    assert as_they_lie == {name: labels[name] for name in test}
    assert any("--corrections=RUN/corrections.csv" in line for line in said)
    own = run / "corrections.csv"
    assert scored(Asked(run, tmp_path / "images", corrections=own))[0] == expected
    later = tmp_path / "later.csv"
    later.write_text(to_csv([(wrong, "glass"), (bad, "drop"), (newer, "drop")]))
    del expected[newer]
    assert scored(Asked(run, corrections=later))[0] == expected
    assert scored(Asked(run, tmp_path / "images", corrections=later))[0] == expected
