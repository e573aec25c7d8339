"""Backends behind ``dask.distributed``: the answers of one process, from several; what goes wrong, in one sentence."""

import os
import pickle
import signal
import threading
from collections.abc import Iterator

import pytest
import torch
from tiny_models import tiny_ids, tiny_model
from torch import Tensor

from backends import Backend, Estimate, open_backend
from backends.cluster import Cluster, ClusterError
from backends.counts import derived_seed
from backends.gradients import expectations_with_gradient
from circuits import Circuit, Input, Op, Weight, X, Z

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")

LOCAL = "dask:local?workers=2&of=statevector"
CIRCUIT = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 1)), Op("rx", (1,), (Weight(0),))))
OBSERVABLES = (Z(0), Z(1), X(0) @ X(1))
INPUTS = torch.linspace(-1.0, 2.0, 5)[:, None]
WEIGHTS = torch.tensor([0.7])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster that is reached by its address: two workers, here in threads of this process, which starts at once."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


def train(backend: str | Backend) -> tuple[list[float], list[Tensor]]:
    """A few steps of a small language model: its losses, and its parameters after them."""
    model = tiny_model(backend="statevector").use_backend(backend).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    torch.manual_seed(5)
    losses = []
    for step in range(3):
        ids = tiny_ids(batch=3, seed=step)
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, [parameter.detach().clone() for parameter in model.parameters()]


def near(address: str, of: str = "statevector") -> Backend:
    return open_backend(f"dask:{address}?of={of}")


def asked(backend: Backend) -> dict[str, Estimate]:
    """Every kind of result of five samples in double precision, with the gradients of those that are real."""
    inputs, weights = INPUTS.double().requires_grad_(), WEIGHTS.double().requires_grad_()
    data = CIRCUIT, inputs, weights
    pair = CIRCUIT, inputs, None
    answers = {
        "expectations": backend.expectations(*data, OBSERVABLES),
        "along": backend.expectations(*data, OBSERVABLES, after=(1, 3)),
        "probabilities": backend.probabilities(*data, wires=(1,)),
        "state": backend.state(*data),
        "density": backend.density(*data, wires=(1,)),
        "entropy": backend.entropy(*data, wires=(0,)),
        "fidelity": backend.fidelity(*pair, inputs.flip(0), weights_a=weights, weights_b=weights),
        "gram": backend.fidelity(*pair, inputs[:3], weights_a=weights, weights_b=weights, gram=True),
    }
    for name, answer in dict(answers).items():
        slopes = torch.autograd.grad(answer.values.abs().pow(3).sum(), (inputs, weights), allow_unused=True)
        answers |= {f"{name}, slope {k}": Estimate(slope) for k, slope in enumerate(slopes) if slope is not None}
    return answers


def assert_equal_estimates(found: Estimate, expected: Estimate, atol: float = 0.0) -> None:
    assert found.shots == expected.shots
    for name in ("values", "stderr", "truncation_error", "infidelity"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=atol, rtol=0, msg=name)


def test_every_result_and_gradient_is_that_of_one_process(address: str) -> None:
    found, expected = asked(near(address)), asked(open_backend("statevector"))
    assert found.keys() == expected.keys()
    assert sum("slope" in name for name in found) >= 14
    for name, estimate in found.items():
        assert_equal_estimates(estimate, expected[name], atol=1e-12)


def test_counted_shots_of_the_parts_follow_the_seed(address: str) -> None:
    pytest.importorskip("qiskit_aer")
    backend, inner = near(address, "aer?shots=50"), open_backend("aer?shots=50")
    found = backend.expectations(CIRCUIT, INPUTS, WEIGHTS, OBSERVABLES, seed=7)
    assert_equal_estimates(backend.expectations(CIRCUIT, INPUTS, WEIGHTS, OBSERVABLES, seed=7), found)
    for number, rows in enumerate((slice(0, 3), slice(3, 5))):
        part = inner.expectations(CIRCUIT, INPUTS[rows], WEIGHTS, OBSERVABLES, seed=derived_seed(7, number))
        assert torch.equal(part.values, found.values[rows])
        assert torch.equal(part.stderr, found.stderr[rows])
    assert found.shots == 100  # of two bases
    single = backend.expectations(CIRCUIT, INPUTS[:1], WEIGHTS, OBSERVABLES, seed=7)
    assert_equal_estimates(single, inner.expectations(CIRCUIT, INPUTS[:1], WEIGHTS, OBSERVABLES, seed=7))


def test_without_a_seed_torch_is_asked_for_one(address: str) -> None:
    backend = near(address)
    bits = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        bits.append(backend.samples(CIRCUIT, INPUTS[:1].expand(2, 1), WEIGHTS, shots=60).values)
    assert torch.equal(bits[0], bits[1])
    assert not torch.equal(bits[0], bits[2])
    assert not torch.equal(bits[0][0], bits[0][1])  # equal samples, in two parts


