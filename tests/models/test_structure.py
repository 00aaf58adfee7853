"""What a network consists of, and that each of its parts can be frozen."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wastejax.config import apply_overrides, load_recipe
from wastejax.data.transforms import Preprocessing
from wastejax.errors import ConfigError
from wastejax.models import MODELS, create_model
from wastejax.models.structure import first_blocks, layer_index, parts
from wastejax.training.step import make_train_step, optim
from wastejax.training.step.state import create_train_state

CLASSES = 3
SIZE = 32
# One of each family, and what else changes which modules are there.
NETWORKS = {
    "efficientnetv2": {**MODELS["efficientnetv2_tiny"], "head_attention": "cbam"},
    "mobilevit": MODELS["mobilevit_tiny"] | {"depths": (1, 1, 1)},
    "mobilevit_ir": MODELS["mobilevit_tiny_ir"] | {"depths": (1, 1, 1)},
    "pyramidnet": MODELS["pyramidnet_tiny"],
    "swin": MODELS["swin_tiny"],
}
PARTS = {"efficientnetv2": 11, "mobilevit": 13, "mobilevit_ir": 13, "pyramidnet": 6, "swin": 7}


@cache
def made(name):
    model = create_model(NETWORKS[name], CLASSES)
    size = 64 if name == "mobilevit" else SIZE
    shapes = jax.eval_shape(lambda key: model.init(key, size), jax.random.key(0))
    rng = np.random.default_rng(0)  # positive, as variances have to be
    return model, jax.tree.map(lambda leaf: rng.uniform(0.01, 0.1, leaf.shape).astype("f"), shapes), size


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_hold_every_parameter_once_and_all_but_the_last_can_be_frozen(name):
    _, variables, _ = made(name)
    params = variables["params"]
    found = parts(params)
    assert len(found) == PARTS[name]
    assert sorted(module for part in found for module in part.modules) == sorted(params)
    assert sum(part.parameters for part in found) == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert [part.freezable for part in found] == [True] * (len(found) - 1) + [False]
    assert "classifier" in found[-1].modules
    most = len(found) - 1
    assert first_blocks(params, most) == params.keys() - set(found[-1].modules)
    message = rf"config\.optim\.frozen_blocks: must be <= {most} for this network, is {most + 1}"
    with pytest.raises(ConfigError, match=message):
        first_blocks(params, most + 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_any_number_of_frozen_blocks_answers_as_in_evaluation_up_to_there(name):
    model, variables, size = made(name)
    images = jnp.zeros((2, size, size, 3))
    for count in (1, PARTS[name] - 2, PARTS[name] - 1):
        frozen = first_blocks(variables["params"], count)
        train = partial(model.apply, train=True, rng=jax.random.key(1), frozen=frozen)
        _, stats = jax.eval_shape(train, variables, images)
        # Statistics of a frozen part are those that went in: none is written.
        assert jax.tree.structure(stats) == jax.tree.structure(variables["batch_stats"])


# tests/training/test_step.py asks it of EfficientNetV2, tests/experiments/test_networks_by_form.py of PyramidNet.
@pytest.mark.parametrize(("name", "count"), [("swin", 4)])
def test_a_step_leaves_frozen_parts_as_they_are_and_moves_the_others(name, count):
    model, start, size = made(name)
    config = load_recipe("efficientnetv2_eca")
    apply_overrides(config, [f"--config.optim.frozen_blocks={count}", "--config.optim.weight_decay=0.5"])
    frozen = first_blocks(start["params"], count)
    factors = optim.layer_factors(config.optim, layer_index(start["params"]))
    tx = optim.make_optimizer(config.optim, lambda step: 0.1, factors)
    step = make_train_step(model, tx, config, Preprocessing(size))
    images = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    batch = {"image": images, "label": np.arange(4, dtype=np.int32) % CLASSES}
    state, metrics = step(create_train_state(start, tx, config.optim), batch)
    assert np.isfinite(metrics["loss"])
    for part in ("params", "batch_stats"):
        for module, tree in start[part].items():
            leaves = zip(*map(jax.tree.leaves, (tree, getattr(state, part)[module])), strict=True)
            same = [np.array_equal(before, after) for before, after in leaves]
            assert all(same) if module in frozen else not all(same), (part, module)


def test_layer_index():
    _, variables, _ = made("efficientnetv2")
    depth = layer_index(variables["params"])
    assert jax.tree.structure(depth) == jax.tree.structure(variables["params"])
    found = {name: set(jax.tree.leaves(tree)) for name, tree in depth.items()}
    names = ["stem", "stage0_block0", "stage1_block0", "stage1_block1", "stage2_block0"]
    names += ["stage3_block0", "stage3_block1", "stage4_block0", "stage4_block1", "head", "classifier"]
    assert [found[name] for name in names] == [{i} for i in range(len(names))]
    assert found["head_attention"] == found["classifier"]


def test_layer_index_of_swin_counts_merging_with_the_block_after_it():
    _, variables, _ = made("swin")
    depth = layer_index(variables["params"])
    found = {name: set(jax.tree.leaves(tree)) for name, tree in depth.items()}
    assert found["patch_embed"] == found["patch_norm"] == {0}
    assert found["stage1_merge"] == found["stage1_block0"] == {3}
    assert [found[name] for name in ("stage1_block1", "norm", "classifier")] == [{4}, {5}, {6}]
