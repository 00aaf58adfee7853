"""One model in fewer bits: agreement, accuracy, size and time. experiments/results/fewer_bits.json and .md.

    python experiments/fewer_bits.py write FILES --data=DIR [--model=MODEL]     # the forms, calibrated with DIR
    python experiments/fewer_bits.py measure FILES --data=DIR                   # all of them, interleaved

DIR holds class folders. 96 of its images calibrate, 200 others are answered; which of them the model learned from
is not asked, so what counts is the difference between forms. Files that are there already are kept.
"""

import argparse
import datetime
import os
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from wastejax import machine
from wastejax.bundle import default_bundle, load_bundle
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.export import write_export
from wastejax.deployment.export.images import Sample
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.images import find, read
from wastejax.evaluation.report.markdown import percent, table
from wastejax.files import write_json, write_text

RESULTS = Path(__file__).resolve().parent / "results"
CALIBRATING, ANSWERED, ROUNDS = 96, 200, 40
FORMS = {
    "ONNX": ("model.onnx", "none"),
    "ONNX, kernels in float16": ("fp16.onnx", "fp16"),
    "ONNX, int8": ("int8.onnx", "int8"),
    "LiteRT": ("model.tflite", "none"),
    "LiteRT, kernels in float16": ("fp16.tflite", "fp16"),
    "LiteRT, int8": ("int8.tflite", "int8"),
    "LiteRT, integer": ("integer.tflite", "integer"),
}


def squares(data: Path, preprocessing: Preprocessing, start: int, count: int) -> tuple[np.ndarray, list[str]]:
    """Returns images of a folder, the same ones each time, and the folders that they are in."""
    names = find([str(data)], lambda _: None)
    chosen = [names[i] for i in np.random.default_rng(17).permutation(len(names))[start : start + count]]
    rows = np.stack([preprocessing(read(name)) for name in chosen])
    return rows, [Path(name).relative_to(data).parts[0] for name in chosen]


def write(folder: Path, data: Path, model: Path) -> None:
    """Writes the forms that are not there yet."""
    bundle = load_bundle(model)
    folder.mkdir(parents=True, exist_ok=True)
    images, _ = squares(data, bundle.preprocessing, ANSWERED, CALIBRATING)
    calibration = Sample(images, None, str(data))
    for name, precision in FORMS.values():
        if not (folder / name).is_file():
            fresh = folder / f"new.{name}"
            write_export(bundle, fresh, "uint8", precision, calibration)
            fresh.replace(folder / name)
            print(f"written: {name}", flush=True)


def measure(folder: Path, data: Path) -> dict[str, Any]:
    """Returns what each form answers, and how long it takes, on one thread."""
    forms = {
        form: load_predictor(folder / name, threads=1)
        for form, (name, _) in FORMS.items()
        if (folder / name).is_file()
    }
    reference = next(iter(forms))
    images, folders = squares(data, forms[reference].preprocessing, 0, ANSWERED)
    right = np.array([forms[reference].classes.index(name) for name in folders])
    answers = {
        form: np.concatenate([predictor.probabilities(image[None]) for image in images])
        for form, predictor in forms.items()
    }
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    for i in range(ROUNDS):
        for form, predictor in forms.items():
            start = time.perf_counter()
            predictor.probabilities(images[i][None])
            seconds[form].append(time.perf_counter() - start)
    rows = {}
    for form in forms:
        # Files of the same runtime, so that the ratio is that of the bits.
        base = form.partition(",")[0]
        rows[form] = {
            "bytes": (folder / FORMS[form][0]).stat().st_size,
            "agreement": float((answers[form].argmax(1) == answers[reference].argmax(1)).mean()),
            "largest_difference": float(np.abs(answers[form] - answers[reference]).max()),
            "top1": float((answers[form].argmax(1) == right).mean()),
            "least_ms": round(1000 * min(seconds[form]), 2),
            "ratio_of_least": round(min(seconds[form]) / min(seconds[base]), 3),
            "ratio_of_medians": round(float(np.median(seconds[form]) / np.median(seconds[base])), 3),
        }
        print(form, rows[form], flush=True)
    commit = subprocess.check_output(
        ["git", "rev-parse", "--short=12", "HEAD"], text=True, cwd=RESULTS
    ).strip()
    return {
        "command": "python experiments/fewer_bits.py measure FILES --data=household_waste",
        "commit": commit,
        "date": datetime.date.today().isoformat(),
        "hardware": machine.processor(),
        "instructions": sorted(machine.instructions() & {"avx2", "avx512f", *machine.BYTE_PRODUCTS}),
        "load": round(os.getloadavg()[0], 1),
        "versions": {name: version(name) for name in ("onnxruntime", "ai-edge-litert", "ai-edge-quantizer")},
        "images": ANSWERED,
        "calibrated_with": CALIBRATING,
        "forms": rows,
    }


def report(result: dict[str, Any]) -> str:
    """Returns the page of a measurement."""
    head = [
        "form",
        "MB",
        "same class",
        "largest difference",
        "top-1",
        "ms, least",
        "of float32's time: least",
    ]
    rows = [
        [
            form,
            f"{row['bytes'] / 1e6:.1f}",
            percent(row["agreement"]),
            f"{row['largest_difference']:.1g}",
            percent(row["top1"]),
            f"{row['least_ms']:.1f}",
            f"{row['ratio_of_least']:.2f} (medians: {row['ratio_of_medians']:.2f})",
        ]
        for form, row in result["forms"].items()
    ]
    multiplies = bool(machine.BYTE_PRODUCTS & set(result["instructions"]))
    known, versions = ", ".join(result["instructions"]), result["versions"]
    lines = "\n".join(table(head, rows))
    return f"""# One model in fewer bits

`{result["command"]}`, commit {result["commit"]}, {result["date"]}; {result["hardware"]} ({known}), one thread;
{", ".join(f"{name} {number}" for name, number in versions.items())}. Calibrated with {result["calibrated_with"]}
images, {result["images"]} others answered, most of which the bundled model learned from: the difference is what
counts. The machine was shared: load {result["load"]} on two cores; forms take turns.

{lines}

8 bits gain most on a processor that multiplies bytes (VNNI){"" if multiplies else ", which this one does not"}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("write", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=default_bundle())
    args = parser.parse_args()
    if args.what == "write":
        write(args.folder, args.data, args.model)
        return
    result = measure(args.folder, args.data)
    write_json(RESULTS / "fewer_bits.json", result)
    write_text(RESULTS / "fewer_bits.md", report(result))


if __name__ == "__main__":
    main()
