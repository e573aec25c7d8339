"""Quantum natural gradient: descent in the geometry of a circuit's states, as a torch optimizer.

Axis legend: b batch, i inputs, w weights of one circuit.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from backends.fubini_study import block_metric, trainable_layers
from qlm.quantum import QuantumLayer


class _Watch:
    """A forward hook that keeps up to ``limit`` samples of a layer's last call with gradients, spread over the batch.

    Their numbers are multiples, modulo the batch, of a step near its golden section that shares no factor with it: even
    spacing would meet the same position of every row where batch and sequence are one axis.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inputs: Tensor | None = None

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        if not torch.is_grad_enabled() or not output.numel():
            return
        inputs: Tensor = (args[0] if args else kwargs["inputs"]).detach()
        rows = inputs.flatten(0, -2) if inputs.ndim > 1 else inputs[None]
        step = round(0.618 * len(rows)) or 1
        while math.gcd(step, len(rows)) > 1:
            step += 1
        chosen = torch.arange(min(self.limit, len(rows)), device=rows.device) * step % len(rows)
        self.inputs = rows[chosen]


class QuantumNaturalGradient(torch.optim.Optimizer):
    """``w <- w - lr d`` with ``(g + damping 1) d = dL/dw``, g the block-diagonal Fubini-Study metric of each circuit.

    For the weights of the QuantumLayers in ``layers``, one module or several; a model's other parameters go to another
    optimizer, see ``others``. g is averaged over up to ``samples`` inputs of the layer's last forward call with
    gradients, spread over that batch, and measured on the layer's own backend: exactly on a simulator, from
    counts elsewhere (its negative eigenvalues, which only noise can give, count as 0). A layer whose weights have no
    gradient is left alone. With damping 0 directions in which the state does not move are left out; large damping is
    gradient descent at rate ``lr / damping``. On a backend with shots each step draws its seeds from torch's generator.

    Raises TypeError or ValueError for what holds no trainable QuantumLayer, circuits with resets, numbers out of
    range, and a step before any forward call. Cost of a step: one backend call per layer of gates, ``samples`` circuits
    each, and O(w^3). Weights of several processes would drift apart: for one process alone.

    Source: Stokes, Izaac, Killoran, Carleo 2020, Quantum 4, 269, equation 5.

    >>> from circuits import Z
    >>> from circuits.library import reuploading
    >>> model = nn.Sequential(QuantumLayer(reuploading(2, 1), (Z(0),)), nn.Linear(1, 1))
    >>> quantum = QuantumNaturalGradient(model, lr=0.1)
    >>> classical = torch.optim.AdamW(quantum.others(model), lr=0.01)
    >>> model(torch.ones(8, 2)).square().mean().backward()
    >>> for optimizer in (quantum, classical):
    ...     _ = optimizer.step()
    """

    def __init__(
        self,
        layers: nn.Module | Iterable[nn.Module],
        lr: float = 0.01,
        damping: float = 1e-3,
        samples: int = 64,
    ) -> None:
        for name, value, least in (("lr", lr, 0.0), ("damping", damping, 0.0)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
                raise ValueError(f"QuantumNaturalGradient expects {name} of at least 0, got {value!r}; try 0.01.")
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise ValueError(f"QuantumNaturalGradient expects a positive number of samples, got {samples!r}; try 64.")
        self._layers = _trainable(layers)
        super().__init__([{"params": [layer.weights]} for layer in self._layers], {"lr": lr, "damping": damping})
        self._watches = [_Watch(samples) for _ in self._layers]
        self._hooks = [
            layer.register_forward_hook(watch, with_kwargs=True)
            for layer, watch in zip(self._layers, self._watches, strict=True)
        ]

    def others(self, model: nn.Module) -> list[nn.Parameter]:
        """Return the model's trainable parameters that this optimizer does not move: those for a classical one."""
        own = {id(layer.weights) for layer in self._layers}
        return [p for p in model.parameters() if p.requires_grad and id(p) not in own]

    def close(self) -> None:
        """Let go of the layers: their inputs are no longer kept."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] -- torch overloads it by closure
        """Move the weights once; returns the closure's loss where one is given, else None."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, layer, watch in zip(self.param_groups, self._layers, self._watches, strict=True):
            if layer.weights.grad is None:
                continue
            if watch.inputs is None:
                raise ValueError(
                    f"QuantumNaturalGradient expects a forward call of layer '{layer.label}' before a step, got none; "
                    "its metric is taken at that call's inputs."
                )
            direction = natural_direction(layer, watch.inputs, layer.weights.grad, group["damping"])
            layer.weights.add_(direction, alpha=-group["lr"])
        return loss


def _trainable(given: nn.Module | Iterable[nn.Module]) -> list[QuantumLayer]:
    """The distinct QuantumLayers with trainable weights."""
    several = isinstance(given, Iterable) and not isinstance(given, nn.Module)
    modules: list[Any] = list(given) if several else [given]  # pyright: ignore[reportArgumentType] -- iterable here
    for module in modules:
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"QuantumNaturalGradient expects a module or a list of them, got {type(module).__name__}; pass the "
                "model, not its parameters."
            )
    every = dict.fromkeys(part for module in modules for part in module.modules() if isinstance(part, QuantumLayer))
    found = [layer for layer in every if layer.weights.requires_grad and layer.weights.numel()]
    if not found:
        raise ValueError(
            "QuantumNaturalGradient expects a QuantumLayer with trainable weights, got none; a twin or a frozen "
            "circuit takes another optimizer."
        )
    for layer in found:
        trainable_layers(layer.circuit)  # refuses resets before training starts
    return found


def natural_direction(layer: QuantumLayer, inputs: Tensor, gradient: Tensor, damping: float) -> Tensor:
    """Return d of ``(g + damping 1) d = gradient``, shape (w,), with g at inputs (b, i), negative eigenvalues set to 0.

    Directions whose eigenvalue plus damping is below 1e-9 are left out. Solved in float64.

    >>> from circuits import Circuit, Op, Weight, Z
    >>> layer = QuantumLayer(Circuit(1, (Op("ry", (0,), (Weight(0),)),)), (Z(0),))
    >>> natural_direction(layer, torch.zeros(1, 0), torch.tensor([1.0]), damping=0.0)  # g = 1/4
    tensor([4.])
    """
    counted = layer.backend.capabilities.shots
    seed = int(torch.randint(2**31, ()).item()) if counted else None
    weights = layer.weights.detach().to(inputs.device)
    metric = block_metric(layer.backend, layer.circuit, inputs, weights, seed=seed).values.double()
    eigenvalues, vectors = torch.linalg.eigh(metric)
    stiffness = eigenvalues.clamp(min=0) + damping
    moved = stiffness > 1e-9
    inverse = torch.where(moved, 1 / torch.where(moved, stiffness, 1.0), 0.0)
    return (vectors @ (inverse * (vectors.mT @ gradient.double().to(metric.device)))).to(gradient)
