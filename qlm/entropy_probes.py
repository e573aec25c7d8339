"""Which circuits of a model ``measure_entropy`` runs: blocks by name, their cut, their backend.

Axis legend: l tokens, d model width, i inputs of a circuit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from backends import validate
from backends.base import Backend
from circuits._suggest import unknown
from qlm.entropy_table import Cut
from qlm.modeling import QLMForCausalLM
from qlm.quantum import QuantumLayer


class MeasurableCircuit(Protocol):
    """The quantum part of a block: the layer that runs its circuit, and side A of the cut."""

    @property
    def layer(self) -> QuantumLayer: ...

    @property
    def wires(self) -> tuple[int, ...]: ...


@runtime_checkable
class MeasurableBlock(Protocol):
    """A block whose circuit's entropies can be measured: any kind of block with these two names."""

    @property
    def circuit_core(self) -> MeasurableCircuit | None:
        """The circuit's part, None where a classical control stands in its place."""
        ...

    def angles(self, hidden: Tensor) -> Tensor:
        """Return the circuit's inputs (..., i), radians, for the residual stream (..., d) that enters the block."""
        ...


@dataclass(frozen=True)
class Probe:
    """A circuit to measure: its block, its cut, and where it runs."""

    block: MeasurableBlock
    core: MeasurableCircuit
    cut: Cut
    backend: Backend


def named_blocks(model: QLMForCausalLM) -> dict[str, nn.Module]:
    """Return the model's blocks by "position.kind".

    >>> from qlm.config import QLMConfig
    >>> list(named_blocks(QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "harmonic"}]))))
    ['0.harmonic']
    """
    kinds = [entry["kind"] for entry in model.config.blocks or ()]
    return {f"{k}.{kind}": block for k, (kind, block) in enumerate(zip(kinds, model.model.layers, strict=True))}


def find_probes(
    model: QLMForCausalLM,
    chosen: Sequence[str | int] | None = None,
    wires: Sequence[int] | None = None,
    backend: Backend | None = None,
) -> dict[str, Probe]:
    """Return what to measure, by block, in the model's order.

    ``chosen``: names or positions of blocks, None for all that hold a circuit; ``wires``: side A, None for each
    block's own; ``backend`` None: each block's own. Raises TypeError, ValueError or IndexError for blocks or wires that
    are not there, for a model without a circuit, and for wires that leave no other side.

    >>> from qlm.config import QLMConfig
    >>> model = QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "quantum_router", "n_wires": 2}]))
    >>> find_probes(model)["0.quantum_router"].cut.wires
    (0,)
    """
    present = named_blocks(model)
    names = None if chosen is None else _names(chosen, tuple(present))
    found: dict[str, tuple[MeasurableBlock, MeasurableCircuit]] = {}
    for name, block in present.items():
        core = block.circuit_core if isinstance(block, MeasurableBlock) else None
        if isinstance(block, MeasurableBlock) and core is not None:
            found[name] = block, core
    if not found:
        raise ValueError(
            f"measure_entropy expects a model with a circuit, got blocks {', '.join(present)} without one (a twin has "
            "no entropy); build the model with quantum='circuit'."
        )
    for name in names or ():
        if name not in found:
            raise ValueError(
                f"measure_entropy expects blocks with a circuit, got '{name}' without one; choose of "
                f"{', '.join(found)}."
            )
    return {
        name: _probe(name, block, core, wires, backend)
        for name, (block, core) in found.items()
        if names is None or name in names
    }


def _names(chosen: Sequence[str | int], present: Sequence[str]) -> tuple[str, ...]:
    """The names of blocks given by name or position."""
    if isinstance(chosen, str | int):
        raise TypeError(f"blocks expects a list of names or positions, got {chosen!r} alone; write [{chosen!r}].")
    if not isinstance(chosen, Iterable):
        raise TypeError(f"blocks expects a list of names or positions, got {type(chosen).__name__}; write [0].")
    names: list[str] = []
    for block in chosen:
        if isinstance(block, bool) or not isinstance(block, str | int):
            raise TypeError(f"blocks expects names or positions, got {block!r}; choose of {', '.join(present)}.")
        if isinstance(block, str) and block not in present:
            raise ValueError(unknown("block", block, present))
        if isinstance(block, int) and not 0 <= block < len(present):
            raise ValueError(f"blocks expects positions from 0 to {len(present) - 1}, got {block}; count from 0.")
        names.append(present[block] if isinstance(block, int) else block)
    if not names:
        raise ValueError("blocks expects at least one block or None for all that hold a circuit, got none; name one.")
    return tuple(names)


def _probe(
    name: str, block: MeasurableBlock, core: MeasurableCircuit, wires: Sequence[int] | None, backend: Backend | None
) -> Probe:
    circuit = core.layer.circuit
    chosen = core.wires if wires is None else validate.subsystem(circuit, wires)
    if len(chosen) == circuit.n_wires:
        raise ValueError(
            f"measure_entropy expects wires that leave another side, got all {circuit.n_wires} of '{name}'; name fewer."
        )
    cut = Cut(name, circuit.n_wires, tuple(chosen), circuit.is_unitary)
    return Probe(block, core, cut, core.layer.backend if backend is None else backend)
