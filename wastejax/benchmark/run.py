"""A benchmark of networks: what is compared is alike in all but network and runtime, and takes turns."""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from wastejax.benchmark import networks, peers, report
from wastejax.benchmark.about import facts
from wastejax.benchmark.networks import Case
from wastejax.benchmark.timing import Runner, Settings, interleave
from wastejax.models import check
from wastejax.models.cost import image_size
from wastejax.progress import Say

STEPS_BEFORE, STEPS = 2, 2  # of training, before its memory is counted and while it is


def grouped(
    configs: Mapping[str, Mapping[str, Any]],
    runtimes: Sequence[str],
    modes: Sequence[str],
    dtypes: Sequence[str],
    sizes: Sequence[int],
    batch_sizes: Sequence[int],
) -> list[list[Case]]:
    """Returns every combination, in groups that are alike in all but network and runtime.

    Args:
        configs: name -> config of each network.
        runtimes: of 'jax' and its rivals.
        modes: of 'infer' and 'train'.
        dtypes: of 'float32' and 'bfloat16'.
        sizes: sides of the images, pixels; 0 for each network's usual one.
        batch_sizes: images at once.

    Raises:
        ConfigError: a network cannot be had at that size.
    """
    groups: dict[Any, list[Case]] = {}
    for mode, dtype, size, batch in product(modes, dtypes, sizes, batch_sizes):
        for model, runtime in product(configs, runtimes):
            side = size or image_size(configs[model])
            check(configs[model], side)
            case = Case(model, side, batch, dtype, mode, runtime)
            # With every network at its own size, all are still measured in turns.
            groups.setdefault((size, batch, dtype, mode), []).append(case)
    return list(groups.values())


def benchmark_networks(groups: Sequence[Sequence[Case]], settings: Settings, say: Say) -> dict[str, Any]:
    """Returns what was measured: `about` the machine, and of each group what `measure` returns; says it too."""
    result: dict[str, Any] = {"about": facts(settings.threads), "cases": [], "ratios": [], "missing": []}
    for note in result["about"]["notes"]:
        say(f"note: {note}")
    for group in groups:
        part = measure(group, settings, say)
        if group[0].mode == "train":
            for row in part["cases"]:
                row["peak_mib"] = peak_of(row, settings)
        report.show(part, say)
        for key, rows in part.items():
            result[key] += rows
    result["about"]["load_after"] = os.getloadavg()[0]
    return result


def measure(
    cases: Sequence[Case], settings: Settings, say: Say, together: int = 1
) -> dict[str, list[dict[str, Any]]]:
    """Times the cases of one group, interleaved.

    Args:
        cases: alike in all but model and runtime.
        settings: how.
        say: prints a line.
        together: how many are prepared at once; more than one make the times of compiling longer.

    Returns:
        `cases`: a row each, with latency and facts; `ratios`: of the first model to each other, and of each to its
        peers; `missing`: what could not be run, and why.
    """
    runners: dict[tuple[Any, str], Runner] = {}
    about: dict[Any, dict[str, Any]] = {}
    missing = []
    with ExitStack() as stack, ThreadPoolExecutor(together) as pool:

        def prepare(case: Case) -> tuple[dict[str, Runner], dict[str, Any], dict[str, str]]:
            say(f"preparing {case}: {case.size} px, batch {case.batch}, {case.dtype}, {case.mode}")
            if case.runtime in peers.OURS:
                runner, facts = networks.prepare(case)
                return {"": runner}, facts, {}
            try:
                peer = stack.enter_context(_peer(case, settings, stack))
            except peers.PeerError as error:
                return {}, {}, {"": str(error)}
            return {form: partial(peer.run, form) for form in peer.forms}, peer.about, peer.without

        prepared = pool.map(prepare, cases) if together > 1 else map(prepare, cases)
        for case, (forms, about[case], without) in zip(cases, prepared, strict=True):
            runners |= {(case, form): runner for form, runner in forms.items()}
            missing += [_missing(case, form, why) for form, why in without.items()]
        names = {f"{case} {form}": (case, form) for case, form in runners}
        times = interleave(
            {name: runners[names[name]] for name in names},
            settings.rounds,
            settings.seconds,
            lambda done: say(f"round {done} of {done}") if done == settings.rounds else None,
            lambda name, why: missing.append(_missing(*names[name], why)),
        )
    return report.rows({names[name]: t for name, t in times.items()}, about) | {"missing": missing}


def _missing(case: Case, form: str, why: str) -> dict[str, Any]:
    """Returns the row of what could not be run."""
    return report.key(case) | ({"form": form} if form else {}) | {"why": why}


def peak_of(row: Mapping[str, Any], settings: Settings) -> float | None:
    """Returns the most memory of a process that takes steps of a measured case and does nothing else, MiB.

    That is the process's resident set, with Python, the runtime and what compiling has left in it; on a card, the
    card's memory. Counted from the third step on: compiling takes several times as much.
    """
    case, python = Case(**report.identity(row)), settings.peer_python
    if case.runtime in peers.OURS:
        python = sys.executable
    try:
        with peers.Peer(case, settings.threads, python, form=row["form"]) as process:
            process.run(row["form"], STEPS_BEFORE)
            return process.peak(row["form"], STEPS)
    except peers.PeerError:  # it ran before; what it takes alone is then not known
        return None


def _peer(case: Case, settings: Settings, stack: ExitStack) -> peers.Peer:
    """Returns the peer of a case; those that run files get ours, exported."""
    if case.runtime == "timm":
        return peers.Peer(case, settings.threads, settings.peer_python)
    from wastejax.benchmark.exported import export  # here, since it needs what only the extra `export` has

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return peers.Peer(case, settings.threads, settings.peer_python, **export(case, folder))
