"""The report of a run whose images show any number of classes: Markdown for people new to the field."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wastejax.evaluation.report import plots
from wastejax.evaluation.report.markdown import render
from wastejax.evaluation.report.run import FIGURES_DIR, common
from wastejax.files import write_text


def write_multilabel_report(
    workdir: Path,
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Path:
    """Writes `report.md`, and the curves where there are epochs.

    Args:
        workdir: the run's folder.
        config: the resolved config as nested dicts.
        history: see `report.run.write_report`.
        scores: of the test split, see `multilabel.score_multilabel`, with intervals.
        facts: see `report.run.write_report`.

    Returns:
        The path of the report.
    """
    facts = {key: fact for key, fact in facts.items() if fact is not None}
    if history:
        plots.curves(history, workdir / FIGURES_DIR / "curves.png", facts.get("best_epoch"))
    judged = [(name, c) for name, c in scores["per_class"].items() if c["support"]]
    text = render(
        "multilabel.md",
        **common(workdir, config, history, scores, facts),
        bins=sorted(scores.get("per_bin", {}).items(), key=lambda item: (item[1]["recall"], item[0])),
        judged=sorted(judged, key=lambda item: (item[1]["average_precision"], item[0])),
        absent=[name for name, c in scores["per_class"].items() if not c["support"]],
    )
    path = workdir / "report.md"
    write_text(path, text)
    return path
