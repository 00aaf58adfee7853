"""`wastejax benchmark`: how fast networks are on this machine, against each other and against other runtimes."""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from wastejax.benchmark.about import facts
from wastejax.errors import UserError, nearest
from wastejax.files import check_folder, write_json

Say = Callable[[str], None]

AGAINST = ("stock", "timm", "onnx", "openvino")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    add = parser.add_argument
    add(
        "--models",
        default="mobilevit_s,mobilevit_s_ir",
        metavar="A,B",
        help="of the models command, also NAME+key=value",
    )
    add("--sizes", default="", metavar="N,M", help="sides of the images (default: each model's usual)")
    add("--batch-sizes", default="1,32", metavar="N,M", help="images at once (default: %(default)s)")
    add("--dtypes", default="float32", metavar="T,U", help="float32, bfloat16")
    add("--mode", default="infer", metavar="M,N", help="infer, train (an optimizer step)")
    add("--against", default="", metavar="A,B", help=f"other runtimes: {', '.join(AGAINST)}")
    add("--peer-python", default=sys.executable, metavar="FILE", help="the Python that has them")
    add("--threads", type=int, metavar="N", help="processor cores for everything (default: all)")
    add("--rounds", type=int, default=15, metavar="N", help="turns for each (default: %(default)s)")
    add("--seconds", type=float, default=0.5, metavar="S", help="length of a turn (default: %(default)s)")
    add("--reports", default="", metavar="MODEL=JSON,…", help="report.json of runs: latency against accuracy")
    add("--data", metavar="DIR", help="instead: the data pipeline, on these images or 'drawn'")
    add("--out", metavar="DIR", help="write benchmark.json and figures there")


def run(args: Any, say: Say) -> None:
    """Measures and prints; see `add_arguments` for what `args` holds.

    Raises:
        UserError: an argument makes no sense.
    """
    if args.out:
        check_folder(args.out, "--out")
    threads = _use_threads(args.threads)
    # Before jax starts: a program from the cache would tell nothing about the time that compiling takes.
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    if args.data:
        from wastejax.benchmark.data import run as run_data

        run_data(args, threads, say)
        return
    from wastejax.benchmark import report
    from wastejax.benchmark.networks import Case, config_of
    from wastejax.models import check
    from wastejax.models.cost import image_size

    configs = {model: config_of(model) for model in args.models.split(",")}
    modes = _listed("--mode", args.mode, ("infer", "train"))
    dtypes = _listed("--dtypes", args.dtypes, ("float32", "bfloat16"))
    against = _listed("--against", args.against, AGAINST) if args.against else []
    sizes = _numbers("--sizes", args.sizes) if args.sizes else [0]
    reports = report.load_scores(args.reports)
    groups: dict[Any, list[Case]] = {}
    for mode, dtype, size, batch in product(
        modes, dtypes, sizes, _numbers("--batch-sizes", args.batch_sizes)
    ):
        for model, runtime in product(configs, ["jax", *against]):
            side = size or image_size(configs[model])
            check(configs[model], side)
            case = Case(model, side, batch, dtype, mode, runtime)
            # With every model at its own size, all are still measured in turns.
            groups.setdefault((size, batch, dtype, mode), []).append(case)
    result: dict[str, Any] = {"about": facts(threads), "cases": [], "ratios": [], "missing": []}
    for note in result["about"]["notes"]:
        say(f"note: {note}")
    for group in groups.values():
        part = measure(group, threads, args, say)
        report.show(part, say)
        for key, rows in part.items():
            result[key] += rows
    result["about"]["load_after"] = os.getloadavg()[0]
    if args.out:
        folder = Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "benchmark.json", result)
        report.draw(result, reports, folder)
        say(f"written: {folder}")


def measure(cases: list[Any], threads: int, args: Any, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Times the cases of one group, interleaved.

    Args:
        cases: alike in all but model and runtime.
        threads: that each may use.
        args: read are rounds, seconds and peer_python.
        say: prints a line.

    Returns:
        `cases`: a row each, with latency and facts; `ratios`: of the first model to each other, and of each to its
        peers; `missing`: what could not be run, and why.
    """
    from wastejax.benchmark import networks, peers, report
    from wastejax.benchmark.timing import Runner, interleave

    runners: dict[tuple[Any, str], Runner] = {}
    about: dict[Any, dict[str, Any]] = {}
    missing = []
    with ExitStack() as stack:
        for case in cases:
            say(f"preparing {case}: {case.size} px, batch {case.batch}, {case.dtype}, {case.mode}")
            if case.runtime in ("jax", "stock"):
                runners[case, ""], about[case] = networks.prepare(case)
                continue
            try:
                peer = stack.enter_context(_peer(case, threads, args.peer_python, stack))
                about[case] = peer.about
                runners |= {(case, form): partial(peer.run, form) for form in peer.forms}
            except peers.PeerError as error:
                missing.append(report.key(case) | {"why": str(error)})
        names = {f"{case} {form}": (case, form) for case, form in runners}
        times = interleave(
            {name: runners[names[name]] for name in names},
            args.rounds,
            args.seconds,
            lambda done: say(f"round {done} of {args.rounds}") if done == args.rounds else None,
        )
    return report.rows({names[name]: t for name, t in times.items()}, about) | {"missing": missing}


def _peer(case: Any, threads: int, python: str, stack: ExitStack) -> Any:
    """Returns the peer of a case; those that run files get ours, exported."""
    from wastejax.benchmark import peers

    if case.runtime == "timm":
        return peers.Peer(case, threads, python)
    import tempfile

    from wastejax.benchmark.exported import export

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return peers.Peer(case, threads, python, **export(case, folder))


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
