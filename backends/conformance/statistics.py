"""Checks of chance and of the machine: seeds, shots, standard errors, noise, and whether calls stay on the machine."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

from backends.base import Backend
from backends.conformance import cases, dense
from backends.conformance.judge import SHOTS, Failure, Measured, NotApplicable, normal_bound, numpy, request, require
from circuits import Circuit, Op, X, Z


def samples_follow_the_probabilities(backend: Backend) -> Measured:
    """Counts of all outcomes against the Born probabilities; the same seed repeats them, another does not."""
    circuit = cases.mixed(backend.capabilities)
    inputs, weights = cases.data(circuit, 2)
    draws = [backend.samples(circuit, inputs, weights, shots=SHOTS, seed=seed).values for seed in (1, 1, 2)]
    require(draws[0].dtype == torch.uint8 and bool((draws[0] <= 1).all()), "samples expect bits in uint8.")
    require(torch.equal(draws[0], draws[1]), "samples of one seed expect to repeat, got others.")
    require(not torch.equal(draws[0], draws[2]), "samples of two seeds expect to differ, got the same.")
    require(not torch.equal(draws[0][0], draws[0][1]), "samples of two batch entries expect to differ, got the same.")
    outcomes = numpy(draws[0]) @ [4, 2, 1]
    counts = np.stack([(outcomes == k).sum(1) for k in range(8)], 1)
    rhos = dense.densities(circuit, *cases.arrays(inputs, weights))
    p = np.array([rho.diagonal().real for rho in rhos])
    if backend.capabilities.noisy:
        distance = float(np.abs(counts / SHOTS - p).sum(1).max() / 2)
        return Measured(distance, 0.35, "total variation")
    return Measured(
        float((np.abs(counts - SHOTS * p) / np.sqrt(SHOTS * p * (1 - p) + 25)).max()), normal_bound(p.size), "stderr"
    )


def shots_are_honest(backend: Backend) -> Measured:
    """The spread of 64 equal batch entries is the declared standard error, which halves with four times the shots.

    A backend that counts no shots says so: a request for shots is refused, or counted after all.
    """
    circuit = _tilted(backend)
    if not backend.capabilities.shots:
        try:
            estimate = backend.expectations(circuit, None, None, (Z(0),), shots=SHOTS, seed=0)
        except ValueError:
            raise NotApplicable("no shots are counted, and a request for some is refused") from None
        counted = estimate.shots == SHOTS and bool((estimate.stderr > 0).all())
        require(counted, "a request for shots expects a refusal, or shots and a standard error in the answer.")
        return Measured(0.0, 1.0)
    wide = torch.zeros(64, 0)
    few = backend.expectations(circuit, wide, None, (Z(0), Z(1)), shots=500, seed=3)
    many = backend.expectations(circuit, wide, None, (Z(0), Z(1)), shots=2000, seed=4)
    require(few.shots == 500 and many.shots == 2000, f"shots expect 500 and 2000, got {few.shots} and {many.shots}.")
    ratio = numpy(few.stderr).mean() / numpy(many.stderr).mean()
    require(1.8 < ratio < 2.2, f"four times the shots expect half the standard error, got a ratio of {ratio:.2f}.")
    spread = numpy(few.values).std(0, ddof=1) / np.sqrt((numpy(few.stderr) ** 2).mean(0))
    # The deviation of 64 normal values has a relative error of 1 / sqrt(126).
    return Measured(float(np.abs(spread - 1).max() * np.sqrt(126)), normal_bound(2) + 1, "sigma")


def seeds_repeat(backend: Backend) -> Measured:
    """One seed gives one answer; without shots every call does; with shots another seed gives another answer."""
    circuit = _tilted(backend)

    def values(seed: int) -> Any:
        asked = {**request(backend), "seed": seed}
        return numpy(backend.expectations(circuit, None, None, (Z(0), X(1)), **asked).values)

    deviation = float(np.abs(values(1) - values(1)).max())
    if backend.capabilities.shots:
        require(not np.array_equal(values(1), values(2)), "two seeds expect two answers, got one.")
    return Measured(deviation, 1e-12)


def noise_is_as_declared(backend: Backend) -> Measured:
    """A noisy backend reports the global purity beside an entropy, below 1; a clean one reports none, or 1."""
    bell = cases.bell(backend.capabilities)
    if bell is None:
        raise NotApplicable("h or cx is not declared")
    estimate = backend.entropy(bell, wires=(0,), kind="renyi2", **request(backend))
    if not backend.capabilities.noisy:
        if estimate.purity is None:
            return Measured(0.0, 1.0)
        return Measured(float((estimate.purity - 1).abs().max()), 1e-5 if not backend.capabilities.shots else 0.2)
    if estimate.purity is None or estimate.purity_stderr is None:
        raise Failure("entropy of a noisy backend expects the global purity and its error, got none.")
    require(estimate.purity.shape == (1,), f"purity expects shape (1,), got {tuple(estimate.purity.shape)}.")
    purity = float(estimate.purity)
    require(0.125 <= purity < 1, f"the purity of three noisy wires expects 1/8 to below 1, got {purity:.3f}.")
    return Measured(purity + 2 * float(estimate.purity_stderr), 1.0, "purity")


def calls_stay_on_the_machine(backend: Backend) -> Measured:
    """A backend that is not declared remote opens no connection while it runs."""
    if backend.capabilities.remote:
        raise NotApplicable("remote is declared")
    with _no_network():
        values = backend.expectations(_tilted(backend), None, None, (Z(0),), **request(backend)).values
    return Measured(0.0 if bool(torch.isfinite(values).all()) else np.nan, 1.0)


@contextmanager
def _no_network() -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise Failure("a backend that is not remote expects no connection, got one.")

    with mock.patch.object(socket.socket, "connect", refuse), mock.patch.object(socket.socket, "connect_ex", refuse):
        yield


def _tilted(backend: Backend) -> Circuit:
    """Outcomes that are neither certain nor fair."""
    turns = ("ry", "rx", "h", "sx")
    name = next((turn for turn in turns if turn in backend.capabilities.gates), None)
    require(name is not None, f"a backend expects one of the gates {turns}, got none of them.")
    slots = (1.1,) if name in ("ry", "rx") else ()
    return Circuit(3, tuple(Op(str(name), (wire,), slots) for wire in range(3)))


CHECKS = (
    samples_follow_the_probabilities,
    shots_are_honest,
    seeds_repeat,
    noise_is_as_declared,
    calls_stay_on_the_machine,
)
