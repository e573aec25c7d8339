"""A memory of learned slots whose write-worthy part is amplified before it is read.

Axis legend: b batch, l sequence, d model width, m real tokens, w wires, s = 2**w slots.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backends.base import Backend
from circuits import Circuit
from circuits._check import integer
from circuits.library import amplification, loading_angles
from qlm.blocks.base import Block, BlockOutput, CircuitReport, Context, norm_share, update_tokens, writes_report
from qlm.controls import CircuitPart, QuantumPart, build_part, check_mode
from qlm.fields import check_types
from qlm.precision import at_least_single
from qlm.probabilities import MAX_WIRES, ProbabilityLayer

_VALUE_SPREAD = 0.02
"""Standard deviation of fresh values: the update starts small beside embeddings of 0.1."""
_BOOST = 4.0
"""Log-odds about which a fresh twin gives the accepted slots: a share of 0.98, a mask that lets a little through."""


@dataclass(frozen=True)
class GroverMemoryConfig:
    """``iterations``: oracle calls; ``n_accepted``: how many slots, the last ones, are write-worthy, 0 for the number
    that the iterations amplify best from a uniform distribution (one in four for one iteration); ``circuit``: JSON of
    the circuit, "" for ``amplification`` of them, its phases starting about pi."""

    n_wires: int = 3
    iterations: int = 1
    n_accepted: int = 0
    circuit: str = ""
    quantum: str = "circuit"

    def __post_init__(self) -> None:
        check_types("grover_memory", self)
        check_mode(self.quantum)
        integer("grover_memory", "n_wires", self.n_wires, 2)
        if self.n_wires > MAX_WIRES:
            raise ValueError(
                f"grover_memory expects at most {MAX_WIRES} wires, got {self.n_wires}: a distribution over 2**n slots "
                "is read at every token; lower n_wires."
            )
        integer("grover_memory", "iterations", self.iterations, 1)
        size = 2**self.n_wires
        if not self.n_accepted:
            share = math.sin(math.pi / (4 * self.iterations + 2)) ** 2
            object.__setattr__(self, "n_accepted", max(1, round(share * size)))
        if not 0 < self.n_accepted < size:
            raise ValueError(
                f"grover_memory expects 1 to {size - 1} accepted slots of {size}, got {self.n_accepted}: nothing or "
                "everything cannot be amplified; change n_accepted or n_wires."
            )
        if not self.circuit:
            accepted = range(size - self.n_accepted, size)
            family = amplification(self.n_wires, accepted, self.iterations, shift=math.pi)
            object.__setattr__(self, "circuit", family.to_json())
        circuit = Circuit.from_json(self.circuit)
        if (circuit.n_wires, circuit.n_inputs) != (self.n_wires, size - 1):
            raise ValueError(
                f"grover_memory expects a circuit of {self.n_wires} wires and {size - 1} inputs, the angles of a "
                f"distribution, got {circuit.n_wires} and {circuit.n_inputs}; build it on amplitude_loading."
            )
        if not circuit.n_weights:
            raise ValueError(
                "grover_memory expects a circuit with weights, got none: nothing of it would be trained, and no twin "
                "has its size; build it by amplification with an iteration or more."
            )


@dataclass(frozen=True, kw_only=True)
class GroverMemoryReport(CircuitReport):
    """What the last call did, means over real tokens: ``mean_p_good``, the accepted slots' share of the softmax, and
    ``mean_success``, their share after amplification. ``output_share`` is the norm of what the amplification changed in
    the update over that of the update."""

    mean_p_good: float
    mean_success: float


class GroverMemory(Block):
    """``h + sum_i P_i v_i`` over 2**n learned values v, P the amplified form of ``p = softmax(W norm(h))``.

    The circuit loads ``sum_i sqrt(p_i) |i>`` by ``loading_angles(p)``, amplifies the accepted slots by k iterations
    with trainable phases, which start as pi + N(0, 0.1), Grover's own, and is read out as Born probabilities P. At
    phases pi the accepted slots hold ``sin^2((2k + 1) arcsin sqrt p_good)``; the slots' ratios inside the accepted and
    inside the rejected set stay those of p, so that the circuit is a learned function from p_good to the split between
    the two. What fails to be accepted stays in the update, through the values of the rejected slots. Which slots are
    accepted is a matter of naming, since all have values and scores of their own: it is the last ones. "twin": mask
    and renormalise, softened (see ``AmplificationTwin``); "off": no amplification, P = p. Per-token, hence causal.
    Padding is left as it is and runs no circuit. Cost: O(n d s), and one circuit of O(k s) gates per token.

    Source: amplification as in Brassard, Hoyer, Mosca, Tapp 2002 (arXiv:quant-ph/0005055).

    >>> block = GroverMemory(8, GroverMemoryConfig(n_wires=2)).eval()
    >>> _ = block(torch.zeros(1, 3, 8), Context())
    >>> block.report.executions, block.report.mean_success > block.report.mean_p_good
    (3, True)
    """

    Config = GroverMemoryConfig
    holds_circuit = True
    report: GroverMemoryReport | None = None

    def __init__(self, d_model: int, config: GroverMemoryConfig, backend: str | Backend = "statevector") -> None:
        super().__init__()
        self.config = config
        self.circuit = Circuit.from_json(config.circuit)
        n_slots = 2**config.n_wires
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.score = nn.Linear(d_model, n_slots)
        self.core = build_part(
            config.quantum,
            self.circuit,
            lambda kept: AmplificationCore(ProbabilityLayer(kept, backend)),
            lambda: AmplificationTwin(config.n_accepted, self.circuit.n_weights),
        )
        self.values = nn.Linear(n_slots, d_model, bias=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Small values, so that the update starts small; the twin starts as a mask that lets a little through."""
        nn.init.normal_(self.values.weight, 0.0, _VALUE_SPREAD)
        if isinstance(self.core, AmplificationTwin):
            self.core.reset_parameters()

    @property
    def circuit_core(self) -> "AmplificationCore | None":
        """The circuit's part, None where a classical control stands in its place."""
        return self.core if isinstance(self.core, AmplificationCore) else None

    def angles(self, hidden: Tensor) -> Tensor:
        """Return the circuit's input angles (..., s - 1) for the residual stream (..., d)."""
        return loading_angles(_softmax(self.score(self.norm(hidden))))

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        return BlockOutput(update_tokens(hidden, context.mask, self._update))

    def _update(self, tokens: Tensor) -> Tensor:
        """What is added to real tokens (m, d)."""
        scores = self.score(self.norm(tokens))
        chances = _softmax(scores)
        amplified = chances if self.core is None else self.core(scores)
        update = self.values(amplified.to(tokens.dtype))
        self._write_report(chances.detach(), amplified.detach(), update.detach())
        return update

    @writes_report
    def _write_report(self, chances: Tensor, amplified: Tensor, update: Tensor) -> None:
        n_tokens, first = len(chances), chances.shape[-1] - self.config.n_accepted
        changed = self.values((amplified - chances).to(update.dtype))
        self.report = GroverMemoryReport(
            tokens=n_tokens,
            executions=0 if self.circuit_core is None else n_tokens,
            shots=None if self.circuit_core is None else self.circuit_core.shots,
            output_share=norm_share(changed, update),
            mean_p_good=float(chances[:, first:].sum()) / max(1, n_tokens),
            mean_success=float(amplified[:, first:].sum()) / max(1, n_tokens),
        )


