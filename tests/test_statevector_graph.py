"""What the simulator keeps: in torch's graph and in its caches; and tensors of unusual kinds and places.

Axis legend: b batch, i inputs, w weights, o observables.
"""

import gc
import logging
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backends import open_backend
from backends.statevector import batch, executor, jit
from backends.statevector.keeping import bytes_of, keep
from backends.statevector.lowering import lower_along
from backends.statevector.program import Program
from backends.statevector.structure import Structure, structure
from circuits import Circuit, Input, Op, Product, Reset, Weight, X, Y, Z
from circuits.library import reuploading

BACKEND = open_backend("statevector")


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Keeps an eye on what the graph holds while results are computed."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.alive: list[weakref.ref[Tensor]] = []
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        held = tensor.detach()
        self.sizes.append(tensor.numel())
        self.alive.append(weakref.ref(held))
        return held


def leaves(n_wires: int, samples: int) -> tuple[Circuit, Tensor, Tensor]:
    circuit, drawn = reuploading(n_wires, 2), torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, n_wires, generator=drawn, dtype=torch.float64, requires_grad=True)
    return circuit, inputs, torch.randn(circuit.n_weights, generator=drawn, dtype=torch.float64, requires_grad=True)


def test_states_wait_in_the_graph_and_go_with_it() -> None:
    """Whoever holds on to a loss holds no states, as with torch's own functions."""
    circuit, inputs, weights = leaves(5, 64)
    saved = Saved()
    with saved:
        values = BACKEND.expectations(circuit, inputs, weights, (Z(0),)).values
    assert max(saved.sizes) == 64 * 2 * 2**5
    values.sum().backward()
    gc.collect()
    assert [held() for held in saved.alive] == [None] * len(saved.alive)
    saved = Saved()
    with saved, torch.no_grad():
        BACKEND.expectations(circuit, inputs, weights, (Z(0),))
    assert saved.sizes == []


def test_states_are_kept_only_for_a_way_back_that_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, inputs, weights = leaves(3, 4)
    wanted: list[bool] = []
    room = batch.Batch.room
    monkeypatch.setattr(batch.Batch, "room", lambda self, asked: (wanted.append(asked), room(self, asked))[1])
    with torch.no_grad():
        BACKEND.expectations(circuit, inputs, weights, (Z(0),))
    BACKEND.expectations(circuit, inputs.detach(), weights.detach(), (Z(0),))
    BACKEND.expectations(circuit, inputs.detach(), weights, (Z(0),))
    assert wanted == [False, False, True]


@pytest.mark.parametrize("kind", ["expectations", "probabilities", "state"])
def test_gradients_taken_twice_and_without_kept_states_are_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, inputs, weights = leaves(4, 130)
    ask: dict[str, Callable[[], Tensor]] = {
        "expectations": lambda: BACKEND.expectations(circuit, inputs, weights, (Z(0), X(1) @ Y(3))).values,
        "probabilities": lambda: BACKEND.probabilities(circuit, inputs, weights, (2, 0)).values,
        "state": lambda: torch.view_as_real(BACKEND.state(circuit, inputs, weights).values),
    }
    found = []
    for most in (1 << 26, 0):
        monkeypatch.setattr(batch, "_KEPT", most)
        values = ask[kind]()
        cotangent = torch.linspace(-1, 2, values.numel(), dtype=values.dtype).reshape(values.shape)
        for _ in range(2):
            found.append(torch.autograd.grad(values, (inputs, weights), cotangent, retain_graph=True))
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_inputs_changed_before_the_way_back_are_refused_by_torch_or_were_copied() -> None:
    for n_wires, refused in ((2, True), (14, False)):  # angles of large circuits are gathered into their own memory
        circuit, inputs, weights = leaves(n_wires, 1)
        data = inputs.detach().clone()
        values, same = (BACKEND.expectations(circuit, given, weights, (Z(0),)).values for given in (data, inputs))
        data.add_(1)
        if refused:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                values.sum().backward()
        else:
            found, expected = (torch.autograd.grad(one.sum(), weights)[0] for one in (values, same))
            assert torch.equal(found, expected)


