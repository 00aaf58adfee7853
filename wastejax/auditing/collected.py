"""Images that a server has kept (`serve --collect`): a review page of them, and their way into class folders.

What the folder holds is told in `wastejax.deployment.server.collecting`, which writes it.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from wastejax.data.corrections import DROP, Row, load_corrections
from wastejax.data.sources import ReadFiles, Source, open_folder
from wastejax.errors import UserError, nearest
from wastejax.evaluation.report.review import NAME, Doubt, write_review
from wastejax.files import check_folder, user_path, write_bytes
from wastejax.progress import Say


def review_collected(
    collected: str | Path,
    out: str | Path,
    corrections: str | Path | None = None,
    say: Say = lambda line: None,
) -> Path:
    """Writes a review page of the images that a server has kept: the rejected ones first, the unsurest first.

    Args:
        collected: the folder of `serve --collect`.
        out: the folder for review.html.
        corrections: of an earlier review: what it has is not shown again, and saved again.
        say: is told what is written.

    Returns:
        The page.

    Raises:
        UserError: there are no such images, or `out` lies among them.
    """
    folder = Path(out)
    if folder.resolve().is_relative_to(user_path(collected).resolve()):
        raise UserError(f"--out={out}: lies in --collected, give another folder")
    check_folder(folder, "--out")
    source = open_folder(collected, "--collected")
    answers, classes = _answers(Path(source.origin))
    rows = load_corrections(corrections, "--corrections").named_as(source.names).rows if corrections else {}
    doubts = [
        _doubt(i, answers[Path(name).name])
        for i, name in enumerate(source.names)
        if Path(name).name in answers and name not in rows
    ]
    if not doubts:
        raise UserError(f"--collected={collected}: no image with an answer that is not reviewed yet")
    doubts.sort(key=lambda doubt: (doubt.why, doubt.own or 0.0))
    page = folder / NAME
    title = f"Review of what the server kept in {Path(collected).resolve().name}"
    count = write_review(page, title, source, doubts, classes, rows)
    say(f"written: {page}, {count:,} of {len(doubts):,} images, to review in a browser")
    return page


def _answers(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Returns what was answered, by the name of the image's file, and the model's classes."""
    answers: dict[str, dict[str, Any]] = {}
    classes: list[str] = []
    for path in sorted((folder / "answers").glob("*.json")):
        try:
            about = json.loads(path.read_bytes())
            if path.name == "model.json":
                classes = [str(name) for name in about["classes"]]
            else:
                answers[Path(about["file"]).name] = about
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # somebody's own file
    return answers, classes


def _doubt(index: int, answer: dict[str, Any]) -> Doubt:
    top = [(str(guess["class"]), float(guess["probability"])) for guess in answer["top"]]
    suggested, other = top[1] if len(top) > 1 else ("", 0.0)
    return Doubt(index, answer["why"], suggested, top[0][1], other if suggested else None)


def add_collected(
    collected: str | Path, corrections: str | Path, data: str | Path, say: Say = lambda line: None
) -> dict[str, int]:
    """Copies reviewed images into class folders, each beside the images of its class.

    Nothing is overwritten: an image that was added before is left as it is.

    Args:
        collected: the folder of `serve --collect`.
        corrections: what a person has said of them; those that were not reviewed, or dropped, stay where they are.
        data: class folders; where they are split, the images go to train.
        say: is told how many.

    Returns:
        How many images were added to each class.

    Raises:
        UserError: a folder or the corrections are not there, or say a class that `data` lacks.
    """
    reviewed = load_corrections(corrections, "--corrections")
    kept, source = open_folder(collected, "--collected"), open_folder(data, "--data")
    reviewed = reviewed.named_as(kept.names)
    places = _places(source)
    rows = {name: row for name, row in reviewed.rows.items() if row.label != DROP}
    for row in rows.values():
        if row.label not in places:
            raise UserError(
                f"--corrections={corrections}: {row.file}: --data={data} has no class {row.label!r}"
                f"{nearest(row.label, places)}; a new class needs a folder with an image first"
            )
    wanted = [(i, rows[name]) for i, name in enumerate(kept.names) if name in rows]
    known = {Path(name).name: i for i, name in enumerate(source.names)}
    added: Counter[str] = Counter()
    there = 0
    for index, row in wanted:
        name = Path(row.file).name
        if name in known:
            there += 1
            _warn_moved(known[name], source, row, say)
            continue
        write_bytes(places[row.label] / name, kept.read(index))
        added[row.label] += 1
    say(f"added {added.total():,} images to {data}" + (f"; {there:,} were there already" if there else ""))
    gone = len(rows) - len(wanted)
    if gone:
        say(f"note: {gone:,} reviewed images are not in {collected} any more")
    return dict(added)


def _places(source: Source) -> dict[str, Path]:
    """Returns the folder in which most images of each class lie, of those in train where the data are split."""
    read = source.read
    assert isinstance(read, ReadFiles)  # a folder's; names are how files are called, not where they lie
    folders: dict[str, Counter[Path]] = {name: Counter() for name in source.classes}
    for i, path in enumerate(read.paths):
        if source.splits is None or source.splits[i] == "train":
            folders[source.classes[source.labels[i]]][(read.root / path).parent] += 1
    places = {name: found.most_common(1)[0][0] for name, found in folders.items() if found}
    return {name: folder for name, folder in places.items() if folder.is_dir()}


def _warn_moved(index: int, source: Source, row: Row, say: Say) -> None:
    label = source.label_name(index)
    if label != row.label:
        say(
            f"note: {source.names[index]} is there as {label}, and was reviewed as {row.label}: move it yourself"
        )
