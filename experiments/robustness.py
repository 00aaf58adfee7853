"""What the "strong" augmentation gains when images get worse: experiments/results/robustness.json and its curves.

Commands, all of which skip what is done already, so that they can be stopped at any time:
    python experiments/robustness.py train --state=DIR --data=TRASHNET
        MobileViT-XXS with inverted residuals on TrashNet twice, with the augmentations "basic" and "strong" and the
        same split, in DIR/basic and DIR/strong
    python experiments/robustness.py measure --state=DIR --run=RUN --name=NAME [--limit=N]
        a finished run on its test images, or on N of them; `basic` and `strong` are names of the pair above
    python experiments/robustness.py report --state=DIR
        all that was measured
"""

import argparse
import datetime
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.provenance import head
from wastejax.bundle import load_bundle
from wastejax.evaluation.images import Asked, asked_images
from wastejax.evaluation.metrics import bootstrap_statistic
from wastejax.evaluation.report.robustness import draw
from wastejax.evaluation.robustness import CLEAN, Point, measure, points, spread, summary
from wastejax.evaluation.robustness.corruptions import KINDS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
OPTIONS = (
    "model.size=xxs",
    "data.image_size=128",
    "train.epochs=60",
    "train.batch_size=32",
    "optim.weight_decay=0.05",
)


def train(state: Path, data: Path, others: list[str]) -> None:
    """Trains the pair, or goes on with it."""
    for augmentation in ("basic", "strong"):
        workdir = state / augmentation
        if (workdir / "report.json").is_file():
            continue
        keys = [*OPTIONS, *others, f"data.augmentation={augmentation}", f"data.dir={data}"]
        if augmentation == "strong":
            keys.append(f"data.split.manifest={state / 'basic' / 'manifest.csv'}")
        command = [sys.executable, "-m", "wastejax.main", "--config=mobilevit_ir", f"--workdir={workdir}"]
        subprocess.run([*command, *(f"--config.{key}" for key in keys)], check=True, cwd=ROOT)


def measure_run(state: Path, run: Path, name: str, limit: int | None) -> None:
    """Keeps whether each answer of a run is right, by kind and severity, and what was measured."""
    bundle = load_bundle(run)
    config = bundle.config
    asked = Asked(model=str(run), data=None, split=None)
    source, indices = asked_images(asked, config)
    keep = state / f"{name}.npz"
    if not keep.is_file():
        correct, labels = measure(
            bundle, source, spread(indices, limit), lambda done, total: print(name, done, total, flush=True)
        )
        np.savez(keep, labels=labels, correct=np.stack([correct[point] for point in points()]))
    facts = json.loads((run / "report.json").read_text())["facts"]
    about = {
        "model": f"{config['model']['name']} {config['model']['size']}",
        "image_size": config["data"]["image_size"],
        "data": Path(config["data"]["dir"]).name,
        "augmentation": config["data"]["augmentation"],
        "epochs": config["train"]["epochs"],
        "recipe": recipe(config),
        "trained_by": re.sub(r"=/\S*/", "=", facts["command"]),
        "hardware": facts["hardware"],
        "available_images": len(indices),
        "classes": bundle.classes,
    }
    (state / f"{name}.json").write_text(json.dumps(about))


def recipe(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of a config that the pair must share."""
    data = {key: config["data"][key] for key in ("image_size", "crop", "interpolation", "mean", "std")}
    return {"data": data, **{key: config[key] for key in ("model", "optim", "train", "loss", "seed")}}


def gains(basic: dict[Point, np.ndarray], strong: dict[Point, np.ndarray]) -> dict[str, Any]:
    """Returns the top-1 that the strong augmentation adds, with 95 % bootstrap intervals over paired answers."""
    found = {"clean": _mean(strong[CLEAN].astype(float) - basic[CLEAN])}
    for name, kind in KINDS.items():
        steps = [strong[name, s].astype(float) - basic[name, s] for s in kind.severities]
        by_severity = {str(s): _mean(step) for s, step in zip(kind.severities, steps, strict=True)}
        found[name] = {**_mean(np.mean(steps, axis=0)), "by_severity": by_severity}
    return found


def _mean(gain: np.ndarray) -> dict[str, Any]:
    low, high = bootstrap_statistic(lambda rows: float(rows.mean()), gain)
    return {"top1": round(float(gain.mean()), 4), "ci95": [round(low, 4), round(high, 4)]}


def rounded(value: Any) -> Any:
    """Returns nested dicts and lists with floats of four digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def report(state: Path, commit: str, out: Path) -> None:
    """Writes all that was measured, and the curves of at most four models."""
    models, correct, legend = {}, {}, {}
    for path in sorted(state.glob("*.json")):
        about, kept = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
        name, classes = path.stem, about.pop("classes")
        correct[name] = dict(zip(points(), kept["correct"], strict=True))
        models[name] = {**about, **summary(correct[name], kept["labels"], classes)}
        label = f"{about['model']} {about['image_size']} px, {about['augmentation']}, {about['data']}"
        legend[label.replace("_", " ")] = models[name]
    result: dict[str, Any] = {
        "command": "python experiments/robustness.py report --state=DIR; see there for what comes before",
        "commit": commit[:12],
        "date": datetime.date.today().isoformat(),
    }
    if {"basic", "strong"} <= set(models):
        if models["basic"]["recipe"] != models["strong"]["recipe"]:
            sys.exit("the two runs differ in more than their augmentation")
        result["gain_of_strong"] = gains(correct["basic"], correct["strong"])
    for about in models.values():
        del about["recipe"]
    text = json.dumps({**result, "models": rounded(models)}, indent=1, ensure_ascii=False)
    # Intervals on one line.
    text = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda numbers: "[" + " ".join(numbers[1].split()) + "]", text)
    (out / "robustness.json").write_text(text + "\n")
    draw(legend, out / "robustness.png")
    for name, of_run in models.items():
        print(name, f"{of_run['clean']['top1']:.1%} clean, keeps {of_run['relative_accuracy']:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("train", "measure", "report"))
    parser.add_argument("--state", required=True, type=Path, help="for runs and answers")
    parser.add_argument("--data", type=Path, help="train: class folders")
    parser.add_argument("--keys", nargs="*", default=[], help="train: other keys, such as train.epochs=30")
    parser.add_argument("--run", type=Path, help="measure: a finished run")
    parser.add_argument("--name", help="measure: what to call it")
    parser.add_argument("--limit", type=int, help="measure: so many of its test images")
    parser.add_argument("--commit", help="report: what was run (default: HEAD)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="report: for the JSON and the figure")
    args = parser.parse_args()
    state = args.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    match args.step:
        case "train":
            train(state, args.data, args.keys)
        case "measure":
            measure_run(state, args.run, args.name, args.limit)
        case _:
            report(state, args.commit or head(), args.out)


if __name__ == "__main__":
    main()
