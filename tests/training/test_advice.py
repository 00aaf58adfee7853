"""What is pointed out before a training that would disappoint."""

import numpy as np
import pytest
from PIL import Image

from wastejax import config as configs
from wastejax.data.prepare import prepare
from wastejax.training.advice import advice


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(4)
    for name, count in (("can", 20), ("jar", 20), ("rare", 3)):
        (root / name).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(root / name / f"{i}.png")
    return root


def told(folder, recipe, *overrides):
    config = configs.load_recipe(recipe)
    given = [f"data.dir={folder}", *overrides]
    configs.apply_overrides(config, [f"--config.{override}" for override in given])
    return advice(config, prepare(config.data, 17, None))


def test_a_class_of_three_is_named_with_what_each_split_gets(folder):
    [few, *_] = told(folder, "efficientnet_lite0", "optim.warmup_epochs=0")
    assert "rare (1 train, 1 val, 1 test)" in few and "can" not in few.partition("under")[2].partition(";")[0]


def test_images_that_may_show_a_class_of_three_make_it_no_larger(folder, tmp_path):
    path = tmp_path / "mix.toml"
    path.write_text(
        'classes = ["can", "jar", "lid"]\n'
        f'[sources.own]\npath = "{folder}"\nmeanings = {{ rare = ["can"], can = ["jar"], jar = ["lid"] }}\n'
        f'[sources.other]\npath = "{folder}"\nmeanings = {{ rare = ["lid"], can = ["can", "lid"], jar = [] }}\n'
    )
    [few, *_] = told(path, "efficientnet_lite0", "data.split.group=none", "optim.warmup_epochs=0")
    assert "under 10: can (1 train, 1 val, 1 test);" in few


@pytest.mark.parametrize(
    ("epochs", "warmup", "says"), [(3, 3, True), (5, 3, True), (6, 3, False), (2, 1, False)]
)
def test_a_warmup_longer_than_half_of_the_run_is_pointed_out(folder, epochs, warmup, says):
    lines = told(folder, "efficientnet_lite0", f"train.epochs={epochs}", f"optim.warmup_epochs={warmup}")
    assert any("warm-up" in line for line in lines) == says


def test_a_small_folder_is_told_the_recipe_that_suits_it(folder):
    assert any("--config=efficientnet_lite0" in line for line in told(folder, "mobilevit"))
    assert not any("--config=" in line and "random" in line for line in told(folder, "efficientnet_lite0"))
