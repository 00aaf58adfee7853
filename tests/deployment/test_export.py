"""Every exported form gives the answers of the model that it was made from, also where that model's code is not."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from small_models import CLASSES, draw_images, write_bundle

from wastejax.bundle import load_bundle
from wastejax.cli import export as command
from wastejax.deployment import export
from wastejax.deployment.export import Check, Form, Sample, export_model, write_export
from wastejax.deployment.export.checking import Comparison, check, compare, judge
from wastejax.deployment.formats import load_jax, load_predictor
from wastejax.deployment.formats.about import ABOUT
from wastejax.deployment.formats.onnx import tidy
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked
from wastejax.main import parser
from wastejax.models import MODELS, create_model
from wastejax.models.folding import apply_folded, fold_batch_norm

pytestmark = pytest.mark.slow  # minutes on two cores

SIZE = 64


def squares(count: int, seed: int = 0) -> np.ndarray:
    """Smooth colors; uint8 [count, SIZE, SIZE, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    smooth = [Image.fromarray(c).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for c in coarse]
    return np.stack([np.asarray(image) for image in smooth])


SAMPLE = Sample(squares(21), np.arange(21) % len(CLASSES), "images")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("export")
    write_bundle(root / "bundle", image_size=SIZE, temperature=3.0, licence="research only")
    draw_images(root / "images")
    return root


@pytest.fixture(scope="module")
def onnx_file(place) -> Path:
    write_export(load_bundle(place / "bundle"), place / "plain.onnx")
    return place / "plain.onnx"


@pytest.fixture(scope="module")
def stablehlo_file(place) -> Path:
    write_export(load_bundle(place / "bundle"), place / "plain.stablehlo")
    return place / "plain.stablehlo"


@pytest.mark.parametrize("name", ["efficientnetv2_tiny_eca", "mobilevit_tiny", "pyramidnet_tiny"])
def test_folding_changes_no_logit(name):
    model = create_model(MODELS[name], 7)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(0), SIZE))
    variables["batch_stats"] = jax.tree.map(
        lambda a: a + rng.uniform(0, 0.5, a.shape).astype(np.float32), variables["batch_stats"]
    )
    folded = fold_batch_norm(model, variables, SIZE)
    images = squares(2).astype(np.float32) / 255
    expected = np.asarray(jax.jit(model.apply)(variables, images))
    found = np.asarray(jax.jit(lambda v, x: apply_folded(model, v, x))(folded, images))
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    norms = [
        path for path, _ in jax.tree_util.tree_leaves_with_path(folded["params"]) if path[-1].key == "scale"
    ]
    left = {"efficientnetv2_tiny_eca": 0, "mobilevit_tiny": 11}  # transformers keep their layer norms
    assert len(norms) == left.get(name, len(norms))
    assert "scale" in variables["params"]["stem"]["bn"]  # the variables given are left alone


def test_a_folded_kernel_is_the_kernel_times_gamma_over_sigma():
    model = create_model(MODELS["efficientnetv2_tiny"], 3)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(0), SIZE))
    stem, stats = variables["params"]["stem"], variables["batch_stats"]["stem"]["bn"]
    stem["bn"] = {"scale": np.full(16, 3, np.float32), "bias": np.full(16, 5, np.float32)}
    stats |= {"mean": np.full(16, 2, np.float32), "var": np.full(16, 4 - 1e-3, np.float32)}
    folded = fold_batch_norm(model, variables, SIZE)["params"]["stem"]
    np.testing.assert_allclose(folded["conv"]["kernel"], stem["conv"]["kernel"] * 1.5, rtol=1e-6)
    np.testing.assert_allclose(folded["bn"]["bias"], 5 - 2 * 1.5, rtol=1e-6)


@pytest.fixture(scope="module")
def litert_file(place) -> Path:
    write_export(load_bundle(place / "bundle"), place / "plain.tflite")
    return place / "plain.tflite"


