#!/bin/sh
# OpenCV 5.0.0.93 (headless), cv2.dnn.readNetFromONNX: each of the two engines takes both values of auto_pad, for Conv,
# MaxPool and AveragePool of ONNX, for one and the same, and each for the other one. The new engine, which is the
# default, pads SAME_UPPER at the upper left, as SAME_LOWER says; ENGINE_CLASSIC, and OpenCV 4.14.0.94, pad SAME_LOWER
# at the lower right. It matters where the padding is odd, as of 3 x 3 or 5 x 5 at stride 2 on an even side, the way
# MobileNet and EfficientNet make images smaller. SAME_UPPER is what "SAME" of TensorFlow, Keras, Flax and LiteRT means,
# and what jax2onnx writes for Flax's pooling. Each such layer moves what the network sees by one of its pixels, and
# five of them by 31 pixels of the image, so that boxes lie beside the objects, and those weights see another place than
# they were trained for. The shapes are right, and there is no error and no word in the log; a network that OpenCV 4
# computes as it should is off after an upgrade. With the same numbers as pads, instead of auto_pad, both engines are
# right, so that one would have guessed that the words are turned into these.
# Seen, the columns of the image that five layers of stride 2, each of which hands on its middle, end at: onnxruntime,
# ONNX's reference and the classic engine 31, 63, 95, ..., 255, the default engine 0, 32, 64, ..., 224.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93
cd "$folder"
venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

SIDE, LAYERS = 256, 5
middle = helper.make_tensor("middle", TensorProto.FLOAT, [1, 1, 3, 3], [0, 0, 0, 0, 1, 0, 0, 0, 0])


def written(operator, layers, **padding):
    """Writes a network of layers of 3 x 3 at stride 2; its convolutions hand on the middle of the nine pixels."""
    weights = ["middle"] if operator == "Conv" else []
    nodes = [
        helper.make_node(
            operator, [f"x{i}", *weights], [f"x{i + 1}"], kernel_shape=[3, 3], strides=[2, 2], **padding
        )
        for i in range(layers)
    ]
    given = helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 1, SIDE, SIDE])
    made = helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, ["n", "c", "h", "w"])
    graph = helper.make_graph(nodes, "layers", [given], [made], [middle] if weights else [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "layers.onnx")


def by_onnxruntime(image):
    session = onnxruntime.InferenceSession("layers.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"x0": image})[0]


def by_opencv(image, *engine):
    network = cv2.dnn.readNetFromONNX("layers.onnx", *engine)
    network.setInput(image)
    return network.forward()


image = np.tile(np.arange(SIDE, dtype=np.float32), (1, 1, SIDE, 1))  # each pixel says its column
readers = {
    "onnxruntime": by_onnxruntime,
    "default engine": by_opencv,
    "classic engine": lambda image: by_opencv(image, cv2.dnn.ENGINE_CLASSIC),
}
upper, lower = list(range(31, 256, 32)), list(range(0, 256, 32))
for padding, right in (
    ({"auto_pad": "SAME_UPPER"}, upper),
    ({"auto_pad": "SAME_LOWER"}, lower),
    ({"pads": [0, 0, 1, 1]}, upper),
    ({"pads": [1, 1, 0, 0]}, lower),
):
    written("Conv", LAYERS, **padding)
    found = {name: read(image)[0, 0, 4].round().astype(int).tolist() for name, read in readers.items()}
    for name, columns in found.items():
        print(f"{padding}, {name}: {columns}")
    assert np.allclose(ReferenceEvaluator("layers.onnx").run(None, {"x0": image})[0][0, 0, 4], right)
    expected = dict.fromkeys(readers, right)
    if padding == {"auto_pad": "SAME_UPPER"}:
        expected["default engine"] = lower
    if padding == {"auto_pad": "SAME_LOWER"}:
        expected["classic engine"] = upper
    assert found == expected, (found, expected)

noise = np.random.default_rng(0).normal(size=(1, 1, SIDE, SIDE)).astype(np.float32)
for operator in ("MaxPool", "AveragePool"):
    written(operator, 1, auto_pad="SAME_LOWER")
    other = by_onnxruntime(noise)
    written(operator, 1, auto_pad="SAME_UPPER")
    right, default, classic = (read(noise) for read in readers.values())
    assert np.allclose(classic, right, atol=1e-5) and np.allclose(default, other, atol=1e-5), operator
    assert not np.allclose(default, right, atol=0.1), operator
    print(f"{operator}, SAME_UPPER: the default engine gives what onnxruntime gives for SAME_LOWER")
PYTHON
test "$(grep -ci 'pad' log)" = 0
echo "OpenCV 5.0.0.93 pads SAME_UPPER of ONNX as SAME_LOWER: five layers of stride 2 see the image 31 pixels off"
