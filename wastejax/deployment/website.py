"""The page as a static folder with a model inside; and its files, which `serve` gives out."""

import shutil
from pathlib import Path

from wastejax.bundle import default_bundle
from wastejax.deployment.labels import describe
from wastejax.deployment.predictor import ABOUT, load_predictor, parse_about
from wastejax.errors import UserError
from wastejax.files import check_folder, write_bytes, write_json

PAGE = Path(__file__).parent / "web"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
NPM = Path(__file__).parents[2] / "web" / "node_modules" / "onnxruntime-web" / "dist"  # in a checkout
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
MODEL, LABELS = "model.onnx", "labels.json"


def page_files() -> list[tuple[str, bytes, str]]:
    """Returns (URL path, content, media type) of each file of the page; '/' is the page itself."""
    files = [path for path in sorted(PAGE.iterdir()) if path.suffix in KINDS]
    return [
        ("/" if path.name == "index.html" else f"/{path.name}", path.read_bytes(), KINDS[path.suffix])
        for path in files
    ]


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
        reject_below: mark answers less likely than this; None for the model's own threshold.
        taxonomy: see `load_predictor`.

    Returns:
        The folder.

    Raises:
        UserError: no such model, it cannot be exported, or the runtime is not there.
    """
    dist = Path(runtime or NPM)
    missing = [name for name in RUNTIME if not (dist / name).is_file()]
    if missing:
        raise UserError(f"--runtime={dist}: there is no {missing[0]}; `make web` in a checkout fetches it")
    folder = Path(out)
    check_folder(folder, "--out")
    (folder / "ort").mkdir(parents=True, exist_ok=True)
    source = Path(model or default_bundle())
    if source.suffix == ".onnx":
        if not source.is_file():
            raise UserError(f"--model={source}: no such file")
        write_bytes(folder / MODEL, source.read_bytes())
    else:
        # Here, because a server of an exported file does without all that these bring in.
        from wastejax.deployment.export import export_model
        from wastejax.evaluation.pictures import Asked

        export_model(Asked(source), "onnx", folder / MODEL, count=32)
    predictor = load_predictor(folder / MODEL, taxonomy=taxonomy)
    least = predictor.reject_below() if reject_below is None else reject_below
    labels = describe(predictor, least) | {"onnx": {"file": MODEL, "input": _entry(folder / MODEL)}}
    write_json(folder / LABELS, labels)
    for path in PAGE.iterdir():
        if path.suffix in KINDS:
            shutil.copyfile(path, folder / path.name)
    for name in RUNTIME:
        shutil.copyfile(dist / name, folder / "ort" / name)
    licence = source / "LICENSE-MODEL"
    if licence.is_file():
        shutil.copyfile(licence, folder / licence.name)
    return folder


def _entry(path: Path) -> str:
    """Returns what an exported file takes, 'uint8' or 'float32'."""
    import onnx

    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return parse_about(path, properties.get(ABOUT))["input"]
