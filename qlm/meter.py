"""Counts what a training run does: losses, tokens, time, circuit executions, routing, gradients of circuits."""

import math
import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qlm.blocks.base import CircuitReport
from qlm.blocks.quantum_router import RouterReport
from qlm.modeling import QLMForCausalLM

PLATEAU = 1e-6
"""Variance of a circuit's gradient below which it learns next to nothing."""


class BarrenPlateauWarning(UserWarning):
    """A circuit's gradient has all but vanished.

    >>> issubclass(BarrenPlateauWarning, UserWarning)
    True
    """


def circuit_reports(model: QLMForCausalLM) -> dict[str, CircuitReport]:
    """Return the reports of the last call of parts that hold a circuit or its stand-in.

    >>> from qlm.config import QLMConfig
    >>> circuit_reports(QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "harmonic"}])))
    {}
    """
    return {name: report for name, report in model.reports().items() if isinstance(report, CircuitReport)}


@dataclass
class _Interval:
    """Sums since the last log."""

    steps: int = 0
    auxiliary: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    routed: float = 0.0
    routable: int = 0


class Meter:
    """Watches a model through training steps; ``line`` returns the figures since the last one.

    ``tokens_per_byte`` of the training text turns nats a token into bits per byte.

    ``executions`` counts the circuits of forward passes, two per token on the quantum path (features and entropy); a
    shift rule's own circuits come on top. ``seconds`` counts steps alone, without validation and saving; ``rate``
    (tokens per second) leaves out the first step too, in which kernels are compiled. The variance of a circuit's
    gradient is taken over its weights and averaged over the interval; below 1e-6 a BarrenPlateauWarning is given, once
    per layer.
    """

    def __init__(self, model: QLMForCausalLM, tokens_per_byte: float = 1.0) -> None:
        self.model = model
        self.tokens_per_byte = tokens_per_byte
        self.tokens = 0
        self.seconds = 0.0
        self.executions = 0
        self._interval = _Interval()
        self._timed_tokens, self._timed_seconds = 0, 0.0
        self._warm = False
        self._variances: dict[str, list[float]] = {}
        self._warned: set[str] = set()
        self._started = 0.0
        self._auxiliary = 0.0
        self._hook = model.model.register_forward_hook(self._keep_auxiliary)

    def close(self) -> None:
        """Let go of the model."""
        self._hook.remove()

    def resume(self, lines: list[dict[str, Any]]) -> None:
        """Continue the totals of an earlier part of the run."""
        for line in lines:
            if "circuit_executions" in line:
                self.executions, self.tokens, self.seconds = line["circuit_executions"], line["tokens"], line["seconds"]

    @property
    def rate(self) -> float:
        """Tokens per second of the steps after the first; 0 before there is one."""
        return self._timed_tokens / self._timed_seconds if self._timed_seconds else 0.0

    def start_step(self) -> None:
        """A step begins."""
        self._started = time.perf_counter()

    def after_backward(self, n_tokens: int) -> None:
        """Read the blocks' reports and the circuits' gradients."""
        reports = circuit_reports(self.model).values()
        self.executions += sum(report.executions for report in reports)
        routers = [report for report in reports if isinstance(report, RouterReport)]
        self._interval.routed += sum(report.routed_share * report.tokens for report in routers)
        self._interval.routable += sum(report.tokens for report in routers)
        self._interval.auxiliary += self._auxiliary
        self._interval.tokens += n_tokens
        self.tokens += n_tokens
        self._timed_tokens += n_tokens if self._warm else 0
        for name, layer in self.model.quantum_layers():
            gradient = layer.weights.grad
            # All zeros mean that no token reached the circuit, which says nothing about its landscape.
            if gradient is not None and gradient.numel() > 1 and bool(gradient.any()):
                self._variances.setdefault(name, []).append(float(gradient.var(correction=0)))

    def end_step(self) -> None:
        """A step is done."""
        elapsed = time.perf_counter() - self._started
        self._interval.steps += 1
        self._interval.seconds += elapsed
        self.seconds += elapsed
        self._timed_seconds += elapsed if self._warm else 0.0
        self._warm = True

    def line(self, loss: float) -> dict[str, Any]:
        """Return the interval's figures: losses in nats, the auxiliary ones in ``loss`` alone; and start a new one."""
        interval, self._interval = self._interval, _Interval()
        variances = {name: sum(values) / len(values) for name, values in self._variances.items()}
        self._variances = {}
        self._warn(variances)
        cross_entropy = loss - interval.auxiliary / max(1, interval.steps)
        return {
            "loss": loss,
            "cross_entropy": cross_entropy,
            "bits_per_byte": cross_entropy * self.tokens_per_byte / math.log(2),
            "tokens": self.tokens,
            "seconds": self.seconds,
            "tokens_per_second": interval.tokens / interval.seconds if interval.seconds else 0.0,
            "circuit_executions": self.executions,
            "routed_share": interval.routed / max(1, interval.routable),
            "gradient_variance": variances,
            "output_share": {name: report.output_share for name, report in circuit_reports(self.model).items()},
        }

    def _warn(self, variances: dict[str, float]) -> None:
        for name, variance in variances.items():
            if variance < PLATEAU and name not in self._warned:
                self._warned.add(name)
                warnings.warn(
                    f"layer '{name}': the variance of its gradient is {variance:.1e}, below {PLATEAU:g}: a barren "
                    "plateau, or a circuit that the rest of the model ignores; see its output_share, or use fewer "
                    "wires or layers.",
                    BarrenPlateauWarning,
                    stacklevel=2,
                )

    def _keep_auxiliary(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        auxiliary: Tensor | None = output.auxiliary_loss
        self._auxiliary = float(auxiliary.detach()) if isinstance(auxiliary, torch.Tensor) else 0.0
