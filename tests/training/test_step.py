"""The training step on a network small enough to work out by hand, and on a real one."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wastejax.bundle import Bundle, save_bundle
from wastejax.config import apply_overrides, load_recipe
from wastejax.data.transforms import Preprocessing
from wastejax.errors import ConfigError
from wastejax.models import create_model
from wastejax.models.structure import first_blocks, layer_index
from wastejax.training.step import make_train_step, optim
from wastejax.training.step.sharpness import ascend
from wastejax.training.step.state import create_train_state
from wastejax.training.step.teacher import Teacher, load_teacher

SIZE, CLASSES = 4, 3


def recipe(*overrides: str):
    """Plain gradient descent with a rate of 0.1, and nothing else."""
    config = load_recipe("mobilevit")
    plain = ["optim.name=sgd", "optim.momentum=0", "optim.weight_decay=0", "optim.clip_norm=0"]
    plain += ["optim.ema_decay=0", "loss.label_smoothing=0"]
    apply_overrides(config, [f"--config.{o}" for o in (*plain, *overrides)])
    return config


def linear_model():
    """Logits = mean color @ kernel + bias; its 'batch statistics' remember the mean input they saw."""

    def apply(variables, images, train=False, rng=None, frozen=()):
        p = variables["params"]
        pooled = images.mean((1, 2))
        logits = pooled @ p["kernel"] + p["bias"]
        # Depends on the parameters too, so that a second pass at other parameters would show.
        return (logits, {"seen": pooled.mean() + p["kernel"].sum()}) if train else logits

    return SimpleNamespace(apply=apply, num_classes=CLASSES)


def variables():
    rng = np.random.default_rng(0)
    params = {
        "kernel": rng.normal(size=(3, CLASSES)).astype(np.float32),
        "bias": np.zeros(CLASSES, np.float32),
    }
    return {"params": params, "batch_stats": {"seen": np.zeros((), np.float32)}}


def batch(count: int = 8):
    rng = np.random.default_rng(1)
    return {
        "image": rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8),
        "label": rng.integers(0, CLASSES, count).astype(np.int32),
    }


def one_step(config, count: int = 8):
    tx = optim.make_optimizer(config.optim, lambda step: 0.1)
    state = create_train_state(variables(), tx, config.optim)
    step = make_train_step(linear_model(), tx, config, Preprocessing(SIZE))
    return step(state, batch(count))


def test_a_compiled_step_moves_nothing_between_host_and_device():
    keys = ["loss.class_weights=True", "loss.mixup=0.4", "loss.cutmix=1.0", "optim.ema_decay=0.9"]
    config = recipe(*keys, "optim.schedule=plateau", "optim.sharpness.name=asam", "train.accumulate=2")
    tx = optim.make_optimizer(config.optim, optim.make_schedule(config.optim, 2, 4))
    weights = np.linspace(0.5, 1.5, CLASSES, dtype=np.float32)
    step = make_train_step(linear_model(), tx, config, Preprocessing(SIZE), weights)
    state, given = create_train_state(variables(), tx, config.optim), jax.device_put(batch())
    state, _ = step(state, given)
    with jax.transfer_guard("disallow"):
        state, metrics = step(state, given)
    assert int(state.step) == 2 and np.isfinite(float(metrics["loss"]))


def gradient_by_hand(kernel, bias, count: int = 8):
    """d(mean cross entropy)/d(kernel, bias) of the linear model: x^T (p - y) / B."""
    b = batch(count)
    x = (b["image"] / 255.0).mean((1, 2))
    logits = x @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    error = (p - np.eye(CLASSES)[b["label"]]) / count
    return x.T @ error, error.sum(0)


def test_one_step_of_gradient_descent_by_hand():
    state, metrics = one_step(recipe())
    p = variables()["params"]
    g_kernel, g_bias = gradient_by_hand(p["kernel"], p["bias"])
    np.testing.assert_allclose(state.params["kernel"], p["kernel"] - 0.1 * g_kernel, rtol=1e-5)
    np.testing.assert_allclose(state.params["bias"], -0.1 * g_bias, rtol=1e-4, atol=1e-8)
    norm = np.sqrt((g_kernel**2).sum() + (g_bias**2).sum())
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    assert int(state.step) == 1


@pytest.mark.parametrize("name", ["sam", "asam"])
def test_sharpness_equals_its_formula_worked_out_in_numpy(name):
    rho, eta = 0.3, 0.02
    config = recipe(
        f"optim.sharpness.name={name}", f"optim.sharpness.rho={rho}", f"optim.sharpness.eta={eta}"
    )
    state, metrics = one_step(config)
    p = variables()["params"]
    w, b = p["kernel"].astype(np.float64), p["bias"].astype(np.float64)
    g_w, g_b = gradient_by_hand(w, b)
    t = np.abs(w) + eta if name == "asam" else np.ones_like(w)
    norm = np.sqrt(((t * g_w) ** 2).sum() + (g_b**2).sum())
    up_w, up_b = w + rho * t**2 * g_w / norm, b + rho * g_b / norm
    g2_w, g2_b = gradient_by_hand(up_w, up_b)
    np.testing.assert_allclose(state.params["kernel"], w - 0.1 * g2_w, rtol=1e-5)
    np.testing.assert_allclose(state.params["bias"], b - 0.1 * g2_b, rtol=1e-4, atol=1e-7)
    # The step starts from w, not from the worst point; loss and statistics are of the first pass alone.
    plain_state, plain = one_step(recipe())
    np.testing.assert_allclose(metrics["loss"], plain["loss"], rtol=1e-6)
    np.testing.assert_allclose(state.batch_stats["seen"], plain_state.batch_stats["seen"], rtol=1e-6)
    assert not np.allclose(state.params["kernel"], plain_state.params["kernel"], rtol=1e-5)


def test_asam_does_not_move_past_its_radius():
    """||T^-1 eps|| = rho, the constraint of Kwon et al. 2021, eq. 6."""
    rng = np.random.default_rng(3)
    params = {"a": rng.normal(size=(4, 5)), "b": rng.normal(size=(2, 3))}
    grads = jax.tree.map(lambda w: rng.normal(size=w.shape), params)
    sharpness = recipe("optim.sharpness.name=asam", "optim.sharpness.rho=0.7").optim.sharpness
    moved = ascend(params, grads, sharpness)
    radius = sum((((moved[k] - params[k]) / (np.abs(params[k]) + 0.01)) ** 2).sum() for k in params)
    np.testing.assert_allclose(np.sqrt(radius), 0.7, rtol=1e-5)


def test_a_taught_step_by_hand():
    """Gradient: 1 - w of the labels, w of the teacher: T (softmax(z / T) - softmax(t / T)) / B by the logits."""
    weight, T, count = 0.7, 3.0, 8
    config = recipe(f"distill.weight={weight}", f"distill.temperature={T}")
    taught = {"kernel": np.float32(np.random.default_rng(7).normal(size=(3, CLASSES)))}

    class ByColor(Teacher):
        """Logits = mean color, as the teacher's own preprocessing scales it, @ kernel."""

        def logits(self, variables, images):
            return self.preprocessing.normalize(images).mean((1, 2)) @ variables["kernel"]

    teacher = ByColor(None, taught, Preprocessing(SIZE, mean=(0.5,) * 3, std=(0.25,) * 3))
    tx = optim.make_optimizer(config.optim, lambda step: 0.1)
    state = create_train_state(variables(), tx, config.optim)
    step = make_train_step(linear_model(), tx, config, Preprocessing(SIZE), teacher=teacher)
    state, _ = step(state, batch(count))
    p = variables()["params"]
    x = (batch(count)["image"] / 255.0).mean((1, 2))
    z, t = x @ p["kernel"] / T, (x - 0.5) / 0.25 @ taught["kernel"] / T
    softmax = lambda v: np.exp(v) / np.exp(v).sum(-1, keepdims=True)  # noqa: E731
    error = T * (softmax(z) - softmax(t)) / count
    expected = (1 - weight) * gradient_by_hand(p["kernel"], p["bias"])[0] + weight * x.T @ error
    np.testing.assert_allclose(state.params["kernel"], p["kernel"] - 0.1 * expected, rtol=1e-4)


