"""Checks of what a caller passes to a backend: all of them raise before anything runs."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from backends.estimate import Capabilities, Estimate
from backends.transforms import numbers
from circuits import Circuit, PauliSum
from circuits._suggest import unknown
from circuits.ir import RESET

if TYPE_CHECKING:
    from backends.base import Backend

ENTROPY_KINDS = ("von_neumann", "renyi2")


@dataclass(frozen=True)
class Call:
    """A circuit with its validated inputs (b, i) and weights (w,), float32 or float64, and the caller's own dtype."""

    circuit: Circuit
    inputs: Tensor
    weights: Tensor
    dtype: torch.dtype

    @cached_property
    def angles(self) -> Tensor:
        """All angles (b, a)."""
        return self.circuit.angles(self.inputs, self.weights)

    def __len__(self) -> int:
        """The batch size."""
        return self.inputs.shape[0]

    @property
    def empty(self) -> bool:
        """Whether the batch is 0: answered without calling the adapter."""
        return len(self) == 0

    def precision(self) -> contextlib.AbstractContextManager[object]:
        """A context that computes in the angles' own precision, whatever autocast is on."""
        kind = self.inputs.device.type
        is_on = torch.is_autocast_enabled(kind)
        return torch.autocast(kind, enabled=False) if is_on else contextlib.nullcontext()

    def cast(self, estimate: Estimate) -> Estimate:
        """Return the estimate with its values in the caller's floating dtype."""
        return estimate.to(self.dtype)

    def nothing(self, shape: tuple[int, ...], complex_values: bool = False) -> Estimate:
        """Return the answer to an empty batch; it touches the weights, so that distributed gradients do not hang."""
        dtype = self.inputs.dtype.to_complex() if complex_values else self.inputs.dtype
        values = torch.zeros(shape, dtype=dtype, device=self.inputs.device) + 0 * self.angles.sum()
        return Estimate(values) if complex_values else self.cast(Estimate(values))


def call(
    capabilities: Capabilities, circuit: Circuit, inputs: Any, weights: Any, shots: int | None, seed: int | None
) -> Call:
    """Check a circuit and its data against a backend's capabilities and return its angles."""
    runnable(capabilities, circuit)
    if shots is not None and (isinstance(shots, bool) or not isinstance(shots, int) or shots < 1):
        raise ValueError(f"shots expects a positive integer or None (the backend's own), got {shots!r}; raise it.")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63):
        raise ValueError(f"seed expects an integer from 0 to 2**63 - 1 or None, got {seed!r}; choose one of them.")
    inputs, weights, dtype = _tensors(circuit, inputs, weights)
    return Call(circuit, inputs, weights, dtype)


def circuit(given: Circuit) -> Circuit:
    """Check that a circuit is one."""
    if not isinstance(given, Circuit):
        raise TypeError(f"a backend expects a Circuit, got {type(given).__name__}; build one with circuits.Circuit.")
    return given


def runnable(capabilities: Capabilities, given: Circuit) -> None:
    """Check a circuit's width, resets and gates against what a backend declares."""
    used = circuit(given).names
    if given.n_wires > capabilities.max_wires:
        size = f", a state of {2.0 ** (given.n_wires - 27):g} GiB" if capabilities.state else ""
        raise ValueError(
            f"this backend expects at most {capabilities.max_wires} wires, got {given.n_wires}{size}; use fewer wires "
            "or another backend."
        )
    if RESET in used and not capabilities.reset:
        raise ValueError("this backend expects a circuit without resets, got one; use a backend with reset.")
    foreign = used - capabilities.gates - {RESET}
    if foreign:
        raise ValueError(f"this backend does not run the gates {sorted(foreign)}; decompose them or change backend.")


def _tensors(circuit: Circuit, inputs: Any, weights: Any) -> tuple[Tensor, Tensor, torch.dtype]:
    """Inputs and weights in float32 or float64 on one device, and the dtype to answer in; lists follow the tensors."""
    lists = [not isinstance(value, Tensor | np.ndarray) for value in (inputs, weights)]
    inputs, weights = _tensor("inputs", inputs), _tensor("weights", weights)
    for name, tensor in (("inputs", inputs), ("weights", weights)):
        if tensor is not None and tensor.is_complex():
            raise TypeError(f"angles expect real numbers in radians, got {tensor.dtype}; pass real tensors.")
        if tensor is not None and tensor.layout != torch.strided:
            raise TypeError(f"{name} expect a dense tensor, got one of layout {tensor.layout}; call to_dense().")
    leading = [t for t, is_list in zip((inputs, weights), lists, strict=True) if t is not None and not is_list]
    floating = [tensor.dtype for tensor in leading if tensor.is_floating_point()]
    caller = reduce(torch.promote_types, floating) if floating else torch.float32
    dtype = torch.float64 if caller == torch.float64 else torch.float32
    device = leading[0].device if leading else torch.device("cpu")
    if any(tensor.device != device for tensor in leading):
        raise ValueError(f"inputs and weights expect one device, got {[str(t.device) for t in leading]}; move one.")
    if device.type == "meta":
        raise ValueError(
            "inputs and weights expect numbers, got tensors on the device meta, which has none; move them."
        )
    batch = torch.zeros((1, 0), device=device) if inputs is None else inputs
    shared = torch.zeros(0, device=device) if weights is None else weights
    if batch.ndim != 2 or batch.shape[1] != circuit.n_inputs:
        raise ValueError(
            f"inputs expect shape (batch, {circuit.n_inputs}), got {'None' if inputs is None else tuple(batch.shape)}; "
            "give one column per Input."
        )
    if shared.shape != (circuit.n_weights,):
        raise ValueError(
            f"weights expect shape ({circuit.n_weights},), got {'None' if weights is None else tuple(shared.shape)}; "
            "give one value per Weight."
        )
    _finite("inputs", batch)
    _finite("weights", shared)
    return batch.to(device, dtype).resolve_neg(), shared.to(device, dtype).resolve_neg(), caller


