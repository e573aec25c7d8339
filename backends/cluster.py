"""A connection to the workers of ``dask.distributed``: at another address, or started on this machine."""

import os
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from functools import lru_cache
from logging import CRITICAL
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from distributed import Client

LOCAL = "local"
_SECONDS = 30
"""How long a cluster is waited for: one that is being started, or restarts a lost worker, takes a few seconds."""


class ClusterError(ValueError):
    """A cluster that cannot be reached, has no worker, or lost one that ran a part again and again."""


class Cluster:
    """Workers, connected to when first asked and again after the connection was lost; closed as the process ends.

    ``address`` "local" starts ``workers`` processes (None: one for each core), each of which computes on one thread; as
    those of Dask itself they listen on the loopback device, to whoever is logged in. Not for forks of the process.
    """

    def __init__(self, address: str, workers: int | None) -> None:
        self.address, self.workers = address, workers
        self._client: Client | None = None
        self._process = 0

    def size(self) -> int:
        """Return how many workers there are now; ClusterError where there are none."""
        client = self._connected()
        try:
            if not _workers(client):
                client.wait_for_workers(1, timeout=_SECONDS)
            return _workers(client)
        except (OSError, CancelledError) as error:  # a TimeoutError is an OSError
            raise ClusterError(
                f"backend 'dask' expects a worker at '{self.address}', got none in {_SECONDS} s; start one: "
                "dask worker ADDRESS."
            ) from error

    def run(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return the results of one call of a function per tuple of arguments, in order.

        A call whose worker is lost is sent to another one, three times. Raises what the function raises; ClusterError.
        """
        from dask import config
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        client = self._connected()
        # Arguments go with the call, however large: data that a lost worker held could not be sent again.
        with config.set({"distributed.admin.large-graph-warning-threshold": "1 PiB"}):
            futures = [client.submit(function, *arguments, pure=False) for arguments in calls]
        try:
            return cast(list[Any], client.gather(futures))
        except KilledWorker as error:
            raise ClusterError(
                f"backend 'dask' expects workers to survive a part of the batch, got {error.allowed_failures + 1} that "
                "died of it, most often for want of memory; use fewer wires, smaller batches or larger machines."
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise ClusterError(
                f"backend 'dask' expects the cluster '{self.address}' to stay, lost it during a call; call again once "
                "it is back."
            ) from error

    def _connected(self) -> "Client":
        if self._client is not None and self._process != os.getpid():
            raise ClusterError(
                "backend 'dask' expects the process that connected to its workers, got a fork of it, whose threads are "
                "gone; start processes by spawn."
            )
        if self._client is None or self._client.status in ("closing", "closed"):
            self._client, self._process = self._connect(), os.getpid()
        return self._client

    def _connect(self) -> "Client":
        from distributed import Client

        if self.address == LOCAL:
            return Client(_started(self.workers), set_as_default=False)
        try:
            return Client(self.address, timeout=_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"backend 'dask' expects a scheduler at '{self.address}', got no answer ({type(error).__name__}); "
                "start one: dask scheduler."
            ) from error


@lru_cache(maxsize=64)
def cluster_of(address: str, workers: int | None) -> Cluster:
    """Return the connection to a cluster: one for all equal backends.

    >>> cluster_of("local", 2) is cluster_of("local", 2)
    True
    """
    return Cluster(address, workers)


def _workers(client: "Client") -> int:
    return len(cast(dict[str, int], client.nthreads()))


def _started(workers: int | None) -> Any:
    """A scheduler in this process and workers in their own.

    They are started as programs: a copy or another import of the running script would need a guard in it.
    """
    from dask.system import CPU_COUNT
    from distributed import Scheduler, SpecCluster
    from distributed.deploy.subprocess import SubprocessWorker

    own = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    quiet = {"nthreads": 1, "memory_limit": 0, "silence_logs": "CRITICAL"}
    worker = {"cls": SubprocessWorker, "options": {"worker_kwargs": {**own, **quiet}}}
    return SpecCluster(
        scheduler={"cls": Scheduler, "options": {**own, "port": 0}},
        workers=dict.fromkeys(range(workers or CPU_COUNT), worker),
        name="qlm",
        silence_logs=CRITICAL,  # pyright: ignore[reportArgumentType] -- it is a level, whatever its annotation says
    )
