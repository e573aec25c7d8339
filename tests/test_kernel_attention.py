"""Kernel attention: its formula, its forms, its twins, and what it reports.

Axis legend: b batch, l sequence, d model width, w angles, e numbers of a value, p window.
"""

import math
from typing import Any

import pytest
import torch
from kernel_cases import WAYS, block, by_hand, left_padded, stream

from circuits import Circuit, Op, Reset
from circuits.library import angle_encoding, zz_feature_map
from qlm.blocks.base import Context
from qlm.blocks.kernel_attention import KernelAttentionConfig
from qlm.blocks.kernel_forms import CROSSOVER, choose_form
from qlm.blocks.kernel_parts import TwinKernel
from qlm.controls import QUANTUM_MODES


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("mode", QUANTUM_MODES)
def test_output_is_the_formula_with_and_without_padding(mode: str, way: dict[str, Any]) -> None:
    made = block(quantum=mode, eps=0.05, **way)
    for mask in (None, left_padded()):
        found = made(stream(), Context(mask)).hidden
        expected = by_hand(made, stream(), mask)
        real = torch.ones(2, 7, dtype=torch.bool) if mask is None else mask
        torch.testing.assert_close(found[real], expected[real], atol=1e-10, rtol=0)
        assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("way", [{}, {"window": 3}], ids=str)
def test_the_second_twin_is_scaled_dot_product_attention(way: dict[str, Any]) -> None:
    made = block(quantum="twin", twin="dot", **way)
    torch.testing.assert_close(made(stream(), Context()).hidden, by_hand(made, stream()), atol=1e-10, rtol=0)
    assert isinstance(made.core, TwinKernel)


def test_zz_feature_map_as_the_circuit() -> None:
    made = block(circuit=zz_feature_map(2).to_json())
    torch.testing.assert_close(made(stream(), Context()).hidden, by_hand(made, stream()), atol=1e-10, rtol=0)


@pytest.mark.parametrize("mode", ["circuit", "twin"])
def test_linear_and_quadratic_forms_agree_with_gradients(mode: str) -> None:
    length = 150  # more than a block of queries
    found = []
    for form in ("linear", "quadratic"):
        made, hidden = block(quantum=mode, form=form), stream(length).requires_grad_()
        output = made(hidden, Context()).hidden
        assert made.report is not None
        assert made.report.form == form
        cotangent = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        wanted = [hidden, *made.parameters()]
        found.append([output, *torch.autograd.grad((output * cotangent).sum(), wanted)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
    assert float(found[0][1].abs().max()) > 1e-3


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("mode", ["circuit", "twin", "off"])
@pytest.mark.parametrize("sizes", [(3, 4), (1, 1, 5), (6, 1)])
def test_parts_with_state_equal_the_whole(sizes: tuple[int, ...], mode: str, way: dict[str, Any]) -> None:
    made, mask = block(quantum=mode, **way), left_padded()
    whole = made(stream(), Context(mask))
    state, parts = (), []
    for part, seen in zip(stream().split(sizes, 1), mask.split(sizes, 1), strict=True):
        before = [tensor.clone() for tensor in state]
        output = made(part, Context(seen, state=state))
        assert all(torch.equal(*pair) for pair in zip(before, state, strict=True))  # never written in place
        parts.append(output.hidden)
        state = output.state
    torch.testing.assert_close(torch.cat(parts, 1)[mask], whole.hidden[mask], atol=1e-10, rtol=0)
    for one, other in zip(state, whole.state, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def test_the_state_is_of_constant_size_and_holds_the_count() -> None:
    made = block()
    shapes = set()
    for length in (0, 1, 7, 90):
        (state,) = made(stream(length), Context()).state
        shapes.add(tuple(state.shape))
        assert state[:, -1, -1].tolist() == [length, length]
    assert shapes == {(2, 17, 4)}


def test_left_padding_changes_nothing() -> None:
    for way in WAYS:
        made, hidden = block(**way), stream()
        padded = torch.cat((torch.full((2, 2, 8), 9.0, dtype=torch.float64), hidden), 1)
        mask = torch.cat((torch.zeros(2, 2, dtype=torch.bool), torch.ones(2, 7, dtype=torch.bool)), 1)
        alone, beside = made(hidden, Context()), made(padded, Context(mask))
        torch.testing.assert_close(beside.hidden[:, 2:], alone.hidden, atol=1e-12, rtol=0)


def test_without_entanglers_the_circuit_is_the_product_twin() -> None:
    """At depth 0 nothing is trained: circuit, separable circuit and product twin are one function."""
    outputs = [block(quantum=mode, depth=0)(stream(), Context()).hidden for mode in ("circuit", "separable", "twin")]
    for other in outputs[1:]:
        torch.testing.assert_close(outputs[0], other, atol=1e-12, rtol=0)
    twin = TwinKernel("product", 3, 0)
    x, y = torch.randn(2, 5, 3, dtype=torch.float64)
    q, k = twin(x, y).unbind(1)
    expected = torch.cos((x[:, None] - y[None]) / 2).square().prod(-1)
    torch.testing.assert_close(twin.similarity.inner(q, k), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("n_wires", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("twin", ["product", "dot"])
def test_twin_has_the_circuits_size(n_wires: int, depth: int, twin: str) -> None:
    circuit = block(n_wires=n_wires, depth=depth).circuit_core
    other = block(n_wires=n_wires, depth=depth, quantum="twin", twin=twin)
    assert circuit is not None
    assert other.circuit_core is None
    assert isinstance(other.core, TwinKernel)
    assert circuit.n_parameters == 3 * n_wires * depth
    assert abs(other.core.n_parameters - circuit.n_parameters) <= max(2 * n_wires + 1, 0.02 * circuit.n_parameters)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"causal": False}, "expects causal=True, got False"),
        ({"normalisation": "sofmax"}, "did you mean 'softmax'"),
        ({"form": "linaer"}, "did you mean 'linear'"),
        ({"twin": "dott"}, "did you mean 'dot'"),
        ({"quantum": "of"}, "did you mean 'off'"),
        ({"form": "linear", "normalisation": "softmax"}, "got a softmax, which has none"),
        ({"form": "linear", "quantum": "twin", "twin": "dot"}, "got a softmax, which has none"),
        ({"form": "linear", "window": 4}, "got a window of 4, which has none"),
        ({"eps": 0.0}, "expects finite eps > 0"),
        ({"eps": math.nan}, "expects finite eps > 0"),
        ({"eps": math.inf}, "expects finite eps > 0"),
        ({"tau": -1.0}, "tau > 0"),
        ({"tau": math.inf}, "tau > 0"),
        ({"window": 1}, "a window of at least 2, or 0 for all, got 1"),
        ({"n_wires": 9, "depth": 1}, "at most 8 wires with window 0 and kernel normalisation, got 9: .* set a window"),
        ({"n_wires": 9, "depth": 1, "quantum": "twin"}, r"4\*\*n x \(d_value \+ 1\) numbers per row"),
        ({"circuit": Circuit(2, (Op("h", (0,)),)).to_json()}, "a circuit with inputs, got none"),
        ({"circuit": Circuit(1, (*angle_encoding(1).ops, *Reset(0))).to_json()}, "expects a unitary circuit"),
    ],
)
def test_bad_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KernelAttentionConfig(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_wires": 8},
        {"window": 2},
        {"normalisation": "softmax"},
        {"quantum": "twin", "twin": "dot"},
        {"quantum": "off"},
    ],
)
def test_wide_circuits_are_taken_where_no_state_of_all_tokens_is_held(changes: dict[str, Any]) -> None:
    config = KernelAttentionConfig(**{"n_wires": 9, "depth": 1, **changes})
    assert Circuit.from_json(config.circuit).n_wires == config.n_wires


