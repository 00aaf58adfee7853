"""Random access to encoded pictures with labels: a class folder, the Kaggle layout, or a TFDS data set."""

import os
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.errors import ConfigError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
DOMAINS = ("default", "real_world")
_IGNORED = frozenset({"__macosx", "thumbs.db"})
_SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, eq=False)
class Source:
    """N labelled pictures, still encoded.

    Attributes:
        names: unique POSIX names, relative to the folder that holds the class folders
            (`shoes/default/Image_3.png`) or the `train/ val/ test/` folders (`train/shoes/Image_3.png`).
        labels: int32 [N], index into `classes`.
        classes: class names, sorted.
        domains: one per picture: 'default', 'real_world', or '' where the layout does not say.
        splits: 'train', 'val' or 'test' per picture where the data come split, else None.
        read: index -> encoded bytes; picklable and safe in threads. Raises OSError.
        stamps: one per picture; another stamp means that the content may have changed.
        notes: what the reader should know, one line each.
        empty_folders: folders beside the class folders that hold no picture.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    splits: tuple[str, ...] | None
    read: Callable[[int], bytes]
    stamps: tuple[str, ...]
    notes: tuple[str, ...] = ()
    empty_folders: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def select(self, indices: Sequence[int] | np.ndarray) -> "Source":
        """Returns the pictures at `indices` (int [M]) alone; classes that have none left are dropped."""
        indices = np.asarray(indices, np.int64)
        kept, labels = np.unique(self.labels[indices], return_inverse=True)

        def pick(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[i] for i in indices)

        return replace(
            self,
            names=pick(self.names),
            labels=labels.astype(np.int32),
            classes=tuple(self.classes[i] for i in kept),
            domains=pick(self.domains),
            splits=None if self.splits is None else pick(self.splits),
            read=_ReadSubset(self.read, indices),
            stamps=pick(self.stamps),
        )


@dataclass(frozen=True, eq=False)
class _ReadSubset:
    read: Callable[[int], bytes]
    indices: np.ndarray

    def __call__(self, index: int) -> bytes:
        return self.read(int(self.indices[index]))


@dataclass(frozen=True)
class _ReadFiles:
    root: Path
    paths: tuple[str, ...]

    def __call__(self, index: int) -> bytes:
        return (self.root / self.paths[index]).read_bytes()


def open_source(source: str, root: str) -> Source:
    """Opens what `config.data.source` and `config.data.dir` name.

    Args:
        source: 'folder', or 'tfds:NAME' (which may carry a version: `tfds:household_waste:1.0.0`).
        root: the folder of pictures, or the TFDS data directory ('' for the TFDS default).

    Raises:
        ConfigError: no such source, or nothing usable in it.
    """
    if source == "folder":
        return open_folder(root)
    if source.startswith("tfds:") and len(source) > len("tfds:"):
        return open_tfds(source.removeprefix("tfds:"), root)
    raise ConfigError("config.data.source", f"must be 'folder' or 'tfds:NAME', is {source!r}")


def open_folder(root: str | Path, key: str = "config.data.dir") -> Source:
    """Opens a folder of class folders.

    Single folders above the class folders are passed through (`images/images/<class>/…`), everything below a
    class folder belongs to that class, and a `default` or `real_world` folder directly in it names the domain.
    Folders named train, val (valid, validation) and test above the class folders give the split; `train` alone
    counts as a wrapper. Names are NFC-normalised, so that Korean ones from macOS and Linux are the same.

    Args:
        root: the folder.
        key: what to call it in error messages.

    Raises:
        ConfigError: the folder is missing or not readable, has no pictures, or its layout is not understood.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise ConfigError(key, f"{str(root)!r} {problem}; give a folder with one sub-folder per class")
    found = sorted(_find_pictures(root, key), key=lambda item: [_readable(part) for part in item[0]])
    if not found:
        kinds = ", ".join(sorted(extension[1:] for extension in EXTENSIONS))
        raise ConfigError(key, f"no pictures ({kinds}) below {str(root)!r}")
    depth = _wrapper_depth([path for path, _ in found])
    inside = [(path, stamp) for path, stamp in found if len(path) > depth + 1]
    if not inside:
        raise ConfigError(
            key, f"the pictures lie directly in {str(root)!r}; put them in one sub-folder per class"
        )
    paths = [path[depth:] for path, _ in inside]
    splits = _folder_splits(paths, key)
    labels_at = 0 if splits is None else 1
    folders = [_readable(path[labels_at]) for path in paths]
    classes = tuple(sorted(set(folders)))
    index = {name: i for i, name in enumerate(classes)}
    below = [path[labels_at + 1] if len(path) > labels_at + 2 else "" for path in paths]
    raw = tuple("/".join(path) for path in paths)
    names = tuple(_readable(path) for path in raw)
    top = root.joinpath(*inside[0][0][:depth]).absolute()
    above = [top] if splits is None else [top / head for head in {path[0] for path in paths}]
    loose = len(found) - len(inside)
    # Two files whose names differ in their normal form alone keep apart by escapes.
    unique = len(set(names)) == len(names)
    return Source(
        names=names if unique else tuple(ascii(path)[1:-1] for path in raw),
        labels=np.array([index[name] for name in folders], np.int32),
        classes=classes,
        domains=tuple(name if name in DOMAINS else "" for name in below),
        splits=splits,
        read=_ReadFiles(top, raw),
        stamps=tuple(stamp for _, stamp in inside),
        notes=(f"pictures beside the class folders, left out: {loose:,}",) if loose else (),
        empty_folders=tuple(sorted({name for folder in above for name in _folders(folder)} - set(classes))),
    )


