"""What a folder that holds a run answers to the next command."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import draw_images

from wastejax import config as configs
from wastejax.data.collections.shards import Rows, write_shards
from wastejax.data.duplicates import scan
from wastejax.data.sources import open_folder
from wastejax.errors import UserError
from wastejax.training.claim import claim, is_longer, renew, unused
from wastejax.training.train import _data, _take, command_line, default_folder, train


def recipe(*overrides: str):
    config = configs.load_recipe("mobilevit_ir")
    configs.apply_overrides(config, [f"--config.{override}" for override in overrides])
    return config


@pytest.fixture
def held(tmp_path) -> Path:
    """A folder with a run of ten epochs at a constant rate."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(configs.to_json(recipe(*TEN)))
    return run


TEN = ("train.epochs=10", "optim.schedule=constant", "optim.warmup_epochs=1")


@pytest.mark.parametrize(
    "key",
    [
        "data.cache=False",
        "data.workers=0",
        "train.checkpoint_minutes=1",
        "eval.batch_size=7",
        "eval.bootstrap=99",
    ],
)
def test_what_changes_no_bit_may_differ_when_a_run_goes_on(held, key):
    assert claim(held, recipe(*TEN, key))


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b'{"architectures": ["Bert"]}', b"[1]", b"null", b"\xff"]
)
def test_a_folder_with_the_config_of_another_program_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(
        UserError, match=r"config\.json is another program's, or damaged; name another folder"
    ):
        claim(tmp_path, recipe())


def test_files_that_are_no_runs_are_not_replaced(tmp_path):
    assert not claim(tmp_path / "new", recipe())
    (tmp_path / "manifest.csv").touch()
    with pytest.raises(UserError, match=r"holds no run, and a manifest\.csv that a run would replace"):
        claim(tmp_path, recipe())
    (tmp_path / "config.json.partial").touch()  # is beside it where a run was killed as it began
    assert not claim(tmp_path, recipe())
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(UserError, match=r"holds no run, and a report\.md that a run would replace"):
        claim(tmp_path, recipe())


def test_a_manifest_that_is_given_is_not_replaced_by_the_runs_own(tmp_path):
    """An audit's, for example; whether it is given to the run or not."""
    manifest = tmp_path / "run" / "manifest.csv"
    manifest.parent.mkdir()
    manifest.write_text("mine")
    data = f"--config.data.dir={draw_images(tmp_path / 'images')}"
    for given in ([], [f"--config.data.split.manifest={manifest}"]):
        with pytest.raises(UserError, match=r"holds no run, and a manifest\.csv that a run would replace"):
            train("mobilevit_ir", [data, *given], tmp_path / "run", say=lambda line: None)
    assert manifest.read_text() == "mine"


def test_a_run_does_not_lie_in_its_data(tmp_path, monkeypatch):
    """Its figures would be images of a class `runs`."""
    monkeypatch.chdir(draw_images(tmp_path / "images"))
    (tmp_path / "all.toml").write_text('classes = "own"\n[sources.own]\npath = "images"\n')
    for data in (".", "../all.toml"):
        with pytest.raises(
            UserError, match=r"^--workdir=runs/.*: lies in the data.* name a folder outside of it$"
        ):
            train("mobilevit_ir", [f"--config.data.dir={data}"], say=lambda line: None)
    assert not Path("runs").exists()
    Path("runs/mobilevit_ir").mkdir(parents=True)
    Path("runs/mobilevit_ir/config.json").write_text("{}")
    with pytest.raises(UserError, match=r"lies in the data.*; move the run out of it, and name it there$"):
        train("mobilevit_ir", ["--config.data.dir=."], say=lambda line: None)


def test_weights_that_cannot_be_read_leave_the_folder_free(tmp_path):
    draw_images(tmp_path / "images", 24)
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    given = {"data.dir": tmp_path / "images", "model.size": "tiny", "data.image_size": 64}
    given |= {"init.weights": tmp_path / "bad.pth"}
    with pytest.raises(UserError, match=r"config\.init\.weights.*bad\.pth"):
        train("mobilevit_ir", configs.as_arguments(given), tmp_path / "run", say=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_a_fault_while_a_run_is_set_up_leaves_its_folder_free(tmp_path, monkeypatch):
    draw_images(tmp_path / "images", 24)
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))

    def fail(*_):
        raise ValueError("a fault of ours")

    monkeypatch.setattr("wastejax.training.run.initial_variables", fail)
    given = {"data.dir": tmp_path / "images", "model.size": "tiny", "data.image_size": 64}
    with pytest.raises(ValueError, match="a fault of ours"):
        train("mobilevit_ir", configs.as_arguments(given), tmp_path / "run", say=lambda line: None)
    assert list((tmp_path / "run").iterdir()) == []


