"""The images of a run that resumes are those that it began with, and so is what its report says of them."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from corrections_file import to_csv
from small_models import draw_images

from wastejax import config as configs
from wastejax.data.prepare import Dataset, prepare
from wastejax.data.split import save_manifest
from wastejax.errors import UserError
from wastejax.training.train import _data, _take


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    """Five classes of eight images."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    return draw_images(tmp_path / "images", 40)


def recipe(images: Path, **changes):
    config = configs.load_recipe("mobilevit_ir")
    config.data.update({"dir": str(images), "on_bad_image": "skip", "leave_out": ("glass",)})
    config.data.update(changes)
    return config


def begun(config, run: Path) -> Dataset:
    """A run that has taken its folder and goes no further."""
    dataset = _data(config, run, False, lambda line: None)
    _take(run, config, dataset)
    return dataset


def resumed(config, run: Path) -> tuple[Dataset, list[str]]:
    said: list[str] = []
    return _data(config, run, True, said.append), said


def test_a_run_goes_on_with_the_images_that_it_held_out(images, tmp_path):
    """Of a manifest of the user's that lists some of them; images that are added are left out, which is said."""
    config = recipe(images, leave_out=())
    every = prepare(config.data, config.seed, None)
    save_manifest(tmp_path / "all.csv", every.source, every.groups, every.splits)
    with (tmp_path / "all.csv").open(newline="") as text:
        rows = list(csv.reader(text))
    out = [row[0] for row in rows if row[0].startswith("glass/")][:5]
    with (tmp_path / "mine.csv").open("w", newline="") as text:
        csv.writer(text).writerows(row for row in rows if row[0] not in out)
    config = recipe(images)
    config.data.split.manifest = str(tmp_path / "mine.csv")
    first = begun(config, tmp_path / "run")
    assert len(first.left_out) == 3
    assert f"5 images that {tmp_path / 'mine.csv'} does not list are left out" in first.notes
    again, _ = resumed(config, tmp_path / "run")
    assert again.left_out.names == first.left_out.names and again.notes == first.notes
    shutil.copy(images / first.left_out.names[0], images / "glass" / "new.png")
    shutil.copy(images / first.source.names[0], images / "eggshells" / "new.png")
    again, said = resumed(config, tmp_path / "run")
    assert again.left_out.names == first.left_out.names and again.source.names == first.source.names
    assert "note: 2 images that were added since the run began are left out" in said
    (images / first.left_out.names[0]).unlink()
    with pytest.raises(UserError, match=r"whose images are not those of .*: glass/.* not in the data"):
        resumed(config, tmp_path / "run")


def test_a_run_goes_on_with_its_notes_and_the_files_that_it_could_not_read(images, tmp_path):
    (images / "tea_bags" / "bad.png").write_bytes(b"no image")
    shutil.copy(images / "tea_bags" / "03.jpg", images / "tea_bags" / "copy.jpg")
    corrections = tmp_path / "c.csv"
    corrections.write_text(to_csv([("glass/01.jpg", "tea_bags"), ("tea_bags/08.png", "drop")]))
    config = recipe(images, corrections=str(corrections))
    run = tmp_path / "run"
    first = begun(config, run)
    assert first.skipped == {"tea_bags/bad.png": "not an image"}
    assert any("near-duplicates" in note for note in first.notes)
    again, said = resumed(config, run)
    assert again.notes == first.notes and again.skipped == first.skipped
    assert "left out: tea_bags/bad.png: not an image" in said
    assert again.left_out.names == first.left_out.names
    # A fault that came since is told beside them.
    (images / first.left_out.names[0]).write_bytes(b"")
    again, _ = resumed(config, run)
    assert again.skipped == first.skipped | {first.left_out.names[0]: "empty file"}
    assert not any("added since" in note for note in again.notes)


@pytest.mark.parametrize("on_bad_image", ["skip", "raise"])
def test_a_run_does_not_go_on_without_an_image_that_cannot_be_read_any_more(images, tmp_path, on_bad_image):
    first = begun(recipe(images, on_bad_image=on_bad_image), tmp_path / "run")
    lost = first.source.names[first.indices("train")[0]]
    content = (images / lost).read_bytes()
    (images / lost).write_bytes(b"half of it")
    words = rf"^--workdir=.*run: holds .* not those of .*: 1 can no longer be read \({lost}: not an image\); "
    with pytest.raises(UserError, match=words):
        resumed(recipe(images, on_bad_image=on_bad_image), tmp_path / "run")
    (images / lost).write_bytes(content)
    again, _ = resumed(recipe(images, on_bad_image=on_bad_image), tmp_path / "run")
    assert again.source.names == first.source.names


