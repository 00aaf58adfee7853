"""What a model says to images: the class, the bin and the probability, and how that is written."""

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from wastejax.data.formats.source import Source
from wastejax.data.images import MAX_PIXELS, BadImage
from wastejax.deployment.images import squares, squares_of
from wastejax.deployment.predictor import Predictor


class Guess(NamedTuple):
    """One class that an image may show: its bin ('' where no rule is known), its probability in [0, 1]."""

    label: str
    bin: str
    probability: float


class Answer(NamedTuple):
    """What a model says to an image.

    Attributes:
        file: its name.
        guesses: the likeliest classes, best first; empty where the image cannot be read.
        rejected: not even the bin is as likely as was asked for: better ask a person; a multi-label model names
            none of its classes.
        error: why the image cannot be read; '' where it can.
        named: the classes that the image shows, best first, by a multi-label model; None by others.
        bin_probability: of the best guess's bin, in [0, 1]: the sum over all of its classes.
        class_sure: the best guess itself is as likely as was asked for, and not only its bin.
        probabilities: of all classes, in the model's order; empty where the image cannot be read.
    """

    file: str
    guesses: tuple[Guess, ...] = ()
    rejected: bool = False
    error: str = ""
    named: tuple[Guess, ...] | None = None
    bin_probability: float = 0.0
    class_sure: bool = False
    probabilities: tuple[float, ...] = ()

    @property
    def bins(self) -> tuple[str, ...]:
        """The bins of the named classes together, each once."""
        return tuple(dict.fromkeys(guess.bin for guess in self.named or () if guess.bin))

    def to_dict(self) -> dict[str, Any]:
        """Returns what `predict --format=json` and the server say, JSON-ready."""
        if self.error:
            return {"file": self.file, "error": self.error}
        answer = {"file": self.file, "rejected": self.rejected, "top": _guesses(self.guesses)}
        if self.named is None:
            sure = {"bin_probability": round(self.bin_probability, 6), "class_sure": self.class_sure}
            return answer | sure
        return answer | {"classes": _guesses(self.named), "bins": list(self.bins)}


def _guesses(guesses: Iterable[Guess]) -> list[dict[str, Any]]:
    return [
        {"class": label, "bin": bin_name, "probability": round(probability, 6)}
        for label, bin_name, probability in guesses
    ]


def answers(
    predictor: Predictor,
    names: Sequence[str],
    top: int = 3,
    batch_size: int = 32,
    reject_below: float = 0.5,
    max_pixels: int = MAX_PIXELS,
    source: Source | None = None,
) -> Iterator[Answer]:
    """Yields one answer per image, in order.

    Args:
        predictor: the model.
        names: of `images.find`.
        top: guesses per image.
        batch_size: images that are computed at once; all batches have this size, so that one program does.
        reject_below: probability under which an answer is rejected.
        max_pixels: see `images.decode`.
        source: a data set whose images have these names; None where they are files.
    """
    if source is None:
        decoded = squares(names, predictor.preprocessing, max_pixels)
    else:
        items = ((name, partial(source.read, i)) for i, name in enumerate(names))
        decoded = squares_of(items, predictor.preprocessing, max_pixels)
    yield from answers_to(predictor, decoded, top, batch_size, reject_below)


def answers_to(
    predictor: Predictor,
    decoded: Iterator[tuple[str, np.ndarray | BadImage]],
    top: int,
    batch_size: int,
    reject_below: float,
) -> Iterator[Answer]:
    """Yields one answer per image that `images.squares` yields; see `answers` for the other arguments."""
    while chunk := list(islice(decoded, batch_size)):
        good = [square for _, square in chunk if not isinstance(square, BadImage)]
        rows = iter(predictor.batched(good, batch_size))
        for name, square in chunk:
            if isinstance(square, BadImage):
                yield Answer(name, error=str(square), named=() if predictor.multilabel else None)
            else:
                yield interpret(predictor, name, next(rows), top, reject_below)


