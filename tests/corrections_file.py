"""Files of corrections, as the review page saves them."""

import csv
import io
from collections.abc import Iterable, Sequence

from wastejax.data.corrections import COLUMNS, Row


def to_csv(rows: Iterable[Row | Sequence[str]]) -> str:
    """Returns rows as the text of a file of corrections."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue()