def open_pictures(root: str | Path, key: str) -> Source:
    """Opens every picture at any depth below a folder, whatever the folders mean, as one class without a name.

    Args:
        root: the folder.
        key: what to call it in error messages.

    Raises:
        ConfigError: the folder is missing or not readable, or has no pictures.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ConfigError(key, f"{str(root)!r} {'is not a folder' if root.exists() else 'does not exist'}")
    found = sorted(_find_pictures(root, key))
    if not found:
        raise ConfigError(key, f"no pictures below {str(root)!r}")
    raw = tuple("/".join(path) for path, _ in found)
    return Source(
        names=tuple(ascii(path)[1:-1] for path in raw),
        labels=np.zeros(len(raw), np.int32),
        classes=("",),
        domains=("",) * len(raw),
        splits=None,
        read=_ReadFiles(root.absolute(), raw),
        stamps=tuple(stamp for _, stamp in found),
    )


def _find_pictures(
    folder: Path, key: str, above: tuple[str, ...] = (), seen: frozenset[str] = frozenset()
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields (parts of the path below the root, stamp) of each picture file, in no particular order.

    Links to folders are followed, except back to a folder that they lie in. A link that leads nowhere is
    yielded like a file, to be reported as unreadable.
    """
    seen |= {os.path.realpath(folder)}
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise ConfigError(key, f"cannot list {str(folder)!r}: {error.strerror}") from error
    for entry in entries:
        if _ignored(entry.name):
            continue
        path = (*above, entry.name)
        if entry.is_dir():
            if os.path.realpath(entry.path) not in seen:
                yield from _find_pictures(Path(entry.path), key, path, seen)
        elif Path(entry.name).suffix.lower() in EXTENSIONS and (entry.is_file() or entry.is_symlink()):
            yield path, _stamp(entry)


def _folders(folder: Path) -> set[str]:
    """Returns the names of the folders in a folder."""
    return {
        _readable(entry.name) for entry in os.scandir(folder) if entry.is_dir() and not _ignored(entry.name)
    }


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _IGNORED


def _stamp(entry: os.DirEntry) -> str:
    try:
        stat = entry.stat()
    except OSError:
        return "missing"
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _wrapper_depth(paths: list[tuple[str, ...]]) -> int:
    """Counts the single folders above the class (or split) folders.

    A single folder is a class, not a wrapper, if there are only domains and pictures in it, or pictures and one
    more folder.
    """
    depth = 0
    while True:
        # Pictures that lie loose at this level do not count.
        inside = [path for path in paths if len(path) > depth + 1]
        deeper = [path for path in inside if len(path) > depth + 2]
        folders = {path[depth + 1] for path in deeper}
        single = len({path[depth] for path in inside}) == 1
        if not single or folders <= set(DOMAINS) or (len(deeper) < len(inside) and len(folders) < 2):
            return depth
        depth += 1


def _folder_splits(paths: list[tuple[str, ...]], key: str) -> tuple[str, ...] | None:
    """Returns the split of each picture where the topmost folders are train, val and test, else None."""
    heads = {path[0] for path in paths}
    known = {head for head in heads if head.lower() in _SPLIT_FOLDERS}
    if not any(head.lower() == "train" for head in known) or len(known) < 2:
        return None
    if known != heads:
        other = ", ".join(sorted(heads - known))
        raise ConfigError(
            key, f"folders beside train, val and test are not understood: {other}; move them away"
        )
    flat = next((path for path in paths if len(path) < 3), None)
    if flat:
        raise ConfigError(
            key, f"{'/'.join(flat)!r} lies in no class folder; expected {flat[0]}/<class>/{flat[1]}"
        )
    return tuple(_SPLIT_FOLDERS[path[0].lower()] for path in paths)


