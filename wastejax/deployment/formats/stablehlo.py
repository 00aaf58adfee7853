"""A network as StableHLO: what `jax.export` serializes, in a zip beside what the file says of itself."""

import importlib.util
import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from wastejax.deployment.formats.about import check_fit, damaged, exported, parse_about
from wastejax.deployment.predictor import Predictor
from wastejax.errors import MissingPackage, UserError

PROGRAM, ABOUT_FILE = "program.bin", "about.json"
PLATFORMS = ("cpu", "cuda", "tpu")
# What jax.export promises: a later jax runs a program for six months. Of earlier ones it promises three weeks.
PROMISED = timedelta(days=182)


def write_stablehlo(path: Path, forward: Any, shape: tuple[int, ...], dtype: str, about: str) -> None:
    """Writes a function of images, for any number of images and for CPU, GPU and TPU; see `write_onnx`."""
    import jax

    (batch,) = jax.export.symbolic_shape("B")
    entry = jax.ShapeDtypeStruct((batch, *shape), np.dtype(dtype))
    program = jax.export.export(jax.jit(forward), platforms=PLATFORMS)(entry).serialize()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(PROGRAM, bytes(program))
        archive.writestr(ABOUT_FILE, json.dumps(json.loads(about) | provenance(), ensure_ascii=False))


def provenance() -> dict[str, str]:
    """Returns which jax writes a file now, when, and until when another promises to run it."""
    import jax

    today = date.today()
    return {"jax": jax.__version__, "written": str(today), "expires": str(today + PROMISED)}


def written_by(about: Mapping[str, Any]) -> str:
    """Returns what to know about a file that this jax cannot run, from what it says of itself."""
    if "jax" not in about:
        return "it does not say which jax wrote it; export it again"
    return (
        f"jax {about['jax']} wrote it on {about['written']}, and later ones promise to run it"
        f" until {about['expires']}; use that jax, or export it again"
    )


def load_stablehlo(path: Path, threads: int | None = None) -> Predictor:
    """Returns a .stablehlo file that `export` wrote, computed by jax without the code of the network."""
    try:
        import jax

        from wastejax.runtime.jit import jit
    except ImportError:
        raise MissingPackage(str(path), "jax") from None
    if importlib.util.find_spec("flatbuffers") is None:
        raise MissingPackage(str(path), "flatbuffers", "export")
    try:
        with zipfile.ZipFile(path) as archive:
            about, stored = parse_about(path, archive.read(ABOUT_FILE)), archive.read(PROGRAM)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise damaged(path, "StableHLO", error) from None

    def refused(error: Exception) -> UserError:
        reason = str(error).strip().partition("\n")[0]
        return UserError(f"{path}: jax {jax.__version__} cannot run it: {written_by(about)} ({reason})")

    try:
        program = jax.export.deserialize(bytearray(stored))
        call = jit(program.call)
    except Exception as error:  # another jax may fail at any part of what it does not know
        raise refused(error) from None

    (entry,), answer = program.in_avals, program.out_avals[0]
    check_fit(path, about, entry.shape, entry.dtype, answer.shape)

    def compute(images: np.ndarray) -> Sequence[Any]:
        try:
            found = call(images)
        except Exception as error:  # some of it is read only when it is compiled
            raise refused(error) from None
        return found if isinstance(found, Sequence) else [found]

    return exported(path, "stablehlo", about, compute, len(program.out_avals))
