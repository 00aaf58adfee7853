"""Whether layers compute the textbook form of their function, by which converters to other formats know it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_PLAIN = ContextVar("plain", default=False)
_COMPOSITES = ContextVar("composites", default=False)


@contextmanager
def plain_forms() -> Iterator[None]:
    """Has layers that are traced within take textbook forms: a softmax, a mean, a convolution over channels.

    They give the same numbers as the others, which are faster in training. For evaluation only.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def is_plain() -> bool:
    """Returns whether the caller is traced within `plain_forms`."""
    return _PLAIN.get()


@contextmanager
def composites() -> Iterator[None]:
    """Has layers that are traced within name functions for which LiteRT has an operator and StableHLO has none."""
    token = _COMPOSITES.set(True)
    try:
        yield
    finally:
        _COMPOSITES.reset(token)


def has_composites() -> bool:
    """Returns whether the caller is traced within `composites`."""
    return _COMPOSITES.get()
