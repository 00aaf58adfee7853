"""The audit as one HTML file with small images of the worst cases, which are the user's: it stays with them."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.auditing.findings import Audit, LabelError
from wastejax.data.images import BadImage, decode
from wastejax.data.sources import Source
from wastejax.files import write_text

THUMBNAIL = 112  # longest side, pixels
MAX_ROWS = 24  # of each contact sheet
MAX_PER_ROW = 10
MAX_LISTED = 50

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#1f2933}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}table{border-collapse:collapse}
td,th{padding:.15rem .8rem .15rem 0;text-align:left;border-bottom:1px solid #e4e7eb;vertical-align:top}
.bar{background:#0072b2;height:.7rem}.row{display:flex;flex-wrap:wrap;gap:.6rem;margin:.5rem 0;padding:.5rem;
background:#f5f7fa}figure{margin:0;width:7.5rem}figcaption{font-size:.7rem;overflow-wrap:anywhere;color:#52606d}
.note{color:#52606d}
"""


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
    titled = [
        ("Unreadable files", _listed(f"{name}: {why}" for name, why in facts["unreadable"].items())),
        ("Unusual files", _odd(facts["files"])),
        ("Classes", _classes(facts["classes"])),
        ("Copies with different labels", _sheet(source, found.conflicts())),
        ("Likely label errors", _errors(source, errors)),
        ("Largest groups of near-duplicates", _sheet(source, found.groups_of_several())),
        ("Mirrored copies", _sheet(source, found.mirrored)),
        ("Cropped copies", _sheet(source, found.cropped)),
    ]
    body = "".join(f"<h2>{escape(title)}</h2>{content}" for title, content in titled)
    write_text(
        path,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Audit</title><style>{STYLE}</style>'
        f"<h1>Audit of {facts['num_files']:,} files in {facts['num_classes']} classes</h1>"
        f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in headlines(facts))}</ul>{body}</html>\n",
    )


def headlines(facts: Mapping[str, Any]) -> list[str]:
    """Returns the findings that matter most, one line each, of what `audit.summary` returned."""
    near, leaks = facts["near_duplicates"], facts["leaks"]
    lines = [*facts["notes"]]
    if facts["fixed_camera"]:
        lines.append(
            f"{len(facts['fixed_camera']):,} images look like copies of each other and yet differ: a fixed camera, "
            "or one ground behind small objects? Only those of the same bytes are counted as near-duplicates"
        )
    lines += [
        f"unreadable files: {len(facts['unreadable']):,}",
        f"byte-identical copies: {facts['exact_copies']['num_images']:,} files in "
        f"{facts['exact_copies']['num_groups']:,} groups",
        f"near-duplicates: {near['num_images']:,} of {facts['num_readable']:,} images in {near['num_groups']:,} "
        f"groups (the largest of {near['largest']:,}); {facts['num_distinct']:,} images are distinct",
        f"of these mirrored pairs: {len(facts['mirrored']):,}, cropped pairs: {len(facts['cropped']):,}",
        f"groups of copies with different labels: {len(facts['label_conflicts']):,} (of "
        f"{facts['across_classes']['pairs_by_hash']:,} pairs across classes with near hashes, the pixels confirm "
        f"{facts['across_classes']['confirmed_by_pixels']:,})",
        f"classes: from {facts['classes']['smallest']:,} to {facts['classes']['largest']:,} images",
        f"a plain random split puts a near-duplicate of {leaks['random_split']['share']:.1%} of the test images "
        "into train",
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


def _classes(classes: Mapping[str, Any]) -> str:
    most = max(classes["largest"], 1)
    rows = [
        f"<tr><td>{escape(name)}<td>{c['num_readable']:,}<td>{c['num_distinct']:,}"
        f"<td>{escape(', '.join(f'{d} {n:,}' for d, n in c['domains'].items()))}"
        f'<td style="width:14rem"><div class="bar" style="width:{100 * c["num_readable"] / most:.0f}%"></div>'
        for name, c in classes["by_name"].items()
    ]
    return f"<table><tr><th>class<th>images<th>distinct<th>domains<th>{''.join(rows)}</table>"


def _odd(files: Mapping[str, Any]) -> str:
    side = files["shorter_side"]
    kinds = ", ".join(f"{name} {n:,}" for name, n in {**files["formats"], **files["modes"]}.items())
    odd = "".join(
        f"<h3>{escape(what)}: {len(names):,}</h3>{_listed(names)}" for what, names in files["odd"].items()
    )
    return (
        f"<p>{escape(kinds)}; {files['num_sizes']:,} different sizes, shorter side {side['smallest']:,} to "
        f"{side['largest']:,} pixels.</p>{odd}"
    )


def _errors(source: Source, errors: Sequence[LabelError] | None) -> str:
    if errors is None:
        return '<p class="note">Not looked for: give a model with --model.</p>'
    cells = [
        _picture(
            source,
            e.picture,
            f"labeled {source.classes[source.labels[e.picture]]} ({e.own:.0%}), looks like "
            f"{source.classes[e.suggested]} ({e.other:.0%})",
        )
        for e in errors[: MAX_ROWS * 4]
    ]
    return _of(len(cells), len(errors)) + (f'<div class="row">{"".join(cells)}</div>' if cells else "")


def _sheet(source: Source, groups: Sequence[np.ndarray] | np.ndarray) -> str:
    """Shows groups of images (arrays of indices), one row each."""
    rows = []
    for group in groups[:MAX_ROWS]:
        cells = [_picture(source, int(i), source.classes[source.labels[i]]) for i in group[:MAX_PER_ROW]]
        more = f"<figure>and {len(group) - MAX_PER_ROW:,} more</figure>" if len(group) > MAX_PER_ROW else ""
        rows.append(f'<div class="row">{"".join(cells)}{more}</div>')
    return _of(len(rows), len(groups)) + "".join(rows)


def _picture(source: Source, index: int, caption: str) -> str:
    try:
        image = decode(source.read(index), min_side=THUMBNAIL)
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        data = io.BytesIO()
        image.save(data, "JPEG", quality=70)
        url = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
        shown = f'<img src="{url}" alt="">'
    except (BadImage, OSError):
        shown = "(unreadable)"
    label = f"<b>{escape(caption)}</b><br>{escape(source.names[index])}"
    return f"<figure>{shown}<figcaption>{label}</figcaption></figure>"


def _listed(lines: Iterable[str]) -> str:
    lines = list(lines)
    items = "".join(f"<li>{escape(line)}" for line in lines[:MAX_LISTED])
    return _of(min(len(lines), MAX_LISTED), len(lines)) + (f"<ul>{items}</ul>" if items else "")


def _of(shown: int, total: int) -> str:
    if not total:
        return '<p class="note">None.</p>'
    return (
        "" if shown == total else f'<p class="note">{shown:,} of {total:,} are shown; audit.json has all.</p>'
    )
