"""Where the time of a network goes on this machine: experiments/results/speed/profile.json and profile.md.

Command: python experiments/profile_steps.py [--cases=mobilevit_s/train/16,…]
XLA's own trace of calls on one core, their operations summed up by what they are for. On several cores the trace
has only the start of what goes to other threads.
"""

import argparse
import collections
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.provenance import provenance

RESULTS = Path(__file__).resolve().parent / "results" / "speed"
CASES = (
    "mobilevit_s/train/16",
    "efficientnetv2_s/train/16",
    "efficientnetv2_b0/train/16",
    "efficientnetv2_b0/infer/32",
)
CALLS = 5  # what disturbs one of them is not in the median

# What an operation is for, by the end of its name in the traced program; the first that fits.
_1X1 = r"/(expand|project|embed|head)/(conv/)?(bn/)?cond/.*(conv_general_dilated|dot_general)$"
KINDS = (
    ("gradients of depthwise kernels", r"/depthwise_kernel_gradient/"),
    ("gradients of 1x1 kernels and linear layers", r"/linear_kernel_gradient/"),
    ("gradients of inputs, 1x1 convolutions", r"transpose\(jvp\(.*" + _1X1),
    ("gradients of dense convolutions", r"transpose\(jvp\(\)\)/conv_general_dilated$"),
    ("1x1 convolutions", _1X1),
    ("dense convolutions", r"conv_general_dilated$"),
    ("normalisation", r"(bn|norm\d?)/(cond/branch_0_fun/)?[a-z_]+$"),
    ("depthwise convolutions and paddings", r"(branch_0_fun/(pad|add|mul)|_pad\)/pad)$"),
    ("activations", r"jit\((silu|relu6?|clip)\)(/\w+)?$"),
    ("attention and linear layers", r"/mixer\d+/"),
    ("optimizer", r"jit\(train_step\)/\w+$"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases", default=",".join(CASES), help="network/mode/batch, … (default: %(default)s)"
    )
    args = parser.parse_args()
    from wastejax.runtime.process import with_huge_pages

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if "GLIBC_TUNABLES" not in os.environ:  # read as a process starts
        os.execve(
            sys.executable,
            [sys.executable, *sys.argv],
            os.environ | {"GLIBC_TUNABLES": with_huge_pages("")},
        )
    about = provenance(f"python experiments/profile_steps.py --cases={args.cases}")
    result = about | {"shares": {case: profile(case) for case in args.cases.split(",")}}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "profile.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "profile.md").write_text(markdown(result))


def profile(case: str) -> dict[str, float]:
    """Returns the share of each kind in the time of all operations of a call, each the median of several calls."""
    import jax

    from wastejax.benchmark import networks
    from wastejax.models.cost import image_size

    name, mode, batch = case.split("/")
    wanted = networks.Case(name, image_size(networks.config_of(name)), int(batch), mode=mode)
    model = networks.model_of(wanted)
    prepare = networks._train if mode == "train" else networks._infer
    jitted, arguments, call = prepare(wanted, model, model.init(jax.random.key(0), wanted.size))
    compiled = jitted.lower(*arguments).compile()
    one = call(compiled)
    for _ in range(3):
        one()
    names = dict(re.findall(r'%?([\w.\-]+) = .*?op_name="([^"]*)"', compiled.as_text()))
    measured: dict[str, list[float]] = collections.defaultdict(list)
    for _ in range(CALLS):
        for name, time in traced(one).items():
            if name in names:
                measured[name].append(time)
    times: collections.Counter[str] = collections.Counter()
    for name, each in measured.items():
        times[kind(names[name])] += statistics.median(each)
    total = sum(times.values())
    return {name: round(time / total, 4) for name, time in times.most_common()}


def traced(call: Callable[[], Any]) -> dict[str, float]:
    """Returns the nanoseconds of each operation in one call, by XLA's own trace."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(trace))
    times: collections.Counter[str] = collections.Counter()
    for line in (line for plane in data.planes for line in plane.lines):
        for name, time in own_times((e.start_ns, e.duration_ns, e.name) for e in line.events):
            times[name] += time
    return times


def own_times(events: Iterable[tuple[float, float, str]]) -> Iterator[tuple[str, float]]:
    """Yields each event's name and its time without that of the events inside it, as a loop has.

    Args:
        events: start, duration and name of what one thread did, in any order.
    """
    around: list[tuple[float, str, float]] = []  # end, name and own time of the events that are still open
    for start, duration, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while around and around[-1][0] <= start:
            yield around.pop()[1:]
        if around:
            end, outer, own = around.pop()
            around.append((end, outer, own - duration))
        around.append((start + duration, name, duration))
    yield from (event[1:] for event in around)


def kind(name: str) -> str:
    """Returns what an operation is for, by its name in the traced program."""
    return next((found for found, pattern in KINDS if re.search(pattern, name)), "the rest")


def markdown(result: Mapping[str, Any]) -> str:
    """Returns one table, a column for each case."""
    cases = list(result["shares"])
    kinds = list(dict.fromkeys(name for shares in result["shares"].values() for name in shares))
    rows = [
        [name, *(f"{result['shares'][case].get(name, 0):.1%}".replace("%", " %") for case in cases)]
        for name in sorted(kinds, key=lambda name: -max(s.get(name, 0) for s in result["shares"].values()))
    ]
    lines = [["share of the time of all operations", *cases], ["---"] * (len(cases) + 1), *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return (
        "# Where the time goes\n\n"
        f"`{result['command']}`, {result['hardware']}, of which one was used, {result['date']}, "
        f"commit {result['commit']}.\n\n{table}\n"
    )


if __name__ == "__main__":
    main()