def test_a_run_of_an_earlier_version_resumes_as_it_did(images, tmp_path):
    run = tmp_path / "run"
    first = begun(recipe(images), run)
    (run / "data.json").unlink()
    again, _ = resumed(recipe(images), run)
    assert again.left_out.names == first.left_out.names and again.source.names == first.source.names


@pytest.mark.parametrize(
    "content", ["", "[]", '{"left_out": 1}', '{"left_out": [], "unused": [], "notes": []}']
)
def test_a_damaged_file_of_what_was_held_out_is_one_line(images, tmp_path, content):
    begun(recipe(images), tmp_path / "run")
    (tmp_path / "run" / "data.json").write_text(content)
    with pytest.raises(UserError, match=r"data\.json: damaged; put back what the run wrote there") as error:
        resumed(recipe(images), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_what_a_run_keeps_is_read_by_people_too(images, tmp_path):
    first = begun(recipe(images), tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "data.json").read_text())
    held_out = {"left_out": list(first.left_out.names), "unused": []}
    assert kept == held_out | {"notes": first.notes, "skipped": {}, "weights": {}, "described": ""}


@pytest.fixture
def described(images, tmp_path):
    """Returns a function: changes of a data description of two sources -> a recipe that trains on it."""
    draw_images(tmp_path / "street", 60)
    (tmp_path / "street" / "glass").rename(tmp_path / "street" / "bottles")
    text = (
        'classes = "home"\n[sources.home]\npath = "images"\n[sources.street]\npath = "street"\nweight = 9\n'
        "[sources.street.meanings]\n"
        + "".join(f'"{name}" = ["{name}"]\n' for name in ("eggshells", "paper_cups", "tea_bags", "종이"))
        + 'bottles = ["glass"]\n'
    )

    def recipe_with(old: str = "", new: str = "", several: bool = False):
        (tmp_path / "mix.toml").write_text(text.replace(old, new, 1))
        config = recipe(tmp_path / "mix.toml", leave_out=())
        config.data.split.group = "none"
        config.loss.kind = "multilabel" if several else config.loss.kind
        return config

    return recipe_with


@pytest.mark.parametrize(
    ("old", "new", "several"),
    [
        ("weight = 9", "weight = 3", False),
        ("weight = 9\n", "", True),
        ('["glass"]', '["glass", "tea_bags"]', False),
    ],
)
def test_a_run_does_not_go_on_with_another_description_of_its_images(described, tmp_path, old, new, several):
    first = begun(described(several=several), tmp_path / "run")
    again, _ = resumed(described(several=several), tmp_path / "run")
    assert again.weights == first.weights and again.notes == first.notes
    changed = described(old, new, several)
    with pytest.raises(UserError, match=r"mix\.toml: other weights, classes or meanings of labels") as error:
        resumed(changed, tmp_path / "run")
    assert "\n" not in str(error.value)
    kept = json.loads((tmp_path / "run" / "data.json").read_text())
    del kept["weights"], kept["described"]  # as an earlier version wrote it
    (tmp_path / "run" / "data.json").write_text(json.dumps(kept))
    assert resumed(changed, tmp_path / "run")[0].source.names == first.source.names


def test_a_run_draws_its_sources_as_it_began_and_by_default_as_often_as_they_have_training_images(
    described, images, tmp_path
):
    config = described("weight = 9\n")
    first = begun(config, tmp_path / "run")
    trained = Counter(first.source.members[i] for i in first.indices("train"))
    assert first.weights == trained and trained["street"] < 60
    shutil.copy(images / "glass" / "01.jpg", images / "glass" / "new.jpg")
    again, _ = resumed(config, tmp_path / "run")
    assert again.source.names == first.source.names and again.weights == first.weights
    kept = json.loads((tmp_path / "run" / "data.json").read_text())
    del kept["weights"], kept["described"]
    (tmp_path / "run" / "data.json").write_text(json.dumps(kept))
    assert resumed(config, tmp_path / "run")[0].weights == {"home": 41, "street": 60}  # as earlier versions
