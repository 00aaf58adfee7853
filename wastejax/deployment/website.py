"""The page as a static folder with a model inside; and its files, which `serve` gives out."""

import base64
import gzip
import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wastejax.bundled import copy_license, model_path
from wastejax.data.taxonomy import load_taxonomy
from wastejax.deployment import icons
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.formats.about import ABOUT, parse_about
from wastejax.deployment.labels import describe
from wastejax.deployment.predictor import check_probability
from wastejax.errors import UserError
from wastejax.files import check_folder, write_bytes, write_json

PAGE = Path(__file__).parent / "web"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".png": "image/png",
}
NPM = Path(__file__).parents[2] / "web" / "node_modules" / "onnxruntime-web" / "dist"  # in a checkout
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
MODEL, LABELS, WORKER = "model.onnx", "labels.json", "service-worker.js"
# Many hosts send WebAssembly and models as they are, so that they are compressed here. No usual ending: a host that
# knew it would say that the file is encoded.
PACKED = ".gzip"
_NO_FILES = "const FILES = {};"


def page_files() -> list[tuple[str, bytes, str]]:
    """Returns (URL path, content, media type) of each file of the page; '/' is the page itself."""
    files = _page()
    files[WORKER] = service_worker(files)
    return [
        ("/" if name == "index.html" else f"/{name}", data, KINDS[Path(name).suffix])
        for name, data in files.items()
    ]


def _page() -> dict[str, bytes]:
    """Returns the page's own files by name, the service worker without what it keeps."""
    files = {path.name: path.read_bytes() for path in sorted(PAGE.iterdir()) if path.suffix in KINDS}
    return files | {f"icon-{size}.png": icons.icon(size) for size in icons.SIZES}


def service_worker(files: Mapping[str, bytes]) -> bytes:
    """Returns the program that keeps the page for use without a network.

    It holds the hash of each file, so that another version of any file is another program, which browsers notice,
    and so that no version is put together from files of two.

    Args:
        files: what it keeps, by path below the page; its own template among them.
    """
    kept = {
        ""
        if name == "index.html"
        else name: f"sha256-{base64.b64encode(hashlib.sha256(data).digest()).decode()}"
        for name, data in sorted(files.items())
        if name != WORKER
    }
    template = files[WORKER].decode()
    assert _NO_FILES in template
    return template.replace(_NO_FILES, f"const FILES = {json.dumps(kept, indent=2)};").encode()


def write_site(
    model: str | Path | None,
    out: str | Path,
    runtime: str | Path | None = None,
    reject_below: float | None = None,
    taxonomy: str | Path | None = None,
) -> Path:
    """Writes the folder: the page, the model, what it says of itself, and the runtime.

    Args:
        model: a run, a bundle or an exported .onnx file; None for the bundled model.
        out: the folder; files of the same name are replaced.
        runtime: onnxruntime-web's dist folder; None for where `make web` puts it.
        reject_below: mark answers less likely than this, and leave out objects that are; None for the model's own
            threshold, and for `Settings.least`.
        taxonomy: see `load_predictor`.

    Returns:
        The folder.

    Raises:
        UserError: no such model or taxonomy, no probability, it cannot be exported, or the runtime is not there.
    """
    from wastejax.deployment.regions import Settings  # not for a server, which does without scipy

    dist, source, folder = Path(runtime or NPM), model_path(model), Path(out)
    _check(source, dist, reject_below, taxonomy)
    check_folder(folder, "--out")
    (folder / "ort").mkdir(parents=True, exist_ok=True)
    # A file of that name beside the page may be the user's, or the model itself.
    with tempfile.TemporaryDirectory(prefix=".web.", dir=folder) as scratch:
        exported = Path(scratch) / MODEL
        _write_model(source, exported)
        predictor = load_predictor(exported, taxonomy=taxonomy)
        predictor, least = predictor.naming(None, reject_below)
        settings = Settings() if reject_below is None else Settings(least=reject_below)
        about: dict[str, Any] = {"file": MODEL + PACKED, "input": _entry(exported)}
        about |= {
            "any_side": predictor.dense is not None and predictor.any_side,
            "regions": asdict(settings),
        }
        packed = _packed(exported.read_bytes())
    write_json(folder / LABELS, describe(predictor, least) | {"onnx": about})
    files = _page() | {LABELS: (folder / LABELS).read_bytes(), MODEL + PACKED: packed}
    for name in RUNTIME:
        data = (dist / name).read_bytes()
        files |= {f"ort/{name}{PACKED}": _packed(data)} if name.endswith(".wasm") else {f"ort/{name}": data}
    files[WORKER] = service_worker(files)
    for name, data in files.items():
        write_bytes(folder / name, data)
    copy_license(source, folder)
    return folder


def _check(source: Path, dist: Path, reject_below: float | None, taxonomy: str | Path | None) -> None:
    """Raises a UserError for what can be told before anything is written, let alone exported."""
    missing = [name for name in RUNTIME if not (dist / name).is_file()]
    if missing:
        raise UserError(f"--runtime={dist}: there is no {missing[0]}; `make web` in a checkout fetches it")
    if source.suffix == ".onnx" and not source.is_file():
        raise UserError(f"--model={source}: no such file")
    if reject_below is not None:
        check_probability(reject_below)
    if taxonomy is not None:
        load_taxonomy(taxonomy, "--taxonomy")


def _write_model(source: Path, path: Path) -> None:
    """Writes the model as an ONNX file with small kernels."""
    from wastejax.deployment.formats.onnx_packed import pack

    if source.suffix == ".onnx":
        pack(source, path)
        return
    # Here, because a server of an exported file does without all that these bring in.
    from wastejax.deployment.export import Check, Form, export_model
    from wastejax.evaluation.images import Asked

    export_model(Asked(source), Form("onnx"), path, checked=Check(32))
    pack(path, path)


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)  # no time: the same site is the same bytes


def _entry(path: Path) -> str:
    """Returns what an exported file takes, 'uint8' or 'float32'."""
    import onnx

    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return parse_about(path, properties.get(ABOUT))["input"]
