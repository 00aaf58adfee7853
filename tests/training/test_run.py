"""Whole runs by the command line, on small images drawn here: training, kills, resuming, evaluation."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image, ImageDraw, ImageOps

from wastejax.bundle import load_bundle, save_bundle
from wastejax.evaluation.metrics import bootstrap_interval
from wastejax.training.display import time_left

EPOCHS = 3
PER_EPOCH = 4  # steps: 36 training images, 8 to a batch
STEPS = PER_EPOCH * EPOCHS

# The network that is traced and compiled fastest; everything random is on, so that resuming has something to get
# wrong.
OPTIONS = [
    "--config=configs/pyramidnet_asam.py",
    "--config.model.size=tiny",
    "--config.model.drop_path=0.2",
    "--config.data.image_size=32",
    "--config.data.augmentation=strong",
    "--config.optim.name=adamw",
    "--config.optim.learning_rate=0.001",
    "--config.optim.sharpness.name=none",
    f"--config.train.epochs={EPOCHS}",
    "--config.train.batch_size=8",
    "--config.optim.warmup_epochs=1",
    "--config.optim.schedule=plateau",
    "--config.model.dropout=0.2",
    "--config.loss.mixup=0.2",
    "--config.loss.cutmix=1.0",
    "--config.eval.bootstrap=30",
]


def draw(root: Path, per_class: int = 20) -> Path:
    """Discs, squares and bars of any color, on any ground."""
    rng = np.random.default_rng(5)
    for name in ("bar", "disc", "square"):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            ground, color = (tuple(int(c) for c in rng.integers(0, 256, 3)) for _ in range(2))
            noise = rng.integers(-40, 40, (48, 48, 3))
            image = Image.new("RGB", (48, 48), ground)
            x, y, r = (int(v) for v in rng.integers((14, 14, 8), (34, 34, 13)))
            pen = ImageDraw.Draw(image)
            if name == "disc":
                pen.ellipse((x - r, y - r, x + r, y + r), fill=color)
            elif name == "square":
                pen.rectangle((x - r, y - r, x + r, y + r), fill=color)
            else:
                pen.rectangle((x - r, y - 3, x + r, y + 3), fill=color)
            pixels = np.clip(np.asarray(image).astype(int) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the data, and an environment whose caches make every process after the first start fast."""
    root = tmp_path_factory.mktemp("runs")
    draw(root / "data")
    return root


