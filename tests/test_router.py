"""The router: what it counts, what it learns, and that its update is what its formula says.

Axis legend: b batch, l sequence, d model width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from backends.base import Request
from backends.estimate import Estimate
from backends.statevector import Statevector
from backends.validate import Call
from circuits import Circuit, PauliSum
from qlm.blocks.base import Context
from qlm.blocks.quantum_router import QuantumRouter, QuantumRouterConfig
from qlm.controls import CircuitCore


@dataclass(frozen=True)
class Counting(Statevector):
    """The state-vector simulator, which writes down the batch of each call."""

    expected: list[int] = field(default_factory=list, init=False, compare=False, repr=False)
    entropies: list[int] = field(default_factory=list, init=False, compare=False, repr=False)

    def _expectations_of(self, call: Call, observables: tuple[PauliSum, ...], request: Request) -> Estimate:
        self.expected.append(len(call))
        return super()._expectations_of(call, observables, request)

    def _entropy(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str, request: Request
    ) -> Estimate:
        self.entropies.append(len(angles))
        return super()._entropy(circuit, angles, wires, kind, request)


def router(backend: str | Statevector = "statevector", d_model: int = 8, **changes: Any) -> QuantumRouter:
    """A small router whose predicted hardness spreads over (0, 1)."""
    torch.manual_seed(0)
    block = QuantumRouter(d_model, QuantumRouterConfig(**{"n_wires": 2, "depth": 1, **changes}), backend)
    torch.nn.init.normal_(block.predict.weight)
    torch.nn.init.zeros_(block.predict.bias)
    torch.nn.init.constant_(block.threshold, 0.5)
    return block


@pytest.mark.parametrize("n_wires", [2, 3, 4])
@pytest.mark.parametrize("budget", [0.1, 0.5])
def test_a_fresh_router_predicts_the_page_value_and_routes_its_budget(n_wires: int, budget: float) -> None:
    torch.manual_seed(0)
    shares, means = [], []
    for _ in range(20):
        block = QuantumRouter(64, QuantumRouterConfig(n_wires=n_wires, depth=2, budget=budget)).eval()
        hidden = torch.randn(4, 64, 64)
        shares.append(int(block(hidden, Context()).routed.sum()) / 256)
        means.append(float(torch.logit(predicted(block, hidden)).mean()))
    assert sum(shares) / 20 == pytest.approx(budget, abs=0.08)
    m, n = 2 ** (n_wires // 2), 2 ** (n_wires - n_wires // 2)
    page = (sum(1 / k for k in range(n + 1, m * n + 1)) - (m - 1) / (2 * n)) / math.log(m)
    assert sum(means) / 20 == pytest.approx(math.log(page / (1 - page)), abs=0.1)


def predicted(block: QuantumRouter, hidden: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.sigmoid(block.predict(block.norm(hidden))).squeeze(-1)


@pytest.mark.parametrize("training", [False, True])
def test_routed_and_explored_tokens_execute_two_circuits_each(training: bool) -> None:
    backend = Counting()
    block = router(backend, exploration=0.3).train(training)
    hidden = torch.randn(4, 25, 8)
    output = block(hidden, Context())
    report = block.report
    assert report is not None
    assert output.routed is not None
    n_routed = int((predicted(block, hidden) > 0.5).sum())
    assert 10 < n_routed < 90
    assert int(output.routed.sum()) == n_routed
    assert report.tokens == 100
    assert report.routed_share == pytest.approx(n_routed / 100)
    explored = round(100 * report.explored_share)
    assert (explored > 0) is training
    assert sum(backend.expected) == sum(backend.entropies) == n_routed + explored
    assert report.executions == sum(backend.expected) + sum(backend.entropies)


def test_exploration_is_the_stated_share_of_all_tokens() -> None:
    block = router(exploration=0.05).train()
    torch.nn.init.constant_(block.threshold, 2.0)  # above every prediction: nothing is routed
    block(torch.randn(4, 1000, 8), Context())
    report = block.report
    assert report is not None
    assert report.routed_share == 0
    assert abs(report.explored_share - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 4000)
    assert report.executions == 2 * round(4000 * report.explored_share)


@pytest.mark.parametrize("training", [False, True])
def test_padding_is_never_routed_nor_explored(training: bool) -> None:
    backend = Counting()
    block = router(backend, exploration=1.0).train(training)
    torch.nn.init.constant_(block.threshold, -1.0)  # below every prediction: every real token is routed
    mask = torch.tensor([[False, False, True, True, True], [True] * 5, [False] * 5])
    output = block(torch.randn(3, 5, 8), Context(mask))
    assert output.routed is not None
    assert torch.equal(output.routed, mask)
    assert block.report is not None
    assert block.report.tokens == sum(backend.expected) == sum(backend.entropies) == int(mask.sum())
    assert block.report.executions == 2 * int(mask.sum())
    assert block.report.routed_share == 1


def test_nothing_routed_still_touches_every_weight() -> None:
    """Distributed training waits for the gradient of each parameter on each process."""
    backend = Counting()
    block = router(backend, exploration=0.0).train()
    torch.nn.init.constant_(block.threshold, 2.0)
    output = block(torch.randn(2, 5, 8), Context())
    assert output.loss is not None
    (output.hidden.sum() + output.loss).backward()
    assert backend.expected == backend.entropies == []
    assert all(parameter.grad is not None for parameter in block.parameters())


@pytest.mark.parametrize("mode", ["circuit", "twin", "separable", "frozen"])
def test_update_is_the_core_on_routed_tokens_and_the_fast_path_on_the_rest(mode: str) -> None:
    block = router(quantum=mode).double().eval()
    hidden = torch.randn(2, 20, 8, dtype=torch.float64)
    with torch.no_grad():
        output = block(hidden, Context())
        angles = math.pi * torch.tanh(block.encode(block.norm(hidden)))
        routed = predicted(block, hidden) > 0.5
        assert 0 < int(routed.sum()) < routed.numel()
        assert block.core is not None
        slow = block.core(angles.flatten(0, 1)).unflatten(0, (2, 20))
        features = torch.where(routed[..., None], slow, torch.tanh(block.fast(angles / math.pi)))
        hardness = block.core.hardness(angles.flatten(0, 1)).unflatten(0, (2, 20))
    torch.testing.assert_close(output.hidden, hidden + block.decode(features).detach(), atol=1e-12, rtol=0)
    assert output.hardness is not None
    expected = torch.where(routed, hardness, predicted(block, hidden))
    torch.testing.assert_close(output.hardness, expected, atol=1e-12, rtol=0)
    assert float(output.hardness.min()) >= 0
    assert float(output.hardness.max()) <= 1
    assert block.report is not None
    assert block.report.mean_hardness == pytest.approx(float(expected.mean()))
    runs = {"circuit": 2, "frozen": 2, "separable": 1, "twin": 0}[mode]  # the entropy of a product state is known
    assert block.report.executions == runs * int(routed.sum())


def test_off_hands_on_hardness_one_and_runs_nothing() -> None:
    block = router(quantum="off").eval()
    hidden = torch.randn(2, 5, 8)
    output = block(hidden, Context())
    assert output.hardness is not None
    assert torch.equal(output.hardness, torch.ones(2, 5))
    assert output.routed is None
    assert block.report is not None
    assert (block.report.executions, block.report.routed_share) == (0, 0.0)
    features = torch.tanh(block.fast(block.angles(hidden) / math.pi))
    torch.testing.assert_close(output.hidden, hidden + block.decode(features))


def test_threshold_gradient_is_a_sigmoids_slope() -> None:
    """d update / d theta = sum_t -sigma'((s - theta)/T)/T (core - fast) over visited tokens; the value has no sigma."""
    block = router(exploration=0.0, budget_weight=0.0, hardness_weight=0.0).double().train()
    hidden = torch.randn(1, 12, 8, dtype=torch.float64)
    cotangent = torch.randn_like(hidden)
    output = block(hidden, Context())
    (output.hidden * cotangent).sum().backward()
    with torch.no_grad():
        score, angles = predicted(block, hidden)[0], block.angles(hidden)[0]
        assert block.core is not None
        delta = block.core(angles) - torch.tanh(block.fast(angles / math.pi))
        sigma = torch.sigmoid((score - 0.5) / 0.05)
        slope = -sigma * (1 - sigma) / 0.05
        each = slope * ((delta @ block.decode.weight.T) * cotangent[0]).sum(-1)
    assert block.threshold.grad is not None
    assert float(block.threshold.grad) == pytest.approx(float(each[score > 0.5].sum()), abs=1e-12)
    block.eval()
    torch.testing.assert_close(block(hidden, Context()).hidden, output.hidden, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("budget", "sign"), [(0.01, -1), (1.0, 1)])
