"""A data description that cannot be followed: one line, at once."""

import pytest
from PIL import Image

from wastejax.data.description import open_description
from wastejax.data.formats.any import open_path
from wastejax.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    """Two sources: `many` with 20 images of two classes, `few` with one of each."""
    for source, count in (("many", 10), ("few", 1)):
        for label in ("can", "jar"):
            (tmp_path / source / label).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (20, 20), (i, 9, 9)).save(tmp_path / source / label / f"{i}.png")
    return tmp_path


def described(folder, classes='"many"', many="", few=""):
    path = folder / "data.toml"
    path.write_text(
        f'classes = {classes}\n[sources.many]\npath = "many"\n{many}\n[sources.few]\npath = "few"\n{few}\n'
    )
    return open_description(path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"few": "weight = 1e-12"},
            r"sources\.few: has 1e-12 of a total weight of 20, a share below 0\.0001",
        ),
        ({"many": "weight = 1e9", "few": "weight = 1"}, r"sources\.few: .* give every source one, or none"),
        (
            {"few": 'meanings = "x"'},
            r"sources\.few\.meanings: must hold a list of class names for each label",
        ),
        ({"few": "meanings = { can = [1] }"}, r"sources\.few\.meanings: must hold"),
        ({"few": 'meanings = { can = "jar" }'}, r"sources\.few\.meanings: must hold"),
        ({"classes": '[["a"], ["b"]]'}, r"classes: must be the name of a source, or a list of class names"),
    ],
)
def test_what_cannot_be_meant_is_one_line(folder, changed, words):
    with pytest.raises(ConfigError, match=words) as error:
        described(folder, **changed)
    assert "\n" not in str(error.value)


def test_a_source_of_very_few_images_is_drawn_at_the_least_share_and_that_is_said(folder, monkeypatch):
    assert described(folder).weights == {"many": 20, "few": 2}
    monkeypatch.setattr("wastejax.data.description.LEAST_SHARE", 0.2)
    mixture = described(folder)
    assert mixture.weights == {"many": 20, "few": pytest.approx(0.2 * 22)}
    assert any(note.startswith("few: has so few images") for note in mixture.source.notes)


def test_the_home_of_nobody_is_a_folder_that_is_not_there():
    with pytest.raises(ConfigError, match="~nouser/x"):
        open_path("~nouser/x", "--data")
