"""A network as a LiteRT (TensorFlow Lite) file, made from StableHLO without TensorFlow."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.deployment.formats.litert_sides import takes_any_side
from wastejax.deployment.formats.stablehlo import ABOUT_FILE
from wastejax.deployment.predictor import ANY_SIDE, STRIDE
from wastejax.files import write_bytes

ENTRY, RESULT, CLASS_MAP = "images", "probabilities", "class_map"
LABELS_FILE = "labels.txt"  # where TensorFlow Lite's own tools look for class names
SIGNATURE = "serving_default"  # likewise


def write_litert(
    path: Path,
    forward: Any,
    shape: tuple[int, ...],
    dtype: str,
    about: str,
    classes: tuple[str, ...],
    class_map: bool = False,
) -> None:
    """Writes a function of images for one image at a time; see `onnx.write_onnx` for the other arguments.

    The form has no symbolic batch here: shapes inside the graph are fixed when it is converted. What the file says
    of itself is in a zip at its end, as TensorFlow Lite metadata keeps associated files; the interpreter skips it.

    Args:
        path: the file.
        forward: jax function of images [1, S, S, 3].
        shape: (S, S, 3).
        dtype: of the images, 'uint8' or 'float32'.
        about: what the file says of itself, JSON.
        classes: names in the order of the probabilities.
        class_map: see `onnx.write_onnx`.
    """
    import jax
    from litert_converter import converter_api_ext as converter
    from litert_converter.mlir import ir, passmanager

    entry = jax.ShapeDtypeStruct((1, *shape), np.dtype(dtype))
    program = io.BytesIO()
    lowered: Any = jax.jit(forward).lower(entry).compiler_ir("stablehlo")
    lowered.operation.write_bytecode(program)
    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context, ir.Location.unknown(context):
        module = ir.Module.parse(program.getvalue(), context)
        results = [RESULT, CLASS_MAP] if class_map else [RESULT]
        converter.set_signature(module.operation, SIGNATURE, [ENTRY], results)
        converter.run_convert_to_tfl_passes(
            module, passmanager.PassManager("builtin.module"), converter.ConvertToTFLConfig()
        )
        network = converter.export_flatbuffer_to_bytes(module.operation)
    if class_map:
        any_side = shape[0] % STRIDE == 0 and takes_any_side(network)
        about = json.dumps(json.loads(about) | {ANY_SIDE: any_side}, ensure_ascii=False)
    end = io.BytesIO(network)
    with zipfile.ZipFile(end, "a") as archive:
        archive.writestr(ABOUT_FILE, about)
        archive.writestr(LABELS_FILE, "".join(f"{name}\n" for name in classes))
    write_bytes(path, end.getvalue())
