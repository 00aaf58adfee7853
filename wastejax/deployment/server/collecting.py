"""Images that a server keeps for a person to look at, with its answers: `serve --collect=DIR`.

    DIR/<class>/<day>-<hash>.jpg    the image, under the class that was the first answer
    DIR/answers/<day>-<hash>.json   when, why, and what was answered
    DIR/answers/model.json          the model and its classes

The images lie as class folders do, and `wastejax audit --collected=DIR` makes a review page of them. They are
upright, at most `SIDE` pixels long and carry no metadata: neither place nor time nor camera. Everything is done by
a thread of its own behind a short queue, so that no answer waits for a disk, and nothing that fails there reaches a
client.

A folder may hold the user's own files too: only pairs of an image and its answer, under names as above, are counted
and removed.
"""

import hashlib
import json
import queue
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from wastejax.data import images
from wastejax.deployment.answers import Answer
from wastejax.errors import UserError
from wastejax.files import reason, write_bytes

SIDE = 1024  # longest side of a kept image, pixels
ANSWERS = "answers"  # the folder of what was answered
MODEL = "model.json"
WAITING = 8  # images that may wait to be written; more are not kept
_QUALITY = 90
_DAY = 86_400.0  # seconds
_PRUNE_EVERY = 60.0  # seconds, whether or not images come
_CLOSE_EVERY = 0.5  # seconds after which a thread that is to end is looked at again
_NAME = re.compile(r"\d{8}-[0-9a-f]{16}")  # <day>-<hash>
_PARTIAL = re.compile(_NAME.pattern + r"\.(jpg|json)\.partial")
_OF_DISKS = "lost+found"  # of a volume that is empty otherwise


def check_place(folder: Path) -> None:
    """Checks that a folder is new, empty or an earlier collection; hidden files do not count.

    Raises:
        UserError: it holds other files, among which images would come and go.
    """
    if not folder.is_dir() or (folder / ANSWERS / MODEL).is_file():
        return
    # A server that was killed at its first image may have left an empty folder of answers.
    if any(not p.name.startswith(".") and p.name not in (ANSWERS, _OF_DISKS) for p in folder.iterdir()):
        raise UserError(
            f"--collect={folder}: is a folder of other files, there is no {ANSWERS}/{MODEL} in it; name a new one"
        )


@dataclass(frozen=True)
class Keep:
    """What is kept, and for how long.

    Attributes:
        folder: where.
        sample: share of the images that are kept though they were answered; those that were rejected always are.
        bytes: of all files; the oldest go first.
        days: after which an image goes.
        max_pixels: see `images.decode`; what is answered with a limit is kept with the same.
    """

    folder: Path
    sample: float = 0.0
    bytes: int = 10**9
    days: float = 30.0
    max_pixels: int = images.MAX_PIXELS


class _Kept(NamedTuple):
    """An image in the folder, with its answer.

    Attributes:
        photo: the image's file.
        note: the answer's.
        bytes: of both.
        time: when it was kept, seconds since 1970.
    """

    photo: Path
    note: Path
    bytes: int
    time: float


