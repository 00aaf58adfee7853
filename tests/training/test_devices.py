"""Many devices and many processes give what one gives: rows, steps, evaluation, and runs that are killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wastejax.data import pipeline, transforms
from wastejax.data.sources import open_folder
from wastejax.data.transforms import Preprocessing
from wastejax.errors import UserError
from wastejax.runtime.rendezvous import meet
from wastejax.training import devices as processes

HERE = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """22 images of two classes: no multiple of any batch here."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("can", "jar"):
        (root / name).mkdir()
        for i in range(11):
            pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
            pixels[:, :, 0] = 230 if name == "can" else 20
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


PREPROCESSING = Preprocessing(image_size=16)


def test_machines_read_their_rows_of_the_same_batches(images):
    source = open_folder(images)
    augment = transforms.AUGMENTATIONS["basic"](PREPROCESSING, 0.5)

    def batches(part):
        read = pipeline.reader(source, np.arange(22), cache=False)
        drawn = pipeline.TrainingImages(read, np.arange(22), augment, batch_size=8, seed=3, part=part)
        return list(pipeline.train_batches(drawn, 2, 6))

    whole, parts = batches((0, 1)), [batches((k, 4)) for k in range(4)]
    assert len(whole) == 4
    for step, batch in enumerate(whole):
        for name, rows in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[step][name] for part in parts]), rows)


def test_machines_evaluate_every_image_once(images):
    source = open_folder(images)
    whole = list(pipeline.EvalBatches(source, np.arange(22), PREPROCESSING, 8))
    parts = [
        list(pipeline.EvalBatches(source, np.arange(22), PREPROCESSING, 8, part=(k, 4))) for k in range(4)
    ]
    assert [int(batch["mask"].sum()) for batch in whole] == [8, 8, 6]
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([p[step]["image"] for p in parts]), batch["image"])
        for part in parts:
            for name in ("index", "label", "mask"):
                np.testing.assert_array_equal(part[step][name], batch[name])


def test_the_step_is_given_what_each_label_can_mean():
    allowed = np.array([[True, True, False], [False, False, False]])  # two classes; none of them
    rows = {"image": np.zeros((2, 8, 8, 3), np.uint8), "label": np.zeros(2, np.int32), "index": np.arange(2)}
    mesh = processes.use_devices()
    assert processes.on_devices(mesh, rows).keys() == {"image", "label"}
    np.testing.assert_array_equal(processes.on_devices(mesh, rows | {"allowed": allowed})["allowed"], allowed)