def _tensor(name: str, value: Any) -> Tensor | None:
    """A tensor of what the caller gave: arrays copied, as torch takes no read-only ones; lists in double precision."""
    if value is None or isinstance(value, Tensor):
        return value
    try:
        return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else _of_list(value)
    except (TypeError, ValueError, RuntimeError) as error:
        given = type(value).__name__
        raise TypeError(
            f"{name} expect a tensor, array or list of numbers, got {given} ({error}); convert them."
        ) from None


def _of_list(value: Any) -> Tensor:
    tensor = torch.as_tensor(value)
    return torch.as_tensor(value, dtype=torch.float64) if tensor.is_floating_point() else tensor


def _finite(name: str, tensor: Tensor) -> None:
    tensor = numbers(tensor)
    if math.isfinite(tensor.detach().sum()):  # one pass in the common case; large finite numbers overflow it
        return
    bad = ~torch.isfinite(tensor.detach())
    if bad.any():
        index = tuple(int(k) for k in bad.nonzero()[0])
        raise ValueError(
            f"{name} expect finite angles in radians, got {tensor[index].item()} first at index {index}; check what "
            "feeds the circuit."
        )


def observables(on: Circuit, given: Sequence[PauliSum]) -> tuple[PauliSum, ...]:
    """Check observables and return them as a tuple; at least one, all on the circuit's wires."""
    n_wires = circuit(on).n_wires
    try:
        listed = (given,) if isinstance(given, PauliSum) else tuple(given)
    except TypeError:
        raise TypeError(
            f"observables expect a sequence of Pauli sums, got {type(given).__name__}; write (Z(0),)."
        ) from None
    if not listed:
        raise ValueError("expectations expect at least one observable, got none; pass for example (Z(0),).")
    for observable in listed:
        if not isinstance(observable, PauliSum):
            raise TypeError(f"an observable expects a Pauli sum, got {type(observable).__name__}; write X(0) @ Z(1).")
    _within(n_wires, listed)
    return listed


@lru_cache(maxsize=1024)
def _within(n_wires: int, listed: tuple[PauliSum, ...]) -> None:
    for observable in listed:
        if observable.wires and observable.wires[-1] >= n_wires:
            raise ValueError(
                f"observable {observable} expects wires below {n_wires}, got {observable.wires[-1]}; widen the circuit."
            )


def wires(on: Circuit, given: Sequence[int] | int | None) -> tuple[int, ...]:
    """Check wires (all of them when None): distinct, non-empty, on the circuit; the caller's order is kept."""
    n_wires = circuit(on).n_wires
    listed = tuple(range(n_wires)) if given is None else _integers("wires", given)
    if not listed or len(set(listed)) != len(listed) or min(listed) < 0 or max(listed) >= n_wires:
        raise ValueError(f"wires expect distinct numbers from 0 to {n_wires - 1}, got {listed}; name each once.")
    return listed


def _integers(name: str, given: Any) -> tuple[int, ...]:
    """One integer or several, in any container; a number with a fraction is no integer."""
    try:
        return tuple(index(value) for value in (given if np.ndim(given) else (given,)))
    except TypeError:
        raise TypeError(f"{name} expect integers, got {given!r}; pass for example (0, 1).") from None


def subsystem(on: Circuit, given: Sequence[int] | int | None) -> tuple[int, ...]:
    """Check the wires of a subsystem; naming all of them asks for the global entropy, which is legal."""
    if given is None or (np.ndim(given) and len(given) == 0):  # pyright: ignore[reportArgumentType] -- ndim says it has a length
        raise ValueError("entropy expects the subsystem's wires, got none; pass for example wires=(0, 1).")
    return wires(on, given)


def entropy_kind(kind: str) -> None:
    """Check the kind of an entropy."""
    if kind not in ENTROPY_KINDS:
        raise ValueError(unknown("entropy kind", kind, ENTROPY_KINDS))


def times(on: Circuit, after: Sequence[int]) -> tuple[int, ...]:
    """Check op counts along a circuit: non-decreasing, each from 0 to the number of ops."""
    listed, total = _integers("after", after), len(circuit(on).ops)
    if not listed or list(listed) != sorted(listed) or listed[0] < 0 or listed[-1] > total:
        raise ValueError(f"after expects non-decreasing op counts from 0 to {total}, got {listed}; count circuit.ops.")
    return listed


def shots_or_own(backend: "Backend", shots: int | None) -> int:
    """Return the shots asked for, or the backend's own; raises where neither is a number."""
    own = getattr(backend, "shots", None) if shots is None else shots
    if own is None:
        raise ValueError("samples expect a number of shots, got None and the backend has none of its own; pass shots=.")
    return int(own)


def paired(call_a: Call, call_b: Call, gram: bool) -> None:
    """Check that two batches can be compared entry by entry, unless a Gram matrix is asked for."""
    if call_a.inputs.dtype != call_b.inputs.dtype:
        raise ValueError(f"fidelity expects one dtype, got {call_a.inputs.dtype} and {call_b.inputs.dtype}; cast one.")
    if not gram and len(call_a) != len(call_b):
        raise ValueError(
            f"fidelity expects equal batches, got {len(call_a)} and {len(call_b)}; pass gram=True for all pairs."
        )
