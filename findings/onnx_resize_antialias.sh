#!/bin/sh
# OpenVINO 2026.4.1 and OpenCV 5.0.0.93 (headless) against onnxruntime 1.32.0 on one ONNX file whose first step makes
# the image smaller by Resize of opset 18. onnxruntime and ONNX's own reference do what its attributes antialias=1 (the
# filter of Pillow, jax.image.resize and so of training) and keep_aspect_ratio_policy="not_larger" say. OpenVINO heeds
# neither and OpenCV no antialias: the same file then picks single pixels, or gives another shape, with no error and no
# word in the log. A white belt with thin dark bars is light gray for onnxruntime and black for the other two; 200 x 100
# for a square of 50 becomes 50 x 25, and is stretched to 50 x 50 by OpenVINO. OpenVINO refuses the modes of coordinates
# that it lacks (half_pixel_symmetric), and OpenCV the input axes, so that one would have guessed at an error here too;
# and preprocessing is put into the network just so that it is the same in each runtime. For antialias in cubic mode
# OpenVINO has a report, openvinotoolkit/openvino#35893.
# Seen, mean brightness of the belt, whose pixels are 191.25 on average: linear 191.2 by onnxruntime, 0.0 by OpenVINO
# and OpenCV; cubic 191.2 and -47.8, which both are what onnxruntime gives without antialias.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 opencv-python-headless==5.0.0.93
cd "$folder"
venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def shrinking(height, width, sizes, **attributes):
    """Writes a network that resizes an image of one channel."""
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, height, width])
    made = helper.make_tensor_value_info("small", TensorProto.FLOAT, ["n", "c", "h", "w"])
    node = helper.make_node("Resize", ["image", "", "", "sizes"], ["small"], **attributes)
    constant = helper.make_tensor("sizes", TensorProto.INT64, [len(sizes)], sizes)
    graph = helper.make_graph([node], "shrink", [given], [made], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "shrink.onnx")


def by_reference(image):
    return ReferenceEvaluator("shrink.onnx").run(None, {"image": image})[0]


def by_onnxruntime(image):
    session = onnxruntime.InferenceSession("shrink.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def by_openvino(image):
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model("shrink.onnx", "CPU", precise)(image)[0]


def by_opencv(image):
    network = cv2.dnn.readNetFromONNX("shrink.onnx")
    network.setInput(image)
    return network.forward()


belt = np.full((1, 1, 256, 256), 255, np.float32)
belt[..., np.isin(np.arange(256) % 8, (3, 4))] = 0  # two dark columns of eight
readers = {"reference": by_reference, "onnxruntime": by_onnxruntime, "OpenVINO": by_openvino, "OpenCV": by_opencv}
brightness = {}
for mode in ("linear", "cubic"):
    for antialias in (0, 1):
        shrinking(256, 256, [1, 1, 32, 32], mode=mode, antialias=antialias)
        for name, read in readers.items():
            brightness[mode, antialias, name] = round(float(read(belt)[0, 0, 4:-4, 4:-4].mean()), 1)
print(brightness)
with open("log") as log:
    said = [line for line in log if "antialias" in line.lower() or "resize" in line.lower()]
expected = dict.fromkeys(brightness, 191.2)
for mode, picked in (("linear", 0.0), ("cubic", -47.8)):
    expected |= {(mode, 0, name): picked for name in readers}
    expected |= {(mode, 1, name): picked for name in ("OpenVINO", "OpenCV")}
assert all(abs(brightness[case] - expected[case]) < 0.2 for case in expected), (brightness, expected)
assert not said, said

photograph = np.zeros((1, 1, 100, 200), np.float32)
shrinking(100, 200, [50, 50], mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger")
shapes = {name: readers[name](photograph).shape[2:] for name in ("reference", "onnxruntime", "OpenVINO")}
print(shapes)
assert shapes == {"reference": (25, 50), "onnxruntime": (25, 50), "OpenVINO": (50, 50)}, shapes
PYTHON
test "$(grep -ci keep_aspect log)" = 0
echo "OpenVINO 2026.4.1 and OpenCV 5.0.0.93 leave antialias out of ONNX's Resize, and OpenVINO keep_aspect_ratio_policy"
