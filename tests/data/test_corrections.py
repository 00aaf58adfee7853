"""Corrections of labels: what they change, what stays, and one line for each that cannot be."""

import csv
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corrections_file import to_csv
from PIL import ImageEnhance
from test_prepare import config_for, fails, folder, photo, ready, save, write_class  # noqa: F401 - a fixture

from wastejax.data.corrections import Corrections, Row, load_corrections
from wastejax.data.formats.boxes import Reading
from wastejax.data.prepare import prepare
from wastejax.data.sources import open_data, open_folder
from wastejax.data.split import recognize, save_manifest
from wastejax.errors import ConfigError, UserError


def write(path: Path, *rows: tuple[str, ...]) -> Path:
    path.write_text(to_csv(rows), encoding="utf-8")
    return path


def labels(dataset) -> dict[str, str]:
    source = dataset.source
    return {name: source.classes[label] for name, label in zip(source.names, source.labels, strict=True)}


def places(dataset) -> dict[str, tuple[str, int]]:
    """Split and group of each image."""
    rows = zip(dataset.source.names, dataset.splits, dataset.groups, strict=True)
    return {name: (str(split), int(group)) for name, split, group in rows}


def test_corrected_images_keep_their_splits_and_groups(folder, tmp_path):  # noqa: F811
    for i in range(4):  # near-duplicates, which the split must not tear apart
        save(ImageEnhance.Brightness(photo(i)).enhance(0.9), folder / "glass" / f"twin{i}.png")
    before = ready(folder)
    file = write(
        tmp_path / "c.csv",
        ("glass/00.png", "metal", "glass", ""),
        ("glass/twin1.png", "drop", "glass", "blurred"),
        ("metal/03.png", "metal", "metal", "checked"),
        ("metal/gone.png", "drop", "metal", ""),
    )
    after = ready(folder, corrections=str(file))
    expected = labels(before) | {"glass/00.png": "metal"}
    del expected["glass/twin1.png"]
    assert labels(after) == expected
    assert places(after) == {n: where for n, where in places(before).items() if n != "glass/twin1.png"}
    assert after.corrected == {"relabeled": 1, "dropped": 1, "confirmed": 1}
    assert after.corrections.content == file.read_bytes()
    assert (
        "corrections of labels: 1 relabeled, 1 dropped, 1 confirmed; they stay in their splits" in after.notes
    )
    assert "1 corrections drop images that are not there any more" in after.notes
    assert before.corrections is None and before.corrected["relabeled"] == 0


@pytest.mark.parametrize("corrected", [False, True], ids=["manifest as before", "manifest with corrections"])
def test_a_manifest_fits_with_the_old_labels_and_the_new(folder, tmp_path, corrected):  # noqa: F811
    """As a user's made before the corrections, and as a run's, which is resumed."""
    file = write(tmp_path / "c.csv", ("glass/00.png", "metal"), ("metal/05.png", "drop"))
    plain, wanted = ready(folder), ready(folder, corrections=str(file))
    made = wanted if corrected else plain
    save_manifest(tmp_path / "m.csv", made.source, made.groups, made.splits, made.phash)
    again = ready(folder, corrections=str(file), split__manifest=str(tmp_path / "m.csv"))
    assert labels(again) == labels(wanted) and places(again) == places(wanted)
    assert not [note for note in again.notes if "does not list" in note]


def test_names_as_windows_writes_them(folder, tmp_path):  # noqa: F811
    """In corrections, and in a manifest that says the corrected labels; a backslash may be part of a name too."""
    save(photo(99), folder / "glass" / "odd\\00.png")
    rows = (("glass/00.png", "metal"), ("metal/05.png", "drop"))
    wanted = ready(folder, corrections=str(write(tmp_path / "c.csv", *rows)))
    windows = [(name.replace("/", "\\"), label) for name, label in rows]
    exact = ("glass/odd\\00.png", "metal", "", "")
    file = str(write(tmp_path / "w.csv", *windows, exact))
    after = ready(folder, corrections=file)
    assert labels(after) == labels(wanted) | {"glass/odd\\00.png": "metal"}
    assert after.corrected == {"relabeled": 2, "dropped": 1, "confirmed": 0}
    save_manifest(tmp_path / "m.csv", after.source, after.groups, after.splits)
    lines = (tmp_path / "m.csv").read_text().replace("/", "\\")
    (tmp_path / "m.csv").write_text(lines.replace("glass\\odd", "glass/odd"))
    again = ready(folder, corrections=file, split__manifest=str(tmp_path / "m.csv"))
    assert labels(again) == labels(after) and places(again) == places(after)
    given = {name: str(split) for name, split in zip(after.source.names, after.splits, strict=True)}
    assert (
        dict(zip(after.source.names, recognize(tmp_path / "m.csv", after.source, after.phash), strict=True))
        == given
    )
    twice = write(tmp_path / "t.csv", windows[0], ("glass/00.png", "drop"))
    with pytest.raises(UserError, match=r"glass/00\.png is 'drop', and 'metal' in an earlier row"):
        ready(folder, corrections=str(twice))


