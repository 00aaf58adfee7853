"""What a folder, a span of time or a video is made of: `predict --summary=DIR`."""

import importlib.util
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.data.images import time_taken
from wastejax.data.taxonomy import materials_of
from wastejax.deployment.answers import csv_line
from wastejax.deployment.predictor import Predictor
from wastejax.errors import MissingPackage, UserError
from wastejax.evaluation.composition import Shares, doubts, estimate, grouped, stored_confusion
from wastejax.files import write_json, write_text
from wastejax.progress import Say, number_of

FILES = ("summary.json", "summary.csv", "summary.png", "summary.html")
KINDS = ("class", "bin", "material")
_OTHER = "other"
KEPT = (
    "correcting would add more noise than it removes bias, so the shares are plain counts, with intervals that "
    "allow for the model's confusions"
)


class Counted:
    """Counts answers as they pass.

    Attributes:
        labels: of the first answer of each image, or of each object.
        probabilities: of all classes, one row an image; none of objects.
        rejected: answers below the threshold; they count all the same.
        unreadable: images.
    """

    def __init__(self) -> None:
        self.labels: Counter[str] = Counter()
        self.probabilities: list[np.ndarray] = []
        self.rejected = 0
        self.unreadable = 0

    @property
    def all_probabilities(self) -> np.ndarray | None:
        """Float32 [N, C], of all that was counted; None where these are not known of each."""
        known = len(self.probabilities) == self.labels.total() > 0
        return np.stack(self.probabilities) if known else None

    def watch(self, rows: Iterable[Any]) -> Iterator[Any]:
        """Yields answers of images or of regions as they are, and counts them."""
        for row in rows:
            if row.error:
                self.unreadable += 1
            elif hasattr(row, "regions"):
                self.labels.update(region.label for region in row.regions)
            elif row.guesses:
                self.labels[row.guesses[0].label] += 1
                if row.probabilities:
                    self.probabilities.append(np.array(row.probabilities, np.float32))
                self.rejected += row.rejected
            yield row


def summarize(predictor: Predictor, counted: Counted, about: dict[str, Any]) -> dict[str, Any]:
    """Returns what was seen: shares of classes, bins and materials with 95 % intervals, JSON-ready.

    Args:
        predictor: the model that answered; its folder says what it confuses.
        counted: its answers.
        about: what was looked at; comes first.

    Raises:
        UserError: nothing was counted.
    """
    if not counted.labels:
        raise UserError(
            "--summary: there is nothing to count: no image could be read, or no object was found"
        )
    classes = predictor.classes
    confusion = stored_confusion(predictor.path, len(classes))
    counts = np.array([counted.labels[name] for name in classes])
    of_class = {
        "class": {name: name for name in classes},
        "bin": {name: predictor.bin_of(name) or _OTHER for name in classes},
        "material": dict.fromkeys(classes, _OTHER) | materials_of(classes),
    }
    names = {kind: list(dict.fromkeys(found.values())) for kind, found in of_class.items()}
    probabilities = counted.all_probabilities
    shares = estimate(
        counts,
        confusion,
        [grouped(names[kind], of_class[kind], classes) for kind in KINDS],
        probabilities=probabilities,
    )
    corrected = shares[0].corrected is not None
    weight = shares[0].weight if corrected else None
    return about | {
        "model": predictor.name,
        "counted": int(counts.sum()),
        "rejected": counted.rejected,
        "unreadable": counted.unreadable,
        "corrected": corrected,
        "confusion": None
        if confusion is None
        else {
            "images": confusion.origin,
            "num_images": int(confusion.counts.sum()),
            "condition": round(confusion.condition, 2),
            "weight": None if weight is None else round(weight, 4),
        },
        "notes": [
            *doubts(confusion, classes, probabilities is not None),
            *([KEPT] if weight == 0 else []),
        ],
        "shares": {
            kind: _rows(names[kind], of_class[kind], counted, found)
            for kind, found in zip(KINDS, shares, strict=True)
        },
    }


def _rows(
    names: Sequence[str], of_class: dict[str, str], counted: Counted, shares: Shares
) -> list[dict[str, Any]]:
    """Returns one row per name, the largest share first."""
    rows = []
    for k, name in enumerate(names):
        row: dict[str, Any] = {
            "name": name,
            "count": sum(n for label, n in counted.labels.items() if of_class.get(label) == name),
            "plain": round(float(shares.plain[k]), 6),
            "plain_ci95": [round(float(x), 6) for x in shares.plain_ci95[k]],
        }
        if shares.corrected is not None and shares.corrected_ci95 is not None:
            row["share"] = round(float(shares.corrected[k]), 6)
            row["ci95"] = [round(float(x), 6) for x in shares.corrected_ci95[k]]
        else:
            row["share"], row["ci95"] = row["plain"], row["plain_ci95"]
        rows.append(row)
    return sorted(rows, key=lambda row: (-row["share"], -row["count"]))


