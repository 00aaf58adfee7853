"""`eval` scores the out-of-distribution images that a run's own report does."""

from pathlib import Path

import numpy as np
import pytest
from corrections_file import to_csv
from small_models import draw_images

from wastejax import config as configs
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked, asked_images
from wastejax.evaluation.run import _foreign
from wastejax.training.train import _data, _take


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    """Five classes of eight images."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    return draw_images(tmp_path / "images", 40)


def begun(images: Path, run: Path, *rows: tuple[str, str], **changes) -> tuple[dict, list[str]]:
    """Returns the config of a run that leaves out glass, and the images that it holds out."""
    config = configs.load_recipe("mobilevit_ir")
    config.data.update({"dir": str(images), "leave_out": ("glass",)})
    if rows:
        file = run.with_name("c.csv")
        file.write_text(to_csv(rows))
        config.data.corrections = str(file)
    config.data.split.update(changes)
    dataset = _data(config, run, False, lambda line: None)
    _take(run, config, dataset)
    return config.to_dict(), list(dataset.left_out.names)


def scored(asked: Asked, config: dict) -> list[str]:
    return list(_foreign(asked, None, config, lambda line: None)[0].names)


@pytest.mark.parametrize("version", ["", "earlier"])
def test_without_those_that_the_run_corrected_or_dropped(images, tmp_path, version):
    (images / "glass" / "bad.png").write_bytes(b"no image")
    run = tmp_path / "run"
    rows = [("glass/01.jpg", "tea_bags"), ("glass/06.png", "drop"), ("glass/bad.png", "drop")]
    config, held_out = begun(images, run, *rows)
    if version:
        (run / "data.json").unlink()
    assert len(held_out) == 6 and scored(Asked(run), config) == held_out
    later = tmp_path / "later.csv"
    later.write_text(to_csv([*rows, (held_out[0], "drop")]))
    assert scored(Asked(run, corrections=later), config) == held_out[1:]
    assert scored(Asked(run, images, corrections=later), config) == held_out[1:]


def test_of_a_manifest_of_the_users_only_those_that_it_lists(images, tmp_path):
    from wastejax.data.sources import open_folder
    from wastejax.data.split import save_manifest

    source = open_folder(images)
    source = source.select(
        [i for i, n in enumerate(source.names) if n not in ("glass/01.jpg", "glass/06.png")]
    )
    splits = np.array(["train", "val", "test"])[np.arange(len(source)) % 3]
    save_manifest(tmp_path / "mine.csv", source, np.arange(len(source)), splits)
    config, held_out = begun(images, tmp_path / "run", manifest=str(tmp_path / "mine.csv"))
    assert len(held_out) == 6 and scored(Asked(tmp_path / "run"), config) == held_out
    (images / held_out[0]).unlink()
    with pytest.raises(UserError, match=r"not in the data; were the run's images moved\? Give their folder"):
        scored(Asked(tmp_path / "run"), config)


def test_later_corrections_to_and_of_a_class_that_is_left_out_change_no_other_answer(images, tmp_path):
    config, _ = begun(images, tmp_path / "run")
    for data in (None, images):
        asked = Asked(tmp_path / "run", data)
        source, indices = asked_images(asked, config)
        names = [source.names[i] for i in indices]
        later = tmp_path / "later.csv"
        later.write_text(to_csv([("glass/01.jpg", "tea_bags"), (names[0], "glass")]))
        source, indices = asked_images(Asked(tmp_path / "run", data, corrections=later), config)
        assert [source.names[i] for i in indices] == names[1:] and "glass" not in source.classes
