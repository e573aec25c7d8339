"""A matrix product state that runs a circuit, held by quimb, and what truncation took from it.

Axis legend: a angles, l and r left and right bonds; tensors are (l, 2, r).
"""

import math
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.extras import require
from backends.tensor_network import chain
from backends.tensor_network.schedule import Step, schedule
from circuits import GATES, Circuit

_SWAP = GATES["swap"].matrix()


class State:
    """``U |0...0>`` for one row of angles (a,), op by op, in double precision, normalised after each truncation."""

    def __init__(
        self, circuit: Circuit, angles: NDArray[np.float64], permute: bool, max_bond: int, cutoff: float
    ) -> None:
        self._quimb = require("quimb", "quimb.tensor", "tensornet")
        self._steps = schedule(circuit, permute)
        self._ops = circuit.ops
        self._columns = _columns(circuit)
        self._angles = angles
        self._truncation = {"max_bond": max_bond, "cutoff": cutoff, "cutoff_mode": "rel"}
        self._psi = None  # made at the first use, so that many states can wait
        self._centre = {"cur_orthog": (0, 0)}
        self._order = list(range(circuit.n_wires))
        self._done = 0
        self._angle = 0.0
        self._kept = 1.0

    @property
    def distance(self) -> float:
        """Bound on the trace distance to the exact state."""
        return math.sin(min(self._angle, math.pi / 2))

    @property
    def infidelity(self) -> float:
        """Estimate of 1 - F."""
        return 1 - self._kept

    def advance(self, n_ops: int) -> None:
        """Run on until ``n_ops`` ops are done."""
        for steps in self._steps[self._done : n_ops]:
            for step in steps:
                self._apply(step)
        self._done = max(self._done, n_ops)

    def sites(self, wires: tuple[int, ...]) -> list[int]:
        """Where the wires are in the chain."""
        return [self._order.index(wire) for wire in wires]

    def tensors(self) -> list[chain.Array]:
        """The chain's tensors (l, 2, r)."""
        psi, found = self._chain(), []
        for site in range(len(self._order)):
            left = [psi.bond(site - 1, site)] if site else []
            right = [psi.bond(site, site + 1)] if site + 1 < psi.L else []
            data = psi[site].transpose(*left, psi.site_ind(site), *right).data
            found.append(data.reshape(data.shape[0] if left else 1, 2, -1))
        return found

    def schmidt_weights(self, cut: int, size: int) -> NDArray[np.float64]:
        """Squared Schmidt values at a bond, descending, filled up with zeros to (size,)."""
        weights = self._chain().schmidt_values(cut, info=self._centre)
        return np.pad(weights / weights.sum(), (0, size - len(weights)))

    def _chain(self) -> Any:
        if self._psi is None:
            # quimb's chains have two sites at least: a lone wire gets a neighbour, which stays |0>.
            self._psi = self._quimb.MPS_computational_state("0" * max(len(self._order), 2), dtype="complex128")
        return self._psi

    def _apply(self, step: Step) -> None:
        matrix = _SWAP if step.op is None else self._matrix(step.op)
        if step.n_sites == 1:
            self._chain().gate_(matrix, step.site, contract=True)
            return
        if step.flipped:
            matrix = _SWAP @ matrix @ _SWAP
        self._apply_pair(matrix.reshape(2, 2, 2, 2), step.site)
        if step.op is None:
            here = slice(step.site, step.site + 2)
            self._order[here] = self._order[here][::-1]

    def _matrix(self, position: int) -> chain.Array:
        return GATES[self._ops[position].name].matrix(*self._angles[self._columns[position]].tolist())

    def _apply_pair(self, gate: chain.Array, site: int) -> None:
        """Apply a gate (out, out, in, in) to neighbours at the orthogonality centre, so that truncation is optimal."""
        psi = self._chain()
        psi.canonicalize_((site, site + 1), info=self._centre)
        left, right = psi[site], psi[site + 1]
        wires, bond = (psi.site_ind(site), psi.site_ind(site + 1)), psi.bond(site, site + 1)
        turned = self._quimb.Tensor(gate, inds=("out0", "out1", *wires)) @ (left @ right)
        pair = turned.reindex(dict(zip(("out0", "out1"), wires, strict=True)))
        lost = {"error": 0.0}
        kept_left, kept_right = (pair / pair.norm()).split(
            [index for index in left.inds if index != bond],
            get="tensors",
            method="svd",
            absorb="right",
            bond_ind=bond,
            info=lost,
            **self._truncation,
        )
        error = lost["error"]  # the root of the discarded weight
        left.modify(data=kept_left.transpose(*left.inds).data)
        right.modify(data=kept_right.transpose(*right.inds).data / math.sqrt(1 - error**2))
        self._centre["cur_orthog"] = (site + 1, site + 1)
        self._angle += math.asin(min(error, 1.0))
        self._kept *= 1 - error**2


@lru_cache(maxsize=64)
def _columns(circuit: Circuit) -> tuple[slice, ...]:
    """Each op's columns of the angles: one or none."""
    ends = tuple(accumulate(len(op.slots) for op in circuit.ops))
    return tuple(slice(end - len(op.slots), end) for op, end in zip(circuit.ops, ends, strict=True))
