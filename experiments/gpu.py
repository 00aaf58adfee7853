"""How fast the networks are on a GPU, and whether it computes what a CPU does: experiments/results/gpu/.

Command: python -m experiments.gpu [--minutes=8] [--rows=agreement,study,…] [--peer-python=FILE] [--tiny]

Wants one card, Python 3.12 or newer, jax 0.11 or 0.12 for CUDA 12 or 13, and torch and timm in FILE's Python, which
may be the same; without these, their rows say so. The most important rows come first, each is written when it is
measured, and the command stops by itself before the minutes are over: what is there stays, and the same command
goes on with what is missing. --tiny measures small networks on whatever there is, as a test does.

For a machine without a network, on one of the same Python, processor and system (cuda13: drivers from 580 on):

    pip wheel -w wheels '.[cuda12]'  # this project, jax and jaxlib, CUDA's libraries, flax, optax, grain, pillow, …
    pip download -d peer torch timm  # torch, torchvision, triton, timm and CUDA's libraries again: keep them apart

Carry both folders and the checkout (a git bundle, or an archive and --commit=HASH), then there:

    python -m venv ours && ours/bin/pip install --no-index --find-links=wheels 'wastejax[cuda12]'
    python -m venv theirs && theirs/bin/pip install --no-index --find-links=peer torch timm
    ours/bin/python -m experiments.gpu --peer-python=theirs/bin/python
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from experiments import gpu_agreement, gpu_tables
from experiments.provenance import head, named
from wastejax import machine
from wastejax.benchmark import data
from wastejax.benchmark.about import facts
from wastejax.benchmark.networks import Case, config_of
from wastejax.benchmark.run import measure, peak_of
from wastejax.benchmark.timing import Settings
from wastejax.config import load_recipe
from wastejax.data.drawing.dataset import embedded
from wastejax.data.sources import open_folder
from wastejax.files import write_json, write_text
from wastejax.models.cost import image_size

RESULTS = Path(__file__).resolve().parent / "results" / "gpu"
MINUTES = 8.0
RESERVE = 20.0  # seconds before the end in which nothing new begins
# Recipe -> its network, as `wastejax benchmark --models` names it.
RECIPES = {
    "efficientnetv2": "efficientnetv2_s",
    "efficientnetv2_eca": "efficientnetv2_s_eca",
    "efficientnetv2_glu": "efficientnetv2_s_glu",
    "efficientnetv2_pretrained": "efficientnetv2_s+head_attention=cbam",
    "efficientnet_lite0": "efficientnet_lite0",
    "efficientnet_lite2": "efficientnet_lite2",
    "mobilevit": "mobilevit_s",
    "mobilevit_ir": "mobilevit_s_ir",
    "mobilevit_conv5": "mobilevit_s_conv5",
    "pyramidnet_asam": "pyramidnet_110_a48",
    "swin": "swin_t",
}
STUDY = {
    "efficientnetv2": (
        "efficientnetv2_s",
        "efficientnetv2_s+attention=eca+fused_attention=eca",
        "efficientnetv2_s_eca",
    ),
    "mobilevit": ("mobilevit_s", "mobilevit_s_ir"),
}


class Plan(NamedTuple):
    """What is measured.

    Attributes:
        networks: recipe -> network.
        study: the study's steps, each a list of networks of which timm has the first.
        batches: images at once, to answer.
        trained: networks that are trained.
        batch: images of a training step.
        settings: how.
        together: networks that are compiled at once.
        stretch: see `measure_feeding`.
        size: of all images; 0 for each recipe's own.
    """

    networks: dict[str, str]
    study: dict[str, tuple[str, ...]]
    batches: tuple[int, ...]
    trained: tuple[str, ...]
    batch: int
    settings: Settings
    together: int
    stretch: tuple[int, float]
    size: int = 0

    def side(self, recipe: str) -> int:
        """Returns the side of a recipe's images."""
        return self.size or int(load_recipe(recipe).data.image_size)

    def usual(self, model: str) -> int:
        """Returns the side of the images of a network that is measured without a recipe."""
        return self.size or image_size(config_of(model))


