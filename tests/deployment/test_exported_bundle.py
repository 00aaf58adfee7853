"""A bundle that is exported as a bundle: which folders it may replace."""

import shutil

import numpy as np
import pytest
from small_models import CLASSES, write_bundle

from wastejax.bundle import keep_calibration, load_bundle
from wastejax.deployment.export import Form, export_model
from wastejax.deployment.export.checking import probabilities
from wastejax.deployment.formats import load_jax
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked


def test_of_the_bundles_there_are_an_export_replaces_only_one_of_the_same_model(tmp_path):
    model, out = write_bundle(tmp_path / "model"), tmp_path / "out"
    export_model(Asked(model), Form("bundle"), out)
    (out / "weights-mine.safetensors").write_text("mine")
    export_model(Asked(model), Form("bundle", "int8"), out)
    assert load_bundle(out).classes == CLASSES
    assert len(list(out.iterdir())) == 3 and (out / "weights-mine.safetensors").read_text() == "mine"
    write_bundle(tmp_path / "other", "efficientnetv2_tiny_eca")
    shutil.copytree(model, tmp_path / "copy")
    shutil.copytree(out, tmp_path / "calibrated")
    keep_calibration(tmp_path / "calibrated", 2.0, {})
    for given, held in (("other", "out"), ("model", "copy"), ("model", "other"), ("model", "calibrated")):
        before = {path: path.read_bytes() for path in (tmp_path / held).iterdir()}
        with pytest.raises(UserError, match=r"^--out=.*: holds a model that is no export of this one; name"):
            export_model(Asked(tmp_path / given), Form("bundle"), tmp_path / held)
        assert {path: path.read_bytes() for path in (tmp_path / held).iterdir()} == before


def test_an_exported_bundle_has_the_license_that_lies_beside_its_weights(tmp_path):
    model = write_bundle(tmp_path / "model")
    (model / "LICENSE-MODEL").write_text("for research")
    export_model(Asked(model), Form("bundle"), tmp_path / "out")
    assert (tmp_path / "out" / "LICENSE-MODEL").read_text() == "for research"


def test_a_chunk_without_a_readable_image_is_checked_like_any_other(tmp_path):
    predictor = load_jax(write_bundle(tmp_path / "model"))
    side = predictor.preprocessing.image_size
    assert probabilities(predictor, np.zeros((0, side, side, 3), np.uint8)).shape == (0, len(CLASSES))
