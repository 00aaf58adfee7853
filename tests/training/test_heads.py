"""The last layer learned on features, from labels that can mean several classes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import check_grad

from tests.small_models import draw_images, write_bundle
from wastejax.bundle import load_bundle, save_bundle
from wastejax.data.pipeline import EvalBatches
from wastejax.data.sources import open_folder
from wastejax.deployment.export import forward_function
from wastejax.deployment.predictor import softmax
from wastejax.training.heads import (
    Head,
    cluster,
    compute_features,
    fit_head,
    head_of,
    logits_of,
    loss_and_slope,
    with_familiarity,
    with_head,
)
from wastejax.training.step import losses


def problem(count: int = 60):
    """Features around three centers; the labels of half of them are known only to be one of two classes."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, count)
    features = 4 * np.eye(3, 5)[truth] + rng.normal(0, 0.5, (count, 5)) + 7
    allowed = np.eye(3, dtype=bool)[truth]
    allowed[::2, 0] = True
    return features.astype(np.float32), allowed, truth


def test_the_loss_is_that_of_training_and_its_slope_the_derivative():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (6, 4))
    allowed = rng.random((6, 4)) < 0.5
    allowed[0], allowed[1] = False, [False, True, False, False]
    weight = np.where(allowed.any(axis=1), 1, 0.25) / 6
    value, _ = loss_and_slope(logits, allowed, weight)
    z, a = jnp.asarray(logits, jnp.float32), jnp.asarray(allowed)
    expected = losses.partial_labels(z, a) + 0.25 * losses.outlier_exposure(z, a)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    error = check_grad(
        lambda flat: loss_and_slope(flat.reshape(6, 4), allowed, weight)[0],
        lambda flat: loss_and_slope(flat.reshape(6, 4), allowed, weight)[1].ravel(),
        logits.ravel(),
    )
    assert error < 1e-6


def test_partial_labels_are_told_apart_with_the_help_of_the_others():
    features, allowed, truth = problem()
    head = fit_head(features, allowed)
    assert np.array_equal(head.logits(features).argmax(axis=1), truth)


def test_images_of_no_class_become_unsure():
    features, allowed, _ = problem()
    nothing = np.random.default_rng(2).normal(-4, 0.5, (30, 5)).astype(np.float32) + 7
    both = np.concatenate([features, nothing]), np.concatenate([allowed, np.zeros((30, 3), bool)])
    before, after = (
        np.asarray(jax.nn.softmax(head.logits(nothing))).max(axis=1).mean()
        for head in (fit_head(features, allowed), fit_head(*both, outlier_weight=1.0))
    )
    assert 1 / 3 <= after < before - 0.1


def test_much_decay_stays_at_the_start():
    features, allowed, _ = problem()
    start = Head(np.random.default_rng(3).normal(size=(5, 3)).astype(np.float32), np.ones(3, np.float32))
    np.testing.assert_allclose(
        fit_head(features, allowed, decay=1e4, start=start).kernel, start.kernel, atol=1e-3
    )


def test_features_and_head_of_a_bundle_give_its_logits(tmp_path):
    bundle = load_bundle(write_bundle(tmp_path / "bundle"))
    source = open_folder(draw_images(tmp_path / "images"))
    batches = EvalBatches(source, np.arange(len(source)), bundle.preprocessing, 4)
    features = compute_features(bundle, batches)
    logits = np.concatenate([np.asarray(bundle.logits(b["image"]))[b["mask"]] for b in batches])
    np.testing.assert_allclose(head_of(bundle).logits(features), logits, rtol=1e-4, atol=1e-4)
    other = Head(np.zeros_like(head_of(bundle).kernel), np.arange(5, dtype=np.float32))
    changed = with_head(bundle, other)
    np.testing.assert_allclose(
        np.asarray(changed.logits(next(iter(batches))["image"]))[0], np.arange(5), atol=1e-6
    )


def test_features_and_head_of_a_model_in_bfloat16_give_its_logits(tmp_path):
    """Also where it is less sure of unfamiliar images."""
    bundle = load_bundle(write_bundle(tmp_path / "bundle"))
    bundle.config["model"] |= {"dtype": "bfloat16"}
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    features = np.asarray(bundle.features(images))
    for model in (bundle, with_familiarity(bundle, features[:4], slope=3.0, most=2)):
        np.testing.assert_allclose(logits_of(model, features), np.asarray(model.logits(images)), atol=1e-4)


def test_an_unfamiliar_image_is_answered_alike_but_less_surely(tmp_path):
    bundle = load_bundle(write_bundle(tmp_path / "bundle"))
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    features, plain = np.asarray(bundle.features(images)), np.asarray(bundle.logits(images))
    known = with_familiarity(bundle, features[:4], slope=3.0, most=2)
    save_bundle(tmp_path / "known", known, "int8")
    found = load_bundle(tmp_path / "known")
    assert json.loads((tmp_path / "known" / "bundle.json").read_text())["format"] == 3
    centers = known.variables["familiarity"]["prototypes"]
    assert centers.shape == (features.shape[1], 2)
    cosine = (features @ centers).max(axis=1) / np.linalg.norm(features, axis=1)
    expected = plain * np.exp(3.0 * (cosine - np.median(cosine[:4])))[:, None]
    np.testing.assert_allclose(np.asarray(known.logits(images)), expected, rtol=2e-4, atol=1e-4)
    # Every form has it: `write_export` builds on the same function.
    plainly = forward_function(known, "uint8", "direct")(images)
    mapped, maps = forward_function(known, "uint8", "direct", class_map=True)(images)
    np.testing.assert_allclose(np.asarray(plainly), softmax(expected, 1), atol=1e-4)
    np.testing.assert_allclose(np.asarray(mapped), softmax(expected, 1), atol=1e-4)
    np.testing.assert_allclose(np.asarray(maps).mean((1, 2)), plain, rtol=2e-4, atol=1e-3)
    stored = np.asarray(found.logits(images))  # int8 weights
    assert (stored.argmax(axis=1) == plain.argmax(axis=1)).all()
    assert found.variables["familiarity"]["slope"] == 3


def test_clusters_are_the_directions_that_features_have():
    rng = np.random.default_rng(1)
    planted = np.eye(8)[:3]
    features = 5 * planted[rng.integers(0, 3, 90)] + rng.normal(0, 0.1, (90, 8))
    centers = cluster(features, 6, seed=2)
    assert centers.shape == (6, 8)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1, atol=1e-5)
    assert set((centers @ planted.T).argmax(axis=1)) == {0, 1, 2}
    assert ((centers @ planted.T).max(axis=1) > 0.98).all()
    assert cluster(features[:2], 6).shape == (2, 8)
