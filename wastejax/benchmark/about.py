"""When, where and with what a benchmark was made."""

import datetime
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wastejax import __version__, machine
from wastejax.runtime.process import has_huge_pages

BUSY = 0.3  # load per core from which a machine is not quiet


def facts(threads: int) -> dict[str, Any]:
    """Returns when, where and with what is measured; `notes` are doubts about the machine."""
    import jax

    device, load, cores = jax.devices()[0], os.getloadavg()[0], os.cpu_count() or 1
    notes = []
    if load > BUSY * cores:
        notes.append(
            f"the machine is busy (load {load:.1f} on {cores} cores): trust the ratios, not the times"
        )
    if not has_huge_pages() and device.platform == "cpu":
        notes.append("no huge pages: the kernel, the C library or WASTEJAX_HUGEPAGES=0 is against them")
    if device.platform != "cpu":
        notes.append(
            "float32 products use the precision of jax's default, TF32 on recent cards, in all runtimes"
        )
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(
            ["python -m wastejax.main", *(Path(a).name if a[:1] == "/" else a for a in sys.argv[1:])]
        ),
        "device": device.device_kind if device.platform != "cpu" else _processor(),
        "backend": device.client.platform_version.splitlines()[0],
        "cores": cores,
        "threads": threads,
        "huge_pages": has_huge_pages(),
        "load": load,
        "versions": {"python": platform.python_version(), "wastejax": __version__}
        | {p: version(p) for p in ("jax", "jaxlib", "flax", "optax", "numpy")},
        "notes": notes,
    }


def _processor() -> str:
    """Returns the processor's name, and the widest vector instructions it has."""
    known = machine.instructions()
    widest = next((flag for flag in ("avx512f", "avx2", "avx") if flag in known), "")
    return f"{machine.processor()}, {widest}" if widest else machine.processor()
