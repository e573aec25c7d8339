"""Per-token entropy: exact facts, controls, what measuring must not touch, the table, and its statistics."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backends import open_backend
from backends.base import Backend, Request
from backends.estimate import Capabilities, Estimate
from circuits import GATES, Circuit, Op, Reset
from circuits.library import reuploading
from qlm import QLMConfig, QLMForCausalLM, measure_entropy
from qlm import entropy_statistics as statistics
from qlm.blocks.quantum_router import QuantumRouter
from qlm.entropy_table import CONTROLS, EntropyTable

ROUTER = {"kind": "quantum_router", "n_wires": 3, "depth": 1}
HARMONIC = {"kind": "harmonic", "taus": [4.0, 16.0]}
TEXT = "Aé b\n🙂a, aa."


def build(*blocks: dict[str, Any], seed: int = 0, **changes: Any) -> QLMForCausalLM:
    torch.manual_seed(seed)
    return QLMForCausalLM(QLMConfig(d_model=8, blocks=list(blocks), **changes)).eval()


def router(model: QLMForCausalLM, position: int = 1) -> QuantumRouter:
    block = model.model.layers[position]
    assert isinstance(block, QuantumRouter)
    return block


def disturb(model: QLMForCausalLM) -> QLMForCausalLM:
    """Move every parameter away from its initial value, as training does."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def model() -> QLMForCausalLM:
    return disturb(build(HARMONIC, ROUTER))


@pytest.fixture(scope="module")
def table(model: QLMForCausalLM) -> EntropyTable:
    return measure_entropy(model, TEXT)


def test_one_row_per_token_block_and_control(table: EntropyTable) -> None:
    data = TEXT.encode()
    assert len(table) == 3 * len(data)
    assert table.control == tuple(control for control in CONTROLS for _ in data)
    for control in CONTROLS:
        part = table.select(control=control)
        assert part.position == tuple(range(len(data)))
        assert list(zip(part.start, part.end, strict=True)) == [(k, k + 1) for k in range(len(data))]
        assert set(part.block) == {"1.quantum_router"}
        assert set(part.wires) == {(0,)}
        assert part.surprisal == table.select(control="trained").surprisal
    assert table.token[:6] == ("A", "\\xc3", "\\xa9", " ", "b", "\\n")
    assert all(token.isprintable() for token in table.token)
    assert all(0 <= value <= math.log(2) + 1e-12 for value in table.entropy)
    assert set(table.purity) == {None}
    about = table.about
    assert (about.data, about.backend, about.kind, about.shots, about.noisy) == (
        data,
        "statevector",
        "von_neumann",
        None,
        False,
    )
    assert (about.n_shuffles, about.executions, about.is_pure("1.quantum_router")) == (8, 10 * len(data), True)


def test_stderr_is_zero_where_exact_and_the_error_of_the_mean_over_permutations(table: EntropyTable) -> None:
    for control in ("trained", "untrained"):
        assert set(table.select(control=control).stderr) == {0.0}
    assert min(table.select(control="shuffled").stderr) > 0


@pytest.mark.parametrize("kind", ["von_neumann", "renyi2"])
@pytest.mark.parametrize("wires", [None, (2, 0)])
def test_trained_rows_are_the_backends_entropy_of_the_angles(model: QLMForCausalLM, kind: str, wires: Any) -> None:
    caught: list[Tensor] = []
    block = router(model)
    handle = block.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    ids = torch.tensor([[256, *TEXT.encode()]])
    with torch.no_grad():
        logits = model(ids).logits[0]
        handle.remove()
        core = block.circuit_core
        assert core is not None
        angles = block.angles(caught[0][0, 1:]).double()
        cut = core.wires if wires is None else wires
        direct = core.layer.backend.entropy(core.layer.circuit, angles, core.layer.weights.double(), cut, kind)
        surprisal = torch.nn.functional.cross_entropy(logits[:-1].double(), ids[0, 1:], reduction="none")
    found = measure_entropy(model, TEXT, kind=kind, wires=wires).select(control="trained")
    assert found.entropy == pytest.approx(direct.values.tolist(), abs=1e-12)
    assert found.surprisal == pytest.approx(surprisal.tolist(), abs=1e-6)


def test_separable_circuits_have_no_entropy() -> None:
    found = measure_entropy(disturb(build(HARMONIC, ROUTER, quantum="separable")), TEXT)
    assert max(found.entropy) < 1e-10
    summary = found.summary()[0]
    assert (summary.spearman, summary.pearson) == (None, None)
    assert summary.auc_untrained == summary.auc_shuffled == statistics.Statistic(0.5, 0.5, 0.5)