@pytest.mark.parametrize(
    ("form", "runtime"),
    [("onnx_file", None), ("onnx_file", "openvino"), ("stablehlo_file", None), ("litert_file", None)],
)
def test_exported_forms_agree_with_the_bundle(place, form, runtime, request):
    predictor = load_predictor(request.getfixturevalue(form), runtime)
    reference = load_jax(place / "bundle")
    if runtime:
        assert predictor.runtime == runtime
    for count in (1, 3, 8):  # one file, any number of images
        rows = predictor.probabilities(SAMPLE.images[:count])
        np.testing.assert_allclose(rows, reference.probabilities(SAMPLE.images[:count]), atol=1e-5)
    assert predictor.classes == CLASSES
    assert predictor.preprocessing == reference.preprocessing
    assert predictor.bin_of("tea_bags") == reference.bin_of("tea_bags") != ""
    found = compare(reference, predictor, SAMPLE)
    assert found.images == 21 and found.agreement == 1 and found.difference < 1e-5
    top = reference.probabilities(SAMPLE.images).argmax(1)
    assert found.accuracy == (np.mean(top == SAMPLE.labels),) * 2
    check(found, "none", "images")


@pytest.mark.parametrize("name", ["mobilevit_tiny", "swin_tiny"])
def test_attention_in_an_onnx_file(tmp_path, name):
    bundle = write_bundle(tmp_path / "bundle", name, image_size=SIZE)
    write_export(load_bundle(bundle), tmp_path / "model.onnx")
    rows = load_predictor(tmp_path / "model.onnx").probabilities(SAMPLE.images)
    np.testing.assert_allclose(rows, load_jax(bundle).probabilities(SAMPLE.images), atol=1e-5)


def test_what_is_in_the_onnx_file(onnx_file):
    model = onnx.load(onnx_file)
    entry = model.graph.input[0].type.tensor_type
    assert entry.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in entry.shape.dim] == ["B", "H", "W", 3]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 10 and all(
        len(node.input) == 3 for node in convolutions
    )  # the norm is their bias
    assert not any(node.op_type in ("BatchNormalization", "Dropout") for node in model.graph.node)
    about = json.loads(next(p.value for p in model.metadata_props if p.key == ABOUT))
    assert about["classes"] == list(CLASSES) and about["preprocessing"]["channels"] == "bgr"
    assert about["temperature"] == 3.0 and about["licence"] == "research only"


def test_tidying_makes_one_clip_of_relu6_and_moves_biases_into_convolutions(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "k1": rng.normal(size=(4, 3, 3, 3)),
        "k2": rng.normal(size=(5, 4, 1, 1)),
        "bias": rng.normal(size=(1, 1, 1, 5)),
        "zero": np.zeros(()),
        "six": np.full((), 6),
    }
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "k1"], ["a"], name="first"),
        make("Max", ["a", "zero"], ["b"], name="lower"),
        make("Min", ["b", "six"], ["c"], name="upper"),
        make("Conv", ["c", "k2"], ["d"], name="second"),
        make("Transpose", ["d"], ["e"], perm=[0, 2, 3, 1], name="turn"),
        make("Add", ["e", "bias"], ["y"], name="shift"),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 8, 8]), ("y", [1, 6, 6, 5]))
    ]
    stored = [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "raw", ends[:1], ends[1:], stored)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    raw_bytes = model.SerializeToString()
    tidy(model, tmp_path / "tidy.onnx", "{}")
    tidied = onnx.load(tmp_path / "tidy.onnx").graph.node
    assert [node.op_type for node in tidied] == ["Conv", "Clip", "Conv", "Transpose"]
    assert len(tidied[2].input) == 3
    x = rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    raw, less = (
        onnxruntime.InferenceSession(form).run(None, {"x": x})[0]
        for form in (raw_bytes, str(tmp_path / "tidy.onnx"))
    )
    np.testing.assert_allclose(less, raw, atol=1e-5)
    assert np.ptp(raw) > 1


