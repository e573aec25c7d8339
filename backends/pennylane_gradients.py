"""Gradients on PennyLane devices without backpropagation: the device's adjoint method, and shifted states.

Axis legend: b batch, a angles, m angles that are no numbers, N = 2**n amplitudes.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits import GATES, Circuit, Op
from circuits.interop.pennylane_tape import to_tape

_MAX_AMPLITUDES = 2**24
"""Amplitudes of shifted states held at once: 256 MB in double precision."""


def adjoint(
    circuit: Circuit, angles: Tensor, cotangents: Tensor, observable: Callable[[Tensor], Any], device: Any
) -> Tensor:
    """Return the gradient (b, a) of results that are linear in the density matrix, by one adjoint pass per sample.

    ``observable(cotangent)`` is the operator O of one sample with ``tr(O d rho) = Re <cotangent, d result>``; it may
    differ from sample to sample, which is why one pass is enough for any number of results. Jones and Gacon 2020,
    arXiv:2009.02823. Cost b ops 2**n.
    """
    qml = import_module("pennylane")
    circuit, columns = _lowered(circuit), _free(circuit)
    rows = angles.detach().cpu().double().numpy()
    tapes = []
    for row, cotangent in zip(rows, cotangents.cpu(), strict=True):
        tape = to_tape(circuit, row, [qml.expval(observable(cotangent))])
        tape.trainable_params = columns
        tapes.append(tape)
    gradient = torch.zeros_like(angles)
    if columns:
        config = device.setup_execution_config(qml.devices.ExecutionConfig(gradient_method="adjoint"))
        prepared, _ = device.preprocess_transforms(config)(tapes)
        if any(list(tape.trainable_params) != columns for tape in prepared):
            raise RuntimeError(f"device '{device.name}' rewrites the circuit's angles for its adjoint method.")
        found = np.asarray(device.compute_derivatives(prepared, config), dtype=float).reshape(len(rows), len(columns))
        gradient[:, columns] = torch.from_numpy(found).to(angles)
    return gradient


def shifted_states(
    circuit: Circuit, angles: Tensor, states: Tensor, cotangents: Tensor, run: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return ``Re <cotangent | d psi / d angle>``, (b, a), of states (b, N); ``run`` gives those of other angles.

    ``d psi = psi(t + pi) / 2`` for exp(-i t P / 2); a phase gate adds ``i phase (psi(t) - psi(t + pi))`` in its place.
    One call to ``run`` for as many angles as fit the memory. Cost b m ops N.
    """
    names = [op.name for op in circuit.ops for _ in op.slots]
    gradient = torch.zeros_like(angles)
    columns = _free(circuit)
    size = max(1, _MAX_AMPLITUDES // states.numel())
    for chunk in (columns[first : first + size] for first in range(0, len(columns), size)):
        moved = angles.repeat(len(chunk), 1, 1)
        moved[range(len(chunk)), :, chunk] += torch.pi
        for column, state in zip(chunk, run(moved.flatten(0, 1)).reshape(len(chunk), *states.shape), strict=True):
            phase = GATES[names[column]].phase
            slope = 1j * phase * (states - state) if phase else state / 2
            gradient[:, column] = (cotangents.conj() * slope).real.sum(1)
    return gradient


@lru_cache(maxsize=256)
def _lowered(circuit: Circuit) -> Circuit:
    """The circuit without ``ch``, which devices split into rotations, so that they would differentiate those too.

    H = V X V^dagger with V = S^dagger H T^dagger, so that the gates after the CX undo those before it.
    """
    ops: list[Op] = []
    for op in circuit.ops:
        if op.name != "ch":
            ops.append(op)
            continue
        target = op.wires[1:]
        ops += [Op(name, target) for name in ("s", "h", "t")]
        ops += [Op("cx", op.wires), *(Op(name, target) for name in ("tdg", "h", "sdg"))]
    return Circuit(circuit.n_wires, tuple(ops))


def _free(circuit: Circuit) -> list[int]:
    """The angles that are no numbers."""
    return [k for k, slot in enumerate(circuit.slots) if not isinstance(slot, float)]