class Collector:
    """Keeps images; `offer` returns at once and never raises.

    Attributes:
        counts: of images, by what came of them: 'kept', 'busy' (too many waited), 'failed' (a full disk), 'removed'
            (by size or age).
    """

    def __init__(
        self,
        keep: Keep,
        model: str,
        classes: Sequence[str],
        say: Callable[[str], None] = lambda line: None,
        seed: int | None = None,
    ):
        """Starts.

        Args:
            keep: what to keep.
            model: its name.
            classes: its classes.
            say: is told when writing or removing begins to fail, and when writing works again.
            seed: of the sample; None for one that nobody knows.
        """
        self.keep, self.say = keep, say
        self._about = json.dumps({"model": model, "classes": list(classes)}, ensure_ascii=False).encode()
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._queue: queue.Queue[tuple[bytes, Answer, str] | None] = queue.Queue(WAITING)
        self._failing = self._stuck = False
        self._kept: dict[str, _Kept] = {}  # by the name without ending
        self._pruned = 0.0
        self._thread = threading.Thread(target=self._work, name="collect", daemon=True)
        self._thread.start()

    def offer(self, data: bytes, answer: Answer) -> None:
        """Keeps an image if it is to be kept, and if there is time for it.

        Args:
            data: the encoded image.
            answer: what was answered, with at least one guess.
        """
        why = "not sure" if answer.rejected else "sample"
        if why == "sample" and self._random.random() >= self.keep.sample:
            return
        try:
            self._queue.put_nowait((data, answer, why))
        except queue.Full:
            self.counts["busy"] += 1

    def close(self) -> None:
        """Writes what waits, and ends."""
        while self._thread.is_alive():  # a queue that nobody reads any more would never take it
            with suppress(queue.Full):
                self._queue.put(None, timeout=_CLOSE_EVERY)
                break
        self._thread.join()

    def _work(self) -> None:
        with suppress(OSError):
            self._look()
        self._remove_old()
        while True:
            try:
                offered = self._queue.get(timeout=_PRUNE_EVERY)
            except queue.Empty:
                self._remove_old()  # what is too old goes whether or not another image comes
                continue
            if offered is None:
                return
            try:
                self._write(*offered)
                self._prune()
            except (OSError, images.BadImage, ValueError, MemoryError) as error:
                self.counts["failed"] += 1
                if not self._failing:
                    why = reason(error) if isinstance(error, OSError | ValueError) else "out of memory"
                    self.say(
                        f"--collect={self.keep.folder}: an image could not be kept ({why}); answers go on"
                    )
                self._failing = True
                with suppress(OSError):  # a full disk may have room once the oldest are gone
                    self._prune(always=True)
            else:
                if self._failing:
                    self.say(f"--collect={self.keep.folder}: images are kept again")
                self._failing = False

    def _remove_old(self) -> None:
        """Removes what is too old; says once that it cannot."""
        try:
            self._prune(always=True)
        except OSError as error:
            if not self._stuck:
                self.say(f"--collect={self.keep.folder}: an image could not be removed ({reason(error)})")
            self._stuck = True
        else:
            self._stuck = False

    def _look(self) -> None:
        """Finds what is there from before."""
        for path in self.keep.folder.glob("*/*.partial"):
            if _PARTIAL.fullmatch(path.name):
                path.unlink()  # of a process that was killed
        for note in self.keep.folder.glob(f"{ANSWERS}/*.json"):
            found = self._found(note) if _NAME.fullmatch(note.stem) else None
            if found is not None:
                self._kept[note.stem] = found

    def _found(self, note: Path) -> _Kept | None:
        """Returns an answer with its image; None where that is not there, or the file is no answer."""
        try:
            about = json.loads(note.read_bytes())
            folder, name = str(about["file"]).split("/")
        except (OSError, ValueError, KeyError, TypeError):
            return None
        photo = self.keep.folder / folder / name
        if name != f"{note.stem}.jpg" or folder == ".." or not photo.is_file():
            return None
        # Not the file's time, which a copy of the folder may have anew.
        when = _time_of(str(about.get("time", "")), note.stem[:8])
        return _Kept(photo, note, note.stat().st_size + photo.stat().st_size, when)

    def _write(self, data: bytes, answer: Answer, why: str) -> None:
        digest = hashlib.sha256(data).hexdigest()[:16]
        if any(name.endswith(digest) for name in self._kept):
            return  # the same bytes, sent again
        now = time.time()
        name = f"{time.strftime('%Y%m%d', time.gmtime(now))}-{digest}"
        image = images.decode(data, min_side=SIDE, max_pixels=self.keep.max_pixels)
        image.thumbnail((SIDE, SIDE))
        encoded = images.jpeg(image, _QUALITY)
        about: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            "why": why,
            **answer.to_dict(),
            "file": f"{folder_name(answer.guesses[0].label)}/{name}.jpg",
        }
        text = json.dumps(about, ensure_ascii=False).encode()
        photo, note = self.keep.folder / about["file"], self.keep.folder / ANSWERS / f"{name}.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        about_model = note.parent / MODEL
        if not about_model.is_file():  # first, as it makes the folder a collection
            write_bytes(about_model, self._about)
        photo.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(note, text)
        try:
            write_bytes(photo, encoded)
        except OSError:
            note.unlink(missing_ok=True)
            raise
        self._kept[name] = _Kept(photo, note, len(text) + len(encoded), now)
        self.counts["kept"] += 1

    def _prune(self, always: bool = False) -> None:
        """Removes what is too old, and of the rest the oldest while there is too much."""
        now, total = time.time(), sum(kept.bytes for kept in self._kept.values())
        if not always and total <= self.keep.bytes and now - self._pruned < _PRUNE_EVERY:
            return
        self._pruned = now
        for name in sorted(self._kept, key=lambda name: (self._kept[name].time, name)):
            kept = self._kept[name]
            if now - kept.time <= self.keep.days * _DAY and total <= self.keep.bytes:
                break
            for path in (kept.photo, kept.note):
                path.unlink(missing_ok=True)
            total -= kept.bytes
            del self._kept[name]
            self.counts["removed"] += 1


def _time_of(text: str, day: str) -> float:
    """Returns the time of an answer, seconds since 1970; the beginning of its day where it tells none."""
    for told in (text, day):
        with suppress(ValueError, OverflowError):
            when = datetime.fromisoformat(told)
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return 0.0


def folder_name(label: str) -> str:
    """Returns a class's name as that of a folder; names with a slash are none that a folder can have."""
    return label.replace("/", "_").replace("\0", "_")
