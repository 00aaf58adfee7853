"""Opens labeled images, whatever layout they come in."""

from pathlib import Path

import numpy as np

from wastejax.data.collections.places import is_url
from wastejax.data.collections.shards import PREFIX, open_shards
from wastejax.data.description import is_description, open_description, source_paths
from wastejax.data.formats.any import open_path
from wastejax.data.formats.boxes import CROPS, Reading
from wastejax.data.formats.class_folders import open_folder as open_folder
from wastejax.data.formats.source import ReadFiles, Source
from wastejax.data.formats.tfds import open_tfds
from wastejax.data.formats.walk import by_ending, no_images, walk
from wastejax.errors import ConfigError, UserError
from wastejax.files import user_path


def open_data(path: str | Path, key: str = "config.data.dir", reading: Reading = CROPS) -> Source:
    """Opens labeled images as `open_path` does, or a data description of several sources."""
    if is_description(path):
        return open_description(path, key, reading).source
    return open_path(path, key, reading)


def open_source(source: str, root: str, reading: Reading = CROPS) -> Source:
    """Opens what `config.data.source` and `config.data.dir` name.

    Args:
        source: 'folder', 'tfds:NAME' (which may carry a version: `tfds:household_waste:1.0.0`) or 'shards:DIR', of
            what `wastejax shard` wrote.
        root: the folder or the description file of images, see `open_path`, a data description, or the TFDS data
            directory ('' for the TFDS default).
        reading: whether boxes become crops, or what photographs show.

    Raises:
        ConfigError: no such source, or nothing usable in it.
    """
    if source == "folder":
        return open_data(root, reading=reading)
    if source.startswith(PREFIX) and len(source) > len(PREFIX):
        return open_shards(source.removeprefix(PREFIX)).source
    if source.startswith("tfds:") and len(source) > len("tfds:"):
        found = open_tfds(source.removeprefix("tfds:"), root)
        return found.with_several() if reading.several else found
    raise ConfigError("config.data.source", f"must be 'folder', 'tfds:NAME' or 'shards:DIR', is {source!r}")


def check_outside(
    folder: Path, option: str, data: str | Path, what: str, todo: str = "name a folder outside of it"
) -> None:
    """Checks that a folder to be written lies in none of those that hold the data.

    Args:
        folder: to be written.
        option: what named it, for the message.
        data: as `open_data` takes it.
        what: of that folder would be taken for data, for the message.
        todo: what the user should do.

    Raises:
        UserError: it lies there.
        ConfigError: a data description cannot be read.
    """
    if is_url(data):
        return
    key = "config.data.dir" if option == "--workdir" else "--data"
    for place in source_paths(data, key) if is_description(data) else [user_path(data)]:
        if folder.resolve().is_relative_to(place.resolve()):
            raise UserError(
                f"{option}={folder}: lies in the data, where {what} would become data too; {todo}"
            )


def open_images(root: str | Path, key: str) -> Source:
    """Opens every image at any depth below a folder, whatever the folders mean, as one class without a name.

    Args:
        root: the folder.
        key: what to call it in error messages.

    Raises:
        ConfigError: the folder is missing or not readable, or has no images.
    """
    found = walk(root, key)
    if not found.images:
        raise ConfigError(key, no_images(found, str(root)))
    raw = tuple("/".join(path) for path in found.images)
    left_out = by_ending(found.left_out())
    return Source(
        names=tuple(ascii(path)[1:-1] for path in raw),
        labels=np.zeros(len(raw), np.int32),
        classes=("",),
        domains=("",) * len(raw),
        splits=None,
        read=ReadFiles(found.root, raw),
        stamps=found.stamps,
        origin=str(found.root.resolve()),
        notes=(f"files left out by their ending: {left_out}",) if left_out else (),
    )
