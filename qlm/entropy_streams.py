"""What a text feeds the circuits of a model: the model as it is, at step 0, and on permutations of the text.

Axis legend: l tokens, i inputs of a circuit, v vocabulary.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from qlm.entropy_probes import MeasurableBlock, Probe, named_blocks
from qlm.modeling import QLMForCausalLM
from qlm.tokenizer import EOS_ID


@contextmanager
def untouched(model: nn.Module, seed: int) -> Iterator[None]:
    """Evaluation mode with a seeded generator; each module's mode and torch's random state come back afterwards.

    >>> layer = nn.Dropout()
    >>> with untouched(layer, 0):
    ...     print(layer.training)
    False
    """
    modes = [(module, module.training) for module in model.modules()]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


def at_step_zero(model: QLMForCausalLM, seed: int) -> QLMForCausalLM:
    """Return the same config initialised with the seed, on the model's backend, device and dtype."""
    torch.manual_seed(seed)
    own = next(layer.backend for _, layer in model.quantum_layers())
    fresh = QLMForCausalLM(copy.deepcopy(model.config), own)
    return fresh.to(device=model.device, dtype=model.dtype).eval()  # pyright: ignore[reportCallIssue] -- nn.Module.to


class _LastReached(Exception):
    """The last block of interest has its input; what comes after it is not needed."""


def read_streams(model: QLMForCausalLM, ids: Tensor, probes: Mapping[str, Probe]) -> dict[str, Tensor]:
    """Return each probe's circuit inputs (l, i), float64, for token ids (l,) after one end-of-text token.

    The model runs up to the last of the probes' blocks.
    """
    streams: dict[str, Tensor] = {}
    last = list(probes)[-1]

    def stop(*_: Any) -> None:
        raise _LastReached

    with _kept(model, probes, streams):
        handle = named_blocks(model)[last].register_forward_pre_hook(stop)  # after the hook that keeps the stream
        try:
            _run(model, ids)
        except _LastReached:
            pass
        finally:
            handle.remove()
    return _inputs(model, probes, streams)


def read_streams_and_logits(
    model: QLMForCausalLM, ids: Tensor, probes: Mapping[str, Probe]
) -> tuple[dict[str, Tensor], Tensor]:
    """Return as ``read_streams`` does, and the whole model's logits (l, v) of each token from its past."""
    streams: dict[str, Tensor] = {}
    with _kept(model, probes, streams):
        logits = _run(model, ids)
    return _inputs(model, probes, streams), logits


@contextmanager
def _kept(model: QLMForCausalLM, probes: Mapping[str, Probe], streams: dict[str, Tensor]) -> Iterator[None]:
    """Write the residual stream that enters each probe's block into ``streams``."""
    blocks = named_blocks(model)

    def keep(name: str) -> "torch.utils.hooks.RemovableHandle":
        return blocks[name].register_forward_pre_hook(lambda _, args: streams.__setitem__(name, args[0]))

    handles = [keep(name) for name in probes]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run(model: QLMForCausalLM, ids: Tensor) -> Tensor:
    """Logits (l, v) of each token from its past."""
    start = ids.new_full((1,), EOS_ID)
    return model(torch.cat((start, ids))[None], use_cache=False).logits[0, :-1]


def _inputs(model: QLMForCausalLM, probes: Mapping[str, Probe], streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The circuits' inputs, from the model's own blocks (the model at step 0 has others than the probes')."""
    blocks = cast(Mapping[str, MeasurableBlock], named_blocks(model))
    inputs = {name: blocks[name].angles(streams[name][0, 1:]).double() for name in probes}
    for name, angles in inputs.items():
        if not bool(torch.isfinite(angles).all()):
            raise ValueError(
                f"measure_entropy expects finite angles in block '{name}', got NaN or infinity; retrain the model."
            )
    return inputs


def surprisals(logits: Tensor, ids: Tensor) -> list[float]:
    """Return ``-log p(token | its past)`` in nats, of logits (l, v) and token ids (l,); ValueError where not finite.

    >>> surprisals(torch.zeros(1, 4), torch.tensor([2]))
    [1.3862943611198906]
    """
    log_p = torch.log_softmax(logits.double(), -1).gather(1, ids[:, None]).squeeze(1)
    if not bool(torch.isfinite(log_p).all()):
        at = int((~torch.isfinite(log_p)).nonzero()[0])
        raise ValueError(
            f"measure_entropy expects finite logits, got {log_p[at].item()} at token {at}; retrain the model."
        )
    return (-log_p).tolist()
