"""What a bundle or an exported file says of itself, edited by hand: one line, never a traceback, for every key."""

import copy
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_models import CLASSES, write_bundle

from wastejax.bundle import load_bundle
from wastejax.deployment.export import write_export
from wastejax.deployment.formats import load_predictor
from wastejax.errors import UserError

SIZE = 32
SQUARES = np.zeros((2, SIZE, SIZE, 3), np.uint8)
GONE = object()
VALUES = st.one_of(
    st.just(GONE),
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, -1, 1, 3, 31, 33, 10**12, float("nan"), float("inf"), -0.5, 0.5, 1e-320, "", "x", "0"]
    ),
    st.sampled_from(
        [[], ["a"], ["a"] * len(CLASSES), [[]], {}, {"x": 1}, [0.5, 0.5], [0, 0, 0], [1, 1, 1, 1]]
    ),
    st.text(max_size=3),
    st.lists(st.floats(), min_size=3, max_size=3),
)


def places(about, above=()):
    """The path of every value, also of tables within tables."""
    for key, value in about.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from places(value, (*above, key))


def changed(about, place, value):
    about = copy.deepcopy(about)
    table = about
    for key in place[:-1]:
        table = table[key]
    if value is GONE:
        table.pop(place[-1], None)
    else:
        table[place[-1]] = value
    return about


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    thresholds = {"thresholds": {"0.9": 0.5, "0.99": None}, "temperature": 1.5, "licence": "MIT"}
    return write_bundle(tmp_path_factory.mktemp("bundle"), image_size=SIZE, **thresholds)


def said(line: UserError, path: Path) -> None:
    text = str(line)
    assert len(text.splitlines()) == 1 and path.name in text


@given(data=st.data(), value=VALUES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_bundle(bundle, data, value):
    good = json.loads((bundle / "bundle.json").read_text())
    place = data.draw(st.sampled_from(list(places(good))))
    edited = bundle / "bundle.json"
    try:
        edited.write_text(json.dumps(changed(good, place, value)))
        loaded = load_bundle(bundle)
    except UserError as error:
        said(error, bundle)
    else:
        assert len(loaded.classes) == len(CLASSES)
        assert loaded.preprocessing(Image.new("RGB", (40, 50))).ndim == 3
    finally:
        edited.write_text(json.dumps(good))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (("preprocessing", "mean"), [0.5, 0.5], "preprocessing.mean must be three numbers, is"),
        (("preprocessing", "std"), [1, 0, 1], "preprocessing.std must be three numbers > 0, is"),
        (
            ("preprocessing", "image_size"),
            "64",
            "preprocessing.image_size must be an integer from 1 to 8,192",
        ),
        (("preprocessing", "image_size"), GONE, "preprocessing lacks image_size"),
        (("preprocessing", "chanels"), "rgb", "preprocessing has chanels; did you mean 'channels'?"),
        (("classes",), ["a", "b"], "classes: has 2 names, the weights are for 5"),
        (("classes",), ["a", "a", "b", "c", "d"], "classes must be a list of different names"),
        (("temperature",), 0, "temperature must be a number > 0, is 0"),
        (("config", "data"), 3, "config.data must be a table, is 3"),
        (("config", "eval", "batch_size"), 0, "config.eval.batch_size: must be an integer >= 1"),
        (("config", "model", "size"), "s", "config.model is not the network of its weights"),
        (("config", "model", "size"), "q", "config.model.size: efficientnetv2 has no size 'q'"),
        (("config", "model"), GONE, "config.model.name: unknown model"),
    ],
)
def test_a_bundle_tells_the_key(bundle, tmp_path, key, value, told):
    for file in bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    good = json.loads((bundle / "bundle.json").read_text())
    (tmp_path / "bundle.json").write_text(json.dumps(changed(good, key, value)))
    with pytest.raises(UserError) as raised:
        load_predictor(tmp_path)
    assert told in str(raised.value) and str(tmp_path) in str(raised.value)


