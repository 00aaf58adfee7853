"""Prepared TFDS data sets, without TensorFlow."""

import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from wastejax.data.formats.class_folders import role_of
from wastejax.data.formats.source import DOMAINS, ReadJoined, Source
from wastejax.data.formats.walk import listed
from wastejax.errors import ConfigError
from wastejax.files import user_path


def open_tfds(name: str, data_dir: str, key: str = "config.data.source") -> Source:
    """Opens a prepared TFDS data set that has an `image` and a `label`, without TensorFlow.

    Images stay encoded and are read at random from ArrayRecord files. The splits train, validation and test, in
    the usual words, are kept where there are several; the features `domain` and `file_name` are used where there
    are any.

    Args:
        name: as TFDS writes it, `household_waste` or `household_waste:1.0.0`.
        data_dir: TFDS data directory; '' for the TFDS default.
        key: what to call it in error messages.

    Raises:
        ConfigError: there is no such data set, it is not prepared, or it is not one of labeled images.
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
        known = role_of(split)
        if len(builder.info.splits) > 1 and known is None:
            notes.append(f"TFDS split {split!r} is left out ({len(part):,} images)")
            continue
        parts.append(part)
        records += [_tfds_record(part[i], f"{split}/{i:06d}", known) for i in range(len(part))]
    if not parts:
        raise ConfigError(
            key, f"{name!r} has no split train, val or test; it has {listed(builder.info.splits)}"
        )
    if not records:
        raise ConfigError(key, f"{name!r} has no images")
    names, numbers, domains, splits, stamps = zip(*records, strict=True)
    classes = sorted(features["label"].names)
    position = np.array([classes.index(label) for label in features["label"].names])
    source = Source(
        names=names if len(set(names)) == len(names) else tuple(f"{i:06d}/{n}" for i, n in enumerate(names)),
        labels=position[list(numbers)].astype(np.int32),
        classes=tuple(classes),
        domains=domains,
        splits=splits if len(set(splits)) > 1 else None,
        read=ReadJoined(tuple((len(part), partial(_image, part)) for part in parts)),
        stamps=stamps,
        origin=f"{builder.data_path}",
        notes=tuple(notes),
    )
    # Test splits published without labels carry -1.
    return source.select(np.flatnonzero(np.array(numbers) >= 0))


def _tfds_builder(name: str, data_dir: str, key: str) -> Any:
    """Returns the TFDS builder of a data set that is prepared for random access."""
    import tensorflow_datasets as tfds

    where = str(user_path(data_dir)) if data_dir else None
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


def _image(part: Sequence[dict[str, Any]], index: int) -> bytes:
    return part[index]["image"]
