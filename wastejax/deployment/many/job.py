"""Answers for any number of images, part by part, as Parquet files in a folder; what is done is not done again."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from wastejax.data.collections.parts import Part, parts_of
from wastejax.data.images import MAX_PIXELS
from wastejax.deployment.engines import choose, load_engine, place_of
from wastejax.deployment.many.part_file import Counts, read_counts, write_answers
from wastejax.deployment.predictor import Predictor, nothing_named
from wastejax.errors import UserError
from wastejax.files import put_in_place, write_json
from wastejax.progress import Say

Numbered = tuple[int, Part]
ABOUT = "_predict.json"  # what the parts of a folder were made with
PART_SIZE = 10_000  # images of one file
_PARTIAL = re.compile(r"part-\d{5,}\.partial")


@dataclass(frozen=True)
class Asked:
    """What computes the answers, and how; all that another process needs to do the same.

    Attributes:
        model: a run, a bundle or an exported file; None for the bundled model.
        engine: what computes it, see `load_engine`.
        taxonomy: whose sorting rules, see `load_predictor`.
        threads: for an exported file.
        accuracy: which of the model's thresholds answers must reach to be kept, see `Predictor.naming`.
        reject_below: a threshold of one's own instead.
        max_pixels: see `images.decode`.
        batch_size: images that are computed at once.
    """

    model: str | None = None
    engine: str | None = None
    taxonomy: str | None = None
    threads: int | None = None
    accuracy: float | None = None
    reject_below: float | None = None
    max_pixels: int = MAX_PIXELS
    batch_size: int = 32

    def load(self, say: Say | None = None) -> Predictor:
        """Returns the model.

        Args:
            say: is told what takes long, and where the model names nothing.

        Raises:
            UserError: as of `load_engine` and `Predictor.naming`.
        """
        predictor = load_engine(self.model, self.engine, self.taxonomy, self.threads, say)
        _, least = predictor.naming(self.accuracy, self.reject_below)
        if say is not None and (note := nothing_named(least, self.accuracy)):
            say(f"note: {note}")
        return predictor

    def answer(self, predictor: Predictor, part: Part, sink: Path | IO[bytes]) -> Counts:
        """Writes the answers for a part; see `write_answers`."""
        predictor, least = predictor.naming(self.accuracy, self.reject_below)
        return write_answers(sink, predictor, part, least, self.batch_size, self.max_pixels)


@dataclass(frozen=True)
class Done:
    """What a folder of answers holds: all of it, and what of that was answered now."""

    parts: int
    counts: Counts
    now: Counts


# Answers parts in any order: yields the number of each with what it holds, once its file is complete.
Answerer = Callable[[Iterable[Numbered], Callable[[int], Path]], Iterator[tuple[int, Counts]]]


def predict_parts(
    inputs: Sequence[str],
    out: str | Path,
    asked: Asked,
    part_size: int = PART_SIZE,
    answerer: Answerer | None = None,
    progress: Callable[[Counts], None] = lambda counts: None,
    say: Say = lambda line: None,
) -> Done:
    """Answers images in parts: `out`/part-00000.parquet and so on, each written in one move.

    A part whose file is there is not answered again, so that the same command continues what a killed one began.

    Args:
        inputs: see `parts_of`.
        out: the folder; made where it is not there.
        asked: the model and how it answers.
        part_size: images of a part, where they are single files.
        answerer: computes the parts; None for this process.
        progress: is told how many images are answered so far, those of earlier runs included.
        say: is told what is left out, and what takes long.

    Raises:
        UserError: no images, no such model, or the folder holds answers for other images, by another model or with
            other options.
    """
    folder = Path(out)
    about = _about(inputs, asked, part_size)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if (folder / ABOUT).is_file():  # else what has such a name is the user's
            for left in folder.glob("part-*.partial"):
                if _PARTIAL.fullmatch(left.name):
                    left.unlink(missing_ok=True)
        _claim(folder, about)
        done = _Ledger(folder, progress)
        done.check(lambda: parts_of(inputs, part_size))
        todo = done.missing(parts_of(inputs, part_size, say))
        for number, counts in (answerer or _here(asked, say))(todo, done.path):
            done.add(number, counts)
        done.finish()
        result = Done(done.parts, done.counts, done.now)
        write_json(folder / ABOUT, about | {"finished": {"parts": done.parts, **asdict(done.counts)}})
    return result


def save(path: Path, write: Callable[[IO[bytes]], Any]) -> Any:
    """Writes a file in one move, on disk before it has its name; returns what `write` returns."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            result = write(file)
        put_in_place(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise
    return result


class _Ledger:
    """Which parts there are, and which of them are answered."""

    def __init__(self, folder: Path, progress: Callable[[Counts], None]):
        self._folder, self._progress = folder, progress
        self._known: dict[int, tuple[str, Counts] | None] = {}
        self.parts = 0
        self.counts = self.now = Counts()

    def path(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.parquet"

    def check(self, parts: Callable[[], Iterable[Part]]) -> None:
        """Reads what is answered, and compares it with what is there now, before anything is computed.

        Args:
            parts: lists them; not called where none is answered, and not asked for those after the last that is.

        Raises:
            UserError: a part has changed, or there are fewer of them.
        """
        numbers = [
            int(path.stem[5:]) for path in self._folder.glob("part-*.parquet") if path.stem[5:].isdigit()
        ]
        self._known = {number: read_counts(self.path(number)) for number in sorted(numbers)}
        answered = [number for number, known in self._known.items() if known]
        if not answered:
            return
        for number, part in enumerate(islice(parts(), max(answered) + 1)):
            self.parts = number + 1
            self._same(number, part)
        gone = [number for number in answered if number >= self.parts]
        if gone:
            raise _too_many(self.path(gone[0]))

    def _same(self, number: int, part: Part) -> Counts | None:
        """Returns what the answers for a part hold, None for none; raises a UserError where it has changed."""
        known = self._known.get(number)
        if known is None:
            return None
        digest, counts = known
        if digest != part.digest:
            raise UserError(
                f"{self.path(number)}: answers for other images: what it was made from has changed since; give "
                "another --out, or remove it to have it done again"
            )
        return counts

    def missing(self, parts: Iterable[Part]) -> Iterator[Numbered]:
        """Yields the parts that are not answered yet; raises a UserError where one is that has changed."""
        for number, part in enumerate(parts):
            self.parts = number + 1
            counts = self._same(number, part)
            if counts is None:
                yield number, part
                continue
            self.counts += counts
            self._progress(self.counts)

    def add(self, number: int, counts: Counts) -> None:
        self.counts += counts
        self.now += counts
        self._progress(self.counts)

    def finish(self) -> None:
        """Raises a UserError where there are more parts than images now."""
        if (extra := self.path(self.parts)).is_file():
            raise _too_many(extra)


def _too_many(path: Path) -> UserError:
    return UserError(
        f"{path}: answers for images that are not there any more; give another --out, or remove it"
    )


def _here(asked: Asked, say: Say) -> Answerer:
    """Returns what answers parts in this process, one after the other."""

    def answer(todo: Iterable[Numbered], path: Callable[[int], Path]) -> Iterator[tuple[int, Counts]]:
        predictor = None
        for number, part in todo:
            predictor = predictor or asked.load(say)
            yield number, save(path(number), partial(asked.answer, predictor, part))

    return answer


def _about(inputs: Sequence[str], asked: Asked, part_size: int) -> dict[str, Any]:
    """Returns everything that the answers depend on."""
    options = asdict(asked) | {"engine": choose(asked.model, asked.engine)}
    for same in ("model", "threads", "batch_size"):  # which change no answer; the model counts by its content
        del options[same]
    if asked.taxonomy and Path(asked.taxonomy).is_file():
        options["taxonomy"] = _digest([Path(asked.taxonomy)])
    return {
        "format": 2,  # of the parts: count up when what they hold changes
        "inputs": list(inputs),
        "part_size": part_size,
        "model": _digest(_files_of(asked.model)),
        "options": options,
    }


def _files_of(model: str | None) -> list[Path]:
    """Returns the files that make up a model; raises a UserError where there is none."""
    path = place_of(model)
    files = [path] if path.is_file() else [path / "bundle.json", *sorted(path.glob("*.safetensors"))]
    if not files[0].is_file():
        raise UserError(f"--model={model}: is no run, bundle or exported file")
    return files


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Writes what the parts are made with; raises a UserError where those that are there were made otherwise."""
    path = folder / ABOUT
    if not any(folder.glob("part-*.parquet")):
        write_json(path, about)
        return
    if not path.is_file():
        raise UserError(f"--out={folder}: holds parts of something else; give another folder")
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        flat = {**before, **before["options"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: damaged; give another --out, or remove it and the parts") from None
    now = {**about, **about["options"]}
    other = [key for key in now if key != "options" and json.loads(json.dumps(now[key])) != flat.get(key)]
    if other:
        options = {*about["options"], "part_size", "model"}
        names = ", ".join(f"--{key.replace('_', '-')}" if key in options else key for key in other)
        raise UserError(
            f"--out={folder}: holds answers that were made with another {names}; give "
            "another --out, or the same as before to continue"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes of this machine out of a folder; raises a UserError where one writes there."""
    try:
        import fcntl
    except ImportError:  # Windows; there the move of a file that is open fails, which says enough
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--out={folder}: another process writes answers there") from None
        except OSError:
            pass  # a file system without locks
        yield
