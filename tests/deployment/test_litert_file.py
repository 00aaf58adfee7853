"""LiteRT files: what phones read in them, and in fewer bits."""

import json
import subprocess
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_models import CLASSES, write_bundle

from wastejax.bundle import load_bundle
from wastejax.cli import export as command
from wastejax.data.taxonomy import LANGUAGES
from wastejax.deployment.export import Form, check_request, describe, export_model, write_export
from wastejax.deployment.export.images import Sample, calibration_images, drawn
from wastejax.deployment.formats import litert, litert_quantize, load_jax, load_predictor
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked
from wastejax.main import parser

SIZE = 32


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    pytest.importorskip("litert_converter")
    pytest.importorskip("ai_edge_litert")
    path = write_bundle(tmp_path_factory.mktemp("litert") / "bundle", image_size=SIZE, temperature=4.0)
    return load_bundle(path)


@pytest.fixture(scope="module")
def plain(bundle) -> Path:
    write_export(bundle, bundle.path.parent / "plain.tflite")
    return bundle.path.parent / "plain.tflite"


def squares(count: int, seed: int = 0) -> np.ndarray:
    """Smooth colors, uint8 [count, SIZE, SIZE, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((SIZE, SIZE))) for c in coarse])


class Table:
    """A table of a flatbuffer, read by its format (flatbuffers.dev, internals), not by our writer's library."""

    def __init__(self, data: bytes, at: int):
        self.data, self.at = data, at

    def _int(self, at: int, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.data[at : at + size], "little", signed=signed)

    def place(self, field: int) -> int:
        vtable = self.at - self._int(self.at, 4, signed=True)
        length = self._int(vtable, 2)
        offset = self._int(vtable + 4 + 2 * field, 2) if 4 + 2 * field < length else 0
        return self.at + offset if offset else 0

    def number(self, field: int, size: int) -> int:
        place = self.place(field)
        return self._int(place, size) if place else 0

    def _target(self, field: int) -> int:
        place = self.place(field)
        return place + self._int(place, 4)

    def table(self, field: int) -> "Table":
        return Table(self.data, self._target(field))

    def text(self, field: int) -> str:
        if not self.place(field):
            return ""
        at = self._target(field)
        return self.data[at + 4 : at + 4 + self._int(at, 4)].decode()

    def tables(self, field: int) -> list["Table"]:
        at = self._target(field)
        places = [at + 4 + 4 * i for i in range(self._int(at, 4))]
        return [Table(self.data, place + self._int(place, 4)) for place in places]

    def floats(self, field: int) -> list[float]:
        at = self._target(field)
        return np.frombuffer(self.data, "<f4", self._int(at, 4), at + 4).tolist()


def metadata(file: Path) -> Table:
    from ai_edge_litert.schema_py_generated import ModelT

    model = ModelT.InitFromPackedBuf(file.read_bytes())
    (entry,) = (entry for entry in model.metadata if entry.name == b"TFLITE_METADATA")
    data = bytes(model.buffers[entry.buffer].data)
    assert data[4:8] == b"M001"
    return Table(data, int.from_bytes(data[:4], "little"))


def test_the_metadata_say_what_the_schema_of_tensorflow_lite_asks_for(bundle, plain, tmp_path):
    with pytest.raises(UserError, match=r"LiteRT's metadata knows RGB only, and this model takes BGR"):
        export_model(Asked(bundle.path), Form("litert", entry="float32"), tmp_path / "float.tflite")
    rgb = replace(bundle, preprocessing=replace(bundle.preprocessing, channels="rgb"))
    write_export(rgb, tmp_path / "float.tflite", "float32", class_map=True)
    for file, mean, std, outputs in (
        (plain, [0, 0, 0], [1, 1, 1], ["probabilities"]),
        (tmp_path / "float.tflite", [127.5, 102, 76.5], [76.5, 63.75, 51], ["probabilities", "class_map"]),
    ):
        root = metadata(file)
        assert (root.text(0), root.text(7)) == ("wastejax", "1.0.0")
        (graph,) = root.tables(3)
        (image,), scores = graph.tables(2), graph.tables(3)
        assert image.text(0) == "images" and [score.text(0) for score in scores] == outputs
        content = image.table(3)
        assert content.number(0, 1) == 2  # ImageProperties
        assert content.table(1).number(0, 1) == 1  # RGB
        assert [content.table(1).table(1).number(i, 4) for i in (0, 1)] == [SIZE, SIZE]
        (unit,) = image.tables(4)
        assert unit.number(0, 1) == 1  # NormalizationOptions
        assert unit.table(1).floats(0) == pytest.approx(mean) and unit.table(1).floats(1) == pytest.approx(
            std
        )
        files = scores[0].tables(6)
        assert [(f.text(0), f.text(3)) for f in files] == [
            ("labels.txt", ""),
            *((f"labels_{code}.txt", code) for code in LANGUAGES),
        ]
        assert {f.number(2, 1) for f in files} == {2}  # TENSOR_AXIS_LABELS
    with zipfile.ZipFile(plain) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("labels.txt").decode().splitlines() == list(CLASSES)
        assert archive.read("labels_ko.txt").decode().splitlines()[0] == "달걀 껍데기"
        assert archive.read("labels_en.txt").decode().splitlines()[-1] == "종이"  # no rule knows it


