"""Per-token entropy of every block that holds a circuit, and of a block of somebody's own.

Axis legend: b batch, l sequence, d model width.
"""

from typing import Any

import pytest
import torch
from small_blocks import SMALL
from test_entropy import HARMONIC, ROUTER, TEXT, build, disturb
from torch import Tensor, nn

from backends.estimate import Estimate
from circuits import Circuit, Z
from circuits.library import reuploading
from qlm import measure_entropy
from qlm.blocks.base import Block, BlockOutput, Context
from qlm.controls import QuantumPart
from qlm.quantum import QuantumLayer
from qlm.registry import BLOCKS, block_class


@pytest.mark.parametrize("kind", [kind for kind in BLOCKS if hasattr(block_class(kind), "circuit_core")])
def test_every_block_that_holds_a_circuit_is_measured(kind: str) -> None:
    """Each token's entropy is the one of the block's own circuit at the block's own angles, in every circuit mode."""
    model = disturb(build(HARMONIC, {"kind": kind, **SMALL.get(kind, {})}))
    name = f"1.{kind}"
    found = measure_entropy(model, TEXT, n_shuffles=2)
    cut = found.about.cut(name)
    assert found.blocks() == (name,)
    assert min(found.entropy) >= 0
    if cut.unitary:
        assert max(found.entropy) <= cut.max_entropy + 1e-12
    direct: list[Estimate] = []

    def look(block: Any, args: tuple[Tensor, Context]) -> None:
        core = block.circuit_core
        angles = block.angles(args[0][0, 1:]).double()
        direct.append(core.layer.backend.entropy(core.layer.circuit, angles, core.layer.weights.double(), core.wires))

    handle = model.model.layers[1].register_forward_pre_hook(look)
    with torch.no_grad():
        model(torch.tensor([[256, *TEXT.encode()]]))
    handle.remove()
    assert found.select("trained").entropy == pytest.approx(direct[0].values.tolist(), abs=1e-12)
    for mode in ("twin", "off"):
        with pytest.raises(ValueError, match="expects a model with a circuit"):
            measure_entropy(build(HARMONIC, {"kind": kind, **SMALL.get(kind, {}), "quantum": mode}), TEXT)


def test_circuits_whose_inputs_come_from_a_state_are_not_measured() -> None:
    kinds = {
        kind for kind in BLOCKS if block_class(kind).holds_circuit and not hasattr(block_class(kind), "circuit_core")
    }
    assert kinds == {"harmonic_qubits"}  # a token alone does not tell what its qubits are prepared in
    with pytest.raises(ValueError, match="expects a model with a circuit"):
        measure_entropy(build(HARMONIC, {"kind": "harmonic_qubits", **SMALL["harmonic_qubits"]}), TEXT)


class _Part(QuantumPart):
    """A quantum part that is no ``CircuitCore``: a layer, and side A."""

    def __init__(self, circuit: Circuit) -> None:
        super().__init__()
        self.layer = QuantumLayer(circuit, (Z(0),))
        self.wires = (1,)


class _OwnBlock(Block):
    """Somebody's own block: nothing but the two names that measuring asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit_core = _Part(reuploading(2, 2))
        self.encode = nn.Linear(8, 2)

    def angles(self, hidden: Tensor) -> Tensor:
        return self.encode(hidden)

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        return BlockOutput(hidden)


def test_a_block_of_another_kind_needs_two_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = build(HARMONIC, ROUTER)
    own = _OwnBlock()
    model.model.layers[1] = own
    monkeypatch.setattr("qlm.entropy.at_step_zero", lambda model, seed: model)
    found = measure_entropy(model, TEXT)
    assert found.about.cut("1.quantum_router").wires == (1,)
    part = own.circuit_core
    with torch.no_grad():
        stream = model.model.layers[0](model.model.embed(torch.tensor([[256, *TEXT.encode()]])), Context()).hidden
        direct = part.layer.backend.entropy(
            part.layer.circuit, own.angles(stream[0, 1:]).double(), part.layer.weights.double(), (1,)
        )
    assert found.select("trained").entropy == pytest.approx(direct.values.tolist(), abs=1e-12)
