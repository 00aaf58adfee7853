import os
import pickle
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from wastejax.data.sources import open_folder, open_source
from wastejax.errors import ConfigError


def fill(root: Path, *names: str) -> Path:
    """Writes files that contain their own names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def test_class_folder(tmp_path):
    source = open_folder(fill(tmp_path, "metal/b.png", "metal/a.jpg", "glass/deep/er/c.webp", "glass/d.bmp"))
    assert source.classes == ("glass", "metal")
    assert source.names == ("glass/d.bmp", "glass/deep/er/c.webp", "metal/a.jpg", "metal/b.png")
    np.testing.assert_array_equal(source.labels, [0, 0, 1, 1])
    assert source.labels.dtype == np.int32
    assert source.domains == ("",) * 4
    assert source.splits is None
    assert source.notes == () and source.empty_folders == ()
    assert [source.read(i) for i in range(4)] == [name.encode() for name in source.names]


@pytest.mark.parametrize("wrapper", ["", "images/", "images/images/", "archive/images/images/"])
def test_kaggle_layout(tmp_path, wrapper):
    names = [
        f"{c}/{d}/Image_{i}.png"
        for c in ("shoes", "tea_bags")
        for d in ("default", "real_world")
        for i in (1, 2)
    ]
    source = open_folder(fill(tmp_path, *(wrapper + name for name in names)))
    assert source.names == tuple(names)  # the same, however deep the archive was unpacked
    assert source.classes == ("shoes", "tea_bags")
    assert source.domains == ("default", "default", "real_world", "real_world") * 2
    assert source.read(3) == (wrapper + names[3]).encode()


def test_what_is_ignored(tmp_path):
    kept = ("metal/a.PNG", "metal/b.JpEg", "glass/c d.JPG")
    clutter = (
        "Thumbs.db",
        "metal/Thumbs.db",
        "metal/.hidden.png",
        ".cache/x.png",
        "metal/notes.txt",
        "README.md",
    )
    mac = ("__MACOSX/metal/._a.png", "glass/__MACOSX/c.png", "glass/.DS_Store")
    source = open_folder(fill(tmp_path, *kept, *clutter, *mac))
    assert sorted(source.names) == sorted(kept)
    assert source.empty_folders == ()


def test_loose_images_and_empty_folders_are_told(tmp_path):
    fill(tmp_path, "images/metal/a.png", "images/glass/b.png", "images/cover.png")
    (tmp_path / "images" / "paper").mkdir()
    source = open_folder(tmp_path)
    assert source.names == ("glass/b.png", "metal/a.png")
    assert source.notes == ("images beside the class folders, left out: 1",)
    assert source.empty_folders == ("paper",)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_folders_that_are_split(tmp_path, val):
    source = open_folder(
        fill(tmp_path, "data/train/a/1.png", f"data/{val}/b/2.png", "data/test/a/default/3.png")
    )
    assert source.splits == tuple({"tr": "train", "te": "test"}.get(n[:2], "val") for n in source.names)
    assert sorted(zip(source.names, source.labels.tolist(), strict=True)) == sorted(
        [("train/a/1.png", 0), (f"{val}/b/2.png", 1), ("test/a/default/3.png", 0)]
    )
    assert source.domains[source.names.index("test/a/default/3.png")] == "default"


def test_train_alone_is_a_wrapper(tmp_path):
    source = open_folder(fill(tmp_path, "train/a/1.png", "train/b/2.png"))
    assert source.splits is None and source.classes == ("a", "b")


def test_a_single_class_is_a_class_and_not_a_wrapper(tmp_path):
    assert open_folder(fill(tmp_path / "flat", "shoes/1.png", "shoes/2.png")).classes == ("shoes",)
    deep = fill(tmp_path / "deep", "images/shoes/default/1.png", "images/shoes/real_world/2.png")
    assert open_folder(deep).classes == ("shoes",)


def test_korean_names_in_either_normal_form_are_one_class(tmp_path):
    composed = unicodedata.normalize("NFC", "유리병")
    decomposed = unicodedata.normalize("NFD", "유리병")
    assert composed != decomposed
    fill(tmp_path, f"{composed}/사진 1.png", f"{decomposed}/사진 2.png", "캔/a.png")
    source = open_folder(tmp_path)
    assert source.classes == tuple(sorted((composed, "캔")))
    assert source.names[:2] == (f"{composed}/사진 1.png", f"{composed}/사진 2.png")
    assert source.read(1).decode() == f"{decomposed}/사진 2.png"


def test_names_that_are_not_unicode_can_be_printed_and_read(tmp_path):
    folder = os.fsencode(fill(tmp_path, "a/1.png", "b/2.png"))
    Path(os.fsdecode(folder + b"/a/" + "병.png".encode("cp949"))).write_bytes(b"old archive")
    source = open_folder(tmp_path)
    odd = next(i for i, name in enumerate(source.names) if "1.png" not in name and name.startswith("a/"))
    assert source.names[odd] == r"a/\xba\xb4.png"
    assert source.read(odd) == b"old archive"


def test_links(tmp_path):
    root = fill(tmp_path / "root", "a/1.png", "b/2.png")
    elsewhere = fill(tmp_path / "elsewhere", "3.png", "more/4.png")
    (root / "a" / "linked.png").symlink_to(elsewhere / "3.png")
    (root / "b" / "folder").symlink_to(elsewhere / "more")
    (root / "b" / "loop").symlink_to(root)
    (root / "b" / "broken.png").symlink_to(tmp_path / "gone.png")
    source = open_folder(root)
    assert source.names == ("a/1.png", "a/linked.png", "b/2.png", "b/broken.png", "b/folder/4.png")
    assert source.read(1) == b"3.png"
    with pytest.raises(OSError):
        source.read(3)


@pytest.mark.parametrize(
    "names, words",
    [
        ((), "no images (JPEG, PNG, WebP, AVIF,"),
        (("a/notes.txt",), "but 1 .txt"),
        (("1.png", "2.png"), "one subfolder per class"),
        (("train/a/1.png", "test/a/2.png", "extra/a/3.png"), "extra"),
        (("train/a/1.png", "test/2.png"), "test/<class>/2.png"),
    ],
)
def test_layouts_that_are_not_understood(tmp_path, names, words):
    with pytest.raises(ConfigError) as error:
        open_folder(fill(tmp_path, *names))
    assert words in str(error.value)
    assert str(error.value).startswith("config.data.dir: ")
    assert "\n" not in str(error.value)


def test_missing_folder_and_unknown_source(tmp_path):
    with pytest.raises(ConfigError, match=r"--data: .*nowhere' does not exist"):
        open_folder(tmp_path / "nowhere", key="--data")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is not a folder"):
        open_folder(tmp_path / "file")
    for source in ("tdfs:mnist", "tfds:", "folders"):
        with pytest.raises(
            ConfigError, match=r"config\.data\.source: must be 'folder', 'tfds:NAME' or 'shards:DIR'"
        ):
            open_source(source, str(tmp_path))


def test_stamps_change_with_the_file(tmp_path):
    fill(tmp_path, "a/1.png", "b/2.png")
    before = open_folder(tmp_path).stamps
    assert open_folder(tmp_path).stamps == before
    (tmp_path / "a" / "1.png").write_bytes(b"something longer than before")
    after = open_folder(tmp_path).stamps
    assert after[0] != before[0] and after[1] == before[1]


def test_select(tmp_path):
    source = open_folder(fill(tmp_path, "a/1.png", "b/2.png", "c/default/3.png", "c/4.png"))
    part = source.select([3, 0, 2])
    assert part.names == ("c/default/3.png", "a/1.png", "c/4.png")
    assert part.classes == ("a", "c")  # b has nothing left
    np.testing.assert_array_equal(part.labels, [1, 0, 1])
    assert part.domains == ("default", "", "")
    assert part.select([1]).read(0) == b"a/1.png"


def test_reading_from_another_process(tmp_path):
    read = open_folder(fill(tmp_path, "a/1.png", "b/2.png")).select([1]).read
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)(0).decode())"
    run = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(read), capture_output=True, check=True, cwd="/",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert run.stdout == b"b/2.png\n"


def test_data_needs_no_jax():
    code = "import sys; import wastejax.data.prepare; assert not {'jax', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
