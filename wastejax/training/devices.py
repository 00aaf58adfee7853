"""Data parallel over every device of every process: state on all of them, each batch split between them.

The step is one program for the whole mesh, compiled by `jit`, so sums and means over a batch, those of batch
normalization included, are over the global batch, and results do not depend on the number of devices beyond
rounding. A batch's rows lie on the devices in order, so process k of n reads the k-th n-th of each batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from wastejax.data.pipeline import MORE
from wastejax.errors import ConfigError, UserError
from wastejax.runtime.rendezvous import meet

Tree = TypeVar("Tree")

PATIENCE = 60  # seconds that a process waits for the others, at the start


@dataclass(frozen=True)
class Cluster:
    """How several processes find each other.

    Attributes:
        coordinator: HOST:PORT of process 0; 'auto' where jax can ask the cluster (Slurm, Open MPI, Cloud TPU, …).
        processes: how many there are; None with 'auto'.
        process: which of them this is, from 0.
    """

    coordinator: str
    processes: int | None = None
    process: int | None = None


def connect(cluster: Cluster) -> None:
    """Waits until all processes are there; to be called before anything else asks jax for devices.

    Raises:
        UserError: the flags do not fit each other, or the others do not come within `PATIENCE` seconds.
    """
    flag, processes, process = f"--coordinator={cluster.coordinator}", cluster.processes, cluster.process
    arguments: dict[str, Any] = {}
    if cluster.coordinator == "auto":
        if (processes, process) != (None, None):
            raise UserError(f"{flag}: --processes and --process are found out as well; leave them out")
    else:
        host, _, port = cluster.coordinator.rpartition(":")
        if not (host and port.isdigit() and 0 < int(port) < 1 << 16):
            raise UserError(f"{flag}: give HOST:PORT of process 0, or auto")
        if processes is None or process is None or not 0 <= process < processes:
            raise UserError("--coordinator needs --processes=N and --process=K, K from 0 to N - 1")
        meet(host.strip("[]"), int(port), processes, process, PATIENCE)
        arguments = {
            "coordinator_address": cluster.coordinator,
            "num_processes": processes,
            "process_id": process,
        }
    # Or it would take SIGTERM from `runtime.stop`, and the run would go on.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        # The test images are scored by process 0 alone; the others wait for it at the end.
        jax.distributed.initialize(**arguments, shutdown_timeout_seconds=24 * 3600)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{flag}: no connection: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
        mesh: all of them along one axis, 'data'.
    """

    mesh: Mesh

    @property
    def count(self) -> int:
        """Devices of all processes."""
        return self.mesh.size

    @property
    def part(self) -> tuple[int, int]:
        """(k, n): this process reads the k-th n-th of every batch."""
        return jax.process_index(), jax.process_count()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return jax.process_index() == 0

    @cached_property
    def everywhere(self) -> NamedSharding:
        """The same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @cached_property
    def by_rows(self) -> NamedSharding:
        """Split along the first axis."""
        return NamedSharding(self.mesh, PartitionSpec("data"))

    def replicate(self, tree: Tree) -> Tree:
        """Puts arrays, the same in every process, on all devices."""
        return jax.device_put(tree, self.everywhere)

    def split(self, rows: np.ndarray) -> jax.Array:
        """Puts this process's rows of a batch on its devices, as its part of the global batch."""
        return jax.make_array_from_process_local_data(self.by_rows, rows)

    def anyone(self, flag: bool) -> bool:
        """Returns whether the flag is set in any process; all of them must ask, at the same point."""
        if jax.process_count() == 1:
            return flag
        return bool(multihost_utils.process_allgather(np.array(flag)).any())

    def agreed(self, flag: bool) -> bool:
        """Returns the flag of the first process; all of them must ask, at the same point."""
        if jax.process_count() == 1:
            return flag
        return bool(multihost_utils.broadcast_one_to_all(np.array(flag)))


def use_devices(devices: Sequence[jax.Device] | None = None) -> Devices:
    """Returns these devices, or all there are, as a mesh."""
    devices = jax.devices() if devices is None else devices
    return Devices(jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices))


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError for a batch that the devices cannot share evenly."""
    rows = config.train.batch_size // config.train.accumulate
    if rows % devices.count:
        what = "" if config.train.accumulate == 1 else " / train.accumulate"
        raise ConfigError(
            "config.train.batch_size",
            f"{config.train.batch_size}{what} must be a multiple of the {devices.count} devices",
        )


def on_devices(devices: Devices, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Returns what the train step takes of a batch, split over the devices."""
    taken = ("image", "label", *MORE)
    return {name: devices.split(batch[name]) for name in taken if name in batch}
