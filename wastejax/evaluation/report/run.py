"""`report.md` in the work directory: what a run did and how good it is, for people new to the field."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.evaluation.report import plots
from wastejax.evaluation.report.markdown import code, duration, percent, table
from wastejax.evaluation.report.recipe import recipe_lines
from wastejax.evaluation.report.trust import trust_section
from wastejax.files import write_text

FIGURES_DIR = "figures"

# File in FIGURES_DIR -> what the reader sees there. The report draws the first two itself, from its
# arguments; the others need images and counts, and are shown where the caller has drawn them.
FIGURES = {
    "curves.png": "Loss (lower is better), accuracy and learning rate by epoch. Training and validation drifting "
    "apart means that the model memorizes its training images.",
    "confusion_matrix.png": "Each row is a true class, each column an answer; a perfect model fills only the "
    "diagonal. Gray rows have no images.",
    "class_distribution.png": "How many images each class has, by split.",
    "samples.png": "Training images as the network sees them, augmentation included, with their classes.",
    "reliability.png": "How often the answer is right by how sure the model is: on the dotted line the two agree, "
    "below it the model promises too much. The larger the dot, the more images.",
    "risk_coverage.png": "How many of the answers are wrong if only the most certain are given, and where the "
    "thresholds lie.",
    "worst_mistakes.png": "The wrong answers that the model was most certain of. Look here first: often it is the "
    "label that is wrong.",
}

USES = {"train": "to learn from", "val": "to choose the best epoch by", "test": "kept aside for this test"}
MAX_SKIPPED_NAMES = 10


def write_report(
    workdir: Path | str,
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Path:
    """Writes `report.md` and the figures that it can draw from its arguments.

    Args:
        workdir: the run's folder.
        config: the resolved config as nested dicts; any part may be absent.
        history: one dict per epoch, see `plots.curves`; may be empty.
        scores: of the test split, see `metrics.score`; and `trust.score_trust`, whose keys may be absent.
        facts: what else is known of the run. All keys may be absent, and then nothing is said of them:
            `command` str, `seconds` float, `images_per_second` float (training), `hardware` str, `versions`
            {package: version}, `splits` {split: number of images}, `num_groups` int and `largest_group` int
            (of near-duplicates), `skipped` {file: reason} or int, `parameters` int, `best_epoch` int,
            `stopped_reason` str, `settings` str (what differs from the default config, as arguments), `bins`
            {bin: what to call it}, `without_bin` (classes with no rule for a bin), `notes` (what was decided about
            the images, lines of text).

    Returns:
        The path of the report.
    """
    workdir = Path(workdir)
    facts = {key: fact for key, fact in facts.items() if fact is not None}
    figures = workdir / FIGURES_DIR
    if history:
        plots.curves(history, figures / "curves.png", facts.get("best_epoch"))
    plots.confusion_matrix(scores["confusion"], list(scores["per_class"]), figures / "confusion_matrix.png")
    sections = [
        [f"# Report: {workdir.resolve().name}"],
        _headline(scores),
        _subject(config, scores, facts),
        _numbers(scores),
        _domains(scores),
        _bins(scores, facts),
        _classes(scores),
        trust_section(scores),
        _figures(figures),
        _circumstances(config, history, facts),
        _next_steps(workdir, facts),
    ]
    text = "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"
    path = workdir / "report.md"
    write_text(path, text)
    return path


def _headline(scores: Mapping[str, Any]) -> list[str]:
    num_images, top1 = scores["num_images"], scores["top1"]
    low, high = scores["ci95"]
    if low < high:
        doubt = (
            f"Over all images of the same kind the share most likely lies between {percent(low)} and "
            f"{percent(high)} (95 % bootstrap interval)."
        )
    else:
        # The bootstrap cannot see a mistake that never happened; the rule of three can (Hanley 1983).
        bound = percent(min(3 / num_images, 1))
        doubt = (
            f"So clear a result on {num_images:,} images still leaves room for up to {bound} the other way."
        )
    return [
        f"**The first answer is right for {round(top1 * num_images):,} of {num_images:,} test images: "
        f"{percent(top1)}.** {doubt} Blind guessing among {len(scores['per_class'])} classes would reach "
        f"{percent(1 / len(scores['per_class']))}."
    ]


def _subject(config: Mapping[str, Any], scores: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    lines = ["## What was trained on what", ""]
    model = _get(config, "model")
    if isinstance(model, Mapping):
        details = ", ".join(f"{k} {v}" for k, v in model.items() if k != "name" and v not in (None, ""))
        count = (
            f"; {facts['parameters']:,} parameters (the numbers it learns)" if "parameters" in facts else ""
        )
        lines.append(f"- Model: {code(model.get('name', '?'))} ({details}){count}.")
    lines.append(f"- Images: {_origin(config)}, {len(scores['per_class'])} classes.")
    if "splits" in facts:
        parts = [f"{n:,} {USES.get(split, split)} (`{split}`)" for split, n in facts["splits"].items()]
        lines.append(f"- Split: {', '.join(parts)}.")
    lines += _duplicates(config, facts)
    if facts.get("skipped"):
        lines.append(_skipped(facts["skipped"]))
    if "corrections" in facts:
        lines.append(
            f"- Corrections of labels: {code('corrections.csv')}, SHA-256 {facts['corrections']['sha256']}."
        )
    return lines + [f"- Note on the images: {code(note)}." for note in facts.get("notes", ())]


def _skipped(skipped: Mapping[str, str] | int) -> str:
    if isinstance(skipped, int):
        return f"- Left out because they could not be read: {skipped:,} files."
    named = list(skipped.items())[:MAX_SKIPPED_NAMES]
    names = ", ".join(f"{code(file)} ({reason})" for file, reason in named)
    more = f", and {len(skipped) - len(named)} more" if len(skipped) > len(named) else ""
    return f"- Left out because they could not be read: {len(skipped):,} files: {names}{more}."


def _origin(config: Mapping[str, Any]) -> str:
    source, folder = _get(config, "data.source"), _get(config, "data.dir")
    if isinstance(source, str) and source.startswith("tfds:"):
        return f"the TFDS data set {code(source.removeprefix('tfds:'))}"
    if folder:
        return f"the folder {code(folder)}"
    return "the embedded set of drawings (no folder was given), which says little about real waste"


def _duplicates(config: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    if "num_groups" not in facts:
        return []
    largest = facts.get("largest_group")
    size = f"; the largest has {largest:,}" if largest else ""
    consequence = {
        "none": " The split ignores them: a test image may have a near-duplicate in training, which flatters the "
        "scores.",
        "phash": " A split of wastejax's own keeps each group on one side; one that was given (by folders "
        "`train/`, `val/`, `test/` or by a manifest) is taken as it is.",
    }.get(_get(config, "data.split.group"), "")
    return [
        f"- Near-duplicates: {facts['num_groups']:,} groups of images that look alike (one without a "
        f"near-duplicate is a group of its own){size}.{consequence}"
    ]


def _numbers(scores: Mapping[str, Any]) -> list[str]:
    num_classes, num_images = len(scores["per_class"]), scores["num_images"]
    most_frequent = max(c["support"] for c in scores["per_class"].values()) / num_images
    told = scores.get("calibration", scores)  # with the temperature, as `predict` answers
    rows = [("Top-1", percent(scores["top1"]), "the first answer is right")]
    if num_classes > 5:
        rows.append(("Top-5", percent(scores["top5"]), "the right class is among the first five answers"))
    rows += [
        (
            "Macro-F1",
            percent(scores["macro_f1"]),
            "F1 (see below) averaged over the classes, so that a rare class counts as much as a frequent one",
        ),
        (
            "Loss",
            f"{told['loss']:.3f}",
            f"mean cross-entropy in nats: 0 is perfect, {math.log(num_classes):.3f} is what even guessing gets; "
            "being sure and wrong costs most",
        ),
        (
            "ECE",
            percent(told["ece"]),
            "expected calibration error: how far the model's stated confidence is from how often it is right",
        ),
        (
            "Random guess",
            percent(1 / num_classes),
            "top-1 of blind guessing, the line to beat; always naming the most frequent class would get "
            f"{percent(most_frequent)}",
        ),
    ]
    return ["## How good it is", "", *table(("number", "value", "what it says"), rows)]


def _domains(scores: Mapping[str, Any]) -> list[str]:
    if not scores["per_domain"]:
        return []
    rows = [
        (code(name), percent(domain["top1"]), f"{domain['num_images']:,}")
        for name, domain in scores["per_domain"].items()
    ]
    intro = "How well it does by where the images were taken (`default`: studio, `real_world`: in the wild)."
    return ["## By domain", "", intro, "", *table(("domain", "top-1", "test images"), rows)]


def _bins(scores: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """The bins with test images, those with the lowest recall first."""
    if "bin_top1" not in scores:
        unknown = [code(name) for name in facts.get("without_bin", ())]
        if not unknown:
            return []
        more = f" and {len(unknown) - MAX_SKIPPED_NAMES} more" if len(unknown) > MAX_SKIPPED_NAMES else ""
        missing = ", ".join(unknown[:MAX_SKIPPED_NAMES]) + more
        return ["## By bin", "", f"Not judged: the rules in use (`config.data.taxonomy`) lack {missing}."]
    names = facts.get("bins", {})
    ranked = sorted(scores["per_bin"].items(), key=lambda item: (item[1]["recall"], item[0]))
    rows = [
        (names.get(name, name), percent(b["recall"]), percent(b["precision"]), str(b["support"]))
        for name, b in ranked
        if b["support"]
    ]
    low, high = map(percent, scores["bin_ci95"])
    return [
        "## By bin, worst first",
        "",
        f"**The right bin: {percent(scores['bin_top1'])}** (95 % bootstrap interval {low} to {high}). The "
        "chance of a bin is that of its classes together, so confusing two classes of one bin does no harm. "
        "Recall: how much of what belongs into the bin gets there. Precision: how much of what gets there belongs.",
        "",
        *table(("bin", "recall", "precision", "test images"), rows),
    ]


def _classes(scores: Mapping[str, Any]) -> list[str]:
    """The classes with test images, those with the lowest F1 first."""
    names = list(scores["per_class"])
    ranked = sorted(scores["per_class"].items(), key=lambda item: (item[1]["f1"], item[0]))
    rows = [
        (
            code(name),
            percent(c["f1"]),
            percent(c["recall"]),
            percent(c["precision"]),
            str(c["support"]),
            _taken_for(names, scores["confusion"][names.index(name)], names.index(name)),
        )
        for name, c in ranked
        if c["support"]
    ]
    absent = [code(name) for name, c in scores["per_class"].items() if not c["support"]]
    return [
        "## By class, worst first",
        "",
        "Recall: how many of the class's images were found. Precision: how often the answer is right when the "
        "model names this class. F1: their harmonic mean, low as soon as one of them is.",
        "",
        *table(("class", "F1", "recall", "precision", "test images", "most often taken for"), rows),
        *(["", f"Without a test image, hence not judged: {', '.join(absent)}."] if absent else []),
    ]


def _taken_for(names: Sequence[str], row: Sequence[int], own: int) -> str:
    others = np.array(row)
    others[own] = 0
    worst = int(others.argmax())
    return f"{code(names[worst])} ({others[worst]})" if others[worst] else "–"


def _figures(folder: Path) -> list[str]:
    lines = ["## Figures"]
    for name, caption in FIGURES.items():
        if (folder / name).is_file():
            title = name.removesuffix(".png").replace("_", " ").capitalize()
            lines += ["", f"![{title}]({FIGURES_DIR}/{name})", "", caption]
    return lines


def _circumstances(
    config: Mapping[str, Any], history: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> list[str]:
    lines = recipe_lines(config, facts.get("settings", ""))
    if "best_epoch" in facts:
        row = next((row for row in history if row["epoch"] == facts["best_epoch"]), {})
        top1 = row.get("val_top1")
        reached = f", with {percent(top1)} top-1 on the validation images" if top1 is not None else ""
        total = f" of {history[-1]['epoch']}" if history else ""
        lines.append(f"- Best epoch: {facts['best_epoch']}{total}{reached}.")
    if facts.get("stopped_reason"):
        lines.append(f"- Why it ended: {facts['stopped_reason']}.")
    if "seconds" in facts:
        speed = facts.get("images_per_second")
        rate = f", {speed:,.0f} images per second" if speed else ""
        lines.append(f"- Training time: {duration(facts['seconds'])}{rate}.")
    if "hardware" in facts:
        lines.append(f"- Hardware: {facts['hardware']}.")
    if facts.get("versions"):
        lines.append("- Versions: " + ", ".join(f"{k} {v}" for k, v in facts["versions"].items()) + ".")
    return ["## How it was made", "", *lines] if lines else []


def _next_steps(workdir: Path, facts: Mapping[str, Any]) -> list[str]:
    lines = [
        "## What to do next",
        "",
        "Test it on images of your own (a folder with one subfolder per class, named as above); the same kind "
        "of images as in training is the easy case:",
        "",
        "```",
        f"python -m wastejax.main eval --model={shlex.quote(str(workdir))} --data=YOUR_FOLDER --out=report.json",
        "```",
    ]
    if facts.get("command"):
        lines += [
            "",
            "To resume after an interruption, run the same command again; it says so if the run is finished:",
            "",
            "```",
            str(facts["command"]),
            "```",
        ]
    return lines


def _get(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, None where it is absent."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
