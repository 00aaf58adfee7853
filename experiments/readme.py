"""Fills the tables of the pages from the committed results, so that none of their numbers is typed by hand.

Command: python experiments/readme.py [--check]
A table stands between `<!-- results: NAME -->` and `<!-- end -->`; NAME is a key of `TABLES`. With --check nothing
is written, and the exit code is 1 where a table is not what its results say.
"""

import argparse
import json
import os
import re
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from experiments import ablation_tables, camera_tables
from experiments.ablations import MAIN
from experiments.ablations import TABLES as TABLES_OF_RUNS
from experiments.cells import percent, table, with_interval

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
FILES = (
    ROOT / "README.md",
    ROOT / "experiments" / "README.md",
    *sorted((ROOT / "docs" / "results").glob("*.md")),
)
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

# Runs in the table of trained models: file, what was trained on what.
RUNS = {
    "trashnet_mobilevit_xxs_ir": (
        "TrashNet, 6 classes",
        "MobileViT-XXS with inverted residuals, from scratch",
    ),
    "household_waste_lite2": (
        "household waste, 30 classes",
        "EfficientNet-Lite2 from ImageNet weights, first stages frozen",
    ),
    "household_waste_lite0": ("household waste, 30 classes", "EfficientNet-Lite0 from ImageNet weights"),
    "demo_mobilevit_ir": ("drawn set, 30 classes", "`make train`: a small MobileViT-IR"),
}
TRUST = {
    "household waste, EfficientNet-Lite0": "trust_household_waste_lite0",
    "TrashNet, MobileViT-XXS-IR from scratch": "trust_trashnet_mobilevit_xxs_ir",
}
FOREIGN = {
    "no_waste": "images without waste",
    "unlike": "shoes, clothing, food waste",
    "shoes_clothing_food_waste": "shoes, clothing, food waste",
}
LEAKING = {
    "random": "plain random",
    "grouped": "near-duplicates kept together",
    "audited": "what `audit` groups kept together",
}
SPEED = ("mobilevit_s", "mobilevit_s_ir", "efficientnetv2_s", "efficientnetv2_s_eca", "efficientnetv2_b0")


def load(name: str) -> Any:
    """Returns one committed result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def trained() -> str:
    """Test accuracy of the trained models."""
    rows = []
    for name, (data, network) in RUNS.items():
        run = load(name)
        config = run["config"]
        rows.append(
            (
                data,
                f"{network}, {config['data']['image_size']} px, {len(run['history'])} epochs",
                with_interval(run["test"]["top1"], run["test"]["ci95"]),
                f"{run['test']['num_images']:,}",
                f"[json](experiments/results/{name}.json)",
            )
        )
    return table(("data", "network", "test top-1 (95 % interval)", "test images", "file"), rows)


def speed() -> str:
    """Latency, and its ratios to peers, of the study's networks."""
    rows = []
    for name in SPEED:
        infer, train = load(f"speed/infer_{name}"), load(f"speed/train_{name}")
        one = next(r for r in infer["cases"] if r["runtime"] == "jax" and r["batch"] == 1)
        rows.append(
            (
                f"`{name}`",
                f"{one['size']} px",
                f"{one['ms']['p50']:.0f} ms",
                *(ratio(infer, runtime, batch) for runtime in ("timm", "stock") for batch in (1, 32)),
                *(ratio(train, runtime, 16) for runtime in ("timm", "stock")),
                infer["about"]["device"].partition(" Processor")[0].partition(",")[0],
            )
        )
    head = (
        "network",
        "image",
        "batch 1",
        "relative to timm: batch 1",
        "batch 32",
        "relative to stock Flax: batch 1",
        "batch 32",
    )
    return table((*head, "training step relative to timm", "relative to stock Flax", "processor"), rows)


def ratio(result: dict[str, Any], runtime: str, batch: int) -> str:
    """Returns our time over another runtime's, or a dash where there is no such network."""
    for row in result["ratios"]:
        if row["of"]["runtime"] == "jax" and row["to"]["runtime"] == runtime and row["of"]["batch"] == batch:
            return f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    return "–"


