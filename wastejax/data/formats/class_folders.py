"""Class folders as they turn up: wrapped, already split, with domains, or as a copy beside a copy."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wastejax.data.formats.source import DOMAINS, ReadFiles, ReadSubset, Source, numbered
from wastejax.data.formats.walk import Parts, Walk, by_ending, listed, no_images, readable, walk
from wastejax.errors import ConfigError, Unlabeled

ROLES = {
    "train": ("train", "training", "trn", "trainset", "학습", "훈련"),
    "val": ("val", "valid", "validation", "validate", "dev", "valset", "validationset", "검증"),
    "test": ("test", "testing", "tst", "testset", "holdout", "테스트", "시험"),
}
ROLE_OF = {word: role for role, words in ROLES.items() for word in words}
_CONTAINERS = frozenset(
    ("data", "dataset", "image", "images", "img", "imgs", "picture", "pictures", "photo", "photos")
)
# Words that may stand beside `train` or `test` in the name of a split's folder.
_FILLERS = _CONTAINERS | {"set", "split", "seg"}
_ALIKE = 0.5  # share of two folders' subfolder names that agree, above which the two are splits or copies


class _Layout(NamedTuple):
    """Where the parts of a path say what it is; splits per image, or None."""

    class_depth: dict[str, int]  # by topmost folder: the index of the part that names the class
    splits: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    within: bool = False  # the splits are folders in those of the classes


def open_folder(root: str | Path, key: str = "config.data.dir") -> Source:
    """Opens a folder of class folders.

    Single folders above the class folders are passed through (`images/images/<class>/…`), everything below a
    class folder belongs to that class, and a `default` or `real_world` folder directly in it names the domain.
    Folders above the class folders, or directly in them, give the split where their names say which it is, in the
    usual words (`Training`, `test_set`, `valid`, …). Several folders without images of their own that hold folders
    of the same names, and whose names do not say which split they are, are refused: they would become the classes.
    Names are NFC-normalized, so that Korean ones from macOS and Linux are the same.

    Args:
        root: the folder.
        key: what to call it in error messages.

    Raises:
        ConfigError: the folder is missing or not readable, has no images, or its layout is not understood.
    """
    found = walk(root, key)
    if not found.images:
        raise ConfigError(key, no_images(found, str(root)))
    return from_walk(found, str(root), key)


def from_walk(
    found: Walk,
    root: str,
    key: str,
    read: Callable[[int], bytes] | None = None,
    origin: str = "",
    shards: Sequence[str] = (),
) -> Source:
    """Returns the source of class folders, however they were found; see `open_folder`.

    Args:
        found: at least one image.
        root: what to call the folder in error messages.
        key: what to call the option in them.
        read: index in `found.images` -> bytes; None where they are files below `found.root`.
        origin: see `Source`; '' for that root.
        shards: the archive that each image lies in; its name begins the images', where these repeat.

    Raises:
        ConfigError: the layout is not understood.
    """
    depth = _wrapper_depth(found.images)
    inside = [i for i, path in enumerate(found.images) if len(path) > depth + 1]
    if not inside:
        raise Unlabeled(key, f"the images are directly in {root!r}; put them in one subfolder per class")
    paths = [found.images[i][depth:] for i in inside]
    layout = _layout(paths, key)
    depths = [layout.class_depth[path[0]] for path in paths]
    classes, labels = numbered([readable(path[at]) for path, at in zip(paths, depths, strict=True)])
    # Below the class folder, and the split in it.
    below = [path[at + 1 + layout.within : -1] for path, at in zip(paths, depths, strict=True)]
    raw = tuple("/".join(path) for path in paths)
    wrapper = found.images[inside[0]][:depth]
    alone = [readable(part) for part in wrapper if role_of(part)]
    loose = len(found.images) - len(inside)
    left_out = by_ending(found.left_out())
    notes = [
        *([f"images beside the class folders, left out: {loose:,}"] if loose else []),
        *([f"files left out by their ending: {left_out}"] if left_out else []),
        *(f"no other split beside {name!r}: its images are taken as undivided" for name in alone),
        *layout.notes,
    ]
    return Source(
        names=unique_names(raw, [shards[i] for i in inside] if shards else ()),
        labels=labels,
        classes=classes,
        domains=tuple(parts[0] if parts and parts[0] in DOMAINS else "" for parts in below),
        splits=layout.splits,
        read=ReadFiles(found.root.joinpath(*wrapper), raw)
        if read is None
        else ReadSubset(read, np.array(inside)),
        stamps=tuple(found.stamps[i] for i in inside),
        origin=origin or str(found.root.joinpath(*wrapper).resolve()),
        notes=tuple(notes),
        empty_folders=_empty_folders(found, wrapper, layout, set(classes)),
    )


def unique_names(paths: Sequence[str], shards: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns readable names, behind those of the shards, if there are any, where paths repeat across these."""
    if shards and len(set(paths)) < len(paths):
        paths = [f"{shard}/{path}" for shard, path in zip(shards, paths, strict=True)]
    names = tuple(readable(path) for path in paths)
    # Two files whose names differ in their normal form alone keep apart by escapes.
    return names if len(set(names)) == len(names) else tuple(ascii(path)[1:-1] for path in paths)


