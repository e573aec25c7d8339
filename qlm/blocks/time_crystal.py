"""Drives a small register by a kicked Ising chain and reads what a discrete time crystal keeps.

Axis legend: b batch, l sequence, d model width, m real tokens, n wires.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backends.base import Backend
from circuits import Circuit, PauliSum, Weight, Z
from circuits._check import integer
from circuits.library import angle_encoding, kicked_ising
from qlm.blocks.base import Block, BlockOutput, CircuitReport, Context, norm_share, update_tokens, writes_report
from qlm.controls import CircuitCore, QuantumPart, build_part, check_mode
from qlm.fields import check_types
from qlm.floquet.disorder import draw_disorder
from qlm.quantum import WEIGHT_SPREAD

_DECODE_SPREAD = 0.02
"""Standard deviation of fresh weights from features to the stream: the update starts small beside embeddings of 0.1."""
_LEAK = -3.0
"""Logit of the twin's fresh leaks: 5 % a period, so that it forgets as little as a fresh circuit does."""


@dataclass(frozen=True)
class TimeCrystalConfig:
    """``circuit``: JSON of the circuit, one input per wire; "" for ``time_crystal_circuit(n_wires, periods)``.
    ``periods``: T, which sets the sign of the readout and the twin's steps."""

    n_wires: int = 4
    periods: int = 4
    circuit: str = ""
    quantum: str = "circuit"

    def __post_init__(self) -> None:
        check_types("time_crystal", self)
        check_mode(self.quantum)
        integer("time_crystal", "periods", self.periods, 1)
        if not self.circuit:
            integer("time_crystal", "n_wires", self.n_wires, 2)
            object.__setattr__(self, "circuit", time_crystal_circuit(self.n_wires, self.periods).to_json())
        circuit = Circuit.from_json(self.circuit)
        if circuit.n_wires < 2 or circuit.n_inputs != circuit.n_wires:
            raise ValueError(
                f"time_crystal expects a circuit of at least 2 wires with one input each, got {circuit.n_wires} wires "
                f"and {circuit.n_inputs} inputs; begin it with angle_encoding."
            )


def time_crystal_circuit(n_wires: int, periods: int) -> Circuit:
    """Return RY(x_i) on each wire, then ``periods`` periods of ``kicked_ising`` with 2n trainable angles.

    Each weight is added to a gate's angle: w_0 to pi (the kick, g = 1 + w_0 / pi), n - 1 to phi_i / 2 and n to h_i of
    one fixed draw of disorder, so that fresh weights N(0, 0.1) stand in the time-crystal phase (g within 0.03 of 1).

    >>> circuit = time_crystal_circuit(3, 2)
    >>> circuit.n_inputs, circuit.n_weights
    (3, 6)
    """
    disorder = draw_disorder(n_wires, 1)
    couplings, fields = disorder.phi[0].tolist(), disorder.h[0].tolist()
    return angle_encoding(n_wires) + kicked_ising(
        n_wires,
        periods,
        g=Weight(0, scale=1 / math.pi, shift=1.0),
        phi=[Weight(1 + k, scale=2.0, shift=phi) for k, phi in enumerate(couplings)],
        h=[Weight(n_wires + k, shift=h) for k, h in enumerate(fields)],
    )


@dataclass(frozen=True, kw_only=True)
class TimeCrystalReport(CircuitReport):
    """What the last call did. ``kept``: the autocorrelation that T periods left, over the call's tokens and wires:
    ``sum z_i(T) z_i(0) / sum z_i(0)^2`` with ``z_i(0) = cos x_i`` and ``z_i(T) = (-1)^T <Z_i(T)>``: 1 for a perfect
    time crystal and for "off", near 0 where the chain has melted; no bound, since the drive mixes wires.
    ``output_share`` is the norm of what the drive changed in the update over that of the update."""

    kept: float


