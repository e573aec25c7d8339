"""Checks of values: every kind of result against the suite's dense oracle. Three wires, batches of three."""

import math

import numpy as np
import torch

from backends.base import Backend
from backends.conformance import cases, dense
from backends.conformance.judge import (
    NOISE,
    SHOTS,
    Measured,
    NotApplicable,
    compare,
    compare_errors,
    compare_matrices,
    normal_bound,
    numpy,
    request,
    require,
    worst,
)
from backends.gradients import expectations_with_gradient
from circuits import Circuit, Input, Op, Weight, X, Z

ALL_WIRES = (0, 1, 2)


def expectations_are_right(backend: Backend) -> Measured:
    """A circuit with inputs, shared weights, products, numbers and a global phase, in both precisions."""
    circuit = cases.mixed(backend.capabilities)
    findings = []
    for dtype in (torch.float64, torch.float32):
        inputs, weights = cases.data(circuit, 3, dtype)
        estimate = backend.expectations(circuit, inputs, weights, cases.OBSERVABLES, **request(backend))
        truth = dense.expectations(circuit, *cases.arrays(inputs, weights), cases.OBSERVABLES)
        findings.append(compare(backend, estimate, truth))
    return worst(*findings)


def every_gate_is_right(backend: Backend) -> Measured:
    """Each declared gate, on wires in reversed order, shows every entry of its matrix to some observable."""
    findings = []
    for name in sorted(backend.capabilities.gates):
        circuit = cases.around(name, backend.capabilities)
        inputs, weights = cases.data(circuit, 2)
        estimate = backend.expectations(circuit, inputs, weights, cases.OBSERVABLES, **request(backend))
        truth = dense.expectations(circuit, *cases.arrays(inputs, weights), cases.OBSERVABLES)
        findings.append(compare(backend, estimate, truth))
    require(findings, "a backend expects to declare at least one gate, got none.")
    return worst(*findings)


def wires_are_in_order(backend: Backend) -> Measured:
    """|110> is read as such by every result: wire 0 first and most significant, wires in the caller's order."""
    circuit = cases.basis_state(backend.capabilities, "110")
    require(circuit.ops, "a backend expects one of the gates x, y, rx, ry, got none of them.")
    asked = request(backend)
    expectations = backend.expectations(circuit, None, None, (Z(0), Z(1), Z(2), Z(1) @ Z(2)), **asked)
    probabilities = backend.probabilities(circuit, wires=(2, 0), **asked)
    density = backend.density(circuit, wires=(2, 0), **asked)
    bits = backend.samples(circuit, wires=(2, 0, 1), shots=200, seed=1).values
    majority = numpy(bits).mean(1).round()
    require(np.array_equal(majority, [[0, 1, 1]]), f"samples of wires (2, 0, 1) of |110> expect 0, 1, 1: {majority}.")
    pure = np.zeros((1, 4, 4))
    pure[0, 1, 1] = 1
    return worst(
        compare(backend, expectations, [[-1, -1, 1, -1]]),
        compare(backend, probabilities, [[0, 1, 0, 0]]),
        compare_matrices(backend, density, pure),
    )


def probabilities_are_right(backend: Backend) -> Measured:
    """Born probabilities of all wires and of some, which sum to 1."""
    circuit = cases.mixed(backend.capabilities)
    inputs, weights = cases.data(circuit, 3)
    rhos = dense.densities(circuit, *cases.arrays(inputs, weights))
    findings = []
    for wires in (None, (2, 1)):
        estimate = backend.probabilities(circuit, inputs, weights, wires=wires, **request(backend))
        total = np.abs(numpy(estimate.values).sum(1) - 1).max()
        require(total < 1e-5, f"probabilities expect to sum to 1, got a deviation of {total:.1e}.")
        truth = [dense.reduced(rho, wires or ALL_WIRES).diagonal().real for rho in rhos]
        findings.append(compare(backend, estimate, truth))
    return worst(*findings)


def states_are_right(backend: Backend) -> Measured:
    """The state vector, up to its phase; refused where it is not declared."""
    circuit = cases.mixed(backend.capabilities)
    inputs, weights = cases.data(circuit, 3)
    if not backend.capabilities.state:
        try:
            backend.state(circuit, inputs, weights)
        except ValueError:
            raise NotApplicable("no state is declared, and asking for one is refused") from None
        require(False, "state expects a ValueError where it is not declared, got an answer.")
    estimate = backend.state(circuit, inputs, weights)
    require(estimate.values.is_complex(), f"a state expects a complex dtype, got {estimate.values.dtype}.")
    state = numpy(estimate.values)
    truth = dense.densities(circuit, *cases.arrays(inputs, weights))
    errors = np.abs(state[:, :, None] * state[:, None, :].conj() - truth)
    return compare_errors(backend, estimate, errors.max(2), 1.0, NOISE)


