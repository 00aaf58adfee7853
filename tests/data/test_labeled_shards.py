"""Labeled images in tar shards and behind URLs are those of their folder."""

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wastejax.auditing.run import audit_folder
from wastejax.data.collections.parts import images, parts_of
from wastejax.data.collections.places import part_below
from wastejax.data.sources import open_path
from wastejax.errors import ConfigError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    rng = np.random.default_rng(2)
    for label in ("can", "jar", "종이"):
        for i in range(4):
            path = tmp_path / "data" / label / ("default" if i % 2 else "real_world") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path


def content(source) -> list[tuple]:
    """Class, domain and bytes of each image, in an order of their own."""
    labels = source.label_names
    return sorted((labels[i], source.domains[i], source.read(i)) for i in range(len(source)))


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(data)
    archive.addfile(about, io.BytesIO(data))


def test_class_folders_in_a_tar_are_those_of_the_folder(folder):
    with tarfile.open("all.tar", "w") as archive:
        archive.add("data", "./data")
    source = open_path("all.tar", "--data")
    assert content(source) == content(open_path("data", "--data"))
    assert source.names[0] == "can/default/1.png" or source.names[0].startswith("can/")


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_webdataset_says_the_class_beside_each_image(folder, kind):
    Path("shards").mkdir()
    plain = open_path("data", "--data")
    labels = plain.label_names
    for shard in range(2):
        with tarfile.open(f"shards/train-{shard:04}.tar", "w") as archive:
            for i in range(shard, len(plain), 2):
                label = labels[i] if kind == "cls" else json.dumps({"label": labels[i], "width": 20})
                add(archive, f"{i:05}.png", plain.read(i))
                add(archive, f"{i:05}.{kind}", label.encode())
            add(archive, f"none{shard}.png", plain.read(0))
    source = open_path("shards", "--data")
    assert [(label, data) for label, _, data in content(source)] == [
        (label, data) for label, _, data in sorted((a, "", c) for a, _, c in content(plain))
    ]
    assert source.notes == (
        "images without a label in a .cls or .json beside them, left out: 2",
        "no other split beside 'train': its images are taken as undivided",
    )
    assert source.names[:2] == ("train-0000/00000.png", "train-0000/00002.png")


def test_what_a_tar_holds_beside_images_is_named(folder):
    plain = open_path("data", "--data")
    with tarfile.open("folders.tar", "w") as archive:
        archive.add("data")
        add(archive, "data/can/layers.psd", b"")
    with tarfile.open("said.tar", "w") as archive:
        for kind in ("png", "psd"):
            add(archive, f"{kind}.{kind}", plain.read(0))
            add(archive, f"{kind}.cls", b"can")
    with tarfile.open("none.tar", "w") as archive:
        add(archive, "psd.psd", b"")
        add(archive, "psd.cls", b"can")
    note = "files left out by their ending: 1 .psd (convert them to JPEG or PNG)"
    for name in ("folders.tar", "said.tar"):
        assert note in open_path(name, "--data").notes
    with pytest.raises(ConfigError, match=r"no images .*, but 1 \.psd"):
        open_path("none.tar", "--data")


def test_class_folders_behind_a_url_are_those_of_the_folder(folder):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    try:
        for path in sorted(Path("data").rglob("*.png")):
            memory.pipe(f"/bucket/{path}", path.read_bytes())
        memory.pipe("/bucket/data/can/about.txt", b"")
        source, plain = open_path("memory://bucket/data", "--data"), open_path("data", "--data")
        assert source.names == plain.names and content(source) == content(plain)
        assert source.notes == ("files left out by their ending: 1 .txt",)
        with tarfile.open("all.tar", "w") as archive:
            archive.add("data")
        memory.pipe("/tars/all.tar", Path("all.tar").read_bytes())
        assert content(open_path("memory://tars", "--data")) == content(plain)
        found = audit_folder("memory://bucket/data", "out")
        assert found["num_readable"] == 12 and found["data"] == "data"
        with pytest.raises(ConfigError, match="nowhere"):
            open_path("memory://nowhere", "--data")
    finally:
        memory.store.clear()


