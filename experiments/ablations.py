"""The study's ablations, one run after another: experiments/results/ablations/*.json.

Command: python experiments/ablations.py --data=TRASHNET --state=DIR [--tables=mobilevit,…] [--runs=NAME,…]
         python experiments/ablations.py --set=trashnet_128 --data=TRASHNET --state=DIR [--tables=…] [--runs=…]
         python experiments/ablations.py --set=household_waste --data=HOUSEHOLD_WASTE --state=DIR [--runs=NAME,…]
         python experiments/ablations.py --speed         times the networks of the small size
         python experiments/ablations.py --full          prints the commands of the full size, for a GPU
A table is a list of runs, and a run may stand in several. What is done is skipped and what was stopped goes on, so
that it can be ended at any time. The small size: TrashNet, MobileViT-XXS and EfficientNetV2-B0 at 64 and at 128 px,
30 epochs; the main rows also on household waste, four times as many images, at 64 px for 15 epochs. The full
size: each recipe as it is, at 256 px and 100 epochs, on the 30 classes.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from experiments.provenance import head
from experiments.record import RESULTS, keep, measured

ROOT = Path(__file__).resolve().parents[1]

Keys = dict[str, object]
EFFICIENTNET: Keys = {"model.size": "b0"}
MOBILEVIT: Keys = {"model.size": "xxs"}
LITE0: Keys = {"optim.frozen_blocks": 4, "train.epochs": 8}
SMALL: Keys = {"data.image_size": 64, "train.epochs": 30, "train.batch_size": 32}
SEED = 17
SETS: dict[str, Keys] = {  # what more each changes
    "trashnet": {},
    "trashnet_128": {"data.image_size": 128},
    "household_waste": {"train.epochs": 15},
}

# The study's plain training, and what it calls training techniques; its third, He initialization, is in both.
PLAIN: Keys = {
    "optim.name": "adam",
    "optim.learning_rate": 1e-3,
    "optim.weight_decay": 0.0,
    "optim.warmup_epochs": 0.0,
    "optim.schedule": "constant",
    "optim.ema_decay": 0.0,
    "loss.label_smoothing": 0.0,
}
TECHNIQUES: Keys = {"optim.schedule": "plateau", "optim.ema_decay": 0.0}
STRONG: Keys = {**TECHNIQUES, "data.augmentation": "strong"}
BASIC: Keys = {**TECHNIQUES, "data.augmentation": "basic"}
ECA: Keys = {"data.augmentation": "basic", "model.activation": "silu"}
GROWING = (0.5, 0.75, 1.0)  # of the full size, one stage after the other

# Each run: recipe, what of it changes at every size, what more changes at the small size.
RUNS: dict[str, tuple[str, Keys, Keys]] = {
    "efficientnet_plain": ("efficientnetv2", {"data.augmentation": "none"}, EFFICIENTNET),
    "efficientnet_augmented": ("efficientnetv2", {"data.augmentation": "basic"}, EFFICIENTNET),
    "efficientnet_eca": ("efficientnetv2_eca", ECA, EFFICIENTNET),
    "efficientnet_eca_leaky": ("efficientnetv2_eca", {"data.augmentation": "basic"}, EFFICIENTNET),
    "efficientnet_glu": ("efficientnetv2_glu", {"data.augmentation": "basic"}, EFFICIENTNET),
    "mobilevit_plain": ("mobilevit", PLAIN, MOBILEVIT),
    "mobilevit_techniques": ("mobilevit", TECHNIQUES, MOBILEVIT),
    "mobilevit_strong": ("mobilevit", STRONG, MOBILEVIT),
    "mobilevit_ir": ("mobilevit_ir", STRONG, MOBILEVIT),
    "mobilevit_conv5": ("mobilevit_conv5", STRONG, MOBILEVIT),
    "mobilevit_conv5_alone": ("mobilevit_conv5", {**STRONG, "model.local_kernel": "replace_5x5"}, MOBILEVIT),
    "pyramidnet_asam": ("pyramidnet_asam", {}, {"model.size": "tiny"}),
    "swin": ("swin", {}, {"model.size": "tiny", "optim.warmup_epochs": 3.0}),
    "ir_cosine": ("mobilevit_ir", {**BASIC, "optim.schedule": "cosine"}, MOBILEVIT),
    "ir_basic": ("mobilevit_ir", BASIC, MOBILEVIT),
    "ir_ema": ("mobilevit_ir", {**BASIC, "optim.ema_decay": 0.995}, MOBILEVIT),
    "ir_asam": ("mobilevit_ir", {**BASIC, "optim.sharpness.name": "asam"}, MOBILEVIT),
    "ir_mixed": ("mobilevit_ir", {**BASIC, "loss.mixup": 0.2, "loss.cutmix": 1.0}, MOBILEVIT),
    "ir_progressive": ("mobilevit_ir", {**STRONG, "data.progressive": GROWING}, MOBILEVIT),
    "ir_longer": (
        "mobilevit_ir",
        {**BASIC, "train.epochs": 200},
        {**MOBILEVIT, "train.epochs": 60},
    ),
    "pretrained": ("efficientnet_lite0", {}, LITE0),
    "pretrained_cbam": ("efficientnet_lite0", {"model.head_attention": "cbam"}, LITE0),
    "ir_taught": ("mobilevit_ir", {**BASIC, "distill.teacher": "pretrained"}, MOBILEVIT),
}

TEACHER, PUPIL = "pretrained", "ir_taught"

# Runs before and after the study's two changes, which are judged by more seeds than the first.
CHANGES = (
    ("efficientnet_augmented", "efficientnet_eca"),
    ("mobilevit_techniques", "ir_basic"),
    ("mobilevit_strong", "mobilevit_ir"),
)
MORE_SEEDS = {run: (18, 19) for change in CHANGES for run in change}

TABLES: dict[str, tuple[str, ...]] = {
    "efficientnet": (
        "efficientnet_plain",
        "efficientnet_augmented",
        "efficientnet_eca",
        "efficientnet_eca_leaky",
    ),
    "mobilevit": ("mobilevit_plain", "mobilevit_techniques", "mobilevit_strong", "mobilevit_ir"),
    "variants": (
        "efficientnet_augmented",
        "efficientnet_glu",
        "mobilevit_strong",
        "mobilevit_conv5",
        "mobilevit_conv5_alone",
        "pretrained",
        "pretrained_cbam",
    ),
    "baselines": ("efficientnet_augmented", "mobilevit_strong", "pyramidnet_asam", "swin"),
    "beyond": (
        "ir_basic",
        "mobilevit_ir",
        "ir_cosine",
        "ir_ema",
        "ir_asam",
        "ir_mixed",
        "ir_progressive",
        "ir_longer",
        "ir_taught",
    ),
}

# The rows of household waste, under one seed.
MAIN = (*TABLES["efficientnet"], *TABLES["mobilevit"], "ir_basic")

# The network of each run, as `wastejax benchmark` names it; at the sizes above.
_B0, _XXS, _LITE0 = "efficientnetv2_b0", "mobilevit_xxs", "efficientnet_lite0"
NETWORKS = {
    "efficientnet_plain": _B0,
    "efficientnet_augmented": _B0,
    "efficientnet_eca": f"{_B0}+attention=eca+fused_attention=eca",
    "efficientnet_eca_leaky": f"{_B0}_eca",
    "efficientnet_glu": f"{_B0}_glu",
    "mobilevit_plain": _XXS,
    "mobilevit_techniques": _XXS,
    "mobilevit_strong": _XXS,
    "mobilevit_ir": f"{_XXS}_ir",
    "mobilevit_conv5": f"{_XXS}_conv5",
    "mobilevit_conv5_alone": f"{_XXS}+local_kernel=replace_5x5",
    "pretrained": _LITE0,
    "pretrained_cbam": f"{_LITE0}+head_attention=cbam",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=SETS, default="trashnet", help="(default: %(default)s)")
    parser.add_argument("--data", type=Path, help="the set's class folders")
    parser.add_argument("--state", type=Path, help="where the runs are kept")
    parser.add_argument("--tables", default=",".join(TABLES), help="(default: %(default)s)")
    parser.add_argument("--runs", help="these instead, also NAME@SEED for one seed")
    parser.add_argument("--speed", action="store_true", help="time the networks instead, on a quiet machine")
    parser.add_argument(
        "--full", action="store_true", help="print the commands of the full size, run nothing"
    )
    args = parser.parse_args()
    for table in args.tables.split(","):
        if table not in TABLES:
            parser.error(f"--tables: no such table {table!r}; there are {', '.join(TABLES)}")
    if args.runs:
        wanted = args.runs.split(",")
    elif args.set == "household_waste":
        wanted = [f"{run}@{SEED}" for run in MAIN]
    else:
        wanted = list(dict.fromkeys(run for table in args.tables.split(",") for run in TABLES[table]))
    for run_name in wanted:
        if run_name.partition("@")[0] not in RUNS:
            parser.error(f"--runs: no such run {run_name!r}; there are {', '.join(RUNS)}")
    if args.full:
        print(*commands(wanted, args.set), sep="\n")
        return
    if args.speed:
        speed()
        return
    if not (args.data and args.state):
        parser.error("--data and --state are needed to run")
    for name, seed in seeds_of(wanted):
        run(name, seed, args.set, args.data, args.state)


def commands(wanted: list[str], data_set: str) -> list[str]:
    """Returns the commands of the full size, those of teachers before their pupils', also where nobody asked."""
    runs = [run for run in seeds_of(wanted) if run[0] != PUPIL]
    pupils = [run for run in seeds_of(wanted) if run[0] == PUPIL]
    runs += [(TEACHER, seed) for _, seed in pupils if (TEACHER, seed) not in runs]
    lines = []
    for name, seed in (*runs, *pupils):
        given = with_teacher(flags(name, seed, data_set, small=False), Path("runs") / f"{TEACHER}_{seed}")
        # Several share a recipe, whose own folder takes one run.
        folders = ("--config.data.dir=DIR", f"--workdir=runs/{name}_{seed}")
        lines.append(" ".join(["python -m wastejax.main", *given, *folders]))
    return lines