def test_a_teacher_answers_as_its_bundle_does_and_must_know_the_same_classes(tmp_path):
    config = load_recipe("efficientnetv2_eca")
    apply_overrides(config, ["--config.model.size=tiny", f"--config.distill.teacher={tmp_path}"])
    model = create_model(config.model, CLASSES)
    preprocessing = Preprocessing(32, mean=(0.4,) * 3)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(0), 32))
    save_bundle(tmp_path, Bundle(variables, config.to_dict(), ("a", "b", "c"), preprocessing))
    teacher = load_teacher(config.distill, ("a", "b", "c"))
    images = batch(2)["image"].repeat(8, 1).repeat(8, 2)
    expected = model.apply(variables, preprocessing.normalize(images))
    np.testing.assert_allclose(teacher.logits(teacher.variables, images), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"distill.teacher: .* trained for other classes .*: b, d"):
        load_teacher(config.distill, ("a", "c", "d"))
    with pytest.raises(ConfigError, match=r"config.distill.teacher: nowhere: no such run or bundle"):
        load_teacher(recipe("distill.teacher=nowhere").distill, ("a",))
    assert load_teacher(recipe().distill, ("a",)) is None


def test_frozen_blocks_stay_as_they_are_statistics_and_decay_included():
    config = load_recipe("efficientnetv2_eca")
    keys = ["model.size=tiny", "optim.frozen_blocks=3", "optim.weight_decay=0.5"]
    apply_overrides(config, [f"--config.{k}" for k in keys])
    model = create_model(config.model, CLASSES)
    start = jax.tree.map(np.asarray, model.init(jax.random.key(0), 32))
    frozen = first_blocks(start["params"], 3)
    assert frozen == {"stem", "stage0_block0", "stage1_block0"}
    factors = optim.layer_factors(config.optim, layer_index(start["params"]))
    tx = optim.make_optimizer(config.optim, lambda step: 0.1, factors)
    state = create_train_state(start, tx, config.optim)
    step = make_train_step(model, tx, config, Preprocessing(32))
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    state, _ = step(state, {"image": images, "label": np.arange(6, dtype=np.int32) % CLASSES})
    for part in ("params", "batch_stats"):
        for name, tree in start[part].items():
            same = [
                np.array_equal(a, b)
                for a, b in zip(*map(jax.tree.leaves, (tree, getattr(state, part)[name])), strict=True)
            ]
            assert all(same) if name in frozen else not any(same), (part, name)
    with pytest.raises(
        ConfigError, match=r"config.optim.frozen_blocks: must be <= 10 for this network, is 99"
    ):
        first_blocks(start["params"], 99)


