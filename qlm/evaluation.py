"""What a trained model is worth: bits per byte, what its circuit does and costs, and what happens without it.

Axis legend: b windows, l tokens, v vocabulary, o observables.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qlm.blocks.quantum_router import RouterReport
from qlm.controls import QuantumPart
from qlm.data import IGNORED_LABEL, TokenWindows
from qlm.encoders import ByteEncoder, TextEncoder
from qlm.meter import circuit_reports
from qlm.modeling import QLMForCausalLM
from qlm.modes import evaluating

CONTEXT = 512
BATCH_SIZE = 16
CALIBRATION = 16384
_GRADIENT_BATCH = 4096
"""Bytes of text for the mean of the circuit's output, and for its gradient."""


@dataclass(frozen=True)
class ParameterCount:
    """Numbers that are trained: ``embedding`` (tied weights once), ``core`` (everything else, ``circuit`` and ``twin``
    included), ``circuit`` (weights of circuits) and ``twin`` (what stands in a circuit's place).

    >>> ParameterCount(10, 90, 36, 0).total
    100
    """

    embedding: int
    core: int
    circuit: int
    twin: int

    @property
    def total(self) -> int:
        """Embedding and core."""
        return self.embedding + self.core


@dataclass(frozen=True)
class Ablation:
    """Bits per byte as trained, and with the circuit's output (or its stand-in's) replaced by its mean.

    >>> round(Ablation(2.0, 2.5).change, 3)
    0.5
    """

    intact: float
    replaced: float

    @property
    def change(self) -> float:
        """How many bits per byte the output is worth; about 0 for a model that ignores its circuit."""
        return self.replaced - self.intact


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one text. ``bits_per_byte`` does not depend on the tokenizer; ``perplexity`` is per byte.

    ``routed_share`` of tokens on the quantum path, ``circuit_executions`` of one pass over the text,
    ``tokens_per_second`` of that pass, ``circuit_gradient_norm`` on a fixed batch (of the twin's parameters where one
    stands in the circuit's place), ``ablation_change`` in bits per byte.

    >>> Evaluation(100, 1.0, 0.2, 20, 5e3, 0.01, 0.3, ParameterCount(1, 2, 0, 0)).perplexity
    2.0
    """

    n_bytes: int
    bits_per_byte: float
    routed_share: float
    circuit_executions: int
    tokens_per_second: float
    circuit_gradient_norm: float
    ablation_change: float
    parameters: ParameterCount

    @property
    def perplexity(self) -> float:
        """``2 ** bits_per_byte``, per byte."""
        return 2**self.bits_per_byte


def evaluate_model(
    model: QLMForCausalLM,
    data: bytes,
    calibration: bytes,
    context: int = CONTEXT,
    batch_size: int = BATCH_SIZE,
    encoder: TextEncoder | None = None,
) -> Evaluation:
    """Measure a model on ``data``; means for the ablation and the gradient's batch come from ``calibration``.

    ``encoder`` None: bytes. Cost: two passes over the data, and two over 16 kB of calibration text at most.
    """
    passes = _Pass(model, context, batch_size, encoder)
    started = time.perf_counter()
    bits = passes.bits_per_byte(data)
    seconds = time.perf_counter() - started
    routed, executions = passes.routed / max(1, passes.tokens), passes.executions
    part = calibration[:CALIBRATION]
    return Evaluation(
        n_bytes=len(data),
        bits_per_byte=bits,
        routed_share=routed,
        circuit_executions=executions,
        tokens_per_second=passes.n_ids / seconds,
        circuit_gradient_norm=circuit_gradient_norm(model, part[:_GRADIENT_BATCH], context, encoder),
        ablation_change=_with_mean_output(passes, data, part) - bits,
        parameters=count_parameters(model),
    )


def bits_per_byte(
    model: QLMForCausalLM,
    data: bytes,
    context: int = CONTEXT,
    batch_size: int = BATCH_SIZE,
    encoder: TextEncoder | None = None,
) -> float:
    """Return ``-sum log2 p(token | its past in the window) / n bytes``, each token predicted once, in evaluation mode.

    ``encoder`` None: each byte is a token. Windows overlap by one token and the text follows an end-of-text token, see
    ``TokenWindows``. The model's mode comes back. Raises ValueError for no data or a context below 2. Cost O(n).

    >>> from qlm.config import QLMConfig
    >>> _ = torch.manual_seed(0)
    >>> model = QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "harmonic"}]))
    >>> abs(bits_per_byte(model, b"some text", context=4) - math.log2(258)) < 0.5
    True
    """
    return _Pass(model, context, batch_size, encoder).bits_per_byte(data)


def perplexity(model: QLMForCausalLM, data: bytes, context: int = CONTEXT, batch_size: int = BATCH_SIZE) -> float:
    """Return ``2 ** bits_per_byte``: the perplexity per byte."""
    return 2 ** bits_per_byte(model, data, context, batch_size)


def count_parameters(model: QLMForCausalLM) -> ParameterCount:
    """Count a model's parameters, shared ones once.

    >>> from qlm.config import QLMConfig
    >>> count_parameters(QLMForCausalLM(QLMConfig.preset("tiny-hybrid", d_model=32))).circuit
    36
    """
    embedding = model.get_input_embeddings().weight.numel()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    total = sum(parameter.numel() for parameter in model.parameters())
    circuit = sum(layer.weights.numel() for _, layer in model.quantum_layers())
    twin = sum(part.n_parameters for part in _parts(model) if part.is_twin)
    return ParameterCount(embedding, total - embedding, circuit, twin)


def circuit_ablation(
    model: QLMForCausalLM,
    data: bytes,
    calibration: bytes,
    context: int = CONTEXT,
    batch_size: int = BATCH_SIZE,
) -> Ablation:
    """Compare bits per byte with those where each circuit's features (n, o) are replaced by their mean (o,).

    The mean is taken over all tokens that reach the circuit in the calibration text; entropies, and what follows from
    them, stay. Twins are treated alike; a model with neither changes by 0.

    >>> from qlm.config import QLMConfig
    >>> model = QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "harmonic"}]))
    >>> circuit_ablation(model, b"some text", b"more text").change
    0.0
    """
    passes = _Pass(model, context, batch_size)
    intact = passes.bits_per_byte(data)
    return Ablation(intact, _with_mean_output(passes, data, calibration))


def circuit_gradient_norm(
    model: QLMForCausalLM, data: bytes, context: int = CONTEXT, encoder: TextEncoder | None = None
) -> float:
    """Return the 2-norm of the loss' gradient (nats) for all circuit weights, or twins' parameters, on one batch.

    The batch is the whole of ``data``; evaluation mode, so that nothing is drawn at random. What reaches a circuit
    through its entropy counts too. Gradients that were there stay. 0 for a model without circuit or twin.
    """
    watched = [parameter for part in _parts(model) for parameter in part.parameters() if parameter.requires_grad]
    if not watched:
        return 0.0
    with evaluating(model):
        windows = _windows(data, context, encoder)
        inputs, labels = _stack(windows, range(len(windows)), model.device)
        loss = model(input_ids=inputs, labels=labels, use_cache=False).loss
        gradients = torch.autograd.grad(loss, watched, allow_unused=True)
    return math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None))


class _Pass:
    """Passes over texts; counts the tokens and circuits of the latest one."""

    def __init__(
        self, model: QLMForCausalLM, context: int, batch_size: int, encoder: TextEncoder | None = None
    ) -> None:
        self.model = model
        self.context = context
        self.batch_size = batch_size
        self.encoder = encoder
        self.n_ids = 0
        self.routed, self.tokens, self.executions = 0.0, 0, 0

    def bits_per_byte(self, data: bytes) -> float:
        windows = _windows(data, self.context, self.encoder)
        self.n_ids = len(windows.tokens) - 1
        self.routed, self.tokens, self.executions = 0.0, 0, 0
        total = torch.zeros((), dtype=torch.float64)
        with evaluating(self.model), torch.no_grad():
            for first in range(0, len(windows), self.batch_size):
                chosen = range(first, min(first + self.batch_size, len(windows)))
                inputs, labels = _stack(windows, chosen, self.model.device)
                logits = self.model(input_ids=inputs, use_cache=False).logits[:, :-1]
                losses = functional.cross_entropy(
                    logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED_LABEL, reduction="none"
                )
                total += losses.double().sum().cpu()
                for report in circuit_reports(self.model).values():
                    self.executions += report.executions
                    if isinstance(report, RouterReport):
                        self.routed += report.routed_share * report.tokens
                        self.tokens += report.tokens
        return float(total) / math.log(2) / len(data)


def _with_mean_output(passes: _Pass, data: bytes, calibration: bytes) -> float:
    """Bits per byte with the features of circuits and twins replaced by their means over the calibration text."""
    sums: dict[nn.Module, tuple[Tensor, int]] = {}

    def add(module: nn.Module, output: Tensor) -> None:
        total, n = sums.get(module, (torch.zeros_like(output[0], dtype=torch.float64), 0)) if len(output) else (None, 0)
        if total is not None:
            sums[module] = (total + output.double().sum(0), n + len(output))

    def replace(module: nn.Module, output: Tensor) -> Tensor:
        if module not in sums:
            return output
        total, n = sums[module]
        return (total / n).to(output.dtype).expand_as(output)

    with _watched(passes.model, add):
        passes.bits_per_byte(calibration)
    with _watched(passes.model, replace):
        return passes.bits_per_byte(data)


def _windows(data: bytes, context: int, encoder: TextEncoder | None) -> TokenWindows:
    chosen = ByteEncoder() if encoder is None else encoder
    return TokenWindows(chosen.encode(data), context, chosen.start_id, chosen.pad_id)


def _stack(windows: TokenWindows, chosen: range, device: torch.device) -> tuple[Tensor, Tensor]:
    items = [windows[index] for index in chosen]
    stacked = (torch.stack([item[key] for item in items]) for key in ("input_ids", "labels"))
    inputs, labels = (tensor.to(device) for tensor in stacked)
    return inputs, labels


def _parts(model: QLMForCausalLM) -> Iterator[QuantumPart]:
    """Circuits and twins."""
    return (module for module in model.modules() if isinstance(module, QuantumPart))


@contextmanager
def _watched(model: QLMForCausalLM, look: Callable[[nn.Module, Tensor], Tensor | None]) -> Iterator[None]:
    """Show each output of circuits and twins to ``look``, which may return another in its place."""

    def hook(module: nn.Module, _args: Any, output: Any) -> Tensor | None:
        return look(module, output)

    handles = [part.register_forward_hook(hook) for part in _parts(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
