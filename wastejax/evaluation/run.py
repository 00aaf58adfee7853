"""A run or bundle scored on images, from paths to numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.bundle import Bundle, default_bundle, load_bundle
from wastejax.bundled import FOLDER, name_of
from wastejax.data.corrections import corrections_of_run, load_corrections
from wastejax.data.description.meant import meant_by
from wastejax.data.formats.boxes import Reading
from wastejax.data.pipeline import EvalBatches
from wastejax.data.prepare import images_of, one_class
from wastejax.data.prepare.corrected import held_out
from wastejax.data.prepare.kept import load_kept
from wastejax.data.sources import Source, open_data, open_images
from wastejax.errors import ConfigError, UserError
from wastejax.evaluation.by_source import answers_to, score_meant, score_members, tell_uncalibrated
from wastejax.evaluation.evaluate import Evaluation, evaluate, evaluate_several, match_classes, predict_logits
from wastejax.evaluation.images import (
    Asked,
    NoSplitError,
    asked_images,
    changes_asked,
    explained_images,
    manifest_of,
    own_source,
    readable,
)
from wastejax.evaluation.report.review import Doubt, mistakes, mistakes_of_several, write_review
from wastejax.evaluation.trust import Calibration, calibrate_bundle, choose_thresholds_of, score_trust
from wastejax.files import check_folder
from wastejax.progress import Say


def evaluate_model(
    asked: Asked,
    taxonomy: str | Path | None = None,
    ood: str | Path | None = None,
    calibrate: bool = False,
    say: Say = lambda line: None,
    review: str | Path | None = None,
) -> tuple[Bundle, dict[str, Any]]:
    """Scores a model.

    Args:
        asked: the model and the images.
        taxonomy: whose sorting rules, see `load_taxonomy`; None for those that the model was made with.
        ood: a folder of images that show none of the classes: how well are they told from the others?
        calibrate: first fit the model's confidence on the validation images, and keep that in the bundle.
        say: is told what is left out and what was calibrated.
        review: where to write a page of the mistakes, on which their labels can be corrected.

    Returns:
        The model, and the scores of `metrics.score` and `score_trust`, or `multilabel.score_multilabel`, ready for
        `json.dumps`. Of a data description, all of these for the images whose label means one class, where there
        are any, and `per_source` for all, see `score_by_source`.

    Raises:
        UserError: model or data are not there, unreadable, or do not fit each other.
    """
    bundle = load_bundle(asked.model or default_bundle(), taxonomy)
    if calibrate:
        _check_own(bundle)
    if bundle.multilabel:
        if ood:
            bundle.needs_one_label("--ood")
        return _evaluate_several(bundle, asked, calibrate, say, review)
    source, indices = asked_images(replace(asked, partial=True), bundle.config, say)
    match_classes(bundle.classes, source.classes)
    if not len(indices):
        raise UserError("there are no images to evaluate: the split or the folder is empty")
    if (ood or review) and not len(one_class(source, indices)):
        raise UserError(f"--{'ood' if ood else 'review'}: needs images whose label means one class")
    # All is opened before any image is read, and read before the bundle is changed.
    foreign, origin = _foreign(asked, ood, bundle.config, say)
    validation = _validation_images(asked, bundle) if calibrate else None
    indices = readable(source, indices, asked, bundle, say)
    if foreign is not None:
        foreign = foreign.select(readable(foreign, np.arange(len(foreign)), asked, bundle, say))
    calibration = Calibration(bundle.temperature, bundle.thresholds)
    if validation is not None:
        own = bundle if taxonomy is None else load_bundle(bundle.path)  # thresholds are for its own rules
        calibration, indices = _calibrate(asked, own, validation, (source, indices), say)
    result, scores = score_images(bundle, source, one_class(source, indices), calibration, foreign)
    if "ood" in scores:
        scores["ood"]["pictures"] = origin
    if source.members is not None:
        tell_uncalibrated(bundle.path, calibration.thresholds, say)
        scores["per_source"] = score_members(bundle, source, indices, result, calibration)
    if review is not None and result is not None:
        logits = result.logits / calibration.temperature
        doubts = mistakes(logits, result.labels, result.indices, bundle.classes)
        _review(Path(review), asked, bundle, source, doubts, say)
    return bundle, scores


def score_images(
    bundle: Bundle, source: Source, single: np.ndarray, calibration: Calibration, foreign: Source | None
) -> tuple[Evaluation | None, dict[str, Any]]:
    """Returns a model's answers to images whose label means one class, and all scores of these.

    Args:
        bundle: the model.
        source: the images.
        single: int64 [N], those whose label means one class; where there are none, there are neither.
        calibration: of the model.
        foreign: images that show none of the classes.
    """
    if not len(single):
        return None, {"num_images": 0}
    batch_size, drawn = bundle.config["eval"]["batch_size"], bundle.config["eval"]["bootstrap"]
    batches = EvalBatches(source, single, bundle.preprocessing, batch_size)
    result = evaluate(bundle.logits, batches, source, bundle.classes, single, bundle.bins, drawn)
    outside = None
    if foreign is not None:
        batches = EvalBatches(foreign, np.arange(len(foreign)), bundle.preprocessing, batch_size)
        outside, _ = predict_logits(bundle.logits, batches)
    trust = score_trust(result.logits, result.labels, calibration, outside, bundle.bins_or_own, drawn)
    return result, result.scores | trust


def _review(
    path: Path, asked: Asked, bundle: Bundle, source: Source, doubts: Sequence[Doubt], say: Say
) -> None:
    """Writes a page of a model's mistakes, without those that are reviewed."""
    manifest = manifest_of(asked.model)
    given = load_corrections(asked.corrections, "--corrections") if asked.corrections else None
    if given is None and manifest and not asked.data:
        given = corrections_of_run(manifest.parent)
    rows = {} if given is None else given.named_as(source.names).rows
    doubts = [doubt for doubt in doubts if source.names[doubt.index] not in rows]
    title = f"Mistakes of {name_of(asked.model)}"
    count = write_review(path, title, source, doubts, bundle.classes, rows)
    say(f"written: {path}, {count:,} of {len(doubts):,} mistakes, to correct labels in a browser")


