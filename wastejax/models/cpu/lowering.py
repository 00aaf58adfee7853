"""The choice between forms of one computation, made when a program is compiled for a backend."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jax import Array, lax


def per_backend(cpu: Callable[..., Any], other: Callable[..., Any], *args: Array, **options: Any) -> Any:
    """Returns what `cpu` makes of the arguments in a program for a CPU, and what `other` does in any other."""
    return lax.platform_dependent(*args, cpu=partial(cpu, **options), default=partial(other, **options))
