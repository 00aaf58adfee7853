"""Which engine answers, and that the file it computes is made once and is its bundle's equal."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from small_models import write_bundle

from wastejax.deployment import engines, export, formats
from wastejax.deployment.engines import choose, load_engine
from wastejax.deployment.formats import load_predictor
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("engines") / "bundle", image_size=32, temperature=2.0)


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.delenv("WASTEJAX_ENGINE", raising=False)
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))


def without(monkeypatch, *packages):
    monkeypatch.setattr(engines, "_installed", lambda package: package not in packages)


def test_auto_takes_onnx_runtime_where_all_it_takes_is_installed(bundle, monkeypatch):
    without(monkeypatch)
    assert choose(bundle) == "onnxruntime" and choose(None) == "onnxruntime"
    without(monkeypatch, "jax2onnx")
    assert choose(bundle) == "jax"
    without(monkeypatch, "onnxruntime")
    assert choose(bundle) == "jax"


def test_a_file_that_is_kept_is_used_where_nothing_could_make_it(bundle, monkeypatch):
    without(monkeypatch, "jax", "jax2onnx", "onnx")
    kept = engines._kept(bundle, ".onnx")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"")
    assert choose(bundle) == "onnxruntime"


def test_a_changed_bundle_has_another_file(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    assert engines._kept(copy, ".onnx") == engines._kept(bundle, ".onnx")
    about = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(about | {"temperature": 3.0}))
    assert engines._kept(copy, ".onnx") != engines._kept(bundle, ".onnx")


@pytest.mark.parametrize(
    ("name", "engine", "chosen"),
    [
        ("m.onnx", None, "onnxruntime"),
        ("m.onnx", "openvino", "openvino"),
        ("m.tflite", "auto", "litert"),
        ("m.stablehlo", None, "jax"),
    ],
)
def test_an_exported_file_has_its_own_engines(tmp_path, name, engine, chosen):
    (tmp_path / name).write_bytes(b"")
    assert choose(tmp_path / name, engine) == chosen


def test_what_cannot_be_is_said(tmp_path, bundle, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"--engine=litert: cannot compute .*m\.onnx; choices: onnxruntime, openvino"
    ):
        choose(tmp_path / "m.onnx", "litert")
    with pytest.raises(UserError, match=r"--engine=onnx: no such engine; (did you mean|choices)"):
        choose(bundle, "onnx")
    monkeypatch.setenv("WASTEJAX_ENGINE", "fast")
    with pytest.raises(UserError, match=r"WASTEJAX_ENGINE=fast: no such engine"):
        choose(bundle)
    without(monkeypatch, "openvino")
    with pytest.raises(UserError, match=r"--engine=openvino: needs openvino, which is not installed"):
        load_engine(bundle, "openvino")


def test_the_environment_names_an_engine_for_bundles(tmp_path, bundle, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(b"")
    monkeypatch.setenv("WASTEJAX_ENGINE", "jax")
    assert choose(bundle) == "jax" and choose(tmp_path / "m.onnx") == "onnxruntime"


def test_a_file_is_derived_once_and_answers_as_its_bundle_does(bundle):
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    said = []
    derived = load_engine(bundle, "onnxruntime", say=said.append)
    again = load_engine(bundle, "auto", say=said.append)
    assert said == ["preparing the model for onnxruntime, once …"]
    assert derived.runtime == again.runtime == "onnxruntime" and derived.path == bundle
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    plain = load_predictor(bundle)
    assert np.abs(derived.probabilities(images) - plain.probabilities(images)).max() < 1e-4
    assert (derived.classes, derived.taxonomy) == (plain.classes, plain.taxonomy)


def test_of_a_model_trained_in_bfloat16_a_file_is_derived_once_and_computes_in_float32(bundle, tmp_path):
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    half = shutil.copytree(bundle, tmp_path / "half")
    about = json.loads((half / "bundle.json").read_text())
    about["config"]["model"] |= {"dtype": "bfloat16"}
    (half / "bundle.json").write_text(json.dumps(about))
    said = []
    found = [load_engine(half, "auto", say=said.append) for _ in range(2)]
    assert said == ["preparing the model for onnxruntime, once …"]
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    expected = load_predictor(bundle).probabilities(images)
    for predictor in found:
        assert np.abs(predictor.probabilities(images) - expected).max() < 1e-4
    assert (
        np.abs(load_predictor(half).probabilities(images) - expected).max() > 1e-3
    )  # its own type of numbers
    export.export_model(Asked(half), export.Form("stablehlo"), tmp_path / "m.stablehlo", export.Check(8))


def no_export(monkeypatch):
    def refuse(*_, **__):
        raise UserError("no such operator")

    monkeypatch.setattr(export, "write_export", refuse)


def test_auto_goes_back_to_jax_where_a_file_cannot_be_derived(bundle, monkeypatch):
    without(monkeypatch)
    no_export(monkeypatch)
    said = []
    assert load_engine(bundle, say=said.append).runtime == "jax"
    assert said[-1] == "note: onnxruntime cannot be used, jax computes instead: no such operator"
    with pytest.raises(UserError, match="no such operator"):
        load_engine(bundle, "onnxruntime", say=said.append)
    assert not list(engines._kept(bundle, ".onnx").parent.iterdir())


def test_choosing_loads_no_engine():
    code = (
        "import sys; from wastejax.deployment.engines import choose; choose(None);"
        "print({'jax', 'onnx', 'onnxruntime', 'PIL'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_a_damaged_file_in_the_cache_is_made_once_more(bundle):
    """Empty, or half of it, as a full disk or the power cut of a Pi leaves it."""
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    load_engine(bundle, "onnxruntime", say=lambda line: None)
    kept = engines._kept(bundle, ".onnx")
    size = kept.stat().st_size
    for share in (0, 2):
        kept.write_bytes(kept.read_bytes()[: share and size // share])
        said = []
        assert load_engine(bundle, "onnxruntime", say=said.append).runtime == "onnxruntime"
        assert said == [
            f"note: {kept}: cannot be read, and is removed from the cache",
            "preparing the model for onnxruntime, once …",
        ]
        assert kept.stat().st_size == size


def test_auto_goes_back_to_jax_where_a_damaged_file_cannot_be_made_again(bundle, monkeypatch):
    pytest.importorskip("onnxruntime")
    without(monkeypatch)
    kept = engines._kept(bundle, ".onnx")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"")
    no_export(monkeypatch)
    said = []
    assert load_engine(bundle, say=said.append).runtime == "jax"
    assert said[-1] == "note: onnxruntime cannot be used, jax computes instead: no such operator"


@pytest.mark.parametrize("options", [{"taxonomy": "atlantis"}, {"threads": 10_000}])
def test_options_that_cannot_be_leave_the_file_in_the_cache(bundle, monkeypatch, options):
    without(monkeypatch)
    kept = engines._kept(bundle, ".onnx")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"sound")

    def load(model, runtime=None, taxonomy=None, threads=None):
        if taxonomy or threads:
            raise UserError("no such option")

    monkeypatch.setattr(formats, "load_predictor", load)
    with pytest.raises(UserError, match="no such option"):
        load_engine(bundle, "auto", say=pytest.fail, **options)
    assert kept.read_bytes() == b"sound"


@pytest.mark.parametrize("engine", ["auto", "jax"])
def test_threads_are_left_out_where_jax_is_nobodys_choice(bundle, monkeypatch, engine):
    without(monkeypatch, "jax2onnx")
    if engine == "auto":
        assert load_engine(bundle, engine, threads=1).runtime == "jax"
    else:
        with pytest.raises(UserError, match="--threads=1: only for"):
            load_engine(bundle, engine, threads=1)