def densities_are_right(backend: Backend) -> Measured:
    """Reduced density matrices on wires in the caller's order: Hermitian, of trace 1, without negative eigenvalues."""
    circuit = cases.mixed(backend.capabilities)
    inputs, weights = cases.data(circuit, 3)
    rhos = dense.densities(circuit, *cases.arrays(inputs, weights))
    estimate = backend.density(circuit, inputs, weights, wires=(2, 0), **request(backend))
    values = numpy(estimate.values)
    require(np.abs(values - values.conj().swapaxes(1, 2)).max() < 1e-5, "a density matrix expects to be Hermitian.")
    require(np.abs(np.trace(values, axis1=1, axis2=2) - 1).max() < 1e-5, "a density matrix expects a trace of 1.")
    lowest = np.linalg.eigvalsh(values).min()
    require(lowest > -1e-5, f"a density matrix expects no negative eigenvalue, got {lowest:.1e}.")
    return compare_matrices(backend, estimate, [dense.reduced(rho, (2, 0)) for rho in rhos])


def entropies_are_right(backend: Backend) -> Measured:
    """0 for a product, log 2 at the Bell cut in both kinds, and the oracle's value for a generic state."""
    product, bell = cases.basis_state(backend.capabilities, "110"), cases.bell(backend.capabilities)
    generic = cases.mixed(backend.capabilities)
    allowance = 0.6  # nats that noise may add
    findings = []
    for kind in ("von_neumann", "renyi2"):
        asked = request(backend)
        low = backend.entropy(product, wires=(1,), kind=kind, **asked)
        findings.append(_entropy(backend, low, [0.0], allowance))
        if bell:
            high = backend.entropy(bell, wires=(1,), kind=kind, **asked)
            findings.append(_entropy(backend, high, [math.log(2)], allowance))
            gap = float((high.values - low.values).min())
            require(gap > 0.2, f"entropy expects a Bell pair above a product state by 0.2 nats, got {gap:.2f}.")
        inputs, weights = cases.data(generic, 2)
        rhos = dense.densities(generic, *cases.arrays(inputs, weights))
        estimate = backend.entropy(generic, inputs, weights, wires=(2,), kind=kind, **asked)
        truth = [dense.entropy(dense.reduced(rho, (2,)), kind) for rho in rhos]
        findings.append(_entropy(backend, estimate, truth, allowance))
    return worst(*findings)


def _entropy(backend: Backend, estimate, truth: list[float], allowance: float) -> Measured:
    """Near a product state entropies from shots are skewed, -p log p being steep at 0: 0.02 nats are allowed for it."""
    errors = np.abs(numpy(estimate.values) - truth)
    if backend.capabilities.shots:
        errors = np.maximum(errors - 0.02, 0)
    return compare_errors(backend, estimate, errors, 1.0, allowance)


def fidelities_are_right(backend: Backend) -> Measured:
    """K(x, x) = 1, a Gram matrix equals its pairs, and pairs equal the oracle's overlaps."""
    circuit = cases.mixed(backend.capabilities)
    inputs, weights = cases.data(circuit, 3)
    asked = request(backend)
    other = inputs.flip(0) + 0.2
    both = {"weights_a": weights, "weights_b": weights}
    pairs = backend.fidelity(circuit, inputs, circuit, other, **both, **asked)
    gram = backend.fidelity(circuit, inputs, circuit, torch.cat((other, inputs[:1])), **both, gram=True, **asked)
    left = dense.densities(circuit, *cases.arrays(inputs, weights))
    right = dense.densities(circuit, *cases.arrays(torch.cat((other, inputs[:1])), weights))
    truth = np.einsum("xij,yji->xy", left, right).real
    findings = [compare(backend, pairs, truth.diagonal()), compare(backend, gram, truth)]
    same = backend.fidelity(circuit, inputs, circuit, inputs, **both, **asked)
    return worst(*findings, compare(backend, same, np.ones(3)))


def resets_are_right(backend: Backend) -> Measured:
    """A wire thrown away halfway and used again; refused where resets are not declared."""
    circuit = cases.with_reset(backend.capabilities)
    inputs, weights = cases.data(circuit, 3)
    if not backend.capabilities.reset:
        try:
            backend.expectations(circuit, inputs, weights, cases.OBSERVABLES, **request(backend))
        except ValueError:
            raise NotApplicable("no reset is declared, and a circuit with one is refused") from None
        require(False, "a circuit with a reset expects a ValueError where none is declared, got an answer.")
    asked = request(backend, 1024)  # simulators run circuits with resets shot by shot
    estimate = backend.expectations(circuit, inputs, weights, cases.OBSERVABLES, **asked)
    rhos = dense.densities(circuit, *cases.arrays(inputs, weights))
    truth = [[dense.expectation(rho, observable) for observable in cases.OBSERVABLES] for rho in rhos]
    density = backend.density(circuit, inputs, weights, wires=(1, 0), **asked)
    reduced = [dense.reduced(rho, (1, 0)) for rho in rhos]
    return worst(compare(backend, estimate, truth), compare_matrices(backend, density, reduced))


