import unicodedata
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wastejax.errors import UserError
from wastejax.evaluation.evaluate import evaluate, match_classes, predict_logits
from wastejax.evaluation.metrics import bootstrap_interval, score

SIZE = 4


def batches_of(images, batch_size, fill=255):
    """Batches in order, the last one filled up with rows whose mask is False and whose index repeats 0."""
    for start in range(0, len(images), batch_size):
        index = np.arange(start, min(start + batch_size, len(images)))
        real = len(index)
        image = np.full((batch_size, *images.shape[1:]), fill, np.uint8)
        image[:real] = images[index]
        padded_index = np.zeros(batch_size, np.int64)
        padded_index[:real] = index
        mask = np.arange(batch_size) < real
        yield {"image": image, "index": padded_index, "mask": mask}


def first_pixel(images):
    """A stand-in model of three classes: the first pixel's channels are the logits; NaN for white ones."""
    pixel = np.asarray(images)[:, 0, 0, :].astype(np.float32)
    return np.where(pixel == 255, np.nan, pixel)


def drawn_images(count):
    return np.random.default_rng(0).integers(0, 200, (count, SIZE, SIZE, 3)).astype(np.uint8)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 64])
def test_padding_never_counts(batch_size):
    images = drawn_images(10)
    logits, index = predict_logits(first_pixel, batches_of(images, batch_size), expected=range(10))
    assert index.tolist() == list(range(10))
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, images[:, 0, 0, :].astype(np.float32))


def test_mask_works_anywhere_in_a_batch():
    batch = {"image": drawn_images(4), "index": np.array([7, 0, 5, 0]), "mask": [True, False, True, False]}
    logits, index = predict_logits(first_pixel, [batch])
    assert index.tolist() == [7, 5]
    np.testing.assert_array_equal(logits, batch["image"][[0, 2], 0, 0, :])


def test_repeated_missing_and_unexpected_images_are_errors():
    images = drawn_images(6)
    batches = list(batches_of(images, 4))
    with pytest.raises(ValueError, match=r"4 were seen more than once \(first index: 0\)"):
        predict_logits(first_pixel, [*batches, batches[0]])
    with pytest.raises(ValueError, match=r"2 were missing \(first index: 4\)"):
        predict_logits(first_pixel, batches[:1], expected=range(6))
    with pytest.raises(ValueError, match=r"1 were not part of the set \(first index: 5\)"):
        predict_logits(first_pixel, batches, expected=range(5))


@pytest.mark.parametrize("batches", [[], list(batches_of(drawn_images(4), 4))])
def test_no_images_is_an_error(batches):
    emptied = [batch | {"mask": np.zeros(4, bool)} for batch in batches]
    with pytest.raises(UserError, match="no images"):
        predict_logits(first_pixel, emptied)


def test_the_next_batch_is_dispatched_before_the_last_one_is_fetched():
    events = []

    class OnDevice:
        """Logits that are still being computed: turning them into NumPy is the moment of waiting."""

        def __init__(self, name):
            self.name = name

        def __array__(self, dtype=None, copy=None):
            events.append(f"fetch {self.name}")
            return np.zeros((2, 3), np.float32)

    def apply(images):
        name = int(images[0, 0, 0, 0])
        events.append(f"dispatch {name}")
        return OnDevice(name)

    images = np.repeat(np.arange(3), 2).astype(np.uint8)[:, None, None, None] * np.ones(
        (1, 1, 1, 3), np.uint8
    )
    predict_logits(apply, batches_of(images, 2))
    assert events == ["dispatch 0", "dispatch 1", "fetch 0", "dispatch 2", "fetch 1", "fetch 2"]


def test_jitted_bfloat16_model_compiles_once_and_gives_float32():
    traces = []

    @jax.jit
    def apply(images):
        traces.append(images.shape)
        return images[:, 0, 0, :].astype(jnp.bfloat16)

    images = drawn_images(10)
    logits, _ = predict_logits(apply, batches_of(images, 4))
    assert traces == [(4, SIZE, SIZE, 3)]
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, images[:, 0, 0, :])  # integers below 256 are exact in bfloat16


def test_evaluate_scores_reordered_and_fewer_classes():
    images = drawn_images(10)
    answers = images[:, 0, 0, :].argmax(axis=1)
    images, answers = images[answers != 1], answers[answers != 1]  # the data lack the model's class 'b'
    source = SimpleNamespace(
        classes=("c", "a"),
        labels=np.where(answers == 2, 0, 1).astype(np.int32),  # all correct, in the data's own numbering
        domains=("default",) * len(images),
    )
    result = evaluate(first_pixel, batches_of(images, 4), source, ("a", "b", "c"), range(len(images)))
    assert result.scores["top1"] == 1.0
    assert result.labels.tolist() == answers.tolist()
    assert result.scores["per_class"]["b"]["support"] == 0
    assert result.scores == score(result.logits, answers, ("a", "b", "c"), source.domains)


def test_intervals_are_of_as_many_resamples_as_asked_for():
    images = drawn_images(50)
    source = SimpleNamespace(
        classes=("a", "b", "c"), labels=np.arange(50, dtype=np.int32) % 3, domains=("default",) * 50
    )
    found = [
        evaluate(first_pixel, batches_of(images, 10), source, source.classes, bootstrap=resamples)
        for resamples in (10, 1000)
    ]
    right = found[0].logits.argmax(axis=1) == source.labels
    assert [result.scores["ci95"] for result in found] == [
        list(bootstrap_interval(right, 10)), list(bootstrap_interval(right, 1000))
    ]  # fmt: skip
    assert found[0].scores["ci95"] != found[1].scores["ci95"]


def test_match_classes():
    matched = match_classes(["glass", "metal", "paper"], ["paper", "glass"])
    assert matched.tolist() == [2, 0]
    assert matched.dtype == np.int32


def test_match_classes_across_unicode_forms():
    decomposed = unicodedata.normalize("NFD", "종이컵")  # as macOS stores the folder
    assert decomposed != "종이컵"
    assert match_classes(["신발", "종이컵"], [decomposed]).tolist() == [1]


def test_unknown_classes_are_named_with_the_nearest():
    with pytest.raises(UserError) as error:
        match_classes(["paper_cups", "shoes"], ["Paper-Cup", "shoes", "zzz"])
    message = str(error.value)
    assert "'Paper-Cup' (did you mean 'paper_cups'?), 'zzz';" in message
    assert "the model knows: paper_cups, shoes" in message
    assert "\n" not in message
