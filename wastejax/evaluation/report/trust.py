"""The part of report.md that says how far the answers can be trusted."""

from collections.abc import Mapping
from typing import Any

from wastejax.evaluation.report.markdown import percent, table


def trust_section(scores: Mapping[str, Any]) -> list[str]:
    """Returns the section's lines; none where the scores lack what `trust.score_trust` returns."""
    if "calibration" not in scores:
        return []
    return [
        "## How far to trust it",
        "",
        *_calibration(scores),
        "",
        *_selective(scores["selective"]),
        *(["", *_ood(scores["ood"])] if "ood" in scores else []),
    ]


def _calibration(scores: Mapping[str, Any]) -> list[str]:
    calibrated = scores["calibration"]
    if calibrated["temperature"] == 1:
        return [
            "A temperature, by which logits are divided before they become probabilities (Guo et al. 2017), made "
            "the model's confidence on the validation images no truer than chance would, so none is used. On the "
            f"test images its expected calibration error is {percent(scores['ece'])}."
        ]
    rows = [
        ("as trained", percent(scores["ece"]), f"{scores['loss']:.3f}"),
        (
            f"divided by {calibrated['temperature']:.3f}",
            percent(calibrated["ece"]),
            f"{calibrated['loss']:.3f}",
        ),
    ]
    return [
        "Logits are divided by a temperature, fitted on the validation images, before they become probabilities "
        "(Guo et al. 2017). It changes no answer, only how sure the model says it is; `predict` and exported files "
        "use it.",
        "",
        *table(("logits", "ECE", "loss"), rows),
        "",
        _conclusion(scores["ece"] - calibrated["ece"], scores["loss"] - calibrated["loss"]),
    ]


def _conclusion(ece: float, loss: float) -> str:
    """Says what the temperature gained on the test images."""
    if ece > 0 and loss > 0:
        return "On the test images too the model's confidence is truer with it."
    if ece <= 0 and loss <= 0:
        return (
            "On the test images the model's confidence is no truer with it: the validation images are too few, or "
            "of another kind. More of them, and `wastejax eval --calibrate`, may help."
        )
    return "On the test images it makes one of the two better and the other worse: take neither as sure."


def _selective(selective: Mapping[str, Any]) -> list[str]:
    rows = []
    for wanted, kept in selective["at"].items():
        if kept["accuracy"] is None:
            why = (
                "out of reach on the validation images"
                if kept["threshold"] is None
                else "no test image is that certain"
            )
            rows.append((f"{100 * float(wanted):g} %", "–", "none", why))
            continue
        low, high = map(percent, kept["coverage_ci95"])
        accurate = map(percent, kept["accuracy_ci95"])
        rows.append(
            (
                f"{100 * float(wanted):g} %",
                percent(kept["threshold"]),
                f"{percent(kept['coverage'])} ({low} to {high})",
                f"{percent(kept['accuracy'])} ({' to '.join(accurate)})",
            )
        )
    low, high = (f"{bound:.4f}" for bound in selective["aurc_ci95"])
    return [
        "An image whose answer is too uncertain can be left to a person. The thresholds are chosen on the "
        "validation images, so that the answers kept are right as often as wanted; what they do to the test images "
        "(in brackets 95 % bootstrap intervals):",
        "",
        *table(("right, as wanted", "least probability", "test images answered", "of these right"), rows),
        "",
        f"Area under the risk-coverage curve (AURC): {selective['aurc']:.4f} (95 % bootstrap interval {low} to "
        f"{high}), the mean share of wrong answers over all thresholds; 0 is best.",
    ]


def _ood(ood: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, score in ood["scores"].items():
        low, high = (f"{bound:.3f}" for bound in score["auroc_ci95"])
        rows.append(
            (name.replace("_", " "), f"{score['auroc']:.3f} ({low} to {high})", percent(score["fpr95"]))
        )
    rejected = [
        f"{percent(r['share'])} at the one for {100 * float(wanted):g} %"
        for wanted, r in ood["rejected"].items()
    ]
    return [
        f"{ood['num_images']:,} images show none of the classes ({ood['pictures']}). AUROC: the chance that such "
        "an image scores lower than a test image, 0.5 is guessing. FPR95: how many of them pass a threshold "
        "that 95 % of the test images pass.",
        "",
        *table(("score", "AUROC (95 % interval)", "FPR95"), rows),
        *(["", f"The thresholds above reject {', '.join(rejected)}."] if rejected else []),
    ]
