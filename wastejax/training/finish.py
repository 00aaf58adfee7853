"""The end of a run: the best model scored once on the test images, figures and the report."""

from contextlib import closing
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from wastejax.bundle import Bundle, keep_config, load_bundle
from wastejax.data import pipeline
from wastejax.data.formats.source import SEPARATOR
from wastejax.data.split import SPLITS
from wastejax.errors import UserError
from wastejax.evaluation.by_source import score_members
from wastejax.evaluation.calibration import reliability
from wastejax.evaluation.evaluate import Evaluation, evaluate_several
from wastejax.evaluation.heatmaps import explain
from wastejax.evaluation.metrics import confident_mistakes
from wastejax.evaluation.ood import max_probability
from wastejax.evaluation.report import plots, trust_plots
from wastejax.evaluation.report.run import write_multilabel_report, write_report
from wastejax.evaluation.run import score_images
from wastejax.evaluation.selective import risk_coverage
from wastejax.evaluation.trust import Calibration, calibrate_bundle, choose_thresholds_of
from wastejax.files import write_json
from wastejax.training.run import Record, Run

SAMPLES = 24  # training images that are drawn


def finish(run: Run, record: Record, facts: dict[str, Any]) -> dict[str, Any]:
    """Calibrates the bundle, scores it on the test split as `eval` would, and writes report and figures.

    Args:
        run: the run, trained.
        record: how training went.
        facts: what else the report should say; see `write_report`.

    Returns:
        The test scores. report.json is written last: it marks the run as finished.
    """
    # The best epoch may be older than a move of the images.
    bundle = load_bundle(run.workdir)  # tells a damaged one
    keep_config(bundle.path, run.config.to_dict())
    bundle = replace(bundle, config=run.config.to_dict())
    several = bundle.multilabel
    scores = _score_several(run, bundle) if several else _score(run, bundle)
    facts = facts | _facts(run, bundle, record)
    _class_distribution(run)
    _sample_grid(run)
    write = write_multilabel_report if several else write_report
    path = write(run.workdir, run.config.to_dict(), record.history, scores, facts)
    write_json(run.workdir / "report.json", scores | {"facts": facts})
    what, value = ("macro average precision", scores["macro_ap"]) if several else ("top-1", scores["top1"])
    low, high = scores["macro_ap_ci95" if several else "ci95"]
    run.say(f"test {what} {value:.1%} (95 % interval {low:.1%} to {high:.1%}); report: {path}")
    return scores


def _score(run: Run, bundle: Bundle) -> dict[str, Any]:
    """Calibrates a model and scores it, and draws how far it can be trusted and its worst mistakes."""
    dataset, config = run.dataset, run.config
    calibration = calibrate_bundle(bundle, dataset.source, dataset.indices("val"), config.data.cache)
    left_out = dataset.left_out
    result, scores = score_images(bundle, dataset.source, dataset.indices("test"), calibration, left_out)
    if result is None:
        raise UserError("there are no images to evaluate: the split or the folder is empty")
    if left_out is not None:
        scores["ood"]["pictures"] = f"left out of training: {', '.join(left_out.classes)}"
    _draw_trust(run, result, scores, calibration)
    if dataset.source.members is not None:
        shown = dataset.all_indices("test")
        scores["per_source"] = score_members(
            bundle, dataset.source, shown, result, calibration, config.data.cache
        )
    # As sure of its mistakes as `predict` says.
    _mistakes(run, bundle, result._replace(logits=result.logits / calibration.temperature))
    return scores


def _score_several(run: Run, bundle: Bundle) -> dict[str, Any]:
    """Chooses the thresholds of a multi-label model and scores it."""
    source, config, test = run.dataset.source, run.config, run.dataset.indices("test")
    bundle = choose_thresholds_of(bundle, source, run.dataset.indices("val"), config.data.cache)
    batches = pipeline.EvalBatches(source, test, bundle.preprocessing, config.eval.batch_size)
    return evaluate_several(bundle, batches, source, test, bootstrap=config.eval.bootstrap)[0]


def _facts(run: Run, bundle: Bundle, record: Record) -> dict[str, Any]:
    """Returns what a report says about the data and the training."""
    dataset, groups = run.dataset, np.bincount(run.dataset.groups)
    given = dataset.corrections
    # A resumed run's time is the sum of its parts, so it is counted from the epochs.
    return {
        "seconds": sum(row["seconds"] for row in record.history),
        "images_per_second": float(np.median([row["images_per_second"] for row in record.history])),
        "splits": {split: len(dataset.indices(split)) for split in SPLITS},
        "num_groups": int(np.count_nonzero(groups)),
        "largest_group": int(groups.max()),
        "skipped": dataset.skipped,
        "notes": dataset.notes,
        "corrections": None if given is None else {"sha256": given.sha256, **dataset.corrected},
        "bins": {name: b.name() for name, b in bundle.taxonomy.bins.items()},
        "without_bin": bundle.taxonomy.unknown(bundle.classes),
        "parameters": sum(a.size for a in jax.tree.leaves(bundle.variables["params"])),
        "best_epoch": record.best_epoch,
        "stopped_reason": record.stopped,
    }


def _draw_trust(run: Run, result: Evaluation, scores: dict[str, Any], calibration: Calibration) -> None:
    """Draws how far the answers can be trusted."""
    correct = result.logits.argmax(axis=1) == result.labels
    before, after = (max_probability(result.logits, t) for t in (1.0, calibration.temperature))
    folder = run.workdir / "figures"
    trust_plots.reliability_diagram(
        reliability(before, correct), scores["calibration"]["reliability"], folder / "reliability.png"
    )
    coverage, risk = risk_coverage(after, correct)
    trust_plots.risk_by_coverage(coverage, risk, scores["selective"]["at"], folder / "risk_coverage.png")


def _class_distribution(run: Run) -> None:
    source = run.dataset.source
    counts = {}
    for split in SPLITS:
        images = source.contents[run.dataset.indices(split)].sum(axis=0)
        counts[split] = dict(zip(source.classes, images.tolist(), strict=True))
    plots.class_distribution(counts, run.workdir / "figures" / "class_distribution.png")


def _sample_grid(run: Run) -> None:
    """Draws images as the network saw them in training, augmentation included."""
    source = run.dataset.source
    names, joint = source.label_names, " + " if source.allowed is None else " or "
    shown: list[np.ndarray] = []
    titles: list[str] = []
    with closing(run.batches(0, 0)) as batches:
        for batch in batches:
            shown += list(batch["image"])
            titles += [names[i].replace(SEPARATOR, joint) for i in batch["index"]]
            if len(shown) >= SAMPLES:
                break
    plots.sample_grid(shown[:SAMPLES], titles[:SAMPLES], run.workdir / "figures" / "samples.png")


def _mistakes(run: Run, bundle: Bundle, result: Evaluation) -> None:
    rows, predicted, probabilities = confident_mistakes(result.logits, result.labels)
    source = run.dataset.source
    square = bundle.preprocessing.of_file
    squares = [pipeline.read_image(source, int(result.indices[row]), square) for row in rows]
    plots.worst_mistakes(
        squares,
        [bundle.classes[result.labels[row]] for row in rows],
        [bundle.classes[label] for label in predicted],
        list(probabilities),
        run.workdir / "figures" / "worst_mistakes.png",
        explain(bundle.dense, squares, predicted),
    )
