"""A trained model as one file that other programs run, checked against the model itself."""

import importlib.util
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wastejax.bundle import Bundle, default_bundle, digests, load_bundle, save_bundle
from wastejax.bundled import copy_license, model_path
from wastejax.deployment.export.checking import DTYPE, Comparison, check, compare
from wastejax.deployment.export.images import (
    Chosen,
    Sample,
    calibration_images,
    checking_images,
    chosen_images,
    has_images,
)
from wastejax.deployment.export.on_ray import compare_on_ray
from wastejax.deployment.formats import load_jax, load_predictor
from wastejax.deployment.formats.about import STRIDE, describe
from wastejax.errors import MissingPackage, UserError, nearest
from wastejax.evaluation.images import Asked
from wastejax.files import check_file, check_folder
from wastejax.runtime.ray_cluster import ray_module, reach

SUFFIXES = {"onnx": ".onnx", "stablehlo": ".stablehlo", "litert": ".tflite"}
# What writes and reads each form, and the extra of ours that brings it.
NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "onnx": (("jax2onnx", "onnx", "onnxruntime"), "export"),
    "stablehlo": (("flatbuffers",), "export"),
    "litert": (("ai_edge_litert", "litert_converter"), "litert"),
    "bundle": ((), ""),
}
PRECISIONS = ("none", "fp16", "int8", "integer")
ENTRIES = ("uint8", "float32")
QUANTIZED = {"onnx": PRECISIONS[:3], "litert": PRECISIONS, "bundle": PRECISIONS[:3]}
STORED = {"none": "float32", "fp16": "float16", "int8": "int8"}  # of a bundle's kernels
MAPPED = 100  # classes: a class map of more costs over one per cent of EfficientNetV2-B0


def forward_function(
    bundle: Bundle, entry: str, lowering: str, class_map: bool = False
) -> Callable[[Any], Any]:
    """Returns the network as a function of images [B, S, S, 3], batch normalization folded, weights inside.

    Args:
        bundle: the model; it is computed in `DTYPE` whatever it was trained in.
        entry: 'uint8', RGB bytes of a resized image, or 'float32', normalized by the caller.
        lowering: of the convolutions.
        class_map: also give the logits at every position, see `Model.dense`.

    Returns:
        images -> calibrated probabilities float32 [B, C], each a sigmoid of its own in a multi-label model; with
        `class_map` a pair of them and of the logits at every position, float32 [B, h, w, C], whose mean over
        positions is the logits, but for the factor of `models.familiarity`.
    """
    import jax

    from wastejax.models import create_model
    from wastejax.models.familiarity import COLLECTION, familiarity
    from wastejax.models.folding import apply_folded, fold_batch_norm, fold_entry
    from wastejax.models.layers.blocks import pool
    from wastejax.models.layers.plain import plain_forms

    config = {**bundle.config["model"], "lowering": lowering, "dtype": DTYPE}
    model, preprocessing = create_model(config, len(bundle.classes)), bundle.preprocessing
    variables = fold_batch_norm(model, bundle.variables, preprocessing.image_size)
    if entry == "uint8":
        variables = fold_entry(variables, preprocessing.std, preprocessing.channels == "bgr")

    def forward(inputs: Any) -> Any:
        if entry == "uint8":
            inputs = inputs.astype(np.float32)
            if any(preprocessing.mean):
                inputs -= 255 * np.asarray(preprocessing.mean, np.float32)
        with plain_forms() if lowering == "direct" else nullcontext():
            if not class_map:
                return bundle.calibrated(apply_folded(model, variables, inputs))
            features = apply_folded(model, variables, inputs, "features").astype(np.float32)
            head = variables["params"]["classifier"]
            # A convolution, which converters know how to write, in place of a dot with each position.
            layout = ("NHWC", "HWIO", "NHWC")
            kernel = head["kernel"][None, None]
            maps = jax.lax.conv_general_dilated(features, kernel, (1, 1), "VALID", dimension_numbers=layout)
            maps += head["bias"]
            logits = pool(maps)
            if COLLECTION in variables:
                logits = logits * familiarity(variables[COLLECTION], pool(features))
            return bundle.calibrated(logits), maps

    return forward