class TimeCrystal(Block):
    """``h + W' z(T)``: angles ``x = pi tanh(W norm(h))`` prepare n spins, T periods drive them, z is read.

    ``z_i = (-1)^T <Z_i(T)>``, the sign undoing the period doubling; ``<Z_i(0)> = cos x_i``. The couplings, fields and
    the kick are trained. For "twin" see ``LeakyTwin``; "off" reads z = cos x without a drive. Each token has a register
    of its own, hence causal; padding is left as it is and runs no circuit. Cost: O(n d), and one circuit of
    ``T (3 n - 1) + n`` gates per token.

    What holds of time crystals and what does not: how long the order lives grows with the length of the chain, and not
    with the depth of a network around it; four spins are no phase of matter. A classical vector has no such coherence:
    the twin's sign flips are put in by hand. And period doubling alone is no time crystal, since free spins at g = 1
    show it too; rigidity against g, from any initial state, is one (``qlm.floquet.prethermal_control``).

    Source: the time-crystal layer of HSMN (equations 11 and 12), as the circuit of Mi et al. 2022, Nature 601, 531.

    >>> block = TimeCrystal(8, TimeCrystalConfig(n_wires=2, periods=3)).eval()
    >>> _ = block(torch.randn(1, 3, 8), Context())
    >>> block.report.tokens, block.report.executions
    (3, 3)
    """

    Config = TimeCrystalConfig
    holds_circuit = True
    report: TimeCrystalReport | None = None

    def __init__(self, d_model: int, config: TimeCrystalConfig, backend: str | Backend = "statevector") -> None:
        super().__init__()
        self.config = config
        self.circuit = Circuit.from_json(config.circuit)
        n_wires = self.circuit.n_wires
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.encode = nn.Linear(d_model, n_wires)
        self.core = build_part(
            config.quantum,
            self.circuit,
            lambda kept: CircuitCore(kept, _readout(n_wires, config.periods), backend),
            lambda: LeakyTwin(n_wires, config.periods, self.circuit.n_weights),
        )
        self.decode = nn.Linear(n_wires, d_model, bias=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start with a small update, and the twin with small leaks."""
        nn.init.normal_(self.decode.weight, 0.0, _DECODE_SPREAD)
        if isinstance(self.core, LeakyTwin):
            self.core.reset_parameters()

    @property
    def circuit_core(self) -> CircuitCore | None:
        """The circuit's part, None where a classical control stands in its place."""
        return self.core if isinstance(self.core, CircuitCore) else None

    def angles(self, hidden: Tensor) -> Tensor:
        """Return the circuit's input angles (..., n) in (-pi, pi) for the residual stream (..., d)."""
        return math.pi * torch.tanh(self.encode(self.norm(hidden)))

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        return BlockOutput(update_tokens(hidden, context.mask, self._update))

    def _update(self, tokens: Tensor) -> Tensor:
        """What is added to real tokens (m, d)."""
        angles = self.angles(tokens)
        before = torch.cos(angles)
        after = before if self.core is None else self.core(angles)
        update = self.decode(after.to(tokens.dtype))
        self._write_report(before.detach(), after.detach(), update.detach())
        return update

    @writes_report
    def _write_report(self, before: Tensor, after: Tensor, update: Tensor) -> None:
        power = float(before.square().sum())
        changed = self.decode((after - before).to(update.dtype))
        self.report = TimeCrystalReport(
            tokens=len(update),
            executions=0 if self.circuit_core is None else len(update),
            shots=None if self.circuit_core is None else self.circuit_core.shots,
            output_share=norm_share(changed, update),
            kept=float((after * before).sum()) / power if power > 0 else 0.0,
        )


class LeakyTwin(QuantumPart):
    """T steps of sign-flipping leaky units: ``u_i <- -((1 - a_i) u_i + a_i tanh(c_i u_{i+1}))``, read as ``(-1)^T u``.

    ``u_i(0) = cos x_i``, the leak ``a_i = sigmoid(l_i)``, i + 1 modulo n. Two numbers for each wire, l and c: 2n, as
    many as the circuit's kick, couplings and fields; ValueError for a circuit whose weights differ from that by more
    than one unit and 2 %. No leak is the identity, as g = 1 is for the circuit. Outputs are in [-1, 1].

    >>> LeakyTwin(4, 3, 8).n_parameters
    8
    """

    def __init__(self, n_wires: int, periods: int, n_weights: int) -> None:
        super().__init__()
        if abs(2 * n_wires - n_weights) > max(2, 0.02 * n_weights):
            raise ValueError(
                f"a leaky twin expects a circuit of {2 * n_wires} weights, got {n_weights}; train the kick, the "
                "couplings and the fields, or use another mode."
            )
        self.periods = periods
        self.leak = nn.Parameter(torch.zeros(n_wires))
        self.coupling = nn.Parameter(torch.zeros(n_wires))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start with small leaks towards the neighbour."""
        nn.init.normal_(self.leak, _LEAK, WEIGHT_SPREAD)
        nn.init.normal_(self.coupling, 1.0, WEIGHT_SPREAD)

    def forward(self, angles: Tensor) -> Tensor:
        leak, units = torch.sigmoid(self.leak), torch.cos(angles)
        for _ in range(self.periods):
            neighbours = torch.tanh(self.coupling * units.roll(-1, -1))
            units = -((1 - leak) * units + leak * neighbours)
        return units if self.periods % 2 == 0 else -units


def _readout(n_wires: int, periods: int) -> tuple[PauliSum, ...]:
    """``(-1)^T Z_i`` of each wire."""
    return tuple((-1.0) ** periods * Z(wire) for wire in range(n_wires))
