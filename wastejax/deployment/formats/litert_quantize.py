"""LiteRT networks in fewer bits, by ai-edge-quantizer."""

import io
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np

EVERYTHING = ".*"  # names of tensors


def halve(network: bytes) -> bytes:
    """Returns a network with its kernels in float16; computing stays in float32, so that any processor can."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.quantizer import Quantizer

    kernels = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=16, dtype=qtyping.TensorDataType.FLOAT
        ),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    work = Quantizer(network)
    for kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        operation = qtyping.TFLOperationName[kind]
        work.update_quantization_recipe(EVERYTHING, operation, kernels, AlgorithmName.FLOAT_CASTING)
    return _made(work)


def quantize(network: bytes, signature: str, entry: str, images: np.ndarray, integer: bool = False) -> bytes:
    """Returns a network computed in 8 bits, kernels per channel, activations by the ranges that images give.

    Ranges reach from the least to the largest value of any image. The quantizer's own are moving averages over the
    images: where a tensor holds one number an image, as the familiarity of `models.familiarity`, nothing is left of
    its range, and single probabilities of the bundled model moved by 0.67; with these by 0.13 (200 images).

    Args:
        network: in float32.
        signature: the name of its function.
        entry: the name of the input.
        images: in the form that the network takes, [N, S, S, 3].
        integer: also the answer, and the input, which is float32 [1, S, S, 3] of values 0..255, become uint8, so
            that nothing is computed in floating point. Otherwise the softmax stays in it.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import qtyping, recipe
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.quantizer import Quantizer

    work = Quantizer(network, recipe.static_wi8_ai8())
    for kind in ("INPUT", "OUTPUT") if integer else ("OUTPUT", "SOFTMAX"):
        operation = qtyping.TFLOperationName[kind]
        work.update_quantization_recipe(EVERYTHING, operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    ranges = _ranges(network, signature, entry, images)
    if integer:  # whatever these images hold, a byte stands for itself
        name = Interpreter(model_content=network).get_input_details()[0]["name"]
        ranges[name] |= {"min": np.zeros((1, 1, 1, 1)), "max": np.full((1, 1, 1, 1), 255.0)}
    made = _made(work, ranges)
    return _with_bytes_at_both_ends(made) if integer else made


def _ranges(network: bytes, signature: str, entry: str, images: np.ndarray) -> dict[str, Any]:
    """Returns name of a tensor -> its least and largest value over images."""
    from ai_edge_quantizer.calibrator import CalibrationInterpreter, CalibrationMode

    with _unwarned():
        interpreter = CalibrationInterpreter(network, CalibrationMode.CALIBRATION, _widened)
        run = interpreter.get_signature_runner(signature)
        for image in images:
            run(**{entry: image[None]})
    return dict(interpreter.get_calibration_results())


def _widened(before: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    return {"min": np.minimum(before["min"], seen["min"]), "max": np.maximum(before["max"], seen["max"])}


def _made(work: Any, ranges: Any = None) -> bytes:
    with _unwarned():
        done = work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(done.quantized_model)


@contextmanager
def _unwarned() -> Iterator[None]:
    """Drops the interpreter's warning of the memory that keeping every tensor takes, and progress bars."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore", UserWarning)
        # A channel whose kernel is zero has no scale; it stays zero.
        warnings.filterwarnings("ignore", "invalid value encountered in cast", RuntimeWarning)
        yield


def _with_bytes_at_both_ends(network: bytes) -> bytes:
    """Returns a network of 8 bits between floats as one between bytes."""
    from ai_edge_litert import _pywrap_modify_model_interface as interface
    from ai_edge_litert.schema_py_generated import TensorType

    with tempfile.TemporaryDirectory() as scratch:
        before, after = Path(scratch) / "before.tflite", Path(scratch) / "after.tflite"
        before.write_bytes(_with_arrays_inside(network))
        interface.modify_model_interface(str(before), str(after), TensorType.UINT8, TensorType.UINT8)
        return after.read_bytes()


def _with_arrays_inside(network: bytes) -> bytes:
    """Returns a network whose arrays lie in its tables: the quantizer puts those of larger ones behind them.

    What changes the ends would keep the tables alone.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(network)
    for buffer in model.buffers:
        if buffer.size:
            buffer.data = np.frombuffer(network, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    builder = flatbuffers.Builder(len(network))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
