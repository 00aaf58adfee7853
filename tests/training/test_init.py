"""What a run starts from: weights of its own network, looked at before the images."""

from types import SimpleNamespace

import numpy as np
import pytest

from wastejax.bundle import Bundle, save_bundle
from wastejax.config import load_recipe
from wastejax.data.transforms import Preprocessing
from wastejax.models import MODELS
from wastejax.training.init import initial_variables

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


@pytest.mark.parametrize(
    ("classes", "head"), [(CLASSES, 1), (("can", "paper"), 0)], ids=["same classes", "others"]
)
def test_a_network_without_batch_normalization_starts_from_a_run(tmp_path, classes, head):
    start = Bundle(variables(1), {"model": MODELS["swin_tiny"]}, CLASSES, Preprocessing(64))
    save_bundle(tmp_path / "start", start)
    config = load_recipe("swin")
    config.init.weights = str(tmp_path / "start")
    said: list[str] = []
    model = SimpleNamespace(init=lambda key, size: variables(0, classes))
    started = initial_variables(config, model, classes, said.append)
    assert ("the classifier is new" in said[0]) == (head == 0)
    assert started.keys() == {"params", "batch_stats"} and started["batch_stats"] == {}
    assert (started["params"]["stem"]["kernel"] == 1).all()
    assert (started["params"]["classifier"]["kernel"] == head).all()