def test_untrained_is_the_same_config_at_step_zero() -> None:
    fresh = measure_entropy(build(HARMONIC, ROUTER, seed=3), TEXT, seed=3)
    assert fresh.select(control="trained").entropy == fresh.select(control="untrained").entropy
    moved = measure_entropy(disturb(build(HARMONIC, ROUTER, seed=3)), TEXT, seed=3)
    assert moved.select(control="untrained").entropy == fresh.select(control="untrained").entropy
    assert moved.select(control="trained").entropy != moved.select(control="untrained").entropy


def test_shuffled_is_matched_back_to_the_token() -> None:
    """Without a recurrence before the router, a token's entropy depends on the token alone."""
    found = measure_entropy(disturb(build(ROUTER)), TEXT)
    trained, shuffled = found.select(control="trained"), found.select(control="shuffled")
    assert np.ptp(trained.entropy) > 0.01
    assert shuffled.entropy == pytest.approx(trained.entropy, abs=1e-6)
    assert max(shuffled.stderr) < 1e-6


def test_shuffled_is_the_mean_over_permutations_of_the_text(model: QLMForCausalLM, table: EntropyTable) -> None:
    """Of two tokens, each stands first or second: the mean of the two orders, in whole counts of those drawn."""
    one = measure_entropy(model, b"xy").select(control="trained").entropy
    other = measure_entropy(model, b"yx").select(control="trained").entropy
    shuffled = measure_entropy(model, b"xy", n_shuffles=16).select(control="shuffled").entropy
    shares = [(shuffled[0] - other[1]) / (one[0] - other[1]), (shuffled[1] - other[0]) / (one[1] - other[0])]
    assert shares[0] == pytest.approx(shares[1], abs=1e-4)
    assert 16 * shares[0] == pytest.approx(round(16 * shares[0]), abs=1e-3)
    assert 0 < round(16 * shares[0]) < 16


def test_later_text_moves_no_earlier_entropy() -> None:
    exact = disturb(build(HARMONIC, ROUTER, HARMONIC, ROUTER)).double()
    one, other = (measure_entropy(exact, text) for text in (b"abcdef", b"abcxyz"))
    assert one.blocks() == ("1.quantum_router", "3.quantum_router")
    for block in one.blocks():
        for control in ("trained", "untrained"):
            a, b = (part.select(control, block).entropy for part in (one, other))
            assert a[:3] == pytest.approx(b[:3], abs=1e-10)
            assert max(abs(x - y) for x, y in zip(a[3:], b[3:], strict=True)) > 1e-6


def test_a_seed_gives_one_table(model: QLMForCausalLM, table: EntropyTable) -> None:
    assert measure_entropy(model, TEXT) == table
    other = measure_entropy(model, TEXT, seed=1)
    assert other.select(control="trained").entropy == table.select(control="trained").entropy
    for control in ("untrained", "shuffled"):
        assert other.select(control=control).entropy != table.select(control=control).entropy


def test_measuring_leaves_no_trace() -> None:
    model = build(HARMONIC, ROUTER).train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    states = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002 -- the global one
    measure_entropy(model, TEXT, n_shuffles=2)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state(legacy=False)) == str(states[1])  # noqa: NPY002 -- as above
    assert [module.training for module in model.modules()] == modes
    assert model.config.to_dict() == config
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert not router(model)._forward_pre_hooks


def test_modes_and_hooks_come_back_after_an_error() -> None:
    model = build(HARMONIC, ROUTER).train()
    with torch.no_grad():
        router(model).encode.weight.fill_(math.nan)
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"finite angles in block '1\.quantum_router'"):
        measure_entropy(model, TEXT)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not router(model)._forward_pre_hooks


def test_long_text_is_cut_and_bytes_that_are_no_text_are_kept(model: QLMForCausalLM) -> None:
    found = measure_entropy(model, b"\xff\x00" * 50, n_tokens=3)
    assert (len(found), found.about.data, found.token[:3]) == (9, b"\xff\x00\xff", ("\\xff", "\\x00", "\\xff"))
    assert len(measure_entropy(model, "a")) == 3


