"""Per-token entanglement entropy of a model's circuits, beside its two honest controls.

Axis legend: l tokens, d model width, a angles, s streams (trained, untrained, one per permutation).
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from backends import validate
from backends.base import Backend
from backends.estimate import Estimate
from backends.registry import open_backend
from circuits import Circuit
from circuits._suggest import unknown
from circuits.ir import lifted
from qlm.controls import CircuitCore
from qlm.entropy_table import CONTROLS, Cut, EntropyRow, EntropyTable, Measurement
from qlm.modeling import QLMForCausalLM
from qlm.tokenizer import EOS_ID, byte_spans, encode_bytes

N_SHUFFLES = 8
"""Permutations of the text on exact backends; one on backends with shots, where each costs real circuits."""


@runtime_checkable
class MeasurableBlock(Protocol):
    """A block whose circuit's entropies can be measured."""

    @property
    def circuit_core(self) -> CircuitCore | None:
        """The circuit's part, None where a classical control stands in its place."""
        ...

    def angles(self, hidden: Tensor) -> Tensor:
        """Return the circuit's inputs (..., w), radians, for the residual stream (..., d) that enters the block."""
        ...


@dataclass(frozen=True)
class _Probe:
    """A circuit to measure: where it sits, and its cut."""

    circuit: Circuit
    cut: Cut
    backend: Backend


