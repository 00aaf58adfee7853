"""Our networks in a process of its own, as `peer_worker.py` runs others: for how much memory it takes."""

from typing import Any

import jax

from wastejax.benchmark import networks
from wastejax.benchmark.networks import Case
from wastejax.benchmark.peer_worker import peak_mib, serve


def forms(case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Returns the one call of a case, facts about it, and that nothing is missing."""
    fields = Case.__dataclass_fields__
    run, facts = networks.prepare(Case(**{name: case[name] for name in fields}))
    return {"": lambda: run(1)}, facts, {}


def peak() -> float | None:
    """Returns the most memory: of the device where that is not the processor, else of this process; MiB."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return peak_mib()
    return (device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**20 or None


if __name__ == "__main__":
    serve(forms, peak)