def _evaluate_several(
    bundle: Bundle, asked: Asked, calibrate: bool, say: Say, review: str | Path | None
) -> tuple[Bundle, dict[str, Any]]:
    """Scores a multi-label model as `evaluate_model` does."""
    source, indices = asked_images(asked, bundle.config, say)
    match_classes(bundle.classes, source.classes)
    validation = _validation_images(asked, bundle) if calibrate else None
    indices = readable(source, indices, asked, bundle, say)
    if validation is not None:
        own, chosen = validation
        chosen = readable(own, chosen, asked, bundle, say)
        indices = _not_among(own, chosen, source, indices, asked, say)
        bundle = choose_thresholds_of(bundle, own, chosen)
        say(f"thresholds chosen on {len(chosen):,} validation images; kept in {bundle.path}")
    batch_size, drawn = bundle.config["eval"]["batch_size"], bundle.config["eval"]["bootstrap"]
    batches = EvalBatches(source, indices, bundle.preprocessing, batch_size)
    scores, logits, truth = evaluate_several(bundle, batches, source, indices, bootstrap=drawn)
    if review is not None:
        doubts = mistakes_of_several(logits, truth, bundle.class_thresholds, indices, bundle.classes)
        _review(Path(review), asked, bundle, source, doubts, say)
    return bundle, scores


def evaluate_labels(
    asked: Asked, labels: str | Path, taxonomy: str | Path | None = None, say: Say = lambda line: None
) -> dict[str, dict[str, Any]]:
    """Scores a model on a folder whose labels are not its classes.

    Args:
        asked: the model, and the folder with a subfolder for each label.
        labels: CSV file that says what the labels mean, see `load_label_map`; where it knows several sources, the
            folder's name says which.
        taxonomy: as for `evaluate_model`.
        say: is told what is left out.

    Returns:
        The folder's name -> its scores, see `score_by_source`.

    Raises:
        UserError: something is not there, unreadable, or a label has no meaning.
    """
    bundle = load_bundle(asked.model or default_bundle(), taxonomy)
    bundle.needs_one_label("--labels")
    models = [asked.model] if asked.model else []
    source, unseen = explained_images(asked, labels, models, [bundle], say)
    indices = readable(source, unseen, asked, bundle, say)
    source = source.select(indices)
    meant = meant_by(source, bundle.classes, str(asked.data), labels)
    tell_uncalibrated(bundle.path, bundle.thresholds, say)
    logits = answers_to(bundle, source, np.arange(len(source)))
    return score_meant(logits, meant, bundle.temperature, bundle.thresholds, bundle.bins_or_own)


