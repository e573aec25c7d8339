"""What every block keeps, in every quantum mode; and the controls that stand in a circuit's place.

Axis legend: b batch, l sequence, d model width, n tokens, w wires, o observables.
"""

import math
from dataclasses import fields
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from small_blocks import SMALL

from circuits import Circuit, Op, Weight, X, Z
from circuits.library import hardware_efficient, reuploading
from qlm.blocks.base import Block, Context
from qlm.controls import QUANTUM_MODES, CircuitCore, TwinCore, build_core, check_mode
from qlm.registry import BLOCKS, HEADS, block_class, block_config, complete_entry, head_class

EVERY = [
    pytest.param(kind, mode, id=f"{kind}-{mode}" if block_class(kind).holds_circuit else kind)
    for kind in BLOCKS
    for mode in (QUANTUM_MODES if block_class(kind).holds_circuit else ("circuit",))
]


def make(kind: str, mode: str = "circuit", d_model: int = 8, **changes: Any) -> Block:
    torch.manual_seed(0)
    cls = block_class(kind)
    return cls(d_model, block_config({"kind": kind, **SMALL.get(kind, {}), **changes}, mode))  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "mode"), EVERY)
def test_block_runs_and_every_trainable_parameter_learns(kind: str, mode: str, dtype: torch.dtype) -> None:
    block = make(kind, mode).to(dtype).train()
    hidden = torch.randn(2, 5, 8, dtype=dtype, requires_grad=True)
    output = block(hidden, Context())
    assert output.hidden.shape == hidden.shape
    assert output.hidden.dtype == dtype
    assert not torch.equal(output.hidden, hidden)
    (output.hidden.square().sum() + (output.loss if output.loss is not None else 0)).backward()
    assert hidden.grad is not None
    for name, parameter in block.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all()), name


@pytest.mark.parametrize(("kind", "mode"), EVERY)
@pytest.mark.parametrize("shape", [(0, 5, 8), (3, 1, 8), (1, 1, 8)])
def test_block_takes_any_batch(kind: str, mode: str, shape: tuple[int, ...]) -> None:
    block = make(kind, mode).eval()
    output = block(torch.randn(shape), Context())
    assert output.hidden.shape == shape
    assert bool(torch.isfinite(output.hidden).all())


@pytest.mark.parametrize("shape", [(2, 6), (5,), (2, 5, 5), (3, 5)])
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_mask_of_another_shape_is_refused(kind: str, shape: tuple[int, ...]) -> None:
    """In training, and with a budget of ranks, where every block reads the mask."""
    changes: dict[str, Any] = {"budget": 2} if kind == "tt_feed_forward" else {}
    block = make(kind, **changes).train()
    context = Context(torch.ones(shape, dtype=torch.bool), hardness=torch.rand(2, 5))
    with pytest.raises(ValueError, match=r"a block expects a padding mask \(2, 5\), got .*; pass true at real tokens"):
        block(torch.randn(2, 5, 8), context)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *((kind, {}) for kind in BLOCKS if "report" in vars(block_class(kind))),
        *(("kernel_attention", one) for one in ({"window": 3}, {"normalisation": "softmax"}, {"form": "linear"})),
    ],
)
def test_a_report_is_of_real_tokens(kind: str, changes: dict[str, Any]) -> None:
    """The same with padding of large entries on either side; flops alone count it, where it is computed."""
    block = make(kind, **changes).double().eval()
    hidden, hardness = torch.randn(2, 6, 8, dtype=torch.float64), torch.rand(2, 6)
    block(hidden, Context(hardness=hardness))
    plain = vars(block.report)
    mask, noise = torch.ones(2, 6, dtype=torch.bool), 5 * torch.randn(2, 4, 8, dtype=torch.float64)
    for order in ((0, 1), (1, 0)):
        pairs = ((hidden, noise), (mask, torch.zeros(2, 4, dtype=torch.bool)), (hardness, torch.zeros(2, 4)))
        padded, real, hard = (torch.cat([pair[k] for k in order], 1) for pair in pairs)
        block(padded, Context(real, hardness=hard))
        for name, value in vars(block.report).items():
            if kind != "tt_feed_forward" or "flops" not in name:
                assert value == pytest.approx(plain[name]) if value else value == plain[name], name


