"""A mixer from outside the package, as docs/guides/own-mixer.md has it."""

import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import wastejax
from wastejax.benchmark.networks import config_of
from wastejax.bundle import Bundle, save_bundle
from wastejax.config import load_recipe
from wastejax.data.transforms import Preprocessing
from wastejax.errors import ConfigError
from wastejax.models import check, create_model

pytestmark = pytest.mark.one_stack

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "own-mixer.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S)
OWN = {"name": "mobilevit", "size": "tiny", "mixer": "pool_mixer:PoolMixer"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the guide's file, importable from there."""
    (tmp_path / "pool_mixer.py").write_text(BLOCKS[0])
    (tmp_path / "my_recipe.py").write_text(BLOCKS[2])
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("pool_mixer", None)


def test_the_guides_mixer_mixes_learns_and_survives_in_a_bundle(place):
    names: dict = {}
    exec(BLOCKS[1], names)
    variables, module = names["variables"], names["module"]
    assert names["logits"].shape == (1, 30)
    mixers = {key for stage in variables["params"].values() for key in stage if key.startswith("mixer")}
    assert "mixer0" in mixers

    def loss(params, images):
        logits = module.apply({"params": params, "batch_stats": variables["batch_stats"]}, images)
        return jnp.sum(logits[:, 0])

    images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
    gradients = jax.jit(jax.grad(loss))(variables["params"], images)
    own = gradients["stage2_block1"]["mixer0"]
    assert set(own) == {"LayerNorm_0", "Dense_0", "Dense_1"}
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(own))

    config = {"model": OWN, "data": {"on_bad_image": "raise"}, "eval": {"batch_size": 4}}
    plain = jax.tree.map(np.asarray, variables)
    classes = tuple(f"c{i}" for i in range(30))
    save_bundle(place / "bundle", Bundle(plain, config, classes, Preprocessing(64)))
    model = wastejax.load(place / "bundle", engine="jax")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    contract = Preprocessing(64)
    square = contract.normalize(contract(Image.fromarray(image))[None])
    expected = jax.nn.softmax(jax.jit(module.apply)(variables, square))[0]
    answer = model(image)
    assert answer.probability == pytest.approx(float(expected.max()), rel=1e-4)


def test_a_recipe_and_the_benchmark_name_it(place):
    config = load_recipe(str(place / "my_recipe.py"))
    check(config.model, 100)  # a size that attention could not take
    assert config_of("mobilevit_tiny+mixer=pool_mixer:PoolMixer")["mixer"] == "pool_mixer:PoolMixer"


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        ("pool_mixer", "cannot be 'pool_mixer'; "),
        ("pool_mixr:PoolMixer", "No module named 'pool_mixr'; is its folder on PYTHONPATH"),
        ("pool_mixer:Pool", "has no attribute 'Pool'$"),
        ("os:system", "os:system is not a Linen module"),
    ],
)
def test_what_is_no_mixer_is_one_line(place, mixer, message):
    with pytest.raises(ConfigError, match=message) as error:
        check({**OWN, "mixer": mixer}, 64)
    assert str(error.value).startswith("config.model.mixer: ") and "\n" not in str(error.value)
    with pytest.raises(ConfigError):
        create_model({**OWN, "mixer": mixer}, 3).init(jax.random.key(0), 64)
