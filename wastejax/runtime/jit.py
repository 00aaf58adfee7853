"""`jax.jit` with what XLA has to be told on a CPU, and the heap put in order after it has compiled."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

from wastejax.runtime.process import retire_holes

CPU_OPTIONS = {  # measured for each jax by experiments/xla_options.py
    # XLA gives what it can to the library YNNPACK, whose convolutions run on one thread at the sizes of these
    # networks, while XLA's own use all, as its dots do. So YNNPACK is left the sums, where it is the faster one.
    # Two threads, EfficientNetV2-B0: 15 % of a training step's time, 22 % of that of 32 answers.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
    # Loops as wide as the registers of AVX-512, where LLVM would stop at 256 bits: 3 to 5 % of the same times.
    "xla_cpu_prefer_vector_width": "512",
}
_COMPILED = "/jax/core/compile/backend_compile_duration"  # as jax.monitoring names it
_LONG = 1.0  # seconds; a program that compiles faster leaves little behind


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """Returns `jax.jit(function, **options)`, compiled with the options that are best on this backend."""
    return jax.jit(function, compiler_options=_compiler_options(), **options)


@cache
def _compiler_options() -> dict[str, str]:
    """Returns those of `CPU_OPTIONS` that this jaxlib has: they only make things faster, and come and go."""
    if jax.default_backend() != "cpu":
        return {}
    return {name: value for name, value in CPU_OPTIONS.items() if is_known(name, value)}


def is_known(name: str, value: str) -> bool:
    """Returns whether this jaxlib's compiler has an option, and takes the value."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except (jax.errors.JaxRuntimeError, ValueError):
        return False
    return True


def _after_compiling(event: str, duration_secs: float, **_: Any) -> None:
    if event == _COMPILED and duration_secs >= _LONG:
        retire_holes()


jax.monitoring.register_event_duration_secs_listener(_after_compiling)