# A network with what could go wrong: every kind of convolution, batch normalization, dropout; quickly compiled.
STEPS = '''
import json, sys
from pathlib import Path
import flax.linen as nn
import jax, numpy as np
from functools import partial
from wastejax.config import load_recipe
from wastejax.data.transforms import Preprocessing
from wastejax.models import Model
from wastejax.models.layers.conv import Conv
from wastejax.models.layers.blocks import ConvNormAct, DropPath, pool
from wastejax.models.layers.norm import BatchNorm
from wastejax.training.checkpoint import Checkpoints
from wastejax.training.devices import on_devices, use_devices
from wastejax.training.step.optim import make_optimizer, make_schedule
from wastejax.training.step.state import create_train_state
from wastejax.training.step import make_train_step

class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        layer = partial(ConvNormAct, Conv, BatchNorm, activation="silu")
        x = layer(8, strides=2)(x, train)
        x = x + DropPath(0.3)(layer(8, depthwise=True)(x, train), train)
        x = layer(16, kernel=1)(x, train)
        return nn.Dense(3)(pool(x))

config = load_recipe("common")
config.data.image_size, config.loss.mixup = 16, 0.4
config.optim.update(json.loads(sys.argv[1]))
preprocessing = Preprocessing.from_config(config.data)
model = Model(Net(), {}, 3)
variables = model.init(jax.random.key(0), 16)
rng = np.random.default_rng(0)
batches = [{"image": rng.integers(0, 256, (16, 16, 16, 3), np.uint8), "label": rng.integers(0, 3, 16, np.int32)}
           for _ in range(5)]

def neighbor(array, rng):
    """Returns each number's neighbor above or below, by chance."""
    array = np.asarray(array)
    return np.nextafter(array, np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype))

def train(count, steps=slice(None), checkpoints=None, moved_by=None):
    """Trains on the first devices, from the start or from the checkpoint that is there."""
    devices = use_devices(jax.devices()[:count])
    tx = make_optimizer(config.optim, make_schedule(config.optim, 5, 5))
    step = make_train_step(model, tx, config, preprocessing, sharding=devices.everywhere)
    state = devices.replicate(create_train_state(variables, tx, config.optim))
    if checkpoints and (restored := checkpoints.restore(state)):
        state, _ = restored
    losses = []
    for batch in batches[steps]:
        if moved_by:
            params = jax.tree.map(lambda a: neighbor(a, moved_by), state.params)
            state = state.replace(params=devices.replicate(params))
        state, metrics = step(state, on_devices(devices, batch))
        losses.append(float(metrics["loss"]))
    assert step._cache_size() == 1
    assert len(state.step.sharding.device_set) == count
    if checkpoints:
        checkpoints.save(state, {})
    return state, losses

def continued(before, after, folder):
    with Checkpoints(folder) as checkpoints:
        train(before, slice(2), checkpoints)
        return train(after, slice(2, 5), checkpoints)

def gap(a, b):
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max())
               for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

def gaps(state, losses):
    return {"params": gap(one.params, state.params), "stats": gap(one.batch_stats, state.batch_stats),
            "losses": gap(losses_one[-len(losses):], losses)}

one, losses_one = train(1)
if len(sys.argv) == 2:
    others = {"eight": train(8)}
else:
    others = {f"{a} to {b}": continued(a, b, Path(sys.argv[2]) / f"{a}") for a, b in ((8, 1), (2, 8))}
moved = [gaps(*train(1, moved_by=np.random.default_rng(seed))) for seed in range(3)]
last = {"params": one.params, "stats": one.batch_stats, "losses": losses_one}
largest = {what: gap(x, jax.tree.map(np.zeros_like, x)) for what, x in last.items()}
print(json.dumps({"gone": gap(one.params, variables["params"]),
                  "unit": {what: max(m[what] for m in moved) + 2**-23 * largest[what] for what in largest},
                  "others": {name: gaps(*ended) for name, ended in others.items()}}))
'''


def steps_on_eight_devices(*arguments: str, **optim) -> dict:
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", STEPS, json.dumps(optim | {"warmup_epochs": 0.0}), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_within_rounding(gaps: dict) -> None:
    """Several devices sum in another order, in every step.

    What that may do is what one device does whose parameters are moved by a unit in the last place before every
    step, thrice, and a unit of the largest value. Four times that is allowed, on any processor.
    """
    for name, gap in gaps["others"].items():
        for what, unit in gaps["unit"].items():
            assert gap[what] <= 4 * unit, (name, what, gap[what], unit)


@pytest.mark.slow
def test_sgd_on_eight_devices_ends_where_one_does():
    gaps = steps_on_eight_devices(name="sgd", learning_rate=0.05)
    assert gaps["gone"] > 0.01 > 1000 * gaps["unit"]["params"]
    assert_within_rounding(gaps)


@pytest.mark.slow  # three more programs to compile
def test_a_checkpoint_goes_on_with_another_number_of_devices(tmp_path):
    gaps = steps_on_eight_devices(str(tmp_path), name="sgd", learning_rate=0.05)
    assert gaps["others"].keys() == {"8 to 1", "2 to 8"}
    assert_within_rounding(gaps)


@pytest.mark.slow
def test_adamw_on_eight_devices_ends_where_one_does():
    gaps = steps_on_eight_devices(name="adamw", learning_rate=0.002)
    assert gaps["gone"] > 0.001 > 10 * gaps["unit"]["losses"]
    assert_within_rounding(gaps)


