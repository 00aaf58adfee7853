"""Which images an exported file is checked with: those of the run, wherever it is named, if they are there."""

import shutil

import numpy as np
import pytest
from small_models import draw_images, write_bundle

from wastejax.bundle import keep_config, load_bundle
from wastejax.data.duplicates import scan
from wastejax.data.sources import open_folder
from wastejax.data.split import save_manifest
from wastejax.deployment.export.images import checking_images, has_images
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked

SPLITS = np.array(["train", "train", "val", "test", "test"] * 4)


@pytest.mark.parametrize("place", ["run", "run/bundle"])
def test_a_run_is_checked_with_its_own_images_and_with_drawn_ones_where_these_are_gone(
    tmp_path, monkeypatch, place
):
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    source = open_folder(draw_images(tmp_path / "images", 20))
    path = write_bundle(tmp_path / "run" / "bundle")
    save_manifest(tmp_path / "run" / "manifest.csv", source, np.arange(20), SPLITS, scan(source).phash)
    config = load_bundle(path).config
    data = {"source": "folder", "dir": str(tmp_path / "images"), "leave_out": ()}
    keep_config(path, config | {"data": config["data"] | data})
    bundle, asked = load_bundle(path), Asked(tmp_path / place)
    assert has_images(asked)
    found = checking_images(asked, bundle, "test", 100)
    assert len(found.images) == 8 and found.origin == "images of the test split"
    manifest = tmp_path / "run" / "manifest.csv"
    kept = manifest.read_text()
    manifest.write_text("damaged")
    with pytest.raises(UserError, match=r"manifest\.csv"):  # not taken for images that are gone
        checking_images(asked, bundle, "test", 5)
    manifest.write_text(kept.replace(",test", ",train"))
    with pytest.raises(UserError, match="the test split has no images to check or calibrate with; give some"):
        checking_images(asked, bundle, "test", 5)
    manifest.write_text(kept)
    shutil.rmtree(tmp_path / "images")
    assert checking_images(asked, bundle, "test", 5).origin == "drawn images"
    with pytest.raises(UserError, match="does not exist"):  # 8 bits calibrated on these would not hold
        checking_images(asked, bundle, "val", 5)
