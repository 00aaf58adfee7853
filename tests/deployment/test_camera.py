"""Frames of a video: the right ones, in their colors, smoothed as said. The videos are drawn here."""

import json
import signal
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from threading import Event
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from wastejax.cli.predict import run
from wastejax.data.taxonomy import load_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.answers import json_lines
from wastejax.deployment.camera import _read, is_stream, only_stream, stream
from wastejax.deployment.images import find
from wastejax.deployment.predictor import Predictor
from wastejax.errors import UserError
from wastejax.main import parser

RED, BLUE = (200, 20, 20), (20, 20, 200)


def by_color(images: np.ndarray) -> np.ndarray:
    red = images.mean((1, 2))[:, 0] > images.mean((1, 2))[:, 2]
    return np.stack([red, ~red], axis=1).astype(np.float32)


FAKE = Predictor(Path("fake"), "numpy", ("red", "blue"), Preprocessing(32), load_taxonomy(), by_color)


class Film:
    """Stands in for cv2.VideoCapture: BGR frames at 10 per second; of a color None, none can be read.

    Args:
        number: of frames, as the file says.
        times: of the frames that can be read, milliseconds; the format knows none without.
    """

    def __init__(self, *colors, number: float = 0, times=()) -> None:
        self.left = [color and np.full((40, 60, 3), color[::-1], np.uint8) for color in colors]
        self.number, self.times, self.time = number, list(times), 0.0

    def get(self, prop: int) -> float:
        return {0: self.time, 5: 10.0, 7: self.number}[prop]

    def grab(self) -> bool:
        self.now = self.left.pop(0) if self.left else None
        if self.now is not None and self.times:
            self.time = self.times.pop(0)
        return self.now is not None

    def retrieve(self):
        return True, self.now


def test_frames_come_at_their_times_and_in_their_colors():
    film = Film(*[RED] * 5, *[BLUE] * 5)
    found = list(_read(film, "x.avi", 0.2, live=False, interrupted=Event()))
    assert [round(seconds, 3) for seconds, _ in found] == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert [image.getpixel((5, 5)) for _, image in found] == [RED, RED, RED, BLUE, BLUE]
    assert len(list(_read(Film(*[RED] * 7), "x.avi", 0, live=False, interrupted=Event()))) == 7
    with pytest.raises(UserError, match=r"x\.avi: not one frame can be read"):
        list(_read(Film(), "x.avi", 1, live=False, interrupted=Event()))


def read(film: Film, every: float = 0.0, live: bool = False) -> list:
    """Returns the seconds of its frames, with what is said instead of a frame."""
    found = _read(film, "x.avi", every, live, interrupted=Event())
    return [round(s, 3) if isinstance(i, Image.Image) else (round(s, 3), str(i)) for s, i in found]


def test_frames_of_a_variable_rate_come_at_the_times_that_the_file_tells():
    times = [0, 20, 40, 60, 1000, 1020, 3500, 3520]
    assert read(Film(*[RED] * 8, times=times)) == [time / 1000 for time in times]
    assert read(Film(*[RED] * 8, times=times), every=1) == [0, 1.0, 3.5]  # none is due twice after a long one
    assert read(Film(*[RED] * 4, times=[0, 20, 20, 10])) == [0, 0.02, 0.02, 0.02]  # no time goes back


def test_damaged_frames_are_told_and_those_after_them_are_read():
    film = Film(RED, RED, None, None, RED, RED, number=6)
    assert read(film) == [0, 0.1, (0.1, "the frames up to second 0.400 cannot be read"), 0.4, 0.5]
    colors = [RED] * 2 + [None] * 30 + [RED]
    told = "the frames up to second 9.000 cannot be read"
    assert read(Film(*colors, number=91, times=[0, 100, 9000])) == [0, 0.1, (0.1, told), 9]
    film = Film(RED, RED)
    film.retrieve = lambda: (False, None)
    assert read(film) == [(0, "the frame cannot be decoded"), (0.1, "the frame cannot be decoded")]


