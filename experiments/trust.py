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

from experiments.provenance import provenance
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
        evaluate(args.workdir, *([f"--ood={folder}"] if folder else ["--calibrate"]))
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
            "before": {key: first[key] for key in BEFORE},
            "calibration": first["calibration"],
            "selective": first["selective"],
            "ood": foreign + [scores["ood"] for scores in others],
        },
    )


def evaluate(workdir: Path, *options: str) -> dict:
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
