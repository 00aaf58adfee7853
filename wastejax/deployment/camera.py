"""Frames of a camera or a video file, answered one by one; needs the extra `camera` (OpenCV, headless).

A frame is named as a media fragment (W3C 2012, section 4.2.1): clip.mp4#t=1.500 is the one at second 1.5, so that
frames are reported like images.
"""

import glob
import importlib.util
import math
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

from wastejax.data.images import BadImage
from wastejax.deployment.predictor import Predictor
from wastejax.errors import MissingPackage, UserError, imported

CAMERA = "camera:"
FAILURES = 5  # frames in a row that a camera may fail to give: some take a moment, or lose one now and then
PAUSE = 0.1  # seconds before it is asked again
LONGEST_END = 1.0  # seconds that may be missing at the end of a video
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")

Frame = tuple[float, Image.Image | BadImage]


def is_stream(name: str) -> bool:
    """Whether a name means a camera, as camera:0 does, or a video file."""
    if name.startswith(CAMERA) or Path(name).suffix.lower() not in VIDEOS:
        return name.startswith(CAMERA)
    # A folder may be named like a video, and a glob may match some, of which each would have to be named.
    return not os.path.isdir(name) and (os.path.exists(name) or not glob.has_magic(name))  # noqa: PTH110, PTH112


def frames(name: str, every: float) -> Iterator[Frame]:
    """Yields the time in seconds and the image of a frame, RGB, at most one per `every` seconds.

    Where frames are missing, as they are damaged, the file is cut short or the camera is gone, it yields the time
    from which on and what is wrong; what can be read after damaged frames goes on.

    A video file ends; a camera goes on until it is interrupted (Ctrl-C), which is the end of its frames and raises
    nothing, so that what was seen is still counted; only a second interrupt raises. Its time is the clock's.

    Args:
        name: for which `is_stream` is true.
        every: seconds; 0 for every frame.

    Raises:
        UserError: OpenCV is not installed, there is no such camera or file, or not one frame can be read.
    """
    cv2 = imported("cv2", name, "opencv-python-headless")
    check_stream(name)
    live = name.startswith(CAMERA)
    capture = cv2.VideoCapture(int(name.removeprefix(CAMERA)) if live else name)
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


def _read(capture: Any, name: str, every: float, live: bool, interrupted: threading.Event) -> Iterator[Frame]:
    due, none = 0.0, True
    for seconds, trouble in _grabbed_live(capture, interrupted) if live else _grabbed(capture):
        if trouble:
            yield seconds, BadImage(trouble)
            continue
        none = False
        if seconds + 1e-9 < due:
            continue
        read, pixels = capture.retrieve()
        if not read:
            yield seconds, BadImage("the frame cannot be decoded")
            continue
        yield seconds, Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))  # OpenCV's are BGR
        # A slow network skips frames of a camera instead of lagging behind.
        due += every * max(1, 1 + math.floor((seconds - due) / every)) if every else 0.0
    if none and not interrupted.is_set():
        raise UserError(f"{name}: not one frame can be read; is it a {'camera' if live else 'video'}?")


def _grabbed(capture: Any) -> Iterator[tuple[float, str]]:
    """Yields the second of each frame of a file, and ''; or what is missing after it, where anything is."""
    rate, number = (capture.get(key) for key in (5, 7))  # cv2.CAP_PROP_FPS and CAP_PROP_FRAME_COUNT
    rate = rate if 0 < rate < math.inf else 25.0
    # Often an estimate, from the length in seconds; what a browser records may tell neither.
    number = number if 0 < number < math.inf else 0.0
    seconds, longest = 0.0, 0.0
    tries = failed = good = 0
    while True:
        tries += 1
        if not capture.grab():
            failed += 1
            # A failure may be a damaged frame, or the end.
            if failed >= number - seconds * rate:
                break
            continue
        before, seconds = seconds, _second(capture, tries - 1, seconds, rate)
        if failed and good:
            yield before, f"the frames up to second {seconds:.3f} cannot be read"
        elif good:
            longest = max(longest, seconds - before)
        failed, good = 0, good + 1
        yield seconds, ""
    length = number / rate
    # A frame may be shown for long, and sound may go on for longer than the frames.
    if good and length - seconds > max(LONGEST_END, 2 * longest):
        yield seconds, f"ends after {seconds:.1f} of {length:.1f} s; is the file whole?"


def _second(capture: Any, number: int, before: float, rate: float) -> float:
    """Returns when the frame is shown that was grabbed last: as the file says, for frames need not be even."""
    told = capture.get(0) / 1000  # cv2.CAP_PROP_POS_MSEC
    if 0 < told < math.inf:
        return max(told, before)
    # Not every format knows the times of its frames; the first one's is 0 in most.
    return max(number / rate, before)


def _grabbed_live(capture: Any, interrupted: threading.Event) -> Iterator[tuple[float, str]]:
    """Yields when each frame of a camera was there, and ''; at last, why there are no more of them."""
    start, failed, good = time.monotonic(), 0, 0
    while not interrupted.is_set():
        if capture.grab():
            failed, good = 0, good + 1
            yield time.monotonic() - start, ""
            continue
        failed += 1
        if failed == FAILURES:
            if good:
                yield time.monotonic() - start, "the camera gives no more frames; is it still connected?"
            return
        interrupted.wait(PAUSE)


def stream(
    predictor: Predictor, name: str, every: float, smoothing: float
) -> Iterator[tuple[str, np.ndarray | BadImage]]:
    """Yields the name of each frame and its probabilities, float32 [C], smoothed over time; or what is wrong.

    Args:
        predictor: the model.
        name: for which `is_stream` is true.
        every: see `frames`.
        smoothing: weight of what was before, 0 for none to below 1: each answer is the exponential moving average
            of its frame and those before it.
    """
    average: np.ndarray | None = None
    for seconds, image in frames(name, every):
        frame = f"{name}#t={seconds:.3f}"
        if isinstance(image, BadImage):
            yield frame, image
            continue
        row = predictor.probabilities(predictor.preprocessing(image)[None])[0]
        average = row if average is None else smoothing * average + (1 - smoothing) * row
        yield frame, average


def check_stream(name: str) -> None:
    """Raises a UserError where a name is no camera's, or of no file."""
    number = name.removeprefix(CAMERA)
    if name.startswith(CAMERA) and not (number.isascii() and number.isdigit()):
        raise UserError(f"{name}: a camera has a number, as camera:0")
    if not name.startswith(CAMERA) and not Path(name).is_file():
        raise UserError(f"{name}: no such file")


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