def interpret(predictor: Predictor, name: str, row: np.ndarray, top: int, reject_below: float) -> Answer:
    """Returns what the probabilities of one image, float32 [C], say; see `answers` for the arguments."""
    order = np.argsort(-row, kind="stable")

    def guess(i: int) -> Guess:
        label = predictor.classes[i]
        return Guess(label, predictor.bin_of(label), float(row[i]))

    answer = Answer(name, tuple(guess(i) for i in order[:top]), probabilities=tuple(row.tolist()))
    if predictor.class_thresholds is None:
        sure, class_sure = predictor.bin_probability(row), bool(row[order[0]] >= reject_below)
        return answer._replace(rejected=not sure >= reject_below, bin_probability=sure, class_sure=class_sure)
    named = tuple(guess(i) for i in order if row[i] >= predictor.class_thresholds[i])
    return answer._replace(rejected=not named, named=named)


def table(rows: Iterable[Answer], names: Sequence[str]) -> Iterator[str]:
    """Yields lines for people: a file, its bin, what it shows, and what else it may be.

    A class that is not as sure as its bin stands among what it may be.
    """
    width = max([len("file"), *(len(printable(name)) for name in names)])
    for number, answer in enumerate(rows):
        if number == 0:
            several = answer.named is not None
            yield f"{'file':{width}}  " + (
                f"{'bins':26} classes" if several else f"{'bin':16} {'p':>6}  {'class':26} {'p':>6}  or else"
            )
        yield f"{printable(answer.file):{width}}  {_cells(answer)}".rstrip()


def _cells(answer: Answer) -> str:
    """Returns what a line of the table says after the file."""
    if answer.error:
        return f"- {answer.error}"
    listed = [f"{guess.label} {guess.probability:.1%}" for guess in answer.guesses]
    if answer.named:
        named = ", ".join(f"{guess.label} {guess.probability:.1%}" for guess in answer.named)
        return f"{' + '.join(answer.bins):26} {named}"
    if answer.named is not None:
        return f"{'none of the classes':26} at most {', '.join(listed)}"
    if answer.rejected:  # neither a bin nor a class is named as the answer
        return f"{'not sure':16} {'':6}  {'':26} {'':6}  perhaps {', '.join(listed)}"
    best = answer.guesses[0]
    sure = f"{best.bin:16} {answer.bin_probability:6.1%}"
    if not answer.class_sure:
        return f"{sure}  {'not sure':26} {'':6}  perhaps {', '.join(listed)}"
    return f"{sure}  {best.label:26} {best.probability:6.1%}  {', '.join(listed[1:])}"


def json_lines(rows: Iterable[Any], names: Sequence[str]) -> Iterator[str]:
    """Yields a JSON list, one image a line, each as soon as it is answered."""
    yield "["
    comma = ""  # before a row: behind it, a camera's answer would have to wait for the next
    for row in rows:
        yield comma + json.dumps(row.to_dict(), ensure_ascii=False)
        comma = ","
    yield "]"


def csv_lines(rows: Iterable[Answer], names: Sequence[str]) -> Iterator[str]:
    """Yields CSV: a header, and one line per guess; a multi-label model rejects those that it does not name."""
    columns = ("file", "rank", "class", "bin", "probability", "rejected", "error")
    yield csv_line(*columns, "bin_probability", "class_sure")
    for answer in rows:
        if answer.error:
            yield csv_line(answer.file, "", "", "", "", "", answer.error, "", "")
        named = answer.named or ()
        # Each once, and equally likely ones in the model's order: that of a set changes from run to run.
        guesses = sorted(dict.fromkeys((*answer.guesses, *named)), key=lambda guess: -guess.probability)
        for rank, guess in enumerate(guesses, 1):
            rejected = answer.rejected if answer.named is None else guess not in named
            cells = (guess.label, guess.bin, f"{guess.probability:.6f}", str(rejected).lower())
            sure = ("", "")
            if answer.named is None:
                sure = (f"{answer.bin_probability:.6f}", str(answer.class_sure).lower())
            yield csv_line(answer.file, rank, *cells, "", *sure)


def csv_line(*cells: object) -> str:
    """Returns one line of CSV, without its end."""
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)  # puts into quotes what holds a part of its own end of line alone
    return text.getvalue().removesuffix("\r\n")


def printable(name: str) -> str:
    """Returns the name of a file as it takes one line and leaves a terminal as it is."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in name)


WRITERS = {"table": table, "json": json_lines, "csv": csv_lines}
