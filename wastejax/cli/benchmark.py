"""`wastejax benchmark`: how fast networks are on this machine, against each other and against other runtimes."""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from wastejax.cli import only, options
from wastejax.errors import UserError, nearest
from wastejax.files import check_folder, write_json
from wastejax.progress import Say

AGAINST = ("stock", "timm", "onnx", "openvino")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = options(parser)
    add(
        "--models",
        "A,B",
        "names from `wastejax models`, also NAME+key=value",
        default="mobilevit_s,mobilevit_s_ir",
    )
    add("--sizes", "N,M", "image sizes in pixels (default: each model's own)", default="")
    add("--batch-sizes", "N,M", "batch sizes (default: 1,32; with --data 32)", default="")
    add("--dtypes", "T,U", "float32, bfloat16", default="float32")
    add("--mode", "M,N", "infer, train (one optimizer step)", default="infer")
    add("--against", "A,B", f"other runtimes: {', '.join(AGAINST)}", default="")
    add("--peer-python", "FILE", "the Python in which they are installed", default=sys.executable)
    add("--threads", "N", "number of processor cores (default: all)", type=int)
    add("--rounds", "N", "number of turns for each (default: %(default)s)", type=int, default=15)
    add("--seconds", "S", "seconds per turn (default: %(default)s)", type=float, default=0.5)
    add(
        "--reports", "MODEL=JSON,…", "report.json files of runs, to plot latency against accuracy", default=""
    )
    add("--data", "DIR", "time the data pipeline instead, on these images or on 'drawn'")
    add("--out", "DIR", "folder for benchmark.json and figures")


def run(args: argparse.Namespace, say: Say) -> None:
    """Measures, prints and writes."""
    if args.out:
        check_folder(args.out, "--out")
    if args.rounds < 1 or not 0 < args.seconds < float("inf"):
        raise UserError(f"--rounds={args.rounds} --seconds={args.seconds:g}: must be >= 1 and > 0")
    names = {"dtypes": "float32", "mode": "infer", "against": "", "reports": ""}
    only(args, not args.data, "without --data", **names)
    only(args, bool(args.out), "with --out, for its figure", reports="")
    if shutil.which(args.peer_python) is None:
        raise UserError(f"--peer-python={args.peer_python}: is no program; give the path of a Python")
    threads = _use_threads(args.threads)
    # Before jax starts: a program from the cache would tell nothing about the time that compiling takes.
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the others need the card's memory too
    from wastejax.benchmark.timing import Settings

    settings = Settings(threads, args.rounds, args.seconds, args.peer_python)
    measured = _data(args, settings, say) if args.data else _networks(args, settings, say)
    if args.out:
        say(f"written: {measured}")


def _data(args: argparse.Namespace, settings: Any, say: Say) -> Path:
    from wastejax.benchmark.data import benchmark_data, trained

    sizes = _numbers("--sizes", args.sizes) if args.sizes else [0]
    batch_sizes = _numbers("--batch-sizes", args.batch_sizes or "32")
    cases = trained(args.models.split(","), sizes, batch_sizes)
    result = benchmark_data(args.data, cases, settings, say)
    folder = Path(args.out or "")
    if args.out:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "data.json", result)
    return folder


def _networks(args: argparse.Namespace, settings: Any, say: Say) -> Path:
    from wastejax.benchmark import report
    from wastejax.benchmark.networks import config_of
    from wastejax.benchmark.run import benchmark_networks, grouped

    configs = {model: config_of(model) for model in args.models.split(",")}
    modes = _listed("--mode", args.mode, ("infer", "train"))
    dtypes = _listed("--dtypes", args.dtypes, ("float32", "bfloat16"))
    against = _listed("--against", args.against, AGAINST) if args.against else []
    sizes = _numbers("--sizes", args.sizes) if args.sizes else [0]
    scores = report.load_scores(args.reports, list(configs))
    if scores and len(scores) * len(sizes) < report.FEWEST:
        say("note: no figure of latency against accuracy: --reports names fewer than two of --models")
    batch_sizes = _numbers("--batch-sizes", args.batch_sizes or "1,32")
    groups = grouped(configs, ["jax", *against], modes, dtypes, sizes, batch_sizes)
    result = benchmark_networks(groups, settings, say)
    folder = Path(args.out or "")
    if args.out:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "benchmark.json", result)
        report.draw(result, scores, folder)
    return folder


def _use_threads(threads: int | None) -> int:
    """Keeps this process, and those it starts, to so many cores; must come before jax. Returns how many."""
    if not hasattr(os, "sched_setaffinity"):
        return threads or os.cpu_count() or 1
    mine = sorted(os.sched_getaffinity(0))
    if threads is None:
        return len(mine)
    if not 1 <= threads <= len(mine):
        raise UserError(f"--threads={threads}: this process has {len(mine)} cores")
    os.sched_setaffinity(0, mine[:threads])
    return threads


def _listed(flag: str, text: str, choices: Any) -> list[str]:
    words = [word for word in text.split(",") if word]
    for word in words:
        if word not in choices:
            raise UserError(f"{flag}={text}: no such choice {word!r}{nearest(word, choices)}")
    if not words:
        raise UserError(f"{flag}={text}: give at least one of {', '.join(choices)}")
    return words


def _numbers(flag: str, text: str) -> list[int]:
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UserError(f"{flag}={text}: give positive whole numbers, such as {flag}=1,32")
    return numbers