def test_names_as_macos_writes_them(folder, tmp_path):  # noqa: F811
    """In corrections, and in a manifest; the data call files by names that are the same everywhere."""
    parts = unicodedata.normalize("NFD", "유리 é")
    for i in range(6):
        save(photo(200 + i), folder / parts / f"{parts}{i}.png")
    file = str(
        write(tmp_path / "c.csv", (f"{parts}/{parts}0.png", "metal"), (f"{parts}/{parts}1.png", "drop"))
    )
    after = ready(folder, corrections=file)
    assert after.corrected == {"relabeled": 1, "dropped": 1, "confirmed": 0}
    save_manifest(tmp_path / "m.csv", after.source, after.groups, after.splits)
    lines = (tmp_path / "m.csv").read_text(encoding="utf-8")
    (tmp_path / "m.csv").write_text(unicodedata.normalize("NFD", lines), encoding="utf-8")
    again = ready(folder, corrections=file, split__manifest=str(tmp_path / "m.csv"))
    assert labels(again) == labels(after) and places(again) == places(after)
    split_of = recognize(tmp_path / "m.csv", after.source, after.phash)
    assert split_of.tolist() == after.splits.tolist()


def test_dropping_an_unreadable_file_is_enough(folder, tmp_path):  # noqa: F811
    (folder / "glass" / "page.jpg").write_text("<html>404</html>")
    fails(folder, "config.data.on_bad_image")
    file = write(tmp_path / "c.csv", ("glass/page.jpg", "drop"))
    dataset = ready(folder, corrections=str(file))
    assert len(dataset.source) == 20 and dataset.skipped == {}


def test_a_class_left_out_takes_what_is_corrected_to_it(folder, tmp_path):  # noqa: F811
    for i in range(3):
        save(photo(300 + i), folder / "shoes" / f"{i}.png")
        save(photo(400 + i), folder / "paper" / f"{i}.png")
    file = write(tmp_path / "c.csv", ("glass/00.png", "shoes"), ("shoes/0.png", "metal"))
    dataset = ready(folder, corrections=str(file), leave_out=("shoes",))
    assert "glass/00.png" not in dataset.source.names and "shoes/0.png" not in dataset.source.names
    assert dataset.left_out.names == ("shoes/1.png", "shoes/2.png")


def test_a_class_that_loses_all_its_images_is_gone(folder, tmp_path):  # noqa: F811
    for i in range(3):
        save(photo(400 + i), folder / "metall" / f"{i}.png")
    file = write(tmp_path / "c.csv", *((f"metall/{i}.png", "metal") for i in range(3)))
    assert ready(folder, corrections=str(file)).source.classes == ("glass", "metal")


