import json
import platform
from pathlib import Path

import jax
import numpy as np
import pytest

from wastejax import bundle as bundles
from wastejax import bundled
from wastejax.bundle import Bundle, default_bundle, keep_calibration, load_bundle, save_bundle
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.engines import place_of
from wastejax.deployment.export import Form, check_request
from wastejax.deployment.formats import load_predictor
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked

PREPROCESSING = Preprocessing(96, mean=(0.5, 0.25, 0.125), channels="bgr")


def variables(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "params": {"a": {"kernel": rng.normal(size=(3, 2)).astype(np.float32)}},
        "batch_stats": {"bn": {"mean": rng.normal(size=2).astype(np.float32)}},
    }


def save(path, seed=0):
    bundle = Bundle(variables(seed), {"seed": 17}, ("종이", "can"), PREPROCESSING, {"val_top1": 0.5})
    save_bundle(path, bundle)


def of_one_class(variables, **options):
    return Bundle(variables, {}, ("a",), PREPROCESSING, **options)


def test_what_is_loaded_is_what_was_saved(tmp_path):
    save(tmp_path / "bundle")
    for path in (tmp_path, tmp_path / "bundle"):  # a run, and the bundle itself
        bundle = load_bundle(path)
        np.testing.assert_array_equal(
            bundle.variables["params"]["a"]["kernel"], variables(0)["params"]["a"]["kernel"]
        )
        np.testing.assert_array_equal(
            bundle.variables["batch_stats"]["bn"]["mean"], variables(0)["batch_stats"]["bn"]["mean"]
        )
        assert bundle.classes == ("종이", "can")
        assert bundle.preprocessing == PREPROCESSING
        assert bundle.config == {"seed": 17} and bundle.metrics == {"val_top1": 0.5}


def test_a_newer_bundle_replaces_the_older_and_leaves_one_weights_file(tmp_path):
    save(tmp_path, 0)
    save(tmp_path, 1)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    np.testing.assert_array_equal(
        load_bundle(tmp_path).variables["params"]["a"]["kernel"], variables(1)["params"]["a"]["kernel"]
    )


def test_a_kill_between_weights_and_json_leaves_the_old_bundle_whole(tmp_path, monkeypatch):
    save(tmp_path, 0)
    monkeypatch.setattr("wastejax.bundle.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 1)
    np.testing.assert_array_equal(
        load_bundle(tmp_path).variables["params"]["a"]["kernel"], variables(0)["params"]["a"]["kernel"]
    )


def test_every_kind_of_damage_is_refused_with_its_reason(tmp_path):
    with pytest.raises(UserError, match="no such run or bundle"):
        load_bundle(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"no bundle\.json"):
        load_bundle(tmp_path)
    save(tmp_path)
    about = tmp_path / "bundle.json"
    good = about.read_text()
    weights = next(tmp_path.glob("*.safetensors"))
    content = weights.read_bytes()

    weights.write_bytes(content[:-1])
    with pytest.raises(UserError, match="damaged or cut short"):
        load_bundle(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match="weights are missing"):
        load_bundle(tmp_path)
    weights.write_bytes(content)
    about.write_text(good[:100])
    with pytest.raises(UserError, match="damaged, or not written by wastejax"):
        load_bundle(tmp_path)
    about.write_text(json.dumps(json.loads(good) | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        load_bundle(tmp_path)
    about.write_text(json.dumps({k: v for k, v in json.loads(good).items() if k != "classes"}))
    with pytest.raises(UserError, match="'classes' is missing"):
        load_bundle(tmp_path)
    about.write_text(json.dumps(json.loads(good) | {"preprocessing": 5}))
    with pytest.raises(UserError, match=r"bundle\.json: damaged"):
        load_bundle(tmp_path)


def test_what_else_a_bundle_says(tmp_path):
    save_bundle(tmp_path, of_one_class(variables(0), temperature=1.5, licence="research only"))
    bundle = load_bundle(tmp_path)
    assert bundle.temperature == 1.5 and bundle.licence == "research only"
    assert (
        bundle.versions["jax"] == jax.__version__ and bundle.versions["python"] == platform.python_version()
    )


def test_half_precision_rounds_kernels_and_leaves_vectors_alone(tmp_path):
    save_bundle(tmp_path / "whole", of_one_class(variables(0)))
    save_bundle(tmp_path / "half", of_one_class(variables(0)), precision="float16")
    loaded = load_bundle(tmp_path / "half").variables
    kernel = variables(0)["params"]["a"]["kernel"]
    rounded = loaded["params"]["a"]["kernel"]
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, kernel, rtol=2**-11)  # ten bits after the leading one
    assert not np.array_equal(rounded, kernel)
    np.testing.assert_array_equal(
        loaded["batch_stats"]["bn"]["mean"], variables(0)["batch_stats"]["bn"]["mean"]
    )
    sizes = [next((tmp_path / kind).glob("*.safetensors")).stat().st_size for kind in ("whole", "half")]
    assert sizes[0] - sizes[1] == 2 * kernel.size
    huge = {"params": {"kernel": np.full((1, 1), 1e6, np.float32)}}
    with pytest.raises(UserError, match="params/kernel: has a value that float16 cannot hold"):
        save_bundle(tmp_path / "huge", of_one_class(huge), precision="float16")


def test_eight_bits_round_each_output_channel_to_its_own_127_steps(tmp_path):
    rng = np.random.default_rng(3)
    kernels = {
        "conv": rng.normal(size=(3, 3, 8, 4)).astype(np.float32) * np.float32([1e-3, 1, 50, 0]),
        "depthwise": rng.normal(size=(3, 3, 1, 8)).astype(np.float32),
        "bias": rng.normal(size=4).astype(np.float32),
    }
    save_bundle(tmp_path, of_one_class({"params": kernels}), precision="int8")
    loaded = load_bundle(tmp_path).variables["params"]
    assert loaded.keys() == kernels.keys()
    largest = np.abs(kernels["conv"]).max((0, 1, 2))
    off = np.abs(loaded["conv"] - kernels["conv"]).max((0, 1, 2))
    assert (off <= largest / 254 * 1.001).all() and (off[:3] > largest[:3] / 1000).all() and off[3] == 0
    np.testing.assert_array_equal(loaded["depthwise"], kernels["depthwise"].astype(np.float16))
    np.testing.assert_array_equal(loaded["bias"], kernels["bias"])
    assert next(tmp_path.glob("*.safetensors")).stat().st_size < 1000 + 288 + 2 * 72
    with pytest.raises(UserError, match="params/kernel: has a value that int8 cannot hold"):
        bad = {"params": {"kernel": np.full((2, 2), np.nan, np.float32)}}
        save_bundle(tmp_path / "bad", of_one_class(bad), precision="int8")


def test_the_default_model_is_looked_up_inside_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="--model: this copy of wastejax comes without a trained model"):
        default_bundle()
    save(tmp_path)
    assert load_bundle(default_bundle()).classes == ("종이", "can")


def test_the_bundled_model_has_a_name_wherever_it_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "installed")
    save(tmp_path / "installed")
    monkeypatch.chdir(tmp_path)
    assert load_bundle("bundled").path == place_of("bundled") == place_of(None) == tmp_path / "installed"
    save(tmp_path / "bundled")  # one's own of that name comes first
    assert load_bundle("bundled").path == Path("bundled")