def test_a_backbone_without_a_rate_keeps_its_statistics_and_has_no_part_in_the_clipped_norm():
    config = load_recipe("pyramidnet_asam")
    keys = ["model.size=tiny", "optim.backbone_lr_factor=0", "optim.name=sgd", "optim.momentum=0"]
    keys += ["optim.weight_decay=0", "optim.clip_norm=0.01", "optim.sharpness.name=none"]
    apply_overrides(config, [f"--config.{k}" for k in keys])
    model = create_model(config.model, CLASSES)
    start = jax.tree.map(np.asarray, model.init(jax.random.key(0), 16))
    factors = optim.layer_factors(config.optim, layer_index(start["params"]))
    tx = optim.make_optimizer(config.optim, lambda step: 1.0, factors)
    step = make_train_step(model, tx, config, Preprocessing(16))
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    given = {"image": images, "label": np.arange(6, dtype=np.int32) % CLASSES}
    state, _ = step(create_train_state(start, tx, config.optim), given)
    moved = jax.tree.map(lambda new, old: np.asarray(new) - old, state.params, start["params"])
    head = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moved.pop("classifier"))])
    assert np.linalg.norm(head) == pytest.approx(0.01, rel=1e-4)
    assert not any(leaf.any() for leaf in jax.tree.leaves(moved))
    same = jax.tree.map(lambda new, old: np.array_equal(new, old), state.batch_stats, start["batch_stats"])
    assert all(jax.tree.leaves(same))


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    whole, _ = one_step(recipe())
    parts, metrics = one_step(recipe("train.accumulate=4"))
    np.testing.assert_allclose(parts.params["kernel"], whole.params["kernel"], rtol=1e-5)
    assert 0 <= float(metrics["top1"]) <= 1


def test_the_average_starts_short_and_follows():
    state, _ = one_step(recipe("optim.ema_decay=0.999"))
    start = variables()["params"]["kernel"]
    decay = 2 / 11  # (1 + t) / (10 + t) at t = 1
    expected = decay * start + (1 - decay) * np.asarray(state.params["kernel"])
    averaged = state.eval_variables()
    np.testing.assert_allclose(averaged["params"]["kernel"], expected, rtol=1e-5)
    assert jax.tree.map(jnp.shape, averaged["params"]) == jax.tree.map(jnp.shape, state.params)


