"""Many devices and many processes give what one gives: rows, steps, evaluation, and runs that are killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wastejax.data import pipeline, transforms
from wastejax.data.sources import open_folder
from wastejax.data.transforms import Preprocessing

pytestmark = pytest.mark.slow  # minutes on two cores

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """22 pictures of two classes: no multiple of any batch here."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("can", "jar"):
        (root / name).mkdir()
        for i in range(11):
            pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
            pixels[:, :, 0] = 230 if name == "can" else 20
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


PREPROCESSING = Preprocessing(image_size=16)


def test_machines_read_their_rows_of_the_same_batches(pictures):
    source = open_folder(pictures)
    augment = transforms.AUGMENTATIONS["basic"](PREPROCESSING, 0.5)

    def batches(part):
        return list(
            pipeline.train_batches(
                pipeline.reader(source, np.arange(22), cache=False),
                source.labels,
                np.arange(22),
                augment,
                batch_size=8,
                seed=3,
                start=2,
                stop=6,
                part=part,
            )
        )

    whole, parts = batches((0, 1)), [batches((k, 4)) for k in range(4)]
    assert len(whole) == 4
    for step, batch in enumerate(whole):
        for name, rows in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[step][name] for part in parts]), rows)


def test_machines_evaluate_every_picture_once(pictures):
    source = open_folder(pictures)
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


# A network with what could go wrong: every kind of convolution, batch normalisation, dropout; quickly compiled.
STEPS = """
import json, sys
import flax.linen as nn
import jax, numpy as np
from functools import partial
from wastejax.config import load_recipe
from wastejax.data.transforms import Preprocessing
from wastejax.models import Model
from wastejax.models.conv import Conv
from wastejax.models.layers import BatchNorm, ConvNormAct, DropPath, pool
from wastejax.training.devices import on_devices, use_devices
from wastejax.training.optim import make_optimizer, make_schedule
from wastejax.training.state import create_train_state
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

def train(count):
    devices = use_devices(jax.devices()[:count])
    tx = make_optimizer(config.optim, make_schedule(config.optim, 5, 5))
    step = make_train_step(model, tx, config, preprocessing, 3, sharding=devices.everywhere)
    state = devices.replicate(create_train_state(variables, tx, config.optim))
    losses = []
    for batch in batches:
        state, metrics = step(state, on_devices(devices, batch))
        losses.append(float(metrics["loss"]))
    assert step._cache_size() == 1
    assert len(state.step.sharding.device_set) == count
    return state, losses

(one, losses_one), (eight, losses_eight) = train(1), train(8)
gap = lambda a, b: max(float(np.abs(np.asarray(x) - np.asarray(y)).max())
                       for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
print(json.dumps({
    "params": gap(one.params, eight.params), "stats": gap(one.batch_stats, eight.batch_stats),
    "losses": gap(losses_one, losses_eight), "moved": gap(one.params, variables["params"]),
}))
"""


def steps_on_eight_devices(**optim) -> dict[str, float]:
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", STEPS, json.dumps(optim)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_sgd_on_eight_devices_ends_where_one_does():
    gaps = steps_on_eight_devices(name="sgd", learning_rate=0.05, warmup_epochs=0.0)
    assert gaps["moved"] > 0.01
    assert gaps["params"] < 1e-5 and gaps["stats"] < 1e-5


def test_adamw_on_eight_devices_has_the_same_losses():
    gaps = steps_on_eight_devices(name="adamw", learning_rate=0.002, warmup_epochs=0.0)
    assert gaps["moved"] > 0.001
    assert gaps["losses"] < 1e-4


def start(place: Path, workdir: str, *options: str, devices: int = 1) -> subprocess.Popen:
    """One process of a run that has everything random switched on."""
    env = os.environ | {
        "WASTEJAX_CACHE": str(place / "cache"),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    arguments = [
        "--config=configs/efficientnetv2_eca.py",
        f"--config.data.dir={place / 'pictures'}",
        f"--workdir={place / workdir}",
        "--config.model.size=tiny",
        "--config.model.dropout=0.2",
        "--config.data.image_size=64",  # at 32, batches of four single positions blow rounding up
        "--config.data.split.group=none",
        "--config.train.epochs=3",
        "--config.train.batch_size=4",
        "--config.train.checkpoint_minutes=1e-9",
        "--config.eval.batch_size=3",
        "--config.optim.name=sgd",
        "--config.optim.learning_rate=0.001",
        "--config.optim.warmup_epochs=0",
        "--config.optim.ema_decay=0",
        "--config.loss.mixup=0.2",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "wastejax.main", *arguments, *options],
        env=env,
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def pair(place: Path, workdir: str) -> list[subprocess.Popen]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = (f"--coordinator=127.0.0.1:{port}", "--processes=2")
    return [start(place, workdir, *flags, f"--process={k}") for k in range(2)]


def finished(process: subprocess.Popen) -> str:
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out
    return out


def weights(workdir: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(next((workdir / "bundle").glob("*.safetensors")))


def assert_same_end(a: Path, b: Path) -> None:
    one, other = (json.loads((w / "report.json").read_text()) for w in (a, b))
    assert one["num_images"] == other["num_images"] == 4
    assert one["confusion"] == other["confusion"]
    metrics = [np.genfromtxt(w / "metrics.csv", delimiter=",", names=True) for w in (a, b)]
    for column in ("train_loss", "val_loss"):
        np.testing.assert_allclose(metrics[0][column], metrics[1][column], atol=1e-4)
    assert weights(a).keys() == weights(b).keys()
    for name, array in weights(a).items():
        np.testing.assert_allclose(array, weights(b)[name], atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def place(pictures, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    (root / "pictures").symlink_to(pictures)
    finished(start(root, "alone"))
    return root


@pytest.mark.slow
def test_two_processes_train_as_one(place):
    first, second = (finished(process) for process in pair(place, "pair"))
    assert "epoch   3/3" in first and "epoch" not in second  # only one speaks
    assert_same_end(place / "pair", place / "alone")


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
    assert "going on from step" in finished(start(place, "killed"))
    assert_same_end(place / "killed", place / "alone")


@pytest.mark.slow
def test_a_stop_of_one_process_stops_both_and_two_devices_go_on(place):
    processes = pair(place, "stopped")
    for line in processes[0].stdout:
        if line.startswith("epoch   1"):
            processes[1].send_signal(signal.SIGTERM)
            break
    assert "stopped and saved at step" in finished(processes[0])
    finished(processes[1])
    assert "going on from step" in finished(start(place, "stopped", devices=2))
    assert_same_end(place / "stopped", place / "alone")
