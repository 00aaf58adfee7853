"""How an exported ONNX file is written: an old version, one domain, no shape computed. See test_operators.py."""

import json
import re
import subprocess
import sysconfig
import tomllib
import venv
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from small_models import write_bundle

from wastejax.bundle import load_bundle
from wastejax.deployment import export
from wastejax.deployment.export import Form, write_export
from wastejax.deployment.formats import load_jax, load_predictor, onnx_graph
from wastejax.deployment.formats.onnx_profile import openvino_shares, profile, shares
from wastejax.errors import UserError

SLOW_NETWORKS = ["efficientnetv2_tiny", "efficientnetv2_tiny_glu", "mobilevit_tiny", "mobilevit_tiny_ir"]
SLOW_NETWORKS += ["mobilevit_tiny_conv5", "pyramidnet_tiny", "swin_tiny"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes networks once: name -> (bundle, ONNX file)."""
    folder, known = tmp_path_factory.mktemp("onnx"), {}

    def write(name: str) -> tuple[Path, Path]:
        if name not in known:
            bundle = write_bundle(folder / name, name, image_size=64)
            write_export(load_bundle(bundle), folder / f"{name}.onnx")
            known[name] = bundle, folder / f"{name}.onnx"
        return known[name]

    return write


@pytest.mark.parametrize(
    "name",
    ["efficientnetv2_tiny_eca", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_NETWORKS)],
)
def test_a_file_is_old_and_answers_as_the_model(written, name):
    bundle, file = written(name)
    model = onnx.load(file)
    assert model.ir_version <= 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    onnx.checker.check_model(model, full_check=True)
    squares = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    expected = load_jax(bundle).probabilities(squares)
    for count in (1, 3):
        found = load_predictor(file).probabilities(squares[:count])
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)


def test_the_studys_network_has_an_operator_for_each_activation_and_one_pool_for_each_attention(written):
    model = onnx.load(written("efficientnetv2_tiny_eca")[1])
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("LeakyRelu") == 14
    assert kinds.count("GlobalAveragePool") == 8 + 1  # and the classifier's
    assert kinds.count("Sigmoid") == 8
    assert kinds.count("Transpose") == 2  # of the images and of the class map


def test_profiling_tells_each_operators_share(written):
    _, file = written("efficientnetv2_tiny_eca")
    entry = np.zeros((1, 64, 64, 3), np.uint8)
    found = shares(file, entry)
    assert sum(share for _, _, share in found) == pytest.approx(1)
    assert {name: count for name, count, _ in found}["Softmax"] == 1
    lines = list(profile(file, entry))
    assert lines[0] == "where the time goes in ONNX Runtime, 1 at once:"
    runtimes = [line for line in lines if not line.startswith(" ")]
    assert len(lines) >= len(found) + len(runtimes)


def test_openvino_tells_its_operators_shares_too(written):
    pytest.importorskip("openvino")
    _, file = written("efficientnetv2_tiny_eca")
    entry = np.zeros((1, 64, 64, 3), np.uint8)
    found = openvino_shares(file, entry)
    assert sum(share for _, _, share in found) == pytest.approx(1)
    assert {name: count for name, count, _ in found}["Convolution"] >= 14
    assert "where the time goes in OpenVINO, 1 at once:" in list(profile(file, entry))


def _model(nodes, inputs, outputs, constants):
    ends = [
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name, shape in values.items()
        ]
        for values in (inputs, outputs)
    ]
    stored = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = onnx.helper.make_graph(nodes, "raw", *ends, stored)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def _run(model, x):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def test_shapes_that_are_computed_become_constants_and_broadcasts_go():
    make = onnx.helper.make_node
    nodes = [
        make("Shape", ["x"], ["shape"]),
        make("Gather", ["shape", "zero"], ["batch"]),
        make("Concat", ["batch", "two", "three"], ["wanted"], axis=0),
        make("Reshape", ["x", "wanted"], ["cut"]),
        make("ReduceMax", ["cut"], ["most"], axes=[2], keepdims=1),
        make("Expand", ["most", "wanted"], ["wide"]),
        make("Sub", ["cut", "wide"], ["less"]),
        make("Concat", ["batch", "two", "two"], ["ends"], axis=0),
        make("Slice", ["less", "starts", "ends", "axes", "steps"], ["y"]),
    ]
    constants = {
        "zero": np.array([0]),
        "two": np.array([2]),
        "three": np.array([3]),
        "starts": np.array([0, 0, 1]),
        "axes": np.array([0, 1, 2]),
        "steps": np.array([1, 1, 1]),
    }
    model = _model(nodes, {"x": ["B", 6]}, {"y": ["B", 2, 1]}, constants)
    for name, shape in (
        ("cut", ["B", 2, 3]),
        ("most", ["B", 2, 1]),
        ("wide", ["B", 2, 3]),
        ("less", ["B", 2, 3]),
    ):
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    before = _run(model, x)
    onnx_graph.fix_shapes(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Reshape", "ReduceMax", "Sub", "Slice"]
    np.testing.assert_array_equal(_run(model, x), before)


def test_a_broadcast_that_says_something_stays():
    make = onnx.helper.make_node
    nodes = [make("Expand", ["x", "wanted"], ["wide"]), make("Mul", ["wide", "half"], ["y"])]
    constants = {"wanted": np.array([4, 3]), "half": np.float32(0.5)}
    model = _model(nodes, {"x": [1, 3]}, {"y": [4, 3]}, constants)
    onnx_graph.fix_shapes(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Expand", "Mul"]


def test_a_transpose_is_a_reshape_only_where_no_number_moves():
    make = onnx.helper.make_node
    nodes = [
        make("Transpose", ["x"], ["turned"], perm=[0, 3, 1, 2]),
        make("Transpose", ["turned"], ["y"], perm=[1, 0, 2, 3]),
    ]
    model = _model(nodes, {"x": ["B", 1, 1, 5]}, {"y": [5, "B", 1, 1]}, {})
    tidied = onnx_graph.join_shapes(model)
    assert [node.op_type for node in tidied.graph.node] == ["Reshape", "Transpose"]
    x = np.arange(10, dtype=np.float32).reshape(2, 1, 1, 5)
    np.testing.assert_array_equal(_run(tidied, x), x.transpose(3, 0, 1, 2))


def test_a_hard_swish_is_one_operator_only_where_it_is_that_function():
    make = onnx.helper.make_node
    nodes = [
        make("HardSigmoid", ["x"], ["gate"], alpha=1 / 6, beta=0.5),
        make("Mul", ["gate", "x"], ["swish"]),
        make("HardSigmoid", ["swish"], ["other"]),  # 0.2 x + 0.5
        make("Mul", ["swish", "other"], ["y"]),
    ]
    model = _model(nodes, {"x": ["B", 4]}, {"y": ["B", 4]}, {})
    x = np.random.default_rng(0).normal(0, 3, (5, 4)).astype(np.float32)
    before = _run(model, x)
    onnx_graph.make_hard_swishes(model.graph)
    assert [node.op_type for node in model.graph.node] == ["HardSwish", "HardSigmoid", "Mul"]
    np.testing.assert_allclose(_run(model, x), before, atol=1e-6)


def test_what_a_converter_raises_is_one_line(tmp_path, monkeypatch):
    def broken(*_):
        raise TypeError("patched_max_pool() takes 1 positional argument\nand more")

    monkeypatch.setattr(export, "forward_function", broken)
    bundle = load_bundle(write_bundle(tmp_path / "bundle", "pyramidnet_tiny", image_size=32))
    with pytest.raises(UserError) as raised:
        export._convert(bundle, tmp_path / "m.onnx", Form("onnx"), None)
    assert str(raised.value) == (
        "--format=onnx: pyramidnet cannot be written so: patched_max_pool() takes 1 positional argument"
    )


@pytest.mark.slow
@pytest.mark.skipif(sysconfig.get_python_version() > "3.11", reason="ONNX Runtime 1.16 ends with Python 3.11")
def test_onnx_runtime_1_16_opens_the_file(written, tmp_path):
    venv.create(tmp_path / "old", with_pip=True)
    python = tmp_path / "old" / "bin" / "python"
    packages = ["onnxruntime==1.16.3", "numpy<2"]
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
    done = subprocess.run(install, capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"no such packages to be had: {done.stderr.strip().splitlines()[-1:]}")
    code = """
import sys, numpy, onnxruntime
assert onnxruntime.__version__ == "1.16.3"
x = numpy.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=numpy.uint8)
for path in sys.argv[1:]:
    y = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": x})[0]
    numpy.save(path + ".npy", y)
