"""What a benchmark says: rows of numbers, a table on the terminal, figures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.benchmark.networks import Case
from wastejax.benchmark.timing import latency, ratio
from wastejax.errors import UserError, nearest
from wastejax.evaluation.report import plots
from wastejax.progress import Say

Row = dict[str, Any]
Rounds = Sequence[Sequence[float]]
FEWEST = 2  # points of a figure of latency against accuracy
KEYS = ("model", "runtime", "size", "batch", "dtype", "mode")


def key(case: Case) -> Row:
    """Returns what identifies a case, in the order of a table's columns."""
    return identity(asdict(case))


def identity(row: Mapping[str, Any]) -> Row:
    """Returns the fields of the case that a row is of."""
    return {name: row[name] for name in KEYS}


def rows(times: Mapping[tuple[Case, str], Rounds], about: Mapping[Case, Row]) -> dict[str, list[Row]]:
    """Returns rows of measured cases, and the ratios between them.

    Args:
        times: seconds of every call, a list per round, by case and form; of several forms the fastest counts.
        about: what else there is to say of a case; `device` where it runs.
    """
    best: dict[Case, tuple[str, Rounds]] = {}
    for (case, form), rounds in times.items():
        if case not in best or latency(rounds)["p50"] < latency(best[case][1])["p50"]:
            best[case] = form, rounds
    cases = []
    for case, (form, rounds) in best.items():
        others = {f: latency(r)["p50"] for (c, f), r in times.items() if c == case and f != form}
        more = {"slower_forms_ms": others} if others else {}
        cases.append(_row(case, form, rounds, more | about[case]))
    ratios = []
    ours = [case for case in best if case.runtime == "jax"]
    for case in best:
        base = ours[0] if case.runtime == "jax" else next(c for c in ours if c.model == case.model)
        if case == base:
            continue
        of, to = (case, base) if case.runtime == "jax" else (base, case)
        row: Row = {"of": key(of), "to": key(to)}
        devices = [about[c]["device"] for c in (of, to)]
        if (devices[0] == "cpu") == (devices[1] == "cpu"):
            row |= ratio(best[of][1], best[to][1])._asdict()
        else:
            row["not_comparable"] = f"one on {devices[0]}, the other on {devices[1]}"
        ratios.append(row)
    return {"cases": cases, "ratios": ratios}


def _row(case: Case, form: str, rounds: Rounds, about: Row) -> Row:
    ms = latency(rounds)
    return key(case) | {
        "form": form,
        "ms": ms,
        "images_per_second": case.batch / ms["p50"] * 1e3,
        "rounds": len(rounds),
        "calls": sum(len(r) for r in rounds),
        "round_ms": [round(float(np.median(r)) * 1e3, 3) for r in rounds],
        **about,
    }


def show(part: Mapping[str, Sequence[Row]], say: Say) -> None:
    """Prints the table of one group."""
    wide = max((len(row["model"]) for row in part["cases"]), default=5)
    say(
        f"{'model':{wide}} {'runtime':22} {'size':>4} {'batch':>5} {'ms p50':>9} {'p90':>8} {'p99':>8} "
        f"{'images/s':>8} {'GMACs':>7} {'MiB temp':>8} {'compile s':>9} {'MiB peak':>8}"
    )
    for row in part["cases"]:
        ms, runtime = row["ms"], f"{row['runtime']} {row['form']}".strip()
        line = f"{row['model']:{wide}} {runtime:22} {row['size']:4} {row['batch']:5} "
        line += f"{ms['p50']:9.2f} {ms['p90']:8.2f} {ms['p99']:8.2f} {row['images_per_second']:8.1f}"
        compiling = row["compile_s"] + row.get("trace_s", 0) if "compile_s" in row else None
        more = ((row.get("gmacs"), "7.3f"), (row.get("temporary_mib"), "8.0f"), (compiling, "9.1f"))
        for value, form in (*more, (row.get("peak_mib"), "8.0f")):
            line += " " + (" " * int(form.partition(".")[0]) if value is None else format(value, form))
        say(line.rstrip())
    for row in part["ratios"]:
        of, to = row["of"], row["to"]
        names = f"{of['model']} {of['runtime']} / {to['model']} {to['runtime']}, {of['mode']}, batch {of['batch']}"
        if "not_comparable" in row:
            say(f"  {names}: not comparable, {row['not_comparable']}")
        else:
            say(
                f"  {names}: {row['value']:.3f} of the time (95 % interval {row['low']:.3f} to {row['high']:.3f})"
            )
    for row in part["missing"]:
        runtime = f"{row['runtime']} {row.get('form', '')}".strip()
        say(f"  not measured: {row['model']} {runtime}, {row['mode']}: {row['why']}")


