"""A head whose probabilities are those of measuring a circuit.

Axis legend: n tokens, d model width, i inputs of the circuit, w wires, N = 2**w basis states, v vocabulary, s shots.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from backends.base import Backend
from circuits import Circuit
from circuits.library import conditional_born_machine
from qlm.blocks.base import CircuitReport
from qlm.controls import CircuitPart, QuantumPart, build_part, check_mode
from qlm.fields import check_types
from qlm.heads.base import Head
from qlm.precision import at_least_single
from qlm.probabilities import MAX_WIRES, ProbabilityLayer
from tensornet.log_space import log_or_minus_infinity

_UPRIGHT = math.atanh(0.5)
"""Score of the angle pi / 2, at which an encoder's RY makes both outcomes equally likely."""
_ENCODE_SPREAD = 0.1
"""Standard deviation of fresh scores of a normalised stream about it."""
_ROUNDS = 14
"""Times that a row is measured again for what it lost to outcomes outside the vocabulary: each asks for twice as many
for one missing, so that a row which keeps a thousandth of its mass is still answered."""


@dataclass(frozen=True)
class BornCircuitConfig:
    """``depth``: entangling layers; ``circuit``: JSON of the circuit, "" for ``conditional_born_machine`` on
    ``ceil(log2 vocab_size)`` wires; ``smoothing``: what is added to each token's count where a backend counts shots."""

    depth: int = 1
    circuit: str = ""
    smoothing: float = 0.0
    quantum: str = "circuit"

    def __post_init__(self) -> None:
        check_types("born_circuit", self)
        check_mode(self.quantum)
        if not 0 <= self.smoothing < math.inf:
            raise ValueError(f"born_circuit expects a finite smoothing >= 0, got {self.smoothing}; try 0.5.")


@dataclass(frozen=True, kw_only=True)
class BornCircuitReport(CircuitReport):
    """What the last call did. ``tokens`` includes padding, for which a head answers too. ``leaked``: mean mass of the
    outcomes that name no token, before it was shared out; 0 where nothing is measured."""

    leaked: float


@dataclass(frozen=True)
class Measured:
    """Tokens drawn by measuring, shape (..., s); how many measurements that took, and how many of them leaked: they
    gave a basis state that names no token."""

    tokens: Tensor
    measurements: int
    leaked: int


class BornCore(CircuitPart[ProbabilityLayer]):
    """Probabilities (n, N) of the circuit's basis states at angles (n, i)."""

    def forward(self, angles: Tensor) -> Tensor:
        return self.layer(angles)