def _layout(paths: list[Parts], key: str) -> _Layout:
    """Finds what the folders of `paths` (each with a folder and a file at least) mean."""
    heads: dict[str, list[Parts]] = {}
    for path in paths:
        heads.setdefault(path[0], []).append(path[1:])
    roles = {head: role for head in heads if (role := role_of(head))}
    if len(set(roles.values())) > 1:
        return _split_above(paths, heads, roles, key)
    flat = [head for head, below in heads.items() if any(len(path) == 1 for path in below)]
    if not flat and len(heads) > 1:
        if _split_within(heads):
            _refuse_copies({head: _inside(below, 1) for head, below in heads.items()}, key)
            splits = tuple(role_of(path[1]) or "" for path in paths)
            said = _said(set(zip((path[1] for path in paths), splits, strict=True)))
            # They may be the real classes, of several data sets side by side.
            deeper = {readable(path[2]) for path in paths if len(path) > 3} - {*DOMAINS}
            said += (
                (f"folders in the splits of classes, taken as no classes: {listed(deeper)}",)
                if deeper
                else ()
            )
            return _Layout(dict.fromkeys(heads, 0), splits, said, within=True)
        _refuse_copies({head: _inside(below, _wrapper_depth(below)) for head, below in heads.items()}, key)
    _refuse_partly_split(paths, key)
    _refuse_nested_copy(heads, flat, key)
    return _Layout(dict.fromkeys(heads, 0))


def _split_above(
    paths: list[Parts], heads: Mapping[str, list[Parts]], roles: Mapping[str, str], key: str
) -> _Layout:
    """Returns the layout of split folders that hold class folders."""
    others = set(heads) - set(roles)
    if others:
        known = listed(map(readable, roles))
        raise ConfigError(
            key,
            f"folders beside the splits {known} are not understood: {listed(map(readable, others))}; move "
            "them away",
        )
    at = _class_depths(heads)
    flat = next((path for path in paths if len(path) < at[path[0]] + 2), None)
    if flat:
        where, name = readable("/".join(flat[:-1])), readable(flat[-1])
        raise ConfigError(
            key,
            f"'{where}/{name}' lies in no class folder; expected {where}/<class>/{name}; if "
            f"these images have no labels, move {where!r} out of the data",
        )
    return _Layout(at, tuple(roles[path[0]] for path in paths), _said(set(roles.items())))


def _class_depths(heads: Mapping[str, list[Parts]]) -> dict[str, int]:
    """Returns, for each split folder, which part of its paths names the class.

    A split that holds a single class looks as if it were wrapped: other splits tell that its folder is a class.
    """
    at = {head: 1 + _wrapper_depth(below) for head, below in heads.items()}
    names = {head: {p[at[head] - 1] for p in below if len(p) > at[head]} for head, below in heads.items()}
    for head, below in heads.items():
        others = set().union(*(found for other, found in names.items() if other != head))
        outermost = {path[0] for path in below if len(path) > 1}
        if len(outermost) == 1 and outermost <= others:
            at[head] = 1
    return at


def _split_within(heads: Mapping[str, list[Parts]]) -> bool:
    """Whether every class folder holds split folders and nothing else: `<class>/train/…`."""
    within = {path[0] for below in heads.values() for path in below}
    roles = {role_of(name) for name in within}
    return None not in roles and len(roles) > 1


def _refuse_partly_split(paths: Sequence[Parts], key: str) -> None:
    """Raises where some class folders hold split folders, and images lie beside these: of which split are they?"""
    inner: dict[str, set[str]] = {}
    for path in paths:
        inner.setdefault(path[0], set()).update(path[1:2] if len(path) > 2 else ())
    roles = {head: {role_of(name) for name in names} - {None} for head, names in inner.items()}
    every = {name for names in inner.values() for name in names}
    if not any(len(of_head) > 1 for of_head in roles.values()) and (
        None in map(role_of, every) or len(set().union(*roles.values())) < 2
    ):
        return
    outside = next((path for path in paths if len(path) < 3 or not role_of(path[1])), None)
    if outside:
        split = next(path for path in paths if len(path) > 2 and role_of(path[1]))
        raise ConfigError(
            key,
            f"{readable('/'.join(split[:2]))!r} is a split and {readable('/'.join(outside))!r} lies in none; "
            "expected <class>/train/<image> and so on for every image: move it there, or out of the data",
        )


def _inside(paths: Iterable[Parts], depth: int) -> set[str]:
    """Returns what the folders at a depth of paths are called, whatever the case, if they are no domains."""
    return {readable(path[depth]).casefold() for path in paths if len(path) > depth + 1} - {*DOMAINS}


