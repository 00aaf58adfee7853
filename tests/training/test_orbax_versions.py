"""A run goes on under the orbax that jax2onnx holds back, and under the newest, whichever saved it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]
VERSIONS = ("0.11.36", "0.12.8")  # what the extra `export` brings; what there is without it
CHECKPOINT = """
import sys
from importlib.metadata import version
from pathlib import Path
import jax, numpy as np
from wastejax.config import load_recipe
from wastejax.training.checkpoint import Checkpoints
from wastejax.training.step.optim import make_optimizer, make_schedule
from wastejax.training.step.state import create_train_state

config = load_recipe("common")
tx = make_optimizer(config.optim, make_schedule(config.optim, 5, 5))
def state(seed):
    values = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
    return create_train_state({"params": {"kernel": values}, "batch_stats": {"mean": values[0]}}, tx, config.optim)

action, folder, expected = sys.argv[1:]
assert version("orbax-checkpoint") == expected
with Checkpoints(Path(folder)) as checkpoints:
    if action == "save":
        checkpoints.save(state(1), {"history": [{"epoch": 1}]}, score=0.5)
    else:
        restored, progress = checkpoints.restore(state(2))
        assert progress == {"history": [{"epoch": 1}]}
        jax.tree.map(np.testing.assert_array_equal, restored, state(1))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> dict[str, Path]:
    """The versions, each in a folder of its own that comes before the environment's."""
    folders = {version: tmp_path_factory.mktemp(version) for version in VERSIONS}
    for version, folder in folders.items():
        install = ["install", "--quiet", "--no-deps", f"--target={folder}", f"orbax-checkpoint=={version}"]
        done = subprocess.run([sys.executable, "-m", "pip", *install], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"pip could not get orbax-checkpoint {version}: {done.stderr.splitlines()[-1]}")
    return folders


@pytest.mark.slow  # pip and the network
@pytest.mark.parametrize(("writer", "reader"), [VERSIONS, VERSIONS[::-1]])
def test_a_checkpoint_is_restored_by_the_other_version(installed, tmp_path, writer, reader):
    for action, version in (("save", writer), ("restore", reader)):
        env = os.environ | {"PYTHONPATH": f"{installed[version]}:{HERE}", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-W", "ignore", "-c", CHECKPOINT, action, str(tmp_path), version]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
