"""Folders as people have them: every layout is understood, or refused in one line."""

import shutil
import string
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wastejax.data.sources import open_folder, open_images, open_path
from wastejax.deployment.images import find
from wastejax.errors import ConfigError


def fill(root: Path, *names: str) -> Path:
    """Writes files that contain their own names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def refused(root: Path) -> str:
    with pytest.raises(ConfigError) as error:
        open_folder(root)
    assert "\n" not in str(error.value)
    return str(error.value)


SPLIT_NAMES = {
    "train": [
        "train",
        "Train",
        "Training",
        "training_set",
        "train-images",
        "1_TRAIN",
        "seg_train",
        "TrainSet",
    ],
    "val": ["val", "valid", "Validation", "validation_set", "dev", "VAL"],
    "test": ["test", "Testing", "test_set", "TEST", "test images"],
}
JUNK = [
    "Thumbs.db", "desktop.ini", ".DS_Store", "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "#recycle/old/1.png",
    "$RECYCLE.BIN/x.jpg", "__MACOSX/glass/._1.png", ".ipynb_checkpoints/1.png", "lost+found/1.png",
    "System Volume Information/1.png", "@__thumb/1.png",
]  # fmt: skip
class_names = st.text(string.ascii_lowercase, min_size=3, max_size=6).map(lambda text: f"c{text}")


@st.composite
def trees(draw):
    """Returns (file names, {file: class}, {file: split} or None, system files) of one layout."""
    wrapper = draw(st.sampled_from(["", "data/", "archive/images/", "images/images/"]))
    classes = draw(st.lists(class_names, min_size=2, max_size=4, unique=True))
    kind = draw(st.sampled_from(["plain", "split", "split, wrapped", "split in class"]))
    splits = [""]
    if kind != "plain":
        parts = draw(st.sampled_from([("train", "val", "test"), ("train", "test"), ("train", "val")]))
        splits = [(draw(st.sampled_from(SPLIT_NAMES[part])), part) for part in parts]
    labels, given_splits = {}, {}
    for name in classes:
        for split in splits:
            below = draw(st.sampled_from(["", "default/", "deep/er/"]))
            for i in range(draw(st.integers(1, 3))):
                ending = draw(st.sampled_from([".png", ".JPG", ".webp"]))
                if kind == "plain":
                    file = f"{wrapper}{name}/{below}{i}{ending}"
                elif kind == "split in class":
                    file = f"{wrapper}{name}/{split[0]}/{below}{i}{ending}"
                else:
                    inner = f"{split[0]}/" if "wrapped" in kind else ""
                    file = f"{wrapper}{split[0]}/{inner}{name}/{below}{i}{ending}"
                labels[file] = name
                given_splits[file] = split[1] if split else ""
    folders = sorted({str(Path(file).parent) for file in labels} | {wrapper or "."})
    junk = draw(st.lists(st.tuples(st.sampled_from(folders), st.sampled_from(JUNK)), max_size=6))
    system = sorted({f"{folder}/{name}" for folder, name in junk})
    return labels, None if kind == "plain" else given_splits, system


@settings(max_examples=60, deadline=None)
@given(trees())
def test_every_usual_layout_gives_the_same_classes_and_splits(tree):
    labels, splits, system = tree
    with TemporaryDirectory() as folder:
        root = fill(Path(folder), *labels, *system)
        source = open_folder(root)
        files = [source.read(i).decode() for i in range(len(source))]
        assert sorted(files) == sorted(labels)
        assert {f: source.classes[label] for f, label in zip(files, source.labels, strict=True)} == labels
        assert (source.splits and dict(zip(files, source.splits, strict=True))) == splits
        assert source.empty_folders == ()
        # predict sees the files that training sees.
        assert sorted(find([str(root)])) == sorted(str(root / name) for name in labels)
        assert len(open_images(root, "--ood")) == len(labels)


@pytest.mark.parametrize(
    "train, test", [("Training", "Testing"), ("training_set", "test_set"), ("학습", "테스트")]
)
def test_splits_by_other_names_are_said(tmp_path, train, test):
    fill(tmp_path, *(f"{s}/{c}/{i}.png" for s in (train, test) for c in ("glass", "metal") for i in range(2)))
    source = open_folder(tmp_path)
    assert source.classes == ("glass", "metal")
    assert set(zip((n.split("/")[0] for n in source.names), source.splits, strict=True)) == {
        (train, "train"),
        (test, "test"),
    }
    assert source.notes == (f"splits by the folders' names: {train!r} is train, {test!r} is test",)


def test_a_split_with_a_single_class_is_not_a_wrapper(tmp_path):
    fill(tmp_path, "train/glass/in/1.png", "train/metal/1.png", "test/glass/in/2.png")
    source = open_folder(tmp_path)
    assert source.classes == ("glass", "metal")


@pytest.mark.parametrize(
    "first, second", [("archive", "archive (1)"), ("archive/images/images", "archive (1)/images/images"),
                      ("part1", "part2"), ("train", "train (1)"), ("camera_a/x", "camera_b/y")]
)  # fmt: skip
def test_a_copy_beside_the_copy_is_refused(tmp_path, first, second):
    fill(tmp_path, *(f"{top}/{c}/1.png" for top in (first, second) for c in ("glass", "metal", "paper")))
    message = refused(tmp_path)
    assert repr(first.split("/")[0]) in message and repr(second.split("/")[0]) in message
    assert "glass, metal, paper" in message and "train, val and test" in message


def test_a_copy_unpacked_into_itself_is_refused(tmp_path):
    fill(tmp_path, *(f"{top}{c}/1.png" for top in ("", "archive/") for c in ("glass", "metal", "paper")))
    assert "'archive' holds folders of the same names as those beside it" in refused(tmp_path)


def test_splits_copied_beside_themselves_are_refused(tmp_path):
    fill(
        tmp_path,
        *(
            f"{t}/{s}/{c}/1.png"
            for t in ("a", "a (1)")
            for s in ("train", "test")
            for c in ("glass", "metal")
        ),
    )
    assert "'a' and 'a (1)' hold folders of the same names (glass, metal)" in refused(tmp_path)
    (tmp_path / "a" / "test").rename(tmp_path / "a" / "val")
    assert "'a' and 'a (1)' hold folders of the same names (glass, metal)" in refused(tmp_path)


def test_folders_in_the_splits_of_a_class_are_fine_and_name_its_domains(tmp_path):
    fill(tmp_path, *(f"{c}/{s}/1.png" for c in ("glass", "metal") for s in ("train", "test")))
    fill(tmp_path, "glass/train/kitchen/2.png", "metal/test/real_world/2.png", "metal/train/default/2.png")
    fill(tmp_path, "glass/train/default/2.png", "metal/train/kitchen/2.png")
    source = open_folder(tmp_path)
    assert source.classes == ("glass", "metal") and "real_world" in source.domains
    assert source.notes == ("folders in the splits of classes, taken as no classes: kitchen",)
    for name, split, domain in zip(source.names, source.splits, source.domains, strict=True):
        assert split == name.split("/")[1]
        assert domain == next((d for d in ("default", "real_world") if f"/{d}/" in name), "")
    fill(tmp_path, "glass/3.png")
    assert "'glass/test' is a split and 'glass/3.png' lies in none" in refused(tmp_path)


@pytest.mark.parametrize("inner", [("default", "real_world"), ("images",)])
def test_classes_with_folders_of_their_own_stay_classes(tmp_path, inner):
    fill(tmp_path, *(f"{c}/{d}/1.png" for c in ("glass", "metal") for d in inner))
    assert open_folder(tmp_path).classes == ("glass", "metal")


def test_classes_that_share_few_folders_stay_classes(tmp_path):
    fill(
        tmp_path,
        "plastic/bag/1.png",
        "plastic/bottle/1.png",
        "plastic/other/1.png",
        "metal/can/1.png",
        "metal/other/1.png",
    )
    assert open_folder(tmp_path).classes == ("metal", "plastic")


@pytest.mark.parametrize("split", ["val", "Training"])
def test_a_split_without_others_is_told_as_undivided(tmp_path, split):
    source = open_folder(fill(tmp_path, f"images/{split}/a/1.png", f"images/{split}/b/2.png"))
    assert source.classes == ("a", "b") and source.splits is None
    assert source.notes == (f"no other split beside {split!r}: its images are taken as undivided",)


def test_links_that_lead_to_themselves_are_unreadable_images_and_no_more(tmp_path):
    root = fill(tmp_path, "a/1.png", "b/2.png")
    (root / "round").symlink_to("round")
    (root / "a" / "x.png").symlink_to("y.png")
    (root / "a" / "y.png").symlink_to("x.png")
    assert open_folder(root).names == ("a/1.png", "a/x.png", "a/y.png", "b/2.png")
    assert [Path(name).name for name in find([str(root)])] == ["1.png", "x.png", "y.png", "2.png"]
    assert find([str(root / "a" / "x.png"), "n" * 300]) == [str(root / "a" / "x.png"), "n" * 300]


def test_class_folders_that_are_links_and_loops(tmp_path):
    store = fill(tmp_path / "store", "a/1.png", "a/2.png", "b/3.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "glass").symlink_to(store / "a")
    (root / "metal").symlink_to(store / "b")
    (store / "b" / "back").symlink_to(root)
    (store / "a" / "self").symlink_to(store / "a")
    source = open_folder(root)
    assert source.names == ("glass/1.png", "glass/2.png", "metal/3.png")
    assert find([str(root)]) == [f"{root}/{name}" for name in source.names]


def test_folders_named_like_images_are_folders(tmp_path):
    fill(tmp_path, "glass/027.jpg/a.png", "glass/@eaDir/027.jpg/thumb.jpg", "metal/1.png")
    assert open_folder(tmp_path).names == ("glass/027.jpg/a.png", "metal/1.png")
    assert find([str(tmp_path)]) == [f"{tmp_path}/glass/027.jpg/a.png", f"{tmp_path}/metal/1.png"]


def test_a_pipe_named_like_an_image_is_not_waited_for(tmp_path):
    import os

    fill(tmp_path, "glass/1.png", "metal/1.png")
    os.mkfifo(tmp_path / "glass" / "pipe.png")
    (tmp_path / "glass" / "link.png").symlink_to(tmp_path / "glass" / "pipe.png")
    source = open_folder(tmp_path)
    assert source.names == ("glass/1.png", "metal/1.png")
    assert "2 .png" in source.notes[0]


def test_what_is_left_out_is_counted_by_ending(tmp_path):
    fill(
        tmp_path,
        "glass/1.png",
        "metal/1.png",
        *(f"glass/{i}.psd" for i in range(3)),
        "metal/a.TXT",
        "metal/x",
    )
    note = "files left out by their ending: 3 .psd (convert them to JPEG or PNG), 1 without an ending, 1 .txt"
    assert open_folder(tmp_path).notes == (note,)
    assert open_images(tmp_path, "--ood").notes == (note,)
    said = []
    assert len(find([str(tmp_path)], said.append)) == 2
    assert said == [f"{tmp_path}: {note}"]


def test_a_class_of_unreadable_endings_is_named_with_them(tmp_path):
    fill(tmp_path, "glass/1.png", "metal/1.png", "cans/1.psd", "cans/deep/2.psd", "@eaDir/3.png")
    assert open_folder(tmp_path).empty_folders == ("cans (2 .psd (convert them to JPEG or PNG))",)
    shutil.rmtree(tmp_path / "glass")
    shutil.rmtree(tmp_path / "metal")
    message = refused(tmp_path)
    assert "no images" in message and "but 2 .psd (convert them" in message


@pytest.mark.parametrize("other", ["Cardboard", "card board", "cardboard (1)", "cardboard - Copy"])
def test_classes_of_nearly_the_same_name_are_said(tmp_path, other):
    name = "card_board" if " " in other and "board" in other.split()[-1] else "cardboard"
    fill(tmp_path, f"{name}/1.png", f"{other}/1.png", "glass/1.png")
    assert any("nearly the same name" in n and repr(other) in n for n in open_path(tmp_path).notes)


def test_two_folders_with_the_same_names_sizes_and_dates_are_told_apart(tmp_path):
    first = open_folder(fill(tmp_path / "one", "glass/1.png", "metal/1.png"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")  # copies times too
    second = open_folder(tmp_path / "two")
    assert first.names == second.names and first.origin != second.origin
    # Renamed into the other's place, its files still are not the other's.
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "two").rename(tmp_path / "one")
    third = open_folder(tmp_path / "one")
    assert third.origin == first.origin and not set(third.stamps) & set(first.stamps)
