"""The audit as a Parquet file, a row for each image: what pandas, DuckDB or Spark go on from."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from wastejax.auditing.findings import Audit

_ROWS = 10_000  # of a row group
_SCHEMA = pa.schema(
    {
        "file": pa.string(),
        "label": pa.string(),
        "group": pa.int32(),
        "exact": pa.int32(),
        "hash": pa.uint64(),
        "gray": pa.binary(),
        "reason": pa.string(),
    }
)


def write_table(path: Path, found: Audit) -> None:
    """Writes a row for each file, in their order.

    Columns: `file` and `label`; `group`, the same number for near-duplicates, and `exact`, for files of the same
    bytes; `hash`, 64 bits, and `gray`, 32 x 32 bytes, which both come from the pixels and are null where those
    cannot be read; `reason`, why not.

    Args:
        path: the file; replaced if it is there.
        found: by `audit.audit`.
    """
    partial = path.with_name(f"{path.name}.partial")
    source, seen = found.source, found.seen
    with parquet.ParquetWriter(partial, _SCHEMA, compression="zstd") as writer:
        for start in range(0, len(source), _ROWS):
            rows = range(start, min(start + _ROWS, len(source)))
            part = slice(rows.start, rows.stop)
            bad = np.array([i in found.bad for i in rows])
            columns = {
                "file": source.names[part],
                "label": [source.label_name(i) for i in rows],
                "group": found.groups[part],
                "exact": found.exact[part],
                "hash": pa.array(seen.phash[part], mask=bad),
                "gray": [None if i in found.bad else seen.gray[i].tobytes() for i in rows],
                "reason": [found.bad.get(i) for i in rows],
            }
            writer.write_table(pa.table(columns, schema=_SCHEMA))
    partial.replace(path)