def write_export(
    bundle: Bundle,
    path: Path,
    entry: str = "uint8",
    precision: str = "none",
    calibration: Sample | None = None,
    class_map: bool | None = None,
) -> None:
    """Writes a bundle as the form that the suffix of `path` names; nothing is checked here.

    Args:
        bundle: the model.
        path: ends with one of the values of `SUFFIXES`.
        entry: see `forward_function`.
        precision: 'none' for float32; .onnx and .tflite may also have 'fp16' kernels or be 'int8' all through,
            .tflite 'integer' with its input and answer.
        calibration: images for the two latter.
        class_map: whether the file gives the logits at every position as well; None for where that costs under one
            per cent, up to `MAPPED` classes, but for .tflite: ML Kit supports classifiers with a single result.
    """
    if class_map is None:
        class_map = path.suffix != SUFFIXES["litert"] and len(bundle.classes) <= MAPPED
    size = bundle.preprocessing.image_size
    shape, text = (size, size, 3), describe(bundle, entry, precision)
    if path.suffix == SUFFIXES["stablehlo"]:
        from wastejax.deployment.formats.stablehlo import write_stablehlo

        # The form that is fast on a CPU is in the file next to the one for other devices.
        write_stablehlo(path, forward_function(bundle, entry, "auto", class_map), shape, entry, text)
        return
    if path.suffix == SUFFIXES["litert"]:
        _write_litert(bundle, path, entry, precision, calibration, class_map)
        return
    from wastejax.deployment.formats import onnx as onnx_files

    forward = forward_function(bundle, entry, "direct", class_map)
    onnx_files.write_onnx(path, forward, shape, entry, text, class_map)
    if precision == "fp16":
        onnx_files.halve(path, path, text)
    elif precision == "int8":
        assert calibration is not None
        given = calibration.images if entry == "uint8" else bundle.preprocessing.normalize(calibration.images)
        onnx_files.quantize(path, path, text, given)


def _write_litert(
    bundle: Bundle, path: Path, entry: str, precision: str, calibration: Sample | None, class_map: bool
) -> None:
    """Writes a bundle for LiteRT; see `write_export`."""
    from wastejax.deployment.formats import litert, litert_quantize

    side, text = bundle.preprocessing.image_size, describe(bundle, entry, precision)
    # Numbers alone, or the bytes could not be among what is quantized; they become bytes again.
    dtype = "float32" if precision == "integer" else entry
    forward = forward_function(bundle, entry, "direct", class_map)
    network = litert.convert(forward, (side, side, 3), dtype, text, class_map)
    if precision == "fp16":
        network = litert_quantize.halve(network)
    elif precision != "none":
        assert calibration is not None
        given = calibration.images if entry == "uint8" else bundle.preprocessing.normalize(calibration.images)
        integer = precision == "integer"
        network = litert_quantize.quantize(
            network, litert.SIGNATURE, litert.ENTRY, given.astype(dtype), integer
        )
    litert.write_litert(path, network, text, class_map and side % STRIDE == 0)


class Exported(NamedTuple):
    """What `export_model` wrote.

    Attributes:
        path: the file; the folder of a bundle.
        bytes: how large it is.
        comparison: with the model it was made from; None for a bundle.
        checked_on: the images that both answered, of those on a cluster one; None for a bundle.
    """

    path: Path
    bytes: int
    comparison: Comparison | None = None
    checked_on: Sample | None = None


@dataclass(frozen=True)
class Check:
    """How an exported model is checked.

    Attributes:
        count: images to check with, at most.
        workers: 'local', or 'ray': the images are read and answered on a cluster.
        address: of a running Ray cluster; None to start one on this machine meanwhile.
    """

    count: int = 200
    workers: str = "local"
    address: str | None = None


