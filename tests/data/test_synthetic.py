import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageStat
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict

from wastejax.data.drawing import dataset as synthetic
from wastejax.data.duplicates import group_duplicates, scan
from wastejax.data.images import decode
from wastejax.data.sources import open_folder
from wastejax.errors import UserError

CLASSES = [  # the folder names of the Kaggle set
    "aerosol_cans",
    "aluminum_food_cans",
    "aluminum_soda_cans",
    "cardboard_boxes",
    "cardboard_packaging",
    "clothing",
    "coffee_grounds",
    "disposable_plastic_cutlery",
    "eggshells",
    "food_waste",
    "glass_beverage_bottles",
    "glass_cosmetic_containers",
    "glass_food_jars",
    "magazines",
    "newspaper",
    "office_paper",
    "paper_cups",
    "plastic_cup_lids",
    "plastic_detergent_bottles",
    "plastic_food_containers",
    "plastic_shopping_bags",
    "plastic_soda_bottles",
    "plastic_straws",
    "plastic_trash_bags",
    "plastic_water_bottles",
    "shoes",
    "steel_food_cans",
    "styrofoam_cups",
    "styrofoam_food_containers",
    "tea_bags",
]
PER_CLASS = 12
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A set of 30 x 12 images: (source, scan)."""
    source = open_folder(synthetic.write(tmp_path_factory.mktemp("drawn") / "set", PER_CLASS))
    return source, scan(source)


def digest(*arguments) -> str:
    return hashlib.sha256(synthetic.draw(*arguments).tobytes()).hexdigest()


def test_the_thirty_classes():
    assert tuple(CLASSES) == synthetic.CLASSES


@pytest.mark.real_data
def test_the_classes_are_those_of_the_real_images(real_data_dir):
    folders = sorted(path.name for path in (real_data_dir / "household_waste").iterdir() if path.is_dir())
    assert tuple(folders) == synthetic.CLASSES


@pytest.mark.parametrize("class_name", CLASSES)
@pytest.mark.parametrize("domain", ["default", "real_world"])
def test_every_class_shows_something_on_its_ground(class_name, domain):
    image = synthetic.draw(class_name, 1, domain)
    assert image.mode == "RGB" and image.size == (256, 256)
    middle = image.crop((64, 64, 192, 192))
    assert max(ImageStat.Stat(middle).stddev) > 8


def test_equal_arguments_give_equal_images_also_in_another_process():
    arguments = [("shoes", 3, "default"), ("tea_bags", 5, "real_world"), ("glass_food_jars", 1, "default", 4)]
    here = [digest(*a) for a in arguments]
    assert here == [digest(*a) for a in arguments]
    code = f"from test_synthetic import digest\nfor a in {arguments}: print(digest(*a))"
    env = {"PYTHONHASHSEED": "123", "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    there = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert there.stdout.split() == here


def test_each_argument_matters():
    photos = [
        digest("shoes", 3, "default", 17),
        digest("clothing", 3, "default", 17),
        digest("shoes", 4, "default", 17),
        digest("shoes", 3, "real_world", 17),
        digest("shoes", 3, "default", 18),
    ]
    assert len(set(photos)) == len(photos)
    with pytest.raises(KeyError):
        synthetic.draw("shoe", 3, "default")


def test_layout_and_counts(tmp_path):
    calls = []
    root = synthetic.write(tmp_path / "a" / "set", per_class=3, progress=lambda *a: calls.append(a))
    assert root == tmp_path / "a" / "set"
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    halves = ("default/Image_1.png", "default/Image_2.png", "real_world/Image_1.png")
    assert names == [f"{name}/{half}" for name in CLASSES for half in halves]
    assert calls == [(n, 90) for n in range(1, 91)]
    with Image.open(root / "shoes/real_world/Image_1.png") as image:
        assert image.format == "PNG"
        assert np.array_equal(image, synthetic.draw("shoes", 1, "real_world"))
    assert list(root.parent.iterdir()) == [root]


def test_a_complete_set_is_not_drawn_again_but_any_other_is(tmp_path, monkeypatch):
    root = synthetic.write(tmp_path / "set", per_class=1)
    real, drawn = synthetic.draw, []
    monkeypatch.setattr(synthetic, "draw", lambda *a: drawn.append(a) or real(*a))
    synthetic.write(root, per_class=1)
    assert drawn == []
    (root / "shoes/default/Image_1.png").unlink()
    synthetic.write(root, per_class=1)
    assert len(drawn) == 30 and (root / "shoes/default/Image_1.png").is_file()
    synthetic.write(root, per_class=1, seed=3)
    assert len(drawn) == 60
    monkeypatch.setattr(synthetic, "_version", lambda *a: "newer code")
    synthetic.write(root, per_class=1, seed=3)
    assert len(drawn) == 90
    assert list(tmp_path.iterdir()) == [root]


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(UserError, match=r"holds something other than a drawn set"):
        synthetic.write(tmp_path, per_class=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_killed_run_leaves_no_half_set(tmp_path):
    code = """
import os, sys
from wastejax.data.drawing import dataset as synthetic
synthetic.write(sys.argv[1], 2, progress=lambda done, total: done == 5 and os.kill(os.getpid(), 9))
"""
    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "set"], env={"PYTHONPATH": str(ROOT)})
    assert killed.returncode == -9
    assert not (tmp_path / "set").exists()
    synthetic.write(tmp_path / "set", per_class=2)
    assert len(open_folder(tmp_path / "set").names) == 60


def test_no_group_of_near_duplicates_above_three(drawn):
    source, (phash, gray, bad) = drawn
    assert len(source.names) == 30 * PER_CLASS and not bad
    assert np.bincount(group_duplicates(phash, gray)).max() <= 3
    # Not even by hashes alone, without the gray versions that confirm a pair.
    group = np.arange(len(phash))
    for i, j in np.argwhere(np.bitwise_count(phash[:, None] ^ phash) <= 8):
        group[group == group[j]] = group[i]
    assert np.bincount(group).max() <= 3


def test_neither_trivial_nor_hopeless(drawn):
    """On 16x16 pixels a forest is far above chance (1/30) and far from perfect; on wrong labels it is at chance."""
    source, (_, gray, _) = drawn
    pixels = [decode(source.read(i)).resize((16, 16), Image.Resampling.BOX) for i in range(len(gray))]
    features = np.array([np.asarray(image).ravel() for image in pixels])

    def accuracy(labels: np.ndarray) -> float:
        forest = RandomForestClassifier(100, random_state=0)
        return (cross_val_predict(forest, features, labels, cv=3) == labels).mean()

    assert 0.1 < accuracy(source.labels) < 0.5
    assert accuracy(np.random.default_rng(0).permutation(source.labels)) < 0.07
