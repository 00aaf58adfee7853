"""The tables of experiments/README.md, from experiments/results/ablations/*.json; `readme.py` fills them in."""

import json
import statistics
from collections.abc import Sequence
from itertools import product
from typing import Any

from experiments.ablations import CHANGES, NETWORKS, SEED, TABLES
from experiments.cells import percent, table, with_interval
from experiments.record import RESULTS

FOLDER = RESULTS / "ablations"
NOT_RUN = "not run"
SIZES = {
    "64 px": "",
    "128 px": "trashnet_128",
}  # of the images of TrashNet, and the folder of their results

# What a row changes, and what the study said of it.
IR = "inverted residuals for attention"
ROWS = {
    "efficientnet_plain": ("EfficientNetV2", "80.1 %"),
    "efficientnet_augmented": ("+ random resized crops and flips", "86.4 %"),
    "efficientnet_eca": ("+ ECA for SE, and in the fused blocks", "accuracy kept, 45 % less time"),
    "efficientnet_eca_leaky": ("+ Leaky ReLU for SiLU", "accuracy kept, 28 % less time"),
    "efficientnet_glu": ("EfficientNetV2, GLU for SE", "2 times faster"),
    "mobilevit_plain": ("MobileViT, Adam at a constant rate", "–"),
    "mobilevit_techniques": ("+ weight decay, warm-up, plateau", "+1.0 points"),
    "mobilevit_strong": ("+ strong augmentation", "+4.4 points"),
    "mobilevit_ir": (IR, "90.2 %, 14 % less time"),
    "mobilevit_conv5": ("MobileViT, a 5x5 convolution more", "2.4 times faster"),
    "mobilevit_conv5_alone": ("MobileViT, 5x5 in place of 3x3", "(the other reading)"),
    "pyramidnet_asam": ("PyramidNet (tiny) + ASAM", "a baseline"),
    "swin": ("Swin (tiny)", "a baseline"),
    "ir_cosine": ("cosine in place of plateau", ""),
    "ir_basic": ("the same under basic augmentation", "–"),
    "ir_ema": ("averaged weights (EMA)", ""),
    "ir_asam": ("ASAM", ""),
    "ir_mixed": ("mixup and cutmix", ""),
    "ir_progressive": ("strong augmentation, growing, from half of the size on", ""),
    "ir_longer": ("60 epochs", ""),
    "ir_taught": ("distilled from the fine-tuned Lite0 above", ""),
    "pretrained": ("EfficientNet-Lite0 from ImageNet weights, 8 epochs", "–"),
    "pretrained_cbam": ("+ CBAM before pooling", "5 times faster on a GPU"),
}


# Rows of the tables above that are called otherwise where they stand beside others.
PLAIN_NAMES = {
    "ir_basic": ("basic augmentation, plateau, 30 epochs", ""),
    "mobilevit_ir": ("strong augmentation", ""),
    "efficientnet_augmented": ("EfficientNetV2-B0", "a baseline"),
    "mobilevit_strong": ("MobileViT-XXS", "a baseline"),
}


def result(run: str, data_set: str = "") -> dict[str, Any] | None:
    """Returns what one run measured under the first seed; None where it has not been run."""
    path = FOLDER / data_set / f"{run}_{SEED}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def seeds_of(run: str, data_set: str = "") -> list[dict[str, Any]]:
    """Returns every seed's result of a run, the first seed first."""
    found = (json.loads(path.read_text()) for path in (FOLDER / data_set).glob(f"{run}_[0-9]*.json"))
    return sorted(found, key=lambda measured: measured["config"]["seed"])


def steps(runs: Sequence[str], data_set: str = "") -> str:
    """One of the study's ablations, step by step, with what it says about over-fitting and, at 64 px, speed."""
    timed = data_set != "trashnet_128"
    rows = []
    for run in runs:
        change, claim = ROWS[run]
        found = result(run, data_set)
        latency = _latency(run) if timed else []
        rows.append((change, claim, *(_training(found) if found else [NOT_RUN] * 5), *latency))
    head = ("network and training", "the study", "test top-1 (95 % interval)", "validation loss")
    more = ("train minus validation", "epochs to converge", "hours")
    return table((*head, *more, *(("ms, batch 1", "batch 32") if timed else ())), rows)


