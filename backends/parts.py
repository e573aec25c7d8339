"""What a worker process does with its part of a batch, and how the parts' answers become one estimate.

Circuits travel as JSON, angles and answers as NumPy arrays. Axis legend: b batch, a angles; ... what follows the batch.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backends.base import Backend, Request
from backends.estimate import Estimate
from backends.registry import open_backend
from backends.validate import Call
from circuits import Circuit
from circuits.serial import dumps, loads

Array = NDArray[Any]
_TENSORS = ("values", "stderr", "truncation_error", "infidelity", "purity", "purity_stderr")
_ONE_AT_A_TIME = threading.Lock()
"""Compiled kernels have one pool of threads a process: a worker with several threads computes one part at a time."""


@dataclass(frozen=True)
class Part:
    """Some samples of a call: the backend's string, its private method, circuits, their data, and what else it takes.

    ``data``: angles (b, a) of each circuit; for ``_expectations_of`` inputs (b, i) and weights (w,).
    """

    backend: str
    method: str
    circuits: tuple[str, ...]
    data: tuple[Array, ...]
    options: tuple[Any, ...]
    request: Request


Answer = dict[str, Any]
"""The fields of an ``Estimate``, its tensors as arrays."""


@lru_cache(maxsize=256)
def written(circuit: Circuit) -> str:
    """Return the circuit as JSON.

    >>> written(Circuit(1)).count("ops")
    1
    """
    return dumps(circuit)


def answer(part: Part) -> Answer:
    """Return the answer to a part: what its backend's method returns, as arrays.

    >>> part = Part("statevector", "_state", (written(Circuit(1)),), (np.zeros((2, 0)),), (), Request())
    >>> answer(part)["values"].real.tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    with _ONE_AT_A_TIME, torch.no_grad():
        estimate = _evaluated(part, [_tensor(array) for array in part.data])
    arrays = {name: _array(getattr(estimate, name)) for name in _TENSORS}
    return {**arrays, "shots": estimate.shots}


def pulled_back(part: Part, cotangent: Array) -> tuple[Array, ...]:
    """Return ``sum cotangent dvalues/ddata`` for each array of a part's data; evaluates the part once more.

    >>> from circuits import Op, Z
    >>> circuit = Circuit(1, (Op("rx", (0,), (0.5,)),))
    >>> part = Part("statevector", "_expectations", (written(circuit),), (np.array([[0.5]]),), ((Z(0),),), Request())
    >>> pulled_back(part, np.ones((1, 1)))[0].round(4).tolist()  # -sin(0.5)
    [[-0.4794]]
    """
    data = [_tensor(array).requires_grad_() for array in part.data]
    with _ONE_AT_A_TIME:
        values = _evaluated(part, data).values
        if not values.requires_grad:
            return tuple(np.zeros_like(array) for array in part.data)
        moved = torch.autograd.grad(values, data, _tensor(cotangent), allow_unused=True, materialize_grads=True)
    return tuple(each.numpy() for each in moved)


def joined(answers: Sequence[Answer], device: torch.device) -> Estimate:
    """Return the estimate of a whole batch from those of its parts, in order.

    >>> part = Part("statevector", "_state", (written(Circuit(1)),), (np.zeros((2, 0)),), (), Request())
    >>> joined([answer(part), answer(part)], torch.device("cpu")).values.shape
    torch.Size([4, 2])
    """
    arrays = {name: [each[name] for each in answers] for name in _TENSORS if answers[0][name] is not None}
    tensors = {name: torch.from_numpy(np.concatenate(parts)).to(device) for name, parts in arrays.items()}
    return Estimate(**tensors, shots=answers[0]["shots"])


def _evaluated(part: Part, data: list[Tensor]) -> Estimate:
    backend, request = _opened(part.backend), part.request
    circuits = [_read(text) for text in part.circuits]
    if part.method == "_expectations_of":
        call = Call(circuits[0], data[0], data[1], data[0].dtype)
        return backend._expectations_of(call, part.options[0], request)
    last: dict[str, tuple[Any, ...]] = {"_state": (), "_sample_estimate": (request.shots, request.seed)}
    return getattr(backend, part.method)(*circuits, *data, *part.options, *last.get(part.method, (request,)))


@lru_cache(maxsize=8)
def _opened(backend: str) -> Backend:
    """A worker opens each backend once: its compiled programs and live handles stay."""
    return open_backend(backend)


@lru_cache(maxsize=256)
def _read(text: str) -> Circuit:
    return loads(text)


def _tensor(array: Array) -> Tensor:
    """A tensor of its own: arrays that were received cannot be written to."""
    return torch.from_numpy(np.array(array))


def _array(tensor: Tensor | None) -> Array | None:
    return None if tensor is None else tensor.detach().cpu().resolve_conj().numpy()
