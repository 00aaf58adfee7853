"""What computes a run or a bundle: jax, or a runtime that starts faster, from a file derived once and kept.

Importing and compiling jax takes seconds where an answer takes milliseconds. A runtime for exported files
needs neither, so that a bundle is exported once, checked against itself, and kept in the cache under a hash of its
content. Imports only what is light: the command line asks `choose` before anything else is loaded.
"""

import hashlib
import importlib.util
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wastejax import __version__
from wastejax.bundled import model_path
from wastejax.data.cache import cache_dir
from wastejax.errors import MissingPackage, UserError, nearest
from wastejax.files import put_in_place
from wastejax.progress import Say

if TYPE_CHECKING:
    from wastejax.deployment.predictor import Predictor

ENGINES = ("auto", "jax", "onnxruntime", "openvino", "litert")
_SUFFIXES = {"onnxruntime": ".onnx", "openvino": ".onnx", "litert": ".tflite"}
_READERS = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}
_WRITERS = ("jax", "jax2onnx", "onnx", "onnxruntime")  # what deriving an .onnx file takes
_FORMAT = 3  # count up when exported files change so that those kept before should not be used
_CHECKED_IMAGES = 16


def choose(model: str | Path | None, engine: str | None = None) -> str:
    """Returns which engine computes a model, without loading either.

    Args:
        model: a run, a bundle, or a file that `export` wrote; None for the bundled model.
        engine: one of `ENGINES`; None for that of WASTEJAX_ENGINE, or 'auto': ONNX Runtime where it and what
            derives its file are installed, else jax.

    Raises:
        UserError: there is no such engine, or it cannot compute this form of model.
    """
    option = "WASTEJAX_ENGINE" if engine is None else "--engine"
    engine = _named(engine)
    if engine not in ENGINES:
        raise UserError(f"{option}={engine}: no such engine{nearest(engine, ENGINES)}")
    path = place_of(model)
    if path.is_file():
        able = [name for name, suffix in _SUFFIXES.items() if suffix == path.suffix] or ["jax"]
        if engine in able:
            return engine
        if engine != "auto" and option == "--engine":
            raise UserError(f"--engine={engine}: cannot compute {path}; choices: {', '.join(able)}")
        return able[0]
    if engine != "auto":
        return engine
    ready = _installed("onnxruntime") and (_kept(path, ".onnx").is_file() or all(map(_installed, _WRITERS)))
    return "onnxruntime" if ready else "jax"


def load_engine(
    model: str | Path | None,
    engine: str | None = None,
    taxonomy: str | Path | None = None,
    threads: int | None = None,
    say: Say | None = None,
    any_side: bool = False,
) -> "Predictor":
    """Returns a model, computed by the engine that `choose` names.

    Args:
        model: see `choose`.
        engine: see `choose`; where 'auto' fails to derive a file, or to read it, jax computes.
        taxonomy: see `load_predictor`.
        threads: see `load_predictor`; where 'auto' takes jax, which has none, they are left out.
        say: is told what takes long; None for standard error.
        any_side: whether class maps of images of any sides are needed, see `Predictor`; where 'auto' derived a file
            that has none, jax computes.

    Raises:
        UserError: as of `choose` and `load_predictor`; or a file cannot be derived, or is not its bundle's equal.
    """
    from wastejax.deployment.formats import load_predictor

    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    chosen, path = choose(model, engine), place_of(model)
    if path.is_file() or chosen == "jax" or not (path / "bundle.json").is_file():
        runtime = chosen if path.is_file() and path.suffix == ".onnx" else None
        by_auto = _named(engine) == "auto" and not path.is_file()
        return load_predictor(path, runtime, taxonomy, None if by_auto else threads)
    if not _installed(_READERS[chosen]):
        raise MissingPackage(f"--engine={chosen}", _READERS[chosen].replace("_", "-"), None)
    auto = _named(engine) == "auto"
    try:
        predictor = _derived(path, chosen, taxonomy, threads, say)
    except _NoFile as failed:
        (error,) = failed.args
        if not auto:
            raise error from None
        # Where the bundle is at fault, that is said.
        predictor = load_predictor(path, None, taxonomy)
        say(f"note: {chosen} cannot be used, jax computes instead: {error}")
        return predictor
    if any_side and not predictor.any_side and auto and _installed("jax"):
        return load_predictor(path, None, taxonomy)
    return replace(predictor, path=path)


