"""A network as StableHLO: what `jax.export` serialises, in a zip beside what the file says of itself."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

PROGRAM, ABOUT_FILE = "program.bin", "about.json"
PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(path: Path, forward: Any, shape: tuple[int, ...], dtype: str, about: str) -> None:
    """Writes a function of images, for any number of images and for CPU, GPU and TPU; see `write_onnx`."""
    import jax

    (batch,) = jax.export.symbolic_shape("B")
    entry = jax.ShapeDtypeStruct((batch, *shape), np.dtype(dtype))
    program = jax.export.export(jax.jit(forward), platforms=PLATFORMS)(entry).serialize()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(PROGRAM, bytes(program))
        archive.writestr(ABOUT_FILE, about)
