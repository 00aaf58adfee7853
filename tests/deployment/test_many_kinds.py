"""`predict --out` by models of several labels, by those that name nothing, and of Parquet files that name files."""

import contextlib
import errno
import io
import os
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image
from small_models import write_bundle
from test_many import mean_colors, rows_of

from wastejax.cli.many import predict as command
from wastejax.data.collections import parts
from wastejax.data.collections.parts import parts_of
from wastejax.deployment.images import find
from wastejax.deployment.many import job
from wastejax.deployment.many.job import Asked, predict_parts
from wastejax.deployment.many.part_file import Counts
from wastejax.errors import UserError
from wastejax.main import dispatch, parser


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A red, a yellow and a gray image, and one that is none, in `images`."""
    (tmp_path / "images").mkdir()
    for name, color in (("a", (255, 0, 0)), ("b", (255, 250, 0)), ("c", (9, 9, 9))):
        Image.new("RGB", (20, 20), color).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "images" / "d.png").write_bytes(b"no image")
    (tmp_path / "model.onnx").write_bytes(b"model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_multi_label_model_names_classes_and_their_bins(folder, monkeypatch):
    several = replace(mean_colors(), class_thresholds=(0.4, 0.4, 0.4))
    monkeypatch.setattr(job, "load_engine", lambda *arguments: several)
    predict_parts(["images"], "out", Asked("model.onnx"))
    rows = rows_of(folder / "out")
    red, green = several.classes[:2]
    assert [row["classes"] for row in rows] == [[red], [red, green], [], None]
    assert [row["kept"] for row in rows] == [True, True, False, False]
    assert rows[1]["bins"] == list(dict.fromkeys((several.bin_of(red), several.bin_of(green))))
    assert "class_sure" not in rows[0] and rows[3]["reason"] == "not an image"
    predict_parts(["images"], "all", Asked("model.onnx", reject_below=0.3))
    assert [len(row["classes"] or ()) for row in rows_of(folder / "all")] == [1, 2, 3, 0]
    with pytest.raises(UserError, match="is a multi-label model"):
        predict_parts(["images"], "not", Asked("model.onnx", accuracy=0.9))
    assert not list((folder / "not").glob("part-*"))


def test_a_model_that_cannot_be_sure_says_so(folder, monkeypatch):
    never = replace(mean_colors(), thresholds={"0.9": 0.4, "0.95": None})
    monkeypatch.setattr(job, "load_engine", lambda *arguments: never)
    said: list[str] = []
    predict_parts(["images"], "out", Asked("model.onnx"), say=said.append)
    assert [line for line in said if "no threshold keeps 95 % right" in line]
    assert not any(row["kept"] for row in rows_of(folder / "out"))
    said.clear()
    predict_parts(["images"], "sure", Asked("model.onnx", accuracy=0.9), say=said.append)
    assert said == []


def test_rows_that_name_a_file_are_read_from_it(folder, monkeypatch):
    monkeypatch.setattr(job, "load_engine", lambda *arguments: mean_colors())
    buffer = io.BytesIO()
    Image.fromarray(np.full((9, 9, 3), 200, np.uint8)).save(buffer, "PNG")
    (folder / "data" / "train").mkdir(parents=True)
    (folder / "images" / "a.png").rename(folder / "data" / "train" / "a.png")
    images = [
        {"bytes": None, "path": "train/a.png"},
        {"bytes": None, "path": str(folder / "images" / "b.png")},
        {"bytes": buffer.getvalue(), "path": "nowhere.png"},
        {"bytes": None, "path": "nowhere.png"},
        {"bytes": None, "path": None},
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    parquet.write_table(pa.table({"image": pa.array(images, kind)}), "data/train.parquet")
    predict_parts(["data/train.parquet"], "out", Asked("model.onnx"))
    reasons = [row["reason"] for row in rows_of(folder / "out")]
    assert reasons == ["", "", "", "no such file or directory", "the row holds no image"]


def test_the_command_says_why_no_answer_is_sure(folder, capsys):
    write_bundle(folder / "bundle", thresholds={"0.95": None})
    with pytest.raises(SystemExit):
        dispatch(["predict", "images/a.png", "--model=bundle"])
    said = capsys.readouterr()
    assert "not sure" in said.out
    assert "note: no threshold keeps 95 % right on the validation images" in said.err
    with pytest.raises(SystemExit):
        dispatch(["predict", "images/a.png", "--model=bundle", "--reject-below=0.5"])
    assert "no threshold" not in capsys.readouterr().err


def of_parts(*arguments: str) -> list[str]:
    return [place for part in parts_of(arguments, 2) for place in part.places]


@pytest.mark.parametrize(
    "arguments",
    [
        ("images/c.png", "images/c.png", "images"),
        ("images", "images/c.png"),
        ("images", "images"),
        ("images/", "./images"),
        (".", "images"),
        ("images/[ab].png", "images/*.png", "images"),
        ("images", "images/*.png"),
    ],
)
def test_what_is_named_twice_is_answered_once_as_without_parts(folder, arguments):
    assert of_parts(*arguments) == find(arguments)


def test_what_two_addresses_hold_is_answered_once(folder):
    system = pytest.importorskip("fsspec").filesystem("memory")
    for name in ("/twice/a.png", "/twice/below/b.png", "/twice/c.tar"):
        system.pipe_file(name, b"")
    found = of_parts(
        "memory://twice/below/b.png", "memory://twice", "memory://twice/", "memory://twice/c.tar"
    )
    assert sorted(place.rpartition("/")[2] for place in found) == ["a.png", "b.png", "c.tar"]


def test_what_a_folder_passes_over_is_answered_where_it_is_named(folder):
    hidden = folder / "images" / ".kept"
    hidden.mkdir()
    (folder / "images" / "a.png").rename(hidden / "a.png")
    assert of_parts("images", "images/.kept")[-1] == "images/.kept/a.png"
    assert of_parts("images", "images/.kept/a.png")[-1] == "images/.kept/a.png"


def test_images_that_have_changed_are_told_before_any_is_answered(folder, monkeypatch):
    monkeypatch.setattr(job, "load_engine", lambda *arguments: mean_colors())
    predict_parts(["images"], "out", Asked("model.onnx"), 1)
    (folder / "out" / "part-00000.parquet").unlink()
    (folder / "images" / "c.png").write_bytes(b"changed")
    monkeypatch.setattr(job, "load_engine", lambda *arguments: pytest.fail("it was about to answer"))
    with pytest.raises(UserError, match=r"part-00002\.parquet: answers for other images"):
        predict_parts(["images"], "out", Asked("model.onnx"), 1)
    for name in "bcd":
        (folder / "images" / f"{name}.png").unlink()
    with pytest.raises(
        UserError, match=r"part-00001\.parquet: answers for images that are not there any more"
    ):
        predict_parts(["images"], "out", Asked("model.onnx"), 1)


def test_one_image_in_one_file_is_said_so(folder, monkeypatch, capsys):
    monkeypatch.setattr(job, "load_engine", lambda *arguments: mean_colors())
    with pytest.raises(SystemExit):
        dispatch(["predict", "--model=model.onnx", "--out=out", "images/a.png"])
    assert "1 image in 1 file in out;" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "out", "told"),
    [
        (["images/day0/*"], "images/day0", "lies in images/day0/*"),
        (["images/**"], "images/answers", "lies in images/**"),
        (["images/day0/00.png", "images/day0/03.png"], "images/day0", "lies in images/day0"),
        (["images/day0/*"], "images/day1", ""),
        (["images/day0/00.png"], "images/day0", ""),
        (["https://example.org/*.tar"], "out", ""),
    ],
)
def test_answers_are_not_written_where_the_images_are_found(tmp_path, monkeypatch, images, out, told):
    monkeypatch.chdir(tmp_path)
    for name in ("day0/00.png", "day0/03.png", "day1/01.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    args = parser("predict").parse_args(["predict", *images, f"--out={out}"])
    if not told:
        command.check(args)
        return
    with pytest.raises(UserError, match=re.escape(f"--out={out}: {told}, and would be answered too")):
        command.check(args)


def test_only_what_a_killed_job_left_is_removed(tmp_path, monkeypatch):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "model.onnx").touch()
    monkeypatch.setattr(job, "load_engine", lambda *arguments: mean_colors())
    left, own = (tmp_path / "out" / f"part-{name}.partial" for name in ("00007", "video.mp4"))
    asked = Asked(str(tmp_path / "model.onnx"), reject_below=0.4)
    for removed in (False, True):  # what is there before the first job is nobody's but the user's
        for path in (left, own):
            path.parent.mkdir(exist_ok=True)
            path.touch()
        predict_parts([str(tmp_path / "a.png")], tmp_path / "out", asked)
        assert own.exists() and left.exists() is not removed


def cut_off(after: int, number: int, file) -> io.RawIOBase:
    """A file whose connection breaks, or whose disk fails, after so many bytes."""

    class Broken(io.RawIOBase):
        left = after

        def read(self, size: int = -1) -> bytes:
            self.left -= size
            if self.left < 0:
                raise OSError(number, os.strerror(number))
            return file.read(size)

    return Broken()


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.ETIMEDOUT, errno.ESTALE, errno.EIO])
def test_a_connection_that_breaks_leaves_its_part_to_the_next_run(folder, monkeypatch, number):
    monkeypatch.setattr(job, "load_engine", lambda *arguments: mean_colors())
    with tarfile.open("s.tar", "w") as archive:
        for i in range(20):
            Image.new("RGB", (20, 20), (250, i, 0)).save("one.png")
            archive.add("one.png", f"{i:02}.png")

    @contextlib.contextmanager
    def broken(place):
        with Path(place).open("rb") as file:
            yield cut_off(15_000, number, file)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "opened", broken)
        with pytest.raises(UserError, match=r"s\.tar: cannot be read now .*the same command"):
            predict_parts(["s.tar"], "out", Asked("model.onnx"))
    assert not list(Path("out").glob("part-*.parquet"))
    assert predict_parts(["s.tar"], "out", Asked("model.onnx")).now == Counts(20, 0)


def test_an_image_whose_server_is_away_stops_the_job_and_one_that_is_gone_does_not(folder, monkeypatch):
    monkeypatch.setattr(job, "load_engine", lambda *arguments: mean_colors())

    def read(failure: Exception):
        def one(path):
            if Path(path).name == "b.png":
                raise failure
            return Path(path).read_bytes()

        return one

    busy = OSError("503, message='Service Unavailable'")
    busy.__cause__ = RuntimeError()  # as `places` has what a protocol raises
    for failure in (TimeoutError(), busy):
        monkeypatch.setattr(parts, "read_file", read(failure))
        with pytest.raises(UserError, match=r"images/b\.png: cannot be read now"):
            predict_parts(["images"], "out", Asked("model.onnx"))
    monkeypatch.setattr(parts, "read_file", read(FileNotFoundError(errno.ENOENT, "No such file")))
    assert predict_parts(["images"], "out", Asked("model.onnx")).counts == Counts(4, 2)
