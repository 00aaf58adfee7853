"""Disturbs a run at random moments, gives the same command again, and compares with a run that nothing disturbed.

Command: python experiments/kills.py    (as root, for the full disks: each is a small tmpfs, mounted for it)

Every run draws batches, augmentation, dropout and mixing by chance, so that going on has something to get wrong.
What must be the same at the end, bit by bit: all arrays of the newest checkpoint, the table of epochs without its
clocks, the bundle's weights, and the scores on the test images. Writes experiments/results/kills.json and kills.md.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.provenance import provenance

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
OPTIONS = {
    "model.size": "tiny",
    "model.dropout": 0.2,
    "model.drop_path": 0.1,
    "optim.sharpness.name": "none",  # one gradient a step is faster to compile
    "optim.learning_rate": 0.01,
    "data.image_size": 32,
    "data.split.group": "none",
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.checkpoint_minutes": 1e-9,  # saves after every step
    "optim.warmup_epochs": 1,
    "loss.mixup": 0.2,
    "loss.cutmix": 1.0,
}
CLOCKS = ("seconds", "images_per_second", "waiting")
LIMIT = 900  # seconds that a run may take


class Place:
    """A folder with the images, the caches and the runs."""

    def __init__(self, root: Path):
        """Draws the images: colored noise, three classes."""
        self.root = root
        rng = np.random.default_rng(5)
        for label in range(3):
            folder = root / "images" / "abc"[label]
            folder.mkdir(parents=True)
            for i in range(12):
                pixels = rng.integers(0, 200, (40, 40, 3), np.uint8)
                pixels[..., label] += 55
                Image.fromarray(pixels).save(folder / f"{i:02}.png")

    def start(self, workdir: Path, cold: bool = False) -> subprocess.Popen:
        """Starts the command; `cold` compiles everything anew."""
        (self.root / "log").mkdir(exist_ok=True)
        options = [f"--config.{key}={value}" for key, value in OPTIONS.items()]
        where = [f"--config.data.dir={self.root / 'images'}", f"--workdir={workdir}"]
        env = os.environ | {"WASTEJAX_CACHE": str(self.root / "cache"), "JAX_PLATFORMS": "cpu"}
        env |= {
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        env |= {"JAX_COMPILATION_CACHE_DIR": "" if cold else str(self.root / "xla")}
        with (self.root / "log" / workdir.name).open("w") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "wastejax.main",
                    "--config=configs/pyramidnet_asam.py",
                    *options,
                    *where,
                ],
                env=env,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def said(self, workdir: Path) -> str:
        """What the last command with this work directory has printed so far."""
        return (self.root / "log" / workdir.name).read_text()

    def finish(self, workdir: Path) -> None:
        """Gives the command (again) and waits for its end."""
        if self.start(workdir).wait(LIMIT) != 0:
            raise RuntimeError(f"the same command failed: {self.said(workdir)}")


def outcome(workdir: Path) -> dict[str, Any]:
    """Everything of a finished run that must be the same to the bit."""
    import orbax.checkpoint as ocp

    steps = (int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore((workdir / "checkpoints" / str(max(steps)) / "state").resolve())
    with (workdir / "metrics.csv").open() as file:
        history = [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]
    report = json.loads((workdir / "report.json").read_text())
    return {
        "arrays": {path: array.tobytes() for path, array in leaves(state)},
        "history": history,
        "weights": json.loads((workdir / "bundle" / "bundle.json").read_text())["sha256"],
        "scores": {key: value for key, value in report.items() if key != "facts"},
    }


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays of nested dicts and lists with their paths."""
    if isinstance(tree, (dict, list, tuple)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{path}/{key}")
    elif tree is not None:
        yield path, np.asarray(tree)


def phase(place: Place, workdir: Path) -> str:
    """How far a run has come, by what it left on the disk."""
    if (workdir / "report.json").exists():
        return "finished"
    if not (workdir / "config.json").exists():
        return "starting and preparing"
    names = [p.name for p in (workdir / "checkpoints").glob("*")]
    if any("tmp" in name for name in names):
        return "saving"
    if not any(name.isdigit() for name in names):
        return "compiling and first step"
    if any(workdir.joinpath(name).exists() for name in ("figures", "report.md")):
        return "figures and report"
    return "training and validation"


def wait_until(process: subprocess.Popen, condition: Callable[[], bool]) -> bool:
    """Waits for the condition; returns whether the process was still running when it came true."""
    while process.poll() is None:
        if condition():
            return True
        time.sleep(0.002)
    return False


def moment(
    rng: random.Random, number: int, whole: float
) -> tuple[str, Callable[[Place, Path], Callable[[], bool]]]:
    """Returns what is waited for before a signal: every third time a save, every third while it compiles."""
    if number % 3 == 1:
        at = rng.randrange(1, 7)  # a run has six steps
        return f"save {at}", lambda place, workdir: saving(workdir, at)
    delay = rng.uniform(0, whole if number % 3 else 0.3 * whole)
    since = "config.json" if number % 3 == 0 else "the start"

    def after(place: Place, workdir: Path) -> Callable[[], bool]:
        begun: list[float] = [] if number % 3 == 0 else [time.monotonic()]

        def reached() -> bool:
            if not begun and (workdir / "config.json").exists():
                begun.append(time.monotonic())
            return bool(begun) and time.monotonic() - begun[0] >= delay

        return reached

    return f"{delay:.1f} s after {since}", after


def saving(workdir: Path, at: int) -> Callable[[], bool]:
    """Returns a condition: the step's checkpoint is being written, or (had that been missed) is there."""
    checkpoints = workdir / "checkpoints"
    return lambda: any(
        p.name.split(".")[0].isdigit() and int(p.name.split(".")[0]) >= at for p in checkpoints.glob("*")
    )


def signalled(place: Place, workdir: Path, number: int, kind: signal.Signals, whole: float) -> dict[str, Any]:
    """Sends the signal at a random moment."""
    rng = random.Random(number * 1000 + kind)
    name, condition = moment(rng, number, whole)
    process = place.start(workdir, cold=number % 3 == 0)
    if not wait_until(process, condition(place, workdir)):
        return {"moment": name, "phase": "ended before", "code": process.returncode}
    at = phase(place, workdir)
    process.send_signal(kind)
    begun = time.monotonic()
    code = process.wait(LIMIT)
    return {"moment": name, "phase": at, "code": code, "seconds_to_end": round(time.monotonic() - begun, 2)}


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Callable[[int], None]]:
    """A disk of so many bytes at `path`; yields what changes its size."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    subprocess.run([*mount, f"size={size}", "tmpfs", path], check=True)
    try:
        yield lambda new: subprocess.run([*mount, f"remount,size={new}", "tmpfs", path], check=True) and None
    finally:
        subprocess.run(["umount", path], check=True)


def full_disk(place: Place, number: int, needed: int, expected: dict[str, Any]) -> dict[str, Any]:
    """Runs on a disk that gets full somewhere, then on a larger one."""
    size = int(random.Random(number).uniform(0.02, 0.95) * needed)
    with small_disk(place.root / f"disk{number}", size) as resize:
        workdir = place.root / f"disk{number}" / f"run{number}"
        process = place.start(workdir)
        code = process.wait(LIMIT)
        said, at = place.said(workdir), phase(place, workdir)
        resize(max(4 * needed, 64 << 20))
        place.finish(workdir)
        same = outcome(workdir) == expected
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    clear = code == 2 and len(errors) == 1 and "Traceback" not in said
    return {
        "moment": f"a disk of {size / 2**20:.2f} MiB",
        "phase": at,
        "code": code,
        "clear": clear,
        "error": (errors or said.splitlines()[-1:] or [""])[0].replace(str(place.root), "…"),
        "same_bits": same,
    }


def trial(place: Place, kind: str, number: int, whole: float, expected: dict[str, Any]) -> dict[str, Any]:
    """One disturbance by a signal and the same command again."""
    workdir = place.root / f"{kind}{number}"
    found = signalled(place, workdir, number, signal.Signals[kind], whole)
    said = place.said(workdir)
    found["clear"] = kind == "SIGKILL" or (
        found["code"] in (0, -signal.SIGTERM, 143) and "Traceback" not in said
    )
    if not found["clear"]:
        found["error"] = said[-600:].replace(str(place.root), "…")
    place.finish(workdir)
    found["same_bits"] = outcome(workdir) == expected
    shutil.rmtree(workdir)
    return found


def disturb(counts: dict[str, int], seed: int, jobs: int, done: Callable[[list[Any]], None]) -> None:
    """Runs so many trials of each kind; `done` is told the rows after each."""
    rows: list[dict[str, Any]] = []
    commit = about()["commit"]

    def one(kind: str, number: int) -> None:
        begun = time.monotonic()
        try:
            if kind == "full disk":
                row = full_disk(place, number, needed, expected)
            else:
                row = trial(place, kind, number, whole, expected)
        except (RuntimeError, subprocess.SubprocessError) as error:
            row = {"same_bits": False, "clear": False, "phase": "", "error": str(error)[-800:]}
        rows.append(
            {"kind": kind, "number": number, "commit": commit}
            | row
            | {"seconds": round(time.monotonic() - begun)}
        )
        print(rows[-1], flush=True)
        done(sorted(rows, key=lambda row: (list(counts).index(row["kind"]), row["number"])))

    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        undisturbed = place.root / "undisturbed"
        place.finish(place.root / "first")  # fills the caches
        begun = time.monotonic()
        place.finish(undisturbed)
        whole, expected = time.monotonic() - begun, outcome(undisturbed)
        assert expected == outcome(place.root / "first")
        needed = sum(p.stat().st_blocks * 512 for p in undisturbed.rglob("*"))
        todo = [(kind, seed + i) for i in range(max(counts.values())) for kind in counts if i < counts[kind]]
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda job: one(*job), todo))


def table(record: dict[str, Any]) -> str:
    """Returns the rows as Markdown, with counts above."""
    about, rows = record["about"], record["rows"]
    lines = [f"Generated by `{about['command']}`: {about['hardware']}, {about['date']}.", ""]
    lines += [
        "| disturbance | at | runs | same bits | clear end | where it struck |",
        "|---|---|---|---|---|---|",
    ]
    for kind, commit in dict.fromkeys((row["kind"], row["commit"]) for row in rows):
        mine = [row for row in rows if (row["kind"], row["commit"]) == (kind, commit)]
        phases = [row["phase"] for row in mine]
        where = ", ".join(f"{name} {phases.count(name)}" for name in dict.fromkeys(phases))
        same, clear = (sum(row[key] for row in mine) for key in ("same_bits", "clear"))
        lines.append(f"| {kind} | {commit} | {len(mine)} | {same} | {clear} | {where} |")
    return "\n".join(lines) + "\n"


def about() -> dict[str, Any]:
    """When, where and with what."""
    return {
        **provenance(f"python experiments/{' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}"),
        "versions": {"python": sys.version.split()[0]}
        | {name: version(name) for name in ("jax", "flax", "orbax-checkpoint", "numpy")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, count in (("sigkill", 20), ("full-disk", 10), ("sigterm", 10)):
        parser.add_argument(f"--{name}", type=int, default=count, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first of each kind")
    parser.add_argument("--jobs", type=int, default=1, help="trials at once (default: %(default)s)")
    args = parser.parse_args()
    if args.full_disk and os.geteuid() != 0:
        raise SystemExit("full disks need root, to mount them; give --full-disk=0")
    counts = {"SIGKILL": args.sigkill, "full disk": args.full_disk, "SIGTERM": args.sigterm}
    record: dict[str, Any] = {"about": about(), "rows": []}

    def write(rows: list[dict[str, Any]]) -> None:
        record["rows"] = rows
        (RESULTS / "kills.json").write_text(json.dumps(record, indent=1) + "\n")
        (RESULTS / "kills.md").write_text(table(record))

    disturb({kind: count for kind, count in counts.items() if count}, args.seed, args.jobs, write)
    if not all(row["same_bits"] and row["clear"] for row in record["rows"]):
        raise SystemExit("not all ended well")


if __name__ == "__main__":
    main()