def test_what_was_truncated_is_told(address: str) -> None:
    pytest.importorskip("qiskit_aer")
    spec = "aer:matrix_product_state?max_bond=1"
    found = near(address, spec).expectations(CIRCUIT, INPUTS, WEIGHTS, OBSERVABLES)
    assert (found.infidelity == 1).all()
    assert_equal_estimates(found, open_backend(spec).expectations(CIRCUIT, INPUTS, WEIGHTS, OBSERVABLES))


def test_parameter_shifts_are_divided_where_nothing_is_differentiable(address: str) -> None:
    pytest.importorskip("qiskit_aer")
    slopes = []
    for backend in (near(address, "aer"), open_backend("statevector")):
        inputs, weights = INPUTS.double().requires_grad_(), WEIGHTS.double().requires_grad_()
        values = expectations_with_gradient(backend, CIRCUIT, inputs, weights, OBSERVABLES).values
        slopes.append(torch.autograd.grad(values.pow(3).sum(), (inputs, weights)))
    torch.testing.assert_close(*slopes, atol=1e-10, rtol=0)


def test_training_behind_aer_is_that_of_one_process(address: str) -> None:
    pytest.importorskip("qiskit_aer")
    found, expected = train(near(address, "aer")), train("aer")
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_training_and_a_lost_worker_in_processes_of_their_own() -> None:
    found, expected = train(LOCAL), train("statevector")
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert found[0][0] > found[0][-1]

    def slow(number: int) -> tuple[int, int]:
        import os
        import time

        time.sleep(1.0)
        return number, os.getpid()

    cluster = open_backend(LOCAL)._cluster  # pyright: ignore[reportAttributeAccessIssue] -- an adapter's own
    first = cluster.run(slow, [(0,), (1,)])
    processes = {process for _, process in first}
    assert [number for number, _ in first] == [0, 1]
    assert len(processes) == 2
    assert os.getpid() not in processes
    lost = first[0][1]
    killing = threading.Timer(0.4, os.kill, (lost, signal.SIGKILL))
    killing.start()
    again = cluster.run(slow, [(0,), (1,)])
    killing.join()
    assert [number for number, _ in again] == [0, 1]
    assert lost not in {process for _, process in again}


def test_an_error_of_a_worker_is_its_own_sentence(address: str) -> None:
    with pytest.raises(ValueError, match=r"^backend 'statevector' expects shots=None, got 9: .{,60}$"):
        near(address).expectations(CIRCUIT, INPUTS, WEIGHTS, OBSERVABLES, shots=9)


def test_a_gradient_is_differentiated_once(address: str) -> None:
    inputs = INPUTS.clone().requires_grad_()
    values = near(address).expectations(CIRCUIT, inputs, WEIGHTS, OBSERVABLES).values
    (slope,) = torch.autograd.grad(values.sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        slope.sum().backward()


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("dask:somewhere", "expects 'local' or a scheduler's address, got 'somewhere'"),
        ("dask?workers=0", r"positive workers or None \(all\), got 0"),
        ("dask?workers=two", "expects int"),
        ("dask?of=statevectr", "did you mean 'statevector'"),
        ("dask?of=aer?shots=0", "positive shots"),
        ("dask?off=aer", "did you mean 'of'"),
        ("dask?of=dask", "expects a backend that computes, got 'dask' again"),
        ("dask?of=ibm:ibm_torino", "expects a simulator, got the remote 'ibm:ibm_torino'"),
    ],
)
def test_bad_strings(spec: str, sentence: str) -> None:
    pytest.importorskip("qiskit_aer")
    with pytest.raises(ValueError, match=sentence):
        open_backend(spec)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.extras.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"'dask' expects the package 'distributed'.*pip install 'hybridqlm\[dask\]'"):
        open_backend("dask")


def test_its_string_opens_an_equal_one() -> None:
    pytest.importorskip("qiskit_aer")
    backend = open_backend("dask:tcp://10.0.0.1:8786?of=aer:density_matrix?shots=100%26noise=readout:0.02&workers=3")
    assert backend.of == "aer:density_matrix?shots=100&noise=readout:0.02"  # pyright: ignore[reportAttributeAccessIssue]
    assert backend.capabilities == open_backend(backend.of).capabilities  # pyright: ignore[reportAttributeAccessIssue]
    for copy in (open_backend(backend.spec), pickle.loads(pickle.dumps(backend))):
        assert copy == backend
        assert hash(copy) == hash(backend)


def test_who_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.cluster._SECONDS", 0.3)
    with pytest.raises(ClusterError, match=r"^backend 'dask' expects a scheduler at '127\.0\.0\.1:9', got no answer"):
        Cluster("127.0.0.1:9", None).size()
    here = {"processes": False, "protocol": "tcp", "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(n_workers=0, **here) as empty:
        cluster = Cluster(empty.scheduler_address, None)
        with pytest.raises(ClusterError, match=r"expects a worker at '.{,60}', got none in 0\.3 s"):
            cluster.size()
        cluster._connected().close()


def test_a_fork_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = near(address)._cluster  # pyright: ignore[reportAttributeAccessIssue] -- an adapter's own
    assert cluster.size() == 2
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(ClusterError, match="start processes by spawn"):
        cluster.size()
    monkeypatch.undo()
    assert cluster.size() == 2
