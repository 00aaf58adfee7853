"""Cross entropy, binary for several labels per image, with everything that this project does to labels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

UNSAID = -1.0  # target of a class of which nobody said whether the image shows it


def cross_entropy(
    logits: jax.Array, targets: jax.Array, weights: jax.Array | np.ndarray | None = None
) -> jax.Array:
    """Returns the mean cross entropy, nats.

    Args:
        logits: float32 [B, C].
        targets: float32 [B, C], rows that sum to one.
        weights: float32 [C], a factor per class (of the target's mass); the mean is then weighted too, by the
            same smoothed mass; torch's `cross_entropy` divides by the weights of the classes before smoothing.
    """
    log_p = jax.nn.log_softmax(logits)
    if weights is None:
        return -jnp.mean(jnp.sum(targets * log_p, axis=-1))
    weighted = targets * weights
    return -jnp.sum(weighted * log_p) / jnp.sum(weighted)


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean over images and classes of a sigmoid's cross entropy, nats; float32 [B, C] each.

    Targets that are `UNSAID` are left out of the sum, not of the mean.
    """
    loss = optax.sigmoid_binary_cross_entropy(logits, targets)
    return jnp.mean(jnp.where(targets == UNSAID, 0, loss))


def partial_labels(logits: jax.Array, allowed: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Returns the mean loss of labels that can mean several classes, nats: -log of the sum of their probabilities.

    Jin & Ghahramani 2002; with one class each it is cross entropy. Rows without any class are left out of the sum,
    not of the mean.

    Args:
        logits: float32 [B, C].
        allowed: bool [B, C], the classes that each label can mean.
        smoothing: share of the label spread evenly over all classes, as in `smooth_labels`.
    """
    log_p = jax.nn.log_softmax(logits)
    known = jnp.any(allowed, axis=-1)
    # A row without classes gets a finite value, for the gradient's sake; it is dropped below.
    of_allowed = jax.nn.logsumexp(jnp.where(allowed | ~known[:, None], log_p, -jnp.inf), axis=-1)
    loss = -(1 - smoothing) * of_allowed - smoothing * jnp.mean(log_p, axis=-1)
    return jnp.sum(jnp.where(known, loss, 0)) / len(logits)


def outlier_exposure(logits: jax.Array, allowed: jax.Array) -> jax.Array:
    """Returns the mean loss of images of none of the classes, nats: KL(uniform || answer) (Hendrycks et al. 2019).

    It is 0 where every class is equally likely. Rows with a class are left out of the sum, not of the mean.

    Args:
        logits: float32 [B, C].
        allowed: bool [B, C]; all False for an image of none of the classes.
    """
    log_p = jax.nn.log_softmax(logits)
    divergence = -jnp.mean(log_p, axis=-1) - jnp.log(logits.shape[-1])
    return jnp.sum(jnp.where(jnp.any(allowed, axis=-1), 0, divergence)) / len(logits)


def distillation(logits: jax.Array, teacher_logits: jax.Array, temperature: float) -> jax.Array:
    """Returns T^2 KL(teacher || student) at temperature T, nats, mean over B (Hinton et al. 2015).

    Args:
        logits: float32 [B, C], of the student.
        teacher_logits: float32 [B, C]; no gradient reaches them.
        temperature: T; its square keeps the gradient's size where T changes.
    """
    log_p = jax.nn.log_softmax(logits / temperature)
    log_q = jax.nn.log_softmax(jax.lax.stop_gradient(teacher_logits) / temperature)
    return temperature**2 * jnp.mean(jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1))


def smooth_labels(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Returns float32 [B, C]: 1 - smoothing on the label, plus smoothing / C everywhere (Szegedy et al. 2016)."""
    return jax.nn.one_hot(labels, num_classes) * (1 - smoothing) + smoothing / num_classes


def smooth_shown(shown: jax.Array, smoothing: float) -> jax.Array:
    """Returns float32 [B, C]: of each yes or no (bool), a share of `smoothing` is spread evenly over both."""
    return shown * (1 - smoothing) + smoothing / 2


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns float32 [C]: N / (C * count), so that every class weighs the same; 0 for a class without images."""
    counts = np.bincount(labels, minlength=num_classes)
    return np.where(counts, len(labels) / (num_classes * np.maximum(counts, 1)), 0).astype(np.float32)


def mixup(rng: jax.Array, images: jax.Array, targets: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Blends each image and its target with another of the batch (Zhang et al. 2018); one share per batch."""
    share_key, order_key = jax.random.split(rng)
    share = jax.random.beta(share_key, alpha, alpha)
    order = jax.random.permutation(order_key, len(images))
    return share * images + (1 - share) * images[order], share * targets + (1 - share) * targets[order]


def cutmix(
    rng: jax.Array, images: jax.Array, targets: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Pastes a box of another image of the batch (Yun et al. 2019); targets follow the area pasted."""
    share_key, order_key, y_key, x_key = jax.random.split(rng, 4)
    order = jax.random.permutation(order_key, len(images))
    _, H, W, _ = images.shape
    side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))
    h, w = side * H, side * W
    y, x = jax.random.uniform(y_key) * H, jax.random.uniform(x_key) * W
    rows = jnp.abs(jnp.arange(H) + 0.5 - y) < h / 2
    columns = jnp.abs(jnp.arange(W) + 0.5 - x) < w / 2
    box = rows[:, None] & columns[None, :]
    share = 1 - jnp.mean(box)  # of the image that stays, after the box was clipped at the edges
    mixed = jnp.where(box[None, :, :, None], images[order], images)
    return mixed, share * targets + (1 - share) * targets[order]
