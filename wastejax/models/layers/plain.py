"""Whether layers compute the textbook form of their function, by which converters to other formats know it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_PLAIN = ContextVar("plain", default=False)


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