def test_a_path_like_the_bundled_models_name_is_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("./bundled", "bundled/", Path("./bundled")):
        with pytest.raises(UserError, match="bundled: no such run or bundle"):
            load_bundle(path)
        with pytest.raises(UserError, match="bundled: no such run or bundle"):
            load_predictor(place_of(path))
    Path("bundled").write_text("no model")
    assert load_bundle("bundled").path == bundled.FOLDER


def test_an_export_replaces_no_model_that_it_was_not_written_as(tmp_path, monkeypatch):
    run = tmp_path / "run"
    save(run / "bundle")
    (run / "config.json").write_text("{}")
    monkeypatch.chdir(run)
    for model, out, problem in (
        (None, "bundle", "is the model of a run"),
        (str(run), "bundle", "is the model itself"),
        (str(run / "bundle"), str(run / "bundle"), "is the model itself"),
    ):
        with pytest.raises(UserError, match=problem):
            check_request(Asked(model), Form("bundle"), Path(out))


def test_a_calibration_is_kept_in_one_move_and_changes_nothing_else(tmp_path, monkeypatch):
    save(tmp_path)
    about = json.loads((tmp_path / "bundle.json").read_text())
    assert load_bundle(tmp_path).thresholds == {}
    keep_calibration(tmp_path, 1.25, {"0.9": 0.5, "0.99": None})
    bundle = load_bundle(tmp_path)
    assert bundle.temperature == 1.25 and bundle.thresholds == {"0.9": 0.5, "0.99": None}
    changed = json.loads((tmp_path / "bundle.json").read_text())
    assert {k for k in about if about[k] != changed[k]} == {"temperature", "thresholds"}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["bundle.json", about["weights"]])

    (tmp_path / "bundle.json").write_text(json.dumps(about | {"thresholds": {"0.9": "high"}}))
    with pytest.raises(UserError, match=r"bundle\.json: damaged"):
        load_bundle(tmp_path)


def test_a_copy_keeps_the_confusion_matrix(tmp_path):
    save(tmp_path / "first")
    keep_calibration(tmp_path / "first", 1.0, {}, [[3]], [9.0])
    keep_calibration(tmp_path / "first", 1.5, {})  # leaves both
    save_bundle(tmp_path / "copy", load_bundle(tmp_path / "first"))
    copy = json.loads((tmp_path / "copy" / "bundle.json").read_text())
    assert copy["confusion"] == [[3]] and copy["prior"] == [9.0]
