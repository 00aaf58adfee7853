import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wastejax.config import load_recipe
from wastejax.training.step import optim


@pytest.fixture
def config():
    config = load_recipe("mobilevit").optim
    config.clip_norm = 0.0
    return config


def test_warm_up_is_linear_and_the_cosine_ends_where_it_should(config):
    config.learning_rate, config.warmup_epochs, config.final_lr = 0.1, 2.0, 0.1
    schedule = optim.make_schedule(config, steps_per_epoch=5, total_steps=100)
    np.testing.assert_allclose([schedule(s) for s in (0, 10)], [0.01, 0.1], rtol=1e-6)
    np.testing.assert_allclose(schedule(55), 0.1 * (0.1 + 0.9 * 0.5), rtol=1e-5)
    np.testing.assert_allclose(schedule(100), 0.01, rtol=1e-5)


def test_a_run_shorter_than_its_warm_up_still_reaches_the_peak(config):
    schedule = optim.make_schedule(config, steps_per_epoch=1, total_steps=2)
    np.testing.assert_allclose(schedule(1), config.learning_rate, rtol=1e-6)


def test_adam_couples_l2_as_the_study_writes_it(config):
    """loss + lambda w^T w: the moments see g + 2 lambda w; torch's Adam formula by hand, two steps."""
    config.name, config.weight_decay, config.learning_rate = "adam", 0.01, 0.1
    tx = optim.make_optimizer(config, optax.constant_schedule(0.1))
    w = np.array([[1.0, -2.0]])
    params, state = {"kernel": jnp.asarray(w)}, None
    state = tx.init(params)
    m = v = np.zeros_like(w)
    for t, g in enumerate([np.array([[0.3, 0.1]]), np.array([[-0.2, 0.4]])], 1):
        updates, state = tx.update({"kernel": jnp.asarray(g)}, state, params)
        params = optax.apply_updates(params, updates)
        coupled = g + 2 * 0.01 * w
        m, v = 0.9 * m + 0.1 * coupled, 0.999 * v + 0.001 * coupled**2
        w = w - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(params["kernel"], w, rtol=1e-5)


def test_adamw_decays_kernels_and_spares_biases(config):
    config.name, config.weight_decay = "adamw", 0.5
    tx = optim.make_optimizer(config, optax.constant_schedule(0.1))
    params = {"kernel": jnp.full((2, 2), 4.0), "bias": jnp.full(2, 4.0), "scale": jnp.full(2, 4.0)}
    grads = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2), "scale": jnp.zeros(2)}
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5 * 4.0, rtol=1e-6)
    assert not updates["bias"].any() and not updates["scale"].any()


def test_plateau_counts_epochs(config):
    config.plateau_patience, config.plateau_factor = 2, 0.5
    plateau = optim.make_plateau(config)
    state = plateau.init(jnp.zeros(()))
    scales = []
    for loss in [1.0, 0.9, 0.9, 0.95, 0.91, 0.8]:
        state = optim.on_plateau(plateau, state, loss)
        scales.append(float(state.scale))
    assert scales == [1, 1, 1, 0.5, 0.5, 0.5]


def test_fine_tuning_slows_layers_by_their_distance_from_the_head(config):
    config.name, config.momentum, config.weight_decay = "sgd", 0.0, 0.0
    config.backbone_lr_factor, config.layer_decay = 0.1, 0.5
    factors = optim.layer_factors(config, {"stem": 0, "block": 1, "classifier": 2})
    assert factors == {"stem": 0.1 * 0.25, "block": 0.1 * 0.5, "classifier": 1.0}
    tx = optim.make_optimizer(config, optax.constant_schedule(2.0), factors)
    params = dict.fromkeys(factors, jnp.ones((2, 2)))
    updates, _ = tx.update(params, tx.init(params), params)
    assert {name: float(u[0, 0]) for name, u in updates.items()} == pytest.approx(
        {"stem": -0.05, "block": -0.1, "classifier": -2.0}
    )


def test_a_backbone_rate_of_zero_freezes_it(config):
    config.backbone_lr_factor = 0.0
    factors = optim.layer_factors(config, {"stem": 0, "classifier": 1})
    tx = optim.make_optimizer(config, optax.constant_schedule(0.1), factors)
    params = {"stem": jnp.ones((2, 2)), "classifier": jnp.ones((2, 2))}
    updates, _ = tx.update(params, tx.init(params), params)
    assert not updates["stem"].any() and updates["classifier"].all()
