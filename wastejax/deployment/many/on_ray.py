"""Parts answered by a Ray cluster: an actor for each group of cores holds the model, this process writes files.

The answers of a part come back over Ray, so that the machines need no folder in common with this process but for
the images and the model, where these are files.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from operator import methodcaller
from pathlib import Path

from wastejax.data.collections.parts import Part
from wastejax.deployment.engines import choose
from wastejax.deployment.many.job import Answerer, Asked, Numbered, save
from wastejax.deployment.many.part_file import Counts
from wastejax.runtime.ray_cluster import cluster, ray_module, reach, results, start_actors


class Worker:
    """Holds the model in a process of its own, on some machine of the cluster."""

    def __init__(self, asked: Asked):
        self._asked = asked
        self._predictor = asked.load(lambda line: None)

    def ready(self) -> bool:
        """Returns once the model is loaded."""
        return True

    def answer(self, number: int, part: Part) -> tuple[int, Counts, bytes, str]:
        """Returns the number, what the part holds, its file's content and the node that answered."""
        import ray

        sink = io.BytesIO()
        counts = self._asked.answer(self._predictor, part, sink)
        return number, counts, sink.getvalue(), ray.get_runtime_context().get_node_id()


def on_ray(
    asked: Asked,
    address: str | None = None,
    cores: int | None = None,
    tell: Callable[[str], None] = lambda node: None,
) -> Answerer:
    """Returns what answers parts on a Ray cluster.

    Args:
        asked: the model and how it answers.
        address: of a running cluster, 'auto' or HOST:PORT; None to start one on this machine meanwhile.
        cores: of each actor; None for those of the smallest machine, so that each has one.
        tell: is told the node that answered each part.

    Raises:
        UserError: Ray is not installed.
    """
    ray_module()
    # The same engine on every machine, whatever else is installed there.
    asked = replace(asked, engine=choose(asked.model, asked.engine))
    of_file = bool(asked.model) and Path(str(asked.model)).is_file()

    def with_threads(each: int) -> tuple[Asked]:
        return (replace(asked, threads=asked.threads or (each if of_file and cores else None)),)

    def answer(todo: Iterable[Numbered], path: Callable[[int], Path]) -> Iterator[tuple[int, Counts]]:
        reach(address)
        parts = iter(todo)
        first = next(parts, None)
        if first is None:
            return
        with cluster(address) as ray:
            actors = start_actors(ray, with_threads, Worker, cores)
            for number, counts, content, node in results(ray, actors, chain([first], parts), "answer"):
                save(path(number), methodcaller("write", content))
                tell(node)
                yield number, counts

    return answer
