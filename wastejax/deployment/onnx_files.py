"""A network as an ONNX file: written by jax2onnx, tidied and quantised by ONNX Runtime."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.deployment.runtimes import ABOUT
from wastejax.files import write_bytes

OPSET = 17  # old enough for every runtime in use
ENTRY, RESULT = "images", "probabilities"
CALIBRATION_BATCH = 16
# Pooling, attention and softmax stay in floating point: they cost next to nothing, and err easily in 8 bits.
QUANTISED = ["Conv", "Gemm", "MatMul", "Add", "Clip"]


def write_onnx(path: Path, forward: Any, shape: tuple[int, ...], dtype: str, about: str) -> None:
    """Writes a function of images as ONNX, for any number of images.

    Args:
        path: the file.
        forward: jax function of images [B, S, S, 3].
        shape: (S, S, 3).
        dtype: of the images, 'uint8' or 'float32'.
        about: what the file says of itself, JSON.
    """
    import jax
    from jax2onnx import to_onnx

    (batch,) = jax.export.symbolic_shape("B")
    entry = jax.ShapeDtypeStruct((batch, *shape), np.dtype(dtype))
    model = to_onnx(
        forward, [entry], model_name="wastejax", opset=OPSET, input_names=[ENTRY], output_names=[RESULT]
    )
    tidy(model.SerializeToString(), path, about)


def tidy(model: bytes, path: Path, about: str) -> None:
    """Writes an ONNX model without what need not be computed anew: constants folded, biases in convolutions.

    jax2onnx transposes around every convolution, kernels included. ONNX Runtime's basic optimisations take that
    out; they use standard operators only, so the file stays one for every runtime.
    """
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch) / "tidy.onnx")
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        tidied = onnx.load(options.optimized_model_filepath)
    # jax2onnx adds a scalar zero to a dot; quantisation takes it for a bias with one value per output.
    zeros = {t.name for t in tidied.graph.initializer if not t.dims and not numpy_helper.to_array(t).any()}
    for node in tidied.graph.node:
        if node.op_type == "Gemm" and len(node.input) == 3 and node.input[2] in zeros:
            del node.input[2]
    used = {name for node in tidied.graph.node for name in node.input}
    kept = [tensor for tensor in tidied.graph.initializer if tensor.name in used]
    del tidied.graph.initializer[:]
    tidied.graph.initializer.extend(kept)
    _write(tidied, path, about)


def halve(source: Path, path: Path, about: str) -> None:
    """Writes an ONNX file with its kernels in float16; computing stays in float32, so that any runtime can."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            half = numpy_helper.from_array(
                numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}_half"
            )
            casts.append(onnx.helper.make_node("Cast", [half.name], [tensor.name], to=onnx.TensorProto.FLOAT))
            tensor.CopyFrom(half)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _write(model, path, about)


def quantise(source: Path, path: Path, about: str, pictures: np.ndarray) -> None:
    """Writes an ONNX file with convolutions and dots in 8 bits, scales per channel (Jacob et al. 2018).

    Args:
        source: an ONNX file that `write_onnx` wrote.
        path: the new file.
        about: what it says of itself, JSON.
        pictures: in the form that the network takes, [N, S, S, 3]: what the ranges of activations are taken from.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest: Iterator[np.ndarray] = iter(
                np.array_split(pictures, -(-len(pictures) // CALIBRATION_BATCH))
            )

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            batch = next(self.rest, None)
            return None if batch is None else {ENTRY: batch}

    logging.getLogger().addFilter(_not_preprocessed)
    try:
        quantize_static(
            str(source),
            str(path),
            Batches(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            reduce_range=True,  # 7-bit weights: 8-bit sums saturate on x86 processors without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    finally:
        logging.getLogger().removeFilter(_not_preprocessed)
    _write(onnx.load(path), path, about)


def _not_preprocessed(record: logging.LogRecord) -> bool:
    """Drops the advice to tidy the model first: `write_onnx` did."""
    return "pre-process" not in record.getMessage()


def _write(model: Any, path: Path, about: str) -> None:
    import onnx

    model.producer_name = "wastejax"
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {ABOUT: about})
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())