def values_along_are_right(backend: Backend) -> Measured:
    """``after=`` equals running each prefix by itself."""
    circuit = cases.mixed(backend.capabilities)
    inputs, weights = cases.data(circuit, 2)
    times = (0, 3, 3, len(circuit.ops))
    estimate = backend.expectations(circuit, inputs, weights, (Z(0), X(2)), after=times, **request(backend))
    arrays = cases.arrays(inputs, weights)
    truth = [dense.expectations(circuit.prefix(time), *arrays, (Z(0), X(2))) for time in times]
    return compare(backend, estimate, np.stack(truth, 1))


def gradients_are_right(backend: Backend) -> Measured:
    """Of the default method, against central differences of the oracle, for inputs and a shared, scaled weight."""
    circuit = cases.keep(
        backend.capabilities,
        Op("ry", (0,), (Input(0),)),
        Op("rx", (1,), (Weight(0, scale=0.5),)),
        Op("cx", (0, 1)),
        Op("ry", (1,), (Weight(0),)),
    )
    if not (circuit.n_inputs or circuit.n_weights):
        raise NotApplicable("neither ry nor rx is declared")
    inputs, weights = (tensor.requires_grad_() for tensor in cases.data(circuit, 2))
    estimate = expectations_with_gradient(backend, circuit, inputs, weights, _ODD_AND_EVEN, **request(backend))
    require(not estimate.stderr.requires_grad, "stderr expects no gradient, got one.")
    gradients = torch.autograd.grad(estimate.values.sum(), (inputs, weights), materialize_grads=True)
    slopes = np.array([_difference(circuit, inputs, weights, k) for k in range(inputs.numel() + weights.numel())])
    found = np.concatenate([numpy(gradient).ravel() for gradient in gradients])
    if backend.capabilities.noisy:  # which shrinks gradients, but must not turn them
        cosine = found @ slopes / (np.linalg.norm(found) * np.linalg.norm(slopes))
        return Measured(float(1 - cosine), 0.2, "1 - cosine")
    largest = float(np.abs(found - slopes).max())
    if not backend.capabilities.shots:
        return Measured(largest, 1e-9)
    # (f+ - f-) / 2 has a variance of at most 1 / (2 shots); 2 samples, 2 observables, squared scales 1 + 0.25.
    return Measured(largest / math.sqrt(2 * 2 * 1.25 / (2 * SHOTS)), normal_bound(slopes.size), "stderr")


_ODD_AND_EVEN = (Z(1), X(0) @ X(1))
"""Under a sign change of all angles of the circuit above, one keeps its value and the other does not."""


def _difference(circuit: Circuit, inputs: torch.Tensor, weights: torch.Tensor, k: int) -> float:
    """The oracle's central difference with respect to entry k of the inputs, then the weights."""
    values = []
    for step in (1e-5, -1e-5):
        x, w = (array.copy() for array in cases.arrays(inputs, weights))
        target, index = (x.reshape(-1), k) if k < x.size else (w, k - x.size)
        target[index] += step
        values.append(float(dense.expectations(circuit, x, w, _ODD_AND_EVEN).sum()))
    return (values[0] - values[1]) / 2e-5


def autograd_is_as_declared(backend: Backend) -> Measured:
    """Where declared, ``values`` of every result carry a graph; elsewhere none does."""
    circuit = cases.mixed(backend.capabilities)
    inputs, weights = cases.data(circuit, 2)
    inputs.requires_grad_()
    weights.requires_grad_()
    asked = request(backend)
    results = {
        "expectations": backend.expectations(circuit, inputs, weights, (Z(0),), **asked),
        "probabilities": backend.probabilities(circuit, inputs, weights, wires=(0,), **asked),
        "entropy": backend.entropy(circuit, inputs, weights, wires=(0,), **asked),
    }
    for name, estimate in results.items():
        require(
            estimate.values.requires_grad == backend.capabilities.autograd,
            f"{name} with autograd={backend.capabilities.autograd} expects requires_grad to say the same, got "
            f"{estimate.values.requires_grad}.",
        )
        require(not estimate.stderr.requires_grad, f"stderr of {name} expects no gradient, got one.")
    return Measured(0.0, 1.0)


CHECKS = (
    expectations_are_right,
    every_gate_is_right,
    wires_are_in_order,
    probabilities_are_right,
    states_are_right,
    densities_are_right,
    entropies_are_right,
    fidelities_are_right,
    resets_are_right,
    values_along_are_right,
    gradients_are_right,
    autograd_is_as_declared,
)