@dataclass(frozen=True)
class Depolarised(Backend):
    """The exact state mixed with the maximally mixed one, and a purity beside each entropy, as devices report."""

    kind = "depolarised"
    kept: float = 0.9
    error: float = 0.01
    calls: tuple[list[int], ...] = ((),)  # pyright: ignore[reportAssignmentType] -- each test passes a list of its own

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(shots=True, batch=True, noisy=True, max_wires=8, gates=frozenset(GATES))

    def _expectations(self, circuit: Circuit, angles: Tensor, observables: Any, request: Request) -> Estimate:
        raise NotImplementedError

    def _samples(self, circuit: Circuit, angles: Tensor, wires: Any, shots: int, seed: int | None) -> Tensor:
        raise NotImplementedError

    def _entropy(self, circuit: Circuit, angles: Tensor, wires: Any, kind: str, request: Request) -> Estimate:
        self.calls[0].append(len(angles))
        exact = open_backend("statevector").density(circuit, angles, None, wires).values
        mixed = self.kept * exact + (1 - self.kept) * torch.eye(exact.shape[-1]) / exact.shape[-1]
        values = -torch.log((mixed @ mixed).diagonal(dim1=1, dim2=2).sum(-1).real)
        purity = self.kept**2 + (1 - self.kept**2) / 2**circuit.n_wires
        column = torch.ones(len(angles))
        errors = self.error * column
        return Estimate(values, errors, 100, purity=purity * column, purity_stderr=errors)


def test_a_noisy_backend_gets_one_batch_and_its_purity_decides_about_entanglement(model: QLMForCausalLM) -> None:
    backend = Depolarised(calls=([],))
    found = measure_entropy(model, TEXT, backend, kind="renyi2")
    n_tokens = len(TEXT.encode())
    assert backend.calls[0] == [3 * n_tokens]
    assert (found.about.n_shuffles, found.about.shots, found.about.noisy) == (1, 100, True)
    assert found.stderr == pytest.approx([0.01] * len(found))
    purity = 0.81 + 0.19 / 8
    assert found.purity == pytest.approx([purity] * len(found))
    error = math.hypot(0.01, 0.01 / purity)
    expected = tuple(entropy + math.log(purity) > 1.96 * error for entropy in found.entropy)
    assert found.certified() == expected
    assert len(set(expected)) == 2
    share = sum(expected[:n_tokens]) / n_tokens
    assert found.summary()[0].certified == pytest.approx(share)
    assert set(measure_entropy(model, TEXT, backend).certified()) == {None}


def test_on_noisy_data_the_error_of_a_mean_over_permutations_shrinks(model: QLMForCausalLM) -> None:
    found = measure_entropy(model, "aaaa", Depolarised(error=0.5, calls=([],)), n_shuffles=4)
    assert found.select(control="shuffled").stderr == pytest.approx([0.25] * 4)
    assert found.select(control="shuffled").purity_stderr == pytest.approx([0.25] * 4)


def test_a_circuit_with_resets_is_not_called_pure() -> None:
    circuit = reuploading(2, 1)
    damped = Circuit(2, (*circuit.ops, *Reset((1,)), Op("ry", (0,), (0.3,))))
    found = measure_entropy(build({"kind": "quantum_router", "circuit": damped.to_json()}), TEXT)
    assert not found.about.is_pure("0.quantum_router")


def test_a_text_longer_than_one_call_is_measured_in_order(
    model: QLMForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exact backend gets the tokens in parts; the parts' order is the text's."""
    whole = measure_entropy(model, TEXT * 3, n_shuffles=2)
    monkeypatch.setattr("qlm.entropy._FEWEST_ROWS", 5)
    monkeypatch.setattr("qlm.entropy._AMPLITUDES", 5)
    parts = measure_entropy(model, TEXT * 3, n_shuffles=2)
    assert parts.entropy == pytest.approx(whole.entropy, abs=1e-12)
    assert parts.surprisal == whole.surprisal


def test_aer_agrees_and_counts_shots(model: QLMForCausalLM, table: EntropyTable) -> None:
    pytest.importorskip("qiskit_aer")
    exact = measure_entropy(model, TEXT, "aer")
    assert exact.entropy == pytest.approx(table.entropy, abs=1e-6)
    counted = measure_entropy(model, TEXT, "aer?shots=2000", n_tokens=6)
    assert (counted.about.shots, counted.about.n_shuffles) == (3 * 2000, 1)
    assert counted == measure_entropy(model, TEXT, "aer?shots=2000", n_tokens=6)
    reference = measure_entropy(model, TEXT, n_tokens=6, n_shuffles=1)
    for found, true, error in zip(counted.entropy, reference.entropy, counted.stderr, strict=True):
        assert error > 0
        assert abs(found - true) < 5 * error
