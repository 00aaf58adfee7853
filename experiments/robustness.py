"""What the "strong" augmentation gains when pictures get worse: experiments/results/robustness.json and its curves.

Command: python experiments/robustness.py --data=TRASHNET --state=DIR [--basic=RUN] [--lite0=RUN] [--limit=N]
Trains MobileViT-XXS with inverted residuals on TrashNet twice, with the augmentations "basic" and "strong" and the
same split, and measures both; RUN is a finished one to take instead. --lite0 is a run on the household waste
pictures to measure too, on N of its test pictures. What is done already is skipped, so it can be stopped any time.
"""

import argparse
import datetime
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from wastejax.bundle import load_bundle
from wastejax.data.corruptions import KINDS
from wastejax.evaluation.command import asked_pictures
from wastejax.evaluation.metrics import bootstrap_statistic
from wastejax.evaluation.robustness import draw, measure, points, spread, summary

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
OPTIONS = (
    "model.size=xxs",
    "data.image_size=128",
    "train.epochs=60",
    "train.batch_size=32",
    "optim.weight_decay=0.05",
)
SHOWN = ("rotation", "occlusion")


def train(data: Path, workdir: Path, augmentation: str, others: list[str], manifest: Path | None) -> None:
    """Trains a network, or goes on with it; on the split of a manifest where there is one."""
    if (workdir / "report.json").is_file():
        return
    keys = [*OPTIONS, *others, f"data.augmentation={augmentation}", f"data.dir={data}"]
    keys += [f"data.split.manifest={manifest}"] * (manifest is not None)
    command = [sys.executable, "-m", "wastejax.main", "--config=mobilevit_ir", f"--workdir={workdir}"]
    subprocess.run([*command, *(f"--config.{key}" for key in keys)], check=True, cwd=ROOT)


def answers(run: Path, limit: int | None, keep: Path) -> tuple[dict, np.ndarray, Any, int]:
    """Measures a run on its test pictures, or reads what was measured.

    Returns:
        Whether each answer is right, by kind and severity; the true classes; the bundle; and how many test pictures
        there are, of which `limit` were taken.
    """
    bundle = load_bundle(run)
    source, indices = asked_pictures(
        SimpleNamespace(model=str(run), data=None, split=None), bundle.config["data"]
    )
    if not keep.is_file():
        correct, labels = measure(
            bundle,
            source,
            spread(indices, limit),
            lambda done, total: print(run.name, done, total, flush=True),
        )
        np.savez(keep, labels=labels, correct=np.stack([correct[point] for point in points()]))
    kept = np.load(keep)
    return dict(zip(points(), kept["correct"], strict=True)), kept["labels"], bundle, len(indices)


def recipe(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of a config that the two runs must share."""
    data = {key: config["data"][key] for key in ("image_size", "crop", "interpolation", "mean", "std")}
    return {"data": data, **{key: config[key] for key in ("model", "optim", "train", "loss", "seed")}}


def gains(basic: dict, strong: dict) -> dict[str, Any]:
    """Returns the top-1 that the strong augmentation adds, by kind, with paired 95 % bootstrap intervals."""

    def gain(rows: np.ndarray) -> float:
        return float(rows.mean())

    found = {}
    for name, kind in KINDS.items():
        steps = [
            strong[name, severity].astype(float) - basic[name, severity].astype(float)
            for severity in kind.severities
        ]
        found[name] = {
            "mean": _with_interval(gain, np.mean(steps, axis=0)),
            "by_severity": {
                str(s): _with_interval(gain, d) for s, d in zip(kind.severities, steps, strict=True)
            },
        }
    return found


def _with_interval(statistic: Any, rows: np.ndarray) -> dict[str, Any]:
    low, high = bootstrap_statistic(statistic, rows)
    return {"top1": round(statistic(rows), 4), "ci95": [round(low, 4), round(high, 4)]}


def rounded(value: Any) -> Any:
    """Returns nested dicts and lists with floats of four digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--state", required=True, type=Path, help="for runs and answers")
    parser.add_argument("--basic", type=Path, help="a finished run of the same recipe")
    parser.add_argument("--strong", type=Path, help="another one")
    parser.add_argument("--keys", nargs="*", default=[], help="other than here, such as train.epochs=30")
    parser.add_argument("--lite0", type=Path, help="a run on the household waste pictures")
    parser.add_argument("--limit", type=int, help="of its test pictures")
    parser.add_argument("--train_only", action="store_true", help="measure another time")
    parser.add_argument("--commit", help="what is run (default: HEAD)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="for the JSON and the figure")
    args = parser.parse_args()
    commit = args.commit or subprocess.check_output(["git", "rev-parse", "HEAD"], text=True, cwd=ROOT).strip()
    state = args.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    basic, strong = args.basic or state / "basic", args.strong or state / "strong"
    train(args.data, basic, "basic", args.keys, None)
    train(args.data, strong, "strong", args.keys, basic / "manifest.csv")
    runs = {"basic augmentation": (basic, None), "strong augmentation": (strong, None)}
    if args.lite0:
        runs["Lite0, 30 classes, strong"] = (args.lite0, args.limit)
    if args.train_only:
        return
    results, correct = {}, {}
    for name, (run, limit) in runs.items():
        keep = state / f"answers-{name.partition(' ')[0].strip(',').lower()}.npz"
        correct[name], labels, bundle, available = answers(run, limit, keep)
        config = bundle.config
        results[name] = {
            "model": f"{config['model']['name']} {config['model']['size']}",
            "data": Path(config["data"]["dir"]).name,
            "augmentation": config["data"]["augmentation"],
            "recipe": recipe(config),
            "available_images": available,
            **summary(correct[name], labels, bundle.classes),
        }
    first, second, *_ = results.values()
    if first["recipe"] != second["recipe"]:
        sys.exit("the two runs differ in more than their augmentation")
    report = json.loads((strong / "report.json").read_text())
    result = {
        "command": "python experiments/robustness.py --data=trashnet --state=DIR"
        + f" --keys {' '.join(args.keys)}" * bool(args.keys)
        + " --lite0=RUN" * (args.lite0 is not None)
        + f" --limit={args.limit}" * (args.limit is not None),
        "commit": commit[:12],
        "date": datetime.date.today().isoformat(),
        "hardware": report["facts"]["hardware"],
        "gain_of_strong": gains(*list(correct.values())[:2]),
        "models": rounded(results),
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    # Intervals on one line.
    text = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda numbers: "[" + " ".join(numbers[1].split()) + "]", text)
    (args.out / "robustness.json").write_text(text + "\n")
    draw(results, args.out / "robustness.png", SHOWN)
    for name, of_run in results.items():
        print(name, f"{of_run['clean']['top1']:.1%} clean, keeps {of_run['relative_accuracy']:.1%}")


if __name__ == "__main__":
    main()
