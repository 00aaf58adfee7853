"""`wastejax serve`: a trained model that answers over HTTP, with a web page at /."""

import argparse
import ipaddress
import logging
import re
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wastejax.cli import SHARED, only, options
from wastejax.deployment.engines import ENGINES, load_engine
from wastejax.deployment.predictor import nothing_named
from wastejax.errors import MissingPackage, UserError
from wastejax.files import check_folder
from wastejax.progress import Say

if TYPE_CHECKING:
    from wastejax.deployment.server.collecting import Keep

_MOST_DAYS = 36_500  # a century
_LARGEST_BODY = 2**20  # MiB: a request is kept in memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = options(parser)
    add("--model", "MODEL", "run, bundle or exported file (default: the bundled model)")
    add("--engine", None, "what runs the network (auto: the fastest that is installed)", choices=ENGINES)
    add("--taxonomy", *SHARED["--taxonomy"])
    add("--host", None, "address to listen on (127.0.0.1: this machine only)", default="127.0.0.1")
    add("--port", "N", "port to listen on; 0 picks a free one (8000)", type=int, default=8000)
    add("--max-body", "MIB", "largest request (16)", type=float, default=16)
    add(
        "--max-pixels",
        "N",
        "refuse larger images; JPEGs up to eight times as large are read at reduced size (50 million)",
        type=int,
        default=50_000_000,
    )
    add("--max-waiting", "N", "images that may wait; more are refused with 503 (32)", type=int, default=32)
    add("--max-batch", "N", "images per batch (8)", type=int, default=8)
    add("--timeout", "S", "seconds to receive a request, and to answer it (30)", type=float, default=30)
    add("--threads", *SHARED["--threads"], type=int)
    add(
        "--allow-origin",
        "ORIGIN",
        "another site whose pages may send requests, e.g. https://example.org, or * for all; may be repeated",
        action="append",
        default=[],
    )
    add("--collect", "DIR", "keep images that the model is not sure of in this folder, for review (off)")
    add("--collect-sample", "SHARE", "keep this share of the others too (0)", type=float)
    add("--collect-most", "SIZE", "total size to keep, e.g. 500MB or 2GB; the oldest images go first (1GB)")
    add("--collect-days", "N", "days after which an image is removed (30)", type=float)
    add("--accuracy", "A", "mark uncertain answers, see predict (0.95)", type=float)
    add("--reject-below", "P", "name no bin or class that is less likely than this", type=float)


def run(args: argparse.Namespace, say: Say) -> int:
    """Serves until SIGTERM or Ctrl-C; what was taken by then is answered."""
    _check(args)
    try:
        import uvicorn

        from wastejax.deployment.server.app import Limits, create_app
        from wastejax.deployment.server.collecting import Collector
        from wastejax.deployment.server.connection import Connection
        from wastejax.deployment.server.requests import check_origin
    except ImportError as error:
        raise MissingPackage("serve", error.name or "a package", "serve") from None
    keep = collecting(args)
    origins = [check_origin(origin) for origin in args.allow_origin]
    predictor = load_engine(args.model, args.engine, args.taxonomy, args.threads)
    predictor, reject_below = predictor.naming(args.accuracy, args.reject_below)
    limits = Limits(
        body=int(args.max_body * 2**20),
        pixels=args.max_pixels,
        files=min(args.max_waiting, 16),
        waiting=args.max_waiting,
        seconds=args.timeout,
        batch=args.max_batch,
    )
    opened = listen(args.host, args.port)
    host, port = opened.getsockname()[:2]
    url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def ready() -> None:
        say(f"serving {predictor.path} ({predictor.runtime}) at {url}; stop with Ctrl-C")
        if note := nothing_named(reject_below, args.accuracy):
            say(f"note: {note}")
        if not ipaddress.ip_address(host).is_loopback:
            say("whoever reaches this machine can use it; there is no password and no encryption")
        if keep is not None:
            say(_kept(keep))

    collector = Collector(keep, str(predictor.path), predictor.classes, say) if keep else None
    config = uvicorn.Config(
        create_app(predictor, reject_below, limits, ready, origins, collector),
        http=Connection,
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(args.timeout) + 5,
    )
    # A line for every broken form would fill a disk.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    # uvicorn answers what it took and then raises the signal anew: that is a good end, not a kill.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.Server(config).run(sockets=[opened])
    return 0


def _kept(keep: "Keep") -> str:
    """Returns what is kept of that which is sent, for those who start the server."""
    others = f" and {keep.sample:.2%} of the others" if keep.sample else ""
    return (
        f"keeps images that it is not sure of{others} in {keep.folder}, at most {keep.bytes / 1e9:g} GB, "
        f"for {keep.days:g} days; tell those who send them"
    )


def _check(args: argparse.Namespace) -> None:
    """Raises a UserError for a limit that cannot be."""
    for name in ("max_body", "max_pixels", "max_waiting", "max_batch", "timeout"):
        if not 0 < getattr(args, name) < float("inf"):
            raise UserError(f"--{name.replace('_', '-')}: must be > 0 and finite, is {getattr(args, name)}")
    if args.max_body > _LARGEST_BODY:
        raise UserError(f"--max-body: is in MiB, and at most {_LARGEST_BODY:,}; is {args.max_body:g}")
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port: must be from 0 to 65535, is {args.port}")
    if args.accuracy is not None and args.reject_below is not None:
        raise UserError("--accuracy and --reject-below: give one of them")


def collecting(args: argparse.Namespace) -> "Keep | None":
    """Returns which images are to be kept; None for none.

    Raises:
        UserError: the folder cannot be written or holds other files, or a number is none.
    """
    given = {name: getattr(args, f"collect_{name}") for name in ("sample", "most", "days")}
    if not args.collect:
        only(args, False, "with --collect=DIR", **dict.fromkeys(f"collect_{name}" for name in given))
        return None
    from wastejax.deployment.server.collecting import Keep, check_place

    sample, days = given["sample"] or 0.0, 30.0 if given["days"] is None else given["days"]
    if not 0 <= sample <= 1:
        raise UserError(f"--collect-sample: must be a share from 0 to 1, is {sample:g}")
    if not 0 < days <= _MOST_DAYS:
        raise UserError(f"--collect-days: must be > 0, and at most {_MOST_DAYS:,}; is {days:g}")
    check_folder(args.collect, "--collect")
    check_place(Path(args.collect))
    return Keep(Path(args.collect), sample, number_of_bytes(given["most"] or "1GB"), days, args.max_pixels)


def number_of_bytes(text: str) -> int:
    """Returns how many bytes '500MB' or '1.5 GiB' are; raises a UserError for what is no size."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    count = found and int(float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " "))
    if not count:
        raise UserError(f"--collect-most={text}: give a size, as 500MB or 2GB")
    return count


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens at an address; raises a UserError where there is none, or it is taken."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"--host={host} --port={port}: {reason}") from None
