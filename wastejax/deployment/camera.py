"""Frames of a camera or a video file, answered one by one; needs the extra `camera` (OpenCV, headless).

A frame is named as a media fragment (W3C 2012, section 4.2.1): clip.mp4#t=1.500 is the one at second 1.5, so that
frames are reported like images.
"""

import glob
import importlib.util
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wastejax.deployment.predictor import Predictor
from wastejax.errors import MissingPackage, UserError

CAMERA = "camera:"
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


def is_stream(name: str) -> bool:
    """Whether a name means a camera, as camera:0 does, or a video file."""
    if name.startswith(CAMERA) or Path(name).suffix.lower() not in VIDEOS:
        return name.startswith(CAMERA)
    # A folder may be named like a video, and a glob may match some, of which each would have to be named.
    return not os.path.isdir(name) and (os.path.exists(name) or not glob.has_magic(name))  # noqa: PTH110, PTH112


def frames(name: str, every: float) -> Iterator[tuple[float, Image.Image]]:
    """Yields the time in seconds and the image of a frame, RGB, at most one per `every` seconds.

    A video file ends; a camera goes on until it is interrupted (Ctrl-C), which is the end of its frames and raises
    nothing, so that what was seen is still counted; only a second interrupt raises. Its time is the clock's.

    Args:
        name: for which `is_stream` is true.
        every: seconds; 0 for every frame.

    Raises:
        UserError: OpenCV is not installed, there is no such camera or file, or not one frame can be read.
    """
    try:
        import cv2
    except ImportError:
        raise MissingPackage(name, "opencv-python-headless", None) from None
    live = name.startswith(CAMERA)
    number = name.removeprefix(CAMERA)
    if live and not (number.isascii() and number.isdigit()):
        raise UserError(f"{name}: a camera has a number, as camera:0")
    if not live and not Path(name).is_file():
        raise UserError(f"{name}: no such file")
    capture = cv2.VideoCapture(int(number) if live else name)
    try:
        with _interrupted() if live else nullcontext(threading.Event()) as interrupted:
            yield from _read(capture, name, every, live, interrupted)
    finally:
        capture.release()


@contextmanager
def _interrupted() -> Iterator[threading.Event]:
    """Has the first Ctrl-C set an event, so that no answer is torn; another one does what it did before."""
    heard = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (None, signal.SIG_IGN):
        yield heard
        return

    def hear(*_: object) -> None:
        heard.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, hear)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)


def _read(
    capture: Any, name: str, every: float, live: bool, interrupted: threading.Event
) -> Iterator[tuple[float, Image.Image]]:
    start, due = time.monotonic(), 0.0
    # Frames are counted, for not every format knows their times.
    rate = capture.get(5) or 25.0  # cv2.CAP_PROP_FPS
    count = 0
    while not interrupted.is_set() and capture.grab():
        seconds = time.monotonic() - start if live else count / rate
        count += 1
        if seconds + 1e-9 < due:
            continue
        read, pixels = capture.retrieve()
        if read:
            yield seconds, Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))  # OpenCV's are BGR
            # A slow network skips frames of a camera instead of lagging behind.
            due = max(due + every, seconds) if every else 0.0
    if not count and not interrupted.is_set():
        raise UserError(f"{name}: not one frame can be read; is it a {'camera' if live else 'video'}?")


def stream(
    predictor: Predictor, name: str, every: float, smoothing: float
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name of each frame and its probabilities, float32 [C], smoothed over time.

    Args:
        predictor: the model.
        name: for which `is_stream` is true.
        every: see `frames`.
        smoothing: weight of what was before, 0 for none to below 1: each answer is the exponential moving average
            of its frame and those before it.
    """
    average: np.ndarray | None = None
    for seconds, image in frames(name, every):
        row = predictor.probabilities(predictor.preprocessing(image)[None])[0]
        average = row if average is None else smoothing * average + (1 - smoothing) * row
        yield f"{name}#t={seconds:.3f}", average


def only_stream(names: Sequence[str]) -> str | None:
    """Returns the one stream among what a user names; None where there is none.

    Raises:
        UserError: there are several, or images beside it, or OpenCV is not installed.
    """
    streams = [name for name in names if is_stream(name)]
    if streams and len(names) > 1:
        raise UserError(f"{streams[0]}: a camera or video comes alone, without other images")
    if streams and importlib.util.find_spec("cv2") is None:
        raise MissingPackage(streams[0], "opencv-python-headless", None)
    return streams[0] if streams else None