def test_a_video_that_ends_early_is_told():
    assert read(Film(*[RED] * 40, number=100), every=2) == [
        *(0, 2),
        (3.9, "ends after 3.9 of 10.0 s; is the file whole?"),
    ]
    for number in (-9e15, 0, float("nan"), 12, 45):  # unknown, or no more than sound goes on for
        assert read(Film(*[RED] * 40, number=number), every=2) == [0, 2]
    assert read(Film(*[RED] * 3, number=70, times=[0, 2000, 4000]), every=2) == [0, 2, 4]  # long frames


def test_a_camera_may_fail_now_and_then_and_is_told_to_be_gone(monkeypatch):
    monkeypatch.setattr("wastejax.deployment.camera.PAUSE", 0)
    colors = [None, RED, None, RED, *[None] * 4, RED]
    *frames, last = read(Film(*colors), live=True)
    assert len(frames) == 3 and all(isinstance(seconds, float) for seconds in frames)
    assert last[1] == "the camera gives no more frames; is it still connected?"
    with pytest.raises(UserError, match="not one frame can be read; is it a camera"):
        read(Film(), live=True)


def test_what_is_missing_of_a_video_is_said_like_an_unreadable_image(camera_extra, monkeypatch, capsys):
    film = Film(RED, None, BLUE, number=3)
    film.release = lambda: None
    sys.modules["cv2"].VideoCapture = lambda _: film
    monkeypatch.setattr("wastejax.cli.predict.load_engine", lambda *_, **__: FAKE)
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    lines = []
    options = ["predict", "x.avi", "--every=0", "--smoothing=0", "--format=json"]
    assert run(parser("predict").parse_args(options), lines.append) == 1
    error = "the frames up to second 0.200 cannot be read"
    rows = json.loads("\n".join(lines))
    assert rows[1] == {"file": "x.avi#t=0.000", "error": error}
    assert [row["top"][0]["class"] for row in (rows[0], rows[2])] == ["red", "blue"]
    assert f"unreadable: x.avi#t=0.000: {error}\n" in capsys.readouterr().err


class Live(Film):
    """A camera at which somebody presses Ctrl-C while its third frame comes."""

    def grab(self) -> bool:
        if len(self.left) == 3:
            signal.raise_signal(signal.SIGINT)
        return super().grab()

    def release(self) -> None:
        pass


