"""Attention whose weights are overlaps of quantum states.

Axis legend: b batch, l sequence, d model width, w inputs of the circuit, e numbers of a value.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backends.base import Backend
from circuits import Circuit
from circuits._suggest import unknown
from circuits.library import kernel_feature_map
from circuits.passes import require_unitary
from qlm.blocks.base import Block, BlockOutput, CircuitReport, Context, norm_share, real_tokens, writes_report
from qlm.blocks.kernel_forms import (
    FORMS,
    NORMALISATIONS,
    Attended,
    Comparer,
    Rule,
    Tokens,
    attend_all,
    attend_softmax,
    attend_window,
    choose_form,
)
from qlm.blocks.kernel_parts import CircuitKernel, build_kernel, check_twin
from qlm.controls import check_mode
from qlm.fields import check_types
from qlm.precision import at_least_single

_OUT_SPREAD = 0.02
"""Standard deviation of fresh weights from what is read to the stream: the update starts small."""
_MAX_STATE_WIRES = 8
"""Wires of a state of all past tokens: at 8 and a d_value of 64 it takes 17 MB per row, at 9 four times that."""


@dataclass(frozen=True)
class KernelAttentionConfig:
    """``circuit``: JSON of the feature map, "" for ``kernel_feature_map(n_wires, depth)``; ``d_value``: numbers read of
    each token; ``normalisation``: "kernel" with ``eps``, or "softmax" with ``tau``; ``form``: "linear", "quadratic" or
    "auto"; ``window``: how many positions a query sees, its own included, 0 for all, and 2 or more otherwise; padding
    takes positions too, so that texts of unequal length are padded on the left; ``twin``: "product" or "dot" (always
    a softmax of ``x . y / sqrt(w)``)."""

    n_wires: int = 4
    depth: int = 2
    circuit: str = ""
    quantum: str = "circuit"
    d_value: int = 64
    normalisation: str = "kernel"
    eps: float = 1e-3
    tau: float = 0.1
    form: str = "auto"
    window: int = 0
    twin: str = "product"
    causal: bool = True

    def __post_init__(self) -> None:
        check_types("kernel_attention", self)
        check_mode(self.quantum)
        check_twin(self.twin)
        if self.normalisation not in NORMALISATIONS:
            raise ValueError(unknown("kernel normalisation", self.normalisation, NORMALISATIONS))
        if self.form not in FORMS:
            raise ValueError(unknown("kernel form", self.form, FORMS))
        if not self.causal:
            raise ValueError(
                "kernel_attention expects causal=True, got False: a token that reads later ones cannot be predicted; "
                "leave the key out."
            )
        if not (0 < self.eps < math.inf and 0 < self.tau < math.inf and self.d_value >= 1 and self.window >= 0):
            raise ValueError(
                "kernel_attention expects finite eps > 0 and tau > 0, d_value >= 1 and window >= 0, got "
                f"{self.eps}, {self.tau}, {self.d_value} and {self.window}; correct them."
            )
        if self.window == 1:
            raise ValueError(
                "kernel_attention expects a window of at least 2, or 0 for all, got 1: a token that sees itself alone "
                "compares nothing; widen it."
            )
        if self.form == "linear" and (self.by_softmax or self.window):
            raise ValueError(
                f"the linear form expects kernel normalisation and window 0, got {self._other_than_linear()}, which "
                "has none; use form='auto'."
            )
        if not self.circuit:
            object.__setattr__(self, "circuit", kernel_feature_map(self.n_wires, self.depth).to_json())
        circuit = Circuit.from_json(self.circuit)
        require_unitary(circuit, "kernel_attention")
        if not circuit.n_inputs:
            raise ValueError("kernel_attention expects a circuit with inputs, got none: all tokens would be alike.")
        if not (self.window or self.by_softmax or self.quantum == "off") and circuit.n_wires > _MAX_STATE_WIRES:
            raise ValueError(
                f"kernel_attention expects at most {_MAX_STATE_WIRES} wires with window 0 and kernel normalisation, "
                f"got {circuit.n_wires}: its state would hold 4**n x (d_value + 1) numbers per row; set a window, or "
                "normalisation='softmax'."
            )

    @property
    def by_softmax(self) -> bool:
        """Whether weights come from a softmax."""
        return self.normalisation == "softmax" or (self.quantum == "twin" and self.twin == "dot")

    def _other_than_linear(self) -> str:
        return f"a window of {self.window}" if self.window else "a softmax"


@dataclass(frozen=True, kw_only=True)
class KernelReport(CircuitReport):
    """What the last call did. ``executions``: one circuit for each query and each key, or one for each pair.

    ``form``: "linear", "quadratic", "window" (states), or "pairs" (compute-uncompute). ``kernel_mean`` and
    ``kernel_spread`` (standard deviation) of similarities between different tokens: of at most 64 tokens spread over
    the batch, or of all pairs in a window; a spread that falls like ``2**-n`` is concentration. ``output_share``: norm
    of what the kernel changes in a uniform average's update over that of the update.
    """

    form: str
    kernel_mean: float
    kernel_spread: float


class KernelAttention(Block):
    """``h_t + W_o sum_{s<=t} a_ts v_s`` with ``a_ts = (K_ts + eps / t) / (sum_s K_ts + eps)``, t counting real tokens.

    ``K_ts = |<phi(x_t)|phi(y_s)>|^2`` of queries ``x = pi tanh(W_q norm(h))`` and keys y alike, in one circuit with
    shared weights: for a separable one without weights ``prod_i cos^2((x_i - y_i) / 2)``. Where all K vanish this is a
    uniform average. normalisation="softmax": ``softmax(K / tau)``. States of a sequence are computed once; then sums
    are taken in quadratic or in linear time (``choose_form``), or over a window. A backend without states (shots,
    noise, a device), and in training one whose states carry no gradient, needs a window, and runs one circuit
    ``U(y_s)^dagger U(x_t)`` for each pair. State: 4**n x e numbers, whatever the length; with softmax all past rows and
    values; with a window the last tokens' angles and values. "twin": ``TwinKernel``; "off": the uniform average.

    Cost: 2 l circuits and O(l d (w + e)), then O(l^2 (2^n + e)), or O(l 4^n e), or l ``window`` circuits. Raises
    ValueError for a mask of pairs, and where circuits would be needed for all pairs.

    Source: QKSAN (arXiv:2308.13422), as a causal block; Schuld & Killoran 2019, Phys. Rev. Lett. 122, 040504 (kernel);
    Katharopoulos et al. 2020, arXiv:2006.16236 (linear form).

    >>> block = KernelAttention(8, KernelAttentionConfig(n_wires=2, depth=1)).eval()
    >>> block(torch.zeros(1, 3, 8), Context()).state[0].shape, block.report.executions
    (torch.Size([1, 17, 65]), 6)
    """

    Config = KernelAttentionConfig
    holds_circuit = True
    report: KernelReport | None = None

    def __init__(self, d_model: int, config: KernelAttentionConfig, backend: str | Backend = "statevector") -> None:
        super().__init__()
        self.config = config
        self.circuit = Circuit.from_json(config.circuit)
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.encode = nn.Linear(d_model, 2 * self.circuit.n_inputs)
        self.value = nn.Linear(d_model, config.d_value, bias=False)
        self.core = build_kernel(config.quantum, self.circuit, backend, config.twin)
        self.out = nn.Linear(config.d_value, d_model, bias=False)
        if self.core is None:  # nothing is compared, and distributed training waits for every gradient it was promised
            self.encode.requires_grad_(False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        nn.init.normal_(self.out.weight, 0.0, _OUT_SPREAD)
        if self.core is not None:
            self.core.init_weights()

    @property
    def circuit_core(self) -> CircuitKernel | None:
        """The circuit's part, None where a classical control stands in its place."""
        return self.core if isinstance(self.core, CircuitKernel) else None

    def angles(self, hidden: Tensor) -> Tensor:
        """Return the queries' angles (..., w) in (-pi, pi) for the residual stream (..., d)."""
        return self._angles(self.norm(hidden))[0]

    def _angles(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        queries, keys = (math.pi * torch.tanh(self.encode(normed))).chunk(2, -1)
        return queries, keys

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        real = real_tokens(hidden, context.mask)
        normed = self.norm(hidden)
        values = self.value(normed)
        queries, keys = self._angles(normed)
        tokens = Tokens(at_least_single(queries), at_least_single(keys), at_least_single(values), real)
        with torch.autocast(hidden.device.type, enabled=False):
            attended = self._attend(tokens, context)
        update = self.out(attended.values.to(values.dtype))
        self._write_report(attended, real, update)
        return BlockOutput(hidden + update, attended.state)

    def _attend(self, tokens: Tokens, context: Context) -> Attended:
        config, comparer = self.config, Comparer(self.core)
        tau = (1.0 if config.twin == "dot" and config.quantum == "twin" else config.tau) if config.by_softmax else None
        rule, state = Rule(config.eps, tau), context.state
        if config.window:
            return attend_window(comparer, tokens, rule, config.window, state)
        self._refuse_all_pairs(tokens)
        if tau is not None:
            return attend_softmax(comparer, tokens, tau, state)
        n_wires = 0 if self.core is None else self.circuit.n_wires
        form = choose_form(tokens.length, n_wires) if config.form == "auto" else config.form
        return attend_all(comparer, tokens, rule, form, state, context.keep)

    def _refuse_all_pairs(self, tokens: Tokens) -> None:
        core = self.circuit_core
        if core is None or core.has_states or torch.compiler.is_compiling() or not tokens.real.any():
            return
        counts = tokens.real.sum(1)
        n_pairs = int((counts * (counts + 1) // 2).sum())
        raise ValueError(
            f"kernel_attention expects a window on backend '{core.layer.backend.spec}', which has no states with "
            f"gradients: got window=0, which needs {n_pairs} circuits for these tokens; set "
            "window to the number of tokens that a query may see."
        )

    @writes_report
    def _write_report(self, attended: Attended, real: Tensor, update: Tensor) -> None:
        changed = self.out((attended.values - attended.uniform).to(update.dtype))
        core, sample = self.core, attended.sample
        compared = core is not None and sample.numel() > 0
        self.report = KernelReport(
            tokens=int(real.sum()),
            executions=0 if core is None else core.executions,
            shots=None if core is None else core.shots,
            output_share=0.0 if core is None else norm_share(changed[real], update[real]),
            form=attended.form,
            kernel_mean=float(sample.mean()) if compared else 0.0,
            kernel_spread=float(sample.std(correction=0)) if compared else 0.0,
        )
