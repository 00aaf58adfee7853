"""Links in tar archives are the files that they lead to, and labels those of the image that is named like them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wastejax.data.collections.parts import images, parts_of
from wastejax.data.collections.shards import Rows, open_shards, write_shards
from wastejax.data.sources import open_path
from wastejax.data.split import load_manifest, save_manifest
from wastejax.errors import ConfigError


@pytest.fixture
def linked(tmp_path, monkeypatch) -> Path:
    """Class folders with a symbolic and a hard link in each, and a chain of links from folder to folder."""
    monkeypatch.chdir(tmp_path)
    for label in ("can", "jar"):
        folder = tmp_path / "data" / label
        folder.mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (9, 9), (i * 90, len(label), ord(label[0]))).save(folder / f"{i}.png")
        (folder / "link.png").symlink_to("0.png")
        (folder / "hard.png").hardlink_to(folder / "1.png")
    (tmp_path / "data/can/chain.png").symlink_to("../can/link.png")
    return tmp_path / "data"


def pack(source: Path, out: str, kind: str = "w") -> str:
    with tarfile.open(out, kind) as archive:
        archive.add(source, ".")
    return out


def test_links_in_a_tar_are_the_files_that_they_lead_to_as_in_a_folder(linked):
    plain = open_path("data", "--data")
    source = open_path(pack(linked, "all.tar"), "--data")
    assert sorted(source.names) == sorted(plain.names) and len(source) == 9
    expected = {name: plain.read(i) for i, name in enumerate(plain.names)}
    assert {name: source.read(i) for i, name in enumerate(source.names)} == expected
    assert source.notes == ()


@pytest.mark.parametrize("out", ["all.tar", "all.tar.gz"])
def test_links_in_a_tar_are_answered_as_files_are(linked, out):
    (linked / "can/lost.png").symlink_to("/nowhere/0.png")
    (part,) = parts_of([pack(linked, out, "w:gz" if out.endswith("gz") else "w")], 10)
    found = {name.removeprefix(f"{out}/"): load for name, load in images(part)}
    with pytest.raises(OSError, match="is a link to no file in its archive"):
        found.pop("./can/lost.png")()
    assert {name: load() for name, load in found.items()} == {
        f"./{path.relative_to(linked).as_posix()}": path.read_bytes()
        for path in linked.rglob("*.png")
        if path.exists()
    }
    assert len(found) == 9


def test_links_that_leave_a_tar_or_lead_in_circles_are_counted_by_name(linked):
    (linked / "can/out.png").symlink_to("../../other/0.png")
    (linked / "can/a.png").symlink_to("b.png")
    (linked / "can/b.png").symlink_to("a.png")
    (linked / "tin").symlink_to("can")
    source = open_path(pack(linked, "all.tar"), "--data")
    assert len(source) == 9
    names = "can/a.png, can/b.png, can/out.png, tin"
    assert source.notes == (f"links that lead to no file in their archive, left out: 4 ({names})",)


def test_a_file_that_is_packed_twice_as_a_link_to_itself_is_one_image(linked):
    with tarfile.open("twice.tar", "w") as archive:
        archive.add("data")
        again = archive.gettarinfo("data/can/0.png")
        again.type, again.linkname, again.size = tarfile.LNKTYPE, "data/can/0.png", 0
        archive.addfile(again)
    assert len(open_path("twice.tar", "--data")) == 9


def test_links_to_labels_are_these_labels(linked):
    (linked / "can/0.cls").write_text("can")
    for name in ("1", "link", "hard"):
        (linked / f"can/{name}.cls").symlink_to("0.cls")
    (linked / "can/chain.png").unlink()
    assert labels(pack(linked / "can", "all.tar")) == dict.fromkeys(
        ("0.png", "1.png", "link.png", "hard.png"), "can"
    )


def shard(name: str, members: dict[str, str]) -> str:
    """Writes a tar of images and texts; all images are empty."""
    with tarfile.open(name, "w") as archive:
        for member, text in members.items():
            about = tarfile.TarInfo(member)
            about.size = len(text.encode())
            archive.addfile(about, io.BytesIO(text.encode()))
    return name


def labels(name: str) -> dict[str, str]:
    source = open_path(name, "--data")
    return {
        name.rpartition("/")[2]: label for name, label in zip(source.names, source.label_names, strict=True)
    }


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_images_with_dots_in_their_names_have_the_labels_that_are_named_like_them(
    tmp_path, monkeypatch, kind
):
    monkeypatch.chdir(tmp_path)
    said = {"belt.2026.01": "can", "belt.2026.02": "jar", "belt.2026.03": "paper"}
    beside = {f"{name}.{kind}": json.dumps({"label": x}) if kind == "json" else x for name, x in said.items()}
    shard("all.tar", dict.fromkeys((f"{name}.png" for name in said), "") | beside)
    assert labels("all.tar") == {f"{name}.png": label for name, label in said.items()}
    shard("more.tar", dict.fromkeys((f"{name}.png" for name in (*said, "belt.2026.04")), "") | beside)
    with pytest.raises(
        ConfigError, match=r"more\.tar: belt\.2026\.04\.png has no .* say can, jar, paper; name"
    ):
        open_path("more.tar", "--data")
    shard(
        "said.tar",
        dict.fromkeys((f"{name}.png" for name in (*said, "belt.2026.04")), "")
        | beside
        | {"belt.2026.04.cls": ""},
    )
    assert labels("said.tar") == labels("all.tar")


def test_images_of_one_sample_share_its_label(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shard("all.tar", {"1.left.png": "", "1.right.png": "", "1.cls": "can", "2.png": "", "2.fine.cls": "jar"})
    assert labels("all.tar") == {"1.left.png": "can", "1.right.png": "can", "2.png": "jar"}
    shard("two.tar", {"1.png": "", "1.coarse.cls": "can", "1.fine.cls": "lid"})
    with pytest.raises(ConfigError, match="say can, lid"):
        open_path("two.tar", "--data")


def test_images_of_one_sample_are_a_group(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample = {"a/1.left.png": "", "a/1.right.png": "", "a/1.cls": "can", "a/2.png": "", "a/2.cls": "jar"}
    longer = {"a/3.left.png": "", "a/3.right.png": "", "a/3.label.cls": "can"}
    shard("mon.tar", sample | longer)
    shard("tue.tar", sample)
    source = open_path(tmp_path, "--data")
    groups = dict(zip(source.names, source.groups, strict=True))
    assert groups == {
        **{f"{day}/a/1.{side}.png": f"{day}/a/1" for day in ("mon", "tue") for side in ("left", "right")},
        **{f"mon/a/3.{side}.png": "mon/a/3" for side in ("left", "right")},
        **{f"{day}/a/2.png": "" for day in ("mon", "tue")},
    }
    assert source.notes == ("samples of several images, which stay whole in every split: 3",)


def test_images_whose_names_begin_with_one_year_are_no_sample(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    days = [f"2026.01.{day}" for day in range(3)]
    source = open_path(shard("all.tar", {f"{day}.{end}": end for day in days for end in ("png", "cls")}))
    assert source.groups is None and source.notes == ()


def test_null_and_minus_1_are_no_labels_and_a_list_is_no_class_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = ["null", "-1", '["can"]', '"jar"', "[]", "NaN", "3"]
    members = {f"{i}.json": f'{{"label": {cell}}}' for i, cell in enumerate(cells)}
    members |= {f"{i}.png": "" for i in range(len(cells) + 1)} | {f"{len(cells)}.cls": "-1\n"}
    assert labels(shard("all.tar", members)) == {"2.png": "can", "3.png": "jar", "6.png": "3"}
    note = "images without a label in a .cls or .json beside them, left out: 5"
    assert open_path("all.tar", "--data").notes == (note,)
    shard("list.tar", {"0.png": "", "0.json": '{"label": ["can", "jar"]}'})
    with pytest.raises(
        ConfigError, match=r"list\.tar: 0\.json has 2 labels, can, jar; images of tar shards have one"
    ):
        open_path("list.tar", "--data")


def test_a_json_that_differs_from_its_cls_counts_in_any_order_and_that_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    members = {"0.png": "", "1.png": "", "1.json": '{"label": "jar"}', "1.cls": "7", "0.cls": "can"}
    assert labels(shard("all.tar", members | {"0.json": '{"width": 9}'})) == {"0.png": "can", "1.png": "jar"}
    assert open_path("all.tar", "--data").notes == (
        "images whose .cls and .json differ, labeled by .json: 1",
    )


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_a_text_of_several_labels_is_no_class_of_its_own(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)

    def pack_labels(*said: str) -> None:
        texts = [json.dumps({"label": text}) if kind == "json" else text for text in said]
        members = {f"{i}.{kind}": text for i, text in enumerate(texts)}
        shard("all.tar", members | {f"{i}.png": "" for i in range(len(texts))})

    pack_labels("can ; jar", "can", "jar")
    with pytest.raises(ConfigError, match=r"all\.tar: 0\.png has 2 labels, can, jar; images of tar shards"):
        open_path("all.tar", "--data")
    pack_labels("can;lid", "can", " can ")
    source = open_path("all.tar", "--data")
    assert source.classes == ("can", "can;lid")
    assert source.notes == ("labels that may be lists of several, each read as one: 'can;lid'",)


def test_names_that_are_not_utf_8_are_written_as_escapes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    korean = "병".encode("euc-kr").decode("utf-8", "surrogateescape")
    members = {f"{korean}{i}.{end}": "can" for i in range(2) for end in ("png", "cls")}
    source = open_path(shard(f"{korean}.tar", members | {f"{korean}2.png": ""}), "--data")
    assert source.names == (r"\xba\xb4/\xba\xb40.png", r"\xba\xb4/\xba\xb41.png")
    save_manifest("manifest.csv", source, np.arange(2), ["train", "test"])
    assert load_manifest("manifest.csv", source).splits.tolist() == ["train", "test"]
    write_shards("shards", Rows(source, np.arange(2), np.array(["train", "test"]), np.zeros(2, np.uint64)))
    assert list(open_shards("shards").source.names) == list(source.names)
