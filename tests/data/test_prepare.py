import io
import pickle
from collections import Counter
from pathlib import Path

import ml_collections
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from wastejax.data import prepare as prepare_module
from wastejax.data.prepare import Dataset, prepare
from wastejax.data.split import SPLITS, save_manifest
from wastejax.errors import ConfigError, UserError


def photo(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((64, 64)) for n in (4, 8, 16)
    ]
    return Image.fromarray(np.mean([np.asarray(layer) for layer in layers], 0).astype(np.uint8))


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_class(folder: Path, count: int, first: int) -> None:
    for i in range(count):
        save(photo(first + i), folder / f"{i:02d}.png")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of ten images that are nothing alike."""
    root = tmp_path / "data"
    write_class(root / "glass", 10, 0)
    write_class(root / "metal", 10, 100)
    return root


def config_for(folder: Path, **changes) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(
        {
            "source": "folder",
            "dir": str(folder),
            "on_bad_image": "raise",
            "leave_out": (),
            "split": {"ratios": (3, 1, 1), "group": "phash", "hamming": 8, "manifest": ""},
        }
    )
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def ready(folder: Path, **changes) -> Dataset:
    return prepare(config_for(folder, **changes), 17, None)


def fails(folder: Path, key: str, **changes) -> str:
    """Returns the error message, which must be one line that begins with the key."""
    with pytest.raises(ConfigError) as error:
        ready(folder, **changes)
    assert error.value.key == key
    assert "\n" not in str(error.value)
    return str(error.value)


def test_splits_three_to_one_to_one(folder):
    dataset = ready(folder)
    assert [len(dataset.indices(split)) for split in SPLITS] == [12, 4, 4]
    assert dataset.indices("val").dtype == np.int64
    for label in (0, 1):
        assert [int(np.sum(dataset.source.labels[dataset.indices(s)] == label)) for s in SPLITS] == [6, 2, 2]
    assert len(np.unique(dataset.groups)) == 20
    assert dataset.skipped == {} and dataset.notes == []
    np.testing.assert_array_equal(dataset.splits, ready(folder).splits)
    pickle.dumps(dataset)  # goes to worker processes


def test_twins_stay_together_and_are_counted(folder):
    for i in range(5):
        save(ImageEnhance.Brightness(photo(i)).enhance(0.9), folder / "glass" / f"twin{i}.png")
    save(photo(100), folder / "glass" / "really_metal.png")
    dataset = ready(folder)
    names = dataset.source.names
    for i in range(5):
        pair = [names.index(f"glass/{i:02d}.png"), names.index(f"glass/twin{i}.png")]
        assert len(set(dataset.groups[pair])) == len(set(dataset.splits[pair])) == 1
    assert dataset.notes == [
        "12 of 26 images are near-duplicates of others, in 6 groups",
        "groups of near-duplicates that span several classes (label errors?): 1",
        "groups of near-duplicates over 5% of the set: 6, the largest of 2 images (8%), glass/00.png among them",
    ]


def test_images_are_compared_only_where_the_split_asks_for_it(folder, tmp_path, monkeypatch):
    for i in range(10):
        save(photo(i), folder / "glass" / f"twin{i}.png")
    given = tmp_path / "given"
    for k, split in enumerate(SPLITS):
        for c, name in enumerate(("glass", "metal")):
            write_class(given / split / name, 2, 1000 * k + 100 * c)
    without_val = tmp_path / "without_val"
    for k, split in enumerate(("train", "test")):
        for c, name in enumerate(("glass", "metal")):
            write_class(without_val / split / name, 4, 1000 * k + 100 * c)
    first = ready(folder)
    manifest = tmp_path / "manifest.csv"
    save_manifest(manifest, first.source, first.groups, first.splits, first.phash)
    calls = []

    def counted(*arguments):
        calls.append(len(arguments[0]))
        return group_duplicates(*arguments)

    group_duplicates = prepare_module.group_duplicates
    monkeypatch.setattr(prepare_module, "group_duplicates", counted)
    ready(folder)
    ready(without_val)  # val is taken from train, by groups
    assert calls == [30, 16]
    plain = ready(folder, split__group="none")
    assert len(np.unique(plain.groups)) == 30 and prepare_module.NOT_COMPARED in plain.notes
    assert prepare_module.NOT_COMPARED in ready(given).notes
    again = ready(folder, split__manifest=str(manifest))
    np.testing.assert_array_equal(again.groups, first.groups)
    assert calls == [30, 16]


def test_a_large_group_is_reported(folder):
    for i in range(4):
        save(photo(0), folder / "glass" / f"copy{i}.png")
    large = (
        "groups of near-duplicates over 5% of the set: 1, the largest of 5 images (21%), glass/00.png among"
    )
    assert any(note.startswith(large) for note in ready(folder).notes)


def test_domains_are_stratified(tmp_path):
    for k, name in enumerate(("glass", "metal")):
        for d, domain in enumerate(("default", "real_world")):
            write_class(tmp_path / "images" / name / domain, 5, 100 * k + 50 * d)
    dataset = ready(tmp_path)
    cells = Counter((dataset.source.labels[i], dataset.source.domains[i]) for i in dataset.indices("test"))
    assert [*cells.values()] == [1, 1, 1, 1]


@pytest.fixture
def damaged(folder) -> Path:
    half = io.BytesIO()
    photo(50).save(half, "JPEG")
    (folder / "glass" / "half.jpg").write_bytes(half.getvalue()[:600])
    (folder / "metal" / "empty.png").touch()
    (folder / "metal" / "page.jpg").write_text("<html>404</html>")
    (folder / "metal" / "그림.png").symlink_to(folder / "gone.png")
    save(Image.new("1", (10_000, 10_000)), folder / "metal" / "bomb.png")
    return folder


REASONS = {
    "glass/half.jpg": "truncated",
    "metal/bomb.png": "too large (10000 x 10000 pixels; decompression bomb?): at most 89,478,485 pixels",
    "metal/empty.png": "empty file",
    "metal/page.jpg": "not an image",
    "metal/그림.png": "cannot be read (No such file or directory)",
}


@pytest.mark.parametrize("group", ["phash", "none"])
def test_unreadable_files_stop_the_run_and_are_named(damaged, group):
    message = fails(damaged, "config.data.on_bad_image", split__group=group)
    assert "5 of 25 images cannot be read" in message
    for name, reason in REASONS.items():
        assert f"{name}: {reason}" in message
    assert "--config.data.on_bad_image=skip" in message


def test_unreadable_files_are_left_out_and_counted(damaged):
    save(photo(0), damaged / "metal" / "like glass.png")
    dataset = ready(damaged, on_bad_image="skip")
    assert dataset.skipped == REASONS
    assert dataset.notes[0] == "5 unreadable images are left out"
    names = dataset.source.names
    assert len(names) == 21 and not set(REASONS) & set(names)
    assert sum(len(dataset.indices(split)) for split in SPLITS) == 21
    # Indices, groups and files still belong together.
    assert [dataset.source.read(i) for i in range(21)] == [(damaged / name).read_bytes() for name in names]
    twins = {names[i] for i in np.flatnonzero(np.bincount(dataset.groups)[dataset.groups] > 1)}
    assert twins == {"glass/00.png", "metal/like glass.png"}


def test_many_unreadable_files_are_counted(folder):
    for i in range(50):
        (folder / "glass" / f"x{i:02d}.png").touch()
    message = fails(folder, "config.data.on_bad_image")
    assert "glass/x19.png: empty file; and 30 more" in message


def test_folders_that_are_split_are_respected(tmp_path):
    for k, (split, count) in enumerate((("train", 4), ("val", 2), ("test", 1))):
        for c, name in enumerate(("glass", "metal")):
            write_class(tmp_path / split / name, count, 1000 * k + 100 * c)
    dataset = ready(tmp_path)
    assert [name.split("/")[0] for name in dataset.source.names] == dataset.splits.tolist()


def test_a_part_that_the_folders_lack_is_taken_from_train(tmp_path):
    for k, (split, count) in enumerate((("train", 8), ("test", 3))):
        for c, name in enumerate(("glass", "metal")):
            write_class(tmp_path / split / name, count, 1000 * k + 100 * c)
    dataset = ready(tmp_path)
    assert [len(dataset.indices(split)) for split in SPLITS] == [12, 4, 6]  # train : val = 3 : 1
    assert all(name.startswith("test/") for name in np.array(dataset.source.names)[dataset.indices("test")])


def test_manifest_comes_back_from_the_work_directory(folder, tmp_path):
    first = ready(folder)
    path = tmp_path / "manifest.csv"
    save_manifest(path, first.source, first.groups, first.splits)
    again = ready(folder, split__manifest=str(path), split__ratios=(1, 1, 1))
    assert again.source.names == first.source.names
    np.testing.assert_array_equal(again.splits, first.splits)
    np.testing.assert_array_equal(again.groups, first.groups)


def test_manifest_describes_a_cleaned_set(damaged, tmp_path):
    clean = ready(damaged, on_bad_image="skip")
    path = tmp_path / "clean.csv"
    save_manifest(path, clean.source, clean.groups, clean.splits)
    dataset = ready(damaged, split__manifest=str(path))  # 'raise': nothing that it lists is unreadable
    assert dataset.source.names == clean.source.names
    assert dataset.notes == [f"5 images that {path} does not list are left out", prepare_module.NOT_COMPARED]

    (damaged / "glass" / "00.png").write_bytes(b"")
    assert "glass/00.png: empty file" in fails(damaged, "config.data.on_bad_image", split__manifest=str(path))


def test_manifest_without_a_split(folder, tmp_path):
    first = ready(folder)
    splits = np.where(first.splits == "val", "train", first.splits)
    save_manifest(tmp_path / "m.csv", first.source, first.groups, splits)
    message = fails(folder, "config.data.split.manifest", split__manifest=str(tmp_path / "m.csv"))
    assert "no image is left for val" in message


def test_sets_that_cannot_be_split(folder, tmp_path):
    write_class(tmp_path / "one" / "shoes", 9, 0)
    assert "single class, 'shoes'" in fails(tmp_path / "one", "config.data.dir")

    write_class(folder / "paper", 2, 200)
    message = fails(folder, "config.data.dir")
    assert "class 'paper' (2)" in message and "at least 3" in message

    for i in range(2, 9):
        save(photo(200), folder / "paper" / f"{i:02d}.png")  # nine files, but two images
    message = fails(folder, "config.data.dir")
    assert (
        "class 'paper' has no image in" in message
        and "its 9 form" in message
        and "2 groups of near-duplicates" in message
    )
    assert len(ready(folder, split__group="none").source) == 29

    (folder / "cans").mkdir()
    assert "no images in cans" in fails(folder, "config.data.dir")


def test_of_many_classes_that_are_too_small_the_first_are_named(tmp_path):
    for k in range(23):
        write_class(tmp_path / "images" / f"class{k:02}", 1, k)
    said = fails(tmp_path, "config.data.dir")
    assert "'class18' (1), 'class19' (1) and 3 more; each class needs" in said


def test_a_class_without_a_readable_image(folder):
    (folder / "paper").mkdir()
    for i in range(4):
        (folder / "paper" / f"{i}.png").touch()
    assert "no readable image in paper" in fails(folder, "config.data.dir", on_bad_image="skip")


@pytest.mark.parametrize(
    "changes, key, words",
    [
        ({"source": "folders"}, "config.data.source", "'folder', 'tfds:NAME' or 'shards:DIR'"),
        ({"split__manifest": "nowhere.csv"}, "config.data.split.manifest", "cannot read nowhere.csv"),
    ],
)
def test_impossible_values(folder, changes, key, words, monkeypatch):
    monkeypatch.setattr(prepare_module, "scan", None)  # must fail before anything slow
    assert words in fails(folder, key, **changes)


def test_progress_is_said_and_hashes_are_kept(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "_SECONDS_BETWEEN_PROGRESS", 0.0)
    lines: list[str] = []
    first = prepare(config_for(folder), 17, tmp_path / "cache", lines.append)
    assert lines[-1] == "checking images: 20 of 20"
    lines.clear()
    second = prepare(config_for(folder), 17, tmp_path / "cache", lines.append)
    assert lines == []
    np.testing.assert_array_equal(first.splits, second.splits)


@pytest.mark.real_data
def test_trashnet(real_data_dir):
    dataset = ready(real_data_dir / "trashnet")
    assert dataset.source.classes == ("cardboard", "glass", "metal", "paper", "plastic", "trash")
    assert len(dataset.source) == 2024
    share = [len(dataset.indices(split)) / 2024 for split in SPLITS]
    np.testing.assert_allclose(share, [0.6, 0.2, 0.2], atol=0.003)
    for label in range(6):
        mine = dataset.splits[dataset.source.labels == label]
        np.testing.assert_allclose([np.mean(mine == s) for s in SPLITS], [0.6, 0.2, 0.2], atol=0.02)
    assert all(len(set(dataset.splits[dataset.groups == g])) == 1 for g in np.unique(dataset.groups))
    assert 10 < 2024 - len(np.unique(dataset.groups)) < 60  # near-duplicates exist, and are few


def test_classes_left_out_are_kept_apart(folder, tmp_path):
    write_class(folder / "paper", 10, 200)
    write_class(folder / "shoes", 4, 300)
    (folder / "shoes" / "bad.png").write_bytes(b"no image")
    dataset = ready(folder, leave_out=("shoes",), on_bad_image="skip")
    assert dataset.source.classes == ("glass", "metal", "paper") and len(dataset.source) == 30
    assert dataset.left_out.classes == ("shoes",)
    assert dataset.left_out.names == tuple(f"shoes/{i:02d}.png" for i in range(4))
    assert dataset.skipped == {"shoes/bad.png": "not an image"}
    # A run goes on with the manifest that it wrote, which does not list them.
    save_manifest(tmp_path / "own.csv", dataset.source, dataset.groups, dataset.splits)
    again = ready(
        folder, leave_out=("shoes",), on_bad_image="skip", split__manifest=str(tmp_path / "own.csv")
    )
    assert again.source.names == dataset.source.names and again.left_out.names == dataset.left_out.names
    np.testing.assert_array_equal(again.splits, dataset.splits)
    assert not any("does not list" in note for note in again.notes)
    # A user's manifest lists some of them.
    every = ready(folder, on_bad_image="skip")
    kept = np.flatnonzero(
        [not name.endswith(("shoes/00.png", "paper/09.png")) for name in every.source.names]
    )
    save_manifest(tmp_path / "mine.csv", every.source.select(kept), every.groups[kept], every.splits[kept])
    mine = ready(
        folder, leave_out=("shoes",), on_bad_image="skip", split__manifest=str(tmp_path / "mine.csv")
    )
    assert mine.left_out.names == tuple(f"shoes/{i:02d}.png" for i in (1, 2, 3))
    assert len(mine.source) == 29 and mine.source.classes == ("glass", "metal", "paper")


def test_classes_left_out_must_be_there_and_leave_two(folder):
    assert "did you mean 'metal'?" in fails(folder, "config.data.leave_out", leave_out=("metall",))
    assert "fewer than two classes" in fails(folder, "config.data.leave_out", leave_out=("metal",))
    assert ready(folder, leave_out=()).left_out is None


def test_fractions_are_ratios_too(folder):
    dataset = ready(folder, split__ratios=(0.8, 0.1, 0.1))
    assert [len(dataset.indices(split)) for split in SPLITS] == [16, 2, 2]


@pytest.mark.parametrize("odd, hint", [("Cardboard", "did you mean 'cardboard'?"), ("cardbord", "did you mean"),
                                       ("shoes", "add images of it there, or remove it")])  # fmt: skip
@pytest.mark.parametrize("where", ["val", "test"])
def test_a_class_that_train_lacks_is_named_with_its_split(tmp_path, odd, hint, where):
    for k, split in enumerate(("train", "val", "test")):
        for c, name in enumerate(("cardboard", "glass")):
            write_class(tmp_path / split / name, 2, 1000 * k + 100 * c)
    write_class(tmp_path / where / odd, 2, 5000)
    message = fails(tmp_path, "config.data.dir")
    assert f"class {odd!r} is in {where}, and not in train" in message and hint in message
    assert "near-duplicate" not in message


def test_a_class_that_val_or_test_lack_is_noted(tmp_path):
    for k, (split, names) in enumerate({"train": "abc", "val": "ab", "test": "bc"}.items()):
        for c, name in enumerate(names):
            write_class(tmp_path / split / name, 2, 1000 * k + 100 * c)
    notes = ready(tmp_path).notes
    assert "val has no images of c: they are learned, and not scored there" in notes
    assert "test has no images of a: they are learned, and not scored there" in notes


def test_splits_without_train_are_told_as_that(tmp_path):
    for k, split in enumerate(("val", "test")):
        for c, name in enumerate("ab"):
            write_class(tmp_path / split / name, 4, 1000 * k + 100 * c)
    assert "has val and test, and no train" in fails(tmp_path, "config.data.dir")


def test_a_part_taken_from_train_is_noted(tmp_path):
    for k, (split, count) in enumerate((("train", 8), ("test", 3))):
        for c, name in enumerate(("glass", "metal")):
            write_class(tmp_path / split / name, count, 1000 * k + 100 * c)
    assert (
        "the data have no such split, so some training images are set aside: 4 as val"
        in ready(tmp_path).notes
    )


def test_a_class_too_small_for_the_parts_taken_from_train(tmp_path):
    for k, split in enumerate(("train", "test")):
        for c, name in enumerate(("glass", "metal")):
            write_class(tmp_path / split / name, 4, 1000 * k + 100 * c)
        write_class(tmp_path / split / "paper", 1, 5000 + k)
    message = fails(tmp_path, "config.data.dir")
    assert "'paper' has no image in val: its 1 cannot be dealt to train and val" in message


def test_three_images_of_a_class_are_noted(folder):
    write_class(folder / "paper", 3, 200)
    notes = ready(folder).notes
    assert (
        "classes with one image in val or test, whose scores mean little: paper (1/1/1) as train/val/test"
        in notes
    )


def fixed_camera(root: Path, count: int = 20) -> None:
    """Small objects of two kinds anywhere before one ground."""
    rng = np.random.default_rng(0)
    ground = photo(0).resize((128, 128))
    for k, name in enumerate(("glass", "metal")):
        for i in range(count):
            image, (x, y) = ground.copy(), rng.integers(10, 100, 2).tolist()
            draw = ImageDraw.Draw(image)
            (draw.ellipse if k else draw.rectangle)(
                (x, y, x + 9, y + 9), fill=tuple(rng.integers(0, 256, 3).tolist())
            )
            save(image, root / name / f"{i:02d}.png")


def test_a_fixed_camera_is_named_with_the_ways_out(tmp_path):
    fixed_camera(tmp_path)
    message = fails(tmp_path, "config.data.dir")
    assert "40 of 40 images look like copies of each other but differ: a fixed camera" in message
    assert "config.data.split.hamming=2" in message and "config.data.split.group='none'" in message
    dataset = ready(tmp_path, split__group="none")
    assert [len(dataset.indices(split)) for split in SPLITS] == [24, 8, 8]


def test_a_fixed_camera_among_other_images_is_noted(tmp_path):
    fixed_camera(tmp_path)
    for k, name in enumerate(("glass", "metal")):
        write_class(tmp_path / name / "more", 20, 1000 * (k + 1))
    note = next(note for note in ready(tmp_path).notes if "fixed camera" in note)
    assert note.startswith("40 of 80 images") and note.endswith("They stay on one side of the split")


def test_copies_of_one_image_are_no_fixed_camera(folder):
    for i in range(20):
        save(photo(0), folder / "glass" / f"copy{i}.png")
    assert not any("fixed camera" in note for note in ready(folder).notes)


def test_a_manifest_tells_other_images_of_the_same_names(folder, tmp_path):
    first = ready(folder)
    path = tmp_path / "manifest.csv"
    save_manifest(path, first.source, first.groups, first.splits, first.phash)
    assert ready(folder, split__manifest=str(path)).notes == first.notes
    save(photo(999), folder / "glass" / "03.png")
    note = "1 of 20 images are not those that the manifest means, by their content: glass/03.png"
    assert note in ready(folder, split__manifest=str(path)).notes
    save(photo(998), folder / "glass" / "04.png")
    message = fails(folder, "config.data.split.manifest", split__manifest=str(path))
    assert "2 of 20 images are not those that the manifest means" in message


def test_a_run_that_resumes_on_other_images_says_so(folder, tmp_path):
    from wastejax import config as configs
    from wastejax.training.train import _data, _take

    config = configs.load_recipe("mobilevit_ir")
    config.data.dir = str(folder)
    run = tmp_path / "run"
    _take(run, config, _data(config, run, False, print))
    write_class(tmp_path / "other" / "glass", 12, 500)
    write_class(tmp_path / "other" / "metal", 12, 600)
    for other in (tmp_path / "other", tmp_path / "half"):
        config.data.dir = str(other)
        if other.name == "half":
            write_class(other / "glass", 5, 0)
            write_class(other / "metal", 5, 100)
        with pytest.raises(UserError) as error:
            _data(config, run, True, print)
        text = str(error.value)
        assert text.startswith(f"--workdir={run}: holds a run whose images are not those of {other}: ")
        assert "give another --workdir" in text and "\n" not in text