def forms() -> str:
    """One trained model in every form, on the same images."""
    result, browser = load("agreement")["lite0"], load("browser")["lite0"]
    rows = [
        (
            name,
            percent(form["agreement"]),
            f"{form['largest_difference']:.0e}" if form["largest_difference"] else "0",
            percent(form["top1"]),
            f"{form['bytes'] / 1e6:.1f}",
            f"{form['ms_p50']:.1f}",
        )
        for name, form in {**result["forms"], browser["browser"]: browser}.items()
    ]
    return table(
        ("form", "same class", "largest difference in probability", "top-1", "MB", "ms per image"), rows
    )


def trust() -> str:
    """Calibration, rejection and out-of-distribution detection of trained models."""
    rows = []
    for network, name in TRUST.items():
        result = load(name)
        kept = [result["selective"]["at"][accuracy] for accuracy in ("0.9", "0.95", "0.99")]
        foreign = (
            f"{o['scores']['max_probability']['auroc']:.2f} {FOREIGN[o['pictures']]}" for o in result["ood"]
        )
        rows.append(
            (
                network,
                with_interval(result["before"]["bin_top1"], result["before"]["bin_ci95"]),
                f"{percent(result['before']['ece'])}, {percent(result['calibration']['ece'])}",
                *(
                    f"{percent(k['coverage'])} ({percent(k['accuracy'])})" if k["num_images"] else "–"
                    for k in kept
                ),
                "; ".join(foreign),
            )
        )
    head = (
        "data, network",
        "right bin",
        "ECE before, after calibration",
        "coverage at 90 % (accuracy of those)",
        "at 95 %",
    )
    return table((*head, "at 99 %", "AUROC, out-of-distribution"), rows)


def serving() -> str:
    """What load `serve` can take."""
    rows = [
        (
            row["clients"],
            f"{row['per_second']:.0f}",
            f"{row['ms_p50']:.0f}",
            f"{row['ms_p99']:.0f}",
            f"{row['memory_mib']:.0f}",
        )
        for row in load("serving")["load"]
    ]
    return table(("clients at once", "answers per second", "ms p50", "ms p99", "MiB"), rows)


def robustness() -> str:
    """Accuracy on degraded images."""
    rows = []
    for model in load("robustness")["models"].values():
        clean, relative = model["clean"], model["relative_accuracy"]
        rows.append(
            (
                f"{model['model']}, {model['image_size']} px, {model['data']}, {model['augmentation']}",
                with_interval(clean["top1"], clean["ci95"]),
                with_interval(relative, model["relative_ci95"]),
            )
        )
    return table(
        ("model", "clean top-1", "relative accuracy, mean over all corruptions and severities"), rows
    )


def strong() -> str:
    """What the strong augmentation gains over the basic one, in points of accuracy."""
    gains = load("robustness")["gain_of_strong"]
    rows = [
        (kind, f"{100 * gain['top1']:+.1f} ({100 * gain['ci95'][0]:+.1f} to {100 * gain['ci95'][1]:+.1f})")
        for kind, gain in gains.items()
    ]
    return table(("test images", "points gained by strong augmentation"), rows)


def regions() -> str:
    """Objects found in mosaics."""
    rows = []
    for ground, key in (("plain", "plain"), ("cluttered", "cluttered"), ("both", "all")):
        found = load("regions")["test"][key]
        cells = [
            with_interval(found[kind][score]["value"], found[kind][score]["ci95"])
            for kind in ("class_agnostic", "class_aware")
            for score in ("recall", "precision")
        ]
        rows.append((f"{ground}, {found['objects']} objects", *cells))
    return table(
        ("ground", "recall of objects", "precision", "recall with the right class", "precision"), rows
    )


