"""The answers for one part of the images as a Parquet file: written as they come, and recognized again.

Columns: file, answer (the likeliest class), bin, probability (its), bin_probability (its bin's),
kept (the bin is at or above the threshold), class_sure (the class is too), probabilities (of all classes, in the
order of `classes` in the file's metadata), reason (why the image cannot be read, else ''). Of a multi-label model
classes (those that are named) and bins (theirs) replace bin_probability and class_sure; kept: it names any.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from wastejax.data.collections.parts import Part, images
from wastejax.data.formats.parquet import parquet_for
from wastejax.data.images import MAX_PIXELS
from wastejax.deployment.answers import Answer, answers_to
from wastejax.deployment.images import squares_of
from wastejax.deployment.predictor import Predictor

_ABOUT = b"wastejax"  # the key of the JSON text in a part's metadata
_ROWS_AT_ONCE = 4096  # in memory


@dataclass(frozen=True)
class Counts:
    """How many images a part has, and how many of them cannot be read."""

    images: int = 0
    unreadable: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.images + other.images, self.unreadable + other.unreadable)


def write_answers(
    sink: str | Path | IO[bytes],
    predictor: Predictor,
    part: Part,
    reject_below: float,
    batch_size: int = 32,
    max_pixels: int = MAX_PIXELS,
) -> Counts:
    """Answers the images of a part and writes them as a Parquet file; returns how many there were.

    Args:
        sink: the file.
        predictor: the model.
        part: the images.
        reject_below: probability under which an answer is not kept; see `Predictor.naming`.
        batch_size: images that are computed at once.
        max_pixels: see `images.decode`.

    Raises:
        OSError: the file cannot be written.
    """
    parquet = parquet_for("--out=DIR")
    import pyarrow as pa

    schema = _schema(pa, len(predictor.classes), predictor.multilabel)
    counts = Counts()
    rows = _rows(predictor, part, reject_below, batch_size, max_pixels)
    with parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        while chunk := list(islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(chunk, schema))
            counts += Counts(len(chunk), sum(bool(row["reason"]) for row in chunk))
        about = {"digest": part.digest, "classes": predictor.classes, **asdict(counts)}
        writer.add_key_value_metadata({_ABOUT: json.dumps(about, ensure_ascii=False)})
    return counts


def read_counts(path: Path) -> tuple[str, Counts] | None:
    """Returns the digest of the part that a file answers, and what it holds; None where it is damaged."""
    parquet = parquet_for("--out=DIR")
    try:
        about = json.loads(parquet.read_metadata(path).metadata[_ABOUT])
        return about["digest"], Counts(about["images"], about["unreadable"])
    except (OSError, ValueError, KeyError, TypeError):  # a power cut may leave a file without its content
        return None


def unreadable(path: Path) -> Iterator[tuple[str, str]]:
    """Yields name and reason of the images of a part that cannot be read."""
    parquet = parquet_for("--out=DIR")
    for row in parquet.read_table(
        path, columns=["file", "reason"], filters=[("reason", "!=", "")]
    ).to_pylist():
        yield row["file"], row["reason"]


def _schema(pa: Any, classes: int, several: bool) -> Any:
    names = pa.list_(pa.string())
    sure = [("bin_probability", pa.float32())]
    return pa.schema(
        [
            ("file", pa.string()),
            ("answer", pa.string()),
            ("bin", pa.string()),
            ("probability", pa.float32()),
            *([("classes", names), ("bins", names)] if several else sure),
            ("probabilities", pa.list_(pa.float32(), classes)),
            ("kept", pa.bool_()),
            *([] if several else [("class_sure", pa.bool_())]),
            ("reason", pa.string()),
        ]
    )


def _rows(
    predictor: Predictor, part: Part, reject_below: float, batch_size: int, max_pixels: int
) -> Iterator[dict[str, Any]]:
    """Yields one row an image, in order."""
    decoded = squares_of(images(part), predictor.preprocessing, max_pixels)
    for answer in answers_to(predictor, decoded, 1, batch_size, reject_below):
        # Names that are not UTF-8, as old archives have them, with their odd bytes as escapes.
        file = answer.file.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        yield {"file": file, "kept": not answer.rejected, "reason": answer.error} | _said(answer)


def _said(answer: Answer) -> dict[str, Any]:
    """Returns what a row holds of an answer itself."""
    if answer.error:
        return {"kept": False} | ({"class_sure": False} if answer.named is None else {})
    (best,) = answer.guesses
    said = {
        "answer": best.label,
        "bin": best.bin,
        "probability": best.probability,
        "probabilities": np.array(answer.probabilities, np.float32),  # in fewer bytes until they are written
    }
    if answer.named is None:
        return said | {"bin_probability": answer.bin_probability, "class_sure": answer.class_sure}
    return said | {"classes": [guess.label for guess in answer.named], "bins": list(answer.bins)}
