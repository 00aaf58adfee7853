"""The page of what `experiments/gpu.py` measured."""

from collections.abc import Iterable, Mapping
from typing import Any

from wastejax.evaluation.report.markdown import percent, table

# The study's own times on a T4, milliseconds.
STUDY_MS = {
    "efficientnetv2_s": 1586,
    "efficientnetv2_s+attention=eca+fused_attention=eca": 879,
    "efficientnetv2_s_eca": 629,
    "mobilevit_s": 4.97,
    "mobilevit_s_ir": 4.27,
}


def page(content: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the page, of whatever rows there are."""
    about, rows = content["about"], content["rows"]
    lines = [
        "# On a GPU",
        "",
        f"Made by `{about['command']}`: {about['device']} ({about['backend']}), {about['hardware']}, "
        f"{about['date'][:10]}, commit {about['commit']}, jax {about['versions']['jax']}.",
        f"Networks were compiled {about['compiled_at_once']} at once, which makes each take longer.",
        "",
    ]
    for note in about["notes"]:
        lines += [f"Note: {note}.", ""]
    for kind, made in (
        ("agreement", agreement),
        ("study", study),
        ("recipes", recipes),
        ("train", training),
        ("fed", feeding),
        ("memory", memory),
    ):
        of_kind = {name: row for name, row in rows.items() if name.split()[0] == kind}
        if of_kind:
            lines += made(of_kind)
    missing = sorted({_missing(row) for row in _all(rows, "missing")})
    missing += [f"{name}: {why}" for name, why in content.get("failed", {}).items()]
    return [*lines, *(["Not measured: " + "; ".join(missing) + "."] if missing else [])]


def _missing(row: Mapping[str, Any]) -> str:
    return f"{row['model']} {row['runtime']} {row.get('form', '')}".strip() + f", {row['mode']}: {row['why']}"


def _all(rows: Mapping[str, Any], key: str) -> Iterable[Any]:
    return (entry for row in rows.values() for entry in row.get(key, []))


def _section(title: str, text: str, head: list[str], body: list[list[str]]) -> list[str]:
    return [f"## {title}", "", text, "", *table(head, body), ""]


def agreement(rows: Mapping[str, Any]) -> list[str]:
    """Returns the table of what card and CPU agree on."""
    (found,) = rows.values()
    body = [
        [r["model"], r["what"], f"{r['error']:.1e}", f"{r['limit']:g}", "yes" if r["within"] else "**no**"]
        for r in found["rows"]
    ]
    text = f"{found['devices'][1]} against {found['devices'][0]}, the same weights and images."
    return _section("Card and CPU agree", text, ["network", "what", "off by", "limit", "within"], body)


def study(rows: Mapping[str, Any]) -> list[str]:
    """Returns the table of the study's steps."""
    body = []
    for row in rows.values():
        before = next((c for c in row["cases"] if c["runtime"] == "jax"), None)
        for case in row["cases"]:
            ms, of = case["ms"]["p50"], STUDY_MS.get(case["model"]) if case["runtime"] == "jax" else None
            after = next((r for r in row["ratios"] if _is(r["of"], case) and _is(r["to"], before)), {})
            ours = next((r for r in row["ratios"] if _is(r["to"], case) and case["runtime"] != "jax"), {})
            body.append(
                [
                    f"`{case['model']}`",
                    f"{case['runtime']} {case['form']}".strip(),
                    str(case["batch"]),
                    f"{ms:.2f}",
                    _ratio(after),
                    _ratio(ours),
                    f"{of:g}" if of else "",
                ]
            )
            slower = case.get("slower_forms_ms", {})
            body += [
                [
                    f"`{case['model']}`",
                    f"{case['runtime']} {form}",
                    str(case["batch"]),
                    f"{t:.2f}",
                    "",
                    "",
                    "",
                ]
                for form, t in slower.items()
            ]
    text = "Float32. The study measured in PyTorch on a T4: its milliseconds are of another card and batch."
    head = ["network", "runtime", "batch", "ms", "over the first's", "our time over its", "the study, ms"]
    return _section("The study's steps", text, head, body)


def _ratio(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})" if "value" in row else ""


def _is(side: Mapping[str, Any], case: Mapping[str, Any] | None) -> bool:
    return case is not None and all(case[key] == value for key, value in side.items())


def recipes(rows: Mapping[str, Any]) -> list[str]:
    """Returns the table of every recipe's latency, and what compiling and memory it takes."""
    cases = list(_all(rows, "cases"))
    columns = sorted({(c["dtype"] == "bfloat16", c["batch"]) for c in cases})
    body = []
    for model in dict.fromkeys(c["model"] for c in cases):
        mine = {(c["dtype"] == "bfloat16", c["batch"]): c for c in cases if c["model"] == model}
        times = [f"{mine[key]['ms']['p50']:.2f}" if key in mine else "" for key in columns]
        last = mine[max(mine)]
        compiling = max(c["trace_s"] + c["compile_s"] for c in mine.values())
        temporary = [c["temporary_mib"] for c in mine.values() if c["temporary_mib"] is not None]
        most = f"{max(temporary):.0f}" if temporary else ""
        body.append([f"`{model}`", str(last["size"]), *times, f"{compiling:.0f}", most])
    names = [f"{'bfloat16' if half else 'float32'}, batch {batch}, ms" for half, batch in columns]
    head = ["network", "px", *names, "compiling, s at most", "MiB temporary at most"]
    return _section("Every recipe", "One answer to a batch that lies on the card.", head, body)


def training(rows: Mapping[str, Any]) -> list[str]:
    """Returns the table of training steps on a fixed batch."""
    body = []
    for row in rows.values():
        for case in row["cases"]:
            share = next((r for r in row["ratios"] if _is(r["to"], case) and case["runtime"] == "timm"), {})
            body.append(
                [
                    f"`{case['model']}`",
                    f"{case['runtime']} {case['form']}".strip(),
                    case["dtype"],
                    str(case["batch"]),
                    f"{case['images_per_second']:.0f}",
                    _ratio(share),
                    f"{case.get('trace_s', 0) + case['compile_s']:.0f}" if "compile_s" in case else "",
                ]
            )
    head = ["network", "runtime", "dtype", "batch", "images/s", "our time over its", "compiling, s"]
    return _section("Training steps", "AdamW, one batch that lies on the card.", head, body)


def feeding(rows: Mapping[str, Any]) -> list[str]:
    """Returns the table of training with data."""
    body = [
        [
            f"`{row['model']}`",
            str(row["size"]),
            str(row["batch"]),
            str(row["workers"]),
            f"{row['images_per_second']:.0f}",
            f"{percent(row['rate'])} ({percent(row['low'])} to {percent(row['high'])})",
        ]
        for row in rows.values()
    ]
    head = ["network", "px", "batch", "processes that read", "images/s, fixed batch", "with data"]
    return _section("Training fed with images", "From the decoded cache.", head, body)


def memory(rows: Mapping[str, Any]) -> list[str]:
    """Returns the table of memory."""
    body = []
    for name, row in rows.items():
        values = [row[side] for side in ("jax", "timm")]
        shown = ["" if value is None else f"{value:.0f}" for value in values]
        share = f"{values[0] / values[1]:.2f}" if all(values) else ""
        body.append([f"`{name.split()[1]}`", str(row["batch"]), *shown, share])
    head = ["network", "batch", "ours, MiB", "timm, MiB", "ours over timm's"]
    return _section("Memory of a training step", "The most at once, in a process of its own.", head, body)
