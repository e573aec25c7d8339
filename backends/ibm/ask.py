"""One job as it is asked for: what to run, as values; to and from the JSON that the ledger keeps.

Axis legend: r rows of parameters, t shots, o observables.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backends.counts import bases_of
from backends.ibm.placing import Placed
from backends.ibm.primitives import Primitives, estimated, sampled
from circuits import Circuit, PauliSum

if TYPE_CHECKING:
    from qiskit.quantum_info import SparsePauliOp

    from backends.ibm.access import Access

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Ask:
    """A circuit at rows of parameters (r, a): sampled on ``wires``, or, with ``observables``, their expectations.

    ``rotated`` wires are turned to a basis by two more parameters each. Answers are arrays: ``bits`` (r, t, bytes), or
    ``values`` and ``stderr`` (r, o).
    """

    circuit: Circuit
    rows: NDArray[np.float64]
    shots: int
    seed: int | None
    primitives: Primitives
    wires: tuple[int, ...] = ()
    rotated: tuple[int, ...] = ()
    observables: tuple[PauliSum, ...] = ()

    @property
    def circuits(self) -> int:
        """Circuits to be executed, each basis of a row counted."""
        return len(self.rows) * (len(bases_of(self.observables).letters) if self.observables else 1)

    @property
    def executions(self) -> int:
        """Shots of all circuits, those at amplified noise included."""
        return self.circuits * self.shots * len(self.primitives.noise_factors)

    def placed(self, access: "Access") -> Placed:
        """The circuit on the device's qubits."""
        return access.place(self.circuit) if self.observables else access.place(self.circuit, self.wires, self.rotated)

    def start(self, access: "Access", tag: str | None = None, seconds: int | None = None) -> Any:
        """Hand the job to the runtime: its job. On real devices under a tag, stopped after some QPU seconds."""
        placed = self.placed(access)
        mode = access.opened(placed)
        if self.observables:
            operators = [operator(observable, placed) for observable in self.observables]
            return self.primitives.estimate(mode, placed, self.rows, operators, self.shots, self.seed, tag, seconds)
        return self.primitives.sample(mode, placed, self.rows, self.shots, self.seed, tag, seconds)

    def read(self, access: "Access", answer: Any) -> Arrays:
        """The arrays of the runtime's answer."""
        if self.observables:
            values, stderr = estimated(answer, len(self.observables), len(self.rows))
            return {"values": values, "stderr": stderr}
        return {"bits": sampled(answer, len(self.rows), self.shots, bool(self.placed(access).columns))}

    def body(self) -> dict[str, Any]:
        """Circuit, parameters and options as plain JSON; ``asked`` reads it."""
        return {
            "circuit": json.loads(self.circuit.to_json()),
            "parameters": self.rows.tolist(),
            "options": {
                "shots": self.shots,
                "seed": self.seed,
                "wires": list(self.wires),
                "rotated": list(self.rotated),
                "observables": [
                    [[[list(pair) for pair in word], coefficient] for word, coefficient in observable.terms]
                    for observable in self.observables
                ],
                **asdict(self.primitives),
                "zne": list(self.primitives.zne),
            },
        }


def asked(body: Mapping[str, Any]) -> Ask:
    """Return what a body of ``Ask.body`` asks.

    >>> from circuits import Op, Z
    >>> ask = Ask(Circuit(1, (Op("h", (0,)),)), np.zeros((2, 0)), 10, 1, Primitives(), observables=(2 * Z(0),))
    >>> again = asked(json.loads(json.dumps(ask.body())))
    >>> again.circuit == ask.circuit, again.observables, again.rows.shape, again.primitives == ask.primitives
    (True, (2.0 * Z(0),), (2, 0), True)
    """
    options = dict(body["options"])
    observables = tuple(
        PauliSum(tuple((tuple((wire, letter) for wire, letter in word), coefficient) for word, coefficient in terms))
        for terms in options.pop("observables")
    )
    rows = np.array(body["parameters"], dtype=float).reshape(len(body["parameters"]), -1)
    wires, rotated = tuple(options.pop("wires")), tuple(options.pop("rotated"))
    shots, seed, zne = options.pop("shots"), options.pop("seed"), tuple(options.pop("zne"))
    circuit = Circuit.from_json(json.dumps(body["circuit"]))
    return Ask(circuit, rows, shots, seed, Primitives(**options, zne=zne), wires, rotated, observables)


def pack(arrays: Arrays) -> bytes:
    """Return arrays as bytes that the ledger keeps: NumPy's own format, zipped, no pickles.

    >>> unpack(pack({"bits": np.arange(3)}))["bits"].tolist()
    [0, 1, 2]
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType] -- numpy's own keyword is a bool
    return buffer.getvalue()


def unpack(data: bytes) -> Arrays:
    """Return the arrays that were packed.

    >>> sorted(unpack(pack({"values": np.zeros(1), "stderr": np.zeros(1)})))
    ['stderr', 'values']
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def operator(observable: PauliSum, placed: Placed) -> "SparsePauliOp":
    """Return the observable on the qubits where a placed circuit leaves the wires."""
    from qiskit.quantum_info import SparsePauliOp

    terms = [
        ("".join(letter for _, letter in word), [placed.qubits[wire] for wire, _ in word], coefficient)
        for word, coefficient in observable.terms
    ]
    return SparsePauliOp.from_sparse_list(terms or [("", [], 0.0)], placed.circuit.num_qubits)
