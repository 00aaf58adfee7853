"""Every network in every form consists of known operators: a short list for each form, and why each is there.

An operator outside of its list, or in a network for which the list does not have it, is a function for which the
runtime has a faster kernel, a layout turned for nothing, or something that other runtimes may not know.
"""

import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from experiments.networks_by_form import NETWORKS, drawn_bundle, images
from wastejax.deployment.export import Sample, write_export
from wastejax.models import MODELS

ANY, TOKENS = ".*", "Swin|MobileViT$"  # patterns of names in `NETWORKS`; the latter have attention
GATED = "MobileViT|EfficientNetV2, "  # SiLU or channel attention
List = Mapping[str, tuple[str, str]]  # operator -> the networks that may hold it, and why

ONNX: List = {
    "Conv": (ANY, "convolutions, and those of ECA over channels"),
    "Add": (ANY, "residuals, biases of positions, means of pre-activations"),
    "Sub": (ANY, "the mean of the images"),
    "Div": (ANY, "the temperature"),
    "Softmax": (ANY, "the answer, attention"),
    "Cast": (ANY, "bytes to floats; float16 kernels to float32"),
    "Transpose": (ANY, "images have channels last, and so has the class map; heads of attention"),
    "Reshape": (ANY, "heads, windows, patches; costs nothing"),
    "GlobalAveragePool": (ANY, "channel attention, the classifier"),
    "Mul": (f"{GATED}|PyramidNet|Swin", "gates, SiLU, scales of attention and of pre-activations"),
    "Sigmoid": (GATED, "gates, SiLU"),
    "Relu": ("PyramidNet|.*CBAM", "an activation"),
    "LeakyRelu": (".*Leaky ReLU", "the study's activation"),
    "HardSwish": (".*hard swish", "an activation"),
    "Clip": (".*ReLU6|MobileViT, ", "ReLU6, also in the inverted residuals"),
    "Erf": ("Swin", "GELU, whose own operator came with opset 20; ONNX Runtime puts it together"),
    "Gemm": (f"{TOKENS}|EfficientNetV2, (SE|hard swish)", "linear layers of attention, SE and CBAM"),
    "MatMul": (TOKENS, "attention"),
    "LayerNormalization": (TOKENS, "transformers"),
    "Gather": (TOKENS, "query, key and value"),
    "Concat": ("Swin|MobileViT|.*CBAM|PyramidNet", "fusion, shifted windows, CBAM's two maps, odd sides"),
    "Slice": ("Swin|PyramidNet", "shifted windows, odd sides"),
    "Split": (".*GLU", "gated linear units"),
    "Pad": ("PyramidNet", "new channels"),
    "AveragePool": ("PyramidNet", "shortcuts"),
    "MaxPool": ("PyramidNet, ImageNet", "the stem"),
    "ReduceMax": (".*CBAM", "over positions and over channels"),
    "ReduceMean": (".*CBAM", "over channels"),
}
# What quantization puts between them; runtimes compute it together with what lies between.
ONNX_INT8: List = ONNX | dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), (ANY, "8 bits"))

OPENVINO: List = {
    "Input": (ANY, "the images"),
    "Output": (ANY, "the answer and the class map"),
    "Const": (ANY, "weights; costs nothing"),
    "Convert": (ANY, "bytes to floats"),
    "Convolution": (ANY, "with the activation behind it"),
    "Eltwise": (ANY, "residuals, gates and the mean of the images, where no convolution takes them in"),
    "Softmax": (ANY, "the answer, attention"),
    "Reduce": (ANY, "global pools"),
    "Reshape": (ANY, "costs nothing"),
    "Reorder": (ANY, "layouts of its convolutions, at the ends and around channel attention"),
    "Transpose": (ANY, "images have channels last, and so has the class map; heads of attention"),
    "FullyConnected": (f"{TOKENS}|EfficientNetV2, (SE|hard swish)", "linear layers"),
    "MatMul": (TOKENS, "attention"),
    "Gather": (TOKENS, "query, key and value"),
    "RMS": (TOKENS, "layer normalization"),
    "MVN": (TOKENS, "layer normalization"),
    "Subgraph": (TOKENS, "several operators of attention in one kernel"),
    "Concatenation": (
        "Swin|MobileViT|.*CBAM|PyramidNet",
        "fusion, shifted windows, CBAM's two maps, odd sides",
    ),
    "StridedSlice": ("Swin|PyramidNet", "shifted windows, odd sides"),
    "Split": (".*GLU", "gated linear units"),
    "Pad": ("PyramidNet", "new channels"),
    "Pooling": ("PyramidNet", "the stem, shortcuts"),
}