def _readable(path: str) -> str:
    """NFC, with bytes that are not UTF-8 (old Korean archives) written as escapes: printable everywhere."""
    return unicodedata.normalize("NFC", os.fsencode(path).decode("utf-8", "backslashreplace"))


def open_tfds(name: str, data_dir: str, key: str = "config.data.source") -> Source:
    """Opens a prepared TFDS data set that has an `image` and a `label`, without TensorFlow.

    Pictures stay encoded and are read at random from ArrayRecord files. The splits train, validation and test are
    kept where there are several; the features `domain` and `file_name` are used where there are any.

    Args:
        name: as TFDS writes it, `household_waste` or `household_waste:1.0.0`.
        data_dir: TFDS data directory; '' for the TFDS default.
        key: what to call it in error messages.

    Raises:
        ConfigError: there is no such data set, it is not prepared, or it is not one of labelled pictures.
    """
    import tensorflow_datasets as tfds  # takes seconds, and only this source needs it

    builder = _tfds_builder(name, data_dir, key)
    features = builder.info.features
    if not {"image", "label"} <= set(features or ()) or not isinstance(
        features["label"], tfds.features.ClassLabel
    ):
        raise ConfigError(key, f"{name!r} has no features 'image' and 'label' (a class); it cannot be used")
    undecoded = {
        k: tfds.decode.SkipDecoding() for k in features if isinstance(features[k], tfds.features.Image)
    }
    parts, records, notes = [], [], []
    for split in builder.info.splits:
        part = builder.as_data_source(split, decoders=undecoded)
        known = _SPLIT_FOLDERS.get(split)
        if len(builder.info.splits) > 1 and known is None:
            notes.append(f"TFDS split {split!r} is left out ({len(part):,} pictures)")
            continue
        parts.append(part)
        records += [_tfds_record(part[i], f"{split}/{i:06d}", known) for i in range(len(part))]
    if not records:
        raise ConfigError(key, f"{name!r} has no pictures")
    names, numbers, domains, splits, stamps = zip(*records, strict=True)
    classes = sorted(features["label"].names)
    position = np.array([classes.index(label) for label in features["label"].names])
    source = Source(
        names=names if len(set(names)) == len(names) else tuple(f"{i:06d}/{n}" for i, n in enumerate(names)),
        labels=position[list(numbers)].astype(np.int32),
        classes=tuple(classes),
        domains=domains,
        splits=splits if len(parts) > 1 else None,
        read=_ReadRecords(tuple(parts)),
        stamps=stamps,
        notes=tuple(notes),
    )
    # Test splits published without labels carry -1.
    return source.select(np.flatnonzero(np.array(numbers) >= 0))


def _tfds_builder(name: str, data_dir: str, key: str) -> Any:
    """Returns the TFDS builder of a data set that is prepared for random access."""
    import tensorflow_datasets as tfds

    where = str(Path(data_dir).expanduser()) if data_dir else None
    make = (
        "python -m wastejax.data.household_waste --archive=ARCHIVE"
        if name.partition(":")[0] == "household_waste"
        else f"tfds build {name} --file_format=array_record"
    )
    advice = f"prepare it with `{make} --data_dir={where or 'DIR'}`, and give that folder as config.data.dir"
    try:
        builder = tfds.builder(name, data_dir=where)
        if builder.info.splits:
            builder.as_data_source(next(iter(builder.info.splits)))
            return builder
    except tfds.core.DatasetNotFoundError:
        pass  # its message lists a thousand names
    # A builder's own code runs here, and may fail in ways of its own, for want of TensorFlow for one.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(key, f"cannot open TFDS data set {name!r}: {reason}; {advice}") from error
    raise ConfigError(key, f"no TFDS data set {name!r} in {where or 'the default TFDS folder'}; {advice}")


def _tfds_record(
    record: dict[str, Any], name: str, split: str | None
) -> tuple[str, int, str, str | None, str]:
    """Returns name, label, domain, split and stamp of one record."""
    given = record.get("file_name", record.get("filename", record.get("image/filename", name)))
    domain = _text(record.get("domain", ""))
    data = record["image"]
    stamp = f"{len(data)}-{zlib.crc32(data):08x}"
    return _text(given), int(record["label"]), domain if domain in DOMAINS else "", split, stamp


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, eq=False)
class _ReadRecords:
    parts: tuple[Sequence[dict[str, Any]], ...]

    def __call__(self, index: int) -> bytes:
        for part in self.parts:
            if index < len(part):
                return part[index]["image"]
            index -= len(part)
        raise IndexError(index)