def composition() -> str:
    """Errors of shares by counting and corrected, where only answers are known.

    Of what `composition.py` measures now, or of composition.json, which it wrote at df0d340, before it knew of
    probabilities.
    """
    rows = []
    measured = load("composition_images").get("without_probabilities") or load("composition")["models"]
    for name, found in measured.items():
        for kind in ("even", "uneven"):
            one = found[kind]
            gain = " to ".join(f"{100 * end:.1f}" for end in one["gain_ci95"])
            errors = [percent(one[key]) for key in ("plain", "corrected", "likelihood_alone")]
            held = [percent(one[f"{key}_intervals_hold"]) for key in ("plain", "corrected")]
            known = found.get("images_to_know_it_by") or found["images_for_confusions"]
            rows.append((name, known, kind, *errors[:2], gain, errors[2], *held))
    head = "model|images for confusions|shares|error, counted|error, corrected|points gained (95 %)"
    head += "|error by likelihood alone|intervals of counts hold|of corrected shares"
    return table(head.split("|"), rows)


def composition_images() -> str:
    """The same of images, by all probabilities."""
    rows = []
    for name, found in load("composition_images")["models"].items():
        for kind in ("even", "uneven"):
            one = found[kind]
            gain = " to ".join(f"{100 * end:.1f}" for end in one["gain_ci95"])
            errors = [percent(one[key]) for key in ("plain", "confusion_alone", "corrected")]
            held = [percent(one[f"{key}_intervals_hold"]) for key in ("plain", "confusion", "corrected")]
            rows.append((name, found["images_to_know_it_by"], kind, *errors, gain, *held))
    head = "model|images to know it by|shares|error, counted|by answers and confusions|by probabilities"
    head += "|points gained (95 %)|intervals of counts hold|by confusions|by probabilities"
    return table(head.split("|"), rows)


def composition_few() -> str:
    """How often intervals of the shares of few images hold."""
    found = load("composition_few")
    rows = []
    for kind, numbers in found["shares"].items():
        for number, one in numbers.items():
            large = percent(one["large_hold"]) if "large_hold" in one else "–"
            keys = ("all_hold", "half_each", "one_in_all", "width_of_largest", "plain", "corrected")
            rows.append((kind, number, large, *(percent(one[key]) for key in keys)))
    head = "shares|images|intervals of large classes hold|of all classes there are|with half an image of each class"
    head += "|with one image in all|width for the largest class|error, counted|by probabilities"
    return table(head.split("|"), rows)


def leakage() -> str:
    """The same training on a leaking split and on one that does not leak."""
    pairs = load("leakage")["pairs"]
    rows = [
        (
            name if len(pairs) == 1 else f"{name}, seed {pair['seed']}",
            with_interval(pair[split]["test"]["top1"], pair[split]["test"]["ci95"]),
            with_interval(pair[split]["unseen"]["top1"], pair[split]["unseen"]["ci95"]),
        )
        for split, name in LEAKING.items()
        for pair in pairs
        if split in pair
    ]
    return table(("split", "test top-1", "on images without a near-duplicate in training"), rows)


def pipeline() -> str:
    """Images per second of decoding and augmenting, and how much of training's rate is left beside it."""
    result = load("speed/data")
    rows = [
        (row["format"], row["what"], f"{row['images_per_second']:,.0f}", f"{row['value']:.2f}")
        for row in result["pipeline"]
    ]
    fed = [
        (f"`{row['model']}`", f"{row['size']}", with_interval(row["rate"], (row["low"], row["high"])))
        for row in result["feeding"]
    ]
    return (
        table(("format", "256 px images from", "images/s", "time relative to ours from files"), rows)
        + "\nTraining throughput when fed from the data set, as a share of that on one fixed batch in memory\n"
        + "(target: 95 %):\n\n"
        + table(("network", "px", "with data (95 % interval)"), fed)
    )


