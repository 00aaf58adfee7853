"""How parameters start: He's normal for convolutions, a narrow normal for linear layers.

An initializer is called as Flax calls it and draws with the key it is given. Inside `on_host` it draws with numpy
instead: XLA compiles a program for each shape drawn, half a minute for an EfficientNetV2 on two CPU cores.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod, sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Initializer = Callable[..., Any]

_generator: ContextVar[np.random.Generator | None] = ContextVar("generator", default=None)


@contextmanager
def on_host(key: Array) -> Iterator[None]:
    """Makes the initializers called inside draw numpy arrays, one after the other from this key."""
    token = _generator.set(np.random.default_rng(np.asarray(jax.random.key_data(key))))
    try:
        yield
    finally:
        _generator.reset(token)


def _draw(key: Array, shape: tuple[int, ...], dtype: Any, std: float) -> Any:
    generator = _generator.get()
    if generator is None:
        return std * jax.random.normal(key, shape, dtype)
    return (std * generator.standard_normal(shape)).astype(dtype)


def he_normal(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
    """Draws a kernel [..., in, out] of std sqrt(2 / fan-in) (He et al. 2015, eq. 10), depthwise ones included."""
    return _draw(key, shape, dtype, sqrt(2 / prod(shape[:-1])))


def normal(std: float) -> Initializer:
    """Returns an initializer that draws from a normal distribution of this width around 0."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
        return _draw(key, shape, dtype, std)

    return init


linear_init = normal(0.02)
