"""Does every form of a model give the same answers? experiments/results/agreement.json and agreement.md.

Command: python experiments/agreement.py [RUN...] [--keep=DIR]
RUN is a finished run whose images are still where it found them. Each form is exported, then all of them see the
same 200 images of the test split, as bytes after preprocessing, and are timed on one image in turn, round by
round. The forms with fewer bits see the whole test split too. Wants a quiet machine, for the times alone.

The browser is measured by experiments/browser.py; what it left in browser.json, {run: row}, comes into the table.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.provenance import provenance
from wastejax.bundle import Bundle, load_bundle, save_bundle
from wastejax.deployment.export import write_export
from wastejax.deployment.export.images import CALIBRATION_IMAGES, Sample, checking_images
from wastejax.deployment.formats import load_jax
from wastejax.deployment.formats.litert import load_litert
from wastejax.deployment.formats.onnx import load_onnx, load_openvino
from wastejax.deployment.formats.stablehlo import load_stablehlo
from wastejax.deployment.predictor import Predictor
from wastejax.evaluation.images import Asked
from wastejax.evaluation.metrics import bootstrap_interval
from wastejax.evaluation.report.markdown import percent, table
from wastejax.files import write_json, write_text
from wastejax.runtime.process import has_huge_pages

RESULTS = Path(__file__).resolve().parent / "results"
BROWSER = RESULTS / "browser.json"
IMAGES, ROUNDS, BATCH = 200, 40, 8
WHOLE_SPLIT = 1_000_000
PACKAGES = ("jax", "onnxruntime", "openvino", "ai-edge-litert", "jax2onnx", "litert-converter")


class Form(NamedTuple):
    """A model in one of its forms: its file, what exports it there (None: it is there), and what runs it."""

    file: str
    precision: str
    load: Callable[[Path], Predictor]


FORMS = {
    "JAX, bundle": Form("", "none", load_jax),
    "JAX, bundle in half precision": Form("half", "fp16", load_jax),
    "StableHLO": Form("model.stablehlo", "none", load_stablehlo),
    "ONNX Runtime": Form("model.onnx", "none", load_onnx),
    "OpenVINO": Form("model.onnx", "none", load_openvino),
    "LiteRT": Form("model.tflite", "none", load_litert),
    "ONNX Runtime, kernels in fp16": Form("fp16.onnx", "fp16", load_onnx),
    "ONNX Runtime, int8": Form("int8.onnx", "int8", load_onnx),
    "OpenVINO, int8": Form("int8.onnx", "int8", load_openvino),
}
REFERENCE = "JAX, bundle"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="none: only write the table anew")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="leave the files there, a folder for each run"
    )
    args = parser.parse_args()
    path = RESULTS / "agreement.json"
    result = json.loads(path.read_text()) if path.is_file() else {}
    for run in args.runs:
        with tempfile.TemporaryDirectory() as scratch:
            folder = args.keep / run.name if args.keep else Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            result[run.name] = about(run) | measure(run, folder)
        write_json(path, result)
    write_text(RESULTS / "agreement.md", "\n".join(report(result)) + "\n")


def about(run: Path) -> dict[str, Any]:
    """Returns how and where it was measured."""
    return {
        **provenance(f"python experiments/agreement.py {run.name}"),
        "huge_pages": has_huge_pages(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def measure(run: Path, folder: Path) -> dict[str, Any]:
    """Exports a run in all forms to a folder and compares them."""
    bundle = load_bundle(run)
    asked = Asked(run)
    export(bundle, folder, checking_images(asked, bundle, "val", CALIBRATION_IMAGES))
    whole = checking_images(asked, bundle, "test", WHOLE_SPLIT)
    assert whole.labels is not None
    few = Sample(whole.images[:IMAGES], whole.labels[:IMAGES], whole.origin)
    loaded = {
        name: form.load(folder / form.file if form.file else bundle.path) for name, form in FORMS.items()
    }
    times = latencies(loaded, few.images)
    rows, answers = {}, {}
    for name, predictor in loaded.items():
        reduced = name == REFERENCE or FORMS[name].precision != "none"
        answers[name] = probabilities(predictor, whole.images if reduced else few.images)
        rows[name] = {
            "bytes": size(folder / FORMS[name].file if FORMS[name].file else bundle.path),
            "ms_p50": round(1000 * float(np.median(times[name])), 2),
            "ms_p90": round(1000 * float(np.quantile(times[name], 0.9)), 2),
        } | compare(answers[REFERENCE][:IMAGES], answers[name][:IMAGES], few.labels)
        if reduced:
            rows[name]["whole_split"] = compare(answers[REFERENCE], answers[name], whole.labels)
        print(name, rows[name], flush=True)
    return {
        "network": {key: value for key, value in bundle.config["model"].items() if value is not None},
        "image_size": bundle.preprocessing.image_size,
        "classes": len(bundle.classes),
        "threads": os.cpu_count(),
        "rounds": ROUNDS,
        "forms": rows,
    }


def export(bundle: Bundle, folder: Path, calibration: Sample) -> None:
    """Writes every form."""
    for form in dict.fromkeys(FORMS.values()):
        path = folder / form.file
        if path.suffix and form.file:
            write_export(bundle, path, "uint8", form.precision, calibration)
    save_bundle(folder / "half", bundle, "float16")


def probabilities(predictor: Predictor, squares: np.ndarray) -> np.ndarray:
    """Returns float32 [N, C]; the last batch is filled up, so that one program does."""
    filled = np.concatenate([squares, squares[: -len(squares) % BATCH]])
    rows = [predictor.probabilities(filled[i : i + BATCH]) for i in range(0, len(filled), BATCH)]
    return np.concatenate(rows)[: len(squares)]


def compare(reference: np.ndarray, rows: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    """Returns how far two forms agree on the same images, and how often the second is right."""
    correct = rows.argmax(1) == labels
    return {
        "pictures": len(rows),
        "agreement": float((rows.argmax(1) == reference.argmax(1)).mean()),
        "largest_difference": float(np.abs(rows - reference).max()),
        "top1": float(correct.mean()),
        "ci95": list(bootstrap_interval(correct)),
    }


def latencies(loaded: dict[str, Predictor], squares: np.ndarray) -> dict[str, list[float]]:
    """Returns seconds for one image, `ROUNDS` of each form, the forms in turn."""
    for predictor in loaded.values():
        predictor.probabilities(squares[:1])
    seconds: dict[str, list[float]] = {name: [] for name in loaded}
    for i in range(ROUNDS):
        image = squares[i % len(squares)][None]
        for name, predictor in loaded.items():
            predictor.probabilities(image)  # brings its own weights back into the caches
            start = time.perf_counter()
            predictor.probabilities(image)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def size(path: Path) -> int:
    """Returns the bytes of a file, or of all files of a folder."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.iterdir())