def test_a_mask_of_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a padding mask \(2, 7\), got \(2, 7, 7\): it is causal by itself"):
        block()(stream(), Context(torch.ones(2, 7, 7, dtype=torch.bool)))


@pytest.mark.parametrize("mode", QUANTUM_MODES)
def test_report_counts_circuits_and_tells_the_kernels_spread(mode: str) -> None:
    made = block(quantum=mode, form="quadratic")
    made(stream(), Context(left_padded()))
    report = made.report
    assert report is not None
    assert report.tokens == 11
    assert report.executions == (22 if mode in ("circuit", "separable", "frozen") else 0)
    assert report.shots is None
    if mode == "off":
        assert (report.output_share, report.kernel_mean, report.kernel_spread) == (0, 0, 0)
        return
    assert 0.01 < report.output_share < 2
    real = left_padded().flatten()
    assert made.core is not None
    normed = made.norm(stream()).flatten(0, 1)[real]
    q, k = (math.pi * torch.tanh(made.encode(normed))).chunk(2, -1)
    rows = made.core(q, k)
    kernel = made.core.similarity.inner(rows[:, 0], rows[:, 1]).detach()[~torch.eye(11, dtype=torch.bool)]
    assert report.kernel_mean == pytest.approx(float(kernel.mean()), abs=1e-12)
    assert report.kernel_spread == pytest.approx(float(kernel.std(correction=0)), abs=1e-12)


def test_reported_spread_falls_with_the_wires() -> None:
    spreads = []
    for n_wires in (2, 4, 6):
        made = block(n_wires=n_wires, depth=2, form="quadratic")
        assert made.circuit_core is not None
        torch.nn.init.normal_(made.circuit_core.layer.weights, 0.0, 1.5)
        made(stream(30), Context())
        assert made.report is not None
        spreads.append(made.report.kernel_spread)
    assert spreads[0] > 2 * spreads[1] > 4 * spreads[2]


def test_without_what_the_circuit_says_the_block_is_a_uniform_average() -> None:
    """Evaluation replaces a part's output by its mean: then all tokens are alike."""
    made = block()
    assert made.core is not None
    made.core.register_forward_hook(lambda module, args, output: output.mean(0).expand_as(output))
    values = made.value(made.norm(stream()))
    uniform = values.cumsum(1) / torch.arange(1, 8)[:, None]
    torch.testing.assert_close(made(stream(), Context()).hidden, stream() + made.out(uniform), atol=1e-12, rtol=0)


def test_form_is_chosen_by_the_measured_crossover() -> None:
    for n_wires, crossover in CROSSOVER.items():
        assert choose_form(crossover, n_wires) == "quadratic"
        assert choose_form(crossover + 1, n_wires) == "linear"
    assert choose_form(10**6, 9) == "quadratic"
    made = block()
    for length, form in ((CROSSOVER[2], "quadratic"), (CROSSOVER[2] + 1, "linear")):
        made(stream(length), Context())
        assert made.report is not None
        assert made.report.form == form


def test_bfloat16_under_autocast_compares_in_float32() -> None:
    made = block().float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        output = made(stream().float(), Context())
    assert output.state[0].dtype == torch.float32
    torch.testing.assert_close(output.hidden.double(), by_hand(block(), stream()), atol=0.05, rtol=0.05)
