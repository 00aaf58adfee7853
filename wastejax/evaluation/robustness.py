"""`wastejax robustness`: how a model's accuracy falls as its pictures get worse, by kind and by degree."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wastejax.bundle import Bundle, load_bundle
from wastejax.data.pipeline import EvalBatches
from wastejax.data.sources import Source
from wastejax.data.split import SPLITS
from wastejax.errors import UserError, nearest
from wastejax.evaluation.corruptions import KINDS, corrupted
from wastejax.evaluation.evaluate import evaluate, match_classes
from wastejax.evaluation.metrics import bootstrap_interval, bootstrap_statistic
from wastejax.evaluation.pictures import asked_pictures, readable
from wastejax.evaluation.report.markdown import code, percent, table
from wastejax.evaluation.report.plots import BLUE, GREEN, ORANGE, RED, save, styled
from wastejax.files import check_folder, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Say = Callable[[str], None]
Point = tuple[str, float]  # kind and severity of a corruption
CLEAN: Point = ("rotation", KINDS["rotation"].clean)  # any kind's would do
COLORS = (BLUE, ORANGE, GREEN, RED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "--model", required=True, metavar="RUN_OR_BUNDLE", help="a run, or with --data a bundle"
    )
    parser.add_argument("--data", metavar="DIR", help="class folders (default: the run's test pictures)")
    parser.add_argument("--split", metavar="SPLIT", help="train, val or test (default: all of DIR, or test)")
    parser.add_argument("--out", required=True, metavar="DIR", help="for robustness.json, .md and .png")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only N pictures, evenly spread over all (default: all)"
    )
    parser.add_argument("--skip_bad", action="store_true", help="leave unreadable pictures out")


def run(args: Any, say: Say) -> None:
    """Measures, prints, and writes figure, JSON and Markdown.

    Args:
        args: model, data (or None), split (or None), out, limit (or None), skip_bad.
        say: prints a line.

    Raises:
        UserError: model or data are not there, unreadable, or do not fit each other.
    """
    if args.split not in (None, *SPLITS):
        raise UserError(f"--split={args.split}: no such split{nearest(args.split, SPLITS)}")
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit={args.limit}: must be at least 1")
    out = Path(args.out)
    check_folder(out, "--out")
    if args.data and out.resolve().is_relative_to(Path(args.data).expanduser().resolve()):
        raise UserError(f"--out={args.out}: lies in the data, where its figure would become data too")
    bundle = load_bundle(args.model)
    source, indices = asked_pictures(args, bundle.config["data"])
    match_classes(bundle.classes, source.classes)
    indices = readable(source, indices, args, bundle, say)
    available = len(indices)
    indices = spread(indices, args.limit)
    with _progress_bar() as progress:
        correct, labels = measure(bundle, source, indices, progress)
    result = {
        "model": Path(args.model).resolve().name,
        "data": Path(args.data or bundle.config["data"]["dir"] or "drawn").resolve().name,
        "available_images": available,
        **summary(correct, labels, bundle.classes),
    }
    out.mkdir(parents=True, exist_ok=True)
    draw({result["model"]: result}, out / "robustness.png")
    write_text(out / "robustness.md", "\n".join(report(result)) + "\n")
    write_json(out / "robustness.json", result)
    for line in headlines(result):
        say(line)
    say(f"written: {out / 'robustness.md'}, {out / 'robustness.json'}, {out / 'robustness.png'}")


def spread(indices: np.ndarray, limit: int | None) -> np.ndarray:
    """Returns at most `limit` of the indices, evenly spaced; pictures lie by class, so each keeps its share."""
    if limit is None or limit >= len(indices):
        return indices
    return indices[np.arange(limit) * len(indices) // limit]


def points() -> list[Point]:
    """Returns every corruption that is measured, the clean one first."""
    return [CLEAN, *((name, severity) for name, kind in KINDS.items() for severity in kind.severities)]


def measure(
    bundle: Bundle,
    source: Source,
    indices: np.ndarray,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[Point, np.ndarray], np.ndarray]:
    """Asks a model about the same pictures at every kind and severity of corruption.

    The decoded picture is corrupted; then comes the bundle's own preprocessing.

    Args:
        bundle: the model.
        source: the pictures.
        indices: int64 [N], which of them.
        progress: called with (done, total) corruptions.

    Returns:
        For each of `points()`, whether each answer is right, bool [N]; and the true classes, int [N], indices into
        the model's classes.

    Raises:
        UserError: there are no pictures.
    """
    correct, labels = {}, np.zeros(0, np.int32)
    for done, point in enumerate(points()):
        batches = EvalBatches(
            corrupted(source, *point), indices, bundle.preprocessing, bundle.config["eval"]["batch_size"]
        )
        answers = evaluate(bundle.logits, batches, source, bundle.classes, indices)
        labels = answers.labels
        correct[point] = answers.logits.argmax(axis=1) == labels
        progress(done + 1, len(points()))
    return correct, labels


def summary(
    correct: Mapping[Point, np.ndarray], labels: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Returns what the answers to corrupted pictures say about a model.

    Args:
        correct: see `measure`.
        labels: int [N], true classes.
        classes: the names of the model's classes.

    Returns:
        A dict ready for `json.dumps`; rates are fractions, intervals 95 % bootstrap intervals over pictures.
        `num_images`; `clean` {top1, ci95}; `relative_accuracy`, the mean over the kinds of the mean top-1 over
        their severities, divided by the clean top-1 (1: nothing is lost; every kind counts the same), with
        `relative_ci95`; `kinds` {kind: {unit, relative_accuracy, points: [{severity, top1, ci95}]}}; `per_class`
        {class: {num_images, clean, worst, kind, severity}}, the share recognised on clean pictures and under the
        corruption that hurts the class most.
    """
    clean = correct[CLEAN]
    kinds = {}
    for name, kind in KINDS.items():
        rows = [correct[name, severity] for severity in kind.severities]
        kinds[name] = {
            "unit": kind.unit,
            "relative_accuracy": relative_accuracy(np.stack([clean, *rows], 1), [len(rows)]),
            "points": [
                {"severity": severity, **_rate(row)}
                for severity, row in zip(kind.severities, rows, strict=True)
            ],
        }
    matrix = np.stack([correct[point] for point in points()], 1)
    sizes = [len(kind.severities) for kind in KINDS.values()]
    interval = bootstrap_statistic(lambda rows: relative_accuracy(rows, sizes), matrix)
    return {
        "num_images": len(labels),
        "clean": _rate(clean),
        "relative_accuracy": relative_accuracy(matrix, sizes),
        "relative_ci95": list(interval),
        "kinds": kinds,
        "per_class": _per_class(correct, labels, classes),
    }


