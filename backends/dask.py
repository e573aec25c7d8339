"""The ``dask`` backend: any other backend, its batches divided among the workers of ``dask.distributed``.

Axis legend: b batch, a angles, i inputs, w weights, o observables, t times, k wires asked for, s shots, p parts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from backends.base import Backend, Request
from backends.cluster import LOCAL, Cluster, cluster_of
from backends.counts import derived_seed
from backends.estimate import Capabilities, Estimate
from backends.extras import check_installed
from backends.gradients import attach
from backends.parts import Array, Part, answer, joined, pulled_back, written
from backends.registry import open_backend
from backends.validate import Call
from circuits import Circuit, PauliSum

_ADDRESS = re.compile(r"([a-z]+://)?[^/\s]+:\d+")


@dataclass(frozen=True)
class Dask(Backend):
    """Another backend in many processes: each batch is divided in equal parts, one per worker.

    ``cluster``: "local", which starts worker processes on this machine at the first call and ends them with this
    process, or the address of a scheduler ("tcp://10.0.0.1:8786"). ``of``: the backend's string ("aer?shots=100"; its
    "&" is written "%26"). ``workers``: how many a local cluster starts (None: one per core), and into how many parts a
    batch is divided (None: as many as there are workers). A local worker computes on one thread.

    Capabilities and results are those of the other backend; each worker opens it once. Gradients of one that is
    differentiable are computed by the workers, once (no second derivatives); parameter shifts of any other are divided
    like every batch. With counted shots part j of several takes a seed derived from the call's and j, so that equal
    divisions count equal shots; without a seed one is drawn of torch's generator.

    A part whose worker died is computed again by another, up to three times, which only a simulator allows: a backend
    that leaves the machine is refused. Circuits travel as JSON, but Dask itself pickles what it sends: connect to
    schedulers that you trust, whose workers have the same packages. Raises ValueError for options that do not fit,
    ImportError without dask.distributed, ``cluster.ClusterError`` (a ValueError) where the workers cannot be reached or
    die, and what the workers raise. Cost: that of the other backend over the number of workers, and tens of ms a call.

    >>> Dask(workers=2, of="aer?shots=100").spec
    'dask?of=aer%3Fshots%3D100&workers=2'
    """

    kind: ClassVar[str] = "dask"
    argument: ClassVar[str | None] = "cluster"

    cluster: str = LOCAL
    of: str = "statevector"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.cluster != LOCAL and not _ADDRESS.fullmatch(str(self.cluster)):
            raise ValueError(
                f"backend 'dask' expects 'local' or a scheduler's address, got '{self.cluster}'; try "
                "'tcp://127.0.0.1:8786'."
            )
        workers = self.workers
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
            raise ValueError(f"backend 'dask' expects positive workers or None (all), got {workers!r}; raise them.")
        check_installed("dask", "distributed", "dask")
        if not isinstance(self.of, str):
            raise TypeError(f"backend 'dask' expects of= as a string, got {type(self.of).__name__}; pass its spec.")
        if isinstance(self._inner, Dask):
            raise ValueError("backend 'dask' expects a backend that computes, got 'dask' again; name the inner one.")
        if self._inner.capabilities.remote:
            raise ValueError(
                f"backend 'dask' expects a simulator, got the remote '{self.of}': parts of lost workers are sent "
                "again, and jobs must not be; open it directly."
            )

    @cached_property
    def _inner(self) -> Backend:
        return open_backend(self.of)

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    @property
    def shots(self) -> int | None:
        """The other backend's own."""
        return getattr(self._inner, "shots", None)

    @property
    def _cluster(self) -> Cluster:
        return cluster_of(self.cluster, self.workers if self.cluster == LOCAL else None)

    def _divided(
        self,
        method: str,
        circuits: Sequence[Circuit],
        data: Sequence[Tensor],
        options: tuple[Any, ...],
        request: Request,
        common: int | None = None,
    ) -> Estimate:
        """Call the other backend's method on p parts of the data, split by samples but for the tensor ``common``."""
        split = [index != common for index in range(len(data))]
        n_parts = min(len(data[0]), self.workers or self._cluster.size())
        arrays = [
            _arrays(tensor, n_parts) if divided else _arrays(tensor, 1) * n_parts
            for tensor, divided in zip(data, split, strict=True)
        ]
        texts, seed = tuple(written(circuit) for circuit in circuits), self._seed(method, request)
        parts = [
            Part(self.of, method, texts, rows, options, replace(request, seed=_part_seed(seed, number, n_parts)))
            for number, rows in enumerate(zip(*arrays, strict=True))
        ]
        estimate = joined(self._cluster.run(answer, [(part,) for part in parts]), data[0].device)
        if not self.capabilities.autograd:
            return estimate

        def pull_back(flat: Tensor, cotangent: Tensor) -> Tensor:
            sent = zip(parts, _arrays(cotangent, n_parts), strict=True)
            found = zip(*self._cluster.run(pulled_back, list(sent)), strict=True)
            moved = [
                np.concatenate(each) if divided else np.sum(each, axis=0)
                for each, divided in zip(found, split, strict=True)
            ]
            return torch.from_numpy(np.concatenate([gradient.ravel() for gradient in moved])).to(flat)

        flat = torch.cat([tensor.flatten() for tensor in data])
        return replace(estimate, values=attach(flat, estimate.values, pull_back))

    def _seed(self, method: str, request: Request) -> int | None:
        """The call's seed; where chance decides and none was given, one of torch's generator."""
        by_chance = self.capabilities.shots or request.shots is not None or method == "_sample_estimate"
        return int(torch.randint(2**31, ()).item()) if request.seed is None and by_chance else request.seed

    def _expectations_of(self, call: Call, observables: tuple[PauliSum, ...], request: Request) -> Estimate:
        data = call.inputs, call.weights
        return self._divided("_expectations_of", (call.circuit,), data, (observables,), request, common=1)

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        return self._divided("_expectations", (circuit,), (angles,), (observables,), request)

    def _expectations_along(
        self,
        circuit: Circuit,
        angles: Tensor,
        observables: tuple[PauliSum, ...],
        times: tuple[int, ...],
        request: Request,
    ) -> Estimate:
        return self._divided("_expectations_along", (circuit,), (angles,), (observables, times), request)

    def _probabilities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        return self._divided("_probabilities", (circuit,), (angles,), (wires,), request)

    def _state(self, circuit: Circuit, angles: Tensor) -> Estimate:
        return self._divided("_state", (circuit,), (angles,), (), Request())

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        return self._sample_estimate(circuit, angles, wires, shots, seed).values

    def _sample_estimate(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Estimate:
        return self._divided("_sample_estimate", (circuit,), (angles,), (wires,), Request(shots, seed))

    def _density(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        return self._divided("_density", (circuit,), (angles,), (wires,), request)

    def _entropy(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str, request: Request
    ) -> Estimate:
        return self._divided("_entropy", (circuit,), (angles,), (wires, kind), request)

    def _fidelity(
        self, circuit_a: Circuit, circuit_b: Circuit, angles_a: Tensor, angles_b: Tensor, gram: bool, request: Request
    ) -> Estimate:
        circuits, angles = (circuit_a, circuit_b), (angles_a, angles_b)
        return self._divided("_fidelity", circuits, angles, (gram,), request, common=1 if gram else None)


def _arrays(tensor: Tensor, n_parts: int) -> list[Array]:
    """The rows of a tensor in nearly equal parts; a single part is the tensor, whatever its axes are."""
    whole = tensor.detach().cpu().resolve_conj()
    return [part.numpy() for part in (whole.tensor_split(n_parts) if n_parts > 1 else (whole,))]


def _part_seed(seed: int | None, number: int, n_parts: int) -> int | None:
    return derived_seed(seed, number) if n_parts > 1 else seed