def speed() -> None:
    """Times the networks of the small size against each other, round by round."""
    found: dict[str, Any] = {"about": [], "cases": []}
    for family in (_B0, _XXS, _LITE0):
        models = ",".join(sorted({network for network in NETWORKS.values() if network.startswith(family)}))
        command = ["-m", "wastejax.main", "benchmark", f"--models={models}", "--sizes=64"]
        command.append("--batch_sizes=1,32")
        with TemporaryDirectory() as folder:
            subprocess.run([sys.executable, *command, f"--out={folder}"], check=True, cwd=ROOT)
            (written,) = Path(folder).glob("*.json")
            part = json.loads(written.read_text())
        found["about"].append(
            part["about"] | {"commit": head()[:12], "command": " ".join(["python", *command])}
        )
        found["cases"] += part["cases"]
    keep("ablations/speed", found)


def seeds_of(wanted: list[str]) -> list[tuple[str, int]]:
    """Returns every (run, seed): the first seed of all of them before the second of any."""
    named = [(name, int(seed)) for name, _, seed in (run.partition("@") for run in wanted) if seed]
    whole = [run for run in wanted if "@" not in run]
    more = [(run, seed) for run in whole for seed in MORE_SEEDS.get(run, ())]
    return [*named, *((run, SEED) for run in whole), *more]