class SoftmaxTwin(QuantumPart):
    """The classical control: logits ``B (A h + b)`` (n, v) of rank r, from hidden states (n, d).

    r makes its parameter count the nearest to ``n_parameters``: equal to within one hidden unit of d + 1 + v.

    >>> SoftmaxTwin(16, 30, 100).n_parameters
    94
    """

    def __init__(self, d_model: int, vocab_size: int, n_parameters: int) -> None:
        super().__init__()
        rank = max(1, round(n_parameters / (d_model + 1 + vocab_size)))
        self.inner = nn.Linear(d_model, rank)
        self.outer = nn.Linear(rank, vocab_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.outer(self.inner(hidden))


class BornCircuit(Head):
    """``p(v | h) = |<v|U(w)|psi(x)>|^2 / (1 - leaked)`` with angles ``x = pi tanh(W h + b)``; returns log p.

    Token v is basis state v of w = ceil(log2 vocab_size) wires, wire 0 the most significant bit, at most 10 wires. The
    mass of basis states at and above vocab_size is reported and shared out by dividing. Logits are log-probabilities in
    float32 or float64, with -inf exactly where p is 0: in float32 where p is below 1.4e-45, on backends that sum
    expectations where it is below their rounding (about 1e-7), and on backends that count shots for every token that
    was not seen. A target with p = 0 costs an infinite loss and gives no gradient. Therefore training on counts needs
    ``smoothing`` a > 0: there ``p(v) = (c_v + a) / (sum_u c_u + a vocab_size)`` over the tokens' counts c; exact
    backends are never smoothed.

    ``quantum``: "circuit"; "separable" without entangling gates; "frozen" keeps the first U; "twin", a softmax of rank
    r, ``B (A h + b)``, in place of the whole head and of its size to within one hidden unit; "off" leaves the bits of v
    independent coins whose log-odds are linear in h, without a circuit. Raises ValueError for a circuit that has too
    few wires or more than 10, in training on counts without smoothing, and for a token all of whose mass leaked. Cost:
    one circuit per token, and O(d w + 2**w) beside it.

    Liu & Wang 2018, Phys. Rev. A 98, 062324, equation 1, here conditioned on h.

    >>> head = BornCircuit(8, 6, BornCircuitConfig())
    >>> torch.allclose(head(torch.zeros(2, 8)).exp().sum(-1), torch.ones(2))
    True
    """

    Config = BornCircuitConfig
    holds_circuit = True
    report: BornCircuitReport | None = None

    @classmethod
    def fitted(cls, config: BornCircuitConfig, vocab_size: int) -> BornCircuitConfig:
        needed = (vocab_size - 1).bit_length()
        if needed > MAX_WIRES:
            raise ValueError(
                f"born_circuit expects a vocabulary of at most {2**MAX_WIRES} tokens, got {vocab_size}; use "
                "born_low_rank or born_mps."
            )
        if not config.circuit:
            config = replace(config, circuit=conditional_born_machine(needed, config.depth).to_json())
        held = Circuit.from_json(config.circuit).n_wires
        if not needed <= held <= MAX_WIRES:
            raise ValueError(
                f"born_circuit expects {needed} to {MAX_WIRES} wires for {vocab_size} tokens, got a circuit of {held}; "
                "build another, or leave it out."
            )
        return config

    def __init__(
        self, d_model: int, vocab_size: int, config: BornCircuitConfig, backend: str | Backend = "statevector"
    ) -> None:
        super().__init__()
        config = self.fitted(config, vocab_size)
        self.config = config
        self.vocab_size = vocab_size
        self.circuit = Circuit.from_json(config.circuit)
        n_inputs, n_weights = self.circuit.n_inputs, self.circuit.n_weights
        self.core = build_part(
            config.quantum,
            self.circuit,
            lambda kept: BornCore(ProbabilityLayer(kept, backend)),
            lambda: SoftmaxTwin(d_model, vocab_size, (d_model + 1) * n_inputs + n_weights),
        )
        n_outputs = self.circuit.n_wires if self.core is None else n_inputs
        self.encode = None if config.quantum == "twin" else nn.Linear(d_model, n_outputs)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start near the uniform distribution: angles about pi / 2, or even odds."""
        if self.encode is not None:
            nn.init.normal_(self.encode.weight, 0.0, _ENCODE_SPREAD / math.sqrt(self.encode.in_features))
            nn.init.constant_(self.encode.bias, 0.0 if self.core is None else _UPRIGHT)

    def angles(self, hidden: Tensor) -> Tensor:
        """Return the circuit's input angles (..., i) in (-pi, pi); ValueError in a mode without a circuit."""
        if self.encode is None or not isinstance(self.core, BornCore):
            raise ValueError(f"a head without a circuit has no angles, got quantum='{self.config.quantum}'.")
        return math.pi * torch.tanh(at_least_single(self.encode(hidden)))

    def forward(self, hidden: Tensor) -> Tensor:
        flat = hidden.reshape(-1, hidden.shape[-1])
        if isinstance(self.core, BornCore):
            logs = self._measured(self.core, flat)
        else:
            logits = self._coins(flat) if self.core is None else self.core(flat)
            logs = at_least_single(logits).log_softmax(-1)
            share = 0.0 if self.core is None else 1.0
            self.report = BornCircuitReport(tokens=len(flat), executions=0, output_share=share, leaked=0.0)
        return logs.reshape(*hidden.shape[:-1], self.vocab_size)

    def _measured(self, core: BornCore, flat: Tensor) -> Tensor:
        """Log-probabilities (n, v) of the circuit, renormalised over the vocabulary."""
        if self.training and self.config.smoothing == 0 and core.layer.backend.capabilities.shots:
            raise ValueError(
                f"born_circuit expects smoothing > 0 to train on backend '{core.layer.backend.spec}', which counts "
                "shots: a token that was not seen has an infinite loss; set smoothing to 0.5, or train on statevector."
            )
        chances = core(self.angles(flat))[..., : self.vocab_size]
        kept = chances.sum(-1, keepdim=True)
        shots = core.shots
        self.report = BornCircuitReport(
            tokens=len(flat),
            executions=len(flat),
            shots=shots,
            output_share=1.0,
            leaked=max(0.0, float(1 - kept.detach().mean())) if len(flat) else 0.0,
        )
        if shots is not None and self.config.smoothing > 0:
            chances = chances + self.config.smoothing / shots
            kept = chances.sum(-1, keepdim=True)
        if bool((kept <= 0).any()):
            raise ValueError(
                "born_circuit expects some mass on the vocabulary, got a token all of whose outcomes leaked; raise "
                "shots, or set smoothing above 0."
            )
        return log_or_minus_infinity(chances) - kept.log()

    def _coins(self, flat: Tensor) -> Tensor:
        """Logits (n, v) of independent bits: the sum of the log-odds of those that are 1 in v."""
        assert self.encode is not None
        odds = self.encode(flat)
        return odds @ _bits(self.vocab_size, odds.shape[-1], odds).T

    @torch.no_grad()
    def sample(self, hidden: Tensor, shots: int, seed: int) -> Measured:
        """Draw tokens (..., s) by measuring; outcomes outside the vocabulary are counted and measured again.

        What is drawn has the distribution of ``forward``, exactly, without smoothing. ``seed`` makes it repeatable.
        Raises ValueError where ``shots`` is below 1, in a mode without a circuit, and where next to no outcome names a
        token. Cost: about ``s / (1 - leaked)`` measurements per token.
        """
        if shots < 1:
            raise ValueError(f"sample expects at least 1 shot, got {shots}; raise it.")
        angles = self.angles(hidden.reshape(-1, hidden.shape[-1]))
        assert isinstance(self.core, BornCore)
        layer, random = self.core.layer, torch.Generator().manual_seed(seed)
        tokens = torch.full((len(angles), shots), -1, dtype=torch.long)
        found = torch.zeros(len(angles), dtype=torch.long)
        measurements = leaked = 0
        for attempt in range(_ROUNDS):
            rows = (found < shots).nonzero()[:, 0]
            if not len(rows):
                return Measured(tokens.reshape(*hidden.shape[:-1], shots), measurements, leaked)
            asked = int(shots - found[rows].min()) << attempt
            draw = int(torch.randint(2**31, (), generator=random))
            bits = layer.backend.samples(
                layer.circuit, angles[rows.to(angles.device)], layer.weights, shots=asked, seed=draw
            ).values
            powers = 2 ** torch.arange(bits.shape[-1] - 1, -1, -1)
            codes = (bits.cpu().long() * powers).sum(-1)
            inside = codes < self.vocab_size
            place = found[rows, None] + inside.cumsum(-1) - 1
            row, column = (inside & (place < shots)).nonzero(as_tuple=True)
            tokens[rows[row], place[row, column]] = codes[row, column]
            found[rows] = (found[rows] + inside.sum(-1)).clamp(max=shots)
            measurements, leaked = measurements + codes.numel(), leaked + int((~inside).sum())
        if bool((found >= shots).all()):
            return Measured(tokens.reshape(*hidden.shape[:-1], shots), measurements, leaked)
        raise ValueError(
            f"sample expects outcomes that name tokens, got {leaked} of {measurements} outside the vocabulary; train "
            "the head further."
        )


def _bits(vocab_size: int, n_bits: int, like: Tensor) -> Tensor:
    """Bits (v, n_bits) of 0 ... v - 1, the most significant first."""
    places = torch.arange(n_bits - 1, -1, -1, device=like.device)
    return (torch.arange(vocab_size, device=like.device)[:, None] >> places & 1).to(like.dtype)
