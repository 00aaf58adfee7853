"""Calibrating a model on the images of a folder, and scoring it on others."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_models import draw_images, write_bundle

from wastejax.bundle import Bundle, load_bundle
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked
from wastejax.evaluation.run import evaluate_model
from wastejax.evaluation.trust import calibrate


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A bundle, and a folder of 30 images in train, val and test."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    weights = np.random.default_rng(0).normal(size=(3, 5))
    answers = lambda images: np.asarray(images, np.float64).mean((1, 2)) @ weights / 50  # noqa: E731
    monkeypatch.setattr(Bundle, "logits", property(lambda self: answers))
    write_bundle(tmp_path / "bundle", image_size=32)
    for split in ("train", "val", "test"):
        draw_images(tmp_path / "images" / split, 10)
    return tmp_path


def scored(place, split=None, data="images"):
    said: list[str] = []
    _, scores = evaluate_model(Asked(place / "bundle", place / data, split), calibrate=True, say=said.append)
    assert load_bundle(place / "bundle").thresholds
    return scores["num_images"], [line for line in said if line.startswith("note: 10 of ")]


def test_images_that_a_model_was_calibrated_on_are_not_scored(place):
    assert scored(place) == (
        20,
        ["note: 10 of 30 images are those to calibrate on: they are left out (--split=val scores them)"],
    )
    assert scored(place, "test") == (10, [])


def test_where_they_are_asked_for_the_scores_are_said_to_flatter(place):
    assert scored(place, "val") == (
        10,
        ["note: 10 of 10 images are those to calibrate on: the scores flatter"],
    )


@pytest.mark.parametrize("several", [False, True])
def test_what_cannot_be_read_is_told_before_the_bundle_is_changed_and_images_are_scored(
    place, monkeypatch, several
):
    monkeypatch.setattr(Bundle, "logits", property(lambda self: pytest.fail("images were scored")))
    monkeypatch.setattr(Bundle, "multilabel", several)
    asked, ood = Asked(place / "bundle", place / "images", "test"), draw_images(place / "other", 3)
    cut = ["images/test/glass/cut.png"] if several else ["other/glass/cut.png", "images/test/glass/cut.png"]
    for name in cut:
        Image.effect_noise((90, 90), 50).save(place / name)
        (place / name).write_bytes((place / name).read_bytes()[:3000])
        before = (place / "bundle" / "bundle.json").read_bytes()
        with pytest.raises(UserError, match=r"1 images cannot be read \(.*cut\.png: truncated"):
            evaluate_model(asked, ood=None if several else ood, calibrate=True)
        assert (place / "bundle" / "bundle.json").read_bytes() == before
        (place / name).unlink()


def test_a_folder_without_val_images_is_told_what_makes_some(place):
    draw_images(place / "plain", 10)
    with pytest.raises(UserError, match=r"^--calibrate: .*plain has no val images.*folder val/") as error:
        evaluate_model(Asked(place / "bundle", place / "plain"), calibrate=True)
    assert "--split" not in str(error.value)


def test_what_cannot_be_is_told_before_any_image_is_read(place, monkeypatch):
    monkeypatch.setattr("wastejax.evaluation.run.readable", lambda *_: pytest.fail("images were read"))
    draw_images(place / "plain", 10)
    for data, how, message in (
        (place / "images", {"ood": place / "nowhere"}, "--ood.*does not exist"),
        (place / "plain", {"calibrate": True}, "has no val images"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate_model(Asked(place / "bundle", data), **how)


def test_images_of_which_none_can_be_read_leave_the_bundle_as_it_is(place):
    (place / "other" / "cup").mkdir(parents=True)
    (place / "other" / "cup" / "cut.png").write_bytes(b"\x89PNG")
    before = (place / "bundle" / "bundle.json").read_bytes()
    asked = Asked(place / "bundle", place / "images", skip_bad=True)
    with pytest.raises(UserError, match=r"none of the images can be read \(cup/cut\.png"):
        evaluate_model(asked, ood=place / "other", calibrate=True)
    assert (place / "bundle" / "bundle.json").read_bytes() == before


def test_thresholds_are_of_the_rules_of_the_bundle_whatever_rules_it_is_scored_by(place, monkeypatch):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 5)), np.arange(200) % 5
    logits[np.arange(200), labels] += 2
    found = SimpleNamespace(logits=logits, labels=labels, scores={"confusion": np.eye(5, dtype=int).tolist()})
    monkeypatch.setattr("wastejax.evaluation.trust.evaluate", lambda *given: found)
    own, japanese = calibrate(logits, labels, [*"abcad"]), calibrate(logits, labels, [*"abaac"])
    assert own != japanese
    for taxonomy in (None, "japan"):
        evaluate_model(Asked(place / "bundle", place / "images"), taxonomy, calibrate=True)
        assert load_bundle(place / "bundle").thresholds == own.thresholds
