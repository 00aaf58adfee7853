"""A network as a LiteRT (TensorFlow Lite) file, made from StableHLO without TensorFlow."""

import io
import json
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wastejax import machine
from wastejax.data.taxonomy import LANGUAGES, Item, parse_taxonomy
from wastejax.deployment.formats import litert_metadata
from wastejax.deployment.formats.about import ANY_SIDE, check_fit, damaged, exported, parse_about
from wastejax.deployment.formats.litert_metadata import CLASS_MAP, DISPLAY_FILE, ENTRY, LABELS_FILE, RESULT
from wastejax.deployment.formats.litert_sides import takes_any_side
from wastejax.deployment.formats.stablehlo import ABOUT_FILE
from wastejax.deployment.predictor import Predictor
from wastejax.errors import imported
from wastejax.files import write_bytes

SIGNATURE = "serving_default"  # where TensorFlow Lite's own tools look for the function


def write_litert(path: Path, network: bytes, about: str, any_side: bool = False) -> None:
    """Writes a network that `convert` made, with what it says of itself in a zip at its end.

    That is where TensorFlow Lite metadata keeps associated files; the interpreter skips it.

    Args:
        path: the file.
        network: as LiteRT runs it.
        about: what the file says of itself, JSON.
        any_side: say that it takes images of other sides, where its operators do not depend on them.
    """
    if any_side:
        about = json.dumps(json.loads(about) | {ANY_SIDE: takes_any_side(network)}, ensure_ascii=False)
    write_bytes(path, with_files(network, about))


def convert(forward: Any, shape: tuple[int, ...], dtype: str, about: str, class_map: bool = False) -> bytes:
    """Returns a function of images as LiteRT runs it, for one image at a time, its metadata inside.

    The form has no symbolic batch here: shapes inside the graph are fixed when it is converted. See
    `onnx.write_onnx` for the arguments.
    """
    import jax
    from litert_converter import converter_api_ext as converter
    from litert_converter.mlir import ir, passmanager

    from wastejax.models.layers.plain import composites

    entry = jax.ShapeDtypeStruct((1, *shape), np.dtype(dtype))
    program = io.BytesIO()
    with composites():
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
        text = ir.StringAttr.get(litert_metadata.encode(json.loads(about), class_map))
        module.operation.attributes["tfl.metadata"] = ir.DictAttr.get({litert_metadata.NAME: text})
        return bytes(converter.export_flatbuffer_to_bytes(module.operation))


def with_files(network: bytes, about: str) -> bytes:
    """Returns a model with the files that its metadata names, and what it says of itself, in a zip at its end.

    Stored, not compressed, for MediaPipe reads them where they are; dated the same, so that the same model is the
    same file.
    """
    told = json.loads(about)
    taxonomy = parse_taxonomy(told["taxonomy"], "the model", "taxonomy")
    files = {ABOUT_FILE: about, LABELS_FILE: "".join(f"{name}\n" for name in told["classes"])}
    for code in LANGUAGES:
        items = [
            taxonomy.find(name) or Item({"en": name.replace("_", " ")}, "", ()) for name in told["classes"]
        ]
        files[DISPLAY_FILE.format(code)] = "".join(f"{item.in_all_languages()[code]}\n" for item in items)
    end = io.BytesIO(network)
    with zipfile.ZipFile(end, "a") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return end.getvalue()


def load_litert(path: Path, threads: int | None = None) -> Predictor:
    """Returns a .tflite file that `export` wrote, computed by LiteRT on the CPU, one image after the other."""
    litert = imported("ai_edge_litert.interpreter", str(path), "ai-edge-litert")
    try:
        with zipfile.ZipFile(path) as archive:  # at the end of the file
            about = parse_about(path, archive.read(ABOUT_FILE))
        interpreter = litert.Interpreter(model_path=str(path), num_threads=threads or machine.cores())
        interpreter.allocate_tensors()
    except (zipfile.BadZipFile, KeyError, OSError, ValueError, RuntimeError) as error:
        raise damaged(path, "LiteRT", error) from None
    (entry,), results = interpreter.get_input_details(), interpreter.get_output_details()
    # The class map has more axes than the probabilities.
    results.sort(key=lambda result: len(result["shape"]))
    shape, dtype = entry["shape"].tolist(), np.dtype(entry["dtype"])
    check_fit(path, about, shape, dtype, results[0]["shape"])
    alone = threading.Lock()

    def answer(image: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(entry["index"], np.ascontiguousarray(image[None]))
        interpreter.invoke()
        return [_as_float(interpreter.get_tensor(result["index"])[0], result) for result in results]

    def compute(images: np.ndarray) -> list[np.ndarray]:
        with alone:
            # A class map may have left it at other sides.
            if tuple(images.shape[1:]) != tuple(interpreter.get_input_details()[0]["shape"][1:]):
                interpreter.resize_tensor_input(entry["index"], (1, *images.shape[1:]))
                interpreter.allocate_tensors()
            return [np.stack(rows) for rows in zip(*map(answer, images), strict=True)]

    return exported(path, "litert", about, compute, len(results), bool(about.get(ANY_SIDE)))


def _as_float(values: np.ndarray, described: Mapping[str, Any]) -> np.ndarray:
    """Returns what LiteRT describes as 8 bits as the numbers that they stand for."""
    scale, zero = described["quantization"]
    return values if values.dtype == np.float32 else (values.astype(np.float32) - zero) * np.float32(scale)