@pytest.fixture
def interruptible():
    """Commands in the background, such as CI's, are started with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_is_the_end_of_a_cameras_frames_and_what_was_seen_is_counted(monkeypatch, tmp_path):
    film = Live(*[RED] * 5)
    module = ModuleType("cv2")
    module.VideoCapture = lambda _: film
    module.__spec__ = ModuleSpec("cv2", None)
    monkeypatch.setitem(sys.modules, "cv2", module)
    monkeypatch.setattr("wastejax.cli.predict.load_engine", lambda *_, **__: FAKE)
    before, lines = signal.getsignal(signal.SIGINT), []
    options = ["predict", "camera:0", "--every=0", "--format=json", f"--summary={tmp_path / 'seen'}"]
    assert run(parser("predict").parse_args(options), lines.append) == 0
    assert signal.getsignal(signal.SIGINT) is before and len(film.left) == 2
    assert [row["top"][0]["class"] for row in json.loads("\n".join(lines))] == ["red"] * 3
    assert json.loads((tmp_path / "seen" / "summary.json").read_text())["counted"] == 3


def test_each_row_of_json_is_written_when_it_is_answered():
    asked = []

    def rows():
        for label in ("red", "blue"):
            asked.append(label)
            yield SimpleNamespace(to_dict=lambda label=label: {"class": label})

    lines = json_lines(rows(), [])
    first = [next(lines), next(lines)]
    assert asked == ["red"] and first == ["[", '{"class": "red"}']
    assert json.loads("\n".join([*first, *lines])) == [{"class": "red"}, {"class": "blue"}]


def test_smoothing_by_hand(monkeypatch):
    photos = [Image.new("RGB", (40, 40), color) for color in (RED, BLUE, BLUE)]
    monkeypatch.setattr("wastejax.deployment.camera.frames", lambda *_: enumerate(photos))
    rows = list(stream(FAKE, "x.avi", 1.0, 0.75))
    assert [name for name, _ in rows] == ["x.avi#t=0.000", "x.avi#t=1.000", "x.avi#t=2.000"]
    np.testing.assert_allclose([row for _, row in rows], [[1, 0], [0.75, 0.25], [0.5625, 0.4375]])


@pytest.fixture
def camera_extra(monkeypatch):
    """Stands in for the extra `camera`: its module is found, and is not imported before a frame is read."""
    module = ModuleType("cv2")
    module.__spec__ = ModuleSpec("cv2", None)
    monkeypatch.setitem(sys.modules, "cv2", module)


def test_what_is_a_stream(camera_extra):
    assert is_stream("camera:0") and is_stream("A.MP4") and not is_stream("a.jpg") and not is_stream("-")
    assert only_stream(["a.jpg", "b.jpg"]) is None
    assert only_stream(["a.mov"]) == "a.mov"
    with pytest.raises(UserError, match=r"a\.mov: a camera or video comes alone"):
        only_stream(["a.mov", "b.jpg"])


def test_folders_and_globs_that_end_like_videos_are_none(camera_extra, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips.mp4").mkdir()
    (tmp_path / "a[1].webm").touch()
    assert not is_stream("clips.mp4/") and not is_stream("clips.mp4") and not is_stream("a*.webm")
    assert is_stream("a[1].webm")
    with pytest.raises(
        UserError, match=r"a\*\.webm: matches no image, but 1 \.webm \(videos: `wastejax predict"
    ):
        find(["a*.webm"])


def test_mistakes_are_one_line(camera_extra, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "wastejax.cli.predict.load_engine", lambda *_, **__: pytest.fail("loads a model first")
    )

    def predict(*options: str) -> int:
        return run(parser("predict").parse_args(["predict", *options]), print)

    with pytest.raises(UserError, match="--heatmap: only with images"):
        predict("a.mp4", "--heatmap=d")
    for every in ("-1", "nan", "inf"):
        with pytest.raises(UserError, match="--every must be a number of seconds >= 0"):
            predict("a.mp4", f"--every={every}")
    for name, message in (("no.mp4", "no such file"), ("camera:x", "a camera has a number")):
        with pytest.raises(UserError, match=f"{name}: {message}"):
            predict(name)
    for name in ("a.mp4", "camera:0", "-"):
        with pytest.raises(UserError, match=f"--out: answers files of images, and {name} is .*; leave --out"):
            predict(name, f"--out={tmp_path / 'out'}", *(["--every=2"] if name != "-" else []))
    assert not (tmp_path / "out").exists()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="needs opencv-python-headless"):
        predict("a.mp4")


@pytest.mark.slow  # needs the extra `camera`
def test_predict_reads_a_video(monkeypatch, tmp_path, capsys):
    import cv2

    monkeypatch.setattr("wastejax.cli.predict.load_engine", lambda *_, **__: FAKE)
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for color in [RED] * 10 + [BLUE] * 10:
        writer.write(np.full((48, 64, 3), color[::-1], np.uint8))
    writer.release()
    lines: list[str] = []
    options = ["predict", str(path), "--every=0.5", "--smoothing=0", "--format=csv", "--top=1"]
    assert run(parser("predict").parse_args(options), lines.append) == 0
    cells = [line.split(",") for line in lines[1:]]
    assert [(row[0].rpartition("#")[2], row[2]) for row in cells] == [
        ("t=0.000", "red"),
        ("t=0.500", "red"),
        ("t=1.000", "blue"),
        ("t=1.500", "blue"),
    ]
    assert "4 frames in" in capsys.readouterr().err
    for name, message in (
        ("camera:99", "not one frame"),
        ("camera:x", "has a number"),
        ("no.mp4", "no such"),
    ):
        with pytest.raises(UserError, match=message):
            run(parser("predict").parse_args(["predict", name]), lines.append)
