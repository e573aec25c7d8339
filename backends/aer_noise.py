"""Noise given as numbers, and what a faulty readout does to exact results.

Axis legend: b batch, k wires, n qubits.
"""

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from circuits import GATES, PauliSum
from circuits._suggest import unknown
from circuits.observables import Word

if TYPE_CHECKING:
    from qiskit_aer.noise import NoiseModel

Flips = tuple[tuple[float, float], ...]
"""For each wire the chances to read 1 where the state is 0, and 0 where it is 1."""


@dataclass(frozen=True)
class Noise:
    """Noise of every gate and every readout, equal on all wires.

    ``depolarising_1q``, ``depolarising_2q``: chance, after a gate on one or two wires, that their state is replaced by
    the maximally mixed one. ``readout``: chance that a measured bit is read wrong, either way. ``t1_us``, ``t2_us``:
    relaxation and dephasing times in microseconds (None: infinite; T2 <= 2 T1), which act on a gate's wires during
    ``gate_1q_ns`` and ``gate_2q_ns`` nanoseconds, after the depolarising. Noise follows each gate of the circuit as it
    is written, virtual or not (``ch`` counts as the gates it is made of); idle wires have none.

    As a string: ``name:value`` pairs joined by commas. Raises ValueError for a number out of its range, or where no
    number makes noise. Nielsen and Chuang 2010, section 8.3.

    >>> str(Noise(depolarising_2q=0.01, readout=0.02))
    'depolarising_2q:0.01,readout:0.02'
    """

    depolarising_1q: float = 0.0
    depolarising_2q: float = 0.0
    readout: float = 0.0
    t1_us: float | None = None
    t2_us: float | None = None
    gate_1q_ns: float = 50.0
    gate_2q_ns: float = 300.0

    CHANCES: ClassVar[tuple[str, ...]] = ("depolarising_1q", "depolarising_2q", "readout")

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            most = 1.0 if field.name in self.CHANCES else math.inf
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise ValueError(
                    f"noise expects {field.name} from 0 to {most:g}, got {value!r}; correct it or leave it out."
                )
            if field.name.startswith("t") and not value:
                raise ValueError(f"noise expects a positive {field.name}, got {value!r}; leave it out for none.")
            object.__setattr__(self, field.name, float(value))
        if self.t1_us is not None and self.t2_us is not None and self.t2_us > 2 * self.t1_us:
            raise ValueError(f"noise expects t2_us <= 2 t1_us, got {self.t2_us:g} and {self.t1_us:g}; lower t2_us.")
        if not any(getattr(self, name) for name in (*self.CHANCES, "t1_us", "t2_us")):
            raise ValueError(f"noise expects one of {', '.join(self.CHANCES)}, t1_us and t2_us, got none; set one.")

    def __str__(self) -> str:
        changed = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        return ",".join(f"{name}:{getattr(self, name):.17g}" for name in changed)

    @classmethod
    def parse(cls, text: str) -> "Noise":
        """Return the noise that ``name:value`` pairs describe; ValueError for an unknown name or no number.

        >>> Noise.parse("readout:0.02,t1_us:100").t1_us
        100.0
        """
        names = [field.name for field in fields(cls)]
        values: dict[str, float] = {}
        for part in text.split(","):
            name, _, number = part.partition(":")
            if name not in names:
                raise ValueError(unknown("noise", name, names))
            try:
                values[name] = float(number)
            except ValueError:
                raise ValueError(f"noise expects a number for {name}, got '{number}'; write {name}:0.01.") from None
        return cls(**values)

    def model(self) -> "NoiseModel":
        """Return the noise for Aer: one error for all gates on one wire, one for all on two."""
        from qiskit.circuit import library
        from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error

        made = NoiseModel()
        for n_wires, chance in ((1, self.depolarising_1q), (2, self.depolarising_2q)):
            gates = [gate for gate in GATES.values() if gate.n_wires == n_wires]
            names = [getattr(library, gate.qiskit)(*[0.0] * gate.n_angles).name for gate in gates]
            error = depolarizing_error(chance, n_wires)
            relaxation = self._relaxation(n_wires)
            made.add_all_qubit_quantum_error(error.compose(relaxation) if relaxation else error, names)
        if self.readout:
            wrong = self.readout
            made.add_all_qubit_readout_error(ReadoutError([[1 - wrong, wrong], [wrong, 1 - wrong]]))
        return made

    def _relaxation(self, n_wires: int):
        from qiskit_aer.noise import thermal_relaxation_error

        if self.t1_us is None and self.t2_us is None:
            return None
        t1 = math.inf if self.t1_us is None else self.t1_us
        t2 = 2 * t1 if self.t2_us is None else self.t2_us
        time = (self.gate_1q_ns if n_wires == 1 else self.gate_2q_ns) / 1000
        one = thermal_relaxation_error(t1, t2, time)
        return one if n_wires == 1 else one.tensor(one)


def flips_of(model: "NoiseModel | None", qubits: tuple[int, ...]) -> Flips:
    """Return the readout errors of some qubits in a noise model: zeros where there is none.

    >>> flips_of(Noise(readout=0.1).model(), (3,))
    ((0.1, 0.1),)
    """
    found: dict[int | None, tuple[float, float]] = {}
    for error in model.to_dict()["errors"] if model else ():
        if error["type"] == "roerror":
            (_, zero_read_1), (one_read_0, _) = error["probabilities"]
            for places in error.get("gate_qubits", [[None]]):
                found[places[0]] = (float(zero_read_1), float(one_read_0))
    return tuple(found.get(qubit, found.get(None, (0.0, 0.0))) for qubit in qubits)


def misread(observable: PauliSum, flips: Flips) -> PauliSum:
    """Return the observable that is measured where a faulty readout is taken for a right one.

    A letter P read with chances f0 = p(1|0) and f1 = p(0|1) is ``(1 - f0 - f1) P + (f1 - f0)``, wire by wire; the gates
    that turn X and Y to Z are taken as perfect. Cost 2**k words for a word on k wires with f0 != f1.

    >>> from circuits import X, Z
    >>> misread(X(0) @ Z(1), ((0.25, 0.25), (0.0, 0.0)))
    0.5 * X(0) @ Z(1)
    """
    if not any(any(pair) for pair in flips):
        return observable
    terms: list[tuple[Word, float]] = []
    for word, coefficient in observable.terms:
        seen: list[tuple[Word, float]] = [((), coefficient)]
        for wire, letter in word:
            zero_read_1, one_read_0 = flips[wire]
            kept = [((*head, (wire, letter)), factor * (1 - zero_read_1 - one_read_0)) for head, factor in seen]
            constant = one_read_0 - zero_read_1
            seen = kept + [(head, factor * constant) for head, factor in seen if constant]
        terms += seen
    return PauliSum(tuple(terms))


def misread_probabilities(values: Tensor, flips: Flips) -> Tensor:
    """Return the chances (b, 2**k) of what a faulty readout says, from those of the states, first wire first.

    >>> import torch
    >>> misread_probabilities(torch.tensor([[1.0, 0.0]]), ((0.25, 0.0),)).tolist()
    [[0.75, 0.25]]
    """
    shape = values.shape
    values = values.reshape(len(values), *[2] * len(flips))
    for axis, (zero_read_1, one_read_0) in enumerate(flips):
        table = values.new_tensor([[1 - zero_read_1, one_read_0], [zero_read_1, 1 - one_read_0]])
        values = (values.movedim(axis + 1, -1) @ table.T).movedim(-1, axis + 1)
    return values.reshape(shape)