class Form(NamedTuple):
    """What to export a model as.

    Attributes:
        name: a key of `NEEDS`.
        precision: of the kernels, one of `PRECISIONS` that `QUANTIZED` has for the form.
        entry: 'uint8', or 'float32' for images that the caller normalizes.
        class_map: see `write_export`.
    """

    name: str
    precision: str = "none"
    entry: str = "uint8"
    class_map: bool | None = None


def export_model(
    asked: Asked,
    form: Form,
    out: str | Path | None = None,
    checked: Check = Check(),
    taxonomy: str | Path | None = None,
    calibrate: str | Path | None = None,
) -> Exported:
    """Exports a run or bundle and checks the file against it; where the check fails, nothing is written.

    Args:
        asked: the model; and class folders to check and calibrate with, None for the images of the run.
        form: what as.
        out: where to write it; None for wastejax.<suffix> or bundle.
        checked: how it is checked.
        taxonomy: see `load_taxonomy`; None for the model's.
        calibrate: a folder of images to calibrate 8 bits with; None for validation images of `asked`.

    Raises:
        UserError: no such model, a form that cannot be, a package that is missing, or a failed check.
    """
    for name, value, choices in (
        ("format", form.name, NEEDS),
        ("quantize", form.precision, PRECISIONS),
        ("input", form.entry, ENTRIES),
    ):
        if value not in choices:
            raise UserError(f"--{name}={value}: no such choice{nearest(str(value), choices)}")
    target = Path(out or (f"wastejax{SUFFIXES[form.name]}" if form.name in SUFFIXES else "bundle"))
    check_request(asked, form, target, checked, calibrate)
    bundle = load_bundle(asked.model or default_bundle(), taxonomy)
    if form.name == "bundle":
        save_bundle(target, bundle, STORED[form.precision], digests(bundle.path)[0])
        copy_license(bundle.path, target)
        return Exported(target, sum(file.stat().st_size for file in target.iterdir()))
    if (form.name, form.entry, bundle.preprocessing.channels) == ("litert", "float32", "bgr"):
        # The network's input would be BGR, and the file's metadata, which phones go by, can only say RGB.
        raise UserError(
            "--input=float32: LiteRT's metadata knows RGB only, and this model takes BGR; leave it out"
        )
    eight = form.precision in ("int8", "integer")
    calibration = calibration_images(asked, bundle, calibrate) if eight else None
    # Images first: where there are none, nothing is exported.
    sample: Sample | Chosen = (
        chosen_images(asked, bundle, "test", checked.count)
        if checked.workers == "ray"
        else checking_images(asked, bundle, "test", checked.count)
    )
    with tempfile.TemporaryDirectory(prefix=".export.", dir=target.parent) as scratch:
        fresh = Path(scratch) / f"model{target.suffix}"
        _convert(bundle, fresh, form, calibration)
        pair = (load_jax(bundle.path, DTYPE), load_predictor(fresh))
        if isinstance(sample, Chosen):
            comparison, sample = compare_on_ray(pair, bundle, fresh, sample, checked.address)
        else:
            comparison = compare(*pair, sample)
        check(comparison, form.precision, sample.origin)
        fresh.replace(target)
    return Exported(target, target.stat().st_size, comparison, sample)


