"""The bundled model: small, whole, honest about itself, and there on a fresh install without a network."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from experiments import final_fit, ship
from wastejax.bundle import load_bundle
from wastejax.bundled import FOLDER
from wastejax.data import images
from wastejax.data.drawing import dataset as synthetic
from wastejax.deployment.formats import load_predictor
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked
from wastejax.evaluation.run import evaluate_model

ROOT = Path(__file__).resolve().parents[1]
EVALUATION = json.loads((FOLDER / "evaluation.json").read_text())

OFFLINE = """
import socket, sys

class Refused(socket.socket):
    def __init__(self, family=-1, *rest, **options):
        raise OSError("no network here")

socket.socket = Refused
sys.argv = ["wastejax", *sys.argv[1:]]
from wastejax.main import main
main()
"""


def offline(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    env = os.environ | {
        "WASTEJAX_CACHE": str(cwd / "cache"),
        "WASTEJAX_HUGEPAGES": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", OFFLINE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=120)


def test_it_is_small_and_holds_no_pickle():
    files = {file.name: file for file in FOLDER.iterdir()}
    weights = [name for name in files if name.endswith(".safetensors")]
    assert len(weights) == 1
    assert set(files) == {"bundle.json", "evaluation.json", "MODEL_CARD.md", "LICENSE-MODEL", *weights}
    assert sum(file.stat().st_size for file in files.values()) <= 8_000_000
    # A header of JSON with names, types and places, then numbers: nothing that could be run.
    data = files[weights[0]].read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {
        "I8",
        "F16",
        "F32",
    }


def test_it_knows_the_classes_of_the_study_and_says_what_it_may_be_used_for():
    bundle = load_bundle(FOLDER)
    assert bundle.classes == tuple(sorted(synthetic.CLASSES)) and len(bundle.classes) == 30
    assert bundle.bins is not None
    assert "LICENSE-MODEL" in bundle.licence
    assert "/" not in bundle.config["data"]["dir"]  # no folder of the machine that trained it


def test_its_scores_are_those_of_these_weights_and_its_card_says_them():
    about = json.loads((FOLDER / "bundle.json").read_text())
    test = EVALUATION["test"]
    assert about["sha256"] == EVALUATION["weights_sha256"]
    assert about["temperature"] == test["calibration"]["temperature"]
    for name in ("top1", "ci95", "bin_top1"):
        assert about["metrics"][f"test_{name}"] == test[name]
    confusion = np.array(test["confusion"])
    assert confusion.sum() == test["num_images"] == about["metrics"]["test_pictures"] > 500
    assert test["top1"] == pytest.approx(np.trace(confusion) / confusion.sum())
    assert test["ci95"][0] < test["top1"] < test["ci95"][1]
    assert (FOLDER / "MODEL_CARD.md").read_text() == ship.card(EVALUATION)
    assert f"right for {100 * test['top1']:.1f} % of {test['num_images']:,} test images" in ship.card(
        EVALUATION
    )


def test_its_last_fit_learns_from_no_image_that_it_is_tested_with():
    splits = ["train", "val", "test"]
    groups = {str(g): splits[g % 3] for g in range(300)}
    rows = [{"file": f"{g}-{i}", "group": g, "split": split} for g, split in groups.items() for i in range(2)]
    new = final_fit.mostly_train(rows)
    assert [row["file"] for row in new] == [row["file"] for row in rows]
    of = {}
    for row in new:
        assert row["split"] in (
            "train",
            groups[row["group"]],
        )  # what was learned from or chosen by is no test
        assert of.setdefault(row["group"], row["split"]) == row["split"]  # near-duplicates stay together
    counts = {split: sum(row["split"] == split for row in new) for split in splits}
    assert counts == {"train": 200 + 150 + 120, "val": 50, "test": 80}


def test_it_answers_without_network_model_or_cache(tmp_path):
    synthetic.draw("shoes", 3, "default").save(tmp_path / "photo.jpg", quality=95)
    done = offline("predict", "photo.jpg", "--format=json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    # What it says of a drawing is of no interest; that it is what the weights say, is.
    predictor = load_predictor(None)
    square = predictor.preprocessing(images.decode((tmp_path / "photo.jpg").read_bytes()))
    expected = predictor.probabilities(square[None])[0]
    ranked = np.argsort(-expected)[:3]
    assert [answer["class"] for answer in row["top"]] == [predictor.classes[k] for k in ranked]
    np.testing.assert_allclose([answer["probability"] for answer in row["top"]], expected[ranked], atol=1e-3)


def test_eval_scores_it_on_a_folder(tmp_path):
    for name in ("shoes", "eggshells"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(2):
            synthetic.draw(name, i, "default").save(tmp_path / "images" / name / f"{i}.png")
    done = offline("eval", "--data=images", "--out=scores.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "scores.json").read_text())["num_images"] == 4


@pytest.mark.real_data
def test_it_recognizes_real_images(real_data_dir):
    predictor = load_predictor(None)
    folder = real_data_dir / "household_waste"
    files = [file for name in predictor.classes for file in sorted((folder / name).iterdir())[:4]]
    squares = np.stack([predictor.preprocessing(images.decode(file.read_bytes())) for file in files])
    answers = predictor.probabilities(squares).argmax(axis=1)
    # Mostly training images, so it must not be worse than on test images by more than chance: 4 sigma of 120.
    right = np.mean(
        [predictor.classes[k] == file.parent.name for k, file in zip(answers, files, strict=True)]
    )
    assert right > EVALUATION["test"]["top1"] - 4 * np.sqrt(0.8 * 0.2 / len(files))


@pytest.mark.slow
def test_the_wheel_carries_it(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={tmp_path}", str(ROOT)],
        check=True,
        timeout=900,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for file in FOLDER.iterdir():
            assert archive.read(f"wastejax/default_model/{file.name}") == file.read_bytes()
    assert "wastejax/deployment/server/openapi.json" in names
    licences = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license-files"]
    assert "wastejax/default_model/LICENSE-MODEL" in licences
    assert any(name.endswith("licenses/wastejax/default_model/LICENSE-MODEL") for name in names)


def test_calibrating_does_not_change_it():
    with pytest.raises(UserError, match="--calibrate: would change the bundled model"):
        evaluate_model(Asked(None, data="images"), calibrate=True)
