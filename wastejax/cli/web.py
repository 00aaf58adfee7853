"""`wastejax web`: the page as a static folder with a model inside, for any web host."""

import argparse

from wastejax.cli import SHARED, options
from wastejax.deployment.website import write_site
from wastejax.progress import Say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = options(parser)
    add("--model", "MODEL", "run, bundle or exported .onnx (default: the bundled model)")
    add("--taxonomy", *SHARED["--taxonomy"])
    add("--out", "DIR", "folder to write; files of the same name are replaced", required=True)
    add("--runtime", "DIR", "onnxruntime-web's dist folder (default: where `make web` puts it)")
    add(
        "--reject-below",
        "P",
        "name no bin or class, and box no object, that is less likely than this",
        type=float,
    )


def run(args: argparse.Namespace, say: Say) -> None:
    """Writes the folder."""
    out = write_site(args.model, args.out, args.runtime, args.reject_below, args.taxonomy)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    say(f"written: {out}, {size / 1e6:.0f} MB; any web host can serve it: python -m http.server -d {out}")