def relative_accuracy(correct: np.ndarray, sizes: Sequence[int]) -> float:
    """Mean over the kinds of their mean accuracy, relative to clean pictures; 0 where none of these is right.

    Args:
        correct: bool [N, 1 + sum(sizes)], a row per picture; the clean answers, then those of kind after kind.
        sizes: how many severities each kind has.
    """
    rates = correct.mean(axis=0)
    of_kinds = [part.mean() for part in np.split(rates[1:], np.cumsum(sizes)[:-1])]
    return float(np.mean(of_kinds) / rates[0]) if rates[0] else 0.0


def _rate(correct: np.ndarray) -> dict[str, Any]:
    return {"top1": float(correct.mean()), "ci95": list(bootstrap_interval(correct))}


def _per_class(
    correct: Mapping[Point, np.ndarray], labels: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    rows = {}
    for label in np.unique(labels):
        mine = labels == label
        rates = {point: float(right[mine].mean()) for point, right in correct.items()}
        kind, severity = min(rates, key=lambda point: rates[point])
        rows[classes[label]] = {
            "num_images": int(mine.sum()),
            "clean": rates[CLEAN],
            "worst": rates[kind, severity],
            "kind": kind,
            "severity": severity,
        }
    return rows


def headlines(result: Mapping[str, Any]) -> list[str]:
    """Returns the result of `summary`, with `available_images`, in a few lines."""
    low, high = result["relative_ci95"]
    of_all = f" of {result['available_images']:,}" * (result["available_images"] > result["num_images"])
    lines = [
        f"{result['num_images']:,}{of_all} pictures; clean top-1 {result['clean']['top1']:.1%}",
        f"kept of it under corruption: {result['relative_accuracy']:.1%}  (95 % interval {low:.1%} to {high:.1%})",
    ]
    for name, kind in result["kinds"].items():
        worst = min(kind["points"], key=lambda point: point["top1"])
        lines.append(
            f"  {name:10} keeps {kind['relative_accuracy']:6.1%}; top-1 at worst {worst['top1']:.1%}, at "
            f"{label(name, worst['severity'])}"
        )
    return lines


def label(kind: str, severity: float, unit: bool = True) -> str:
    """Returns a severity for people: '45 degrees', '60 % of the area covered'."""
    of_kind = KINDS[kind]
    number = f"{100 * severity:g} %" if of_kind.percent else f"{severity:g}"
    if not unit:
        return number
    return f"{of_kind.unit} {number}" if kind == "jpeg" else f"{number} {of_kind.unit}"


def report(result: Mapping[str, Any]) -> list[str]:
    """Returns the lines of robustness.md; see `headlines` for the argument."""
    low, high = map(percent, result["relative_ci95"])
    clean = f"{percent(result['clean']['top1'])} ({' to '.join(map(percent, result['clean']['ci95']))})"
    part = f", of {result['available_images']:,}" * (result["available_images"] > result["num_images"])
    classes = sorted(result["per_class"].items(), key=lambda item: item[1]["worst"])
    return [
        f"# Robustness: {result['model']}",
        "",
        f"{result['num_images']:,} pictures of {result['data']}{part}. Top-1 on clean ones: {clean}; in brackets, "
        "here and below, 95 % bootstrap intervals.",
        "",
        f"Over all corruptions the model keeps **{percent(result['relative_accuracy'])}** ({low} to {high}) of it: "
        "the mean over the kinds of the mean accuracy over their severities, relative to clean pictures.",
        "",
        "![Accuracy by kind and severity](robustness.png)",
        "",
        "## By kind",
        "",
        *table(
            ("corruption", "keeps", "top-1 by severity"), [_row(*item) for item in result["kinds"].items()]
        ),
        "",
        "## By class",
        "",
        "The share recognised on clean pictures, and under the corruption that hurts the class most.",
        "",
        *table(
            ("class", "pictures", "clean", "worst", "under"),
            [
                (
                    code(name),
                    f"{row['num_images']:,}",
                    percent(row["clean"]),
                    percent(row["worst"]),
                    f"{row['kind']}, {label(row['kind'], row['severity'])}",
                )
                for name, row in classes
            ],
        ),
    ]


def _row(name: str, kind: Mapping[str, Any]) -> tuple[str, str, str]:
    cells = [
        f"{label(name, point['severity'], unit=False)}: {percent(point['top1'])} "
        f"({' to '.join(map(percent, point['ci95']))})"
        for point in kind["points"]
    ]
    return f"{name}, {kind['unit']}", percent(kind["relative_accuracy"]), "; ".join(cells)


def draw(
    results: Mapping[str, Mapping[str, Any]], path: Path | str, kinds: Sequence[str] = tuple(KINDS)
) -> "Figure":
    """Draws accuracy by severity with its intervals, one panel a kind, one curve a model.

    Args:
        results: see `summary`, by what to call them in the legend; at most four.
        path: where the PNG goes.
        kinds: which kinds.

    Returns:
        The figure, its axes in the order of `kinds`.
    """
    columns = min(4, len(kinds))
    rows = -(-len(kinds) // columns)
    with styled() as new_figure:
        legend_columns = max(1, columns // 2)
        legend_rows = -(-len(results) // legend_columns)
        figure = new_figure(figsize=(2.5 * columns, 2.3 * rows + 0.1 + 0.2 * legend_rows))
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for ax, name in zip(grid, kinds, strict=False):
            for (model, result), color in zip(results.items(), COLORS, strict=False):
                _curve(ax, name, result, color, model)
            ax.set_title(name)
            ax.set_xlabel(f"% {KINDS[name].unit}" if KINDS[name].percent else KINDS[name].unit)
            ax.set_ylim(0, 100)
            ax.grid(axis="y", linewidth=0.6)
        for ax in grid[len(kinds) :]:
            ax.axis("off")
        for ax in grid[::columns]:
            ax.set_ylabel("top-1 (%)")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=legend_columns)
        save(figure, path)
    return figure


def _curve(ax: "Axes", name: str, result: Mapping[str, Any], color: str, model: str) -> None:
    """Draws one model's accuracy under one kind of corruption, the clean pictures among them."""
    kind = KINDS[name]
    rows = [{"severity": kind.clean, **result["clean"]}, *result["kinds"][name]["points"]]
    rows.sort(key=lambda row: row["severity"])
    at = np.array([row["severity"] for row in rows]) * (100 if kind.percent else 1)
    low, high = 100 * np.array([row["ci95"] for row in rows]).T
    ax.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
    ax.plot(at, [100 * row["top1"] for row in rows], color=color, marker="o", markersize=3, label=model)


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Yields what shows (done, total) on the terminal; nothing is shown where there is none."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("corruptions", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
