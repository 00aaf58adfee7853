"""Keys of a recipe's own, and values as Python programs give them."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from wastejax import config as configs
from wastejax.errors import ConfigError
from wastejax.training.claim import claim

OWN = {
    "sizes": [1, 2],
    "shares": [1, 0.5],
    "pair": (1, 2),
    "nested": [[1, 2], [3]],
    "names": ["a"],
    "flags": [True],
    "none": None,
    "empty": (),
    "text": "",
    "odd": float("nan"),
    "section": {"a": 1},
}


@pytest.fixture
def config():
    config = configs.load_recipe("mobilevit_ir")
    config.unlock()
    config.my = ConfigDict(OWN)
    return config.lock()


def test_a_recipe_with_lists_of_its_own_is_resumed(config, tmp_path):
    (tmp_path / "config.json").write_text(configs.to_json(config))
    assert claim(tmp_path, config)
    config.my.sizes = [1, 3]
    stored = configs.from_json((tmp_path / "config.json").read_text())
    assert configs.hindrances(stored, config) == ["config.my.sizes ((1, 2) -> [1, 3])"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("none=3", 3),
        ("none=some words", "some words"),
        ("none=1+2j", "1+2j"),
        ("none=None", None),
        ("sizes=3,4,5", [3, 4, 5]),
        ("sizes=3", [3]),
        ("shares=2,0.25", [2, 0.25]),
        ("pair=3,4", [3, 4]),
        ("nested=[[5],[6]]", [[5], [6]]),
        ("names=b,c", ["b", "c"]),
        ("flags=False,True", [False, True]),
        ("empty=3", [3]),
        ("empty=a,b", ["a", "b"]),
        ("text=3", "3"),
        ("section.a=2", 2),
    ],
)
def test_a_key_of_a_recipes_own_takes_values_like_its_own(config, argument, value):
    name = argument.partition("=")[0]
    assert configs.apply_overrides(config, [f"--config.my.{argument}"]) == {f"my.{name}"}
    assert configs.flatten(json.loads(configs.to_json(config)))[f"my.{name}"] == value


@pytest.mark.parametrize(
    ("argument", "expected"),
    [("sizes=a,b", "integers"), ("shares=a", "numbers"), ("flags=3", "values True or False")],
)
def test_another_value_of_a_recipes_own_key_is_one_line(config, argument, expected):
    name, _, text = argument.partition("=")
    with pytest.raises(ConfigError, match=rf"^config\.my\.{name}: expects {expected}, is '{text}'$"):
        configs.apply_overrides(config, [f"--config.my.{argument}"])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("init.weights", None, ""),
        ("data.taxonomy", None, ""),
        ("data.split.manifest", None, ""),
        ("distill.teacher", None, ""),
        ("data.leave_out", None, ()),
        ("data.leave_out", {"shoes", "a, b", "cans"}, ("a, b", "cans", "shoes")),
        ("data.leave_out", np.array(["shoes", "a, b"]), ("shoes", "a, b")),
        ("data.leave_out", {"shoes": 1}.keys(), ("shoes",)),
        ("data.progressive", range(64, 129, 64), (64, 128)),
        ("data.progressive", iter([64]), (64,)),
        ("data.mean", np.array([0.1, 0.2, 0.3]), (0.1, 0.2, 0.3)),
        ("data.mean", np.float32([0.1, 0.2, 0.3]), (0.1, 0.2, 0.3)),
        ("optim.learning_rate", np.array(0.5), 0.5),
        ("train.epochs", np.int64(4), 4),
    ],
)
def test_values_of_a_program_mean_what_they_are(name, value, expected):
    config = configs.load_recipe("efficientnet_lite0")
    assert configs.apply_overrides(config, configs.as_arguments({name: value})) == {name}
    assert configs.flatten(config)[name] == expected


def test_none_is_refused_where_a_key_has_choices_and_no_default_of_none():
    config = configs.load_recipe("mobilevit_ir")
    configs.apply_overrides(config, configs.as_arguments({"data.augmentation": None}))
    with pytest.raises(
        ConfigError, match=r"config\.data\.augmentation: cannot be 'None'; did you mean 'none'"
    ):
        configs.check(config)