@pytest.mark.parametrize(
    ("coordinator", "count", "number", "message"),
    [
        ("auto", 2, None, "leave them out"),
        ("here", 2, 0, "give HOST:PORT"),
        ("here:", 2, 0, "give HOST:PORT"),
        ("127.0.0.1:1", None, 0, "needs --processes=N and --process=K"),
        ("127.0.0.1:1", 2, 2, "K from 0 to N - 1"),
        ("127.0.0.1:70000", 2, 0, "give HOST:PORT"),
        ("no-such-host.invalid:1", 2, 1, "no-such-host.invalid:1: no such host"),
        ("127.0.0.1:1", 2, 1, "process 0 does not answer"),  # nobody listens on port 1
    ],
)
def test_a_cluster_that_cannot_be(monkeypatch, coordinator, count, number, message):
    monkeypatch.setattr(processes, "PATIENCE", 0)
    with pytest.raises(UserError, match=message):
        processes.connect(processes.Cluster(coordinator, count, number))


MOVED_BY = (0, 1, 2)  # chances; 1 and 2 led 9 times as far as 0
# The command with every parameter moved by a unit in the last place, up or down by chance, before every step.
MOVED = """
import sys
import jax, numpy as np
from wastejax.training import step

rng = np.random.default_rng(int(sys.argv.pop(1)))
make = step.make_train_step

def neighbor(array):
    old = np.asarray(array)
    new = np.nextafter(old, np.where(rng.random(old.shape) < 0.5, -np.inf, np.inf).astype(old.dtype))
    return jax.device_put(new, array.sharding)

def make_moved(*args, **options):
    take = make(*args, **options)
    return lambda state, batch: take(state.replace(params=jax.tree.map(neighbor, state.params)), batch)

step.make_train_step = make_moved
from wastejax.main import main
sys.exit(main())
"""


def start(
    place: Path,
    workdir: str,
    *options: str,
    devices: int = 1,
    program: tuple[str, ...] = ("-m", "wastejax.main"),
) -> subprocess.Popen:
    """One process of a run that has everything random switched on.

    Size, optimizer and rate are such that rounding does not grow beyond measure: at 32 px the last stages normalize
    four values a channel, some all alike, and Adam's first step is the sign of a gradient, which decides on a whole
    step where a gradient is nothing but rounding.
    """
    env = os.environ | {
        "WASTEJAX_CACHE": str(place / "cache"),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    arguments = [
        "--config=configs/efficientnetv2_eca.py",
        f"--config.data.dir={place / 'images'}",
        f"--workdir={place / workdir}",
        "--config.model.size=tiny",
        "--config.model.dropout=0.2",
        "--config.data.image_size=64",
        "--config.data.split.group=none",
        "--config.train.epochs=3",
        "--config.train.batch_size=4",
        "--config.train.checkpoint_minutes=1e-9",
        "--config.eval.batch_size=5",  # 6 rows for two devices: of 4 images, three for one and one for the other
        "--config.optim.name=sgd",
        "--config.optim.learning_rate=0.001",
        "--config.optim.warmup_epochs=0",
        "--config.optim.ema_decay=0",
        "--config.loss.mixup=0.2",
    ]
    return subprocess.Popen(
        [sys.executable, *program, *arguments, *options],
        env=env,
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("come", "message"),
    [
        ([(3, 0), (3, 2), (3, 1)], ""),
        ([(1, 0)], ""),
        ([(3, 0), (3, 1)], "waited 1 s in vain for --process=2"),
        ([(2, 0), (3, 1)], "process 0 has --processes=2, process 1 has 3; give all the same"),
        ([(3, 0), (3, 1), (3, 1)], "--process=1 came twice"),
    ],
)
def test_processes_meet_or_are_all_told_why_not(come, message):
    port = free_port()

    def outcome(one: tuple[int, int]) -> str:
        try:
            meet("127.0.0.1", port, *one, patience=1)
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(come)) as pool:
        outcomes = set(pool.map(outcome, come))
    assert outcomes == {message and f"--coordinator=127.0.0.1:{port}: {message}"}
    free_port_again = socket.create_server(("127.0.0.1", port))
    free_port_again.close()


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on port {port}"):
            meet("127.0.0.1", port, 2, 0, patience=1)