def load_scores(reports: str, models: Sequence[str]) -> dict[str, float]:
    """Returns top-1 by model, from `MODEL=report.json,…`.

    Args:
        reports: see above.
        models: that are measured, as they were given: `NAME` or `NAME+key=value+…`.

    Raises:
        UserError: a part is not of that form or names another model, or the file is no report.
    """
    scores = {}
    for part in filter(None, reports.split(",")):
        # The name may hold equals signs itself, and begin with another of the names.
        named = [model for model in models if part.startswith(f"{model}=")]
        model, equals, path = part.partition("=")
        if named:
            model = max(named, key=len)
            path = part.removeprefix(f"{model}=")
        elif equals:
            raise UserError(f"--reports: {part!r} begins with none of --models{nearest(model, models)}")
        else:
            raise UserError(f"--reports={reports}: {part!r} is not MODEL=report.json")
        try:
            content = json.loads(Path(path).read_text())
            scores[model] = float(content.get("test", content)["top1"])
        except (OSError, ValueError, KeyError, AttributeError):
            raise UserError(f"--reports: {path}: not a report.json of a run") from None
    return scores


def draw(result: Mapping[str, Any], scores: Mapping[str, float], folder: Path) -> list[Path]:
    """Draws one bar chart per group; latency against size and against accuracy where there is something to see.

    Returns:
        The files written.
    """

    def group(row: Row) -> tuple[str, str, int]:
        return row["mode"], row["dtype"], row["batch"]

    written = []
    for (mode, dtype, batch), members in groupby(sorted(result["cases"], key=group), key=group):
        cases = list(members)
        name = f"{mode}_{dtype}_b{batch}.png"
        if len({row["size"] for row in cases}) > 1 and len(cases) > len({row["model"] for row in cases}):
            written.append(latency_by_size(cases, folder / f"latency_by_size_{name}"))
        else:
            written.append(bars(cases, folder / f"latency_{name}"))
        known = [row for row in cases if row["model"] in scores and row["runtime"] == "jax"]
        if len(known) >= FEWEST:
            written.append(latency_by_accuracy(known, scores, folder / f"accuracy_{name}"))
    return written


def bars(cases: Sequence[Row], path: Path) -> Path:
    """Draws the median latency of each case, with the range of its rounds' middle 80 %."""
    labels = [f"{row['model']}, {row['runtime']}" for row in cases]
    middle = np.array([row["ms"]["p50"] for row in cases])
    low, high = (np.array([np.percentile(row["round_ms"], q) for row in cases]) for q in (10, 90))
    with plots.drawing(path, (7.2, 0.9 + 0.28 * len(cases))) as (_, ax):
        colors = [plots.BLUE if row["runtime"] == "jax" else plots.MUTED for row in cases]
        spread = np.maximum([middle - low, high - middle], 0)
        ax.barh(
            labels, middle, xerr=spread, color=colors, height=0.65, error_kw={"lw": 1, "ecolor": plots.INK}
        )
        ax.invert_yaxis()
        for y, row in enumerate(cases):
            ax.annotate(f" {row['ms']['p50']:.1f}", (max(middle[y], high[y]), y), va="center", fontsize=7)
        ax.set(title=_title(cases[0]), xlabel="milliseconds")
        ax.margins(x=0.12)
    return path


def latency_by_size(cases: Sequence[Row], path: Path) -> Path:
    """Draws median latency against the side of the images, both axes logarithmic, a line per model."""
    with plots.drawing(path, (4.8, 3.4)) as (_, ax):
        colors = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.RED, plots.INK, plots.MUTED)
        lines = sorted({(row["model"], row["runtime"]) for row in cases})
        for i, (model, runtime) in enumerate(lines):
            points = sorted(
                (row["size"], row["ms"]["p50"])
                for row in cases
                if (row["model"], row["runtime"]) == (model, runtime)
            )
            label = model if runtime == "jax" else f"{model}, {runtime}"
            ax.plot(*zip(*points, strict=True), marker="o", ms=3, color=colors[i % len(colors)], label=label)
        sizes = sorted({row["size"] for row in cases})
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.set(title=_title(cases[0]), xlabel="side of the image, pixels", ylabel="milliseconds")
        ax.grid(True)
        ax.legend()
    return path


def latency_by_accuracy(cases: Sequence[Row], scores: Mapping[str, float], path: Path) -> Path:
    """Draws a point per model: median latency and top-1 accuracy."""
    with plots.drawing(path, (4.8, 3.4)) as (_, ax):
        for row in cases:
            point = row["ms"]["p50"], 100 * scores[row["model"]]
            ax.plot(*point, "o", color=plots.BLUE, ms=5)
            ax.annotate(row["model"], point, xytext=(4, 4), textcoords="offset points", fontsize=7)
        ax.set(title=_title(cases[0]), xlabel="milliseconds", ylabel="top-1 accuracy (%)")
        ax.margins(0.2)
        ax.grid(True)
    return path


def _title(row: Row) -> str:
    what = "one training step" if row["mode"] == "train" else "inference"
    return f"{what}, batch {row['batch']}, {row['dtype']}"
