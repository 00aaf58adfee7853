"""A Ray cluster: how it is reached, actors that hold what is large on its machines, and what they answer."""

import os
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from wastejax import machine
from wastejax.errors import UserError, imported

AHEAD = 2  # tasks that an actor has, the next one included
_STORE = 256 << 20  # bytes of Ray's store on this machine, which holds answers and no images
_CHUNK = 64  # images that an actor reads in one task

Item = TypeVar("Item")


def ray_module() -> Any:
    """Returns the package; raises MissingPackage, a UserError."""
    return imported("ray", "--workers=ray", extra="ray")


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """Connects to a cluster, or starts one on this machine meanwhile, and gives the package `ray`.

    Args:
        address: of a running cluster, 'auto' or HOST:PORT; None to start one.

    Raises:
        UserError: Ray is not installed, there is no cluster, or a worker ended.
    """
    ray = ray_module()
    reach(address)
    _connect(ray, address)
    try:
        yield ray
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError | OSError):
            raise error.cause from None
        raise
    except ray.exceptions.RayActorError as error:
        raise UserError(f"--workers=ray: a worker ended: {' '.join(str(error).split())[:300]}") from None
    finally:
        ray.shutdown()


def reach(address: str | None) -> None:
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
    # Of arguments that an actor could not be restarted with if this process were gone, and with it the work.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    common = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    # 'local', or Ray would join a cluster that this machine runs already.
    own = {"num_cpus": machine.cores(), "object_store_memory": _STORE, "include_dashboard": False}
    try:
        with warnings.catch_warnings():  # JAX's, of forks; these become other programs at once
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
            ray.init(**({"address": "local", **own} if address is None else {"address": address}), **common)
    except Exception as error:  # of no kind of its own where a node does not start in time
        why = str(error).strip().partition("\n")[0]
        if address is None:
            raise UserError(f"--workers=ray: Ray does not start on this machine ({why})") from None
        raise UserError(f"--address={address}: no Ray cluster there ({why})") from None


def start_actors(ray: Any, make: Callable[[int], tuple[Any, ...]], cls: type, cores: int | None) -> list[Any]:
    """Starts an actor for each group of cores, on every machine that has so many.

    Args:
        ray: of `cluster`.
        make: cores of an actor -> the arguments of its class.
        cls: has a method `ready`, which returns once the actor can work.
        cores: of each; None for those of the smallest machine, so that each has one.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}
    nodes = {node: count for node, count in nodes.items() if count}
    if not nodes:
        raise UserError("--workers=ray: no machine of the cluster offers a processor core")
    each = cores or min(nodes.values())
    arguments = make(each)
    remote = ray.remote(num_cpus=each, max_restarts=3, max_task_retries=3)(cls)
    actors = [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True)).remote(*arguments)
        for node, count in nodes.items()
        for _ in range(count // each)
    ]
    if not actors:
        raise UserError(f"--cores={each}: no machine of the cluster has so many")
    ray.get([actor.ready.remote() for actor in actors])
    return actors


def results(ray: Any, actors: Sequence[Any], tasks: Iterable[tuple[Any, ...]], method: str) -> Iterator[Any]:
    """Yields what a method of the actors answers, in any order; each has a few tasks, and no more are drawn yet."""
    running: dict[Any, Any] = {}
    left = iter(tasks)

    def give(actor: Any) -> None:
        task = next(left, None)
        if task is not None:
            running[getattr(actor, method).remote(*task)] = actor

    for _ in range(AHEAD):
        for actor in actors:
            give(actor)
    while running:
        (ready, *_), _ = ray.wait(list(running), num_returns=1)
        actor = running.pop(ready)
        give(actor)
        yield ray.get(ready)


class Reader:
    """Reads images in a process of its own, on some machine of the cluster."""

    def __init__(self, read: Callable[[int], bytes]):
        self._read = read

    def ready(self) -> bool:
        """Returns once what there is to read is here."""
        return True

    def look(
        self, number: int, do: Callable[[Any, int], Item], indices: Sequence[int]
    ) -> tuple[int, list[Item]]:
        """Returns the number of the task and what was made of each image."""
        return number, [do(self._read, i) for i in indices]


class OnRay:
    """Does something with each of many images on a cluster; see `wastejax.data.each.Each`."""

    def __init__(self, ray: Any):
        self._ray = ray
        self._read: Callable[[int], bytes] | None = None
        self._actors: list[Any] = []

    def __call__(
        self, do: Callable[[Any, int], Item], read: Callable[[int], bytes], indices: Sequence[int]
    ) -> Iterator[Item]:
        """Yields what `do(read, index)` returns, in the order of the indices."""
        if self._read is not read:  # all names are among what it holds: they travel once
            for actor in self._actors:
                self._ray.kill(actor)
            self._actors = start_actors(self._ray, lambda cores: (read,), Reader, 1)
            self._read = read
        starts = range(0, len(indices), _CHUNK)
        tasks = ((number, do, indices[start : start + _CHUNK]) for number, start in enumerate(starts))
        waiting: dict[int, list[Item]] = {}
        due = 0
        for number, found in results(self._ray, self._actors, tasks, "look"):
            waiting[number] = found
            while due in waiting:
                yield from waiting.pop(due)
                due += 1
