"""A data description that cannot be followed: one line, at once."""

import numpy as np
import pytest
from PIL import Image

from configs.common import get_config
from wastejax.data.description import open_description, source_paths
from wastejax.data.formats.any import open_path
from wastejax.data.prepare import prepare
from wastejax.data.split import SPLITS
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
    weights, notes = mixture.weights_of(mixture.source.members)
    assert weights == mixture.weights == {"many": 20, "few": pytest.approx(0.2 * 22)}
    assert [note[:22] for note in notes] == ["few: has so few images"]
    assert mixture.weights_of(["many", "few"]) == ({"many": 1, "few": 1}, ())  # of two that are trained on


def test_a_description_may_begin_with_a_byte_order_mark(folder):
    plain = described(folder).source
    path = folder / "data.toml"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert open_description(path).source.names == plain.names


@pytest.fixture
def ground(tmp_path):
    """Returns a function: classes -> config of ten images each of a can, a jar, and of no class."""
    for c, label in enumerate(("can", "jar", "street")):
        (tmp_path / "one" / label).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (20, 20), (20 * i, 90 * c, 9)).save(tmp_path / "one" / label / f"{i}.png")

    def described(classes):
        config = get_config().data
        config.dir, config.split.group = str(tmp_path / "ground.toml"), "none"
        meanings = '{ can = ["can"], jar = ["jar"], street = [] }'
        text = f'classes = {classes}\n[sources.one]\npath = "one"\nmeanings = {meanings}\n'
        (tmp_path / "ground.toml").write_text(text)
        return config

    return described


def test_images_of_no_class_are_not_counted_as_images_of_the_first(ground):
    with pytest.raises(
        ConfigError, match=r"too few images whose label means one class to split: class 'apple' \(0\)"
    ):
        prepare(ground('["apple", "can", "jar"]'), 17, None)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_images_of_no_class_are_dealt_as_a_class_of_their_own(ground, seed):
    dataset = prepare(ground('["can", "jar"]'), seed, None)
    for label in ("can", "jar", "street"):
        mine = np.array([name.startswith(f"one/{label}/") for name in dataset.source.names])
        assert [int(np.sum(dataset.splits[mine] == split)) for split in SPLITS] == [6, 2, 2]


def mapped(folder, few):
    """Returns the images of both sources by the label map map.csv."""
    path = folder / "data.toml"
    path.write_text(
        'classes = "many"\nlabels = "map.csv"\n[sources.many]\npath = "many"\n[sources.few]\npath = "few"\n'
        + few
    )
    return open_description(path).source


@pytest.mark.parametrize("labels", ["", 'labels = "few"', 'labels = "others"'])
def test_what_the_label_map_says_of_a_source_counts_also_where_its_labels_are_classes(folder, labels):
    name = "others" if "others" in labels else "few"
    (folder / "map.csv").write_text(f"source,label,classes\n{name},can,jar\nmany,can,can\nmany,jar,jar\n")
    source = mapped(folder, labels)
    allowed = [[source.classes[c] for c in np.flatnonzero(row)] for row in source.allowed]
    meant = dict(zip(source.names, allowed, strict=True))
    assert meant["few/can/0.png"] == ["jar"] and meant["many/can/0.png"] == ["can"]
    assert meant["few/jar/0.png"] == ["jar"]  # of which the map says nothing, and which is a class


def test_files_of_a_description_may_be_in_the_home_folder(folder, tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    (home / "map.csv").write_text("source,label,classes\nfew,can,jar\n")
    (home / "groups.csv").write_text("file,group\ncan/0.png,one\n")
    path = folder / "data.toml"
    path.write_text(
        'classes = "many"\nlabels = "~/map.csv"\n[sources.many]\npath = "many"\n'
        '[sources.few]\npath = "few"\ngroups = "~/groups.csv"\n'
    )
    source = open_description(path).source
    assert source.groups[-2:] == ("few/one", "") and source.label_names[-2:] == ["jar", "jar"]


def test_a_name_in_a_label_map_that_is_not_there_is_refused(folder):
    (folder / "map.csv").write_text("source,label,classes\nfew,can,jar\nmany,can,can\n")
    with pytest.raises(ConfigError, match="has no rows of a source 'fwe'; did you mean 'few'"):
        mapped(folder, 'labels = "fwe"')
    with pytest.raises(
        ConfigError, match=r"sources\.few\.labels: .* no label map; name its file in `labels`"
    ):
        described(folder, few='labels = "few"')


@pytest.mark.parametrize("labels", ["", 'labels = "others"'])
def test_the_only_rows_of_a_label_map_are_not_taken_for_two_sources(folder, labels):
    name = "others" if labels else "few"
    (folder / "map.csv").write_text(f"source,label,classes\n{name},can,bottle\n{name},jar,lid\n")
    text = 'classes = ["bottle", "lid"]\nlabels = "map.csv"\n[sources.many]\npath = "many"\n'
    path = folder / "data.toml"
    path.write_text(f'{text}[sources.few]\npath = "few"\n{labels}\n')
    with pytest.raises(ConfigError, match=r"map\.csv: has no rows of a source 'many'.*; give it rows"):
        open_description(path)
    path.write_text(f'{text}labels = "{name}"\n[sources.few]\npath = "few"\n{labels}\n')
    assert open_description(path).source.label_names == ["bottle"] * 10 + ["lid"] * 10 + ["bottle", "lid"]


@pytest.mark.parametrize("labels", ["", 'labels = "fwe"'])
def test_the_rows_of_another_source_are_not_taken_for_a_name_that_is_asked_for(folder, labels):
    (folder / "map.csv").write_text("source,label,classes\nothers,can,jar\n")
    if labels:
        with pytest.raises(ConfigError, match="has no rows of a source 'fwe'; choices: others"):
            mapped(folder, labels)
    else:
        assert mapped(folder, labels).allowed.sum() == 22
    (folder / "map.csv").write_text("label,classes\ncan,jar\njar,jar\n")  # of no source in particular
    assert mapped(folder, 'labels = "few"').labels[-2:].tolist() == [1, 1]


def test_what_meanings_say_beside_a_label_map_or_of_no_label_is_told(folder):
    meanings = '[sources.few.meanings]\ncan = ["can"]\njar = ["jar"]\njra = ["can"]'
    notes = described(folder, few=meanings).source.notes
    assert "few: no image has the label 'jra', of which `meanings` speak" in notes
    with pytest.raises(ConfigError, match=r"sources\.few: `labels` and `meanings` both say") as error:
        described(folder, few=f'labels = "few"\n{meanings}')
    assert "\n" not in str(error.value)


def test_a_source_behind_a_url_is_read_from_there(folder):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    path = folder / "far.toml"
    text = 'classes = "many"\n[sources.many]\npath = "many"\n[sources.few]\npath = "memory://far/few"\n'
    path.write_text(text)
    try:
        for file in sorted((folder / "few").rglob("*.png")):
            memory.pipe(f"/far/{file.relative_to(folder)}", file.read_bytes())
        source, near = open_description(path).source, described(folder).source
        assert source.names == near.names and source.read(21) == near.read(21)
        assert source_paths(path) == [folder / "many"]
        with pytest.raises(ConfigError, match=r"sources\.few\.path: memory://far/no: "):
            path.write_text(text.replace("far/few", "far/no"))
            open_description(path)
    finally:
        memory.store.clear()


def test_the_home_of_nobody_is_a_folder_that_is_not_there():
    with pytest.raises(ConfigError, match="~nouser/x"):
        open_path("~nouser/x", "--data")
