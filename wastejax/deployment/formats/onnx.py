"""A network as an ONNX file: written by jax2onnx, tidied and quantized by ONNX Runtime, run by that or OpenVINO."""

import logging
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wastejax import machine
from wastejax.deployment.formats import onnx_graph
from wastejax.deployment.formats.about import ABOUT, STRIDE, check_fit, damaged, exported, parse_about
from wastejax.deployment.formats.onnx_sides import open_sides
from wastejax.deployment.predictor import Predictor
from wastejax.errors import imported
from wastejax.files import write_bytes

# As old as the operators allow: layer normalization came with 17, and with it files of version 8 (ONNX 1.12, 2022).
OPSET, IR_VERSION = 17, 8
ENTRY, RESULT, CLASS_MAP = "images", "probabilities", "class_map"
CALIBRATION_BATCH = 16
# Pooling, attention and softmax stay in floating point: they cost next to nothing, and err easily in 8 bits.
DOTS = ("Conv", "Gemm", "MatMul")
QUANTIZED = [*DOTS, "Add", "Clip"]


def write_onnx(
    path: Path, forward: Any, shape: tuple[int, ...], dtype: str, about: str, class_map: bool = False
) -> None:
    """Writes a function of images as ONNX, for any number of images.

    Args:
        path: the file.
        forward: jax function of images [B, S, S, 3].
        shape: (S, S, 3).
        dtype: of the images, 'uint8' or 'float32'.
        about: what the file says of itself, JSON.
        class_map: the function returns a class map as well. Where the network consists of operators that do not
            depend on the sides of the images, the file takes any that are multiples of `STRIDE`.
    """
    import jax
    from jax2onnx import to_onnx

    # It warns of each of hundreds of values without a type; the file is checked as a whole.
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    (batch,) = jax.export.symbolic_shape("B")
    entry = jax.ShapeDtypeStruct((batch, *shape), np.dtype(dtype))
    model = to_onnx(
        forward,
        [entry],
        model_name="wastejax",
        opset=OPSET,
        input_names=[ENTRY],
        output_names=[RESULT, CLASS_MAP] if class_map else [RESULT],
        normalization_mode="prefer_native",
    )
    tidy(model, path, about, class_map and shape[0] % STRIDE == 0)


def tidy(model: Any, path: Path, about: str, any_side: bool = False) -> None:
    """Writes an ONNX model without what need not be computed anew, in operators of the default domain alone.

    ONNX Runtime's basic optimizations fold constants and take out transposes; they use standard operators only, so
    the file stays one for every runtime, though they declare domains that nothing in it is of.

    Args:
        model: as jax2onnx writes it.
        path: the file.
        about: what it says of itself, JSON.
        any_side: have it take images of other sides, where its operators do not depend on them.
    """
    import onnx
    import onnxruntime

    for rewrite in (onnx_graph.set_axes, onnx_graph.fix_shapes, onnx_graph.pool_globally):
        rewrite(model.graph)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch) / "tidy.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        tidied = onnx.load(options.optimized_model_filepath)
    for rewrite in (
        onnx_graph.drop_zero_biases,
        onnx_graph.move_biases,
        onnx_graph.make_clips,
        onnx_graph.make_hard_swishes,
        onnx_graph.cancel_transposes,
    ):
        rewrite(tidied.graph)
    joined = onnx_graph.join_shapes(tidied)
    if any_side:
        open_sides(joined)
    _write(joined, path, about)