@pytest.mark.parametrize(
    ("precision", "agreement", "difference", "share"),
    [("fp16", 1.0, 5e-3, 0.62), ("int8", 0.85, 0.35, 0.5), ("integer", 0.85, 0.35, 0.5)],
)
def test_fewer_bits_make_smaller_files_that_still_answer(
    bundle, plain, tmp_path, precision, agreement, difference, share
):
    pytest.importorskip("ai_edge_quantizer")
    from ai_edge_litert.interpreter import Interpreter

    images, file = squares(24), tmp_path / "m.tflite"
    # Neither black nor white, so that a byte would not stand for itself by chance.
    write_export(bundle, file, "uint8", precision, Sample(squares(32, seed=1).clip(5, 245), None, ""))
    assert file.stat().st_size < share * plain.stat().st_size
    rows, expected = load_predictor(file).probabilities(images), load_jax(bundle.path).probabilities(images)
    assert (rows.argmax(1) == expected.argmax(1)).mean() >= agreement
    assert np.abs(rows - expected).max() <= difference
    np.testing.assert_allclose(rows.sum(1), 1, atol=2e-3)
    assert metadata(file).text(0) == "wastejax"
    interpreter = Interpreter(model_path=str(file))
    (entry,) = interpreter.get_input_details()
    assert entry["dtype"] is np.uint8
    if precision == "integer":
        assert entry["quantization"] == (1.0, 0)
        assert np.float32 not in {tensor["dtype"] for tensor in interpreter.get_tensor_details()}


def test_ranges_reach_from_the_least_to_the_largest_value_of_any_image(bundle):
    pytest.importorskip("ai_edge_quantizer")
    pytest.importorskip("litert_converter")
    text = describe(bundle, "float32", "int8")
    network = litert.convert(lambda x: x.mean(axis=(1, 2)), (8, 8, 3), "float32", text)
    images = (
        np.ones((20, 8, 8, 3), np.float32) * np.linspace(-3, 5, 20, dtype=np.float32)[:, None, None, None]
    )
    found = litert_quantize._ranges(network, litert.SIGNATURE, litert.ENTRY, images[::-1])
    ranges = np.array([[one["min"].item(), one["max"].item()] for one in found.values() if one])
    assert len(ranges) >= 2  # of the images and of the answers
    assert ranges == pytest.approx(np.tile([-3, 5], (len(ranges), 1)), abs=1e-5)