def check_request(
    asked: Asked, form: Form, out: Path, checked: Check = Check(), calibrate: str | Path | None = None
) -> None:
    """Raises a UserError where what is asked for cannot be written, before anything is loaded."""
    precision, (packages, extra) = form.precision, NEEDS[form.name]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            if package == "litert_converter":  # it asks for versions that other extras cannot have
                raise MissingPackage(f"--format={form.name}", "litert-converter", None, alone=True)
            raise MissingPackage(f"--format={form.name}", package, extra)
    able = QUANTIZED.get(form.name, ("none",))
    if precision not in able:
        forms = ", ".join(name for name, known in QUANTIZED.items() if precision in known)
        raise UserError(f"--quantize={precision}: only for --format={forms}")
    if form.name == "bundle":
        _check_ignored(asked, form, checked, calibrate)
        _check_bundle(asked, out)
        return
    if (
        form.name == "litert"
        and precision != "none"
        and importlib.util.find_spec("ai_edge_quantizer") is None
    ):
        raise MissingPackage(f"--format=litert --quantize={precision}", "ai-edge-quantizer", "litert")
    if precision == "integer" and form.entry != "uint8":
        raise UserError(f"--quantize=integer: takes bytes, not --input={form.entry}")
    if calibrate is not None and precision not in ("int8", "integer"):
        raise UserError(f"--calibrate={calibrate}: only with --quantize=int8 or integer")
    if calibrate is not None and not Path(calibrate).is_dir():
        raise UserError(f"--calibrate={calibrate}: is no folder")
    if precision in ("int8", "integer") and calibrate is None and not has_images(asked):
        raise UserError(
            f"--quantize={precision}: the ranges of 8 bits are taken from images like yours: give --calibrate=DIR,"
            " or --data=DIR, class folders (a run finds its own); --quantize=fp16 needs none"
        )
    if checked.count < 1:
        raise UserError(f"--images: must be >= 1, is {checked.count}")
    if checked.workers == "ray":
        if not has_images(asked):
            raise UserError("--workers=ray: there are no images to check with; give --data=DIR")
        ray_module()
        reach(checked.address)
    suffix = SUFFIXES[form.name]
    if out.suffix != suffix:
        raise UserError(f"--out={out}: must end with {suffix}")
    check_file(out, "--out")


def _check_ignored(asked: Asked, form: Form, checked: Check, calibrate: str | Path | None) -> None:
    """Raises a UserError for what a bundle would ignore: it is what the model is, and nothing checks it."""
    files = " or ".join(SUFFIXES)
    for name, given in {
        "input": form.entry != "uint8",
        "class-map": form.class_map is not None,
        "images": checked.count != Check.count,
        "data": asked.data is not None,
        "calibrate": calibrate is not None,
        "workers": checked.workers != "local",
    }.items():
        if given:
            raise UserError(f"--{name}: only with --format={files}; leave it out")


def _check_bundle(asked: Asked, out: Path) -> None:
    """Raises a UserError where a folder is not for a new bundle: only an export of the same model is replaced.

    It is known by the digest of the model's weights in its bundle.json. The copy of a bundle, one from `adapt` and
    an export that was calibrated since have none: they may be all that there is of a model.
    """
    check_folder(out, "--out")
    if out.is_dir() and any(out.iterdir()) and not (out / "bundle.json").is_file():
        raise UserError(f"--out={out}: is a folder of other files; name a new one")
    model = model_path(asked.model)
    if out.resolve() in (model.resolve(), (model / "bundle").resolve()):
        raise UserError(f"--out={out}: is the model itself; name a new folder")
    if out.resolve().name == "bundle" and (out.resolve().parent / "config.json").is_file():
        raise UserError(f"--out={out}: is the model of a run; name a new folder")
    if (out / "bundle.json").is_file():
        own, _ = digests(load_bundle(asked.model or default_bundle()).path)
        if digests(out)[1] != own:
            raise UserError(
                f"--out={out}: holds a model that is no export of this one; name a new folder, or remove it first"
            )


def _convert(bundle: Bundle, path: Path, form: Form, calibration: Sample | None) -> None:
    """Writes the export; whatever a converter raises is one line for the user."""
    try:
        write_export(bundle, path, form.entry, form.precision, calibration, form.class_map)
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        name = bundle.config["model"]["name"]
        raise UserError(f"--format={form.name}: {name} cannot be written so: {reason}") from error