def _named(engine: str | None) -> str:
    """Returns the engine that is asked for, by an option or by WASTEJAX_ENGINE; 'auto' where neither does."""
    return os.environ.get("WASTEJAX_ENGINE") or "auto" if engine is None else engine


def place_of(model: str | Path | None) -> Path:
    """Returns the exported file, or the folder of the bundle, that an option names; None for the bundled one."""
    path = model_path(model)
    return path / "bundle" if (path / "bundle" / "bundle.json").is_file() else path


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _kept(bundle: Path, suffix: str) -> Path:
    """Returns where the file derived from a bundle is kept, under a hash of all that it is made from."""
    digest = hashlib.blake2b(f"{_FORMAT} {__version__}".encode(), digest_size=12)
    for part in (bundle / "bundle.json", *sorted(bundle.glob("*.safetensors"))):
        if part.is_file():
            digest.update(part.read_bytes())
    return cache_dir() / "engines" / f"{digest.hexdigest()}{suffix}"


class _NoFile(Exception):  # noqa: N818 - named after what is wrong
    """Of a bundle no file can be derived, or read; its argument is the UserError that says why."""


def _derived(
    bundle: Path, engine: str, taxonomy: str | Path | None, threads: int | None, say: Say
) -> "Predictor":
    """Returns what computes the file derived from a bundle.

    A file that cannot be read, as a full disk or a power cut may leave one, is made once more.

    Raises:
        UserError: the file is sound, and `taxonomy` or `threads` cannot be.
        _NoFile: there is none that can be used.
    """
    from wastejax.deployment.formats import load_predictor

    runtime = engine if _SUFFIXES[engine] == ".onnx" else None
    failed = UserError()
    for _ in range(2):
        try:
            file = _derive(bundle, engine, say)
        except UserError as error:
            raise _NoFile(error) from None
        try:
            return load_predictor(file, runtime, taxonomy, threads)
        except MissingPackage as error:
            raise _NoFile(error) from None
        except UserError as error:
            if _opens(file, runtime):
                raise
            failed = error
        say(f"note: {file}: cannot be read, and is removed from the cache")
        with suppress(OSError):
            file.unlink(missing_ok=True)
    raise _NoFile(failed)


def _opens(file: Path, runtime: str | None) -> bool:
    """Returns whether an exported file can be loaded at all, whatever the options are."""
    from wastejax.deployment.formats import load_predictor

    try:
        load_predictor(file, runtime)
    except UserError:
        return False
    return True


def _derive(bundle: Path, engine: str, say: Say) -> Path:
    """Returns the file derived from a bundle; makes and checks it where there is none yet."""
    kept = _kept(bundle, _SUFFIXES[engine])
    if kept.is_file():
        return kept
    from wastejax.bundle import load_bundle
    from wastejax.deployment import export
    from wastejax.deployment.export.images import drawn
    from wastejax.deployment.formats import load_jax, load_predictor

    loaded = load_bundle(bundle)
    say(f"preparing the model for {engine}, once …")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            fresh = Path(scratch) / kept.name
            export.write_export(loaded, fresh, class_map=True)
            images = drawn(loaded, _CHECKED_IMAGES)
            comparison = export.compare(load_jax(bundle, export.DTYPE), load_predictor(fresh), images)
            export.check(comparison, "none", images.origin)
            put_in_place(fresh, kept)
    except ImportError as error:
        raise MissingPackage(f"--engine={engine}", error.name or "a package", "export") from None
    except OSError as error:
        raise UserError(f"{kept.parent}: cannot be written ({error.strerror}); see WASTEJAX_CACHE") from None
    return kept
