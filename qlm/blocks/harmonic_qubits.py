"""The harmonic hierarchy with a qubit for each level and channel: leaky integrators by amplitude damping.

Axis legend: b batch, l sequence, d model width, k levels, m channels, n tokens.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from backends.base import Backend
from circuits import Circuit, Z
from circuits._check import integer
from circuits.library import generalised_damping
from circuits.passes import light_cone
from classical_kernels import scan
from qlm.blocks.base import Block, BlockOutput, CircuitReport, Context, norm_share, places, real_tokens, writes_report
from qlm.blocks.convolution import CausalConvolution
from qlm.controls import CircuitPart, QuantumPart, build_part, check_mode
from qlm.fields import check_types
from qlm.precision import at_least_single
from qlm.quantum import QuantumLayer

_OUT_SPREAD = 0.02
"""Standard deviation of fresh weights to the stream: the update starts small beside embeddings of 0.1."""
_MOST = 60.0
"""Largest logit of a decay: beyond it, decays and rates are 0 or 1 to the bit, and their angles have no slope."""


@dataclass(frozen=True)
class HarmonicQubitsConfig:
    """``taus``: time scale of each level in tokens, fast first; ``n_channels``: qubits of a level; ``taps``: reach of
    the causal convolution before them; ``circuit``: JSON of one step, with the inputs of ``generalised_damping()``, ""
    for that one without its resets, after which a step reads nothing."""

    taus: tuple[float, ...] = (4.0, 32.0, 128.0)
    n_channels: int = 16
    taps: int = 4
    circuit: str = ""
    quantum: str = "circuit"

    def __post_init__(self) -> None:
        check_types("harmonic_qubits", self)
        check_mode(self.quantum)
        integer("harmonic_qubits", "n_channels", self.n_channels, 1)
        object.__setattr__(self, "taus", tuple(float(tau) for tau in self.taus))
        if not self.taus or min(self.taus) <= 0 or self.taps < 1:
            raise ValueError(f"harmonic_qubits expects positive taus and taps >= 1, got {self.taus} and {self.taps}.")
        if not self.circuit:
            object.__setattr__(self, "circuit", light_cone(generalised_damping(), Z(0)).to_json())
        circuit = Circuit.from_json(self.circuit)
        if (circuit.n_inputs, circuit.n_weights) != (3, 0):
            raise ValueError(
                "harmonic_qubits expects a circuit of 3 inputs and no weights, got "
                f"{circuit.n_inputs} and {circuit.n_weights}; take generalised_damping()."
            )


@dataclass(frozen=True)
class Drive:
    """What moves the levels: inputs (b, l, m) in [-1, 1] of the first one, decays' logits (b, l, k, m), predictions'
    gains (k - 1, m) in (0, 1), the levels before (b, k, m), and which tokens (b, l) are real."""

    values: Tensor
    logits: Tensor
    gains: Tensor
    first: Tensor
    real: Tensor


class HarmonicQubits(Block):
    """Levels ``z_k(t) = a_k z_k(t-1) + (1 - a_k) x_k(t)``, each channel a qubit that relaxes towards x.

    ``x_1 = tanh(v(t))`` and ``x_{k+1}(t) = (z_k(t) - p z_{k+1}(t-1)) / 2``: the error of ``Harmonic``, halved so that
    it is a polarisation, with the factor 2 put back where levels are read, ``y = x_1 + z_1 + 2 (z_2 + ... )``. Decays
    and predictions start as in ``Harmonic``. A step of a level is one circuit (``generalised_damping``), which prepares
    the qubit with the ``<Z>`` of the step before and reads ``<Z>``: exact, since the state stays diagonal. For the same
    reason nothing here is beyond a classical computer: the levels are a classical Markov chain of two states, and
    "twin" computes the same numbers with a scan. The circuit has no weights, and neither has the twin; "separable"
    removes the bath, so that the levels stay 0, and "off" has no levels. State: z (b, k, m) and the last inputs of the
    convolution (b, c - 1, m). Padding moves no level and runs no circuit.

    Cost: O(l d m k), and k m circuits of 3 qubits for each token, in l k calls one after the other.

    Source: the hierarchy of the Harmonic system (Zenodo 20381713); Nielsen & Chuang, section 8.3.5.

    >>> block = HarmonicQubits(8, HarmonicQubitsConfig(taus=(4.0,), n_channels=2)).eval()
    >>> output = block(torch.zeros(1, 3, 8), Context())
    >>> output.state[0].shape, block.report.executions
    (torch.Size([1, 1, 2]), 6)
    """

    Config = HarmonicQubitsConfig
    holds_circuit = True
    report: CircuitReport | None = None

    def __init__(self, d_model: int, config: HarmonicQubitsConfig, backend: str | Backend = "statevector") -> None:
        super().__init__()
        self.config = config
        self.n_levels, channels = len(config.taus), config.n_channels
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.value = nn.Linear(d_model, channels, bias=False)
        self.convolution = CausalConvolution(channels, config.taps)
        self.mix = nn.Linear(channels, channels, bias=False)
        self.gate = nn.Linear(d_model, channels, bias=False)
        self.decay = nn.Linear(d_model, self.n_levels * channels)
        self.prediction = nn.Parameter(torch.zeros(self.n_levels - 1, channels))
        self.core = build_part(
            config.quantum, Circuit.from_json(config.circuit), lambda kept: QubitLevels(kept, backend), LeakyLevels
        )
        self.out = nn.Linear(channels, d_model, bias=False)
        if isinstance(self.core, QubitLevels):
            self.core.layer.weights.requires_grad_(False)  # there are none
        if self.core is None:  # distributed training waits for every gradient it was promised
            self.decay.requires_grad_(False)
        if self.core is None or self.n_levels == 1:
            self.prediction.requires_grad_(False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        rates = [1 / tau for tau in self.config.taus]
        logits = torch.tensor([-rate - math.log(-math.expm1(-rate)) for rate in rates])  # of exp(-1 / tau)
        self.decay.bias.copy_(logits.repeat_interleave(self.config.n_channels))
        nn.init.normal_(self.decay.weight, 0.0, 0.2 / math.sqrt(self.decay.in_features))
        nn.init.zeros_(self.prediction)
        nn.init.normal_(self.out.weight, 0.0, _OUT_SPREAD)

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        real = real_tokens(hidden, context.mask)
        normed = torch.where(real[..., None], self.norm(hidden), 0)
        first, tail = context.state or (None, None)
        u, tail = self.convolution(self.value(normed), tail)
        values = torch.tanh(at_least_single(self.mix(u)))
        if first is None:
            first = values.new_zeros(len(values), self.n_levels, values.shape[2])
        logits = at_least_single(self.decay(normed)).clamp(-_MOST, _MOST).unflatten(2, (self.n_levels, -1))
        gains = torch.sigmoid(at_least_single(self.prediction))
        drive = Drive(values, logits, gains, first.to(values.dtype), real)
        with torch.autocast(hidden.device.type, enabled=False):
            levels = self._levels(drive)
        gate = functional.silu(self.gate(normed))
        read = levels[:, :, 0] + 2 * levels[:, :, 1:].sum(2)
        update = self.out((values + read).to(gate.dtype) * gate)
        self._write_report(real, self.out(read.to(gate.dtype) * gate), update)
        after = torch.cat((drive.first[:, None], levels), 1)[:, -1].clone()
        return BlockOutput(hidden + update, (after, tail))

    def _levels(self, drive: Drive) -> Tensor:
        """The levels (b, l, k, m) after each token."""
        if self.core is None:
            return torch.zeros_like(drive.logits)
        return self.core(drive).unflatten(0, drive.real.shape)

    @writes_report
    def _write_report(self, real: Tensor, added: Tensor, update: Tensor) -> None:
        tokens, part = int(real.sum()), self.core
        runs = isinstance(part, QubitLevels)
        self.report = CircuitReport(
            tokens=tokens,
            executions=tokens * self.n_levels * self.config.n_channels if runs else 0,
            shots=part.shots if runs else None,
            output_share=norm_share(added[real], update[real]),
        )


class QubitLevels(CircuitPart[QuantumLayer]):
    """The levels by one circuit for each token, level and channel: (n, k, m), one row for each token, padding included.

    >>> drive = Drive(torch.ones(1, 2, 1), torch.zeros(1, 2, 1, 1), torch.ones(0, 1), torch.zeros(1, 1, 1),
    ...     torch.ones(1, 2, dtype=torch.bool))
    >>> QubitLevels(light_cone(generalised_damping(), Z(0)), "statevector")(drive).flatten().round(decimals=4).tolist()
    [0.5, 0.75]
    """

    def __init__(self, circuit: Circuit, backend: str | Backend) -> None:
        super().__init__(QuantumLayer(circuit, (Z(0),), backend))

    def forward(self, drive: Drive) -> Tensor:
        swaps = torch.atan(torch.exp(-drive.logits / 2))  # arcsin sqrt(1 - a), of a = sigmoid(logit)
        before, rows = drive.first, []
        for t in range(drive.values.shape[1]):
            chosen = places(drive.real[:, t])
            signal, after = drive.values[chosen, t], []
            for level, z in enumerate(before[chosen].unbind(1)):
                target = (signal - drive.gains[level - 1] * z) / 2 if level else signal
                signal = self._step(z, target, swaps[chosen, t, level])
                after.append(signal)
            moved = before.index_copy(0, chosen, torch.stack(after, 1))
            before = torch.where(drive.real[:, t, None, None], moved, before)
            rows.append(before)
        return torch.stack(rows, 1).flatten(0, 1) if rows else drive.logits.flatten(0, 1)

    def _step(self, z: Tensor, target: Tensor, swap: Tensor) -> Tensor:
        """``<Z>`` after one step of qubits (n, m)."""
        angles = torch.stack((_polar(z), _polar(target), swap), -1)
        return self.layer(angles.flatten(0, -2)).reshape(z.shape)


class LeakyLevels(QuantumPart):
    """The same numbers by a scan for each level, without a circuit and without a weight.

    >>> LeakyLevels().n_parameters
    0
    """

    def forward(self, drive: Drive) -> Tensor:
        signal, levels = drive.values, []
        for level, a in enumerate(torch.sigmoid(drive.logits).unbind(2)):
            gain = drive.gains[level - 1] / 2 if level else 0.0
            share = (1 - a) / 2 if level else 1 - a
            signal, _ = scan(a - (1 - a) * gain, share * signal, drive.first[:, level], mask=drive.real)
            levels.append(signal)
        return torch.stack(levels, 2).flatten(0, 1)


def _polar(z: Tensor) -> Tensor:
    """The angle (radians) of a qubit with ``<Z> = z``; at the poles its slope is that of a point just before them."""
    bound = 1 - 4 * torch.finfo(z.dtype).eps
    return torch.acos(z.clamp(-bound, bound))
