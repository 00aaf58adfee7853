import jax
import jax.numpy as jnp
import numpy as np

from wastejax.training.step import losses


def test_cross_entropy_by_hand():
    logits = jnp.array([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5]])
    labels = jnp.array([0, 2])
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -(np.log(p[0, 0]) + np.log(p[1, 2])) / 2
    targets = losses.smooth_labels(labels, 3, 0.0)
    np.testing.assert_allclose(losses.cross_entropy(logits, targets), expected, rtol=1e-6)


def test_label_smoothing_keeps_rows_summing_to_one():
    targets = losses.smooth_labels(jnp.array([1]), 4, 0.2)
    np.testing.assert_allclose(targets, [[0.05, 0.85, 0.05, 0.05]], rtol=1e-6)


def test_class_weights_make_every_class_weigh_the_same():
    labels = np.array([0, 0, 0, 1, 3, 3])
    weights = losses.class_weights(labels, 4)
    np.testing.assert_allclose(weights, [6 / 12, 6 / 4, 0, 6 / 8])
    # torch.nn.functional.cross_entropy(..., weight=w): sum of w_y * nll over sum of w_y.
    logits = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    nll = -np.asarray(jax.nn.log_softmax(logits))[np.arange(6), labels]
    expected = (weights[labels] * nll).sum() / weights[labels].sum()
    targets = losses.smooth_labels(jnp.asarray(labels), 4, 0.0)
    np.testing.assert_allclose(losses.cross_entropy(logits, targets, weights), expected, rtol=1e-6)


def test_mixup_blends_images_and_targets_alike():
    targets = jnp.eye(8)
    images = jnp.broadcast_to(jnp.arange(8.0)[:, None, None, None], (8, 4, 4, 3))
    mixed, soft = losses.mixup(jax.random.key(3), images, targets, 0.8)
    assert not np.allclose(mixed, images)
    # Each image's gray value is the mean label under its target, since image i is of value i.
    np.testing.assert_allclose(mixed[:, 0, 0, 0], soft @ np.arange(8.0), rtol=1e-5)
    np.testing.assert_allclose(soft.sum(-1), 1, rtol=1e-6)


def test_cutmix_targets_follow_the_area():
    images = jnp.broadcast_to(jnp.arange(8.0)[:, None, None, None], (8, 32, 32, 3))
    pasted = 0
    for seed in range(5):
        mixed, soft = losses.cutmix(jax.random.key(seed), images, jnp.eye(8), 1.0)
        assert set(np.unique(mixed)) <= set(range(8))
        np.testing.assert_allclose(mixed.mean((1, 2, 3)), soft @ np.arange(8.0), rtol=1e-5)
        pasted += not np.allclose(mixed, images)
    assert pasted >= 3


def test_distillation_is_the_divergence_from_the_teacher_worked_out_in_numpy():
    rng = np.random.default_rng(5)
    student, teacher, T = rng.normal(size=(4, 3)), 3 * rng.normal(size=(4, 3)), 2.5

    def softmax(z):
        return np.exp(z) / np.exp(z).sum(-1, keepdims=True)

    p, q = softmax(student / T), softmax(teacher / T)
    expected = T**2 * (q * np.log(q / p)).sum(-1).mean()
    args = (jnp.float32(student), jnp.float32(teacher))
    np.testing.assert_allclose(losses.distillation(*args, T), expected, rtol=1e-5)
    by_student, by_teacher = jax.grad(losses.distillation, (0, 1))(*args, T)
    np.testing.assert_allclose(by_student, T * (p - q) / 4, rtol=1e-4, atol=1e-7)
    assert not by_teacher.any()


def test_partial_labels_by_hand():
    logits = jnp.array([[2.0, 0.0, -1.0], [0.5, 1.5, 0.5], [3.0, 0.0, 0.0]])
    allowed = jnp.array([[True, False, True], [False, True, False], [False, False, False]])
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    # The third row shows none of the classes and counts nothing here.
    expected = -(np.log(p[0, 0] + p[0, 2]) + np.log(p[1, 1])) / 3
    np.testing.assert_allclose(losses.partial_labels(logits, allowed), expected, rtol=1e-6)
    smooth = expected * 0.9 - 0.1 * np.log(p[:2]).mean(-1).sum() / 3
    np.testing.assert_allclose(losses.partial_labels(logits, allowed, 0.1), smooth, rtol=1e-6)
    # One class each: cross entropy.
    one = jnp.eye(3, dtype=bool)
    np.testing.assert_allclose(
        losses.partial_labels(logits, one), losses.cross_entropy(logits, jnp.eye(3)), rtol=1e-6
    )


def test_outlier_exposure_by_hand():
    logits = jnp.array([[2.0, 0.0], [1.0, 1.0], [0.0, 5.0]])
    allowed = jnp.array([[False, False], [False, False], [True, False]])
    p = np.exp(logits[0]) / np.exp(logits[0]).sum()
    divergence = 0.5 * np.log(0.5 / p[0]) + 0.5 * np.log(0.5 / p[1])  # KL(uniform || p); 0 for the second
    np.testing.assert_allclose(losses.outlier_exposure(logits, allowed), divergence / 3, rtol=1e-6)


def test_partial_labels_and_outliers_have_finite_gradients_where_the_model_is_wrong_and_sure():
    logits = jnp.array([[100.0, -100.0, 0.0], [100.0, -100.0, 0.0]])
    allowed = jnp.array([[False, True, False], [False, False, False]])
    slope = jax.grad(lambda z: losses.partial_labels(z, allowed) + losses.outlier_exposure(z, allowed))(
        logits
    )
    # Of -log p: p minus the wanted share; of KL(uniform || p): p - 1/3; each over two rows.
    np.testing.assert_allclose(slope, [[0.5, -0.5, 0], [1 / 3, -1 / 6, -1 / 6]], atol=1e-6)


def test_what_nobody_said_has_no_loss_and_no_slope():
    """-log(sigmoid) of what is shown and of the rest, by hand; the mean is over all, as of `partial_labels`."""
    logits = jnp.array([[0.0, 2.0], [-1.0, 50.0]])
    targets = jnp.array([[1.0, 0.0], [losses.UNSAID, losses.UNSAID]])
    expected = (np.log(2) + np.log(1 + np.exp(2.0))) / 4
    np.testing.assert_allclose(losses.binary_cross_entropy(logits, targets), expected, rtol=1e-6)
    slope = jax.grad(losses.binary_cross_entropy)(logits, targets)
    np.testing.assert_allclose(slope, [[-0.5 / 4, 1 / (1 + np.exp(-2.0)) / 4], [0, 0]], rtol=1e-6)
