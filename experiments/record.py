"""Keeps what a finished run measured: experiments/results/NAME.json, its curves and its confusion matrix.

Command: python experiments/record.py WORKDIR NAME [--commit=SHA]
No image of a data set is copied, and no path: data folders are named by their last part.
"""

import argparse
import csv
import datetime
import json
import re
import shutil
from pathlib import Path
from typing import Any

from experiments.provenance import head, named, without_paths

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("name")
    parser.add_argument("--commit", help="what was run (default: HEAD)")
    args = parser.parse_args()
    result = measured(args.workdir, args.commit or head())
    keep(args.name, result)
    for figure in ("curves", "confusion_matrix"):
        shutil.copyfile(args.workdir / "figures" / f"{figure}.png", RESULTS / f"{args.name}_{figure}.png")
    low, high = result["test"]["ci95"]
    print(f"{args.name}: test top-1 {result['test']['top1']:.1%} ({low:.1%} to {high:.1%})")


def measured(workdir: Path, commit: str) -> dict[str, Any]:
    """Returns command, commit, date, hardware, the test's scores, config and history of a finished run.

    A folder of the measuring machine is of no use to a reader, so that each path is its last part.
    """
    report = json.loads((workdir / "report.json").read_text())
    config = json.loads((workdir / "config.json").read_text())
    facts = report.pop("facts")
    said = {key: named(facts[key]) for key in ("command", "settings") if key in facts}
    said |= {"notes": [named(note) for note in facts["notes"]]} if "notes" in facts else {}
    facts = without_paths(facts) | said
    with (workdir / "metrics.csv").open() as file:
        history = [{k: round(float(v), 5) for k, v in row.items()} for row in csv.DictReader(file)]
    finished = datetime.date.fromtimestamp((workdir / "report.json").stat().st_mtime)
    return {
        "command": facts.pop("command"),
        "commit": commit[:12],
        "date": finished.isoformat(),
        "hardware": facts.pop("hardware"),
        "facts": facts,
        "test": report,
        "config": without_paths(config),
        "history": history,
    }


def keep(name: str, result: dict[str, Any]) -> None:
    """Writes a result as experiments/results/NAME.json; a folder in NAME is made."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    # Numbers of one list on one line: the confusion matrix would otherwise fill a thousand.
    text = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda numbers: "[" + " ".join(numbers[1].split()) + "]", text)
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


if __name__ == "__main__":
    main()