def study() -> str:
    """The study's claims about speed, measured here."""
    eca = "efficientnetv2_s+attention=eca+fused_attention=eca"
    claims = (
        ("attention → inverted residuals", "study_mobilevit", "mobilevit_s", "mobilevit_s_ir", "14 % less"),
        (
            "3x3 → 3x3 and 5x5 local",
            "study_mobilevit",
            "mobilevit_s",
            "mobilevit_s_conv5",
            "2.4 times faster",
        ),
        ("SE → ECA", "study_efficientnetv2", "efficientnetv2_s", eca, "45 % less"),
        ("… and SiLU → Leaky ReLU", "study_efficientnetv2", eca, "efficientnetv2_s_eca", "28 % less"),
        ("SE → GLU", "study_efficientnetv2", "efficientnetv2_s", "efficientnetv2_s_glu", "2 times faster"),
    )
    rows = [
        (change, claim, *(times(load(f"speed/{name}"), new, old, batch) for batch in (1, 32)))
        for change, name, old, new, claim in claims
    ]
    return table(("change", "the study", "time relative to before: batch 1", "batch 32"), rows)


def times(result: dict[str, Any], new: str, old: str, batch: int) -> str:
    """Returns the median over rounds of the time of one network over that of another."""
    new_ms, old_ms = (
        next(r["round_ms"] for r in result["cases"] if r["model"] == name and r["batch"] == batch)
        for name in (new, old)
    )
    return f"{statistics.median(a / b for a, b in zip(new_ms, old_ms, strict=True)):.2f}"


def resolution() -> str:
    """How attention and inverted residuals scale with image size."""
    cases = load("speed/resolution")["cases"]
    sizes = sorted({case["size"] for case in cases})
    rows = []
    for name in ("mobilevit_s", "mobilevit_s_ir"):
        of = {case["size"]: case["ms"]["p50"] for case in cases if case["model"] == name}
        rows.append((f"`{name}`", *(f"{of[size]:.0f}" for size in sizes)))
    return table(("ms, batch 1", *(f"{size} px" for size in sizes)), rows)


def frames() -> str:
    """Images per second of every recipe's network, one at a time."""
    cases = [case for name in ("recipes", "shipped") for case in load(f"speed/{name}")["cases"]]
    cases.sort(key=lambda case: -case["images_per_second"])
    rows = [
        (
            f"`{case['model']}`",
            f"{case['size']} px",
            f"{case['ms']['p50']:.1f}",
            f"{case['images_per_second']:.0f}",
        )
        for case in cases
    ]
    return table(("network", "image", "ms", "frames per second"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "trained": trained,
    "leakage": leakage,
    "trust": trust,
    "robustness": robustness,
    "strong": strong,
    "regions": regions,
    "composition": composition,
    "composition_images": composition_images,
    "composition_few": composition_few,
    "forms": forms,
    "serving": serving,
    "speed": speed,
    "study": study,
    "resolution": resolution,
    "frames": frames,
    "pipeline": pipeline,
    "ablation_steps": ablation_tables.summary,
    "ablation_efficientnet": partial(ablation_tables.steps, TABLES_OF_RUNS["efficientnet"]),
    "ablation_mobilevit": partial(ablation_tables.steps, TABLES_OF_RUNS["mobilevit"]),
    "ablation_trashnet_128": partial(ablation_tables.steps, MAIN, "trashnet_128"),
    "ablation_household_waste": partial(ablation_tables.steps, MAIN, "household_waste"),
    "ablation_seeds": ablation_tables.seeds,
    "ablation_variants": partial(ablation_tables.side_by_side, TABLES_OF_RUNS["variants"]),
    "ablation_baselines": partial(ablation_tables.side_by_side, TABLES_OF_RUNS["baselines"]),
    "ablation_beyond": ablation_tables.beyond,
    "left_out": camera_tables.left_out,
    "adapt_curve": camera_tables.adapt_curve,
    "litter": camera_tables.litter,
}


def filled(text: str, path: Path) -> str:
    """Returns the text of a page with every table made anew; links lead from where `path` lies."""
    up = os.path.relpath(ROOT, path.parent)
    text = BLOCK.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}", text)
    return text if up == "." else text.replace("](experiments/", f"]({up}/experiments/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table is stale")
    args = parser.parse_args()
    for path in FILES:
        old = path.read_text()
        new = filled(old, path)
        if args.check and new != old:
            sys.exit(
                f"{path.relative_to(ROOT)}: its tables are not what experiments/results says; "
                "run python experiments/readme.py"
            )
        if new != old:
            path.write_text(new)


if __name__ == "__main__":
    main()