def measure_entropy(
    model: QLMForCausalLM,
    text: str | bytes,
    backend: str | Backend | None = None,
    kind: str = "von_neumann",
    blocks: Sequence[str | int] | None = None,
    wires: Sequence[int] | None = None,
    seed: int = 0,
    n_tokens: int | None = None,
    n_shuffles: int | None = None,
) -> EntropyTable:
    """Run each block's circuit on every token, routed or not, and return its subsystem entropies beside two controls.

    ``S(rho_A)`` in nats, rho_A the reduced state of ``wires`` (default: the core's own, the first half), ``kind``
    "von_neumann" or "renyi2". Rows: token x block x control in {trained; untrained: the same config initialised with
    ``seed``, step 0; shuffled: the mean over ``n_shuffles`` permutations of the text (8, or 1 on a backend with
    shots), matched back to each token}, with the token's surprisal (nats) under the trained model. The text follows
    one end-of-text token. ``backend`` None: the model's own; ``blocks``: positions, or names such as
    "1.quantum_router", None for all that hold a circuit; ``n_tokens`` keeps the first bytes alone.

    All tokens of all controls are one batch of ``(2 + n_shuffles) l`` circuits per block, in float64. The model runs
    in evaluation mode and comes back as it was; the random state of torch is untouched. Raises ValueError or
    TypeError before computing: no text, no circuit (a twin), unknown names, wires that leave no other side.

    >>> from qlm.config import QLMConfig
    >>> _ = torch.manual_seed(0)
    >>> model = QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "quantum_router", "n_wires": 2, "depth": 1}]))
    >>> table = measure_entropy(model, "two")
    >>> len(table), table.select(control="trained").entropy == table.select(control="untrained").entropy
    (9, True)
    """
    if not isinstance(model, QLMForCausalLM):
        raise TypeError(f"measure_entropy expects a QLMForCausalLM, got {type(model).__name__}; pass the model itself.")
    validate.entropy_kind(kind)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed expects an integer from 0 to 2**63 - 1, got {seed!r}; choose one of them.")
    for name, count in (("n_tokens", n_tokens), ("n_shuffles", n_shuffles)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ValueError(f"{name} expects a positive integer or None, got {count!r}; raise it.")
    tokens = encode_bytes(_encoded(text)[:n_tokens])
    probes = _probes(model, blocks, wires, None if backend is None else open_backend(backend))
    counted = any(probe.backend.capabilities.shots for probe in probes.values())
    orders = _permutations(len(tokens), n_shuffles or (1 if counted else N_SHUFFLES), seed)
    ids = torch.tensor(tokens, device=model.device)
    with _untouched(model, seed), torch.no_grad():
        untrained = _at_step_zero(model, seed)
        streams, logits = _run(model, ids, probes)
        runs = [streams, _run(untrained, ids, probes)[0], *(_run(model, ids[order], probes)[0] for order in orders)]
    surprisal = _surprisal(logits, ids)
    rows: list[EntropyRow] = []
    estimates: list[Estimate] = []
    for number, (name, probe) in enumerate(probes.items()):
        angles = torch.cat([run[name] for run in runs])
        own_seed = seed + number if probe.backend.capabilities.shots else None
        estimate = probe.backend.entropy(lifted(probe.circuit), angles, None, probe.cut.wires, kind, seed=own_seed)
        estimates.append(estimate)
        rows += _rows(tokens, probe.cut, estimate, orders, surprisal)
    backends = {probe.backend.spec: probe.backend for probe in probes.values()}
    about = Measurement(
        backend=backend if isinstance(backend, str) else ", ".join(backends),
        kind=kind,
        seed=seed,
        shots=estimates[0].shots,
        noisy=any(opened.capabilities.noisy for opened in backends.values()),
        executions=sum(len(estimate.values) for estimate in estimates),
        n_shuffles=len(orders),
        text=bytes(tokens).decode("utf-8", "surrogateescape"),
        cuts=tuple(probe.cut for probe in probes.values()),
    )
    return EntropyTable.from_rows(about, rows)


def _encoded(text: str | bytes) -> bytes:
    if not isinstance(text, str | bytes):
        raise TypeError(f"measure_entropy expects text or bytes, got {type(text).__name__}; decode tokens first.")
    if not text:
        raise ValueError("measure_entropy expects at least one byte of text, got none; pass a sentence.")
    try:
        return text.encode("utf-8") if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise ValueError(
            f"measure_entropy expects Unicode text, got a lone surrogate at character {error.start}; pass bytes."
        ) from None


def _blocks(model: QLMForCausalLM) -> dict[str, nn.Module]:
    """The model's blocks by "position.kind"."""
    kinds = [entry["kind"] for entry in model.config.blocks or ()]
    return {f"{k}.{kind}": block for k, (kind, block) in enumerate(zip(kinds, model.model.layers, strict=True))}


def _measurable(block: nn.Module) -> MeasurableBlock:
    assert isinstance(block, MeasurableBlock)
    return block


def _probes(
    model: QLMForCausalLM, chosen: Sequence[str | int] | None, wires: Sequence[int] | None, backend: Backend | None
) -> dict[str, _Probe]:
    """What to measure, by block; in the model's order."""
    present = _blocks(model)
    names = None if chosen is None else _names(chosen, tuple(present))
    held = {name: block.circuit_core for name, block in present.items() if isinstance(block, MeasurableBlock)}
    cores = {name: core for name, core in held.items() if core is not None}
    if not cores:
        raise ValueError(
            f"measure_entropy expects a model with a circuit, got blocks {', '.join(present)} without one (a twin has "
            "no entropy); build the model with quantum='circuit'."
        )
    for name in names or ():
        if name not in cores:
            raise ValueError(
                f"measure_entropy expects blocks with a circuit, got '{name}' without one; choose of "
                f"{', '.join(cores)}."
            )
    return {name: _probe(name, core, wires, backend) for name, core in cores.items() if names is None or name in names}


def _names(chosen: Sequence[str | int], present: Sequence[str]) -> tuple[str, ...]:
    """The names of blocks given by name or position."""
    if isinstance(chosen, str | int):
        raise TypeError(f"blocks expects a list of names or positions, got {chosen!r} alone; write [{chosen!r}].")
    if not isinstance(chosen, Iterable):
        raise TypeError(f"blocks expects a list of names or positions, got {type(chosen).__name__}; write [0].")
    names: list[str] = []
    for block in chosen:
        if isinstance(block, bool) or not isinstance(block, str | int):
            raise TypeError(f"blocks expects names or positions, got {block!r}; choose of {', '.join(present)}.")
        if isinstance(block, str) and block not in present:
            raise ValueError(unknown("block", block, present))
        if isinstance(block, int) and not 0 <= block < len(present):
            raise ValueError(f"blocks expects positions from 0 to {len(present) - 1}, got {block}; count from 0.")
        names.append(present[block] if isinstance(block, int) else block)
    if not names:
        raise ValueError("blocks expects at least one block or None for all that hold a circuit, got none; name one.")
    return tuple(names)


def _probe(name: str, core: CircuitCore, wires: Sequence[int] | None, backend: Backend | None) -> _Probe:
    circuit = core.layer.circuit
    chosen = core.wires if wires is None else validate.subsystem(circuit, wires)
    if len(chosen) == circuit.n_wires:
        raise ValueError(
            f"measure_entropy expects wires that leave another side, got all {circuit.n_wires} of '{name}'; name fewer."
        )
    cut = Cut(name, circuit.n_wires, tuple(chosen), circuit.is_unitary)
    return _Probe(circuit, cut, core.layer.backend if backend is None else backend)


def _permutations(n_tokens: int, count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(n_tokens, generator=generator) for _ in range(count)]


@contextmanager
def _untouched(model: nn.Module, seed: int) -> Iterator[None]:
    """Evaluation mode with a seeded generator; each module's mode and torch's random state come back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


def _at_step_zero(model: QLMForCausalLM, seed: int) -> QLMForCausalLM:
    """The same config initialised with the seed, on the model's backend, device and dtype."""
    torch.manual_seed(seed)
    own = next(layer.backend for _, layer in model.quantum_layers())
    fresh = QLMForCausalLM(copy.deepcopy(model.config), own)
    return fresh.to(device=model.device, dtype=model.dtype).eval()  # pyright: ignore[reportCallIssue] -- nn.Module.to


def _run(model: QLMForCausalLM, ids: Tensor, probes: Mapping[str, _Probe]) -> tuple[dict[str, Tensor], Tensor]:
    """Read the text after one end-of-text token: all circuit angles (l, a) in float64 by block, and logits (l, v)."""
    blocks = _blocks(model)
    streams: dict[str, Tensor] = {}

    def keep(name: str) -> "torch.utils.hooks.RemovableHandle":
        return blocks[name].register_forward_pre_hook(lambda _, args: streams.__setitem__(name, args[0]))

    handles = [keep(name) for name in probes]
    try:
        start = ids.new_full((1,), EOS_ID)
        logits = model(torch.cat((start, ids))[None], use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return {name: _angles(blocks[name], stream[0, 1:]) for name, stream in streams.items()}, logits[0, :-1]


def _angles(block: nn.Module, stream: Tensor) -> Tensor:
    measured = _measurable(block)
    core = measured.circuit_core
    assert core is not None
    return core.layer.circuit.angles(measured.angles(stream).double(), core.layer.weights.double())


def _surprisal(logits: Tensor, ids: Tensor) -> list[float]:
    """``-log p(token | its past)`` in nats."""
    log_p = torch.log_softmax(logits.double(), -1).gather(1, ids[:, None]).squeeze(1)
    if not bool(torch.isfinite(log_p).all()):
        at = int((~torch.isfinite(log_p)).nonzero()[0])
        raise ValueError(
            f"measure_entropy expects finite logits, got {log_p[at].item()} at token {at}; retrain the model."
        )
    return (-log_p).tolist()


def _rows(
    tokens: Sequence[int], cut: Cut, estimate: Estimate, orders: Sequence[Tensor], surprisal: Sequence[float]
) -> Iterator[EntropyRow]:
    values, stderr = _by_control(estimate.values, estimate.stderr, len(tokens), orders)
    purity: list[list[float | None]] = [[None] * len(tokens)] * len(CONTROLS)
    purity_stderr = purity
    if estimate.purity is not None and estimate.purity_stderr is not None:
        means = _by_control(estimate.purity, estimate.purity_stderr, len(tokens), orders)
        purity, purity_stderr = means[0].tolist(), means[1].tolist()
    for c, control in enumerate(CONTROLS):
        for k, (token, span) in enumerate(zip(tokens, byte_spans(tokens), strict=True)):
            figures = (values[c, k].item(), stderr[c, k].item(), purity[c][k], purity_stderr[c][k], surprisal[k])
            yield EntropyRow(k, _printable(token), *span, cut.block, cut.wires, control, *figures)


def _by_control(values: Tensor, stderr: Tensor, n_tokens: int, orders: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Values and errors (s l,) of all streams as (3, l): permutations are matched back to their tokens and averaged.

    The error of that mean is the larger of what the spread over permutations says and what the measurements say.
    """
    v = values.detach().cpu().double().reshape(-1, n_tokens)
    e = stderr.detach().cpu().double().reshape(-1, n_tokens)
    back = torch.stack([torch.argsort(order) for order in orders])
    shuffled, errors = v[2:].gather(1, back), e[2:].gather(1, back)
    measured = errors.square().mean(0)
    spread = shuffled.var(0) if len(orders) > 1 else torch.zeros_like(measured)
    combined = (torch.maximum(measured, spread) / len(orders)).sqrt()
    return torch.cat((v[:2], shuffled.mean(0)[None])), torch.cat((e[:2], combined[None]))


def _printable(byte: int) -> str:
    """A byte as one can print it: itself in ASCII, escaped otherwise."""
    return ascii(chr(byte))[1:-1] if chr(byte) not in "'\\" else chr(byte)
