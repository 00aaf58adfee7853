"""`report.md` in the work directory: what a run did and how good it is, for people new to the field."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.evaluation.report import plots
from wastejax.evaluation.report.markdown import code, render
from wastejax.evaluation.report.recipe import recipe_lines
from wastejax.evaluation.report.sources import source_table
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
        scores: of the test split, see `metrics.score`; and `trust.score_trust`, whose keys may be absent, as may
            `per_source`, see `by_source.score_by_source`.
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
    workdir, names = Path(workdir), list(scores["per_class"])
    plots.confusion_matrix(scores["confusion"], names, workdir / FIGURES_DIR / "confusion_matrix.png")
    return _write(
        "run.md",
        workdir,
        config,
        history,
        scores,
        facts,
        right=round(scores["top1"] * scores["num_images"]),
        even=math.log(len(names)),  # the loss of even guessing
        judged=[(name, c, _taken_for(names, scores["confusion"], name)) for name, c in _judged(scores, "f1")],
        sources=source_table(scores.get("per_source", {})),
    )


def write_multilabel_report(
    workdir: Path,
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Path:
    """Does what `write_report` does for a run whose images show any number of classes.

    Its `scores` are those of `multilabel.score_multilabel`, with intervals.
    """
    judged = _judged(scores, "average_precision")
    return _write("multilabel.md", workdir, config, history, scores, facts, judged=judged)


def _judged(scores: Mapping[str, Any], by: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns the classes that have images, the worst first, with their scores."""
    judged = [(name, c) for name, c in scores["per_class"].items() if c["support"]]
    return sorted(judged, key=lambda item: (item[1][by], item[0]))


def _write(
    template: str,
    workdir: Path,
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
    facts: Mapping[str, Any],
    **more: Any,
) -> Path:
    """Draws the curves, and writes a template with what the sections of both kinds of runs need, and more."""
    facts = {key: fact for key, fact in facts.items() if fact is not None}
    if history:
        plots.curves(history, workdir / FIGURES_DIR / "curves.png", facts.get("best_epoch"))
    source = str(_get(config, "data.source") or "")
    best = next((row for row in history if row["epoch"] == facts.get("best_epoch")), {})
    recipe = recipe_lines(config, facts.get("settings", ""))
    measure, reached = "top-1", best.get("val_top1")
    if "val_ap" in best:
        measure, reached = "macro average precision", best["val_ap"]
    made = render("made.md", facts=facts, history=history, recipe=recipe, reached=reached, measure=measure)
    text = render(
        template,
        name=workdir.resolve().name,
        scores=scores,
        facts=facts,
        model=_get(config, "model"),
        tfds=source.removeprefix("tfds:") if source.startswith("tfds:") else "",
        folder=_get(config, "data.dir"),
        grouped=_get(config, "data.split.group"),
        uses=USES,
        most_named=MAX_SKIPPED_NAMES,
        figures=[
            (name.removesuffix(".png").replace("_", " ").capitalize(), f"{FIGURES_DIR}/{name}", caption)
            for name, caption in FIGURES.items()
            if (workdir / FIGURES_DIR / name).is_file()
        ],
        made=made.rstrip(),
        quoted=shlex.quote(str(workdir)),
        bins=sorted(scores.get("per_bin", {}).items(), key=lambda item: (item[1]["recall"], item[0])),
        absent=[name for name, c in scores["per_class"].items() if not c["support"]],
        **more,
    )
    path = workdir / "report.md"
    write_text(path, text)
    return path


def _taken_for(names: Sequence[str], confusion: Sequence[Sequence[int]], name: str) -> str:
    own = names.index(name)
    others = np.array(confusion[own])
    others[own] = 0
    worst = int(others.argmax())
    return f"{code(names[worst])} ({others[worst]})" if others[worst] else "–"


def _get(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, None where it is absent."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