def test_budget_pushes_the_threshold(budget: float, sign: int) -> None:
    """A share above the budget raises the threshold (descent follows minus the gradient), one below lowers it."""
    block = router(budget=budget, hardness_weight=0.0).train()
    output = block(torch.randn(2, 50, 8), Context())
    share = int(output.routed.sum()) / 100
    assert output.loss is not None
    assert float(output.loss.detach()) == pytest.approx((share - budget) ** 2, rel=1e-5)
    output.loss.backward()
    assert block.threshold.grad is not None
    assert float(block.threshold.grad) * sign > 0


def train(block: QuantumRouter, steps: int, draw: Callable[[], Tensor]) -> list[float]:
    """Minimise the block's own loss in predictor and threshold alone; the routed share of each step."""
    optimizer, shares = torch.optim.Adam([*block.predict.parameters(), block.threshold], lr=2e-2), []
    block.train()
    for _ in range(steps):
        output = block(draw(), Context())
        optimizer.zero_grad()
        assert output.loss is not None
        output.loss.backward()
        optimizer.step()
        assert block.report is not None
        shares.append(block.report.routed_share)
    return shares


def test_predictor_learns_the_entropy_of_tokens_that_it_rarely_sees() -> None:
    """Six kinds of token, which a linear predictor can tell apart; five of them are seen by exploration alone."""
    block = router(depth=2, exploration=0.1, hardness_weight=1.0)
    torch.nn.init.zeros_(block.predict.weight)
    kinds = torch.randn(6, 8)

    def miss() -> Tensor:
        assert block.core is not None
        with torch.no_grad():
            return predicted(block, kinds) - block.core.hardness(block.angles(kinds))

    before = miss()
    train(block, 200, lambda: kinds.repeat(8, 1)[None])
    assert float(before.square().mean()) > 0.03
    assert float(miss().square().mean()) < 1e-3


