"""A mixture of experts whose router is a variational circuit.

Axis legend: b batch, l sequence, d model width, n real tokens, e experts, k chosen ones, w wires.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from backends.base import Backend
from circuits import Circuit
from circuits.library import vqc_router
from qlm.blocks.base import Block, BlockOutput, CircuitReport, Context, norm_share, update_tokens, writes_report
from qlm.controls import check_mode
from qlm.experts.base import Expert, ExpertShape, expert_class
from qlm.experts.choice import Choice, LoadBalance, apply_chosen, choose
from qlm.experts.router import CircuitRouter, Routing, build_router, renormalise, route_first
from qlm.fields import check_types
from qlm.precision import at_least_single


@dataclass(frozen=True)
class VQCExpertsConfig:
    """``circuit``: JSON of the router, "" for ``vqc_router(n_wires, depth)``, with ``n_wires`` 0 as few as suffice.

    ``mass``: a token takes the fewest experts, up to ``top_k``, that hold this share of its probability. ``shared``:
    experts that every token passes; ``expert``: a kind of ``qlm.experts.base.EXPERTS``; ``expansion``: inner width over
    d_model; ``rank``: of kinds that have one; ``balance``: largest step of the load balance, 0 for none.
    """

    n_experts: int = 8
    n_wires: int = 0
    depth: int = 3
    circuit: str = ""
    quantum: str = "circuit"
    top_k: int = 2
    mass: float = 1.0
    shared: int = 1
    expert: str = "dense"
    expansion: int = 1
    rank: int = 4
    balance: float = 0.02

    def __post_init__(self) -> None:
        check_types("vqc_experts", self)
        check_mode(self.quantum)
        expert_class(self.expert)
        for name, least in (("n_experts", 2), ("n_wires", 0), ("shared", 0), ("expansion", 1), ("rank", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"vqc_experts expects {name} of at least {least}, got {getattr(self, name)}; raise it."
                )
        if not 1 <= self.top_k <= self.n_experts:
            raise ValueError(
                f"vqc_experts expects top_k from 1 to the {self.n_experts} experts, got {self.top_k}; change one."
            )
        if not (0 < self.mass <= 1 and 0 <= self.balance < math.inf):
            raise ValueError(
                f"vqc_experts expects 0 < mass <= 1 and a finite balance >= 0, got {self.mass} and {self.balance}."
            )
        if not self.circuit:
            n_wires = self.n_wires or (self.n_experts - 1).bit_length()
            object.__setattr__(self, "circuit", vqc_router(n_wires, self.depth).to_json())
        self._check_circuit(Circuit.from_json(self.circuit))

    def _check_circuit(self, circuit: Circuit) -> None:
        if self.n_wires not in (0, circuit.n_wires):
            raise ValueError(
                f"vqc_experts expects n_wires 0 or the circuit's {circuit.n_wires}, got {self.n_wires}; leave it at 0."
            )
        if self.n_experts > 2**circuit.n_wires:
            raise ValueError(
                f"vqc_experts expects at most the {2**circuit.n_wires} experts that {circuit.n_wires} wires have basis "
                f"states for, got {self.n_experts}; add wires."
            )


@dataclass(frozen=True, kw_only=True)
class VQCExpertsReport(CircuitReport):
    """What the last call did, over its real (unpadded) tokens.

    ``load``: share of all choices that fell on each routed expert; ``mean_k``: choices per token; ``leaked_mass``: mean
    probability outside the experts; ``lost_tokens``: those whose mass leaked entirely, which are routed as if uniform;
    ``routing_entropy``: mean of ``-sum g ln g`` in nats; ``flops``: counted ones of all experts. ``output_share`` is
    what comes through experts that the router chose, over the whole update; the rest is the shared experts'.
    """

    load: tuple[float, ...]
    mean_k: float
    leaked_mass: float
    lost_tokens: int
    routing_entropy: float
    flops: int


class VQCExperts(Block):
    """``h + sum_shared E_s(norm(h)) + sum_chosen w_i E_i(norm(h))``; a circuit's measured basis state names an expert.

    Angles ``x = pi tanh(W norm(h))``; ``g_i = |<i| U(theta) |phi(x)>|^2 / (1 - leaked)`` over the first e basis states.
    Each token chooses alone, so the block is causal and independent of the batch: see ``choose`` for the order, the
    weights and the straight-through gradient, ``LoadBalance`` for the bias that evens the load in training and is
    frozen in evaluation. Only chosen experts compute. Padding passes unchanged and runs no circuit.

    Controls: "twin" is a softmax router of the circuit's size; "separable", "frozen" as everywhere; "off" has no
    router: every token passes the first ``top_k`` experts at equal weights. Cost: one circuit per token, and the
    chosen experts' flops.

    Source: HSMN, equation 19; shared experts of Dai et al. 2024 (arXiv:2401.06066).

    >>> block = VQCExperts(8, VQCExpertsConfig(n_experts=3, depth=1)).eval()
    >>> block(torch.zeros(1, 3, 8), Context()).hidden.shape, block.report.executions
    (torch.Size([1, 3, 8]), 3)
    """

    Config = VQCExpertsConfig
    holds_circuit = True
    report: VQCExpertsReport | None = None

    def __init__(self, d_model: int, config: VQCExpertsConfig, backend: str | Backend = "statevector") -> None:
        super().__init__()
        self.config = config
        circuit = Circuit.from_json(config.circuit)
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.encode = nn.Linear(d_model, circuit.n_inputs)
        self.router = build_router(config.quantum, circuit, config.n_experts, backend)
        if self.router is None:  # distributed training waits for every gradient that it was promised
            self.encode.requires_grad_(False)
        self.balance = LoadBalance(config.n_experts, config.balance)
        shape, kind = ExpertShape(d_model, config.expansion, config.rank), expert_class(config.expert)
        self.experts = nn.ModuleList(kind(shape) for _ in range(config.n_experts))
        self.shared = nn.ModuleList(kind(shape) for _ in range(config.shared))

    @property
    def circuit_core(self) -> CircuitRouter | None:
        """The circuit's part, None where a classical control stands in its place, or one wire that has no cut."""
        router = self.router
        return router if isinstance(router, CircuitRouter) and router.layer.circuit.n_wires > 1 else None

    def angles(self, hidden: Tensor) -> Tensor:
        """Return the circuit's input angles (..., w) in (-pi, pi) for the residual stream (..., d)."""
        return self._angles(self.norm(hidden))

    def _angles(self, normed: Tensor) -> Tensor:
        return math.pi * torch.tanh(at_least_single(self.encode(normed)))

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        return BlockOutput(update_tokens(hidden, context.mask, self._update))

    def _update(self, real: Tensor) -> Tensor:
        """What is added to real tokens (n, d)."""
        tokens = self.norm(real)
        routing, choice = self._route(tokens)
        counts = choice.load(self.config.n_experts)
        if self.training and self.router is not None:
            self.balance.update(counts, routing.g)
        routed = apply_chosen(_held(self.experts), tokens, choice)
        update = routed
        for expert in _held(self.shared):
            update = update + expert(tokens)
        self._write_report(routing, counts, routed, update)
        return update.to(real.dtype)

    def _route(self, tokens: Tensor) -> tuple[Routing, Choice]:
        config, balance = self.config, self.balance
        if self.router is None:
            routing = route_first(len(tokens), config.n_experts, config.top_k, like=tokens)
            return routing, choose(routing.g, torch.zeros_like(balance.bias), config.top_k, mass=1.0)
        routing = renormalise(self.router(self._angles(tokens)))
        return routing, choose(routing.g, balance.bias, config.top_k, config.mass)

    @writes_report
    def _write_report(self, routing: Routing, load: Tensor, routed: Tensor, update: Tensor) -> None:
        n, counts = len(routing.g), load.tolist()
        circuit = self.router if isinstance(self.router, CircuitRouter) else None
        self.report = VQCExpertsReport(
            tokens=n,
            executions=0 if circuit is None else n,
            shots=None if circuit is None else circuit.shots,
            output_share=0.0 if self.router is None else norm_share(routed, update),
            load=tuple(count / max(1, sum(counts)) for count in counts),
            mean_k=sum(counts) / max(1, n),
            leaked_mass=float(routing.leaked.sum()) / max(1, n),
            lost_tokens=int(routing.lost.sum()),
            routing_entropy=float(torch.special.entr(routing.g).sum()) / max(1, n),
            flops=self._flops(counts, n),
        )

    def _flops(self, counts: list[int], n_tokens: int) -> int:
        """Counted flops of the experts: each routed one's on its own tokens, each shared one's on all."""
        routed = sum(expert.flops(count) for expert, count in zip(_held(self.experts), counts, strict=True))
        return routed + sum(expert.flops(n_tokens) for expert in _held(self.shared))


def _held(experts: nn.ModuleList) -> list[Expert]:
    return cast("list[Expert]", list(experts))
