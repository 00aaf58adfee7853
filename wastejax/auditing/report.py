"""The audit as one HTML file with small images of the worst cases, which are the user's: it stays with them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from wastejax.auditing.findings import Audit, LabelError
from wastejax.data.sources import Source
from wastejax.evaluation.report.review import thumbnail
from wastejax.files import write_text

THUMBNAIL = 112  # longest side, pixels
MAX_ROWS = 24  # of each contact sheet
MAX_PER_ROW = 10
MAX_LISTED = 50
TEMPLATES = Path(__file__).parent / "templates"


def write_html(
    path: Path, found: Audit, facts: Mapping[str, Any], errors: Sequence[LabelError] | None
) -> None:
    """Writes the report.

    Args:
        path: the file; replaced if it is there.
        found: by `audit.audit`.
        facts: by `audit.summary`.
        errors: likely label errors, the clearest first; None where no model was asked.
    """
    source = found.source
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,  # names of files and classes are anybody's
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    ).get_template("report.html")
    text = page.render(
        facts=facts,
        headlines=headlines(facts),
        most_listed=MAX_LISTED,
        unreadable=[f"{name}: {why}" for name, why in facts["unreadable"].items()],
        kinds=[*facts["files"]["formats"].items(), *facts["files"]["modes"].items()],
        largest=max(facts["classes"]["largest"], 1),
        before=[("Copies with different labels", *_sheet(source, found.conflicts()))],
        errors=None if errors is None else [_error(source, error) for error in errors[: MAX_ROWS * 4]],
        num_errors=len(errors or ()),
        after=[
            ("Largest groups of near-duplicates", *_sheet(source, found.groups_of_several())),
            ("Mirrored copies", *_sheet(source, found.mirrored)),
            ("Cropped copies", *_sheet(source, found.cropped)),
        ],
    )
    write_text(path, text)


def headlines(facts: Mapping[str, Any]) -> list[str]:
    """Returns the findings that matter most, one line each, of what `audit.summary` returned."""
    near, leaks = facts["near_duplicates"], facts["leaks"]
    lines = [*facts["notes"]]
    if facts["fixed_camera"]:
        lines.append(
            f"{len(facts['fixed_camera']):,} images look like copies of each other but differ: a fixed camera, "
            "or the same background behind small objects? Of these, only byte-identical ones count as "
            "near-duplicates"
        )
    lines += [
        f"unreadable files: {len(facts['unreadable']):,}",
        f"byte-identical copies: {facts['exact_copies']['num_images']:,} files in "
        f"{facts['exact_copies']['num_groups']:,} groups",
        f"near-duplicates: {near['num_images']:,} of {facts['num_readable']:,} images, in {near['num_groups']:,} "
        f"groups of at most {near['largest']:,}; distinct images: {facts['num_distinct']:,}",
        f"of these, mirrored pairs: {len(facts['mirrored']):,}, cropped pairs: {len(facts['cropped']):,}",
        f"groups of copies with different labels: {len(facts['label_conflicts']):,}",
        f"images per class: {facts['classes']['smallest']:,} to {facts['classes']['largest']:,}",
        f"in a plain random split, {leaks['random_split']['share']:.1%} of the test images have a near-duplicate "
        "in train",
    ]
    if leaks["given_splits"] is not None:
        lines += [
            f"the given split: {part['leaked']:,} of {part['num_images']:,} {name} images have a near-duplicate "
            "in train"
            for name, part in leaks["given_splits"].items()
        ]
    if facts["label_errors"] is not None:
        lines.append(f"likely label errors: {len(facts['label_errors']):,}")
    return lines


def _sheet(source: Source, groups: Sequence[Iterable[int]] | np.ndarray) -> tuple[list[dict[str, Any]], int]:
    """Returns the first groups of images (arrays of indices), a row each, and how many groups there are."""
    rows = []
    for group in map(list, groups[:MAX_ROWS]):
        cells = [_cell(source, int(i), source.classes[source.labels[i]]) for i in group[:MAX_PER_ROW]]
        rows.append({"cells": cells, "more": max(0, len(group) - MAX_PER_ROW)})
    return rows, len(groups)


def _error(source: Source, error: LabelError) -> dict[str, str]:
    label, suggested = source.classes[source.labels[error.image]], source.classes[error.suggested]
    caption = f"labeled {label} ({error.own:.0%}), looks like {suggested} ({error.other:.0%})"
    return _cell(source, error.image, caption)


def _cell(source: Source, index: int, caption: str) -> dict[str, str]:
    """Returns an image as a data URL, '' where it cannot be read, with what to write below it."""
    return {"url": thumbnail(source, index, THUMBNAIL), "caption": caption, "name": source.names[index]}