@pytest.mark.parametrize(("kind", "mode"), EVERY)
def test_evaluation_repeats_itself_and_draws_nothing(kind: str, mode: str) -> None:
    block = make(kind, mode).eval()
    hidden = torch.randn(2, 5, 8)
    before = torch.get_rng_state()
    first, second = block(hidden, Context()), block(hidden, Context())
    assert torch.equal(first.hidden, second.hidden)
    assert first.loss is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("kind", "mode"), EVERY)
def test_stored_entry_builds_the_same_block(kind: str, mode: str) -> None:
    entry = complete_entry({"kind": kind, **SMALL.get(kind, {})}, mode)
    assert complete_entry(entry, "off") == entry  # a stored mode is the block's own
    assert block_config(entry, "off") == block_config({"kind": kind, **SMALL.get(kind, {})}, mode)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown block 'harmonc': did you mean 'harmonic'"):
        block_config({"kind": "harmonc"}, "circuit")
    with pytest.raises(ValueError, match="unknown key of block 'harmonic' 'tau': did you mean 'taus'"):
        block_config({"kind": "harmonic", "tau": (1.0,)}, "circuit")
    with pytest.raises(ValueError, match="unknown quantum mode 'frzen': did you mean 'frozen'"):
        block_config({"kind": "quantum_router", "quantum": "frzen"}, "circuit")
    with pytest.raises(ValueError, match="expects a dictionary with a 'kind'"):
        block_config({"taus": (1.0,)}, "circuit")
    with pytest.raises(ValueError, match="unknown quantum mode"):
        build_core("twins", reuploading(2, 1), (Z(0),), "statevector")
    for mode in QUANTUM_MODES:
        check_mode(mode)


@pytest.mark.parametrize("kind", [*BLOCKS, *HEADS])
def test_a_config_built_directly_refuses_values_of_another_type(kind: str) -> None:
    config = (block_class(kind) if kind in BLOCKS else head_class(kind)).Config
    for field in fields(config):
        for wrong in (None, True, 2.5, 3, "3", (0.5, "3"), np.int64(3), torch.ones(())):
            number = field.type is float and isinstance(wrong, float | int) and not isinstance(wrong, bool)
            if type(wrong) is field.type or number:
                continue
            with pytest.raises(TypeError, match=f"^{kind} expects {field.name} as [a-z ]+, got .*; correct it.$"):
                config(**{field.name: wrong})


@pytest.mark.parametrize("n_wires", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("depth", [1, 2, 3, 5, 10])
def test_twin_has_the_circuits_size(n_wires: int, depth: int) -> None:
    """Equal on the replaced part alone, to the larger of 2 % and the parameters of one hidden unit."""
    block = make("quantum_router", "twin", n_wires=n_wires, depth=depth)
    twin = block.core
    assert isinstance(twin, TwinCore)
    circuit = 3 * n_wires * depth
    core = make("quantum_router", n_wires=n_wires, depth=depth).core
    assert isinstance(core, CircuitCore)
    assert circuit == sum(parameter.numel() for parameter in core.parameters())
    unit = twin.inner.in_features + 1 + twin.outer.out_features
    assert twin.n_parameters == sum(p.numel() for p in twin.parameters())
    assert abs(twin.n_parameters - circuit) <= max(0.02 * circuit, unit)


def test_twin_of_a_circuit_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="a twin expects a circuit of at least 5 weights, got 0"):
        TwinCore(2, 4, 0)