def command(place: Path, workdir: str, *options: str) -> subprocess.Popen:
    env = os.environ | {
        "WASTEJAX_CACHE": str(place / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(place / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    arguments = [*OPTIONS, f"--config.data.dir={place / 'data'}", f"--workdir={place / workdir}", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "wastejax.main", *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen, code: int = 0) -> str:
    out, err = process.communicate(timeout=900)
    assert process.returncode == code, out + err
    return out + err


@pytest.fixture(scope="module")
def undisturbed(place) -> Path:
    """A run that nothing stopped."""
    finished(command(place, "undisturbed"))
    return place / "undisturbed"


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint, by path."""
    step = max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore((workdir / "checkpoints" / str(step) / "state").resolve())

    def flat(tree, prefix=""):
        if isinstance(tree, dict):
            return {k: v for n, t in tree.items() for k, v in flat(t, f"{prefix}/{n}").items()}
        if isinstance(tree, (list, tuple)):
            return flat(dict(enumerate(tree)), prefix)
        return {} if tree is None else {prefix: np.asarray(tree)}

    return flat(state)


def history(workdir: Path) -> list[dict[str, str]]:
    """metrics.csv without the columns that a clock fills."""
    with (workdir / "metrics.csv").open() as file:
        clock = ("seconds", "images_per_second", "waiting")
        return [{k: v for k, v in row.items() if k not in clock} for row in csv.DictReader(file)]


def assert_same_run(workdir: Path, other: Path) -> None:
    a, b = arrays(workdir), arrays(other)
    assert a.keys() == b.keys() and len(a) > 60  # the network, its average, the optimizer's two moments
    assert [k for k in a if not np.array_equal(a[k], b[k])] == []
    assert history(workdir) == history(other)
    weights = [json.loads((w / "bundle" / "bundle.json").read_text())["sha256"] for w in (workdir, other)]
    assert weights[0] == weights[1]


def test_a_run_leaves_everything_that_it_promises(undisturbed):
    rows = history(undisturbed)
    assert [row["epoch"] for row in rows] == [str(e + 1) for e in range(EPOCHS)]
    assert rows[-1]["step"] == str(STEPS)
    report = json.loads((undisturbed / "report.json").read_text())
    assert report["num_images"] == 12 and np.sum(report["confusion"]) == 12
    kept = {p.name for p in (undisturbed / "checkpoints").iterdir() if p.name.isdigit()}
    best = max(rows, key=lambda row: float(row["score"]))
    assert kept == {str(STEPS), best["step"]}
    assert "report.json" not in (undisturbed / "report.md").read_text()[:80]
    bundle = json.loads((undisturbed / "bundle" / "bundle.json").read_text())
    assert bundle["temperature"] == report["calibration"]["temperature"]
    assert {k: at["threshold"] for k, at in report["selective"]["at"].items()} == bundle["thresholds"]
    assert "## How far to trust it" in (undisturbed / "report.md").read_text()
    figures = ("curves", "confusion_matrix", "class_distribution", "samples", "worst_mistakes")
    for name in (*figures, "reliability", "risk_coverage"):
        with Image.open(undisturbed / "figures" / f"{name}.png") as figure:
            assert figure.size[0] > 200
    with (undisturbed / "manifest.csv").open() as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert [splits.count(s) for s in ("train", "val", "test")] == [36, 12, 12]


def test_tensorboard_holds_the_epochs(undisturbed):
    from tensorboardX.proto.event_pb2 import Event

    values = {}
    for path in (undisturbed / "tensorboard").glob("*tfevents*"):
        data = path.read_bytes()
        while data:  # length, its checksum, the record, its checksum
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            values |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
            data = data[16 + size :]
    for row in history(undisturbed):
        np.testing.assert_allclose(values["val_loss", int(row["step"])], float(row["val_loss"]), rtol=1e-5)


@pytest.mark.one_stack
def test_a_finished_run_says_so_and_a_changed_one_names_the_keys(place, undisturbed):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*")}
    said = finished(command(place, "undisturbed"))
    assert "this run is finished" in said and f"--workdir={undisturbed}-2" in said
    text = finished(command(place, "undisturbed", "--config.data.dir=elsewhere"), 2)
    assert "another config: config.data.dir" in text  # these may be other images: nothing looks any more
    text = finished(command(place, "undisturbed", "--config.train.epochs=9", "--config.seed=1"), 2)
    assert f"config.seed (17 -> 1), config.train.epochs ({EPOCHS} -> 9)" in text
    assert {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*")} == before


def kill_when(process: subprocess.Popen, condition) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, "ended before it could be killed: " + "".join(process.communicate())
        assert time.monotonic() < deadline
        time.sleep(0.001)  # a save takes a hundred times as long
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("first_step", marks=pytest.mark.slow),
        pytest.param("mid_epoch", marks=pytest.mark.slow),
        "mid_save",
        pytest.param("after_an_epoch", marks=pytest.mark.slow),
    ],
)
def test_kill_9_and_the_same_command_end_in_the_same_bits(place, undisturbed, moment):
    workdir = place / moment
    checkpoints = workdir / "checkpoints"
    # Saves after every step where a kill within an epoch is to find something.
    options = ["--config.train.checkpoint_minutes=1e-9"] if moment.startswith("mid") else []

    def saved() -> set[int]:
        return {int(p.name) for p in checkpoints.glob("*") if p.name.isdigit()}

    conditions = {
        "first_step": lambda: (workdir / "config.json").is_file(),
        "mid_epoch": lambda: any(step % PER_EPOCH for step in saved()),
        "mid_save": lambda: saved() and any("tmp" in p.name for p in checkpoints.glob("*")),
        "after_an_epoch": lambda: PER_EPOCH in saved() and (workdir / "bundle" / "bundle.json").is_file(),
    }
    kill_when(command(place, moment, *options), conditions[moment])
    assert not (workdir / "report.json").exists()
    text = finished(command(place, moment, *options))
    if moment != "first_step":
        assert "resuming from step" in text
    assert_same_run(workdir, undisturbed)


@pytest.mark.one_stack
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_polite_stop_saves_and_exits_cleanly(place, undisturbed, number):
    name = f"stopped_{number.name}"
    process = command(place, name)
    for line in process.stdout:
        if line.startswith("epoch   1"):
            process.send_signal(number)
            break
    text = finished(process)
    assert "stopped and saved at step" in text
    assert "Traceback" not in text
    # The images may lie elsewhere by then.
    shutil.copytree(place / "data", place / f"moved_{number.name}")
    finished(command(place, name, f"--config.data.dir={place / f'moved_{number.name}'}"))
    assert_same_run(place / name, undisturbed)


@pytest.mark.one_stack
def test_a_stop_while_the_step_compiles_is_answered_at_once_and_loses_nothing(place):
    # A size that no other run has, so that nothing comes from the cache, and more blocks, so that it takes long.
    process = command(place, "compiling", "--config.data.image_size=40", "--config.model.depth=44")
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("compiling the training step for 40 px"):
            process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in errors, errors
    assert lines[-1] == "stopped; the same command begins anew\n"
    assert not any(line.startswith("compiled in") for line in lines)


@pytest.mark.slow
def test_more_epochs_and_keys_that_change_no_bit_end_in_the_bits_of_a_run_that_had_them_all_along(
    place, undisturbed
):
    finished(command(place, "grown", f"--config.train.epochs={EPOCHS - 1}"))
    others = ["--config.data.cache=False", "--config.data.workers=0"]
    said = finished(command(place, "grown", *others, "--config.train.checkpoint_minutes=1"))
    assert f"resuming from step {STEPS - PER_EPOCH} of {STEPS}" in said
    assert_same_run(place / "grown", undisturbed)
    assert len(json.loads((place / "grown" / "report.json").read_text())["per_class"]) == 3


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_the_same_command_ends_in_the_same_bits(place, undisturbed):
    process = command(place, "twice", "--config.train.checkpoint_minutes=1e-9")
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("compiled in"):
            process.send_signal(signal.SIGTERM)
        if line.startswith("stopping after the step"):
            process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in errors, errors
    finished(command(place, "twice", "--config.train.checkpoint_minutes=1e-9"))
    assert_same_run(place / "twice", undisturbed)


def test_the_time_left_is_told_from_the_first_steps():
    # Two steps that waited for programs and images, then ten of two seconds, one of them disturbed.
    ends = [100, 160, *(160 + 2 * i for i in range(1, 9)), 250, 252]
    line = time_left([float(end) for end in ends], 1800)
    assert line == "about 1 h 0 min left, by the first 12 steps, 2 s each; validation not counted"


@pytest.mark.one_stack
def test_a_loss_that_is_no_number_stops_with_step_rate_and_files(place, undisturbed):
    # Broken by where it starts from and not by its rate, so that the program compiled for `undisturbed` serves.
    bundle = load_bundle(undisturbed)
    classifier = bundle.variables["params"]["classifier"]
    classifier["kernel"] = np.full_like(classifier["kernel"], np.nan)
    save_bundle(place / "broken", bundle)
    text = finished(command(place, "nan", f"--config.init.weights={place / 'broken'}"), 2)
    error = text.splitlines()[-1]
    assert error.startswith("error: the loss is nan at step ")
    assert "learning rate" in error and error.count(".png") == 8


@pytest.mark.one_stack
def test_eval_agrees_with_the_report_and_takes_fewer_classes(place, undisturbed, tmp_path):
    out = tmp_path / "report.json"
    evaluate = [sys.executable, "-m", "wastejax.main", "eval", f"--model={undisturbed}", f"--out={out}"]
    env = os.environ | {"WASTEJAX_CACHE": str(place / "cache")}
    subprocess.run(evaluate, check=True, env=env, capture_output=True)
    scores, report = json.loads(out.read_text()), json.loads((undisturbed / "report.json").read_text())
    fixed = ("top1", "top5", "macro_f1", "loss", "ece", "ci95", "per_class", "confusion", "num_images")
    for key in (*fixed, "calibration", "selective"):
        assert scores[key] == report[key], key
    right = np.arange(report["num_images"]) < round(report["top1"] * report["num_images"])
    assert report["ci95"] == list(bootstrap_interval(right, 30))  # eval.bootstrap

    fewer = tmp_path / "fewer"
    (fewer / "square").mkdir(parents=True)
    for path in sorted((place / "data" / "square").iterdir())[:5]:
        ImageOps.invert(Image.open(path)).save(fewer / "square" / path.name)  # new to the run
    (fewer / "disc").mkdir()
    ImageOps.invert(Image.open(place / "data" / "disc" / "00.png")).save(fewer / "disc" / "a.png")
    photo = (fewer / "disc" / "a.png").read_bytes()
    subprocess.run([*evaluate, f"--data={fewer}"], check=True, env=env, capture_output=True)
    scores = json.loads(out.read_text())
    assert scores["num_images"] == 6
    assert [scores["per_class"][c]["support"] for c in ("bar", "disc", "square")] == [0, 1, 5]

    (fewer / "triangle").mkdir()
    (fewer / "triangle" / "a.png").write_bytes(photo)
    done = subprocess.run([*evaluate, f"--data={fewer}"], env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "triangle" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_run_can_start_from_an_earlier_one(place, undisturbed):
    options = ["--config.train.epochs=1", "--config.optim.learning_rate=1e-9", "--config.optim.ema_decay=0"]
    finished(command(place, "continued", *options, f"--config.init.weights={undisturbed}"))
    started_from = json.loads((undisturbed / "bundle" / "bundle.json").read_text())["metrics"]
    first = history(place / "continued")[0]
    # Hardly a step was taken, so the scores are those it started with, up to the batch statistics.
    assert abs(float(first["val_top1"]) - started_from["val_top1"]) < 0.2


@pytest.mark.slow
def test_sizes_grow_along_the_epochs_and_a_kill_changes_nothing(place):
    options = ["--config.data.progressive=32,48,64", "--config.data.augmentation=strong"]
    said = finished(command(place, "growing", *options))
    sizes = [line.split()[-2] for line in said.splitlines() if "training at" in line]
    assert sizes == ["32", "48", "64"]
    process = command(place, "sizes", *options)
    for line in process.stdout:
        if "epoch 2: training" in line:
            process.kill()
    process.communicate()
    finished(command(place, "sizes", *options))
    assert_same_run(place / "growing", place / "sizes")


@pytest.mark.slow
def test_a_run_that_gets_no_better_stops_early(place):
    options = {"train.epochs": 12, "train.early_stopping": 1, "optim.learning_rate": 1e-9}
    finished(command(place, "early", *(f"--config.{key}={value}" for key, value in options.items())))
    rows = history(place / "early")
    accuracies = [float(row["val_top1"]) for row in rows]
    assert 2 <= len(rows) < 12
    assert accuracies[-1] <= accuracies[-2] == max(accuracies)
    facts = json.loads((place / "early" / "report.json").read_text())["facts"]
    assert facts["stopped_reason"] == "no better validation accuracy for 1 epochs"
    scores = [float(row["score"]) for row in rows]
    assert facts["best_epoch"] == 1 + scores.index(max(scores))  # the loss decides where accuracy is the same


@pytest.mark.slow
def test_classes_left_out_are_foreign_images_at_the_end(place, tmp_path):
    options = ["--config.train.epochs=1", "--config.data.leave_out=disc"]
    text = finished(command(place, "left_out", *options))
    assert "20 images of disc are kept out of training" in text
    run = place / "left_out"
    report = json.loads((run / "report.json").read_text())
    assert list(report["per_class"]) == ["bar", "square"]
    assert report["ood"]["num_images"] == 20 and report["ood"]["pictures"] == "left out of training: disc"
    assert "left out of training: disc" in (run / "report.md").read_text()
    assert "this run is finished" in finished(command(place, "left_out", *options))

    env = os.environ | {"WASTEJAX_CACHE": str(place / "cache")}
    evaluate = [
        sys.executable,
        "-m",
        "wastejax.main",
        "eval",
        f"--model={run}",
        f"--out={tmp_path / 'a.json'}",
    ]
    subprocess.run(evaluate, check=True, env=env, capture_output=True)
    assert json.loads((tmp_path / "a.json").read_text())["ood"] == report["ood"]
    # The same images as any folder; calibrating anew finds what the run found.
    again = [*evaluate, f"--ood={place / 'data' / 'disc'}", "--calibrate"]
    done = subprocess.run(again, check=True, env=env, capture_output=True, text=True)
    assert "detection of 20 out-of-distribution images (disc)" in done.stdout
    scores = json.loads((tmp_path / "a.json").read_text())
    assert scores["ood"]["scores"] == report["ood"]["scores"]
    assert scores["calibration"] == report["calibration"]
    # Of the run's own images, its test images are scored, and the class that it left out is left out.
    own = subprocess.run(
        [*evaluate, f"--data={place / 'data'}"], check=True, env=env, capture_output=True, text=True
    )
    assert "note: disc left out, as in training" in own.stdout and "8 images of 2 classes" in own.stdout
