"""Labeled, grouped and split images in ArrayRecord files, for training from more of them than a folder should hold.

DIR/
  images-00000-<digest>.array_record …   the encoded images as they were, in the order of the source
  index.parquet                          file, label, domain, group, split and phash of each, in the same order

Opening reads a few bytes an image, however large the images are; names and hashes are looked up as they are needed.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wastejax.data.formats.parquet import group_of, parquet_for, rows_of_groups
from wastejax.data.formats.source import Source
from wastejax.data.formats.walk import stamp_of
from wastejax.errors import ConfigError, UserError, imported
from wastejax.files import reason, user_path
from wastejax.progress import Count, first_of

INDEX = "index.parquet"
SHARD_SIZE = 10_000  # images of one file
PREFIX = "shards:"  # of config.data.source
_ABOUT = b"wastejax"  # the key of the JSON text in the index's metadata
_FORMAT = 1
_SHARD = re.compile(r"images-\d{5,}-[0-9a-f]{12}\.array_record")
_PARTIAL = re.compile(rf"({_SHARD.pattern}|index\.parquet)\.partial")
_OPEN = 256  # shards that are open at once
_AHEAD = 64  # images that are read before they are written
# Each image can be read by itself; what is compressed already is not compressed again.
_WRITER = "group_size:1,uncompressed"
_READER = "readahead_buffer_size:0,index_storage_option:offloaded,footer_prefetch_bytes:0"


class Coded(Sequence[str]):
    """N strings of a few values, a small number each; compares with one of them as an array of strings does."""

    def __init__(self, codes: np.ndarray, values: Sequence[str]):
        """Takes codes (int [N]) of the values."""
        self.codes, self.values = codes, tuple(values)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, at: Any) -> Any:
        codes = self.codes[at]
        return self.values[codes] if np.ndim(codes) == 0 else Coded(codes, self.values)

    def __iter__(self) -> Iterator[str]:
        return (self.values[code] for code in self.codes)

    def __contains__(self, value: object) -> bool:
        return value in self.values and bool(np.any(self == value))

    def __eq__(self, value: object) -> Any:
        return self.codes == (self.values.index(value) if value in self.values else -1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype)[self.codes]


class Rows(NamedTuple):
    """What is written.

    Attributes:
        source: N images.
        groups: int [N], near-duplicate groups.
        splits: str [N].
        phash: uint64 [N], perceptual hashes.
    """

    source: Source
    groups: np.ndarray
    splits: np.ndarray
    phash: np.ndarray


class Opened(NamedTuple):
    """What shards hold.

    Attributes:
        source: N images.
        groups: int32 [N], near-duplicate groups.
        splits: of each image.
        digest: changes with any file, label, name of a class, domain, group or split.
        notes: what was noted as they were written.
        skipped: name -> reason, of unreadable files that were left out then.
        made: what `config.data` said of crops and the split then, and the seed that dealt it; empty where an
            earlier version wrote them.
        phash: the perceptual hash of each image.
    """

    source: Source
    groups: np.ndarray
    splits: Coded
    digest: str
    notes: list[str]
    skipped: dict[str, str]
    made: dict[str, Any]
    phash: Sequence[int]


def write_shards(
    out: str | Path,
    rows: Rows,
    about: dict[str, Any] | None = None,
    shard_size: int = SHARD_SIZE,
    progress: Count = lambda done, total: None,
) -> None:
    """Writes images into shards; those of the same images that are there already are kept, and others removed.

    Args:
        out: the folder. Its index is written last and makes it complete.
        rows: the images, each with one label.
        about: `notes`, `skipped` and `made`, see `Opened`.
        shard_size: images of one file.
        progress: called with (images done, N).

    Raises:
        UserError: labels of several meanings, or an image cannot be read.
        OSError: the folder cannot be written.
    """
    source = rows.source
    if source.allowed is not None or source.shown is not None:
        raise UserError("--data: images of several labels, or of partial ones, cannot be written as shards")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.partial"):
        if _PARTIAL.fullmatch(left.name):
            left.unlink()
    files: list[tuple[str, int]] = []
    for start in range(0, len(source), shard_size):
        stop = min(start + shard_size, len(source))
        path = folder / f"images-{len(files):05d}-{_digest(source, start, stop)}.array_record"
        if not path.is_file():
            _write_shard(path, source, start, stop)
        files.append((path.name, stop - start))
        progress(stop, len(source))
    _write_index(folder, rows, (about or {}) | {"files": files})
    named = {name for name, _ in files}
    for left in folder.glob("images-*"):  # by a writing that was stopped, of other images or other sizes
        if _SHARD.fullmatch(left.name) and left.name not in named and left.is_file():
            left.unlink()


def open_shards(root: str | Path, key: str = "config.data.source") -> Opened:
    """Opens what `write_shards` wrote; raises a ConfigError where there is none, or it is damaged or incomplete."""
    folder = user_path(root)
    parquet = parquet_for(f"{key}={PREFIX}{folder}")
    path = folder / INDEX
    if not path.is_file():
        raise ConfigError(
            key, f"{str(folder)!r} holds no {INDEX}: `wastejax shard --data=DIR --out={folder}` makes it"
        )
    try:
        index = parquet.ParquetFile(path, pre_buffer=False)  # or it holds all of the columns at once
        about = json.loads(index.metadata.metadata[_ABOUT])
        if about["format"] != _FORMAT:
            raise ValueError(f"format {about['format']} of a later version")
        of_domain = np.int8 if len(about["domains"]) <= np.iinfo(np.int8).max else np.int32
        labels, domains, groups, splits = _columns(
            index, {"label": np.int32, "domain": of_domain, "group": np.int32, "split": np.int8}
        )
        files = [(folder / name, int(count)) for name, count in about["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            key, f"{path}: damaged ({str(error).partition(chr(10))[0]}); write it again"
        ) from None
    lost = [file.name for file, _ in files if not file.is_file()]
    if lost:
        raise ConfigError(key, f"{folder}: lacks {first_of(lost, 1)}")
    cut = [file.name for file, count in files if _number_of_images(str(file)) != count]
    if cut:
        raise ConfigError(key, f"{folder}: {cut[0]} is damaged; copy or write it again")
    coded, stamp = Coded(splits, about["splits"]), stamp_of(path)
    ends = np.cumsum([count for _, count in files])
    source = Source(
        names=_Column(path, stamp, "file", len(labels)),  # type: ignore[arg-type]  # a sequence, of more than a tuple should hold
        labels=labels,
        classes=tuple(about["classes"]),
        domains=Coded(domains, about["domains"]),  # type: ignore[arg-type]
        splits=coded,  # type: ignore[arg-type]
        read=ReadShards(
            tuple(str(file) for file, _ in files), ends, tuple(stamp_of(file) for file, _ in files)
        ),
        stamps=_Stamps(about["digest"], len(labels)),  # type: ignore[arg-type]
        origin=str(folder.resolve()),
    )
    said = (about["digest"], about["notes"], about["skipped"], about.get("made", {}))
    return Opened(source, groups, coded, *said, _Column(path, stamp, "phash", len(labels)))


def _columns(index: Any, dtypes: dict[str, type[np.integer]]) -> list[np.ndarray]:
    """Returns columns of a Parquet file; of the file itself, only some rows are in memory at a time."""
    import pyarrow

    columns = [np.empty(index.metadata.num_rows, dtype) for dtype in dtypes.values()]
    start = 0
    for rows in index.iter_batches(columns=list(dtypes), use_threads=False):
        for name, column in zip(dtypes, columns, strict=True):
            column[start : start + len(rows)] = rows[name]
        start += len(rows)
    pyarrow.default_memory_pool().release_unused()  # or it keeps as much again
    return columns


@dataclass(frozen=True, eq=False)
class ReadShards:
    """Reads an encoded image by its index; picklable and safe in threads.

    Attributes:
        paths: the shards.
        ends: int64, the index after the last image of each.
        stamps: of the shards, so that one that was written anew is opened anew.
    """

    paths: tuple[str, ...]
    ends: np.ndarray
    stamps: tuple[str, ...]

    def __call__(self, index: int) -> bytes:
        """Returns the bytes of one image; raises OSError."""
        at = int(np.searchsorted(self.ends, index, side="right"))
        position = index - (int(self.ends[at - 1]) if at else 0)
        try:
            return bytes(_reader(self.paths[at], self.stamps[at]).read([position])[0])
        except (RuntimeError, ValueError, IndexError) as error:
            raise OSError(f"{self.paths[at]}: {str(error).partition(chr(10))[0]}") from None


class _Column(Sequence[Any]):
    """The names or hashes of all images, of which one group of rows is in memory at a time."""

    def __init__(self, path: Path, stamp: str, column: str, count: int):
        self._file, self._column, self._count = (str(path), stamp), column, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(self._count))]
        at = int(at) + self._count if at < 0 else int(at)
        if not 0 <= at < self._count:
            raise IndexError(at)
        group, place = group_of(*self._file, at)
        return _cells_of(*self._file, self._column, group)[place]

    def __iter__(self) -> Iterator[Any]:
        for group in range(len(rows_of_groups(*self._file))):
            yield from _cells_of(*self._file, self._column, group)


class _Stamps(Sequence[str]):
    def __init__(self, digest: str, count: int):
        self._digest, self._count = digest, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: Any) -> Any:
        return f"{self._digest}-{at}"


def _write_shard(path: Path, source: Source, start: int, stop: int) -> None:
    module = _array_record("wastejax shard")
    partial = path.with_name(f"{path.name}.partial")
    writer = module.ArrayRecordWriter(str(partial), _WRITER)
    with ThreadPoolExecutor(_AHEAD // 8) as pool:
        for first in range(start, stop, _AHEAD):
            indices = range(first, min(first + _AHEAD, stop))
            for index, read in [(i, pool.submit(source.read, i)) for i in indices]:
                try:
                    data = read.result()
                except OSError as error:
                    writer.close()
                    partial.unlink(missing_ok=True)
                    why = f"cannot be read any more ({reason(error)})"
                    raise UserError(f"{source.names[index]}: {why}") from None
                writer.write(data)
    writer.close()
    partial.replace(path)


def _write_index(folder: Path, rows: Rows, about: dict[str, Any]) -> None:
    """Writes the index in one move; so many rows at once that names take little memory."""
    import pyarrow as pa

    parquet = parquet_for("wastejax shard")
    source, groups, splits, phash = rows
    values = {"domains": sorted(set(source.domains)), "splits": sorted(set(np.asarray(splits).tolist()))}
    domains, dealt = ({name: i for i, name in enumerate(values[key])} for key in ("domains", "splits"))
    digest = hashlib.blake2b(digest_size=16)
    schema = pa.schema(
        [
            ("file", pa.string()), ("label", pa.int32()), ("domain", pa.int32()),
            ("group", pa.int32()), ("split", pa.int8()), ("phash", pa.uint64()),
        ]
    )  # fmt: skip
    path, partial = folder / INDEX, folder / f"{INDEX}.partial"
    with parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
        for start in range(0, len(source), SHARD_SIZE):
            part = slice(start, min(start + SHARD_SIZE, len(source)))
            columns: dict[str, Any] = {
                "file": [source.names[i] for i in range(start, part.stop)],
                "label": source.labels[part],
                "domain": [domains[source.domains[i]] for i in range(start, part.stop)],
                "group": groups[part].astype(np.int32),
                "split": [dealt[str(split)] for split in splits[part]],
                "phash": phash[part],
            }
            table = pa.table(columns, schema)
            said = [columns[name] for name in ("file", "domain", "split")]
            digest.update(repr(said).encode("utf-8", "surrogateescape"))
            digest.update(columns["label"].tobytes() + columns["group"].tobytes())
            writer.write_table(table)
        about = {"notes": [], "skipped": {}, **about, **values, "classes": source.classes, "format": _FORMAT}
        digest.update(json.dumps([about["files"], values, source.classes]).encode())
        writer.add_key_value_metadata(
            {_ABOUT: json.dumps(about | {"digest": digest.hexdigest()}, ensure_ascii=False)}
        )
    partial.replace(path)


def _digest(source: Source, start: int, stop: int) -> str:
    digest = hashlib.blake2b(source.origin.encode("utf-8", "surrogateescape"), digest_size=6)
    for i in range(start, stop):
        digest.update(f"{source.names[i]}\n{source.stamps[i]}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@lru_cache(maxsize=_OPEN)
def _reader(path: str, stamp: str) -> Any:
    return _array_record(path).ArrayRecordReader(path, _READER)


def _number_of_images(path: str) -> int:
    """Returns how many images a shard holds: of one that is cut, its reader says 0 and gives empty images."""
    try:
        reader = _array_record(path).ArrayRecordReader(path)
        count = int(reader.num_records())
        reader.close()  # raises what opening met
    except (RuntimeError, ValueError):
        return 0
    return count


@lru_cache(maxsize=4)
def _cells_of(path: str, stamp: str, column: str, group: int) -> list[Any]:
    table = parquet_for(path).ParquetFile(path).read_row_group(group, columns=[column])
    return list(table[column].to_pylist())


def _array_record(what: str) -> Any:
    return imported("array_record.python.array_record_module", what, "array-record")
