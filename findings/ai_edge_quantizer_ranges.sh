#!/bin/sh
# ai-edge-quantizer 0.10.0: Quantizer.calibrate() does not keep the least and largest value of a tensor over the
# samples, but a moving average (0.95) of those of each sample. Of 20 samples the first weighs 38 %, the order of the
# samples changes the network, and a tensor of one number a sample (a temperature, a largest cosine, a confidence) gets
# a range that ends in the midst of what was seen: whatever lies above is cut off, without a word. Below, the largest of
# the samples, 95, comes back as 36, and as 59 where the same samples are given the other way round. The argument
# qsv_update_func of calibrator.CalibrationInterpreter takes another rule; Quantizer.calibrate has no such argument.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ai-edge-quantizer==0.10.0 ai-edge-litert==2.3.0
cd "$folder"
venv/bin/python - 2>log <<'END' || { cat log; exit 1; }
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import calibrator, qtyping, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.quantizer import Quantizer


def tensor(name, buffer):
    made = schema.TensorT()
    made.name, made.shape, made.buffer, made.type = name, [1, 1], buffer, schema.TensorType.FLOAT32
    return made


def doubling():
    """A network that adds a number to itself."""
    model, graph, code, add = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    model.version, model.buffers = 3, [schema.BufferT() for _ in range(3)]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version = 1
    add.inputs, add.outputs, add.opcodeIndex = [0, 0], [1], 0
    add.builtinOptionsType, add.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    graph.tensors, graph.inputs, graph.outputs = [tensor("x", 1), tensor("y", 2)], [0], [1]
    graph.operators, model.subgraphs, model.operatorCodes = [add], [graph], [code]
    ends = []
    for name, index in (("x", 0), ("y", 1)):
        end = schema.TensorMapT()
        end.name, end.tensorIndex = name, index
        ends.append([end])
    signature = schema.SignatureDefT()
    signature.inputs, signature.outputs = ends
    signature.signatureKey, signature.subgraphIndex = "serve", 0
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


network = doubling()
samples = [{"x": np.full((1, 1), value, np.float32)} for value in range(0, 100, 5)]  # 0, 5, ..., 95


def answer(ranges):
    work = Quantizer(network, recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        work.update_quantization_recipe(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    made = work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model
    run = Interpreter(model_content=bytes(made)).get_signature_runner("serve")
    return float(run(x=np.full((1, 1), 95, np.float32))["y"].item()) / 2


def averaged(given):
    return Quantizer(network, recipe.static_wi8_ai8()).calibrate({"serve": given})


def widened(before, seen):
    return {"min": np.minimum(before["min"], seen["min"]), "max": np.maximum(before["max"], seen["max"])}


interpreter = calibrator.CalibrationInterpreter(network, calibrator.CalibrationMode.CALIBRATION, widened)
run = interpreter.get_signature_runner("serve")
for sample in samples:
    run(**sample)
whole = interpreter.get_calibration_results()
rows = {"rising": averaged(samples), "falling": averaged(samples[::-1]), "least and largest": whole}
found = {name: (round(ranges["x"]["max"].item(), 1), round(answer(ranges), 1)) for name, ranges in rows.items()}
print(found)
assert found == {"rising": (35.8, 35.8), "falling": (59.2, 59.2), "least and largest": (95.0, 95.0)}, found
END
echo "ai-edge-quantizer 0.10.0 calibrates with moving averages: 95 comes back as 36 or 59, by the order of the samples"