def _refuse_copies(inner: Mapping[str, set[str]], key: str) -> None:
    """Raises where all of the topmost folders hold folders of the same names, whatever is above these.

    Args:
        inner: topmost folder -> names of the folders in it.
        key: what to call the option in error messages.
    """
    names = sorted(inner, key=readable)
    first = inner[names[0]]
    for other in (inner[name] for name in names[1:]):
        shared = first & other
        if len(shared) < 2 or len(shared) < _ALIKE * len(first | other):
            return
    tops = " and ".join(repr(readable(name)) for name in names[:2])
    more = f" and {len(names) - 2:,} more" if len(names) > 2 else ""
    raise ConfigError(
        key,
        f"{tops}{more} hold folders of the same names ({listed(first)}), so they are no classes: if they are "
        "splits, name them train, val and test; if they are copies, give one of them; if they are classes "
        "after all, name the folders in them differently",
    )


def _refuse_nested_copy(heads: Mapping[str, list[Parts]], flat: Iterable[str], key: str) -> None:
    """Raises where one folder holds folders of the names of those beside it: the set once more, or a part of it."""
    beside = {readable(head).casefold() for head in heads}
    for head in sorted(set(heads) - set(flat)):
        within = {readable(path[0]).casefold() for path in heads[head] if len(path) > 1}
        if len(within & beside) > 1 and len(within & beside) >= _ALIKE * len(within):
            raise ConfigError(
                key,
                f"{readable(head)!r} holds folders of the same names as those beside it "
                f"({listed(within & beside)}): is it a copy? Move it away",
            )


def role_of(name: str) -> str | None:
    """Returns the split that the name of a folder means: 'train' for 'Training_set', 'seg_train', '1-TRAIN'."""
    words = words_of(name)
    roles = {ROLE_OF[word] for word in words & ROLE_OF.keys()}
    return roles.pop() if len(roles) == 1 and words <= _FILLERS | ROLE_OF.keys() else None


def is_container(name: str) -> bool:
    """Returns whether a folder's name says no more than that images are in it: 'data', 'images', 'img'."""
    words = words_of(name)
    return bool(words) and words <= _CONTAINERS


def words_of(name: str) -> set[str]:
    """Returns the words in a name, in lower case, without numbers and signs."""
    return set(re.findall(r"[^\W\d_]+", readable(name).lower()))


def _said(folders: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Returns a note that says which folder is which split, where a name alone does not."""
    unusual = [(role, readable(name)) for name, role in folders if readable(name).lower() != role]
    order = sorted(unusual, key=lambda item: (list(ROLES).index(item[0]), item[1]))
    said = ", ".join(f"{name!r} is {role}" for role, name in order)
    return (f"splits by the folders' names: {said}",) if said else ()


def notes_on_names(classes: Sequence[str]) -> list[str]:
    """Returns notes on classes that may be one: their names differ in case, spacing or `(1)` alone."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(same_name(name), []).append(name)
    return [
        f"classes with nearly the same name: {' and '.join(map(repr, names))}; are they one?"
        for names in alike.values()
        if len(names) > 1
    ]


def same_name(name: str) -> str:
    """Returns what is left of a class name without case, spacing, and the `(1)` or `copy` of a copied folder."""
    plain = re.sub(r"[\s_-]+", " ", name.casefold()).strip()
    return re.sub(r"( ?\(\d+\)| copy( \d+)?)$", "", plain) or plain


def _wrapper_depth(paths: Iterable[Parts]) -> int:
    """Counts the single folders above the class (or split) folders.

    A single folder is a class, not a wrapper, if there are only domains and images in it, or images and one
    more folder.
    """
    paths = list(paths)
    depth = 0
    while True:
        # Images that lie loose at this level do not count.
        inside = [path for path in paths if len(path) > depth + 1]
        deeper = [path for path in inside if len(path) > depth + 2]
        folders = {path[depth + 1] for path in deeper}
        single = len({path[depth] for path in inside}) == 1
        if not single or folders <= set(DOMAINS) or (len(deeper) < len(inside) and len(folders) < 2):
            return depth
        depth += 1


def _empty_folders(found: Walk, wrapper: Parts, layout: _Layout, classes: set[str]) -> tuple[str, ...]:
    """Returns what there is beside the class folders that holds no image, with what it holds instead."""
    empty = {}
    for folder in sorted(found.folders):
        below = folder[len(wrapper) :]
        if folder[: len(wrapper)] != wrapper or not below:
            continue
        at = layout.class_depth.get(below[0], 0)
        name = readable(below[-1])
        if len(below) == at + 1 and name not in classes:
            others = by_ending(found.left_out(folder))
            empty[name] = f"{name} ({others})" if others else name
    return tuple(empty[name] for name in sorted(empty))