def test_what_is_wrong_with_a_tar_is_one_line(folder):
    with tarfile.open("z.tar.gz", "w:gz") as archive:
        archive.add("data")
    Path("tars").mkdir()
    Path("z.tar.gz").rename("tars/z.tar.gz")
    with pytest.raises(ConfigError, match="gunzip it"):
        open_path("tars", "--data")
    Path("no.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(ConfigError, match=r"cannot read no\.tar"):
        open_path("no.tar", "--data")
    with tarfile.open("empty.tar", "w") as archive:
        add(archive, "notes.txt", b"")
    with pytest.raises(ConfigError, match="no images"):
        open_path("empty.tar", "--data")
    with tarfile.open("cut.tar", "w") as archive:
        archive.add("data")
    source = open_path("cut.tar", "--data")
    Path("cut.tar").write_bytes(Path("cut.tar").read_bytes()[:2000])
    with pytest.raises(OSError, match=r"cut\.tar"):
        source.read(len(source) - 1)


def shard(name: str, *members: str, label: str = "") -> None:
    """Writes a tar of images, with their class beside each where there is one."""
    with tarfile.open(name, "w") as archive:
        for member in members:
            add(archive, member, f"{name} {member}".encode())
            if label:
                add(archive, f"{member.rpartition('.')[0]}.cls", label.encode())


@pytest.mark.parametrize("label", ["", "can"])
@pytest.mark.parametrize(
    "train, test, notes",
    [
        ("train-0000", "test-0000", ()),
        (
            "waste-train-00000-of-00001",
            "waste-test-00000-of-00001",
            ("splits by the names of the files: 'waste-test' is test, 'waste-train' is train",),
        ),
    ],
)
def test_shards_named_as_splits_are_these_splits(folder, label, train, test, notes):
    Path("shards").mkdir()
    shard(f"shards/{train}.tar", "can/0.png", "jar/0.png", label=label)
    shard(f"shards/{test}.tar", "can/1.png", "jar/1.png", label=label)
    source = open_path("shards", "--data")
    for i, split in enumerate(source.splits):
        assert source.read(i).decode().startswith(f"shards/{train if split == 'train' else test}.tar")
    assert sorted(source.splits) == ["test", "test", "train", "train"]
    assert source.notes == notes


@pytest.mark.parametrize("label", ["", "can"])
def test_a_shard_of_no_split_beside_those_of_splits_is_refused_by_name(folder, label):
    Path("shards").mkdir()
    for name in ("train-0000", "test-0000", "extra-0000"):
        shard(f"shards/{name}.tar", "can/0.png", "jar/0.png", label=label)
    with pytest.raises(ConfigError, match=r"'extra-0000' is of none"):
        open_path("shards", "--data")


def test_shards_of_one_split_are_undivided_and_that_is_told(folder):
    Path("shards").mkdir()
    for name in ("test-0000", "test-0001"):
        shard(f"shards/{name}.tar", "can/0.png", "jar/0.png")
    source = open_path("shards", "--data")
    assert source.splits is None
    assert source.notes == ("no other split beside 'test': its images are taken as undivided",)


def test_names_that_repeat_across_shards_begin_with_their_shard(folder):
    Path("shards").mkdir()
    shard("shards/mon.tar", "glass/0.png", "metal/0.png")
    shard("shards/tue.tar", "glass/0.png", "종이/0.png")
    source = open_path("shards", "--data")
    assert set(source.names) == {"mon/glass/0.png", "mon/metal/0.png", "tue/glass/0.png", "tue/종이/0.png"}
    assert all(source.read(i).decode()[7:10] == name[:3] for i, name in enumerate(source.names))


def test_a_name_that_repeats_within_a_tar_is_refused(folder):
    shard("twice.tar", "glass/0.png", "./glass/0.png")
    with pytest.raises(ConfigError, match=r"twice\.tar: holds glass/0\.png twice"):
        open_path("twice.tar", "--data")


JUNK = ("can/@eaDir/0.png/thumb.jpg", "__MACOSX/can/._0.png", "__MACOSX/jar/0.png", ".cache/can/0.png")


def test_a_tar_is_walked_as_a_folder_is(folder):
    Path("shards/@eaDir").mkdir(parents=True)
    shard("shards/all.tar", "../data/can/0.png", "../data/jar/0.png", *(f"../data/{name}" for name in JUNK))
    shard("shards/._all.tar")
    source = open_path("shards", "--data")
    assert source.classes == ("can", "jar") and len(source) == 2 and source.notes == ()
    (part,) = parts_of(["shards/all.tar"], 10)
    assert [name[-9:] for name, _ in images(part)] == ["can/0.png", "jar/0.png"]


def test_a_url_is_walked_as_a_folder_is(folder):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    try:
        for name in ("can/0.png", "jar/0.png", *JUNK):
            memory.pipe(f"/.hidden/{name}", b"")
        source = open_path("memory://.hidden", "--data")
        assert source.classes == ("can", "jar") and len(source) == 2
        (part,) = parts_of(["memory://.hidden"], 10)
        assert len(part.places) == 2
    finally:
        memory.store.clear()


@pytest.fixture
def served(folder) -> Iterator[str]:
    """The address of a server of the working directory."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            pass

    pytest.importorskip("aiohttp")
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_folders_behind_http_are_called_as_on_the_disk(folder, served):
    for label in ("plastic bottle", "100% wool", "a#b", "유리", "@eaDir"):
        (folder / "odd" / label).mkdir(parents=True)
        (folder / "odd" / label / "no 1#?.png").write_bytes(label.encode())
    source, plain = open_path(f"{served}/odd/", "--data"), open_path("odd", "--data")
    assert source.classes == ("100% wool", "a#b", "plastic bottle", "유리")
    assert sorted(source.names) == sorted(plain.names) and content(source) == content(plain)
    (part,) = parts_of([f"{served}/odd/"], 10)
    assert sorted(load().decode() for _, load in images(part)) == list(source.classes)


def test_names_in_buckets_are_as_they_are():
    assert part_below("s3://bucket/data", "s3://bucket/data/100%25/a%20b.png") == "100%25/a%20b.png"
    assert part_below("https://x.org/data/", "https://x.org/data/100%25/a%2Fb.png") == "100%/a%2Fb.png"
