"""`wastejax web`: the page as a static folder with a model inside; and its files, which `serve` gives out."""

import argparse
import shutil
from collections.abc import Callable
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add(
        "--model", metavar="MODEL", help="run, bundle or exported .onnx (default: the model that comes along)"
    )
    add(
        "--taxonomy",
        metavar="RULES",
        help="whose sorting rules: korea, england, germany, japan, france, or a file (default: the model's)",
    )
    add("--out", required=True, metavar="DIR", help="the folder; files of the same name are replaced")
    add("--runtime", metavar="DIR", help="onnxruntime-web's dist folder (default: where `make web` puts it)")
    add("--reject_below", type=float, metavar="P", help="mark answers less likely than this")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Writes the folder: the page, the model, what it says of itself, and the runtime.

    Raises:
        UserError: no such model, it cannot be exported, or the runtime is not there.
    """
    runtime = Path(args.runtime or NPM)
    missing = [name for name in RUNTIME if not (runtime / name).is_file()]
    if missing:
        raise UserError(f"--runtime={runtime}: there is no {missing[0]}; `make web` in a checkout fetches it")
    out = Path(args.out)
    check_folder(out, "--out")
    (out / "ort").mkdir(parents=True, exist_ok=True)
    source = Path(args.model or default_bundle())
    if source.suffix == ".onnx":
        if not source.is_file():
            raise UserError(f"--model={source}: no such file")
        write_bytes(out / MODEL, source.read_bytes())
    else:
        _export(source, out / MODEL, say)
    predictor = load_predictor(out / MODEL, taxonomy=args.taxonomy)
    reject_below = predictor.reject_below() if args.reject_below is None else args.reject_below
    labels = describe(predictor, reject_below) | {"onnx": {"file": MODEL, "input": _entry(out / MODEL)}}
    write_json(out / LABELS, labels)
    for path in PAGE.iterdir():
        if path.suffix in KINDS:
            shutil.copyfile(path, out / path.name)
    for name in RUNTIME:
        shutil.copyfile(runtime / name, out / "ort" / name)
    licence = source / "LICENSE-MODEL"
    if licence.is_file():
        shutil.copyfile(licence, out / licence.name)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    say(f"written: {out}, {size / 1e6:.0f} MB; any web host can serve it: python -m http.server -d {out}")
    return 0


def _export(source: Path, path: Path, say: Callable[[str], None]) -> None:
    """Exports a run or bundle as `wastejax export` does, its checks included."""
    from wastejax.deployment import export  # brings in jax, which a server of an exported file does without

    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    export.run(
        parser.parse_args(["--format=onnx", f"--model={source}", f"--out={path}", "--pictures=32"]), say
    )


def _entry(path: Path) -> str:
    """Returns what an exported file takes, 'uint8' or 'float32'."""
    import onnx

    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return parse_about(path, properties.get(ABOUT))["input"]
