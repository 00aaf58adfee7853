"""What every reader returns: labeled images, still encoded, with random access."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.data.images import read_file
from wastejax.progress import Say

GROUP = ("group", "group_id", "photo")  # columns of what stays on one side of every split
DOMAINS = ("default", "real_world")
SEPARATOR = ";"  # between the classes of one image, where it has several and they are written in one cell


@dataclass(frozen=True, eq=False)
class Source:
    """N labeled images, still encoded.

    Attributes:
        names: unique POSIX names, relative to the folder that holds the class folders
            (`shoes/default/Image_3.png`) or the split folders (`train/shoes/Image_3.png`).
        labels: int32 [N], index into `classes`.
        classes: class names, sorted.
        domains: one per image: 'default', 'real_world', or '' where the layout does not say.
        splits: 'train', 'val' or 'test' per image where the data come split, else None.
        read: index -> encoded bytes; picklable and safe in threads. Raises OSError.
        stamps: one per image; another stamp means that the content may have changed.
        origin: where the images lie; names and stamps mean the same image only together with it.
        allowed: bool [N, C], the classes that each image's label can mean, none for an image of none of them; None
            where every label means one class. `labels` then names the first of them, and 0 where there is none.
        shown: bool [N, C], the classes that each image shows, any number of them, where images have several labels;
            None where each has one. `labels` then names the rarest of them, and 0 where there is none.
        unsaid: bool [N, C], beside `shown`: the classes of which nobody said whether the image shows them; None
            where all is said.
        members: the source of a data description that each image belongs to; None where there is one alone.
        materials: what each class is made of, as far as a data description says it; None where it says nothing.
        groups: per image the name of those that it stays with in every split, such as crops of one photograph; ''
            for none, None where no image has any.
        notes: what the reader should know, one line each.
        empty_folders: folders beside the class folders that hold no image.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    splits: tuple[str, ...] | None
    read: Callable[[int], bytes]
    stamps: tuple[str, ...]
    origin: str = ""
    allowed: np.ndarray | None = None
    shown: np.ndarray | None = None
    unsaid: np.ndarray | None = None
    members: tuple[str, ...] | None = None
    materials: tuple[frozenset[str], ...] | None = None
    groups: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    empty_folders: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def select(self, indices: Sequence[int] | np.ndarray) -> "Source":
        """Returns the images at `indices` (int [M]) alone; classes that have none left are dropped.

        Where labels can mean several classes all classes stay, since a label says little about which there are, and
        where images show several.
        """
        indices = np.asarray(indices, np.int64)
        if self.allowed is None and self.shown is None:
            kept, labels = np.unique(self.labels[indices], return_inverse=True)
        else:
            kept, labels = np.arange(len(self.classes)), self.labels[indices]

        def of(values: Any) -> Any:
            if values is None or isinstance(values, np.ndarray):
                return None if values is None else values[indices]
            return tuple(values[i] for i in indices)

        each = ("names", "domains", "splits", "stamps", "allowed", "shown", "unsaid", "members", "groups")
        return replace(
            self,
            **{name: of(getattr(self, name)) for name in each},
            labels=labels.astype(np.int32),
            classes=tuple(self.classes[i] for i in kept),
            read=ReadSubset(self.read, indices),
            materials=None if self.materials is None else tuple(self.materials[i] for i in kept),
        )

    def with_shown_classes(self) -> "Source":
        """Returns the images without the classes that none of them shows, where they have several labels.

        All classes stay in the images of a data description, which says which there are.
        """
        if self.shown is None or self.members is not None or self.shown.any(axis=0).all():
            return self
        kept = np.flatnonzero(self.shown.any(axis=0))
        shown, unsaid = self.shown[:, kept], self.unsaid
        return replace(
            self,
            classes=tuple(self.classes[i] for i in kept),
            shown=shown,
            unsaid=None if unsaid is None else unsaid[:, kept],
            labels=rarest(shown),
            materials=None if self.materials is None else tuple(self.materials[i] for i in kept),
        )

    @property
    def meanings(self) -> np.ndarray:
        """Bool [N, C]: the classes that each image may show."""
        if self.allowed is not None:
            return self.allowed
        return self.contents

    @property
    def contents(self) -> np.ndarray:
        """Bool [N, C]: the classes that each image is known to show, none where its label means several."""
        if self.shown is not None:
            return self.shown
        if self.allowed is not None:
            return self.allowed & (self.allowed.sum(axis=1, keepdims=True) == 1)
        return np.asarray(self.labels[:, None] == np.arange(len(self.classes)))

    @property
    def truth(self) -> np.ndarray:
        """Int8 [N, C], where images have several labels: 1 for a class that is shown, 0 if not, -1 if unsaid."""
        truth = self.contents.astype(np.int8)
        return truth if self.unsaid is None else np.where(self.unsaid, np.int8(-1), truth)

    def tell_notes(self, say: Say) -> None:
        """Says what was decided about the images as they were opened."""
        for note in self.notes:
            say(f"note: {note}")

    @property
    def label_names(self) -> list[str]:
        """N names: the `label_name` of each image."""
        several = self.allowed if self.shown is None else self.shown
        if several is None:
            return [self.classes[label] for label in self.labels]
        rows, of = np.unique(several, axis=0, return_inverse=True)  # a few sets of classes, for many images
        names = [self._joined(row) for row in rows]
        return [names[i] for i in of]

    def label_name(self, index: int) -> str:
        """Returns the class of an image; all it shows or its label can mean between semicolons, '' for none."""
        several = self.allowed if self.shown is None else self.shown
        if several is None:
            return self.classes[self.labels[index]]
        return self._joined(several[index])

    def _joined(self, shown: np.ndarray) -> str:
        return SEPARATOR.join(self.classes[i] for i in np.flatnonzero(shown))

    def called(self, index: int) -> tuple[str, ...]:
        """Returns the `label_name` of an image, and what earlier versions called it: the first of several."""
        earlier = () if self.allowed is None else (self.classes[self.labels[index]],)
        return (self.label_name(index), *earlier)

    def with_several(self, sets: Sequence[Collection[str]] | None = None) -> "Source":
        """Returns the images with any number of labels each.

        Args:
            sets: names of the classes that each image shows; None for the one class that each has.
        """
        sets = [[name] for name in self.label_names] if sets is None else sets
        classes = tuple(sorted({name for names in sets for name in names}))
        index = {name: i for i, name in enumerate(classes)}
        shown = np.zeros((len(sets), len(classes)), bool)
        for i, names in enumerate(sets):
            shown[i, [index[name] for name in names]] = True
        none = len(shown) - int(shown.any(axis=1).sum())
        notes = (*self.notes, *([f"images that show none of the classes: {none:,}"] if none else []))
        return replace(self, classes=classes, labels=rarest(shown), shown=shown, notes=notes)