def check_packages() -> None:
    """Raises a MissingPackage where what a summary is written with is not there, as on a small device."""
    for package in ("matplotlib", "jinja2"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackage("--summary", package, None)


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Writes `FILES` into a folder, which is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FILES[0], summary)
    lines = [csv_line("kind", "name", "share", "low", "high", "count", "plain", "plain_low", "plain_high")]
    for kind, rows in summary["shares"].items():
        for row in rows:
            cells = (row["share"], *row["ci95"], row["count"], row["plain"], *row["plain_ci95"])
            lines.append(csv_line(kind, row["name"], *cells))
    write_text(folder / FILES[1], "".join(f"{line}\r\n" for line in lines))
    draw(summary, folder / FILES[2])
    write_text(folder / FILES[3], to_html(summary))


def draw(summary: dict[str, Any], path: Path, most: int = 20) -> None:
    """Draws bars of the shares with their intervals, at most `most` names each."""
    from wastejax.evaluation.report import plots

    parts = {
        kind: [row for row in rows if row["share"] or row["count"]][:most]
        for kind, rows in summary["shares"].items()
    }
    lines = [len(rows) + 1 for rows in parts.values()]
    size = 8, 1.5 + 0.28 * sum(lines)
    with plots.drawing(path, size, len(parts), height_ratios=lines) as (_, axes):
        for ax, (kind, rows) in zip(axes, parts.items(), strict=True):
            names = [row["name"].replace("_", " ") for row in rows]
            share = np.array([row["share"] for row in rows])
            ends = np.array([row["ci95"] for row in rows])
            error = np.maximum([share - ends[:, 0], ends[:, 1] - share], 0)
            ax.barh(names, 100 * share, xerr=100 * error, color=plots.BLUE, capsize=2)
            if summary["corrected"]:
                counted = [100 * row["plain"] for row in rows]
                ax.plot(counted, names, "d", color=plots.RED, label="by plain counting")
            ax.invert_yaxis()
            ax.set_title(f"by {kind}", loc="left")
            ax.set_xlim(left=0)
        axes[-1].set_xlabel("share of what was counted, % (95 % interval)")
        if summary["corrected"]:
            axes[0].legend(loc="lower right")


def to_html(summary: dict[str, Any]) -> str:
    """Returns a page that holds all of it, its figure beside it."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True
    )
    return environment.get_template("summary.html").render(summary=summary, figure=FILES[2])


def taken_at(path: str | Path) -> tuple[datetime, bool]:
    """Returns when an image was taken by its EXIF data, or else when its file was last written; local time.

    Returns:
        The time, and whether it is that of the EXIF data.

    Raises:
        OSError: there is no such file.
    """
    try:
        return datetime.strptime(time_taken(path), "%Y:%m:%d %H:%M:%S"), True
    except ValueError:  # none, or a camera whose clock was never set
        return datetime.fromtimestamp(Path(path).stat().st_mtime), False


def parse_time(text: str | None, option: str, end: bool = False) -> datetime | None:
    """Returns a day or a time as it is given on the command line; None where nothing is.

    Args:
        text: 2026-11-29, or 2026-11-29T14:30.
        option: for messages.
        end: a day means its end.

    Raises:
        UserError: it is neither.
    """
    if text is None:
        return None
    try:
        if "W" in text.upper():  # a week, which would be read as its first day
            raise ValueError
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"{option}={text}: give a day or a time, as 2026-11-29 or 2026-11-29T14:30") from None
    try:
        if time.tzinfo is not None:
            time = time.astimezone().replace(tzinfo=None)
        return time + timedelta(days=1) if end and len(text) <= len("2026-11-29") else time
    except (OverflowError, ValueError, OSError):
        raise UserError(
            f"{option}={text}: no clock shows this time; leave {option} off for no limit"
        ) from None


def within(
    names: Sequence[str], start: datetime | None, end: datetime | None, say: Say = lambda line: None
) -> list[str]:
    """Returns those of some images that were taken from `start` on and before `end`.

    Args:
        names: of files.
        start: None for no limit.
        end: likewise.
        say: is told how many images are judged by the time of their file.

    Raises:
        UserError: there are none.
    """
    if start is None and end is None:
        return list(names)
    kept, by_file = [], 0
    for name in names:
        try:
            time, exif = taken_at(name)
        except OSError:
            kept.append(name)  # reading it tells why it cannot be read
            continue
        by_file += not exif
        if (start is None or start <= time) and (end is None or time < end):
            kept.append(name)
    if by_file:
        say(
            f"--from, --to: by when the file was last written for {by_file:,} of {number_of(len(names), 'image')}, "
            "where EXIF tells no time"
        )
    if not kept:
        was = "was" if len(names) == 1 else "were"
        raise UserError(f"--from, --to: none of {number_of(len(names), 'image')} {was} taken then")
    return kept
