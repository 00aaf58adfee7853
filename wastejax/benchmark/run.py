"""A benchmark of networks: what is compared is alike in all but network and runtime, and takes turns."""

import os
import tempfile
from collections.abc import Mapping, Sequence
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
        report.show(part, say)
        for key, rows in part.items():
            result[key] += rows
    result["about"]["load_after"] = os.getloadavg()[0]
    return result


def measure(cases: Sequence[Case], settings: Settings, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Times the cases of one group, interleaved.

    Args:
        cases: alike in all but model and runtime.
        settings: how.
        say: prints a line.

    Returns:
        `cases`: a row each, with latency and facts; `ratios`: of the first model to each other, and of each to its
        peers; `missing`: what could not be run, and why.
    """
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
                peer = stack.enter_context(_peer(case, settings, stack))
                about[case] = peer.about
                runners |= {(case, form): partial(peer.run, form) for form in peer.forms}
            except peers.PeerError as error:
                missing.append(report.key(case) | {"why": str(error)})
        names = {f"{case} {form}": (case, form) for case, form in runners}
        times = interleave(
            {name: runners[names[name]] for name in names},
            settings.rounds,
            settings.seconds,
            lambda done: say(f"round {done} of {done}") if done == settings.rounds else None,
        )
    return report.rows({names[name]: t for name, t in times.items()}, about) | {"missing": missing}


def _peer(case: Case, settings: Settings, stack: ExitStack) -> peers.Peer:
    """Returns the peer of a case; those that run files get ours, exported."""
    if case.runtime == "timm":
        return peers.Peer(case, settings.threads, settings.peer_python)
    from wastejax.benchmark.exported import export  # here, since it needs what only the extra `export` has

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return peers.Peer(case, settings.threads, settings.peer_python, **export(case, folder))
