"""Places that cannot be written: one line before work begins, or, where it was only a cache, on without it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wastejax.data.cache import build_store
from wastejax.data.duplicates import scan
from wastejax.data.pipeline import EvalBatches, reader
from wastejax.data.sources import open_folder
from wastejax.data.transforms import Preprocessing
from wastejax.errors import UserError
from wastejax.files import check_file, check_folder, check_unread, write_bytes, write_json
from wastejax.main import dispatch

ROOT = Path(__file__).resolve().parents[1]


# Sets the limit in a process of its own: `preexec_fn` would fork this one, which may run jax's threads.
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def wastejax(*arguments: str, cwd: Path, env: dict[str, str] | None = None, limit: int = 0):
    """Runs a command; with `limit`, to files of so many bytes: what a full disk is, without one."""
    limited = ["-c", LIMITED, str(limit)] if limit else []
    return subprocess.run(
        [sys.executable, *limited, "-m", "wastejax.main", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (env or {}),
        timeout=900,
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    rng = np.random.default_rng(3)
    for name in ("can", "jar"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(5):
            image = Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8))
            image.save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "file").write_text("not a folder")
    return tmp_path


IMPOSSIBLE = ("file", "file/below", "/proc/nowhere", "x" * 300, "a/" + "y" * 300)


@pytest.mark.parametrize("place", IMPOSSIBLE)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_done(folder, monkeypatch, place):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"^--out=") as told:
        check_folder(place, "--out")
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match=r"^--out="):
        check_file(f"{place}/a.json", "--out")
    assert sorted(p.name for p in folder.iterdir()) == ["data", "file"]


def test_an_address_is_no_folder_to_write_into(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = r"^--out=s3://bucket/new: is an address; give a {} on this machine, and copy it there afterwards$"
    for place in ("s3://bucket/new", Path("s3://bucket/new")):
        with pytest.raises(UserError, match=told.format("folder")):
            check_folder(place, "--out")
        with pytest.raises(UserError, match=told.format("file")):
            check_file(place, "--out")
    check_folder("./s3", "--out")
    (tmp_path / "photo").touch()
    for command in (
        "predict photo --out={}",
        "predict photo --summary={}",
        "predict photo --heatmap={}",
        "predict photo --regions --draw={}",
        "serve --collect={}",
        "web --runtime=. --out={}",
        "shard --data=data --out={}",
        "export --format=bundle --out={}",
        "benchmark --out={}",
        "robustness --data=data --out={}",
    ):
        monkeypatch.setattr("wastejax.deployment.website.RUNTIME", ())
        monkeypatch.setattr("wastejax.main.process.prepare", lambda: None)
        with pytest.raises(UserError, match=r"^--[a-z]+=s3://bucket/new: is an address; give a folder on"):
            dispatch(command.format("s3://bucket/new").split())
    assert [path.name for path in tmp_path.iterdir()] == ["photo"]


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    check_folder(tmp_path / "a" / "b", "--out")
    check_file(tmp_path / "a.json", "--out")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="is a folder"):
        check_file(tmp_path, "--out")


def test_what_training_left_in_a_run_is_not_replaced(tmp_path):
    for name in ("config.json", "report.json", "scores.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=r"--out=.*report\.json: is a file of the run in"):
        check_file(tmp_path / "report.json", "--out")
    check_file(tmp_path / "scores.json", "--out")
    (tmp_path / "config.json").unlink()
    check_file(tmp_path / "report.json", "--out")


def test_a_file_that_is_read_is_not_written(folder):
    file, link = folder / "file", folder / "link"
    link.symlink_to(file)
    read = {"--labels": None, "--data": str(file)}
    for path in (file, link, folder / "data" / ".." / "file"):
        with pytest.raises(
            UserError, match=r"^--out=.*: is the file of --data, which it would replace; name"
        ):
            check_unread(path, "--out", read)
    with pytest.raises(UserError, match=r"^--out=.*: is a file in --data, which it would replace"):
        check_unread(folder / "data" / "can" / "0.png", "--out", {"--data": folder / "data"})
    for path in (folder / "new", folder / "data" / "new"):
        check_unread(
            path, "--out", read | {"--calibrate": folder / "data", "--ood": "s3://b/c", "--split": "\0"}
        )


READING = {
    "--out": "eval --data=boxes.json",
    "--review": "eval --data=images --corrections=boxes.json",
    "--report": "export --format=onnx --data=boxes.json",
}
READING |= {
    "--out ": "eval --data=images --labels=boxes.json",
    "--out  ": "compare a b --data=boxes.json",
    "--out   ": "crossval --data=boxes.json",
}


@pytest.mark.parametrize("option", READING)
def test_no_command_writes_over_what_it_is_given(folder, monkeypatch, option):
    monkeypatch.chdir(folder)
    Path("boxes.json").write_text("mine")
    with pytest.raises(UserError, match=rf"^{option.strip()}=boxes\.json: is the file of --"):
        dispatch([*READING[option].split(), f"{option.strip()}=boxes.json"])
    assert Path("boxes.json").read_text() == "mine"


COMMANDS = {
    "--workdir={}": "--config=mobilevit_ir --config.data.dir=data",
    "--out={}/a.json": "eval --data=data",
    "--out={}": "audit --data=data",
    "--out={}/m.onnx": "export --format=onnx",
    "--report={}/m.json": "export --format=stablehlo",
    "--draw={}": "predict --regions data",
    "--heatmap={}": "predict data",
}


@pytest.mark.parametrize("option", COMMANDS)
def test_every_command_looks_at_the_place_for_its_results_first(folder, option):
    done = wastejax(*COMMANDS[option].split(), option.format("file"), cwd=folder)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {option.partition('=')[0]}=file") and done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_without_a_place_for_the_cache_everything_works_and_says_so_once_each(folder, caplog, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(folder / "file"))
    source = open_folder(folder / "data")
    seen = scan(source, folder / "file")
    assert len(np.unique(seen.phash)) == 10 and not seen.bad
    indices = np.arange(10)
    cached = reader(source, indices, cache=True)
    plain = reader(source, indices, cache=False)
    assert all(np.array_equal(cached(i), plain(i)) for i in range(10))
    square = Preprocessing(32, 0.95, "bicubic", (0.0,) * 3, (1.0,) * 3, "rgb")
    both = [list(EvalBatches(source, indices, square, 4, cache)) for cache in (True, False)]
    for a, b in zip(*both, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3 and all(str(folder / "file") in line and "WASTEJAX_CACHE" in line for line in said)


def test_an_image_that_cannot_be_read_is_not_taken_for_a_cache_that_cannot_be_written(tmp_path):
    def make(item: int) -> np.ndarray:
        raise FileNotFoundError(2, "No such file or directory", "gone.jpg")

    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        build_store(tmp_path / "store.bin", [1], make)
    assert list(tmp_path.iterdir()) == []


def test_what_killed_builds_of_a_cache_have_left_is_removed(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    left = [tmp_path / name for name in ("one.12.partial", "one.12.partial.npy", "two.7.partial")]
    others = [tmp_path / name for name in ("busy.13.partial", "notes.partial", "new.14.partial")]
    for path in (*left, *others):
        path.write_bytes(b"x" * 100)
        if path.name != "new.14.partial":  # whose process may be about to lock it
            os.utime(path, (0, 0))
    with others[0].open("r+b") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        store = build_store(tmp_path / "store.bin", [1], lambda item: np.full((2, 2, 3), item, np.uint8))
    assert store is not None and store[0].tolist() == [[[1] * 3] * 2] * 2
    made = [tmp_path / "store.bin", tmp_path / "store.npy"]
    assert sorted(tmp_path.iterdir()) == sorted([*others, *made])


@pytest.mark.parametrize("name", ["store.bin", "store.npy"])
def test_a_damaged_cache_of_pixels_is_built_once_more(tmp_path, name):
    for keep in (10_000, 100, 0):  # bytes
        path = tmp_path / name
        if path.exists():
            path.write_bytes(path.read_bytes()[:keep])
        store = build_store(tmp_path / "store.bin", [1, 2], lambda item: np.full((9, 9, 3), item, np.uint8))
        assert [int(store[i].min()) for i in (0, 1)] == [1, 2]


def test_what_is_being_built_is_not_taken_for_what_a_killed_build_has_left(tmp_path):
    pytest.importorskip("fcntl")

    def make(item: int) -> np.ndarray:
        (partial,) = tmp_path.glob("outer.*.partial")
        os.utime(partial, (0, 0))
        build_store(tmp_path / f"inner{item}.bin", [1], lambda item: np.zeros((2, 2, 3), np.uint8))
        return np.ones((2, 2, 3), np.uint8)

    store = build_store(tmp_path / "outer.bin", [1, 2], make)
    assert store is not None and len(store) == 2 and store[1].all()


def test_a_file_that_could_not_be_replaced_is_still_there_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
from pathlib import Path
from wastejax.files import write_bytes
write_bytes(Path({str(path)!r}), bytes(100_000))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_bytes(path, b"new")
    assert path.read_text() == "new"


def test_a_checkpoint_that_finds_no_room_is_one_line_and_the_one_before_is_kept(tmp_path):
    code = f"""