def halve(source: Path, path: Path, about: str) -> None:
    """Writes an ONNX file with its kernels in float16; computing stays in float32, so that any runtime can."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    casts = []
    for tensor in model.graph.initializer:
        # Vectors weigh nothing, also where they have axes of length 1 to be broadcast along.
        if tensor.data_type == onnx.TensorProto.FLOAT and sum(length > 1 for length in tensor.dims) > 1:
            values = numpy_helper.to_array(tensor)
            if np.abs(values).max() > np.finfo(np.float16).max:
                continue  # no kernel: the mask of Swin's windows
            half = numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}_half")
            casts.append(onnx.helper.make_node("Cast", [half.name], [tensor.name], to=onnx.TensorProto.FLOAT))
            tensor.CopyFrom(half)
    onnx_graph.refill(model.graph.node, [*casts, *model.graph.node])
    _write(model, path, about)


def quantize(source: Path, path: Path, about: str, images: np.ndarray) -> None:
    """Writes an ONNX file with convolutions and dots in 8 bits, scales per channel (Jacob et al. 2018).

    The first convolution and the classifier stay in float32: they hold few of the weights and cost most of the
    agreement. Ranges are the mean over batches of their least and largest values, so that one odd image does not
    stretch them. Weights use all 8 bits: with 7, the answers to 2 or 3 images in a hundred more changed. On x86
    processors without VNNI sums of 8 bits may saturate; exported there, the check sees it. All chosen on validation
    images.

    Args:
        source: an ONNX file that `write_onnx` wrote.
        path: the new file.
        about: what it says of itself, JSON.
        images: in the form that the network takes, [N, S, S, 3]: what the ranges of activations are taken from.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    feeds = ({ENTRY: part} for part in np.array_split(images, -(-len(images) // CALIBRATION_BATCH)))

    class Batches(CalibrationDataReader):
        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(feeds, None)

    graph = onnx.load(source).graph
    first = next(node.name for node in graph.node if node.op_type in DOTS)
    logging.getLogger().addFilter(_not_preprocessed)
    try:
        quantize_static(
            str(source),
            str(path),
            Batches(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            nodes_to_exclude=[first, *onnx_graph.last_of(graph, DOTS)],
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

    model.producer_name, model.ir_version = "wastejax", IR_VERSION
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {ABOUT: about})
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())


def load_onnx(path: Path, threads: int | None = None) -> Predictor:
    """Returns an .onnx file that `export` wrote, computed by ONNX Runtime on the CPU."""
    onnxruntime = imported("onnxruntime", str(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well
    options.intra_op_num_threads = threads or machine.cores()
    # Threads that wait for each other sleep. By default they spin, on cores that decode the next images: on two
    # busy cores an answer then took twice the processor's time, and five times as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever the parser or the kernels make of a damaged file
        raise damaged(path, "ONNX", error) from None
    about = parse_about(path, session.get_modelmeta().custom_metadata_map.get(ABOUT))
    entry = session.get_inputs()[0]

    def compute(images: np.ndarray) -> list[np.ndarray]:
        return session.run(None, {entry.name: images})

    results = session.get_outputs()
    types = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
    check_fit(path, about, entry.shape, types.get(entry.type, entry.type), results[0].shape)
    return exported(path, "onnxruntime", about, compute, len(results), not isinstance(entry.shape[1], int))


def load_openvino(path: Path, threads: int | None = None) -> Predictor:
    """Returns an .onnx file that `export` wrote, computed by OpenVINO on the CPU in float32."""
    # OpenVINO reports over the network, from a forked process, that it reads an ONNX file; ours tells nobody.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    openvino = imported("openvino", str(path))
    try:
        core = openvino.Core()
        model = core.read_model(path)
        # Left to itself it computes in bfloat16 where the processor can.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads or machine.cores()}
        compiled = core.compile_model(model, "CPU", settings)
        shape = model.inputs[0].partial_shape
    except Exception as error:  # whatever the parser or the kernels make of a damaged file
        raise damaged(path, "ONNX", error) from None
    where = ["framework", ABOUT]  # where OpenVINO keeps the metadata of an ONNX file
    text = model.get_rt_info(where).astype(str) if model.has_rt_info(where) else None

    alone = threading.Lock()  # it has one request

    def compute(images: np.ndarray) -> list[np.ndarray]:
        with alone:
            return list(compiled(images).values())

    about, results = parse_about(path, text), len(model.outputs)
    sides = [axis.get_length() if axis.is_static else None for axis in shape]
    answer = [axis.get_length() if axis.is_static else None for axis in model.outputs[0].partial_shape]
    dtype = np.dtype(model.inputs[0].element_type.to_dtype()).name
    check_fit(path, about, sides, dtype, answer)
    return exported(path, "openvino", about, compute, results, shape[1].is_dynamic)