def numbered(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the class names that there are, sorted, and int32 [N], which of them each of N names is."""
    classes = tuple(sorted(set(names)))
    index = {name: i for i, name in enumerate(classes)}
    return classes, np.array([index[name] for name in names], np.int32)


def rarest(shown: np.ndarray) -> np.ndarray:
    """Returns int32 [N], the rarest class that each image shows, of bool [N, C]; 0 where it shows none.

    Splitting by it spreads what is hardest to spread.
    """
    counts = np.where(shown, shown.sum(axis=0), len(shown) + 1)
    return np.where(shown.any(axis=1), counts.argmin(axis=1), 0).astype(np.int32)


@dataclass(frozen=True, eq=False)
class ReadSubset:
    """Reads some of the images of another source, by their indices there."""

    read: Callable[[int], bytes]
    indices: np.ndarray

    def __call__(self, index: int) -> bytes:
        """Returns the bytes of one image; raises OSError."""
        return self.read(int(self.indices[index]))


@dataclass(frozen=True, eq=False)
class ReadJoined:
    """Reads from parts that follow each other: how many images each has, and what reads them, by index."""

    parts: tuple[tuple[int, Callable[[int], bytes]], ...]

    def __call__(self, index: int) -> bytes:
        """Returns the bytes of one image; raises OSError."""
        for size, read in self.parts:
            if index < size:
                return read(index)
            index -= size
        raise IndexError(index)


@dataclass(frozen=True)
class ReadFiles:
    """Reads files below a folder, by index."""

    root: Path
    paths: tuple[str, ...]

    def __call__(self, index: int) -> bytes:
        """Returns the bytes of one file; raises OSError."""
        return read_file(self.root / self.paths[index])
