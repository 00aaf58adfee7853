import io
import os
import pickle
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from wastejax.data import images, pipeline
from wastejax.data.sources import open_folder
from wastejax.data.transforms import AUGMENTATIONS, Preprocessing
from wastejax.errors import ConfigError, UserError

PREPROCESSING = Preprocessing(16)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Eleven images, each of its own gray value: 2 apples, 9 bottles."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    for i in range(11):
        folder = tmp_path / "data" / ("apple" if i < 2 else "bottle")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + i, 30), (i * 20,) * 3).save(folder / f"{i:02}.png")
    return open_folder(tmp_path / "data")


def batches(source, **changes):
    steps = {"start": 0, "stop": 9, "workers": 0}
    steps |= {key: changes.pop(key) for key in steps if key in changes}
    options = {
        "read": pipeline.Reader(source),
        "indices": np.arange(11),
        "batch_size": 4,
        "seed": 17,
    } | changes
    augment = AUGMENTATIONS["basic"](PREPROCESSING, 0.5)
    return list(pipeline.train_batches(pipeline.TrainingImages(augment=augment, **options), **steps))


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x)


def test_a_batch_has_the_images_its_index_names(source):
    for batch in batches(source):
        assert batch["image"].shape == (4, 16, 16, 3) and batch["image"].dtype == np.uint8
        assert batch["label"].dtype == np.int32 and batch["mask"].all()
        np.testing.assert_array_equal(batch["image"][:, 8, 8, 0], batch["index"] * 20)
        np.testing.assert_array_equal(batch["label"], source.labels[batch["index"]])


def test_every_image_comes_once_an_epoch_in_a_new_order(source):
    seen = np.concatenate([b["index"] for b in batches(source, batch_size=11, stop=3)]).reshape(3, 11)
    assert all(sorted(epoch) == list(range(11)) for epoch in seen.tolist())
    assert not np.array_equal(seen[0], seen[1])


def test_steps_depend_on_seed_and_number_alone(source):
    whole = batches(source)
    assert same(whole, batches(source))
    assert same(whole[5:], batches(source, start=5))
    assert not same(whole, batches(source, seed=18))


@pytest.mark.skipif(sys.platform != "linux", reason="no priorities of single threads")
def test_threads_that_read_give_way_and_the_one_that_asks_does_not(source):
    def priority():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    asking, seen = priority(), set()

    class Noting(pipeline.Reader):
        def __call__(self, index):
            seen.add((threading.current_thread() is threading.main_thread(), priority()))
            return super().__call__(index)

    batches(source, read=Noting(source))
    assert seen == {(False, min(asking + pipeline.NICE, 19))}
    assert priority() == asking


def test_worker_processes_give_the_same_batches(source):
    assert same(batches(source, stop=5), batches(source, stop=5, workers=2))
    assert same(batches(source, stop=1), batches(source, stop=1, workers=2))


def test_the_cache_gives_the_same_batches(source):
    cached = pipeline.reader(source, np.arange(11), cache=True)
    assert cached.store is not None
    assert same(batches(source), batches(source, read=cached))
    again = pipeline.reader(source, np.arange(11), cache=True)
    assert again.store.path == cached.store.path


def test_balanced_sampling_draws_classes_equally(source):
    labels = np.concatenate([b["label"] for b in batches(source, stop=50, balanced=True)])
    assert 0.45 < np.mean(labels == 0) < 0.55
    plain = np.concatenate([b["label"] for b in batches(source, stop=50)])
    assert np.mean(plain == 0) < 0.3


@pytest.mark.parametrize("cache", [False, True])
def test_evaluation_sees_every_image_once_with_a_masked_tail(source, cache):
    evaluation = pipeline.EvalBatches(source, np.array([3, 1, 7, 9, 10]), PREPROCESSING, 4, cache)
    assert len(evaluation) == 2
    for _ in range(2):  # as often as one likes
        first, last = list(evaluation)
        assert first["mask"].all() and last["mask"].tolist() == [True, False, False, False]
        assert first["index"].tolist() == [3, 1, 7, 9] and last["index"][0] == 10
        np.testing.assert_array_equal(first["image"][:, 8, 8, 0], first["index"] * 20)
        image = images.decode(source.read(7))
        np.testing.assert_array_equal(first["image"][2], PREPROCESSING(image))


def test_cached_training_images_are_at_most_256_on_the_short_side():
    buffer = io.BytesIO()
    Image.new("RGB", (800, 600)).save(buffer, "JPEG")
    assert pipeline.shrink(images.decode(buffer.getvalue())).size == (341, 256)
    assert pipeline.shrink(Image.new("RGB", (100, 50))).size == (100, 50)


@pytest.mark.parametrize(
    "size, area, side",
    [(224, 0.35, 256), (128, 0.35, 217), (64, 0.25, 128), (64, 1.0, 68), (256, 0.35, 256), (380, 0.35, 400)],
)
def test_the_cache_keeps_as_many_pixels_as_the_smallest_crop_needs(size, area, side):
    assert pipeline.cached_side(size, crop=0.95, min_crop_area=area) == side


def test_images_are_shrunk_alike_with_and_without_the_cache(source):
    cached, plain = (pipeline.reader(source, np.arange(11), cache, side=20) for cache in (True, False))
    assert cached(3).shape == (20, 29, 3)
    np.testing.assert_array_equal(cached(3), plain(3))
    assert pipeline.reader(source, np.arange(11), True).store.path != cached.store.path


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("change", ["gone", "damaged"])
def test_a_file_that_vanishes_while_training_is_one_line(source, tmp_path, workers, change):
    path = tmp_path / "data" / "bottle" / "05.png"
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(b"")
    why = {"gone": "No such file or directory", "damaged": "empty file"}[change]
    line = f"bottle/05.png: cannot be read any more ({why}); it could be when this began"
    with pytest.raises(UserError) as error:
        batches(source, workers=workers)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
    with pytest.raises(UserError) as error:
        list(pipeline.EvalBatches(source, np.arange(11), PREPROCESSING, 4))
    assert str(error.value).startswith(line)


def test_errors_survive_the_way_out_of_a_process():
    error = pickle.loads(pickle.dumps(ConfigError("config.data.dir", "is gone")))
    assert str(error) == "config.data.dir: is gone" and error.key == "config.data.dir"