@pytest.mark.parametrize("n_wires", [3, 14])
def test_tensors_that_torch_keeps_as_negatives(n_wires: int) -> None:
    """The imaginary part of a conjugate, as data and as what comes back from behind."""
    ops = tuple(Op("ry", (wire,), (Input(wire),)) for wire in range(3))
    circuit = Circuit(n_wires, (*ops, Op("cx", (0, 1)), Op("rx", (1,), (Weight(0),)), Op("cx", (1, 2))))
    drawn = torch.randn(1, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    negative, weights = drawn.conj().imag, torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    assert negative.is_neg()
    values = BACKEND.expectations(circuit, negative, weights, (Z(2), X(1))).values
    plain = BACKEND.expectations(circuit, -drawn.imag.contiguous(), weights, (Z(2), X(1))).values
    assert torch.equal(values, plain)
    loss = (torch.complex(torch.zeros_like(values), values).conj() * 1j).real.sum()  # its gradient is such a tensor
    torch.testing.assert_close(
        torch.autograd.grad(loss, weights, retain_graph=True)[0], torch.autograd.grad(plain.sum(), weights)[0]
    )


def test_slopes_of_weights_read_by_samples_are_summed_precisely() -> None:
    """A weight that multiplies an input has a slope per sample: 300,000 of one sign, in single precision."""
    circuit = Circuit(2, tuple(Op("ry", (wire,), (Product(Input(wire), Weight(wire)),)) for wire in range(2)))
    inputs = torch.rand(300_000, 2, generator=torch.Generator().manual_seed(0)) + 0.1
    weights = torch.tensor([0.7, 0.3], requires_grad=True)
    values = BACKEND.expectations(circuit, inputs, weights, (Z(0), Z(1))).values
    (found,) = torch.autograd.grad(values.sum(), weights)
    exact = -(inputs.double() * torch.sin(inputs.double() * weights.detach().double())).sum(0)
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("n_wires", [1, 14])
def test_observables_that_cancel_are_zero_with_every_derivative(n_wires: int) -> None:
    angle = torch.tensor([[0.4]], requires_grad=True)
    for ops in ((Op("rx", (0,), (Input(0),)),), (Op("rx", (0,), (Input(0),)), *Reset(0))):
        circuit = Circuit(n_wires if len(ops) == 1 else 1, ops)
        values = BACKEND.expectations(circuit, angle, None, (Z(0) - Z(0), X(0) - X(0))).values
        assert values.tolist() == [[0.0, 0.0]]
        (first,) = torch.autograd.grad(values.sum(), angle, create_graph=True)
        assert first.item() == 0


def test_devices_without_an_executor_are_refused() -> None:
    circuit, inputs, weights = leaves(2, 3)
    given = inputs.detach().to("meta"), weights.detach().to("meta")
    with pytest.raises(ValueError, match="expect numbers, got tensors on the device meta, which has none; move them"):
        BACKEND.expectations(circuit, *given, (Z(0),))
    with pytest.raises(ValueError, match=r"one of the devices \('cpu', 'cuda'\), got meta; move them"):
        executor.run(circuit, circuit.angles(*given))


def test_a_first_compilation_is_announced(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    circuit, inputs, weights = leaves(2, 3)
    batch._announce.cache_clear()
    monkeypatch.setattr(jit, "is_kept", lambda _: False)
    with caplog.at_level(logging.WARNING, "backends"):
        for _ in range(2):
            BACKEND.expectations(circuit, inputs, weights, (Z(0),))
    assert [record.message for record in caplog.records] == [
        "compiling the state-vector kernels for this machine, once; this takes half a minute"
    ]


def test_programs_are_kept_by_structure_and_within_their_bytes() -> None:
    """10,000 circuits that differ in constants are one program; those that do not fit are compiled anew."""
    made: list[int] = []

    @keep(weigh=bytes_of, count=64, most=40_000)
    def lowered(given: Structure) -> Program:
        made.append(given.n_wires)
        return lower_along(given, (len(given.ops),))

    def ring(constant: float, n_wires: int) -> Structure:
        gates = (Op("rx", (0,), (constant,)), *(Op("cx", (w, (w + 1) % n_wires)) for w in range(n_wires)))
        return structure(Circuit(n_wires, gates))[0]

    assert len({id(lowered(ring(1e-3 * number, 10))) for number in range(10_000)}) == 1
    for n_wires in (11, 10, 11, 12, 11, 10):  # 9, 18 and 37 kB: the last leaves room for none
        lowered(ring(0.0, n_wires))
    assert made == [10, 11, 12, 11, 10]
