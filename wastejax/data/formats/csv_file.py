"""CSV files as programs and spreadsheets of any country write them."""

import codecs
import csv
import io
import unicodedata
from collections import Counter
from collections.abc import Collection
from typing import Any

SEPARATORS = ",;\t|"  # a spreadsheet writes semicolons where the comma is in numbers


def composed(label: str) -> str:
    """Returns a label in NFC: macOS writes Korean and accented letters in parts, and it is the same label."""
    return unicodedata.normalize("NFC", label)


class Spelling:
    """Finds names of files as the data have them: Windows writes backslashes, macOS Korean and accents in parts."""

    def __init__(self, names: Collection[str]) -> None:
        """Takes the names of the data, in which each is looked up: a set, or the keys of a dictionary."""
        self._names = names
        self._of_composed: dict[str, str] | None = None

    def __call__(self, name: str) -> str:
        """Returns a name as the data have it; as it is, where they have none like it or several."""
        plain = name.replace("\\", "/")  # which the names of files elsewhere may hold
        if name in self._names or plain in self._names:
            return name if name in self._names else plain
        if plain.isascii():
            return name
        if self._of_composed is None:
            whole = [(composed(known), known) for known in self._names]
            count = Counter(key for key, _ in whole)
            self._of_composed = {key: known for key, known in whole if count[key] == 1}
        return self._of_composed.get(composed(plain), name)


class _Rows(csv.DictReader):
    """Rows that have no more cells than the head: what is in these would be lost."""

    def __next__(self) -> dict[str | Any, str | Any]:
        row = super().__next__()
        further = [cell.strip() for cell in row.pop(None, ())]
        if any(further):
            separator = self.reader.dialect.delimiter
            raise csv.Error(
                f"line {self.line_num} has more cells than the head, {', '.join(filter(None, further))[:200]!r}; "
                f"quote a cell that holds {separator!r}"
            )
        return row


def csv_reader(data: bytes, known: Collection[str] = (), separator: str = "") -> "csv.DictReader[str]":
    """Returns a reader of the rows of a CSV file, whose cells are as they are written.

    Args:
        data: the file, in UTF-8 or UTF-16; a byte-order mark is passed over.
        known: names of columns, in lower case, which may be spelled in capitals and stand amid spaces.
        separator: between cells; '' for what the first line has most of.

    Raises:
        csv.Error: it is in another encoding; reading the rows raises it too, as of one that has more cells than the
            head.
    """
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise csv.Error(f"it is not in UTF-8 (byte {error.start:,}); save it as 'CSV UTF-8'") from None
    first = text.partition("\n")[0]
    separator = separator or max(SEPARATORS, key=first.count)
    # Names may begin with a space, but hardly where the head's own do.
    padded = f"{separator} " in first
    reader = _Rows(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=padded, restval="")
    names = [(name, name.strip().lower()) for name in reader.fieldnames or ()]
    reader.fieldnames = [plain if plain in known else name for name, plain in names]
    return reader