def flags(name: str, seed: int, data_set: str, small: bool = True) -> list[str]:
    """Returns the arguments of one training, without those of its folders."""
    recipe, keys, smaller = RUNS[name]
    keys = {**keys, **SMALL, **SETS[data_set], **smaller} if small else {**keys}
    if "data.progressive" in keys:
        full = int(str(keys.get("data.image_size", 256)))
        keys["data.progressive"] = ",".join(str(int(part * full)) for part in GROWING)
    keys = keys if seed == SEED else {**keys, "seed": seed}
    return [f"--config={recipe}", *(f"--config.{key}={value}" for key, value in keys.items())]


def with_teacher(arguments: list[str], teacher: Path) -> list[str]:
    """Returns the arguments with the run that is the teacher, where one is asked for."""
    flag = "--config.distill.teacher="
    return [flag + str(teacher) if argument.startswith(flag) else argument for argument in arguments]


def run(name: str, seed: int, data_set: str, data: Path, state: Path) -> None:
    """Trains one run, or goes on with it, and keeps what it measured; nothing where that is there."""
    folder = Path("" if data_set == "trashnet" else data_set)
    result = f"ablations/{folder / f'{name}_{seed}'}"
    if (RESULTS / f"{result}.json").is_file():
        return
    if name == PUPIL:
        run(TEACHER, seed, data_set, data, state)
    state = state.resolve() / folder
    workdir, commit = state / f"{name}_{seed}", head()
    print(f"== {name}, seed {seed}, {data_set}", flush=True)
    arguments = with_teacher(flags(name, seed, data_set), state / f"{TEACHER}_{seed}")
    command = [sys.executable, "-m", "wastejax.main", *arguments]
    command += [f"--config.data.dir={data.resolve()}", f"--workdir={workdir}"]
    if code := subprocess.run(command, cwd=ROOT).returncode:
        sys.exit(code)  # the training has said why
    if not (workdir / "report.json").is_file():
        sys.exit(f"{name}: stopped before its end; the same command goes on with it")
    keep(result, measured(workdir, commit))


if __name__ == "__main__":
    main()
