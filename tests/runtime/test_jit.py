"""What XLA is told on a CPU reaches it, and is left out where it has no such option."""

import jax
import jax.numpy as jnp
import pytest

from wastejax.models.layers.conv import conv2d
from wastejax.runtime import jit


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="an option of the CPU's compiler")
def test_convolutions_are_not_left_to_the_library_of_one_thread():
    x, kernel = jnp.ones((2, 14, 14, 32)), jnp.ones((3, 3, 32, 64))
    theirs, ours = (wrap(conv2d).lower(x, kernel).compile().as_text() for wrap in (jax.jit, jit.jit))
    assert "ynn" in theirs  # else the option is no longer needed
    assert "convolution" in ours and "ynn" not in ours


@pytest.fixture
def fresh():
    """Options are asked for anew, here and afterwards."""
    jit._compiler_options.cache_clear()
    yield
    jit._compiler_options.cache_clear()


def test_an_option_that_this_jaxlib_does_not_know_is_left_out_and_the_others_are_given(monkeypatch, fresh):
    known = {"xla_cpu_prefer_vector_width": "256"}
    unknown = {"xla_cpu_no_such_option": "1", "xla_cpu_experimental_ynn_fusion_type": "NO_SUCH_TYPE"}
    monkeypatch.setattr(jit, "CPU_OPTIONS", unknown | known)
    assert jit.jit(lambda x: x + 1, donate_argnums=0)(jnp.ones(())) == 2
    assert jit._compiler_options() == known


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="options of the CPU's compiler")
def test_every_option_is_known_to_both_stacks(fresh):
    assert jit._compiler_options() == jit.CPU_OPTIONS


def test_what_a_long_compilation_leaves_in_the_heap_is_retired(monkeypatch):
    retired = []
    monkeypatch.setattr(jit, "retire_holes", lambda: retired.append(1))
    monkeypatch.setattr(jit, "_LONG", 0.0)
    jax.jit(lambda x: x * 3 + 1).lower(jnp.ones(7)).compile()
    assert retired  # else jax calls the event otherwise