class AmplificationCore(CircuitPart[ProbabilityLayer]):
    """Born probabilities (m, s) of the circuit that loads and amplifies ``softmax(scores)`` (m, s)."""

    def forward(self, scores: Tensor) -> Tensor:
        return self.layer(loading_angles(_softmax(scores)))


class AmplificationTwin(QuantumPart):
    """Mask and renormalise, softened: the accepted slots get log-odds ``z_k``, ratios inside both sets stay.

    ``z_0 = log(p_good / p_bad)``, ``z_j = boost_j + scale_j tanh z_{j-1}``: two numbers for each iteration's two
    phases, the circuit's count of weights (to within one step where that is odd); ``boost -> infinity`` is the mask.
    A fresh one gives the accepted slots log-odds between 3 and 5.

    >>> twin = AmplificationTwin(1, 2)
    >>> twin.n_parameters, round(float(twin(torch.zeros(1, 4)).detach()[0, 3]), 2)
    (2, 0.96)
    """

    def __init__(self, n_accepted: int, n_weights: int) -> None:
        super().__init__()
        self.n_accepted = n_accepted
        n_steps = max(1, round(n_weights / 2))
        self.boost = nn.Parameter(torch.empty(n_steps))
        self.scale = nn.Parameter(torch.empty(n_steps))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start near the mask."""
        nn.init.constant_(self.boost, _BOOST)
        nn.init.ones_(self.scale)

    def forward(self, scores: Tensor) -> Tensor:
        split = (scores.shape[-1] - self.n_accepted, self.n_accepted)
        rejected, accepted = at_least_single(scores).split(split, -1)
        odds = accepted.logsumexp(-1, keepdim=True) - rejected.logsumexp(-1, keepdim=True)
        for boost, scale in zip(self.boost, self.scale, strict=True):
            odds = boost + scale * torch.tanh(odds)
        good = torch.softmax(accepted, -1) * torch.sigmoid(odds)
        return torch.cat((torch.softmax(rejected, -1) * torch.sigmoid(-odds), good), -1)


def _softmax(scores: Tensor) -> Tensor:
    """Probabilities in the precision of circuits, under autocast too."""
    return torch.softmax(at_least_single(scores), -1)