def _training(found: dict[str, Any]) -> list[str]:
    history = found["history"]
    best = max(history, key=lambda row: row["score"])
    # The first epoch within a point of the best: later ones hardly matter.
    converged = next(row["epoch"] for row in history if row["val_top1"] >= best["val_top1"] - 0.01)
    return [
        _score(found["test"]),
        f"{best['val_loss']:.2f}",
        f"{100 * (best['train_top1'] - best['val_top1']):+.1f} points",
        f"{converged:.0f} of {len(history)}",
        f"{found['facts']['seconds'] / 3600:.2f}",
    ]


def _score(test: dict[str, Any]) -> str:
    return with_interval(test["top1"], test["ci95"])


def _latency(run: str) -> list[str]:
    path = FOLDER / "speed.json"
    cases = json.loads(path.read_text())["cases"] if path.is_file() else []
    times = {case["batch"]: case["ms"]["p50"] for case in cases if case["model"] == NETWORKS.get(run)}
    return [f"{times[batch]:.1f}" if batch in times else "–" for batch in (1, 32)]


def summary() -> str:
    """Both of the study's ablations in one short table."""
    rows = [
        (
            *ROWS[run],
            _score(found["test"]) if (found := result(run)) else NOT_RUN,
            *_latency(run),
        )
        for run in (*TABLES["efficientnet"], *TABLES["mobilevit"])
    ]
    return table(
        ("network and training", "the study", "test top-1 (95 % interval)", "ms, batch 1", "batch 32"), rows
    )


def seeds() -> str:
    """The study's two changes under several seeds; a seed is another split, another start and another order."""
    names = (ROWS["efficientnet_eca"][0], f"{IR}, basic augmentation", f"{IR}, strong augmentation")
    rows = []
    for (size, data_set), (name, (before, after)) in product(
        SIZES.items(), list(zip(names, CHANGES, strict=True))
    ):
        of = {
            run: {r["config"]["seed"]: r["test"]["top1"] for r in seeds_of(run, data_set)}
            for run in (before, after)
        }
        both = sorted(of[before].keys() & of[after].keys())
        gains = [100 * (of[after][seed] - of[before][seed]) for seed in both]
        rows.append(
            (
                name,
                size,
                ", ".join(map(str, both)) or NOT_RUN,
                _list(of[before][seed] for seed in both),
                _list(of[after][seed] for seed in both),
                f"{statistics.mean(gains):+.1f} points" if gains else "–",
            )
        )
    return table(("change", "image size", "seeds", "test top-1 before", "after", "mean gain"), rows)


def _list(values: Any) -> str:
    return ", ".join(percent(value) for value in values) or "–"


def side_by_side(runs: Sequence[str]) -> str:
    """Runs beside each other, at both sizes; times and hours are of the smaller and the larger."""
    rows = []
    for run in runs:
        found = [result(run, data_set) for data_set in SIZES.values()]
        facts = [each["facts"] if each else {} for each in found]
        cells = [_score(each["test"]) if each else NOT_RUN for each in found]
        cells.append(next((f"{f['parameters']:,}" for f in facts if f), "–"))
        cells.append(f"{facts[-1]['seconds'] / 3600:.2f}" if facts[-1] else "–")
        rows.append((*PLAIN_NAMES.get(run, ROWS[run]), *cells, *_latency(run)))
    head = ("network and training", "the study", *(f"test top-1 at {size} (95 % interval)" for size in SIZES))
    return table((*head, "parameters", "hours at 128 px", "ms at 64 px, batch 1", "batch 32"), rows)


def beyond() -> str:
    """What each technique adds to MobileViT-IR, whose inference costs the same in every row."""
    rows = []
    for run in TABLES["beyond"]:
        cells = []
        for data_set in SIZES.values():
            found, base = result(run, data_set), result("ir_basic", data_set)
            gain = found["test"]["top1"] - base["test"]["top1"] if found and base else 0.0
            cells += [_score(found["test"]), f"{100 * gain:+.1f}"] if found and base else [NOT_RUN, "–"]
        rows.append((PLAIN_NAMES.get(run, ROWS[run])[0], *cells))
    head = [part for size in SIZES for part in (f"test top-1 at {size} (95 % interval)", "points gained")]
    return table(("change", *head), rows)
