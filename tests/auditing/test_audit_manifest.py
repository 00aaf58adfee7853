"""The manifest of an audit of a given split, and what an audit says of corrections."""

import json
from pathlib import Path

import numpy as np
import pytest
from corrections_file import to_csv
from PIL import Image

from wastejax.auditing import run
from wastejax.auditing.run import Options, audit_folder
from wastejax.data.corrections import load_corrections
from wastejax.data.sources import open_folder
from wastejax.data.split import load_manifest, save_manifest
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