def _foreign(
    asked: Asked, ood: str | Path | None, config: Mapping[str, Any], say: Say
) -> tuple[Source | None, str]:
    """Returns images that show none of the classes, if there are any, and what to call them."""
    if ood:
        source = open_images(ood, "--ood")
        source.tell_notes(say)
        return source, Path(ood).resolve().name
    names = config["data"].get("leave_out", ())
    if not names:
        return None, ""
    manifest = None if asked.data else manifest_of(asked.model)
    source = open_data(asked.data, "--data", Reading.of(config)) if asked.data else own_source(config)
    if not set(names) <= set(source.classes):
        return None, ""
    kept = load_kept(manifest.parent) if manifest else None
    try:
        foreign = images_of(source, names) if kept is None else kept.held_out_in(source)
    except ConfigError as error:
        raise UserError(f"{error}; were the run's images moved? Give their folder as --data") from None
    chosen = held_out(source, foreign, names, changes_asked(asked, source))
    if not len(chosen):
        return None, ""
    return source.select(chosen), f"left out of training: {', '.join(names)}"


def _check_own(bundle: Bundle) -> None:
    """Raises a UserError where a bundle is not to be changed."""
    if bundle.path.resolve() == FOLDER.resolve():
        raise UserError(
            "--calibrate: would change the bundled model; make it yours by `wastejax export --format=bundle "
            "--out=mine`, and give --model=mine"
        )
    check_folder(bundle.path, "--calibrate: --model")


def _calibrate(
    asked: Asked,
    bundle: Bundle,
    validation: tuple[Source, np.ndarray],
    scored: tuple[Source, np.ndarray],
    say: Say,
) -> tuple[Calibration, np.ndarray]:
    """Calibrates a bundle, and returns which of the images to be scored, int64 [N], it is then to be scored on."""
    own, chosen = validation
    chosen = readable(own, chosen, asked, bundle, say)
    indices = _not_among(own, chosen, *scored, asked, say)
    calibration = calibrate_bundle(bundle, own, chosen)
    say(f"calibrated on {len(chosen):,} validation images; kept in {bundle.path}")
    return calibration, indices


def _validation_images(asked: Asked, bundle: Bundle) -> tuple[Source, np.ndarray]:
    """Returns the validation images of the run, or of the folder that is given, to calibrate the bundle on."""
    advice = "give some with --data"
    if asked.data:
        advice = "put some in a folder val/ beside test/, or in a CSV file with a column split"
    none = UserError(f"--calibrate: {asked.data or asked.model} has no val images; {advice}")
    try:
        source, indices = asked_images(replace(asked, split="val"), bundle.config)
    except NoSplitError:
        raise none from None
    match_classes(bundle.classes, source.classes)
    if not len(indices):
        raise none
    return source, indices


def _not_among(
    own: Source, chosen: np.ndarray, source: Source, indices: np.ndarray, asked: Asked, say: Say
) -> np.ndarray:
    """Returns which images to score after a calibration: those that it does not see, unless others were asked for.

    Args:
        own: the source of the images to calibrate on; it may lack some of `source`.
        chosen: int64 [K], which of them.
        source: the images to score.
        indices: int64 [N], which of them.
        asked: whether a split was asked for.
        say: is told what is left out, or that the scores flatter.
    """
    used = np.isin([source.names[i] for i in indices], [own.names[i] for i in chosen])
    if not used.any():
        return indices
    rest, count = indices[~used], f"{used.sum():,} of {len(indices):,} images are those to calibrate on"
    if asked.split or not len(one_class(source, rest)):
        say(f"note: {count}: the scores flatter")
        return indices
    say(f"note: {count}: they are left out (--split=val scores them)")
    return rest
