"""Is this build as fast as an earlier one? Answers and training steps: experiments/results/speed/before.json, .md.

Command: python experiments/before.py EARLIER [--rounds=15] [--seconds=1]
EARLIER is a checkout of the commit to compare with. Each network runs in two processes that take turns, both
prepared by their own `wastejax.benchmark`. Sums are over the networks, round by round. Where both builds give the
compiler the same program, a ratio is only of where two processes happen to lie in memory.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from experiments.provenance import head, provenance
from wastejax.benchmark.timing import Runner, interleave, ratio
from wastejax.evaluation.report.markdown import table
from wastejax.files import write_json, write_text
from wastejax.runtime import process

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results" / "speed"
NETWORKS = {"mobilevit_s": 256, "mobilevit_s_ir": 256, "efficientnetv2_s": 256, "efficientnetv2_b0": 224}
MODES = {"infer": 1, "train": 16}  # and images at once
# Runs under either build: reads a number of calls a line, writes their seconds.
WORKER = """
import json, sys
from wastejax.benchmark.networks import Case, prepare
run, facts = prepare(Case(*json.loads(sys.argv[1])))
print(json.dumps(facts), flush=True)
for line in sys.stdin:
    print(json.dumps(list(run(int(line)))), flush=True)
"""
# Prints a hash of the program that a build gives to the compiler, but for what only names its parts.
PROGRAM = """
import hashlib, json, sys
import jax
from wastejax.benchmark import networks
case = networks.Case(*json.loads(sys.argv[1]))
model = networks.model_of(case)
make = networks._train if case.mode == "train" else networks._infer
jitted, arguments, _ = make(case, model, model.init(jax.random.key(0), case.size))
print(hashlib.sha256(jitted.lower(*arguments).as_text().encode()).hexdigest())
"""


def program(checkout: Path, case: list[Any]) -> str:
    """Returns the hash of a case's program, with the code of a checkout."""
    command = [sys.executable, "-P", "-c", PROGRAM, json.dumps(case)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    return subprocess.check_output(command, env=environment, cwd=checkout, text=True).strip()


@contextmanager
def worker(checkout: Path, case: list[Any]) -> Iterator[Runner]:
    """Yields what times a case in a process of its own, with the code of a checkout."""
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "GLIBC_TUNABLES": process.with_huge_pages(""),  # as the commands start themselves
    }
    command = [sys.executable, "-P", "-c", WORKER, json.dumps(case)]
    with subprocess.Popen(
        command, env=environment, cwd=checkout, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        json.loads(started.stdout.readline())
        try:
            yield partial(_run, started.stdin, started.stdout)
        finally:
            started.stdin.close()


def _run(asks: IO[str], answers: IO[str], calls: int) -> list[float]:
    asks.write(f"{calls}\n")
    asks.flush()
    return json.loads(answers.readline())


def measure(earlier: Path, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Returns a row for each mode and network, and one for the sum over the networks of a mode."""
    rows = []
    for mode, batch in MODES.items():
        sums = np.zeros((2, rounds))
        for name, size in NETWORKS.items():
            case = [name, size, batch, "float32", mode]
            with ExitStack() as stack:
                runners = {
                    build: stack.enter_context(worker(where, case))
                    for build, where in (("now", ROOT), ("earlier", earlier))
                }
                times = interleave(runners, rounds, seconds)
            medians = np.array([[np.median(turn) for turn in times[build]] for build in ("now", "earlier")])
            sums += medians
            rows.append(_row(mode, name, batch, medians))
            rows[-1]["same_program"] = program(ROOT, case) == program(earlier, case)
        rows.append(_row(mode, "sum", batch, sums))
    return rows


def _row(mode: str, name: str, batch: int, seconds: np.ndarray) -> dict[str, Any]:
    now, earlier = seconds.tolist()
    row = {"mode": mode, "network": name, "batch": batch, "ms": float(np.median(now)) * 1e3}
    row |= {"earlier_ms": float(np.median(earlier)) * 1e3}
    row |= ratio([[t] for t in now], [[t] for t in earlier])._asdict()
    print(f"{mode} {name}: {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})", flush=True)
    return row


def page(result: dict[str, Any]) -> str:
    """Returns what was measured as a table."""
    cells = [
        [
            {"infer": "answer", "train": "training step"}[row["mode"]],
            row["network"],
            str(row["batch"]),
            f"{row['ms']:.1f}",
            f"{row['earlier_ms']:.1f}",
            f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
            {True: "yes", False: "no", None: ""}[row.get("same_program")],
        ]
        for row in result["rows"]
    ]
    head = ["", "network", "images", "ms now", "ms before", "now / before (95 % interval)", "same program"]
    note = f"{result['commit']} against {result['earlier']}, {result['hardware']}, {result['date']}, float32, while"
    note += " the machine computed other things too.\n\n"
    return note + "\n".join(table(head, cells)) + "\n"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("earlier", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    earlier = args.earlier.resolve()
    commit = head(earlier)
    result: dict[str, Any] = provenance("python experiments/before.py EARLIER")
    result["earlier"] = commit[:12]
    result["rows"] = measure(earlier, args.rounds, args.seconds)
    write_json(RESULTS / "before.json", result)
    write_text(RESULTS / "before.md", page(result))


if __name__ == "__main__":
    main()