def test_a_signal_reaches_a_run_of_several_processes():
    code = f"""
import os, signal, time
from wastejax.main import say
from wastejax.runtime.stop import Stop
from wastejax.training.devices import Cluster, connect
with Stop(say, exits=True):
    connect(Cluster("127.0.0.1:{free_port()}", 1, 0))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE.parent)
    assert (done.returncode, done.stdout.splitlines()[-1][:9]) == (143, "stopped; ")


def pair(place: Path, workdir: str) -> list[subprocess.Popen]:
    flags = (f"--coordinator=127.0.0.1:{free_port()}", "--processes=2")
    return [start(place, workdir, *flags, f"--process={k}") for k in range(2)]


def finished(process: subprocess.Popen) -> str:
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out
    return out


def weights(workdir: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(next((workdir / "bundle").glob("*.safetensors")))


def losses(workdir: Path) -> dict[str, np.ndarray]:
    table = np.genfromtxt(workdir / "metrics.csv", delimiter=",", names=True)
    return {column: table[column] for column in ("train_loss", "val_loss")}


def assert_same_end(place: Path, workdir: str) -> None:
    """A run of several devices ends where `alone` does, but for rounding.

    How far rounding may lead is the farthest that the moved runs go, for each array by itself, and a unit of its
    largest value; four times that is allowed.
    """
    one, other = (json.loads((place / w / "report.json").read_text()) for w in ("alone", workdir))
    assert one["num_images"] == other["num_images"] == 4
    assert one["confusion"] == other["confusion"]
    for read in (losses, weights):
        alone, found = (read(place / w) for w in ("alone", workdir))
        moved = [read(place / f"moved{seed}") for seed in MOVED_BY]
        assert alone.keys() == found.keys()
        for name, array in alone.items():
            unit = max(np.abs(m[name] - array).max() for m in moved) + 2**-23 * np.abs(array).max()
            np.testing.assert_allclose(found[name], array, rtol=0, atol=4 * unit, err_msg=name)


@pytest.fixture(scope="module")
def place(images, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    (root / "images").symlink_to(images)
    finished(start(root, "alone"))
    for seed in MOVED_BY:
        finished(start(root, f"moved{seed}", program=("-c", MOVED, str(seed))))
    return root


@pytest.mark.slow
def test_two_processes_train_as_one(place):
    first, second = (finished(process) for process in pair(place, "pair"))
    assert "epoch   3/3" in first and "epoch" not in second  # only one speaks
    assert_same_end(place, "pair")


@pytest.mark.slow
def test_two_processes_are_killed_and_one_goes_on(place):
    processes = pair(place, "killed")
    checkpoints = place / "killed" / "checkpoints"
    deadline = time.monotonic() + 600
    while not any(p.name.isdigit() and int(p.name) >= 4 for p in checkpoints.glob("*")):
        assert all(p.poll() is None for p in processes), processes[0].communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (place / "killed" / "report.json").exists()
    assert "resuming from step" in finished(start(place, "killed"))
    assert_same_end(place, "killed")


@pytest.mark.slow
def test_a_stop_of_one_process_stops_both_and_two_devices_go_on(place):
    processes = pair(place, "stopped")
    for line in processes[0].stdout:
        if line.startswith("epoch   1"):
            processes[1].send_signal(signal.SIGTERM)
            break
    assert "stopped and saved at step" in finished(processes[0])
    finished(processes[1])
    assert "resuming from step" in finished(start(place, "stopped", devices=2))
    assert_same_end(place, "stopped")
