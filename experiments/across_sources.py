"""Which of the study's designs carries over better: trained on household_waste, scored on all other sources.

Command: python experiments/across_sources.py --data=DIR --data2=DIR2 --state=STATE [--score]
MobileViT against inverted residuals in place of attention, and SE against ECA in EfficientNetV2, trained from
random weights as in the ablations on household_waste (64 px, 15 epochs), under three seeds: the first of all before
the second of any. What is done is skipped and what was stopped goes on; --score trains nothing and scores what is
finished. Writes results/across_sources.json and .md.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.ablations import flags
from experiments.provenance import provenance
from wastejax.evaluation.images import Asked
from wastejax.evaluation.report.markdown import percent, table
from wastejax.evaluation.run import evaluate_labels
from wastejax.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
RUNS = {
    "mobilevit_techniques": "MobileViT",
    "ir_basic": "inverted residuals",
    "efficientnet_augmented": "EfficientNetV2, SE",
    "efficientnet_eca": "EfficientNetV2, ECA",
}
PAIRS = (("mobilevit_techniques", "ir_basic"), ("efficientnet_augmented", "efficientnet_eca"))
SEEDS = (17, 18, 19)
OTHERS = ("trashnet", "garbage_v2", "cardstdani", "aquatrash_crops", "clothing_small")


def main() -> None:
    """Trains, scores and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "data2", "state"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--score", action="store_true", help="train nothing, score what is finished")
    args = parser.parse_args()
    labels = label_map(args.data2, args.state)
    kept = RESULTS / "across_sources.json"
    result: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {"rows": []}
    for seed in SEEDS:
        for name in RUNS:
            run = args.state / f"{name}_{seed}"
            if not args.score:
                train(name, seed, args.data, run)
            done = any((row["run"], row["seed"]) == (name, seed) for row in result["rows"])
            if (run / "report.json").is_file() and not done:
                result["rows"].append(scored(name, seed, run, args, labels))
                write_json(kept, result)
    write_text(RESULTS / "across_sources.md", "\n".join(page(result)) + "\n")


def train(name: str, seed: int, data: Path, run: Path) -> None:
    """Trains a run, or goes on with it."""
    if not (run / "report.json").is_file():
        given = flags(name, seed, "household_waste")
        command = [sys.executable, "-m", "wastejax.main", *given]
        command += [f"--config.data.dir={data / 'household_waste'}", f"--workdir={run}"]
        subprocess.run(command, check=True, cwd=ROOT)


def label_map(data2: Path, state: Path) -> Path:
    """Writes what labels mean, also TrashNet's, which are those of garbage_v2, and returns the file."""
    with (data2 / "label_map.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows += [row | {"source": "trashnet"} for row in rows if row["source"] == "garbage_v2"]
    path = state / "label_map.csv"
    state.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def scored(name: str, seed: int, run: Path, args: argparse.Namespace, labels: Path) -> dict[str, Any]:
    """Returns what a run scores on every source, with what it was trained by."""
    report = json.loads((run / "report.json").read_text())
    row: dict[str, Any] = {"run": name, "seed": seed, "household": report["top1"], "ci95": report["ci95"]}
    row["sources"] = {}
    for source in OTHERS:
        folder = (args.data if source == "trashnet" else args.data2) / source
        found = evaluate_labels(Asked(run, folder, skip_bad=True), labels)[source]
        row["sources"][source] = {key: found[key] for key in ("num_images", "right", "right_ci95")}
        row["sources"][source] |= {key: found[key] for key in ("right_material", "right_material_ci95")}
    row["mean"] = float(np.mean([of["right"] for of in row["sources"].values()]))
    print(name, seed, row["household"], row["mean"], flush=True)
    command = "python experiments/across_sources.py --data=data --data2=data2 --state=STATE"
    return row | provenance(command) | {"trained": report["facts"].get("command")}


def page(result: dict[str, Any]) -> list[str]:
    """Returns the lines of the page."""

    def cell(row: dict[str, Any], source: str) -> str:
        low, high = row["sources"][source]["right_ci95"]
        return f"{percent(row['sources'][source]['right'])} ({100 * low:.0f} to {100 * high:.0f})"

    cells = [
        (
            RUNS[row["run"]],
            str(row["seed"]),
            percent(row["household"]),
            percent(row["mean"]),
            *(cell(row, source) for source in OTHERS),
        )
        for name in RUNS
        for row in result["rows"]
        if row["run"] == name
    ]
    last = result["rows"][-1]
    return [
        "# Which design carries over",
        "",
        "Trained on household_waste from random weights, at 64 px for 15 epochs; scored on its test images, and on "
        "all images of other sources by the classes that their labels can mean. In brackets 95 % intervals; "
        "`mean`: of the other sources.",
        "",
        f"`{last['command']}` at {last['commit']}, {last['date']}, {last['hardware']}.",
        "",
        *table(("network", "seed", "household_waste", "mean", *OTHERS), cells),
        "",
        *(difference(result, *pair) for pair in PAIRS),
    ]


def difference(result: dict[str, Any], before: str, after: str) -> str:
    """Returns a sentence on what a change gains under the seeds that both were trained with."""
    of = {(row["run"], row["seed"]): row for row in result["rows"]}
    seeds = [seed for seed in SEEDS if (before, seed) in of and (after, seed) in of]
    if not seeds:
        return ""
    gains = {
        key: ", ".join(f"{100 * (of[after, seed][key] - of[before, seed][key]):+.1f}" for seed in seeds)
        for key in ("household", "mean")
    }
    return (
        f"- {RUNS[after]} less {RUNS[before]}: {gains['mean']} points on other sources, {gains['household']} on "
        f"household_waste (seeds {', '.join(map(str, seeds))})."
    )


if __name__ == "__main__":
    main()
