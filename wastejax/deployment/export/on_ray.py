"""An exported model checked on a Ray cluster, with more images than one process should answer."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wastejax.bundle import Bundle
from wastejax.deployment.export.checking import DTYPE, Comparison, judge, probabilities
from wastejax.deployment.export.images import Chosen, Sample, readable
from wastejax.deployment.formats import load_jax, load_predictor
from wastejax.deployment.predictor import Predictor
from wastejax.errors import UserError
from wastejax.runtime.ray_cluster import cluster, results, start_actors

_CHUNK = 64  # images of one task


class Checker:
    """Holds both forms of a model in a process of its own, on some machine of the cluster."""

    def __init__(self, model: Path, name: str, content: bytes, read: Callable[[int], bytes]):
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / name
            file.write_bytes(content)
            self._pair = (load_jax(model, DTYPE), load_predictor(file))
        self._read = read

    def ready(self) -> bool:
        """Returns once both are loaded."""
        return True

    def check(self, start: int, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns int64 [M], the place of each readable image, and the probabilities of both forms, [M, C]."""
        squares, good = readable(self._read, indices, self._pair[0].preprocessing)
        before, after = (probabilities(one, squares) for one in self._pair)
        return start + good, before, after


def compare_on_ray(
    pair: tuple[Predictor, Predictor], bundle: Bundle, file: Path, chosen: Chosen, address: str | None
) -> tuple[Comparison, Sample]:
    """Compares two forms of a model on a cluster, and times both here.

    Args:
        pair: both forms.
        bundle: the model; the machines find it under the same name.
        file: the exported one, which is sent to them.
        chosen: images to answer.
        address: of a running cluster, see `cluster`.

    Returns:
        What came of it, and the one image that was timed.

    Raises:
        UserError: there is no cluster, or no readable image.
    """
    starts = range(0, len(chosen.indices), _CHUNK)
    tasks = ((start, chosen.indices[start : start + _CHUNK]) for start in starts)
    arguments = (bundle.path, file.name, file.read_bytes(), chosen.source.read)
    with cluster(address) as ray:
        actors = start_actors(ray, lambda cores: arguments, Checker, None)
        parts = [part for part in results(ray, actors, tasks, "check") if len(part[0])]
    if not parts:
        raise UserError(f"--data: no readable images among {chosen.origin}")
    good, before, after = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    first = readable(chosen.source.read, chosen.indices[good[:1]], pair[0].preprocessing)[0]
    comparison = judge(pair, (before, after), chosen.labels[good], first)
    return comparison, Sample(first, chosen.labels[good[:1]], chosen.origin)