def test_the_plateau_scales_the_update():
    config = recipe()
    tx = optim.make_optimizer(config.optim, lambda step: 0.1)
    state = create_train_state(variables(), tx, config.optim)
    state = state.replace(plateau=state.plateau._replace(scale=jnp.asarray(0.25)))
    step = make_train_step(linear_model(), tx, config, Preprocessing(SIZE))
    before = variables()["params"]["kernel"]
    slow = np.asarray(step(state, batch())[0].params["kernel"]) - before
    full = np.asarray(one_step(config)[0].params["kernel"]) - before
    np.testing.assert_allclose(slow, full / 4, rtol=1e-3)


def test_a_real_network_compiles_once_learns_and_repeats_itself():
    config = load_recipe("pyramidnet_asam")
    keys = ["model.size=tiny", "model.dropout=0.2", "loss.mixup=0.4", "loss.cutmix=1.0", "optim.clip_norm=1"]
    apply_overrides(config, [f"--config.{k}" for k in keys])
    model = create_model(config.model, CLASSES)
    schedule = optim.make_schedule(config.optim, 4, 40)
    tx = optim.make_optimizer(config.optim, schedule)
    step = make_train_step(model, tx, config, Preprocessing(32))

    def run():
        state = create_train_state(model.init(jax.random.key(0), 32), tx, config.optim)
        losses = []
        for i in range(6):
            images = np.random.default_rng(i).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
            state, metrics = step(state, {"image": images, "label": np.arange(6, dtype=np.int32) % CLASSES})
            losses.append(float(metrics["loss"]))
        return state, losses

    (first, losses), (second, again) = run(), run()
    assert step._cache_size() == 1
    assert losses == again and np.isfinite(losses).all()
    same = jax.tree.map(lambda a, b: bool((a == b).all()), first.params, second.params)
    assert all(jax.tree.leaves(same))


def test_a_batch_with_allowed_classes_takes_the_step_of_their_losses():
    config = recipe("loss.outlier_weight=0.25")
    data = batch()
    rng = np.random.default_rng(5)
    data["allowed"] = np.eye(CLASSES, dtype=bool)[data["label"]] | (rng.random((8, CLASSES)) < 0.3)
    data["allowed"][:2] = False
    tx = optim.make_optimizer(config.optim, lambda step: 0.1, None)
    step = make_train_step(linear_model(), tx, config, Preprocessing(SIZE))
    start = variables()
    state, metrics = step(create_train_state(jax.tree.map(jnp.array, start), tx, config.optim), data)

    x = (data["image"] / 255).mean((1, 2))
    logits = x @ start["params"]["kernel"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    q = np.where(data["allowed"], p, 0)
    total = np.maximum(q.sum(1, keepdims=True), 1e-9)
    none = ~data["allowed"].any(1)
    loss = np.where(none, 0.25 * (-np.log(p).mean(1) - np.log(CLASSES)), -np.log(total[:, 0])).mean()
    slope = np.where(none[:, None], 0.25 * (p - 1 / CLASSES), p - q / total) / 8
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(
        state.params["kernel"], start["params"]["kernel"] - 0.1 * x.T @ slope, rtol=1e-4, atol=1e-6
    )
    right = data["allowed"][np.arange(8), logits.argmax(1)][~none].mean()
    np.testing.assert_allclose(metrics["top1"], right, rtol=1e-6)


@pytest.mark.parametrize(("shows", "accuracy"), [(5, 1.0), (0, 0.0)])
def test_accuracy_in_training_is_of_the_images_that_show_a_class(shows, accuracy):
    """The first part of the batch has none of them, or all of it."""
    config, data, start = recipe("train.accumulate=4"), batch(), variables()
    answers = ((data["image"] / 255).mean((1, 2)) @ start["params"]["kernel"]).argmax(1)
    data["allowed"] = np.eye(CLASSES, dtype=bool)[answers]
    data["allowed"][: 8 - shows] = False
    tx = optim.make_optimizer(config.optim, lambda step: 0.1, None)
    step = make_train_step(linear_model(), tx, config, Preprocessing(SIZE))
    _, metrics = step(create_train_state(jax.tree.map(jnp.array, start), tx, config.optim), data)
    np.testing.assert_allclose((metrics["top1"], metrics["counted"]), (accuracy, shows / 8))
