"""Circuits as values: frozen, hashable, comparable, printable as valid Python. Nothing here executes.

Wire 0 is the most significant bit. Angles are in radians.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.ops import RESET, Op, Reset, primitives
from circuits.slots import Gather, Input, Product, Slot, Weight, as_slot, gather, leaves

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Circuit:
    """A circuit: ``n_wires`` wires, ops in program order, and a global phase (radians; a sum of slots).

    Composite and multi-controlled ops are decomposed on construction, so ``ops`` holds primitive gates and resets, and
    every angle has a single Pauli-word generator. ``ops`` may nest tuples (as ``Reset`` returns them). The global phase
    does not change any result; ``controlled`` turns it into a phase on the control. Raises ValueError for a wire
    outside the circuit.

    >>> bell = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1))))
    >>> bell == eval(repr(bell)), bell.n_inputs, bell.is_unitary
    (True, 0, True)
    """

    n_wires: int
    ops: tuple[Op, ...] = ()
    global_phase: tuple[Slot, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.n_wires, bool) or not isinstance(self.n_wires, int | np.integer) or self.n_wires < 1:
            raise ValueError(f"a circuit expects at least 1 wire, got {self.n_wires!r}; pass a positive integer.")
        object.__setattr__(self, "n_wires", int(self.n_wires))
        ops = tuple(primitive for op in _flat(self.ops) for primitive in primitives(op))
        for position, op in enumerate(ops):
            if max(op.wires) >= self.n_wires:
                raise ValueError(
                    f"op {position} {op!r} expects wires below {self.n_wires}, got {max(op.wires)}; widen the circuit."
                )
        object.__setattr__(self, "ops", ops)
        raw = self.global_phase if isinstance(self.global_phase, tuple) else (self.global_phase,)
        object.__setattr__(self, "global_phase", _phase(as_slot(slot) for slot in raw))

    @cached_property
    def _hash(self) -> int:
        return hash((self.n_wires, self.ops, self.global_phase))

    def __hash__(self) -> int:
        """Computed once: backends look up compiled programs by circuit on each call."""
        return self._hash

    def __reduce__(self) -> tuple[type["Circuit"], tuple[Any, ...]]:
        """Pickle and copy the three fields alone: strings hash differently in another process."""
        return Circuit, (self.n_wires, self.ops, self.global_phase)

    def __repr__(self) -> str:
        phase = f", global_phase={self.global_phase!r}" if self.global_phase else ""
        return f"Circuit({self.n_wires}, {self.ops!r}{phase})"

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """All angles' slots in program order, numbers included: the columns of ``angles``."""
        return tuple(slot for op in self.ops for slot in op.slots)

    @cached_property
    def _gather(self) -> Gather:
        return gather(self.slots)

    @property
    def n_angles(self) -> int:
        """Number of angles, constants included."""
        return len(self.slots)

    @cached_property
    def n_inputs(self) -> int:
        """One more than the largest input index read (0 without inputs)."""
        return self._count(Input)

    @cached_property
    def n_weights(self) -> int:
        """One more than the largest weight index read (0 without weights)."""
        return self._count(Weight)

    def _count(self, kind: type) -> int:
        every = (leaf for slot in (*self.slots, *self.global_phase) for leaf in leaves(slot))
        return max((leaf.index + 1 for leaf in every if isinstance(leaf, kind)), default=0)

    @cached_property
    def shared(self) -> tuple[bool, ...]:
        """Per angle: whether it is the same for the whole batch, because no input enters it."""
        return tuple(all(isinstance(leaf, Weight) for leaf in leaves(slot)) for slot in self.slots)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of its ops."""
        return frozenset(op.name for op in self.ops)

    @property
    def is_unitary(self) -> bool:
        """Whether the circuit holds no reset."""
        return RESET not in self.names

    @cached_property
    def depth(self) -> int:
        """Number of layers when every op starts as early as its wires allow."""
        level = [0] * self.n_wires
        for op in self.ops:
            reached = 1 + max(level[wire] for wire in op.wires)
            for wire in op.wires:
                level[wire] = reached
        return max(level)

    def angles(self, inputs: Any, weights: Any) -> Any:
        """Return all angles in program order, shape (batch, n_angles), radians, by one differentiable gather.

        ``inputs`` (batch, n_inputs) and ``weights`` (n_weights,) are floating numpy arrays or torch tensors of one
        kind, dtype and device; longer ones are fine. Raises ValueError or TypeError before computing.

        >>> circuit = Circuit(1, (Op("rx", (0,), (Input(0, scale=2.0),)),))
        >>> circuit.angles(np.array([[0.5]]), np.zeros(0)).tolist()
        [[1.0]]
        """
        for name, array in (("inputs", inputs), ("weights", weights)):
            if not (hasattr(array, "ndim") and hasattr(array, "dtype")):
                kind = type(array).__name__
                raise TypeError(f"angles expects numpy arrays or tensors, got {name} as {kind}; convert it.")
        if inputs.ndim != 2 or weights.ndim != 1:
            raise ValueError(
                f"angles expects inputs (batch, {self.n_inputs}) and weights ({self.n_weights},), got shapes "
                f"{tuple(inputs.shape)} and {tuple(weights.shape)}; reshape them."
            )
        if inputs.shape[1] < self.n_inputs or weights.shape[0] < self.n_weights:
            raise ValueError(
                f"angles expects at least {self.n_inputs} inputs and {self.n_weights} weights, got {inputs.shape[1]} "
                f"and {weights.shape[0]}; pass one column per Input and one entry per Weight."
            )
        if "float" not in str(inputs.dtype) or inputs.dtype != weights.dtype:
            raise TypeError(
                f"angles expects inputs and weights of one floating dtype, got {inputs.dtype} and {weights.dtype}; "
                "convert them."
            )
        return self._gather(inputs, weights)

    def prefix(self, n_ops: int) -> "Circuit":
        """Return the first ``n_ops`` ops as a circuit (resets kept, global phase dropped).

        >>> Circuit(1, (Op("h", (0,)), Op("z", (0,)))).prefix(1).ops
        (Op('h', (0,)),)
        """
        if isinstance(n_ops, bool) or not isinstance(n_ops, int):
            raise TypeError(f"prefix expects an integer number of ops, got {n_ops!r}; pass 0 to {len(self.ops)}.")
        if not 0 <= n_ops <= len(self.ops):
            raise IndexError(
                f"prefix expects 0 to {len(self.ops)} ops, got {n_ops}; composite gates count as their parts: see ops."
            )
        return Circuit(self.n_wires, self.ops[:n_ops])

    def __add__(self, other: "Circuit") -> "Circuit":
        """Run ``self``, then ``other``; input and weight numbers are kept, so equal numbers are shared."""
        if not isinstance(other, Circuit):
            return NotImplemented
        if other.n_wires != self.n_wires:
            raise ValueError(f"'+' expects {self.n_wires} wires on both sides, got {other.n_wires}; use remap first.")
        return Circuit(self.n_wires, self.ops + other.ops, self.global_phase + other.global_phase)

    def inverse(self) -> "Circuit":
        """Return the adjoint circuit; see ``circuits.passes.inverse``."""
        from circuits.passes import inverse

        return inverse(self)

    def controlled(self) -> "Circuit":
        """Return ``|0><0| (x) 1 + |1><1| (x) self``, the control a new wire 0; see ``circuits.passes.controlled``."""
        from circuits.passes import controlled

        return controlled(self)

    def repeat(self, times: int, fresh_weights: bool = False) -> "Circuit":
        """Return the circuit ``times`` times in a row; see ``circuits.passes.repeat``."""
        from circuits.passes import repeat

        return repeat(self, times, fresh_weights)

    def remap(self, wires: Sequence[int], n_wires: int | None = None) -> "Circuit":
        """Return the circuit with wire k moved to ``wires[k]``; see ``circuits.passes.remap``."""
        from circuits.passes import remap

        return remap(self, wires, n_wires)

    def separable(self) -> "Circuit":
        """Return the circuit without its entangling gates; see ``circuits.passes.separable``."""
        from circuits.passes import separable

        return separable(self)

    def draw(self, width: int = 100) -> str:
        """Return a text drawing, wrapped at ``width`` characters; see ``circuits.draw.text``.

        >>> print(Circuit(2, (Op("h", (0,)), Op("cx", (0, 1)))).draw())
        0: ─┤H├─●─
                │
        1: ─────⊕─
        """
        from circuits.draw import text

        return text(self, width)

    def figure(self, width: float = 18.0) -> "Figure":
        """Return a matplotlib figure, wrapped at ``width`` narrow gates; see ``circuits.draw_matplotlib.figure``."""
        from circuits.draw_matplotlib import figure

        return figure(self, width)

    def to_json(self) -> str:
        """Return the circuit as JSON; see ``circuits.serial.dumps``."""
        from circuits.serial import dumps

        return dumps(self)

    @staticmethod
    def from_json(text: str) -> "Circuit":
        """Return the circuit written by ``to_json``; see ``circuits.serial.loads``."""
        from circuits.serial import loads

        return loads(text)


def _flat(ops: Any) -> Iterator[Op]:
    if isinstance(ops, Op):
        yield ops
    elif isinstance(ops, Iterable) and not isinstance(ops, str | bytes):
        for op in ops:
            yield from _flat(op)
    else:
        raise TypeError(f"a circuit expects Op entries, got {type(ops).__name__}; write Op(name, wires, slots).")


def _phase(slots: Iterable[Slot]) -> tuple[Slot, ...]:
    """Sum the numbers of a phase into one and drop zeros, so that equal phases compare equal."""
    terms = tuple(slots)
    number = sum(slot for slot in terms if isinstance(slot, float))
    symbolic = tuple(slot for slot in terms if not isinstance(slot, float))
    return symbolic + ((float(number),) if number else ())


def lifted(circuit: Circuit) -> Circuit:
    """Return the circuit in which angle k is ``Input(k)``, so that every angle can differ per sample.

    The columns of ``circuit.angles`` are its inputs: what parameter shift moves.

    >>> lifted(Circuit(1, (Op("rx", (0,), (0.5,)),))).ops
    (Op('rx', (0,), (Input(0),)),)
    """
    ops: list[Op] = []
    count = 0
    for op in circuit.ops:
        ops.append(Op(op.name, op.wires, tuple(Input(count + k) for k in range(len(op.slots)))))
        count += len(op.slots)
    return Circuit(circuit.n_wires, tuple(ops))


__all__ = ["RESET", "Circuit", "Input", "Op", "Product", "Reset", "Slot", "Weight", "lifted"]
