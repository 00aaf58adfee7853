"""Measures everything that is said about speed: experiments/results/speed/*.json, its figures, and speed.md.

Command: python experiments/speed.py [--rows=infer,train,…] [--peer_python=FILE] [--rounds=15]
FILE is a Python with torch, timm and torchvision (and onnxruntime, openvino), as `make_goldens.py` uses one. Wants
a quiet machine for an hour. Each row is one benchmark and is kept: started again, it goes on with those missing.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.provenance import head

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results" / "speed"

NETWORKS = ("mobilevit_s", "mobilevit_s_ir", "efficientnetv2_s", "efficientnetv2_s_eca", "efficientnetv2_b0")
TIMMS = ("efficientnetv2_b0", "mobilevit_s", "efficientnetv2_s")  # that timm has too
EVERY_RECIPE = (
    "mobilevit_s,mobilevit_s_ir,mobilevit_s_conv5,efficientnetv2_s,efficientnetv2_s_eca,efficientnetv2_s_glu,"
    "efficientnet_lite0,pyramidnet_110_a48,swin_t"
)
# One table each; a row is (name, flags). A row of one network takes the memory of one.
ROWS: dict[str, list[tuple[str, list[str]]]] = {
    "infer": [
        (f"infer_{name}", [f"--models={name}", "--batch_sizes=1,32", "--against=stock,timm,onnx,openvino"])
        for name in NETWORKS
    ],
    "train": [
        (
            f"train_{name}",
            # A turn of several steps: the first after another runtime's finds the caches cold, and is not counted.
            [f"--models={name}", "--mode=train", "--batch_sizes=16", "--against=stock,timm", "--seconds=4"],
        )
        for name in NETWORKS
    ],
    # Beside timm alone, eager and by torch.compile: the best of its forms counts.
    "compiled": [
        *(
            (f"compiled_{name}", [f"--models={name}", "--batch_sizes=1,32", "--against=timm"])
            for name in TIMMS
        ),
        *(
            (
                f"compiled_train_{name}",
                [f"--models={name}", "--mode=train", "--batch_sizes=16", "--against=timm"],
            )
            for name in TIMMS
        ),
    ],
    "study": [
        ("study_mobilevit", ["--models=mobilevit_s,mobilevit_s_ir,mobilevit_s_conv5", "--batch_sizes=1,32"]),
        (
            "study_efficientnetv2",
            [
                "--models=efficientnetv2_s,efficientnetv2_s+attention=eca+fused_attention=eca,efficientnetv2_s_eca,"
                "efficientnetv2_s_glu",
                "--batch_sizes=1,32",
            ],
        ),
    ],
    "resolution": [
        (
            "resolution",
            ["--models=mobilevit_s,mobilevit_s_ir", "--sizes=128,192,256,320,384,448,512", "--batch_sizes=1"],
        )
    ],
    "recipes": [
        ("recipes", [f"--models={EVERY_RECIPE}", "--batch_sizes=1"]),
        # The bundled model, at its size.
        ("shipped", ["--models=efficientnet_lite2", "--sizes=256", "--batch_sizes=1"]),
    ],
    "data": [
        (
            "data",
            [
                "--data=drawn",
                "--models=mobilevit_xxs_ir,efficientnetv2_b0,mobilevit_s",
                "--sizes=128,256",
                "--batch_sizes=16",
            ],
        )
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", default=",".join(ROWS), help="tables, or rows of them (default: %(default)s)"
    )
    parser.add_argument("--peer_python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--anew", action="store_true", help="measure also what is there already")
    args = parser.parse_args()
    wanted = args.rows.split(",")
    for table, rows in ROWS.items():
        for name, flags in rows:
            if {table, name} & set(wanted) and (args.anew or not (RESULTS / f"{name}.json").is_file()):
                measure(name, flags, args)
    write_tables()


def measure(name: str, flags: list[str], args: argparse.Namespace) -> None:
    """Runs one benchmark in a process of its own, and keeps its numbers and figures; all of them or none."""
    print(f"== {name}", flush=True)
    commit = head()
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "wastejax.main", "benchmark", *flags, f"--rounds={args.rounds}"]
        subprocess.run(
            [*command, f"--out={folder}", f"--peer_python={args.peer_python}"], check=True, cwd=ROOT
        )
        (written,) = Path(folder).glob("*.json")
        result = json.loads(written.read_text())
        command[0] = "python"
        result["about"] |= {"commit": commit[:12], "command": " ".join(command)}
        RESULTS.mkdir(parents=True, exist_ok=True)
        for figure in Path(folder).glob("*.png"):
            shutil.copyfile(figure, RESULTS / f"{name}_{figure.name}")
        # Last: the JSON says that the row is done.
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def write_tables() -> None:
    """Writes speed.md from the rows that there are."""
    text = [
        "# Speed",
        "",
        "Made by `python experiments/speed.py`; the JSON files beside it hold every round.",
        "",
    ]
    for table, rows in ROWS.items():
        found = [(name, RESULTS / f"{name}.json") for name, _ in rows]
        results = [(name, json.loads(path.read_text())) for name, path in found if path.is_file()]
        if not results:
            continue
        text += [f"## {table}", "", "Commands, and where they ran:", ""]
        text += [
            f"- `{about['command']}`: {about['device']}, {about['threads']} threads, {about['date'][:10]}, "
            f"commit {about['commit']}"
            for about in (result["about"] for _, result in results)
        ]
        busy = [name for name, result in results if any("busy" in note for note in result["about"]["notes"])]
        if busy:
            text += ["", f"Measured on a busy machine, so trust the ratios alone: {', '.join(busy)}."]
        text += [
            "",
            *(data_table if table == "data" else network_table)([result for _, result in results]),
            "",
        ]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "speed.md").write_text("\n".join(text))
    print(f"written: {RESULTS / 'speed.md'}")


def network_table(results: list[dict]) -> list[str]:
    """Returns Markdown: latencies with frames per second, then ratios, then what could not be measured."""
    lines = [
        "| network | runtime | px | batch | ms p50 | p90 | images/s | GMACs | parameters | MiB temporary "
        "| MiB at most | s compiling |"
    ]
    lines += ["|---" * 12 + "|"]
    for row in (row for result in results for row in result["cases"]):
        ms, memory, most = row["ms"], row.get("temporary_mib"), row.get("peak_mib")
        cost = f"{row['gmacs']:.2f} | {row['parameters']:,}" if "gmacs" in row else " | "
        lines.append(
            f"| {row['model']} | {row['runtime']} {row['form']} | {row['size']} | {row['batch']} "
            f"| {ms['p50']:.1f} | {ms['p90']:.1f} | {row['images_per_second']:.1f} | {cost} "
            f"| {'' if memory is None else round(memory)} | {'' if most is None else round(most)} "
            f"| {format(row['compile_s'] + row.get('trace_s', 0), '.0f') if 'compile_s' in row else ''} |"
        )
    lines += [
        "",
        "| time of | over that of | batch | px | ratio | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for row in (row for result in results for row in result["ratios"]):
        of, to = row["of"], row["to"]
        value = row.get("not_comparable", "")
        if not value:
            value = f"{row['value']:.3f} | {row['low']:.3f} to {row['high']:.3f}"
        names = f"| {of['model']} {of['runtime']} | {to['model']} {to['runtime']}"
        lines.append(f"{names} | {of['batch']} | {of['size']} | {value} |")
    missing = {
        f"{r['model']} {r['runtime']} {r.get('form', '')}".strip() + f": {r['why']}"
        for result in results
        for r in result["missing"]
    }
    return lines + (["", "Not measured: " + "; ".join(sorted(missing)) + "."] if missing else [])


def data_table(results: list[dict]) -> list[str]:
    """Returns Markdown of the data pipeline."""
    lines = [
        "| format | way | images/s | time over that from files | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['format']} | {row['what']} | {row['images_per_second']:.0f} | {row['value']:.3f} | "
        f"{row['low']:.3f} to {row['high']:.3f} |"
        for result in results
        for row in result["pipeline"]
    ]
    lines += [
        "",
        "Training with data, against training on one fixed batch in memory:",
        "",
        "| network | px | batch | of the rate | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['model']} | {row['size']} | {row['batch']} | {row['rate']:.1%} "
        f"| {row['low']:.1%} to {row['high']:.1%} |"
        for result in results
        for row in result["feeding"]
    ]
    missing = {f"{r['what']}: {r['why']}" for result in results for r in result["missing"]}
    return lines + (["", "Not measured: " + "; ".join(sorted(missing)) + "."] if missing else [])


if __name__ == "__main__":
    main()
