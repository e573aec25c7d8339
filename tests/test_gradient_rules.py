"""What the rules cost, which seeds they use, how SPSA scatters, and what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gradient_cases import OBSERVABLES, SLOTS, STATEVECTOR, Recorder, gradients, random_case

from backends import GRADIENTS, expectations_with_gradient
from backends.gradients import SPSA, ParameterShift
from circuits import Circuit, Input, Op, Weight, Z
from circuits.slots import leaves


def test_a_rule_refuses_a_second_derivative() -> None:
    circuit, inputs, weights = random_case(1)
    values = expectations_with_gradient(
        STATEVECTOR, circuit, inputs, weights, (Z(0),), gradient="parameter-shift"
    ).values
    (first,) = torch.autograd.grad(values.sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once, got a second derivative; use gradient=None"):
        torch.autograd.grad(first.sum(), weights)


def test_parameter_shift_is_one_batched_call_of_the_angles_that_need_it() -> None:
    backend = Recorder()
    inputs = torch.randn(5, 2, dtype=torch.float64)
    weights = torch.randn(2, dtype=torch.float64, requires_grad=True)
    gradients(backend, SLOTS, inputs, weights)  # a backend without autograd: parameter shift by default
    reading_weights = sum(any(isinstance(leaf, Weight) for leaf in leaves(slot)) for slot in SLOTS.slots)
    assert [len(angles) for angles, _ in backend.calls] == [5, 2 * reading_weights * 5]
    rows = backend.calls[1][0]
    moved = (rows - backend.calls[0][0].repeat(2 * reading_weights, 1)).abs()
    assert bool(((moved > 1e-9).sum(1) == 1).all())
    torch.testing.assert_close(moved.sum(1), torch.full((len(rows),), np.pi / 2, dtype=torch.float64))


def test_equal_circuits_run_once_where_answers_are_exact() -> None:
    inputs = torch.randn(2, 2, dtype=torch.float64)[[0, 1, 0, 0, 1]]
    weights = torch.randn(2, dtype=torch.float64, requires_grad=True)
    for noise, distinct in ((0.0, 2), (0.1, 5)):
        backend = Recorder(noise=noise)
        found = gradients(backend, SLOTS, inputs, weights, seed=3 if noise else None)
        assert len(backend.calls) == 2
        assert len(backend.calls[1][0]) % distinct == 0
        assert len(backend.calls[1][0]) // distinct == 2 * sum(
            any(isinstance(leaf, Weight) for leaf in leaves(slot)) for slot in SLOTS.slots
        )
        if not noise:
            torch.testing.assert_close(found, gradients(STATEVECTOR, SLOTS, inputs, weights), atol=1e-10, rtol=0)


@pytest.mark.parametrize("rule", [ParameterShift, SPSA])
def test_chunks_cap_a_call_and_change_nothing(rule: Callable[..., Any]) -> None:
    circuit, inputs, weights = random_case(4)
    whole = gradients(STATEVECTOR, circuit, inputs, weights, gradient=rule(), seed=3)
    backend = Recorder()
    parts = gradients(backend, circuit, inputs, weights, gradient=rule(max_batch=4), seed=3)
    assert max(len(angles) for angles, _ in backend.calls[1:]) == 4
    assert all(len(angles) == 4 for angles, _ in backend.calls[1:-1])
    for got, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


def test_seeds_of_forward_and_backward_differ_and_repeat() -> None:
    circuit, inputs, weights = random_case(4)
    runs = []
    for seed in (7, 7, 8):
        backend = Recorder(noise=0.1)
        runs.append((gradients(backend, circuit, inputs, weights, gradient=ParameterShift(20), seed=seed), backend))
    seeds = [[request.seed for _, request in backend.calls] for _, backend in runs]
    assert seeds[0] == seeds[1] != seeds[2]
    assert seeds[0][0] == 7
    assert len(set(seeds[0])) == len(seeds[0]) > 2
    assert not set(seeds[0]) & set(seeds[2])
    for same, again, other in zip(runs[0][0], runs[1][0], runs[2][0], strict=True):
        assert torch.equal(same, again)
        assert not torch.equal(same, other)


def test_shot_gradients_scatter_around_the_exact_one_and_stderr_has_no_graph() -> None:
    circuit = Circuit(1, (Op("rx", (0,), (Weight(0, scale=2.0),)),))
    weights = torch.tensor([0.6], dtype=torch.float64, requires_grad=True)
    inputs = torch.zeros(2000, 0, dtype=torch.float64)
    estimate = expectations_with_gradient(Recorder(noise=0.2), circuit, inputs, weights, (Z(0),), seed=1)
    assert not estimate.stderr.requires_grad
    assert bool((estimate.stderr == 0.2).all())
    assert estimate.shots == 100
    (slope,) = torch.autograd.grad(estimate.values.mean(), weights)
    # 2 (f+ - f-) / 2 per sample: a deviation of 0.2 sqrt(2), over sqrt(2000).
    assert abs(slope.item() - -2 * np.sin(1.2)) < 5 * 0.2 * np.sqrt(2 / 2000)


def test_spsa_is_the_gradient_on_average_with_the_variance_it_states() -> None:
    n_wires, trials = 4, 4000
    circuit = Circuit(n_wires, tuple(Op("ry", (wire,), (Input(wire),)) for wire in range(n_wires)))
    observable = Z(0) + Z(1) + Z(2) + Z(3)
    inputs = torch.tensor([[0.3, 0.8, 1.2, 2.0]], dtype=torch.float64).repeat(trials, 1).requires_grad_()
    for directions in (1, 4):
        rule = SPSA(directions=directions, step=0.01)
        values = expectations_with_gradient(
            STATEVECTOR, circuit, inputs, None, (observable,), gradient=rule, seed=5
        ).values
        (slopes,) = torch.autograd.grad(values.sum(), inputs)
        exact = -torch.sin(inputs[0])
        variance = ((exact**2).sum() - exact**2).detach() / directions
        errors = (slopes.mean(0) - exact).abs() / (variance / trials).sqrt()
        assert bool((errors < 5).all())
        torch.testing.assert_close(slopes.var(0), variance.detach(), rtol=0.2, atol=0)


def test_spsa_takes_two_evaluations_a_direction_and_its_signs_follow_the_seed() -> None:
    circuit, inputs, weights = random_case(4)
    backend = Recorder()
    first = gradients(backend, circuit, inputs, weights, gradient=SPSA(directions=3), seed=1)
    assert [len(angles) for angles, _ in backend.calls] == [3, 2 * 3 * 3]
    again = gradients(backend, circuit, inputs, weights, gradient=SPSA(directions=3), seed=1)
    other = gradients(backend, circuit, inputs, weights, gradient=SPSA(directions=3), seed=2)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    torch.manual_seed(5)
    drawn = gradients(backend, circuit, inputs, weights, gradient="spsa")
    torch.manual_seed(5)
    assert torch.equal(drawn[0], gradients(backend, circuit, inputs, weights, gradient="spsa")[0])


@pytest.mark.parametrize("method", [None, *GRADIENTS])
def test_empty_batches_call_nothing_and_touch_the_weights(method: str | None) -> None:
    backend = Recorder()
    weights = torch.randn(2, requires_grad=True)
    values = expectations_with_gradient(backend, SLOTS, torch.zeros(0, 2), weights, OBSERVABLES, gradient=method).values
    assert values.shape == (0, 3)
    values.sum().backward()
    assert weights.grad is not None
    assert torch.equal(weights.grad, torch.zeros(2))
    assert backend.calls == []


def test_without_need_of_a_gradient_only_the_forward_call_is_made() -> None:
    backend = Recorder()
    weights = torch.randn(2, requires_grad=True)
    with torch.no_grad():
        values = expectations_with_gradient(backend, SLOTS, torch.zeros(1, 2), weights, OBSERVABLES).values
    assert not values.requires_grad
    fixed = expectations_with_gradient(backend, SLOTS, torch.zeros(1, 2), weights.detach(), OBSERVABLES).values
    assert not fixed.requires_grad
    torch.testing.assert_close(values, fixed, rtol=0, atol=0)
    assert len(backend.calls) == 2


def test_gradients_flow_on_through_the_network_in_half_precision() -> None:
    circuit, inputs, weights = SLOTS, torch.tensor([[0.4, -1.2]], dtype=torch.bfloat16), torch.tensor([0.9, -0.5])
    scale = torch.tensor(1.0, requires_grad=True)
    found = expectations_with_gradient(Recorder(), circuit, inputs * scale, weights, OBSERVABLES).values
    exact = STATEVECTOR.expectations(circuit, inputs * scale, weights, OBSERVABLES).values
    slopes = [torch.autograd.grad(values.sum(), scale)[0] for values in (found, exact)]
    assert found.dtype == exact.dtype == torch.float32
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-2, atol=1e-2)


def test_what_is_no_rule_is_refused() -> None:
    circuit, inputs, weights = random_case(1)

    def ask(gradient: Any) -> None:
        expectations_with_gradient(STATEVECTOR, circuit, inputs, weights, (Z(0),), gradient=gradient)

    with pytest.raises(ValueError, match="unknown gradient 'parameter_shift': did you mean 'parameter-shift'"):
        ask("parameter_shift")
    with pytest.raises(TypeError, match="gradient expects a name, a rule or None, got int"):
        ask(3)
    with pytest.raises(ValueError, match="max_batch expects a positive integer, got 0"):
        ParameterShift(max_batch=0)
    with pytest.raises(ValueError, match="directions expects a positive integer, got 0"):
        SPSA(directions=0)
    with pytest.raises(ValueError, match="positive step in radians, got nan"):
        SPSA(step=float("nan"))
    with pytest.raises(ValueError, match="inputs expect finite angles"):
        expectations_with_gradient(STATEVECTOR, SLOTS, inputs[:, :2] * np.nan, weights[:2], (Z(0),), gradient="spsa")