def test_twin_is_a_function_of_its_angles_with_hardness_between_0_and_1() -> None:
    torch.manual_seed(0)
    twin = TwinCore(4, 8, 120)
    angles = math.pi * (2 * torch.rand(50, 4) - 1)
    with torch.no_grad():
        features, hardness = twin(angles), twin.hardness(angles)
    assert features.shape == (50, 8)
    assert hardness.shape == (50,)
    assert float(features.abs().max()) < 1
    assert 0 < float(hardness.min()) < float(hardness.max()) < 1
    hidden = np.tanh(angles.numpy() / math.pi @ twin.inner.weight.detach().numpy().T + twin.inner.bias.detach().numpy())
    raw = hidden @ twin.outer.weight.detach().numpy().T + twin.outer.bias.detach().numpy()
    np.testing.assert_allclose(features.numpy(), np.tanh(raw[:, :8]), atol=2e-6)
    np.testing.assert_allclose(hardness.numpy(), 1 / (1 + np.exp(-raw[:, 8])), atol=2e-6)


@pytest.mark.parametrize(("n_wires", "depth"), [(2, 1), (3, 2), (4, 3)])
def test_circuit_core_against_dense_matrices(n_wires: int, depth: int) -> None:
    """Features are expectations; hardness is the entropy of the first half of the wires over min(|A|, |B|) ln 2."""
    torch.manual_seed(0)
    circuit = reuploading(n_wires, depth)
    observables = (Z(0), X(n_wires - 1), Z(0) @ X(1))
    core = CircuitCore(circuit, observables, "statevector").double()
    angles = math.pi * (2 * torch.rand(5, n_wires, dtype=torch.float64) - 1)
    weights = core.layer.weights.detach().numpy()
    expected = oracles.expectations(circuit, angles.numpy(), weights, observables)
    np.testing.assert_allclose(core(angles).detach().numpy(), expected, atol=1e-10)
    half = n_wires // 2
    for row, hardness in zip(angles.numpy(), core.hardness(angles), strict=True):
        entropy = oracles.von_neumann(oracles.reduced(oracles.density(circuit, row, weights), range(half)))
        assert float(hardness.detach()) == pytest.approx(entropy / (half * math.log(2)), abs=1e-9)


def test_a_bell_pair_is_as_hard_as_it_gets() -> None:
    bell = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1)), Op("rz", (0,), (Weight(0),))))
    core = CircuitCore(bell, (Z(0),), "statevector")
    assert core.max_entropy == pytest.approx(math.log(2))
    torch.testing.assert_close(core.hardness(torch.zeros(3, 0)), torch.ones(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("circuit", [reuploading(4, 3), reuploading(2, 1), hardware_efficient(5, 2)])
def test_separable_circuit_has_no_entropy_at_all(circuit: Circuit, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    core = build_core("separable", circuit, (Z(0),), "statevector")
    assert isinstance(core, CircuitCore)
    assert core.layer.circuit.n_weights == circuit.n_weights
    assert not any(op.name in ("cx", "cz") for op in core.layer.circuit.ops)
    angles = (math.pi * (2 * torch.rand(200, circuit.n_inputs) - 1)).to(dtype)
    hardness = core.to(dtype).hardness(angles)
    assert torch.equal(hardness, torch.zeros_like(hardness))


def test_frozen_core_keeps_its_first_weights_and_passes_gradients_to_its_inputs() -> None:
    core = build_core("frozen", reuploading(2, 2), (Z(0), Z(1)), "statevector")
    assert isinstance(core, CircuitCore)
    assert not core.layer.weights.requires_grad
    angles = torch.full((3, 2), 0.4, requires_grad=True)
    core(angles).sum().backward()
    assert core.layer.weights.grad is None
    assert angles.grad is not None
    assert float(angles.grad.abs().min()) > 1e-3


@pytest.mark.parametrize(("mode", "moves"), [("circuit", True), ("separable", True), ("frozen", False)])
def test_training_moves_the_circuits_weights_unless_frozen(mode: str, moves: bool) -> None:
    block = make("quantum_router", mode).train()
    core = block.core
    assert isinstance(core, CircuitCore)
    before = core.layer.weights.detach().clone()
    optimizer = torch.optim.AdamW(block.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        output = block(torch.randn(4, 8, 8), Context())
        optimizer.zero_grad()
        (output.hidden.square().mean() + output.loss).backward()
        optimizer.step()
    assert torch.equal(core.layer.weights, before) is not moves