def whole(peer_python: str) -> Plan:
    """Returns what is measured on a card."""
    together = max(1, min(8, machine.cores() // 2))
    settings = Settings(machine.cores(), rounds=7, seconds=0.15, peer_python=peer_python)
    trained = ("efficientnetv2_s", "mobilevit_s", "efficientnetv2_s_eca", "mobilevit_s_ir")
    return Plan(RECIPES, STUDY, (1, 32, 256), trained, 64, settings, together, (16, 1.5))


def tiny(peer_python: str) -> Plan:
    """Returns the same in miniature, for a CPU."""
    settings = Settings(machine.cores(), rounds=1, seconds=0.001, peer_python=peer_python)
    study = {"efficientnetv2": ("efficientnetv2_tiny", "efficientnetv2_tiny_eca")}
    networks = {"efficientnetv2_eca": "efficientnetv2_tiny_eca"}
    return Plan(networks, study, (2,), ("efficientnetv2_tiny",), 4, settings, 1, (2, 0.0), size=32)


Row = tuple[str, Callable[[], Any]]
TABLES = ("agreement", "study", "recipes", "train", "fed", "memory")


def rows(plan: Plan, small: bool, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields what to measure, by name, the most important first."""
    yield "agreement", partial(gpu_agreement.agreement, small, plan.together)
    run = partial(measure_apart, plan=plan, say=say)
    first, *more = plan.batches
    for name, models in plan.study.items():
        for batch in plan.batches[:2]:
            cases = [Case(m, plan.usual(m), batch) for m in models]
            cases.append(Case(models[0], plan.usual(models[0]), batch, runtime="timm"))
            yield f"study {name} batch {batch}", partial(run, cases)
    order = [("float32", first), ("bfloat16", first), *(("float32", n) for n in more)]
    for dtype, batch in [*order, *(("bfloat16", n) for n in more)]:
        cases = [Case(m, plan.side(r), batch, dtype) for r, m in plan.networks.items()]
        yield f"recipes {dtype} batch {batch}", partial(run, cases)
        if (dtype, batch) == order[min(2, len(order) - 1)]:
            yield from training(plan, run, say)
    for model in plan.trained[:2]:
        yield f"memory {model}", partial(memory, plan, model)


def training(plan: Plan, run: Callable[[Sequence[Case]], Any], say: Callable[[str], None]) -> Iterator[Row]:
    """Yields the training steps: on a fixed batch, beside timm's, and fed with images."""
    for dtype in ("float32", "bfloat16"):
        ours = [Case(m, plan.usual(m), plan.batch, dtype, "train") for m in plan.trained]
        theirs = [Case(c.model, c.size, c.batch, dtype, "train", "timm") for c in ours[:2]]
        yield f"train {dtype}", partial(run, [*ours, *theirs])
    for model in plan.trained[:2]:
        case = Case(model, plan.usual(model), plan.batch, mode="train")
        yield f"fed {model}", partial(fed, plan, case, say)


def measure_apart(cases: Sequence[Case], plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Measures cases in turns; where one cannot be, as for want of memory, the others all the same."""
    try:
        return measure(cases, plan.settings, say, plan.together)
    except Exception as error:  # of the card's compiler or memory, whatever it is
        say(f"one at a time, for: {str(error).splitlines()[0]}")
    found: dict[str, Any] = {"cases": [], "ratios": [], "missing": []}
    for case in cases:
        try:
            if case.runtime == "jax":
                part = measure([case], plan.settings, say)
                found["cases"] += part["cases"]
        except Exception as error:
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            found["missing"].append(
                {"model": case.model, "runtime": case.runtime, "mode": case.mode, "why": why}
            )
    return found


def fed(plan: Plan, case: Case, say: Callable[[str], None]) -> dict[str, Any]:
    """Times training on images from the decoded cache, against that on a fixed batch."""
    with tempfile.TemporaryDirectory() as scratch, data.own_cache(Path(scratch) / "cache"):
        count = data.COUNT if not plan.size else 2 * case.batch
        options = data.FORMATS["jpeg"]
        data.write_images(open_folder(embedded()), Path(scratch) / "jpeg", "jpeg", options, count)
        return data.measure_feeding(
            case, Path(scratch) / "jpeg", plan.settings, say, plan.stretch, plan.together
        )


def memory(plan: Plan, model: str) -> dict[str, Any]:
    """Returns the most memory of a process that takes training steps, ours and timm's, MiB."""
    case = {
        "model": model,
        "size": plan.usual(model),
        "batch": plan.batch,
        "dtype": "float32",
        "mode": "train",
    }
    return {
        "jax": peak_of(case | {"runtime": "jax", "form": ""}, plan.settings),
        "timm": peak_of(case | {"runtime": "timm", "form": "channels_last"}, plan.settings),
    } | {"batch": plan.batch}


class Kept:
    """The results: written whole after every row, and continued where the same card had a part of them."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.lock = folder, threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "gpu.json"
        self.content: dict[str, Any] = {"about": about, "rows": {}, "failed": {}}
        if file.is_file():
            known = json.loads(file.read_text())
            if all(known["about"][key] == about[key] for key in ("device", "commit")):
                self.content["rows"] = known["rows"]

    def add(self, name: str, row: Any) -> None:
        """Adds a row and writes all."""
        with self.lock:
            self.content["rows"][name] = row
            self.write()

    def failed(self, name: str, why: str) -> None:
        """Says why a row is not there, and writes all; the next run tries it anew."""
        print(f"{name}: failed: {why}", flush=True)
        with self.lock:
            self.content["failed"][name] = why
            self.write()

    def write(self) -> None:
        """Writes the JSON and the tables."""
        write_json(self.folder / "gpu.json", self.content)
        write_text(self.folder / "gpu.md", "\n".join(gpu_tables.page(self.content)) + "\n")

    def stop(self, why: str) -> None:
        """Ends the process: what is measured just now is lost, and what was written stays."""
        with self.lock:
            print(f"stopped: {why}; the same command goes on with what is missing", flush=True)
            os._exit(0)


def commit_of(given: str) -> str:
    """Returns the commit that is measured, as far as anybody knows."""
    try:
        return (given or head())[:12]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it (default: %(default)s)")
    parser.add_argument("--rows", default=",".join(TABLES), help="kinds of rows (default: %(default)s)")
    parser.add_argument(
        "--peer-python", default=sys.executable, metavar="FILE", help="that has torch and timm"
    )
    parser.add_argument("--tiny", action="store_true", help="small networks, on whatever there is")
    parser.add_argument("--commit", default="", help="what is measured, where there is no git")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures."""
    args = parse(arguments)
    end = time.monotonic() + 60 * args.minutes
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs the card's memory too
    plan = (tiny if args.tiny else whole)(args.peer_python)
    command = named(
        " ".join(["python -m experiments.gpu", *(sys.argv[1:] if arguments is None else arguments)])
    )
    about = facts(plan.settings.threads) | {
        "command": command,
        "commit": commit_of(args.commit),
        "hardware": machine.hardware(),
        "compiled_at_once": plan.together,
    }
    kept = Kept(args.out, about)
    watch = threading.Timer(max(0.0, end - time.monotonic()), kept.stop, ["the minutes are over"])
    watch.daemon = True
    watch.start()
    try:
        measure_all(args, plan, kept, end)
    finally:
        watch.cancel()


def measure_all(args: argparse.Namespace, plan: Plan, kept: Kept, end: float) -> None:
    """Measures what is asked for and missing, as long as there is time."""
    for name, run in rows(plan, args.tiny, print):
        if name.split()[0] not in args.rows.split(",") or name in kept.content["rows"]:
            continue
        if time.monotonic() > end - min(RESERVE, 60 * args.minutes / 4):
            print("stopped before the minutes are over; the same command goes on with what is missing")
            break
        started = time.monotonic()
        try:
            found = run()
        except Exception as error:  # of a card that nobody has seen: the other rows are measured all the same
            kept.failed(name, str(error).strip().partition("\n")[0] or type(error).__name__)
            continue
        kept.add(name, found | {"took_s": round(time.monotonic() - started, 1)})
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
