"""Parts answered by a Ray cluster: an actor for each group of cores holds the model, this process writes files.

The answers of a part come back over Ray, so that the machines need no folder in common with this process but for
the images and the model, where these are files.
"""

import io
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from operator import methodcaller
from pathlib import Path
from typing import Any

from wastejax import machine
from wastejax.data.collections.parts import Part
from wastejax.deployment.engines import choose
from wastejax.deployment.many.job import Answerer, Asked, Numbered, save
from wastejax.deployment.many.part_file import Counts
from wastejax.errors import MissingPackage, UserError

AHEAD = 2  # parts that an actor has, the next one included
_STORE = 256 << 20  # bytes of Ray's store on this machine, which holds answers and no images


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
    try:
        import ray
    except ImportError:
        raise MissingPackage("--workers=ray", "ray", "ray") from None
    # The same engine on every machine, whatever else is installed there.
    asked = replace(asked, engine=choose(asked.model, asked.engine))

    def answer(todo: Iterable[Numbered], path: Callable[[int], Path]) -> Iterator[tuple[int, Counts]]:
        _reach(address)
        parts = iter(todo)
        first = next(parts, None)
        if first is None:
            return
        _connect(ray, address)
        try:
            for number, counts, content, node in _results(
                ray, _actors(ray, asked, cores), _chain(first, parts)
            ):
                save(path(number), methodcaller("write", content))
                tell(node)
                yield number, counts
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError | OSError):
                raise error.cause from None
            raise
        except ray.exceptions.RayActorError as error:
            raise UserError(f"--workers=ray: a worker ended: {' '.join(str(error).split())[:300]}") from None
        finally:
            ray.shutdown()

    return answer


def _chain(first: Numbered, rest: Iterator[Numbered]) -> Iterator[Numbered]:
    yield first
    yield from rest


def _reach(address: str | None) -> None:
    """Raises a UserError where nothing listens at HOST:PORT, to which Ray would try to connect for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UserError(f"--address={address}: no Ray cluster there ({why.lower()})") from None


def _connect(ray: Any, address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # ours tells nobody
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # a busy machine takes more than its 60
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    common = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    # 'local', or Ray would join a cluster that this machine runs already.
    own = {"num_cpus": machine.cores(), "object_store_memory": _STORE, "include_dashboard": False}
    try:
        ray.init(**({"address": "local", **own} if address is None else {"address": address}), **common)
    except Exception as error:  # of no kind of its own where a node does not start in time
        why = str(error).strip().partition("\n")[0]
        if address is None:
            raise UserError(f"--workers=ray: Ray does not start on this machine ({why})") from None
        raise UserError(f"--address={address}: no Ray cluster there ({why})") from None


def _actors(ray: Any, asked: Asked, cores: int | None) -> list[Any]:
    """Starts an actor for each group of cores, on every machine that has so many."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}
    nodes = {node: count for node, count in nodes.items() if count}
    if not nodes:
        raise UserError("--workers=ray: no machine of the cluster offers a processor core")
    each = cores or min(nodes.values())
    of_file = bool(asked.model) and Path(str(asked.model)).is_file()
    asked = replace(asked, threads=asked.threads or (each if of_file and cores else None))
    cls = ray.remote(num_cpus=each, max_restarts=3, max_task_retries=3)(Worker)
    actors = [
        cls.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True)).remote(asked)
        for node, count in nodes.items()
        for _ in range(count // each)
    ]
    if not actors:
        raise UserError(f"--cores={each}: no machine of the cluster has so many")
    ray.get([actor.ready.remote() for actor in actors])
    return actors


def _results(ray: Any, actors: list[Any], parts: Iterator[Numbered]) -> Iterator[Any]:
    """Yields what the actors answer, in any order; each has a few parts, and the others are not listed yet."""
    running: dict[Any, Any] = {}

    def give(actor: Any) -> None:
        part = next(parts, None)
        if part is not None:
            running[actor.answer.remote(*part)] = actor

    for _ in range(AHEAD):
        for actor in actors:
            give(actor)
    while running:
        (ready, *_), _ = ray.wait(list(running), num_returns=1)
        actor = running.pop(ready)
        give(actor)
        yield ray.get(ready)