def test_a_config_without_a_key_takes_its_default(bundle):
    assert load_bundle(bundle).config["eval"]["batch_size"] == 4
    assert load_bundle(bundle).config["data"]["source"] == "folder"


class Onnx:
    """An ONNX file whose metadata can be replaced."""

    suffix = ".onnx"

    @staticmethod
    def read(path):
        import onnx

        return json.loads({p.key: p.value for p in onnx.load(path).metadata_props}["wastejax"])

    @staticmethod
    def write(source, path, about):
        import onnx

        model = onnx.load(source)
        onnx.helper.set_model_props(model, {"wastejax": json.dumps(about)})
        onnx.save(model, path)


class Zipped:
    """A file with a zip, or that is one, whose metadata can be replaced."""

    def __init__(self, suffix):
        self.suffix = suffix

    @staticmethod
    def read(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("about.json"))

    @staticmethod
    def write(source, path, about):
        with zipfile.ZipFile(source) as archive:
            kept = {name: archive.read(name) for name in archive.namelist()}
            start = min(info.header_offset for info in archive.infolist())
        path.write_bytes(source.read_bytes()[:start])
        with zipfile.ZipFile(path, "a") as archive:
            for name, content in (kept | {"about.json": json.dumps(about)}).items():
                archive.writestr(name, content)


FORMS = {
    "onnxruntime": Onnx(),
    "openvino": Onnx(),
    "litert": Zipped(".tflite"),
    "stablehlo": Zipped(".stablehlo"),
}
PACKAGES = {"onnxruntime": "jax2onnx", "openvino": "openvino", "litert": "litert_converter"}


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")

    def file(form):
        pytest.importorskip(PACKAGES.get(form, "flatbuffers"))
        path = folder / f"model{FORMS[form].suffix}"
        if not path.is_file():
            write_export(load_bundle(bundle), path)
        return path

    return file


SLOW = [pytest.param(form, marks=pytest.mark.slow) for form in ("openvino", "litert")]


@pytest.mark.parametrize("form", ["onnxruntime", "stablehlo", *SLOW])
@given(data=st.data(), value=VALUES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_exported_file(exported, form, data, value):
    source, kind = exported(form), FORMS[form]
    good = kind.read(source)
    # Rules have a test of their own; these are the keys that only such a file has, and the tables.
    place = data.draw(st.sampled_from([p for p in places(good) if p[0] != "taxonomy" or len(p) < 3]))
    path = source.with_name(f"edited{kind.suffix}")
    kind.write(source, path, changed(good, place, value))
    runtime = form if kind.suffix == ".onnx" else None
    try:
        found = load_predictor(path, runtime).probabilities(SQUARES)
    except UserError as error:
        said(error, path)
    else:
        assert found.shape == (2, len(CLASSES))


@pytest.mark.parametrize("form", FORMS)
def test_an_exported_file_tells_the_key(exported, form):
    source, kind = exported(form), FORMS[form]
    path, good = source.with_name(f"told{kind.suffix}"), kind.read(source)
    for place, value, told in (
        (("preprocessing", "image_size"), 64, "preprocessing.image_size is 64, the network takes 32"),
        (("classes",), ["a", "b"], "classes: has 2 names, the network answers with 5"),
        (("input",), "float32", "input is float32, the network takes uint8"),
        (("preprocessing", "std"), [1, 1], "preprocessing.std must be three numbers > 0"),
        (("input",), GONE, "'input' is missing"),
    ):
        if place == ("preprocessing", "image_size") and kind.suffix == ".onnx":
            continue  # with a class map it takes any side
        kind.write(source, path, changed(good, place, value))
        with pytest.raises(UserError) as raised:
            load_predictor(path, form if kind.suffix == ".onnx" else None)
        assert told in str(raised.value) and "export it again" in str(raised.value)