LITERT: List = {
    "CONV_2D": (ANY, "with ReLU and ReLU6 inside"),
    "DEPTHWISE_CONV_2D": ("EfficientNet|MobileViT", "with ReLU and ReLU6 inside; ECA over channels"),
    "ADD": (ANY, "residuals, biases of positions"),
    "SUB": (ANY, "the mean of the images, layer normalization"),
    "CAST": (ANY, "bytes to floats"),
    "FULLY_CONNECTED": (ANY, "linear layers"),
    "MEAN": (ANY, "pools, layer normalization"),
    "SOFTMAX": (ANY, "the answer, attention"),
    "MUL": (
        f"{GATED}|PyramidNet|Swin",
        "gates, SiLU, scales of attention and pre-activations, layer normalization",
    ),
    "LOGISTIC": (GATED, "gates, SiLU, which has no operator"),
    "LEAKY_RELU": (".*Leaky ReLU", "the study's activation"),
    "HARD_SWISH": (".*hard swish", "an activation"),
    "GELU": ("Swin", "an activation"),
    "RSQRT": (TOKENS, "layer normalization, which has no operator"),
    "BATCH_MATMUL": (TOKENS, "attention"),
    "TRANSPOSE": (TOKENS, "heads and windows of attention; convolutions have channels last here"),
    "RESHAPE": (f"{TOKENS}|.*ECA", "heads, windows, patches, ECA over channels; costs nothing"),
    "SLICE": (f"{TOKENS}|.*GLU|PyramidNet", "query, key and value, shifted windows, halves, odd sides"),
    "CONCATENATION": (
        "Swin|MobileViT|.*CBAM|PyramidNet",
        "fusion, shifted windows, CBAM's two maps, odd sides",
    ),
    "PAD": ("PyramidNet|MobileViT", "new channels, strides as in PyTorch"),
    "AVERAGE_POOL_2D": ("PyramidNet", "shortcuts"),
    "MAX_POOL_2D": ("PyramidNet, ImageNet", "the stem"),
    "REDUCE_MAX": (".*CBAM", "over positions and over channels"),
}
LITERT_FP16: List = LITERT | {"DEQUANTIZE": (ANY, "float16 kernels to float32, once, when it is loaded")}
LITERT_INT8: List = LITERT_FP16 | {
    "QUANTIZE": (ANY, "8 bits, at the ends and around what has no 8-bit kernel")
}

# XLA makes its own of these; what matters is that no device's or library's own function is among them.
_STABLEHLO = (
    "abs add and broadcast_in_dim case compare concatenate constant convert convolution divide dot_general"
)
_STABLEHLO += " dynamic_broadcast_in_dim dynamic_gather dynamic_reshape exponential gather"
_STABLEHLO += " get_dimension_size iota maximum minimum multiply negate optimization_barrier pad"
_STABLEHLO += " real_dynamic_slice reduce reduce_window reshape return rsqrt select slice subtract transpose"
STABLEHLO: List = dict.fromkeys(
    _STABLEHLO.split(), (ANY, "plain arithmetic, shapes, the choice of the device")
)
STABLEHLO |= {"custom_call shape_assertion": (ANY, "the batch is not empty; computes nothing")}


def onnx_operators(path: Path) -> Counter[str]:
    import onnx

    return Counter(node.op_type for node in onnx.load(path).graph.node)


