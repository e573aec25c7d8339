"""The shipped suite on every registered backend; and backends that lie, each caught by the check of its lie."""

import importlib.util
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from backends import BACKENDS, Backend, Capabilities, Estimate, Request, open_backend
from backends.conformance import Check, Failure, Measured, NotApplicable, checks, run, verify
from backends.conformance.suite import main
from backends.statevector import Statevector
from circuits import Circuit, PauliSum

NEEDS = {
    "qiskit": ("qiskit", "qiskit_aer", "qiskit_ibm_runtime"),
    "pennylane": ("pennylane",),
    "tensornet": ("quimb", "cotengra"),
    "dask": ("distributed",),
}
"""What has to be importable for each extra."""
VARIANTS = {
    "aer": (
        "aer",
        "aer?shots=4096",
        "aer:matrix_product_state?max_bond=2",
        "aer:density_matrix?noise=readout:0.02,depolarising_2q:0.01",
        "aer?noise=fake_manila&shots=4096",
    ),
    "dask": ("dask?workers=2",),
    "ibm": ("ibm:fake_manila",),
    "pennylane": ("pennylane", "pennylane:lightning.qubit", "pennylane:default.mixed", "pennylane?shots=4096"),
    "quimb": ("quimb:mps", "quimb:permmps?max_bond=4"),
    "quimb:exact": ("quimb:exact?plan_dir=None",),
}
"""Strings to test beside the plain name of a kind."""


@cache
def opened(spec: str) -> Backend:
    extra = BACKENDS[spec.partition(":")[0].partition("?")[0]].extra  # both of quimb have one
    missing = [name for name in NEEDS.get(extra, ()) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"backend '{spec}' needs {missing}: pip install 'hybridqlm[{extra}]'")
    return open_backend(spec)


@pytest.mark.parametrize("spec", [spec for kind in BACKENDS for spec in VARIANTS.get(kind, (kind,))])
@pytest.mark.parametrize("check", checks, ids=lambda check: check.__name__)
def test_registered_backends_keep_their_word(spec: str, check: Check) -> None:
    backend = opened(spec)
    try:
        verify(check, backend)
    except NotApplicable as reason:
        pytest.skip(str(reason))


@dataclass(frozen=True)
class Liar(Statevector):
    """The state-vector simulator with one fault."""

    kind: ClassVar[str] = "statevector"

    fault: str = ""

    @property
    def spec(self) -> str:
        return "statevector?fault=lost" if self.fault == "spec" else "statevector"

    @property
    def capabilities(self) -> Capabilities:
        honest = super().capabilities
        changes = {
            "gates": {"gates": frozenset()},
            "shots": {"exact": False, "shots": True},
            "noise": {"exact": False, "noisy": True, "state": False},
            "narrow": {"max_wires": 2},
            "state": {"state": False},
        }
        return replace(honest, **changes.get(self.fault, {}))

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        if self.fault == "wires":
            circuit = circuit.remap(tuple(reversed(range(circuit.n_wires))))
        if self.fault == "sign":
            angles = -angles
        if self.fault == "first row":
            angles = angles[:1].expand_as(angles)
        if self.fault == "single":
            angles = angles.float()
        if self.fault == "cx" and any(op.name == "cx" for op in circuit.ops):
            circuit, angles = _without_cx(circuit), angles
        estimate = super()._expectations(circuit, angles, observables, self._dropped(request))
        if self.fault == "graph":
            return replace(estimate, values=estimate.values.detach())
        if self.fault == "stderr":
            return replace(estimate, stderr=torch.full_like(estimate.values, 0.1).detach())
        if self.fault == "random":
            return replace(estimate, values=estimate.values + 1e-3 * torch.rand_like(estimate.values))
        return estimate

    def _dropped(self, request: Request) -> Request:
        return replace(request, shots=None) if self.fault == "shots" else request

    def _entropy(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str, request: Request
    ) -> Estimate:
        estimate = super()._entropy(circuit, angles, wires, kind, self._dropped(request))
        return replace(estimate, values=estimate.values / 0.6931) if self.fault == "bits" else estimate

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        bits = super()._samples(circuit, angles, wires, shots, None if self.fault == "seed" else seed)
        return bits[:1].expand_as(bits) if self.fault == "equal rows" else bits