@pytest.mark.parametrize("given", ["undivided", "divided", "manifest", "unreadable"])
def test_a_misspelled_class_of_one_image_is_corrected_away(folder, tmp_path, given):  # noqa: F811
    """Nothing is asked of a class that corrections leave no image: not how many, in which split, or to be read."""
    if given == "divided":
        for path in sorted(folder.glob("*/*.png")):
            split = "test" if path.stem < "03" else "train"
            new = folder / split / path.parent.name / path.name
            new.parent.mkdir(parents=True, exist_ok=True)
            path.rename(new)
        for name in ("glass", "metal"):
            (folder / name).rmdir()
    odd = "test/glas/0.png" if given == "divided" else "glas/0.png"
    save(photo(400), folder / odd)
    plan = {}
    if given == "unreadable":
        (folder / odd).write_text("<html>404</html>")
    if given == "manifest":
        source = open_folder(folder)
        splits = np.array([("test", "val", "train")[min(2, int(Path(n).stem) // 2)] for n in source.names])
        save_manifest(tmp_path / "m.csv", source, np.arange(len(source)), splits)
        plan = {"split__manifest": str(tmp_path / "m.csv")}
    for label in ("drop",) if given == "unreadable" else ("glass", "drop"):
        dataset = ready(folder, corrections=str(write(tmp_path / "c.csv", (odd, label))), **plan)
        assert dataset.source.classes == ("glass", "metal")
        assert (odd in dataset.source.names) == (label == "glass")
        assert not any("glas (" in note for note in dataset.notes)


def test_corrections_that_leave_one_class_are_refused_before_images_are_read(folder, tmp_path, monkeypatch):  # noqa: F811
    rows = ((f"metal/{i:02d}.png", "glass") for i in range(10))
    file = write(tmp_path / "c.csv", *rows)
    monkeypatch.setattr("wastejax.data.prepare.scan", None)
    message = fails(folder, "config.data.corrections", corrections=str(file))
    assert "leave a single class, 'glass'; at least two are needed" in message


def test_an_image_corrected_to_a_class_that_is_left_out_is_asked_for_in_no_split(folder, tmp_path):  # noqa: F811
    for split, first in (("train", 0), ("test", 200)):
        for label, name in enumerate(("glass", "metal", "shoes")):
            for i in range(4):
                save(photo(1000 * label + first + i), tmp_path / "divided" / split / name / f"{i}.png")
    file = write(tmp_path / "c.csv", ("test/glass/0.png", "shoes"))
    dataset = ready(tmp_path / "divided", corrections=str(file), leave_out=("shoes",))
    assert "test/glass/0.png" not in dataset.source.names and len(dataset.left_out) == 8


def test_images_of_a_class_left_out_that_are_corrected_are_noted_and_dropped_ones_not_read(folder, tmp_path):  # noqa: F811
    for i in range(4):
        save(photo(300 + i), folder / "shoes" / f"{i}.png")
        save(photo(400 + i), folder / "boots" / f"{i}.png")
    (folder / "shoes" / "9.png").write_text("<html>404</html>")
    rows = [("shoes/0.png", "metal"), ("shoes/1.png", "boots"), ("shoes/9.png", "drop")]
    file = write(tmp_path / "c.csv", *rows)
    dataset = ready(folder, corrections=str(file), leave_out=("shoes", "boots"))
    assert [n for n in dataset.left_out.names if "shoes" in n] == [f"shoes/{i}.png" for i in (1, 2, 3)]
    away = "1 images of classes that are left out are corrected to others: they are neither trained on"
    assert f"{away} nor tested with" in dataset.notes
    file = write(tmp_path / "c.csv", *((f"shoes/{i}.png", "drop") for i in (0, 1, 2, 3, 9)))
    message = fails(folder, "config.data.leave_out", corrections=str(file), leave_out=("shoes",))
    assert "the corrections leave no image of its classes" in message


BAD = {
    "unknown class": (
        [("glass/00.png", "metl")],
        r"glass/00\.png: there is no class 'metl'; did you mean 'metal'",
    ),
    "unknown file": (
        [("glass/99.png", "metal")],
        r"1 of 1 rows are of images that are not in the data: glass/99",
    ),
    "conflict": (
        [("glass/00.png", "metal"), ("glass/00.png", "drop")],
        r"line 3: glass/00\.png is 'drop', and 'metal' in an earlier row",
    ),
    "no label": ([("glass/00.png", " ")], "line 2: has no label"),
    "no file": ([("", "metal")], "line 2: has no file"),
    "another label": (
        [("glass/00.png", "drop"), ("metal/00.png", "glass", "paper")],
        r"metal/00\.png: was labeled 'paper' when it was corrected, and is labeled 'metal'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_each_bad_row_is_one_line(folder, tmp_path, case):  # noqa: F811
    rows, message = BAD[case]
    file = write(tmp_path / "c.csv", *rows)
    with pytest.raises(UserError, match=message) as error:
        prepare(config_for(folder, corrections=str(file)), 17, None)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"config.data.corrections: {file}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        (b"name,label\na,b\n", "has no column 'file'"),
        (b"\xff\xfe\x00", "cannot read"),
        (b"", "has no column 'file'"),
    ],
)
def test_files_that_are_none(tmp_path, content, message):
    if content is not None:
        (tmp_path / "c.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_corrections(tmp_path / "c.csv")


def test_a_class_named_drop(folder, tmp_path):  # noqa: F811
    save(photo(300), folder / "drop" / "0.png")
    file = write(tmp_path / "c.csv", ("glass/00.png", "metal"))
    with pytest.raises(UserError, match="'drop' is what leaves an image out, and a class here"):
        ready(folder, corrections=str(file))


def test_what_is_written_is_read_again(tmp_path):
    """Names with everything that CSV has to quote, as a spreadsheet saves them, with its mark at the start."""
    rows = [Row('a "b", c/1.png', "종이", "glass", "line\nline"), Row(" x /2.png ", "drop")]
    path = tmp_path / "c.csv"
    path.write_text("\ufeff" + to_csv(rows), encoding="utf-8", newline="")
    assert list(load_corrections(path).rows.values()) == rows
    header = next(csv.reader(path.read_text("utf-8-sig").splitlines()))
    assert header == ["file", "label", "old_label", "note"]


def test_images_with_several_labels(folder):  # noqa: F811
    """A row names all that an image shows; `labels` is the rarest of them, as readers have it."""
    shown = np.array([[True, False, False], [True, True, False], [False, True, True], [True, True, False]])
    unsaid = np.array([[False, False, True]] * 2 + [[False] * 3] * 2)
    source = open_folder(folder).select([0, 1, 2, 3])
    source = replace(
        source,
        classes=("can", "jar", "lid"),
        labels=np.array([0, 0, 2, 0], np.int32),
        shown=shown,
        unsaid=unsaid,
    )
    names = source.names
    rows = [
        Row(names[0], "jar; lid", "can"),
        Row(names[1], "none"),
        Row(names[2], "drop"),
        Row(names[3], "jar;can"),
    ]
    changes = Corrections(Path("c.csv"), "key", b"", {row.file: row for row in rows}).of(source)
    assert changes.counts == {"relabeled": 2, "dropped": 1, "confirmed": 1}
    fixed = changes.applied(source)
    # What a person says is all that there is to say of an image.
    np.testing.assert_array_equal(fixed.truth, [[0, 1, 1], [0, 0, 0], [1, 1, 0]])
    assert fixed.label_names == ["jar;lid", "", "can;jar"] and fixed.classes[fixed.labels[0]] == "lid"
    for row, problem in (
        (Row(names[0], "jar;pot"), "there is no class 'pot'"),
        (Row(names[0], "jar", "lid"), "was labeled 'lid' when it was corrected, and is labeled 'can'"),
    ):
        with pytest.raises(UserError, match=problem):
            Corrections(Path("c.csv"), "key", b"", {row.file: row}).of(source)
    with pytest.raises(UserError, match="'none' is what shows none of the classes, and a class here"):
        Corrections(Path("c.csv"), "key", b"", {}).of(replace(source, classes=("can", "jar", "none")))


def test_labels_that_mean_several_classes_become_one(tmp_path):
    for name, seeds in (("glass", range(6)), ("metal", range(10, 16))):
        for seed in seeds:
            save(photo(seed), tmp_path / "home" / name / f"{seed}.png")
    for seed in range(20, 26):
        save(photo(seed), tmp_path / "street" / "bottle" / f"{seed}.png")
    (tmp_path / "map.csv").write_text("label,classes\nbottle,glass;metal\n")
    (tmp_path / "d.toml").write_text(
        'classes = "home"\nlabels = "map.csv"\n[sources.home]\npath = "home"\n[sources.street]\npath = "street"\n'
    )
    file = write(tmp_path / "c.csv", ("street/bottle/21.png", "metal"), ("street/bottle/22.png", "drop"))
    source = ready(tmp_path / "d.toml", corrections=str(file)).source
    at = source.names.index("street/bottle/21.png")
    np.testing.assert_array_equal(source.allowed[at], [False, True])
    np.testing.assert_array_equal(source.allowed[source.names.index("street/bottle/23.png")], [True, True])
    assert "street/bottle/22.png" not in source.names
    assert (tmp_path / "street" / "bottle" / "22.png").is_file()  # nothing of the user's is changed


@pytest.mark.parametrize(("label", "called"), [("bottle", "glass"), ("can", "glass;metal")])
def test_corrections_of_another_label_are_refused_in_a_description_too(tmp_path, label, called):
    """Of images whose label means one class, and several, of which earlier versions wrote the first."""
    for name, first in (("bottle", 0), ("can", 10)):
        write_class(tmp_path / "street" / name, 4, first)
    (tmp_path / "d.toml").write_text(
        'classes = ["glass", "metal", "paper"]\n[sources.street]\npath = "street"\n'
        'meanings = { bottle = ["glass"], can = ["glass", "metal"] }\n'
    )
    source = open_data(tmp_path / "d.toml")
    name = f"street/{label}/00.png"
    # Of data that are corrected meanwhile, too, and by what the source itself calls it.
    for new, old in (("metal", called), ("metal", "glass"), ("glass", "paper"), ("metal", label)):
        file = write(tmp_path / "c.csv", (name, new, old))
        assert load_corrections(file).of(source).confirmed == {name}
    file = write(tmp_path / "c.csv", (name, "metal", "paper"))
    with pytest.raises(
        UserError, match=f"was labeled 'paper' when it was corrected, and is labeled '{called}'"
    ):
        load_corrections(file).of(source)


def test_a_label_that_is_confirmed_is_relabeled_only_where_a_description_leaves_it_open(tmp_path):
    for name, first in (("bottle", 0), ("can", 10), ("ground", 20)):
        write_class(tmp_path / "street" / name, 4, first)
    (tmp_path / "d.toml").write_text(
        'classes = ["glass", "metal"]\n[sources.street]\npath = "street"\n'
        'meanings = { bottle = ["glass"], can = ["glass", "metal"], ground = [] }\n'
    )
    rows = [(f"street/{name}/0{i}.png", "glass") for name in ("bottle", "can", "ground") for i in range(2)]
    changes = load_corrections(write(tmp_path / "c.csv", *rows)).of(open_data(tmp_path / "d.toml"))
    assert changes.counts == {"relabeled": 4, "dropped": 0, "confirmed": 2}
    assert changes.confirmed == {name for name, _ in rows}


@pytest.mark.parametrize("divided", [True, False])
def test_what_corrections_say_of_labels_that_mean_several_classes_is_scored_by(tmp_path, divided):
    for k, split in enumerate(("train", "val", "test") if divided else ("",)):
        write_class(tmp_path / "home" / split / "can", 0 if split == "test" else 4, 10 * k)
        write_class(tmp_path / "street" / split / "glass", 4 if divided else 12, 100 + 20 * k)
    (tmp_path / "d.toml").write_text(
        'classes = ["bottle", "can"]\n[sources.home]\npath = "home"\n'
        '[sources.street]\npath = "street"\nmeanings = { glass = ["bottle", "can"] }\n'
    )
    with pytest.raises(
        ConfigError, match="means one class is left for test" if divided else r"'bottle' \(0\)"
    ):
        ready(tmp_path / "d.toml")
    names = open_data(tmp_path / "d.toml").names
    rows = [(name, "bottle") for name in names if "street" in name]
    dataset = ready(tmp_path / "d.toml", corrections=str(write(tmp_path / "c.csv", *rows)))
    for split in ("val", "test"):
        bottles = dataset.source.labels[dataset.indices(split)] == 0
        assert bottles.any()


@pytest.fixture
def table(folder) -> Path:  # noqa: F811
    """The images with several labels each, one of them misspelled."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    rows = [f"{name},{('glass', 'metal', 'glass;metal')[i % 3]}" for i, name in enumerate(names)]
    rows[0] = f"{names[0]},glas;metal"
    (folder / "list.csv").write_text("file,labels\n" + "\n".join(rows) + "\n")
    return folder / "list.csv"


@pytest.mark.parametrize("label", ["glass;metal", "drop"])
@pytest.mark.parametrize("given", ["", "manifest"])
def test_a_misspelled_class_is_corrected_away_where_images_have_several(table, tmp_path, label, given):
    file = write(tmp_path / "c.csv", ("glass/00.png", label, "glas;metal"))
    with pytest.raises(ConfigError, match=r"too few images to split: class 'glas' \(1\)"):
        prepare(config_for(table), 17, None, several=True)
    config = config_for(table, corrections=str(file))
    dataset = prepare(config, 17, None, several=True)
    if given:
        save_manifest(tmp_path / "m.csv", dataset.source, dataset.groups, dataset.splits)
        config.split.manifest = str(tmp_path / "m.csv")
        dataset = prepare(config, 17, None, several=True)
    assert dataset.source.classes == ("glass", "metal") and dataset.source.shown.shape[1] == 2
    assert not any("lists no image of" in note for note in dataset.notes)
    source = open_data(table, reading=Reading(several=True))
    assert load_corrections(file).of(source).applied(source).classes == ("glass", "metal")


@pytest.mark.parametrize("several", [False, True])
def test_classes_of_which_a_manifest_lists_no_image_are_named(folder, tmp_path, several):  # noqa: F811
    write_class(folder / "shoes", 4, 300)
    dataset = prepare(config_for(folder), 17, None)
    chosen = np.flatnonzero([not name.startswith("shoes") for name in dataset.source.names])
    manifest = tmp_path / "m.csv"
    save_manifest(manifest, dataset.source.select(chosen), dataset.groups[chosen], dataset.splits[chosen])
    found = prepare(config_for(folder, split__manifest=str(manifest)), 17, None, several=several)
    assert found.source.classes == ("glass", "metal")
    assert f"{manifest} lists no image of shoes, which are not learned" in found.notes
