"""The part of report.md that says how far the answers can be trusted."""

from collections.abc import Mapping
from typing import Any

from wastejax.evaluation.report.markdown import render


def trust_section(scores: Mapping[str, Any]) -> list[str]:
    """Returns the section's lines; none where the scores lack what `trust.score_trust` returns."""
    if "calibration" not in scores:
        return []
    return render("trust.md", scores=scores).splitlines()