def test_what_is_in_the_litert_file(litert_file):
    from ai_edge_litert.interpreter import Interpreter  # an extra that only `make test-all` installs

    interpreter = Interpreter(model_path=str(litert_file))
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert entry["dtype"] is np.uint8 and list(entry["shape"]) == [1, SIZE, SIZE, 3]
    assert list(result["shape"]) == [1, len(CLASSES)]
    with zipfile.ZipFile(litert_file) as archive:
        assert archive.read("labels.txt").decode().split() == list(CLASSES)
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["images"], "outputs": ["probabilities"]}
    }


def test_the_studys_network_has_native_operators_in_a_litert_file(tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    bundle = load_bundle(write_bundle(tmp_path / "bundle", "efficientnetv2_tiny_eca", SIZE))
    write_export(bundle, tmp_path / "m.tflite")
    kinds = [row["op_name"] for row in Interpreter(str(tmp_path / "m.tflite"))._get_ops_details()]
    assert kinds.count("LEAKY_RELU") == 14 and kinds.count("MEAN") == kinds.count("LOGISTIC") + 1 == 9


def test_networks_with_attention_have_a_litert_form(tmp_path):
    bundle = load_bundle(write_bundle(tmp_path / "bundle", "mobilevit_tiny", SIZE))
    write_export(bundle, tmp_path / "m.tflite")
    rows = load_predictor(tmp_path / "m.tflite").probabilities(SAMPLE.images[:2])
    np.testing.assert_allclose(rows, load_jax(bundle.path).probabilities(SAMPLE.images[:2]), atol=1e-5)


def test_a_file_for_normalized_images(place, tmp_path):
    bundle = load_bundle(place / "bundle")
    write_export(bundle, tmp_path / "float.onnx", entry="float32")
    session = onnxruntime.InferenceSession(tmp_path / "float.onnx")
    assert session.get_inputs()[0].type == "tensor(float)"
    rows = session.run(None, {"images": bundle.preprocessing.normalize(SAMPLE.images)})[0]
    np.testing.assert_allclose(rows, load_jax(bundle.path).probabilities(SAMPLE.images), atol=1e-5)
    np.testing.assert_array_equal(load_predictor(tmp_path / "float.onnx").probabilities(SAMPLE.images), rows)


def kernel_types(model: onnx.ModelProto) -> list[int]:
    """What the kernels of convolutions and dots are stored in, in order.

    They are found by their use: a mean over colors has four axes too, and is no kernel.
    """
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    dots = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    # Between the stored array and the dot are its cast, or its way back from 8 bits.
    kernels = [node.input[1] if node.input[1] in stored else makers[node.input[1]].input[0] for node in dots]
    return [stored[name] for name in kernels if name in stored]  # attention multiplies activations


def test_fewer_bits_make_smaller_files_that_still_answer(place, onnx_file, tmp_path):
    bundle, reference = load_bundle(place / "bundle"), load_jax(place / "bundle")
    sizes = {"none": onnx_file.stat().st_size}
    for precision, agreement, difference in (("fp16", 1.0, 5e-3), ("int8", 0.85, 0.3)):
        path = tmp_path / f"{precision}.onnx"
        write_export(bundle, path, "uint8", precision, Sample(squares(32, seed=1), None, ""))
        sizes[precision] = path.stat().st_size
        found = compare(reference, load_predictor(path), SAMPLE)
        assert found.agreement >= agreement and 1e-6 < found.difference < difference
        stem, *between, classifier = kernel_types(onnx.load(path))
        wanted = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.INT8
        assert set(between) == {wanted} and len(between) > 20
        assert stem == classifier == (wanted if precision == "fp16" else onnx.TensorProto.FLOAT)
    assert sizes["fp16"] < 0.6 * sizes["none"] and sizes["int8"] < 0.5 * sizes["none"]


# Imports what is named and the standard library, as on a machine where nothing else is installed.
BARE = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked} or name in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = ["wastejax", *{arguments}]
from wastejax.main import main
main()
"""
HEAVY = ["jax", "jaxlib", "flax", "optax", "orbax", "grain", "absl", "ml_collections", "matplotlib", "scipy"]
HEAVY += [
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "safetensors",
    "imagehash",
    "rich",
    "onnx",
    "ml_dtypes",
]


def bare(blocked: list[str], *arguments: object) -> list[dict]:
    code = BARE.format(blocked=blocked, arguments=[str(argument) for argument in arguments])
    env = os.environ | {"WASTEJAX_HUGEPAGES": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("form", "blocked"),
    [
        ("onnx_file", HEAVY),
        ("litert_file", [*HEAVY, "onnxruntime"]),
        ("stablehlo_file", ["flax", "wastejax.models", "optax", "onnxruntime"]),
    ],
)
def test_answers_without_the_code_that_made_it(place, form, blocked, request):
    rows = bare(
        blocked,
        "predict",
        place / "images",
        f"--model={request.getfixturevalue(form)}",
        "--format=json",
        f"--top={len(CLASSES)}",
    )
    reference = load_jax(place / "bundle")
    assert len(rows) == 6
    for row in rows:
        with Image.open(row["file"]) as image:
            square = reference.preprocessing(image.convert("RGB"))
        expected = reference.probabilities(square[None])[0]
        found = {guess["class"]: guess["probability"] for guess in row["top"]}
        np.testing.assert_allclose([found[name] for name in CLASSES], expected, atol=1e-5)


def exporting(*arguments: str) -> list[str]:
    lines: list[str] = []
    command.run(parser("export").parse_args(["export", *arguments]), lines.append)
    return lines


def test_the_command_exports_checks_and_reports(place, tmp_path):
    lines = exporting(
        f"--model={place / 'bundle'}",
        "--format=stablehlo",
        f"--out={tmp_path / 'm.stablehlo'}",
        f"--data={place / 'images'}",
        f"--report={tmp_path / 'report.json'}",
    )
    assert "same class in 100.0%" in lines[1] and lines[2].startswith("top-1 ")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["images"] == 6 and report["agreement"] == 1.0 and report["difference"] < 1e-4
    assert report["bytes"] == (tmp_path / "m.stablehlo").stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.stablehlo", "report.json"]


@pytest.mark.filterwarnings("ignore:.*os.fork")
def test_ray_checks_as_one_process_does(place, tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "images").mkdir()
    for folder in (place / "images").iterdir():
        shutil.copytree(folder, tmp_path / "images" / folder.name)
    (tmp_path / "images" / CLASSES[0] / "bad.png").write_bytes(b"no image")
    asked = Asked(str(place / "bundle"), str(tmp_path / "images"))
    one, other = (
        export_model(asked, Form("onnx"), tmp_path / f"{workers}.onnx", Check(9, workers)).comparison
        for workers in ("local", "ray")
    )
    assert (one.images, one.agreement, one.accuracy) == (other.images, other.agreement, other.accuracy)
    assert other.difference == pytest.approx(one.difference, abs=1e-5)
    assert (tmp_path / "ray.onnx").is_file()


def test_a_form_that_answers_otherwise_is_not_written(place, tmp_path, monkeypatch):
    honest = export.forward_function
    monkeypatch.setattr(export, "forward_function", lambda *args: lambda x: honest(*args)(x[:, ::-1]))
    with pytest.raises(UserError, match=r"not the model it was made from: on 30 drawn images .* nothing was"):
        exporting(
            f"--model={place / 'bundle'}",
            "--format=stablehlo",
            f"--out={tmp_path / 'm.stablehlo'}",
            "--images=30",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("agreement", "difference", "precision", "good"),
    [
        (1.0, 9e-5, "none", True),
        (0.995, 9e-5, "none", False),
        (1.0, 2e-4, "none", False),
        (1.0, 2e-4, "fp16", True),
        (1.0, float("inf"), "int8", False),
        (0.94, 0.3, "int8", True),
        (0.92, 0.3, "int8", False),
        (0.95, 0.5, "int8", False),
    ],
)
def test_what_counts_as_the_same_model(agreement, difference, precision, good):
    comparison = Comparison(200, agreement, difference, None, (0.1, 0.1))
    if good:
        check(comparison, precision, "images")
    else:
        with pytest.raises(UserError, match="not the model it was made from"):
            check(comparison, precision, "images")


def test_two_classes_within_rounding_are_no_disagreement(place):
    predictor = load_jax(place / "bundle")
    image = np.zeros((1, predictor.preprocessing.image_size, predictor.preprocessing.image_size, 3), np.uint8)
    tied, other, far = (np.eye(1, len(CLASSES), dtype=np.float32) for _ in range(3))
    for rows, first in ((tied, 0.500001), (other, 0.499999), (far, 0.4)):
        rows[0, :2] = first, 1 - first
    found = judge((predictor, predictor), (np.repeat(tied, 1000, 0), np.repeat(other, 1000, 0)), None, image)
    check(found, "none", "images")
    found = judge((predictor, predictor), (tied, far), None, image)
    assert (found.agreement, found.measure) == (0, "top-1")
    several = replace(predictor, class_thresholds=(0.5,) * len(CLASSES))
    assert (
        several.multilabel and judge((several, several), (far, far), None, image).measure == "exactly right"
    )


def test_damaged_and_foreign_files_are_refused(onnx_file, stablehlo_file, litert_file, tmp_path):
    forms = [(onnx_file, "ONNX", None), (onnx_file, "ONNX", "openvino")]
    forms += [(stablehlo_file, "StableHLO", None), (litert_file, "LiteRT", None)]
    for file, kind, runtime in forms:
        cut = tmp_path / f"cut{file.suffix}"
        cut.write_bytes(file.read_bytes()[:-500])
        with pytest.raises(UserError, match=f"cut.*damaged, or no {kind} file"):
            load_predictor(cut, runtime)
    foreign = onnx.load(onnx_file)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    for runtime in (None, "openvino"):
        with pytest.raises(UserError, match="not exported by wastejax"):
            load_predictor(tmp_path / "foreign.onnx", runtime)
    with pytest.raises(UserError, match=r"--runtime=openvino: only for an \.onnx file"):
        load_predictor(litert_file, "openvino")
    onnx.helper.set_model_props(foreign, {ABOUT: '{"classes": []}'})
    onnx.save(foreign, tmp_path / "odd.onnx")
    with pytest.raises(UserError, match="what it says of itself is damaged"):
        load_predictor(tmp_path / "odd.onnx")
    with zipfile.ZipFile(tmp_path / "other.stablehlo", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="no StableHLO file"):
        load_predictor(tmp_path / "other.stablehlo")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format=stablehlo", "--quantize=int8"], "--quantize=int8: only for --format=onnx"),
        (["--format=onnx", "--quantize=integer"], "--quantize=integer: only for --format=litert"),
        (["--format=onnx", "--out=model.tflite"], r"--out=model\.tflite: must end with \.onnx"),
        (["--format=onnx", "--out=/nowhere/m.onnx"], "there is no folder /nowhere"),
        (["--format=onnx", "--images=0"], "--images: must be >= 1"),
        (["--format=stablehlo", "--profile"], "--profile: only with --format=onnx"),
        (["--format=onnx", "--quantize=int8"], "--quantize=int8: .* give --calibrate=DIR"),
        (["--format=onnx", "--quantize=int8", "--calibrate=nowhere"], "--calibrate=nowhere: is no folder"),
        (["--format=bundle", "--out=."], r"--out=\.: is a folder of other files"),
    ],
)
def test_mistakes_are_named(place, arguments, message):
    with pytest.raises(UserError, match=message):
        exporting(f"--model={place / 'bundle'}", *arguments)


def test_a_bundle_in_half_precision(place, tmp_path):
    lines = exporting(
        f"--model={place / 'bundle'}", "--format=bundle", "--quantize=fp16", f"--out={tmp_path / 'half'}"
    )
    whole, half = load_bundle(place / "bundle"), load_bundle(tmp_path / "half")
    assert half.licence == whole.licence and half.temperature == whole.temperature
    kernel = whole.variables["params"]["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(
        half.variables["params"]["stem"]["conv"]["kernel"], kernel.astype(np.float16).astype(np.float32)
    )
    assert "MB" in lines[0]
