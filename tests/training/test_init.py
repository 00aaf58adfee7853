"""What a run starts from: weights of its own network, looked at before the images."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

from wastejax import config as configs
from wastejax.bundle import Bundle, save_bundle
from wastejax.config import load_recipe
from wastejax.data.transforms import Preprocessing
from wastejax.errors import ConfigError, UserError
from wastejax.models import MODELS
from wastejax.training.claim import claim
from wastejax.training.init import initial_variables
from wastejax.training.run import _before_the_first_step
from wastejax.training.train import resolve, train

CLASSES = ("can", "glass", "paper")


def variables(value, classes=CLASSES):
    """Returns some of the variables that a network without batch normalization has."""
    arrays = {
        "stem": {"kernel": (2, 4)},
        "classifier": {"kernel": (4, len(classes)), "bias": (len(classes),)},
    }
    params = {
        name: {key: np.full(shape, value, np.float32) for key, shape in shapes.items()}
        for name, shapes in arrays.items()
    }
    return {"params": params, "batch_stats": {}}


def write_bundle(path, image_size=64):
    bundle = Bundle(variables(1), {"model": MODELS["swin_tiny"]}, CLASSES, Preprocessing(image_size))
    save_bundle(path, bundle)
    return str(path)


def arguments(weights):
    """Returns the overrides of a small network that starts from weights."""
    keys = {"model.size": "tiny", "init.weights": str(weights), "data.dir": "."}
    return configs.as_arguments(keys)


@pytest.mark.parametrize(
    ("classes", "head"), [(CLASSES, 1), (("can", "paper"), 0)], ids=["same classes", "others"]
)
def test_a_network_without_batch_normalization_starts_from_a_run(tmp_path, classes, head):
    config = load_recipe("swin")
    config.init.weights = write_bundle(tmp_path / "start")
    said: list[str] = []
    model = SimpleNamespace(init=lambda key, size: variables(0, classes))
    started = initial_variables(config, model, classes, said.append)
    assert ("the classifier is new" in said[0]) == (head == 0)
    assert started.keys() == {"params", "batch_stats"} and started["batch_stats"] == {}
    assert (started["params"]["stem"]["kernel"] == 1).all()
    assert (started["params"]["classifier"]["kernel"] == head).all()


def test_weights_of_another_network_are_refused_before_the_images_are_read(tmp_path, monkeypatch):
    def read(*_):
        raise AssertionError("the images are read")

    monkeypatch.setattr("wastejax.training.train._data", read)
    (tmp_path / "images").mkdir()
    safetensors.numpy.save_file({"stem.weight": np.zeros(3, np.float32)}, tmp_path / "own.safetensors")
    for weights, problem in (
        (
            write_bundle(tmp_path / "start"),
            r"^config\.init\.weights: .*start is of another network: .* differ$",
        ),
        (str(tmp_path / "own.safetensors"), r"^config\.init\.weights='.*': does not fit pyramidnet tiny: "),
    ):
        given = configs.as_arguments({"data.image_size": 32, "data.dir": str(tmp_path / "images")})
        with pytest.raises(UserError, match=problem):
            train("pyramidnet_asam", [*arguments(weights), *given], tmp_path / "run")


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A run's folder as it is after the start, and the overrides that it was begun with."""
    monkeypatch.setattr("wastejax.training.init.check_weights", lambda config, shapes: None)
    overrides = arguments(write_bundle(tmp_path / "start"))
    config = resolve("swin", overrides, lambda line: None, tmp_path / "run")
    assert config.data.image_size == 64 != load_recipe("swin").data.image_size
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(configs.to_json(config))
    return tmp_path / "run", overrides


@pytest.mark.parametrize("change", ["moved", "made anew"])
def test_a_run_goes_on_whatever_became_of_the_weights_that_it_began_from(tmp_path, begun, change):
    run, overrides = begun
    if change == "moved":
        (tmp_path / "start").rename(tmp_path / "moved")
    else:
        write_bundle(tmp_path / "start", image_size=128)
    said: list[str] = []
    config = resolve("swin", overrides, said.append, run)
    assert claim(run, config) and config.data.image_size == 64
    assert said[-1].startswith(f"following the run that began from {tmp_path / 'start'}: config.data.")
    (run / "checkpoints" / "4").mkdir(parents=True)
    model = SimpleNamespace(init=lambda key, size: variables(0))
    started = _before_the_first_step(config, run, model, CLASSES, said.append)
    assert (started["params"]["stem"]["kernel"] == 0).all()  # the checkpoint's take their place


def test_what_is_given_differs_from_a_run_whatever_the_weights(begun):
    run, overrides = begun
    config = resolve("swin", [*overrides, "--config.data.image_size=128"], lambda line: None, run)
    with pytest.raises(UserError, match=r"another config: config\.data\.image_size \(64 -> 128\)"):
        claim(run, config)


def test_a_recipe_decides_on_images_where_the_weights_do_not_say(tmp_path, monkeypatch):
    monkeypatch.setattr("wastejax.training.init.check_weights", lambda config, shapes: None)
    (tmp_path / "own.pth").touch()
    overrides = arguments(str(tmp_path / "own.pth"))
    config = resolve("swin", overrides, lambda line: None, tmp_path / "run")
    (tmp_path / "run").mkdir()
    stored = config.copy_and_resolve_references()
    stored.data.crop = 0.5  # as if the recipe had been edited since
    (tmp_path / "run" / "config.json").write_text(configs.to_json(stored))
    with pytest.raises(UserError, match=r"another config: config\.data\.crop \(0\.5 -> "):
        claim(tmp_path / "run", resolve("swin", overrides, lambda line: None, tmp_path / "run"))


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ({"interpolation": "random"}, "interpolation"),
        ({"crop_pct": 1.5}, "crop"),
        ({"input_size": [3, 8, 8]}, "image_size"),
    ],
)
def test_what_weights_say_of_images_is_checked_as_the_keys_are(tmp_path, said, key):
    timm = {"input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic"}
    timm |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": timm | said}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConfigError, match=rf"^config\.data\.{key}: "):
        resolve("swin", arguments(tmp_path / "model.safetensors"), lambda line: None)