def openvino_operators(path: Path) -> Counter[str]:
    """Kernels on a CPU, by OpenVINO's own names."""
    openvino = pytest.importorskip("openvino")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    program = openvino.Core().compile_model(str(path), "CPU", settings).get_runtime_model()
    return Counter(node.get_rt_info()["layerType"].astype(str) for node in program.get_ops())


def litert_operators(path: Path) -> Counter[str]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return Counter(codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators)


def stablehlo_operators(path: Path) -> Counter[str]:
    import jax

    with zipfile.ZipFile(path) as archive:
        text = jax.export.deserialize(bytearray(archive.read("program.bin"))).mlir_module()
    found = re.findall(r'(?<!/)\b(?:stablehlo|chlo)\.(\w+)"?((?:(?<=custom_call) @\w+)?)', text)
    return Counter(name + called.replace("@", "") for name, called in found)


FORMS = {
    "onnx": ("none", ".onnx", onnx_operators, ONNX),
    "onnx, fp16": ("fp16", ".onnx", onnx_operators, ONNX),
    "onnx, int8": ("int8", ".onnx", onnx_operators, ONNX_INT8),
    "openvino": ("none", ".onnx", openvino_operators, OPENVINO),
    "litert": ("none", ".tflite", litert_operators, LITERT),
    "litert, fp16": ("fp16", ".tflite", litert_operators, LITERT_FP16),
    "litert, int8": ("int8", ".tflite", litert_operators, LITERT_INT8),
    "litert, integer": ("integer", ".tflite", litert_operators, LITERT_INT8),
    "stablehlo": ("none", ".stablehlo", stablehlo_operators, STABLEHLO),
}
QUICK = "EfficientNetV2, ECA and Leaky ReLU"


@pytest.fixture(scope="module")
def operators(tmp_path_factory):
    """Counts the operators of a network in a form; each file is written once."""
    folders = {name: tmp_path_factory.mktemp("network") for name in NETWORKS}

    def count(name: str, form: str) -> Counter[str]:
        precision, suffix, read, _ = FORMS[form]
        if suffix == ".tflite":
            pytest.importorskip("litert_converter")
            pytest.importorskip("ai_edge_quantizer")
        # Of the usual size a last map of one position is left, whose mean and softmax are other operators.
        network = NETWORKS[name]._replace(size=2 * NETWORKS[name].size)
        path = folders[name] / f"{precision}{suffix}"
        if not path.is_file():
            sample = Sample(images(network, 8, seed=1), None, "")
            write_export(drawn_bundle(network, folders[name]), path, "uint8", precision, sample)
        return read(path)

    return count


def unknown(found: Counter[str], known: List, network: str) -> dict[str, int]:
    """Returns the operators that a network should not hold, and how many there are."""
    return {
        kind: count
        for kind, count in found.items()
        if kind not in known or not re.match(known[kind][0], network)
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name", [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS if name != QUICK)]
)
def test_a_network_consists_of_known_operators(operators, name, form):
    found = operators(name, form)
    assert not unknown(found, FORMS[form][-1], name)
    if form == "onnx" and not re.match(TOKENS, name):  # none around a convolution
        assert found["Transpose"] <= 2 + name.endswith("CBAM")


def test_an_operator_out_of_place_is_found():
    found = Counter({"Where": 3, "Conv": 9, "Erf": 1})
    assert unknown(found, ONNX, QUICK) == {"Where": 3, "Erf": 1}
    assert unknown(found, ONNX, "Swin") == {"Where": 3}


def test_every_network_of_the_registry_is_of_a_kind_in_the_lists():
    def kind(model):
        return {key: value for key, value in model.items() if key not in ("size", "depths", "alpha")}

    def tested(model):
        lite = str(model["size"]).startswith("lite")
        return lite or kind(model) in [kind(network.model) for network in NETWORKS.values()]

    missing = {name for name, model in MODELS.items() if not tested(model)}
    # 5 x 5 kernels beside attention: both are listed, with inverted residuals and without.
    assert {name for name in missing if not name.endswith("_conv5")} == set()