@pytest.mark.parametrize("mode", ["circuit", "separable"])
def test_training_brings_the_routed_share_to_the_budget(mode: str) -> None:
    """Even where all tokens are equally easy, as under a circuit that entangles nothing."""
    block = router(quantum=mode)
    shares = train(block, 200, lambda: torch.randn(2, 100, 8))
    assert shares[0] > 0.35
    assert sum(shares[-50:]) / 50 == pytest.approx(0.2, abs=0.03)


def test_hardness_of_routed_tokens_carries_a_gradient_to_the_circuit() -> None:
    block = router(depth=2).train()
    output = block(torch.randn(2, 10, 8), Context())
    assert output.hardness is not None
    output.hardness.sum().backward()
    assert isinstance(block.core, CircuitCore)
    assert block.core.layer.weights.grad is not None
    assert float(block.core.layer.weights.grad.abs().max()) > 1e-4
    assert block.predict.weight.grad is None  # the others' hardness is the predictor's, which learns from entropy alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 0.0}, "expects 0 < budget <= 1"),
        ({"exploration": 1.5}, "0 <= exploration <= 1"),
        ({"n_wires": 1}, "at least 2 wires, got 1"),
        ({"quantum": "of"}, "unknown quantum mode 'of': did you mean 'off'"),
    ],
)
def test_bad_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantumRouterConfig(**changes)
