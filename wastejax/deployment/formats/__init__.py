"""The forms that a trained model comes in, each written and read in a module of its own; here any is loaded.

Imports nothing but NumPy and Pillow by itself; each form brings in its own runtime when it is loaded, so that an
ONNX file answers on a machine that has no jax.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from wastejax.bundle import default_bundle, load_bundle
from wastejax.bundled import model_path
from wastejax.data.taxonomy import load_taxonomy
from wastejax.deployment.formats.litert import load_litert
from wastejax.deployment.formats.onnx import load_onnx, load_openvino
from wastejax.deployment.formats.stablehlo import load_stablehlo
from wastejax.deployment.predictor import Predictor, named_from, softmax
from wastejax.errors import MissingPackage, UserError, nearest
from wastejax.evaluation.metrics.multilabel import sigmoid
from wastejax.machine import cores

LOADERS: dict[str, Callable[[Path, int | None], Predictor]] = {
    ".onnx": load_onnx,
    ".stablehlo": load_stablehlo,
    ".tflite": load_litert,
}
ONNX_LOADERS: dict[str, Callable[[Path, int | None], Predictor]] = {
    "onnxruntime": load_onnx,
    "openvino": load_openvino,
}


def load_predictor(
    model: str | Path | None,
    runtime: str | None = None,
    taxonomy: str | Path | None = None,
    threads: int | None = None,
) -> Predictor:
    """Returns the model at a path; None is the bundled one.

    Args:
        model: a run, a bundle, or a file that `export` wrote.
        runtime: what computes an .onnx file, a key of `ONNX_LOADERS`; None for the first.
        taxonomy: whose rules its answers follow, see `load_taxonomy`; None for those that the model was made with.
        threads: that an exported file computes with; None for the processor cores that this process may use.

    Raises:
        UserError: there is none, it is damaged or not ours, or its runtime is not installed.
    """
    if taxonomy is not None:
        rules = load_taxonomy(taxonomy, "--taxonomy")
        predictor = load_predictor(model, runtime, threads=threads)
        return replace(predictor, taxonomy=rules.only(predictor.classes))
    path = default_bundle() if model is None else model_path(model)
    if threads is not None:
        if not path.is_file() or path.suffix == ".stablehlo":
            raise UserError(f"--threads={threads}: only for an .onnx or .tflite file; --model={path} is none")
        if not 1 <= threads <= cores():
            raise UserError(f"--threads={threads}: must be >= 1 and <= {cores()}, the cores it may use")
    if runtime is not None:
        if not path.is_file() or path.suffix != ".onnx":
            raise UserError(f"--runtime={runtime}: only for an .onnx file; --model={path} is none")
        return ONNX_LOADERS[runtime](path, threads)
    if path.is_file():
        if path.suffix not in LOADERS:
            raise UserError(f"{path}: not a form of model that can be run{nearest(path.suffix, LOADERS)}")
        return LOADERS[path.suffix](path, threads)
    return load_jax(path)


def load_jax(path: Path, dtype: str | None = None) -> Predictor:
    """Returns a run or bundle, computed by jax as it was when it was evaluated, or in another `model.dtype`."""
    if importlib.util.find_spec("jax") is None:
        advice = "; an exported file needs less: --model=FILE.onnx"
        raise MissingPackage(f"{path}, a run or bundle,", "jax", advice=advice)
    bundle = load_bundle(path)
    if dtype is not None:
        network = bundle.config.get("model", {}) | {"dtype": dtype}
        bundle = replace(bundle, config=bundle.config | {"model": network})
    forward = bundle.logits  # also where its network and its weights are not of each other, that is told here

    def probabilities(images: np.ndarray) -> np.ndarray:
        logits = np.asarray(forward(images))
        return sigmoid(logits) if bundle.multilabel else softmax(logits, bundle.temperature)

    return Predictor(
        bundle.path,
        "jax",
        bundle.classes,
        bundle.preprocessing,
        bundle.taxonomy,
        probabilities,
        bundle.thresholds,
        bundle.dense,
        True,
        named_from(bundle.class_thresholds, bundle.classes) if bundle.multilabel else None,
    )
