"""A network as an ONNX file: written by jax2onnx, tidied and quantised by ONNX Runtime."""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.deployment.predictor import ABOUT
from wastejax.files import write_bytes

OPSET = 17  # old enough for every runtime in use
ENTRY, RESULT = "images", "probabilities"
CALIBRATION_BATCH = 16
# Pooling, attention and softmax stay in floating point: they cost next to nothing, and err easily in 8 bits.
DOTS = ("Conv", "Gemm", "MatMul")
QUANTISED = [*DOTS, "Add", "Clip"]


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
            # Its factor, beta, may be 0 as well; the bias that takes its place wants the default, 1.
            for attribute in [a for a in node.attribute if a.name == "beta"]:
                node.attribute.remove(attribute)
    _move_biases(tidied.graph)
    _make_clips(tidied.graph)
    used = {name for node in tidied.graph.node for name in node.input}
    kept = [tensor for tensor in tidied.graph.initializer if tensor.name in used]
    del tidied.graph.initializer[:]
    tidied.graph.initializer.extend(kept)
    _write(tidied, path, about)


def _move_biases(graph: Any) -> None:
    """Gives convolutions and dots the biases that are added to their results, where ONNX Runtime looks for none.

    Left as an addition, a bias costs a pass over the activations, and in 8 bits an error of its own.
    """
    from onnx import numpy_helper

    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    for add in [node for node in graph.node if node.op_type == "Add"]:
        biases = [arrays[name] for name in add.input if name in arrays]
        results = [makers[name] for name in add.input if name in makers]
        if len(biases) != 1 or len(results) != 1:
            continue
        last = dot = results[0]
        if last.op_type == "Transpose" and list(last.attribute[0].ints) == [0, 2, 3, 1]:
            dot = makers.get(last.input[0], last)
        wanted = "Gemm" if dot is last else "Conv"
        alone = uses[last.output[0]] == uses[dot.output[0]] == 1
        without = dot.op_type == wanted and len(dot.input) == 2
        kernel = arrays.get(dot.input[1]) if alone and without else None
        if kernel is None or not _is_bias(biases[0], kernel):
            continue
        bias = numpy_helper.from_array(biases[0].reshape(-1), f"{dot.output[0]}_bias")
        graph.initializer.append(bias)
        dot.input.append(bias.name)
        last.output[0] = add.output[0]
        graph.node.remove(add)


def _is_bias(array: np.ndarray, kernel: np.ndarray) -> bool:
    """Returns whether an array that is added to a result has one value for each of its channels."""
    return array.ndim > 0 and 1 < array.size == array.shape[-1] and array.size in kernel.shape[:2]


def _make_clips(graph: Any) -> None:
    """Makes one Clip of each Max and Min with constants, as in ReLU6.

    Runtimes compute it together with the convolution before it; in 8 bits, the range of what it leaves is enough.
    """
    import onnx
    from onnx import numpy_helper

    scalars = {t.name: numpy_helper.to_array(t) for t in graph.initializer if np.prod(t.dims) == 1}
    makers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    for upper in [node for node in graph.node if node.op_type == "Min"]:
        bounded = [name for name in upper.input if name in makers]
        if len(bounded) != 1 or uses[bounded[0]] != 1:
            continue
        lower = makers[bounded[0]]
        limits = [name for node in (lower, upper) for name in node.input if name in scalars]
        entry = [name for name in lower.input if name not in scalars]
        if lower.op_type != "Max" or len(limits) != 2 or len(entry) != 1:
            continue
        names = [f"{upper.output[0]}_{bound}" for bound in ("least", "most")]
        for name, limit in zip(names, limits, strict=True):
            graph.initializer.append(numpy_helper.from_array(scalars[limit].reshape(()), name))
        upper.CopyFrom(onnx.helper.make_node("Clip", [*entry, *names], upper.output, name=upper.name))
        graph.node.remove(lower)


def halve(source: Path, path: Path, about: str) -> None:
    """Writes an ONNX file with its kernels in float16; computing stays in float32, so that any runtime can."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    casts = []
    for tensor in model.graph.initializer:
        # Vectors weigh nothing, also where they have axes of length 1 to be broadcast along.
        if tensor.data_type == onnx.TensorProto.FLOAT and sum(length > 1 for length in tensor.dims) > 1:
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

    The first convolution and the classifier stay in float32: they hold few of the weights and cost most of the
    agreement. Ranges are the mean over batches of their least and largest values, so that one odd picture does not
    stretch them. Weights use all 8 bits: with 7, the answers to 2 or 3 pictures in a hundred more changed. On x86
    processors without VNNI sums of 8 bits may saturate; exported there, the check sees it. All chosen on validation
    pictures.

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

    dots = [node.name for node in onnx.load(source).graph.node if node.op_type in DOTS]
    logging.getLogger().addFilter(_not_preprocessed)
    try:
        quantize_static(
            str(source),
            str(path),
            Batches(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            nodes_to_exclude=[dots[0], dots[-1]],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},
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
