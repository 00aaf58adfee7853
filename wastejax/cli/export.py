"""`wastejax export`: a trained model as one file that other programs run, checked against the model itself."""

import argparse
from pathlib import Path

from wastejax import machine
from wastejax.cli import SHARED, add_ray_arguments, check_written, only, options
from wastejax.deployment.export import (
    ENTRIES,
    NEEDS,
    PRECISIONS,
    SUFFIXES,
    Check,
    Comparison,
    Exported,
    Form,
    export_model,
)
from wastejax.evaluation.images import Asked
from wastejax.files import write_json
from wastejax.progress import Say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = options(parser)
    add("--taxonomy", *SHARED["--taxonomy"])
    add("--model", "MODEL", "run or bundle (default: the bundled model)")
    add("--format", None, "file format", required=True, choices=NEEDS)
    add(
        "--out", "FILE", "file to write (default: wastejax.onnx, .tflite or .stablehlo, or the folder bundle)"
    )
    add(
        "--quantize",
        None,
        "fp16 or int8 kernels, for onnx, litert and bundles; integer: int8 throughout, for litert"
        " (default: float32)",
        choices=PRECISIONS,
        default="none",
    )
    add(
        "--input",
        None,
        "uint8 pixels, or float32 images normalized by the caller (uint8)",
        choices=ENTRIES,
        default="uint8",
    )
    add(
        "--class-map",
        None,
        "add an output with the logits at each position, for predict --heatmap and --regions (default: up to"
        " 100 classes, but not for litert, because ML Kit supports only a single output)",
        action=argparse.BooleanOptionalAction,
    )
    add("--data", "DATA", "labeled images for checking and calibration, as for eval (default: the run's own)")
    add(
        "--calibrate",
        "DIR",
        "folder of images (no classes needed) to calibrate the 8-bit ranges with (default: validation images)",
    )
    add("--images", "N", "number of images to check with (200)", type=int, default=Check.count)
    add_ray_arguments(parser, "", "check the file")
    add("--report", "JSON", "also write the comparison to this file")
    add("--profile", None, "onnx: also show which operators take the time, in percent", action="store_true")


def run(args: argparse.Namespace, say: Say) -> None:
    """Exports, checks and says what came of it; where the check fails, nothing is written."""
    only(args, args.format == "onnx", "with --format=onnx", profile=False)
    only(args, args.format != "bundle", f"with --format={' or '.join(SUFFIXES)}", report=None)
    only(args, args.workers == "ray", "with --workers=ray", address=None)
    check_written(args, "report", "data", "calibrate", "out")
    asked = Asked(args.model, args.data)
    form = Form(args.format, args.quantize, args.input, args.class_map)
    how = Check(args.images, args.workers, args.address)
    written = export_model(asked, form, args.out, how, args.taxonomy, args.calibrate)
    say(f"written: {written.path}, {written.bytes / 1e6:.1f} MB")
    if written.comparison is None or written.checked_on is None:
        return
    _tell(written.comparison, written.checked_on.origin, say)
    if args.quantize == "int8" and args.format == "onnx" and not machine.multiplies_bytes():
        say(
            "this processor has no dot products of 8 bits (VNNI): here int8 makes the file smaller, not faster"
        )
    if args.format == "stablehlo":
        from wastejax.deployment.formats.stablehlo import provenance

        say("written by jax {jax}; later ones promise to run it until {expires}".format(**provenance()))
    if args.profile:
        _profile(written, args.input, say)
    if args.report:
        facts = {
            "file": written.path.name,
            "bytes": written.bytes,
            "input": args.input,
            "precision": args.quantize,
            "checked_on": written.checked_on.origin,
        }
        write_json(Path(args.report), facts | written.comparison._asdict())


def _tell(comparison: Comparison, origin: str, say: Say) -> None:
    say(
        f"checked on {comparison.images} {origin}: same class in {comparison.agreement:.1%}, "
        f"probabilities differ by at most {comparison.difference:.1g}"
    )
    if comparison.accuracy:
        say(f"{comparison.measure} " + "{:.1%} before, {:.1%} after".format(*comparison.accuracy))
    before, after = (1000 * seconds for seconds in comparison.latency)
    say(f"one image takes {before:.1f} ms before (jax), {after:.1f} ms after")


def _profile(written: Exported, entry: str, say: Say) -> None:
    from wastejax.deployment.formats.onnx import load_onnx
    from wastejax.deployment.formats.onnx_profile import profile

    assert written.checked_on is not None
    squares = written.checked_on.images[:1]
    given = squares if entry == "uint8" else load_onnx(written.path).preprocessing.normalize(squares)
    for line in profile(written.path, given):
        say(line)
