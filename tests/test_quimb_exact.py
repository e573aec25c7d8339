"""Exact contraction against the state: light cones, batches, gradients, plans kept on disk, costs, refusals."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("cotengra", reason="needs cotengra: pip install 'hybridqlm[tensornet]'")

from backends import open_backend
from backends.quimb_exact import QuimbExact
from backends.tensor_network import plans
from circuits import GATES, Circuit, I, Input, Op, PauliSum, Product, Reset, Weight, X, Y, Z

EXACT = open_backend("statevector")
CONTRACTED = QuimbExact(plan_dir=None)
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-10}


def scrambled(n_wires: int, n_ops: int, seed: int) -> Circuit:
    """Random gates on random wires; inputs, weights, products and numbers in turn."""
    rng = np.random.default_rng(seed)
    slots = (Input(0, scale=0.7), Weight(0), Product(Input(1), Weight(1)), 0.4, Weight(2, shift=0.2))
    ops: list[Op] = []
    for k in range(n_ops):
        gate = GATES[list(GATES)[rng.integers(len(GATES))]]
        wires = tuple(int(wire) for wire in rng.choice(n_wires, gate.n_wires, replace=False))
        ops.append(Op(gate.name, wires, (slots[k % len(slots)],) if gate.n_angles else ()))
    every = (Op("rx", (0,), (slot,)) for slot in slots)
    return Circuit(n_wires, (*every, *ops))


def angles(dtype: torch.dtype, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(5)
    return torch.from_numpy(rng.uniform(-2, 2, (batch, 2))).to(dtype), torch.from_numpy(rng.uniform(-2, 2, 3)).to(dtype)


def observables(n_wires: int) -> tuple[PauliSum, ...]:
    last = n_wires - 1
    return (X(0), Y(last), 0.5 * Z(0) - 0.25 * X(0) @ Y(last) + 0.1 * I(), Y(0) @ Z(last), 2.0 * I(), Z(last // 2))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n_wires", "seed"), [(2, 0), (3, 1), (5, 2), (8, 3)])
def test_all_results_are_those_of_the_state(n_wires: int, seed: int, dtype: torch.dtype) -> None:
    circuit, data = scrambled(n_wires, 35, seed), angles(dtype)
    calls = [("expectations", {"observables": observables(n_wires)}), ("state", {})]
    calls += [("expectations", {"observables": (Z(0),), "after": (0, 3, 20)})]
    for wires in ((0,), (n_wires - 1, 0), tuple(range(n_wires))[::-1]):
        calls += [("probabilities", {"wires": wires}), ("density", {"wires": wires})]
        calls += [("entropy", {"wires": wires[:-1] or wires, "kind": kind}) for kind in ("von_neumann", "renyi2")]
    for name, asked in calls:
        found, truth = (getattr(backend, name)(circuit, *data, **asked).values for backend in (CONTRACTED, EXACT))
        assert found.dtype == truth.dtype
        assert (found - truth).abs().max() < TOLERANCE[dtype], (name, asked)


@pytest.mark.parametrize("gram", [False, True])
def test_fidelities_of_two_circuits_with_and_without_a_batch(gram: bool) -> None:
    one, two = scrambled(4, 20, seed=4), scrambled(4, 15, seed=5)
    fixed = Circuit(4, (Op("h", (0,)), Op("cx", (0, 2))))
    x, w = angles(torch.float64, batch=2)
    both: dict[str, Any] = {"weights_a": w, "weights_b": w + 0.3, "gram": gram}
    for backend_call in ((one, x, two, x.flip(0)), (one, x, one, x + 0.1)):
        found, truth = (backend.fidelity(*backend_call, **both).values for backend in (CONTRACTED, EXACT))
        assert torch.allclose(found, truth, atol=1e-12)
    asked: dict[str, Any] = {"weights_a": w, "weights_b": w[:0], "gram": True}
    found, truth = (backend.fidelity(one, x, fixed, None, **asked).values for backend in (CONTRACTED, EXACT))
    assert found.shape == (2, 1)
    assert torch.allclose(found, truth, atol=1e-12)
    assert CONTRACTED.fidelity(fixed, None, fixed, gram=True).values.item() == pytest.approx(1.0, abs=1e-6)


def test_gradients_of_two_orders_flow_to_inputs_and_weights() -> None:
    circuit = scrambled(4, 25, seed=6)

    def slopes(backend) -> tuple[torch.Tensor, ...]:
        x, w = (tensor.requires_grad_() for tensor in angles(torch.float64))
        values = backend.expectations(circuit, x, w, observables(4)).values
        first = torch.autograd.grad(values.square().sum(), (x, w), create_graph=True)
        second = torch.autograd.grad(torch.cat([slope.ravel() for slope in first]).square().sum(), (x, w))
        return *first, *second

    for found, truth in zip(slopes(CONTRACTED), slopes(EXACT), strict=True):
        assert torch.allclose(found, truth, atol=1e-10)
        assert truth.abs().max() > 1e-3


def test_the_light_cone_makes_wide_shallow_circuits_cheap() -> None:
    """A GHZ chain of 200 wires has <Z Z> = 1; the cone of wire 0 is three gates, whatever the width."""
    ghz = Circuit(200, (Op("h", (0,)), *(Op("cx", (wire, wire + 1)) for wire in range(199))))
    layers = tuple(Op("cx", (w, w + 1)) for layer in range(4) for w in range(layer % 2, 199, 2))
    shallow = Circuit(200, (*(Op("ry", (w,), (Input(0),)) for w in range(200)), *layers))
    assert CONTRACTED.expectations(ghz, None, None, (Z(3) @ Z(7), Z(9))).values[0].tolist() == pytest.approx([1, 0])
    assert CONTRACTED.entropy(ghz, wires=(50,)).values.item() == pytest.approx(math.log(2), abs=1e-5)
    assert CONTRACTED.rehearse(shallow, (Z(100),)).flops < 1e6
    x = torch.tensor([[0.3], [1.1]], dtype=torch.float64)
    narrow = Circuit(
        12, (*(Op("ry", (w,), (Input(0),)) for w in range(12)), *(op for op in layers if max(op.wires) < 12))
    )
    assert torch.allclose(
        CONTRACTED.expectations(shallow, x, None, (Z(5), Y(4) @ Z(5))).values,
        EXACT.expectations(narrow, x, None, (Z(5), Y(4) @ Z(5))).values,
        atol=1e-12,
    )
    with pytest.raises(ValueError, match="samples of at most 20 wires, got 200"):
        CONTRACTED.samples(ghz, shots=1)


def test_the_batch_is_one_contraction(monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.tensor_network import network

    calls: list[int] = []
    contract = network.contract
    monkeypatch.setattr(network, "contract", lambda *given: calls.append(1) or contract(*given))
    circuit = scrambled(6, 30, seed=7)
    CONTRACTED.expectations(circuit, *angles(torch.float64, batch=128), (X(2), Y(2), Z(2), Z(0)))
    assert len(calls) == 2  # one for each support, not for each sample or word


def test_plans_are_kept_on_disk_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = scrambled(7, 90, seed=8)
    backend = QuimbExact(plan_dir=str(tmp_path / "plans"))
    data = angles(torch.float64)
    first = backend.expectations(circuit, *data, (Z(1),)).values
    (file,) = (tmp_path / "plans").iterdir()
    assert all(len(pair) == 2 for pair in json.loads(file.read_text()))

    def never(*_: object) -> None:
        raise AssertionError("searched although a plan was kept")

    plans._plan.cache_clear()  # as in another process
    monkeypatch.setattr(plans, "_searched", never)
    assert torch.equal(backend.expectations(circuit, *data, (Z(1),)).values, first)
    larger = angles(torch.float64, batch=4)  # 3 and 4 samples share a plan
    assert backend.expectations(circuit, *larger, (Z(1),)).values.shape == (4, 1)
    for text, said in (
        ("{", "got an unreadable"),
        ("[[0, 1]]", "which is none for its network"),
        ("7", "which is none"),
    ):
        plans._plan.cache_clear()
        file.write_text(text)
        with pytest.raises(ValueError, match=f"plan_dir expects files of plans, .*{said}.*; delete it"):
            backend.expectations(circuit, *data, (Z(1),))


def test_a_folder_that_cannot_be_written_and_other_wrong_options(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    circuit = scrambled(7, 90, seed=9)
    with pytest.raises(ValueError, match="plan_dir expects a folder that can be written"):
        QuimbExact(plan_dir=str(tmp_path / "file" / "x")).expectations(circuit, *angles(torch.float64), (Z(1),))
    with pytest.raises(TypeError, match="expects plan_dir as a string or None, got int"):
        QuimbExact(plan_dir=3)  # pyright: ignore[reportArgumentType] -- what is tested
    with pytest.raises(ValueError, match="expects memory_limit in bytes"):
        QuimbExact(memory_limit=0)
    with pytest.raises(ValueError, match="expects shots=None, got 5"):
        CONTRACTED.entropy(circuit, *angles(torch.float64), wires=tuple(range(7)), shots=5)
    with pytest.raises(ValueError, match="without resets"):
        CONTRACTED.expectations(Circuit(1, Reset(0)), None, None, (Z(0),))


def test_a_run_that_would_not_fit_is_refused_before_it_runs() -> None:
    circuit = scrambled(6, 40, seed=10)
    one, many = (CONTRACTED.rehearse(circuit, (Z(0), X(1)), batch=batch) for batch in (1, 64))
    assert many.flops > 4 * one.flops
    double = CONTRACTED.rehearse(circuit, (Z(0), X(1)), batch=64, dtype=torch.float64)
    assert double.peak_bytes == 2 * many.peak_bytes
    data = angles(torch.float64, batch=64)
    fits = CONTRACTED.with_options(memory_limit=double.peak_bytes)
    assert fits.expectations(circuit, *data, (Z(0), X(1))).values.shape == (64, 2)
    tight = CONTRACTED.with_options(memory_limit=double.peak_bytes - 1)
    with pytest.raises(ValueError, match=f"got one of {double.peak_bytes} bytes; use a smaller batch, a shallower"):
        tight.expectations(circuit, *data, (Z(0), X(1)))
    with pytest.raises(ValueError, match="a shallower circuit, 'quimb:mps'"):  # a backward pass keeps more
        fits.expectations(circuit, data[0], data[1].requires_grad_(), (Z(0), X(1)))


def test_opening_imports_neither_quimb_nor_cotengra_and_contracting_no_quimb() -> None:
    code = """
import sys
from backends import open_backend
from circuits import Circuit, Op, Z
opened = [open_backend(spec) for spec in ("quimb:mps", "quimb:permmps", "quimb:exact?plan_dir=None")]
assert "quimb" not in sys.modules and "cotengra" not in sys.modules
circuit = Circuit(3, (Op("h", (0,)), Op("cx", (0, 2)), Op("cx", (2, 1))))
opened[0].rehearse(circuit, (Z(0),))
assert abs(opened[2].expectations(circuit, None, None, (Z(0) @ Z(1),)).values.item() - 1) < 1e-6
assert "quimb" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_strings_open_equal_backends(tmp_path: Path) -> None:
    backend = open_backend(f"quimb:exact?plan_dir={tmp_path}&memory_limit=1000000")
    assert backend == QuimbExact(plan_dir=str(tmp_path), memory_limit=1000000)
    assert open_backend(backend.spec) == backend
    assert open_backend("quimb:exact") == QuimbExact()
    assert open_backend("quimb:exact?plan_dir=None") == CONTRACTED
