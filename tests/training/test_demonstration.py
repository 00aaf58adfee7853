"""What a recipe becomes where no images are given: a small variant on drawn ones."""

import shlex

import jax
import pytest

from wastejax import config as configs
from wastejax.models import create_model
from wastejax.models.structure import first_blocks
from wastejax.models.weights import published
from wastejax.training import train
from wastejax.training.init import initial_variables


def demonstration(recipe, *overrides):
    """Returns the resolved config, and what was said about it."""
    lines: list[str] = []
    return train.resolve(recipe, [f"--config.{override}" for override in overrides], lines.append), lines


@pytest.fixture
def no_weights(monkeypatch):
    def find(weights):
        raise AssertionError(f"{weights}: the demonstration needs no weights")

    monkeypatch.setattr(published, "find_weights", find)
    monkeypatch.setattr("wastejax.training.init.find_weights", find)


@pytest.mark.parametrize("recipe", configs.recipe_names())
def test_every_recipe_has_a_demonstration(recipe, no_weights):
    config, lines = demonstration(recipe)
    assert (config.model.size, config.data.image_size, config.init.weights) == ("tiny", 64, "")
    assert config.optim.frozen_blocks == 0 and config.data.progressive == ()
    # What is shown for one's own images gives the same variant.
    again = configs.load_recipe(recipe)
    shown = shlex.split(lines[-1].partition(" add ")[2])
    configs.apply_overrides(again, shown)
    assert configs.differences(config, again) == []
    model = create_model(config.model, 3)
    shapes = jax.eval_shape(lambda key: model.init(key, config.data.image_size), jax.random.key(0))
    first_blocks(shapes["params"], config.optim.frozen_blocks)


def test_a_demonstration_starts_from_random_weights(no_weights):
    config, _ = demonstration("efficientnet_lite0", "data.image_size=32")
    lines: list[str] = []
    initial_variables(config, create_model(config.model, 3), ("a", "b", "c"), lines.append)
    assert lines == []


def test_weights_that_the_user_names_keep_the_size_of_the_network(monkeypatch):
    wanted = {"image_size": 224, "crop": 0.875, "mean": (0.5, 0.5, 0.5)}
    monkeypatch.setattr("wastejax.training.init.find_weights", lambda weights: (None, wanted))
    monkeypatch.setattr("wastejax.training.init.check_weights", lambda config, shapes: None)
    config, _ = demonstration("efficientnet_lite2", "init.weights=mine.pth", "optim.frozen_blocks=2")
    assert (config.model.size, config.init.weights) == ("lite2", "mine.pth")
    assert config.data.image_size == 64  # the demonstration's, as if given
    assert config.optim.frozen_blocks == 2 and config.optim.backbone_lr_factor == 0.3
