"""Per-token entanglement entropy of a model's circuits, beside its two honest controls.

Axis legend: l tokens, i inputs of a circuit, s streams (trained, untrained, one per permutation).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from backends import validate
from backends.base import Backend
from backends.estimate import Estimate
from backends.registry import open_backend
from circuits.ir import lifted
from qlm.entropy_probes import Probe, find_probes
from qlm.entropy_streams import at_step_zero, read_streams, read_streams_and_logits, surprisals, untouched
from qlm.entropy_table import COLUMNS, CONTROLS, Cut, EntropyTable, Measurement
from qlm.modeling import QLMForCausalLM
from qlm.tokenizer import byte_spans, encode_bytes

N_SHUFFLES = 8
"""Permutations of the text on exact backends; one on backends with shots, where each costs real circuits."""
_AMPLITUDES, _FEWEST_ROWS = 2**16, 1024
"""Amplitudes, and least rows, of one call to an exact backend: the states of 4 to 6 wires then stay in the cache."""


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
    probes = find_probes(model, blocks, wires, None if backend is None else open_backend(backend))
    counted = any(probe.backend.capabilities.shots for probe in probes.values())
    orders = _permutations(len(tokens), n_shuffles or (1 if counted else N_SHUFFLES), seed)
    ids = torch.tensor(tokens, device=model.device)
    with untouched(model, seed), torch.no_grad():
        untrained = at_step_zero(model, seed)
        first_weights = {name: probe.core.layer.weights for name, probe in find_probes(untrained).items()}
        trained, logits = read_streams_and_logits(model, ids, probes)
        streams = [trained, read_streams(untrained, ids, probes)]
        streams += [read_streams(model, ids[order], probes) for order in orders]
        estimates = {
            name: _estimate(probe, [stream[name] for stream in streams], first_weights[name], kind, seed + number)
            for number, (name, probe) in enumerate(probes.items())
        }
    surprisal = surprisals(logits, ids)
    backends = {probe.backend.spec: probe.backend for probe in probes.values()}
    about = Measurement(
        backend=backend if isinstance(backend, str) else ", ".join(backends),
        kind=kind,
        seed=seed,
        shots=next(iter(estimates.values())).shots,
        noisy=any(opened.capabilities.noisy for opened in backends.values()),
        executions=sum(len(estimate.values) for estimate in estimates.values()),
        n_shuffles=len(orders),
        text=bytes(tokens).decode("utf-8", "surrogateescape"),
        cuts=tuple(probe.cut for probe in probes.values()),
    )
    parts = [_columns(tokens, probe.cut, estimates[name], orders, surprisal) for name, probe in probes.items()]
    return EntropyTable(about, **{name: tuple(value for part in parts for value in part[name]) for name in COLUMNS})


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


def _permutations(n_tokens: int, count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(n_tokens, generator=generator) for _ in range(count)]


def _estimate(probe: Probe, streams: Sequence[Tensor], first_weights: Tensor, kind: str, seed: int) -> Estimate:
    """Entropies (s l,) of streams of inputs (l, i), all but the second under the trained weights."""
    circuit, backend, wires = probe.core.layer.circuit, probe.backend, probe.cut.wires
    trained, untrained = probe.core.layer.weights.double(), first_weights.double()
    if not backend.capabilities.exact:  # one job: what differs between the streams' circuits is angles alone
        angles = [circuit.angles(stream, untrained if s == 1 else trained) for s, stream in enumerate(streams)]
        own_seed = seed if backend.capabilities.shots else None
        return backend.entropy(lifted(circuit), torch.cat(angles), None, wires, kind, seed=own_seed)
    rows = max(_FEWEST_ROWS, _AMPLITUDES >> circuit.n_wires)
    calls = [
        backend.entropy(circuit, part, untrained if s == 1 else trained, wires, kind)
        for s, stream in enumerate(streams)
        for part in stream.split(rows)
    ]
    return Estimate(torch.cat([call.values for call in calls]))


def _columns(
    tokens: Sequence[int], cut: Cut, estimate: Estimate, orders: Sequence[Tensor], surprisal: Sequence[float]
) -> Mapping[str, Sequence[Any]]:
    """The rows of one block, by control and position, as the table's columns."""
    n_rows, n_controls = len(CONTROLS) * len(tokens), len(CONTROLS)
    spans = byte_spans(tokens)
    values, stderr = _by_control(estimate.values, estimate.stderr, len(tokens), orders)
    purity = purity_stderr = [None] * n_rows
    if estimate.purity is not None and estimate.purity_stderr is not None:
        means = _by_control(estimate.purity, estimate.purity_stderr, len(tokens), orders)
        purity, purity_stderr = (mean.flatten().tolist() for mean in means)
    return {
        "position": list(range(len(tokens))) * n_controls,
        "token": [_printable(token) for token in tokens] * n_controls,
        "start": [start for start, _ in spans] * n_controls,
        "end": [end for _, end in spans] * n_controls,
        "block": [cut.block] * n_rows,
        "wires": [cut.wires] * n_rows,
        "control": [control for control in CONTROLS for _ in tokens],
        "entropy": values.flatten().tolist(),
        "stderr": stderr.flatten().tolist(),
        "purity": purity,
        "purity_stderr": purity_stderr,
        "surprisal": list(surprisal) * n_controls,
    }


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