def report(result: dict[str, Any]) -> list[str]:
    """Returns agreement.md."""
    browser = json.loads(BROWSER.read_text()) if BROWSER.is_file() else {}
    lines = ["# The same model in every form", ""]
    for name, of_run in result.items():
        forms = of_run["forms"] | ({"Browser": browser[name]} if name in browser else {})
        network = of_run["network"]
        title = f"{name}: {network['name']} {network['size']}"
        lines += [
            f"## {title}, {of_run['image_size']} px, {of_run['classes']} classes",
            "",
            f"{of_run['hardware']}, {of_run['date']}, commit {of_run['commit']}. One image at a time, median of "
            f"{of_run['rounds']} interleaved rounds; interval: 95 % bootstrap.",
            "",
            *table(
                ("form", "pictures", "same class", "largest difference", "top-1", "MB", "ms"), _rows(forms)
            ),
            "",
        ]
        whole = {
            form: row["whole_split"] | {"bytes": 0} for form, row in forms.items() if "whole_split" in row
        }
        lines += ["The whole test split:", ""]
        lines += [
            *table(("form", "pictures", "same class", "largest difference", "top-1"), _rows(whole, 5)),
            "",
        ]
    return lines[:-1]


def _rows(forms: dict[str, Any], columns: int = 7) -> list[list[str]]:
    return [
        [
            form,
            f"{row['pictures']:,}",
            percent(row["agreement"]),
            f"{row['largest_difference']:.1g}",
            f"{percent(row['top1'])} ({percent(row['ci95'][0])} to {percent(row['ci95'][1])})",
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['ms_p50']:.1f}" if "ms_p50" in row else "",
        ][:columns]
        for form, row in forms.items()
    ]


if __name__ == "__main__":
    main()
