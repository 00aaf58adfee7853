"""The last layer alone, learned on features that a frozen network computed once: seconds instead of hours."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from wastejax.bundle import Bundle
from wastejax.evaluation.evaluate import predict_logits
from wastejax.evaluation.metrics import log_softmax
from wastejax.models.familiarity import COLLECTION, familiarity


class Head(NamedTuple):
    """A linear classifier on pooled features.

    Attributes:
        kernel: float32 [D, C].
        bias: float32 [C].
    """

    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns float32 [N, C] of features [N, D]."""
        return features @ self.kernel + self.bias


def head_of(bundle: Bundle) -> Head:
    """Returns a bundle's own classifier."""
    classifier = bundle.variables["params"]["classifier"]
    return Head(np.asarray(classifier["kernel"]), np.asarray(classifier["bias"]))


def logits_of(bundle: Bundle, features: np.ndarray) -> np.ndarray:
    """Returns float32 [N, C], what the bundle says to images with these features [N, D]."""
    logits = head_of(bundle).logits(features)
    known = bundle.variables.get(COLLECTION)
    return logits if known is None else logits * np.asarray(familiarity(known, jnp.asarray(features)))


def with_head(bundle: Bundle, head: Head) -> Bundle:
    """Returns the bundle with another classifier, not yet saved."""
    params = bundle.variables["params"] | {"classifier": {"kernel": head.kernel, "bias": head.bias}}
    return replace(bundle, variables=bundle.variables | {"params": params})


def compute_features(bundle: Bundle, batches: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Returns float32 [N, D]: what the classifier sees of each image, in the order of the batches."""
    return predict_logits(bundle.features, batches)[0]


def fit_head(
    features: np.ndarray,
    allowed: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    decay: float = 1e-3,
    outlier_weight: float = 0.5,
    start: Head | None = None,
    steps: int = 300,
) -> Head:
    """Fits a linear classifier to labels that can mean several classes or none.

    The loss is that of `losses.partial_labels` and `losses.outlier_exposure`, plus `decay` times the squared
    distance of the kernel from where it starts, on features of unit variance.

    Args:
        features: float [N, D].
        allowed: bool [N, C], the classes that each image may show; none for an image of none of them.
        weights: float [N], how much each image counts; None for all alike.
        decay: strength of the regularisation.
        outlier_weight: how much images of none of the classes count.
        start: the classifier to begin with and to stay near; None for zero.
        steps: of L-BFGS, at most.
    """
    features = np.asarray(features, np.float32)
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    x = (features - mean) / scale
    known = allowed.any(axis=1)
    weight = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    weight = weight * np.where(known, 1, outlier_weight) / weight.sum()
    (D,), C = scale.shape, allowed.shape[1]
    first = np.zeros((D, C), np.float32) if start is None else start.kernel * scale[:, None]
    bias = np.zeros(C) if start is None else start.bias + mean @ start.kernel

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, b = flat[: D * C].reshape(D, C).astype(np.float32), flat[D * C :]
        value, slope = loss_and_slope((x @ kernel).astype(np.float64) + b, allowed, weight)
        away = kernel - first
        slope_of_kernel = (x.T @ slope.astype(np.float32)).astype(np.float64) + 2 * decay * away
        return value + decay * float((away.astype(np.float64) ** 2).sum()), np.concatenate(
            [slope_of_kernel.ravel(), slope.sum(axis=0)]
        )

    begin = np.concatenate([first.ravel(), bias]).astype(np.float64)
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxcor": 10})
    kernel = found.x[: D * C].reshape(D, C) / scale[:, None]
    return Head(kernel.astype(np.float32), (found.x[D * C :] - mean @ kernel).astype(np.float32))


def with_familiarity(bundle: Bundle, features: np.ndarray, slope: float = 4.0, most: int = 256) -> Bundle:
    """Returns the bundle, less sure of images unlike those given, not yet saved and to be calibrated anew.

    Args:
        bundle: the model.
        features: float [N, D], what its classifier sees of images that it learned from.
        slope: see `models.familiarity`; 0 changes nothing.
        most: clusters of features that are kept.
    """
    centers = cluster(features, most)
    usual = np.median((features @ centers.T).max(axis=1) / np.linalg.norm(features, axis=1))
    known = {"prototypes": centers.T, "slope": np.float32(slope), "usual": np.float32(usual)}
    return replace(bundle, variables=bundle.variables | {COLLECTION: known})


def cluster(features: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Returns the centers of clusters by cosine, float32 [M, D] of unit length (Dhillon & Modha 2001).

    Args:
        features: float [N, D].
        most: M, where there are as many images.
        seed: of the images that it begins with.
    """
    unit = np.asarray(features, np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-6)
    centers = unit[np.random.default_rng(seed).permutation(len(unit))[:most]]
    for _ in range(15):  # steps of k-means
        nearest = (unit @ centers.T).argmax(axis=1)
        members = np.zeros((len(centers), len(unit)), np.float32)
        members[nearest, np.arange(len(unit))] = 1
        sums = members @ unit
        moved = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
        some = np.asarray(members.any(axis=1))
        centers = np.where(some[:, None], moved, centers)  # an empty cluster stays
    return centers


def loss_and_slope(logits: np.ndarray, allowed: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the weighted sum of the losses of `fit_head`, and its slope in the logits.

    Args:
        logits: float64 [N, C].
        allowed: bool [N, C].
        weight: float64 [N].
    """
    known, C = np.asarray(allowed.any(axis=1)), logits.shape[1]
    log_p = log_softmax(logits)
    p = np.exp(log_p)
    # Relative to the largest that is allowed, or a confident mistake would be log(0).
    top = np.where(allowed, log_p, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    top = np.where(known[:, None], top, 0)
    among = np.where(allowed, np.exp(np.minimum(log_p - top, 0)), 0)
    total = np.where(known, among.sum(axis=1), 1)
    partial = -(top[:, 0] + np.log(total))
    outlier = -log_p.mean(axis=1) - np.log(C)
    wanted = np.where(known[:, None], among / total[:, None], 1 / C)
    return float((weight * np.where(known, partial, outlier)).sum()), weight[:, None] * (p - wanted)