def test_calibration_takes_any_folder_of_images(bundle, tmp_path):
    for i, square in enumerate(squares(5)):
        (tmp_path / f"some{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(square).save(tmp_path / f"some{i % 2}" / f"{i}.png")
    (tmp_path / "some0" / "bad.png").write_bytes(b"no image")
    found = calibration_images(Asked(str(bundle.path)), bundle, tmp_path)
    assert found.images.shape == (5, SIZE, SIZE, 3) and found.labels is None
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"--calibrate=.*bad: no readable images"):
        calibration_images(Asked(str(bundle.path)), bundle, tmp_path / "bad")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Form("stablehlo", "int8"), r"--quantize=int8: only for --format=onnx, litert, bundle"),
        (Form("onnx", "integer"), r"--quantize=integer: only for --format=litert"),
        (Form("litert", "integer", "float32"), r"--quantize=integer: takes bytes, not --input=float32"),
        (Form("litert", "int8"), r"--quantize=int8: .* give --calibrate=DIR"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(form, message, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(UserError, match=message):
        check_request(Asked(str(tmp_path)), form, tmp_path / f"m.{form.name}")


def test_what_is_not_installed_is_named_with_a_command_that_works_beside_the_other_extras(
    tmp_path, monkeypatch
):
    for package, line in (
        ("litert_converter", "--no-deps litert-converter"),
        ("ai_edge_quantizer", "[litert]"),
    ):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, missing=package: name != missing or None)
        with pytest.raises(UserError) as raised:
            check_request(Asked(None), Form("litert", "fp16"), tmp_path / "m.tflite")
        assert line in str(raised.value) and "\n" not in str(raised.value)


def test_the_command_takes_a_folder_to_calibrate_with(bundle, tmp_path):
    pytest.importorskip("ai_edge_quantizer")
    for i, square in enumerate(squares(8)):
        Image.fromarray(square).save(tmp_path / f"{i}.png")
    given = ["export", f"--model={bundle.path}", "--format=litert", "--quantize=int8", "--images=8"]
    given += [f"--calibrate={tmp_path}", f"--out={tmp_path / 'm.tflite'}", f"--report={tmp_path / 'r.json'}"]
    lines: list[str] = []
    try:
        command.run(parser("export").parse_args(given), lines.append)
    except UserError as error:  # nobody trained this network: some of drawn images may change their class
        assert "the exported model is not the model it was made from" in str(error)
    else:
        assert json.loads((tmp_path / "r.json").read_text())["precision"] == "int8"


@pytest.mark.slow
def test_mediapipes_image_classifier_gives_the_same_classes(bundle, plain, tmp_path):
    venv.create(tmp_path / "phone", with_pip=True)
    python = tmp_path / "phone" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "mediapipe"]
    done = subprocess.run(install, capture_output=True, text=True, timeout=900)
    if done.returncode:
        pytest.skip(f"no mediapipe to be had: {done.stderr.strip().splitlines()[-1:]}")
    code = """
import json, sys, numpy, mediapipe
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ImageClassifierOptions(BaseOptions(sys.argv[1]), display_names_locale="ko")
classifier = vision.ImageClassifier.create_from_options(options)
found = []
for square in numpy.load(sys.argv[2]):
    image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=numpy.ascontiguousarray(square))
    best = classifier.classify(image).classifications[0].categories[0]
    found.append([best.category_name, best.display_name, best.score])
print(json.dumps(found))
"""
    images = squares(20)
    np.save(tmp_path / "images.npy", images)
    given = [python, "-c", code, plain, tmp_path / "images.npy"]
    found = json.loads(subprocess.run(given, check=True, capture_output=True, text=True, timeout=300).stdout)
    rows = load_predictor(plain).probabilities(images)
    taxonomy = bundle.taxonomy
    for (name, shown, score), row in zip(found, rows, strict=True):
        assert name == CLASSES[row.argmax()] and score == pytest.approx(row.max(), abs=1e-4)
        item = taxonomy.find(name)
        assert shown == (item.name("ko") if item else name)


@pytest.mark.slow
def test_a_network_whose_arrays_the_quantizer_puts_behind_its_tables(tmp_path):
    pytest.importorskip("litert_converter")
    pytest.importorskip("ai_edge_quantizer")
    from ai_edge_litert.interpreter import Interpreter

    bundle = load_bundle("bundled")  # those of smaller networks lie within
    sample = drawn(bundle, 8)
    write_export(bundle, tmp_path / "integer.tflite", "uint8", "integer", sample)
    found = load_predictor(tmp_path / "integer.tflite").probabilities(sample.images)
    np.testing.assert_allclose(found.sum(1), 1, atol=0.05)
    assert (tmp_path / "integer.tflite").stat().st_size > 4_000_000
    interpreter = Interpreter(model_path=str(tmp_path / "integer.tflite"))
    # How familiar an image is included, which asks for a largest value and an exp.
    assert np.float32 not in {tensor["dtype"] for tensor in interpreter.get_tensor_details()}
