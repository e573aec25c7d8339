"""Routes hard tokens through a circuit and the rest through a classical fast path.

Axis legend: b batch, l sequence, d model width, n = b l tokens, m tokens on the circuit, w wires, o observables.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn

from backends import linalg
from backends.base import Backend
from circuits import Circuit, PauliSum, X, Z
from circuits.library import reuploading
from qlm.blocks.base import Block, BlockOutput, CircuitReport, Context, norm_share, places, real_tokens, writes_report
from qlm.controls import CircuitCore, build_core, check_mode
from qlm.fields import check_types

_TEMPERATURE = 0.05
"""Width of the sigmoid that stands in for the hard threshold in the backward pass."""
_DECODE_SPREAD = 0.02
"""Standard deviation of fresh weights from features to the stream: the update starts small beside embeddings of 0.1.
Linear's own start, 0.2, costs the preset 0.1 bits per byte over 250 steps."""
_FRESH_SPREAD = 3**-0.5
"""Standard deviation of a fresh linear layer's scores of a normalised stream, before the bias."""


@dataclass(frozen=True)
class QuantumRouterConfig:
    """``circuit``: JSON of the circuit, "" for ``reuploading(n_wires, depth)``; ``budget``: wished share of routed
    tokens; ``exploration``: share of all tokens sent through the circuit at random while training."""

    n_wires: int = 4
    depth: int = 3
    circuit: str = ""
    quantum: str = "circuit"
    budget: float = 0.2
    exploration: float = 0.05
    budget_weight: float = 1.0
    hardness_weight: float = 0.1

    def __post_init__(self) -> None:
        check_types("quantum_router", self)
        check_mode(self.quantum)
        if not (0 < self.budget <= 1 and 0 <= self.exploration <= 1):
            raise ValueError(
                f"quantum_router expects 0 < budget <= 1 and 0 <= exploration <= 1, got {self.budget} and "
                f"{self.exploration}; they are shares of tokens."
            )
        if not self.circuit:
            object.__setattr__(self, "circuit", reuploading(self.n_wires, self.depth).to_json())
        if Circuit.from_json(self.circuit).n_wires < 2:
            raise ValueError("quantum_router expects a circuit of at least 2 wires, got 1: one wire has no entropy.")


@dataclass(frozen=True, kw_only=True)
class RouterReport(CircuitReport):
    """What the last call did. Shares are of the real (unpadded) tokens; ``mean_hardness`` over all of them.

    ``executions`` includes exploration: two for each token on the quantum path, since features and entropy are two
    questions (a device answers the second with all settings of a tomography); one where no gate joins the halves.
    """

    routed_share: float
    explored_share: float
    mean_hardness: float