"""
    names = ["efficientnetv2_tiny_eca", "mobilevit_tiny", "pyramidnet_tiny", "swin_tiny"]
    files = [written(name)[1] for name in names]
    subprocess.run([python, "-c", code, *files], check=True, timeout=300)
    squares = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    for file in files:
        new = load_predictor(file).probabilities(squares)
        np.testing.assert_allclose(np.load(f"{file}.npy"), new, atol=1e-5)


def test_the_installation_for_small_devices_is_of_this_version_and_asks_for_no_more():
    root = Path(__file__).resolve().parents[2]
    whole, edge = (
        tomllib.loads((root / path).read_text())["project"]
        for path in ("pyproject.toml", "edge/pyproject.toml")
    )
    assert edge["version"] == whole["version"] and edge["scripts"] == whole["scripts"]
    known = {
        *whole["dependencies"],
        *(name for extra in whole["optional-dependencies"].values() for name in extra),
    }
    assert set(edge["dependencies"]) <= known
    assert not [name for name in edge["dependencies"] if re.match("jax|flax|scipy|tensorflow", name)]


@pytest.mark.slow
def test_one_line_installs_what_a_small_device_needs(written, tmp_path):
    bundle, file = written("efficientnetv2_tiny_eca")
    Image.new("RGB", (90, 70), "red").save(tmp_path / "photo.png")
    venv.create(tmp_path / "pi", with_pip=True)
    folder = tmp_path / "pi" / "bin"
    install = [folder / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    done = subprocess.run(
        [*install, Path(__file__).resolve().parents[2] / "edge"], capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        pytest.skip(f"no such packages to be had: {done.stderr.strip().splitlines()[-1:]}")
    command = [folder / "wastejax", "predict", f"--model={file}", "--format=json", tmp_path / "photo.png"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    (answer,) = json.loads(said.stdout)
    square = load_jax(bundle).preprocessing(Image.new("RGB", (90, 70), "red"))
    best = load_jax(bundle).probabilities(square[None])[0].max()
    assert answer["top"][0]["probability"] == pytest.approx(best, abs=1e-4)
    installed = {path.name for path in (tmp_path / "pi").glob("lib/python*/site-packages/*")}
    assert not installed & {"jax", "flax", "scipy"}