def _without_cx(circuit: Circuit) -> Circuit:
    ops = [replace(op, wires=op.wires[::-1]) if op.name == "cx" else op for op in circuit.ops]
    return Circuit(circuit.n_wires, tuple(ops))


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("wires", "wires_are_in_order"),
        ("wires", "expectations_are_right"),
        ("sign", "every_gate_is_right"),
        ("sign", "gradients_are_right"),
        ("first row", "batches_equal_single_calls"),
        ("single", "expectations_are_right"),
        ("cx", "every_gate_is_right"),
        ("graph", "autograd_is_as_declared"),
        ("stderr", "shapes_and_errors_are_right"),
        ("random", "seeds_repeat"),
        ("bits", "entropies_are_right"),
        ("seed", "samples_follow_the_probabilities"),
        ("equal rows", "samples_follow_the_probabilities"),
        ("gates", "capabilities_are_consistent"),
        ("narrow", "capabilities_are_consistent"),
        ("shots", "shapes_and_errors_are_right"),
        ("shots", "shots_are_honest"),
        ("noise", "noise_is_as_declared"),
        ("spec", "backends_are_values"),
    ],
)
def test_each_lie_is_caught(fault: str, check: str) -> None:
    (chosen,) = (one for one in checks if one.__name__ == check)
    with pytest.raises((Failure, ValueError)) as caught:
        verify(chosen, Liar(fault=fault))
    if caught.type is ValueError:  # an adapter that stumbles over its own lie
        assert [outcome.verdict for outcome in run(Liar(fault=fault), (chosen,))] == ["fail"]


def test_the_honest_simulator_passes_what_its_liars_fail() -> None:
    outcomes = list(run(Liar(), [check for check in checks if check.__name__ != "backends_are_values"]))
    assert {outcome.verdict for outcome in outcomes} == {"pass", "skip"}
    assert sum(outcome.verdict == "pass" for outcome in outcomes) >= 22


def test_a_check_that_crashes_has_failed_and_the_table_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def crashes(_: Backend) -> Measured:
        raise KeyError("lost")

    def says_nan(_: Backend) -> Measured:
        return Measured(float("nan"), 1.0)

    first, second = run("statevector", (crashes, says_nan))
    assert (first.verdict, first.sentence) == ("fail", "KeyError: 'lost'")
    assert second.verdict == "fail"
    with pytest.raises(Failure, match="says nan expects a deviation of at most 1, got nan"):
        verify(says_nan, Statevector())


def test_the_command_prints_a_table_and_returns_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["statevector"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("statevector: exact, state, density, batch, autograd, reset; 26 wires; gates ch cx ")
    assert len(lines) == len(checks) + 2
    assert all(line.startswith(("pass ", "skip ")) for line in lines[1:-1])
    assert lines[-1] == "24 passed, 0 failed, 1 not applicable: statevector"


def test_the_command_returns_1_on_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_liar(_: object) -> Backend:
        return Liar(fault="wires")

    monkeypatch.setattr("backends.conformance.suite.open_backend", open_liar)
    assert main(["statevector"]) == 1
    out = capsys.readouterr().out
    assert "fail  wires are in order" in out
    assert "0 failed" not in out


def test_an_unknown_backend_ends_with_code_2_and_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["statevectr"])
    assert ended.value.code == 2
    assert "did you mean 'statevector'?" in capsys.readouterr().err


def test_a_remote_backend_is_not_run() -> None:
    @dataclass(frozen=True)
    class Remote(Liar):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, remote=True)

    with pytest.raises(ValueError, match="a backend on this machine, got the remote 'statevector'"):
        run(Remote())