class QuantumRouter(Block):
    """Token t passes the circuit where ``s_t > theta``, else a linear fast path; its update is added to the stream.

    Angles ``x_t = pi tanh(W norm(h_t))``; s_t = sigmoid(v . norm(h_t)) is a cheap causal predictor of the hardness
    ``S(rho_A(x_t)) / S_max``, trained on the circuit's measured entropy of the routed tokens and of a random 5 % of
    all, drawn from torch's generator, which checkpoints keep. The threshold theta is a parameter: hard forward, sigmoid
    backward (a straight-through gradient), with the squared distance of the routed share from ``budget`` as a loss.
    Hardness handed on: measured on routed tokens, predicted on the others; 1 everywhere for "off". The choice for a
    token reads that token's stream alone, so it is causal and independent of the batch. Cost: O(n d w), and 2 m
    circuits.

    Source: Q-TensorFormer (selective routing), in the causal form that saves circuit executions.

    >>> block = QuantumRouter(8, QuantumRouterConfig(n_wires=2, depth=1)).eval()
    >>> block(torch.zeros(1, 3, 8), Context()).hardness.shape
    torch.Size([1, 3])
    """

    Config = QuantumRouterConfig
    holds_circuit = True
    report: RouterReport | None = None

    def __init__(self, d_model: int, config: QuantumRouterConfig, backend: str | Backend = "statevector") -> None:
        super().__init__()
        self.config = config
        self.circuit = Circuit.from_json(config.circuit)
        observables = _observables(self.circuit.n_wires)
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.encode = nn.Linear(d_model, self.circuit.n_inputs)
        self.predict = nn.Linear(d_model, 1)
        self.threshold = nn.Parameter(torch.zeros(()))
        self.core = build_core(config.quantum, self.circuit, observables, backend)
        self.fast = nn.Linear(self.circuit.n_inputs, len(observables))
        self.decode = nn.Linear(len(observables), d_model)
        if self.core is None:  # nothing is routed, and distributed training waits for every gradient it was promised
            self.predict.requires_grad_(False)
            self.threshold.requires_grad_(False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start where random states are: their hardness is predicted on average, and the budget's share is routed."""
        n_wires = self.circuit.n_wires
        small, large = n_wires // 2, n_wires - n_wires // 2
        mean = linalg.page_entropy(2**small, 2**large) / (small * math.log(2))
        score = math.log(mean / (1 - mean))
        quantile = NormalDist().inv_cdf(max(1e-3, 1 - self.config.budget))
        nn.init.normal_(self.decode.weight, 0.0, _DECODE_SPREAD)
        nn.init.zeros_(self.decode.bias)
        nn.init.constant_(self.predict.bias, score)
        nn.init.constant_(self.threshold, 1 / (1 + math.exp(-score - _FRESH_SPREAD * quantile)))

    @property
    def circuit_core(self) -> CircuitCore | None:
        """The circuit's part, None where a classical control stands in its place."""
        return self.core if isinstance(self.core, CircuitCore) else None

    def angles(self, hidden: Tensor) -> Tensor:
        """Return the circuit's input angles (..., w) in (-pi, pi) for the residual stream (..., d)."""
        return self._angles(self.norm(hidden))

    def _angles(self, normed: Tensor) -> Tensor:
        return math.pi * torch.tanh(self.encode(normed))

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        normed = self.norm(hidden)
        angles = self._angles(normed).flatten(0, 1)
        features = torch.tanh(self.fast(angles / math.pi))
        real = real_tokens(hidden, context.mask).flatten()
        if self.core is None:
            self._write_empty_report(real)
            hardness = torch.ones_like(hidden[..., 0])
            return BlockOutput(hidden + self.decode(features).reshape(hidden.shape), hardness=hardness)
        predicted = torch.sigmoid(self.predict(normed.detach())).flatten()
        routed = (predicted > self.threshold) & real
        gate = self._gate(predicted, routed)
        visited = routed
        if self.training and self.config.exploration > 0:
            visited = routed | ((torch.rand(len(angles), device=angles.device) < self.config.exploration) & real)
        index = places(visited)
        measured = self.core.hardness(angles[index])
        delta = (gate * visited)[index, None] * (self.core(angles[index]) - features[index])
        blended = features.index_add(0, index, delta)
        update = self.decode(blended).reshape(hidden.shape)
        hardness = torch.where(routed, predicted.detach().index_copy(0, index, measured), predicted.detach())
        self._write_report(real, routed, index, hardness, delta, update)
        error = (predicted[index] - measured.detach()) * visited[index]
        loss = self._loss(error, visited, gate, real) if self.training else None
        shape = hidden.shape[:2]
        return BlockOutput(hidden + update, (), hardness.reshape(shape), routed.reshape(shape), loss)

    def _gate(self, predicted: Tensor, routed: Tensor) -> Tensor:
        """1 for routed tokens and 0 for the others, with the slope of a sigmoid for the threshold's gradient."""
        soft = torch.sigmoid((predicted.detach() - self.threshold) / _TEMPERATURE)
        return routed.to(soft.dtype) + (soft - soft.detach())

    def _loss(self, error: Tensor, visited: Tensor, gate: Tensor, real: Tensor) -> Tensor:
        """Squared error of the hardness predictor, and squared distance of the routed share from the budget."""
        square = error.square().sum() / visited.sum().clamp(min=1)
        excess = ((gate * real).sum() / real.sum().clamp(min=1) - self.config.budget).square()
        return self.config.hardness_weight * square + self.config.budget_weight * excess

    @writes_report
    def _write_empty_report(self, real: Tensor) -> None:
        self.report = RouterReport(
            tokens=int(real.sum()), executions=0, routed_share=0.0, explored_share=0.0, mean_hardness=1.0
        )

    @writes_report
    def _write_report(
        self, real: Tensor, routed: Tensor, index: Tensor, hardness: Tensor, delta: Tensor, update: Tensor
    ) -> None:
        tokens = max(1, int(real.sum()))
        n_routed = int(routed.sum())
        self.report = RouterReport(
            tokens=int(real.sum()),
            executions=0 if self.circuit_core is None else self.circuit_core.executions_per_token * len(index),
            shots=None if self.circuit_core is None else self.circuit_core.shots,
            routed_share=n_routed / tokens,
            explored_share=(len(index) - n_routed) / tokens,
            mean_hardness=float((hardness * real).sum()) / tokens,
            output_share=norm_share(delta @ self.decode.weight.T, update.flatten(0, 1)[real]),
        )


def _observables(n_wires: int) -> tuple[PauliSum, ...]:
    """Z and X on each wire: two bases on hardware."""
    return tuple(Z(wire) for wire in range(n_wires)) + tuple(X(wire) for wire in range(n_wires))