def test_another_config_is_named_with_a_command_that_can_be_copied(held):
    overrides = ["--config.seed=3", "--config.data.dir=my images"]
    anew = command_line("configs/mobilevit_ir.py", overrides, str(unused(held)))
    with pytest.raises(UserError) as told:
        claim(held, recipe(*TEN, "seed=3"), anew)
    assert "config.seed (17 -> 3)" in str(told.value)
    command = shlex.split(str(told.value).rpartition("begins anew: ")[2])
    assert command[:3] == ["python", "-m", "wastejax.main"] and command[-2:] == overrides
    assert f"--workdir={held}-2" in command


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        (["train.epochs=20"], True),
        (["train.epochs=20", "optim.schedule=plateau"], False),  # another schedule is another run
        (["train.epochs=9"], False),
        (["train.epochs=20", "seed=3"], False),
    ],
)
def test_epochs_may_grow_where_the_rate_does_not_depend_on_them(held, changes, may):
    config = recipe(*TEN, *changes)
    if may:
        assert claim(held, config) and is_longer(held, config)
    else:
        with pytest.raises(UserError, match=r"train\.epochs"):
            claim(held, config)


@pytest.mark.parametrize(
    "keys",
    [
        ("optim.schedule=cosine",),
        ("data.progressive=32,64",),
        ("optim.warmup_epochs=9.5",),  # cut short in ten epochs
    ],
)
def test_where_epochs_may_not_grow_the_way_is_named(held, keys):
    (held / "config.json").write_text(configs.to_json(recipe(*TEN, *keys)))
    with pytest.raises(UserError) as told:
        claim(held, recipe(*TEN, *keys, "train.epochs=20"))
    assert "config.train.epochs (10 -> 20)" in str(told.value)
    assert f"--config.init.weights={held}" in str(told.value)


def test_a_lengthened_run_is_no_longer_finished(held):
    (held / "report.json").write_text("{}")
    config = recipe(*TEN, "train.epochs=20")
    renew(held, config)
    assert not (held / "report.json").exists()
    assert json.loads((held / "config.json").read_text())["train"]["epochs"] == 20
    assert claim(held, config) and not is_longer(held, config)


def test_the_demonstration_is_in_nobodys_way():
    assert default_folder("configs/mobilevit_ir.py", recipe()) == Path("runs/mobilevit_ir-demo")
    own = recipe("data.dir=images")
    assert default_folder("configs/mobilevit_ir.py", own) == Path("runs/mobilevit_ir")
    assert default_folder("mobilevit_ir", recipe("data.source=tfds:x")) == Path("runs/mobilevit_ir")


def test_the_full_ablations_go_to_folders_of_their_own():
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "experiments/ablations.py", "--full"]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    folders = [part for line in said for part in shlex.split(line) if part.startswith("--workdir=")]
    assert len(said) > 20 and len(set(folders)) == len(said)
    teachers = [part.partition("=")[2] for line in said for part in line.split() if "distill.teacher" in part]
    assert teachers and all(f"--workdir={teacher}" in folders for teacher in teachers)
    pupil = next(i for i, line in enumerate(said) if "distill.teacher" in line)
    assert folders.index(f"--workdir={teachers[0]}") < pupil  # it is trained before


def test_a_run_does_not_resume_on_shards_that_were_written_anew(tmp_path):
    source = open_folder(draw_images(tmp_path / "images", 20))
    splits, hashes = np.array(["train", "val", "test"])[np.arange(20) // 5 % 3], scan(source).phash
    write_shards(tmp_path / "shards", Rows(source, np.arange(20), splits, hashes))
    config = recipe()
    config.data.source = f"shards:{tmp_path / 'shards'}"
    dataset = _data(config, tmp_path, False, lambda line: None)
    _take(tmp_path / "run", config, dataset)
    assert _data(config, tmp_path / "run", True, lambda line: None).digest == dataset.digest
    write_shards(tmp_path / "shards", Rows(source, np.arange(20), splits[::-1], hashes))
    with pytest.raises(UserError, match=r"whose images are not those of shards:.*were written anew"):
        _data(config, tmp_path / "run", True, lambda line: None)