import resource
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import jax
from wastejax.errors import UserError
from wastejax.training.checkpoint import Checkpoints

@jax.tree_util.register_dataclass
@dataclass
class State:
    step: jax.Array
    weights: list[jax.Array]

def state(step):
    weights = np.random.default_rng(step).normal(size=(6, 100_000))
    return State(jax.numpy.int32(step), [jax.numpy.float32(part) for part in weights])

with Checkpoints(Path({str(tmp_path)!r})) as checkpoints:
    checkpoints.save(state(1), {{"at": 1}})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    for step in range(2, 12):  # what the threads leave behind depends on who comes first
        try:
            checkpoints.save(state(step), {{"at": step}})
        except UserError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with Checkpoints(Path({str(tmp_path)!r})) as checkpoints:
    restored, progress = checkpoints.restore(state(0))
    print(int(restored.step), progress, np.array_equal(restored.weights, state(1).weights))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    said = done.stdout.splitlines()
    assert done.returncode == 0 and len(said) == 11, done.stderr
    for step, line in enumerate(said[:-1], 2):
        assert line.startswith(f"{tmp_path}/{step}: the checkpoint cannot be written (") and "is kept" in line
    assert said[-1] == "1 {'at': 1} True"
    assert "Traceback" not in done.stderr  # Orbax's and TensorStore's threads log what they then raise


@pytest.mark.slow
def test_a_disk_that_fills_up_in_training_ends_in_a_line_and_the_same_command_goes_on(folder):
    options = ["--config=mobilevit_ir", "--config.model.size=tiny", "--config.data.dir=data", "--workdir=run"]
    options += ["--config.data.image_size=32", "--config.train.epochs=1", "--config.train.batch_size=4"]
    options += ["--config.optim.warmup_epochs=0"]
    env = {"WASTEJAX_CACHE": str(folder / "cache")}
    done = wastejax(*options, cwd=folder, env=env, limit=200_000)
    assert done.returncode == 2, done.stderr
    error = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and "Traceback" not in done.stderr, done.stderr
    assert "file too large" in error[0].lower() and "run" in error[0]
    done = wastejax(*options, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "run" / "report.json").read_text())["num_images"] == 2


def test_names_that_are_not_utf8_are_written_as_json_reads_them(tmp_path):
    write_json(tmp_path / "a.json", {"name": "\udcff유리"})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"name": "\udcff유리"}
