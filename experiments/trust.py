"""Keeps how far a run's answers can be trusted: experiments/results/NAME.json.

Command: python experiments/trust.py WORKDIR NAME [--ood=DIR …]
Calibrates the run's bundle on its validation images, then scores it on its test images, once more for each
folder of out-of-distribution images. Data folders are named by their last part.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments.provenance import provenance
from wastejax.bundle import load_bundle
from wastejax.data.pipeline import EvalBatches
from wastejax.evaluation.evaluate import evaluate
from wastejax.evaluation.images import Asked, asked_images, readable
from wastejax.files import write_json

RESULTS = Path(__file__).resolve().parent / "results"
BEFORE = ("num_images", "top1", "ci95", "bin_top1", "bin_ci95", "loss", "ece")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("name")
    parser.add_argument("--ood", type=Path, action="append", default=[], metavar="DIR")
    args = parser.parse_args()
    first, *others = [
        scores_of(args.workdir, *([f"--ood={folder}"] if folder else ["--calibrate"]))
        for folder in (None, *args.ood)
    ]
    foreign = [first["ood"]] if "ood" in first else []
    write_json(
        RESULTS / f"{args.name}.json",
        {
            **provenance(
                f"python experiments/trust.py {args.workdir.name} {args.name}"
                + "".join(f" --ood={folder.name}" for folder in args.ood)
            ),
            "before": before(args.workdir),
            "calibration": first["calibration"],
            "selective": first["selective"],
            "ood": foreign + [scores["ood"] for scores in others],
        },
    )


def before(workdir: Path) -> dict[str, Any]:
    """Returns what the run scores on its test images by probabilities without the temperature.

    `wastejax eval` gives bins by those with it, as `predict` adds them up.
    """
    bundle, asked = load_bundle(workdir), Asked(workdir)
    source, indices = asked_images(asked, bundle.config)
    indices = readable(source, indices, asked, bundle, print)
    config = bundle.config["eval"]
    batches = EvalBatches(source, indices, bundle.preprocessing, config["batch_size"])
    result = evaluate(
        bundle.logits, batches, source, bundle.classes, indices, bundle.bins, config["bootstrap"]
    )
    return {key: result.scores[key] for key in BEFORE}


def scores_of(workdir: Path, *options: str) -> dict[str, Any]:
    """Returns what `wastejax eval` writes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scores.json"
        command = [
            sys.executable,
            "-m",
            "wastejax.main",
            "eval",
            f"--model={workdir}",
            f"--out={out}",
            *options,
        ]
        subprocess.run(command, check=True)
        return json.loads(out.read_text())


if __name__ == "__main__":
    main()
