"""What the labels of images mean in a model's classes, whoever says it: a label map, a description, or nobody."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wastejax.data.description import is_description
from wastejax.data.description.label_map import allowed_classes, load_label_map
from wastejax.data.formats.boxes import Reading
from wastejax.data.formats.csv_file import composed
from wastejax.data.sources import Source, open_data
from wastejax.data.taxonomy import materials_of
from wastejax.errors import UserError, nearest


class Meant(NamedTuple):
    """What N images may show.

    Attributes:
        allowed: bool [N, C], the model's classes that each image's label can mean; none: it shows none of them.
        members: N names, the sources that they are from.
        materials: what each of the C classes is made of, by the label map or else by `materials_of`; nothing where
            nobody knows.
    """

    allowed: np.ndarray
    members: tuple[str, ...]
    materials: tuple[frozenset[str], ...]


def open_labeled(data: str | Path, labels: str | Path | None, reading: Reading) -> Source:
    """Opens `--data`, whose labels `--labels` explains.

    Args:
        data: labeled images, see `open_data`.
        labels: the file that explains them; None where nothing has to.
        reading: how boxes become crops, as for the images that the model has learned from.

    Raises:
        UserError: it cannot be read, or is a data description, which says itself what labels mean.
    """
    if labels is not None and is_description(data):
        raise UserError(f"--labels: {data} says itself what its labels mean; leave --labels out")
    return open_data(data, "--data", reading)


def meant_by(
    source: Source, classes: Sequence[str], data: str | Path, labels: str | Path | None = None
) -> Meant:
    """Returns what the images of a source may show.

    Args:
        source: the images.
        classes: of the model.
        data: what they were opened from; its name is theirs where they have no `members`.
        labels: a CSV file of what the labels mean, see `load_label_map`; where it knows several sources, the name
            of `data` says which. None where labels are classes of the model, or a data description says it.

    Raises:
        UserError: a label has no meaning.
    """
    name = Path(data).resolve().name
    members = source.members or (name,) * len(source)
    if labels is not None:
        label_map = load_label_map(labels)
        meant = allowed_classes(source.classes, label_map.of(name), classes, str(labels))
        made_of = label_map.materials(classes)
        return Meant(meant[np.asarray(source.labels)], members, made_of or _usual(classes))
    position = {composed(label): i for i, label in enumerate(classes)}
    own = [composed(label) for label in source.classes]
    for label in own:
        if label not in position:
            raise UserError(
                f"{data}: the model has no class {label!r}{nearest(label, position)}; --labels=CSV says what "
                "labels mean there"
            )
    columns = [position[label] for label in own]
    allowed = np.zeros((len(source), len(classes)), bool)
    allowed[:, columns] = source.meanings
    if source.materials is None:
        return Meant(allowed, members, _usual(classes))
    of = dict(zip(columns, source.materials, strict=True))
    return Meant(allowed, members, tuple(of.get(i, frozenset()) for i in range(len(classes))))


def _usual(classes: Sequence[str]) -> tuple[frozenset[str], ...]:
    """Returns what classes of these names are mostly made of."""
    known = materials_of(classes)
    return tuple(frozenset({known[name]} if name in known else ()) for name in classes)
