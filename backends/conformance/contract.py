"""Checks of the contract: shapes, dtypes, batches, refusals, and backends as values."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from backends.base import Backend
from backends.conformance import cases
from backends.conformance.judge import TOLERANCE, Measured, compare_errors, numpy, request, require
from backends.estimate import Estimate
from backends.registry import open_backend
from circuits import GATES, Circuit, Op, Reset, Z

_KEPT = Measured(0.0, 1.0)


def capabilities_are_consistent(backend: Backend) -> Measured:
    """Flags that exclude each other, gates that exist, and room for the three wires of this suite."""
    declared = backend.capabilities
    require(declared.max_wires >= cases.N_WIRES, f"the suite expects 3 wires at least, got {declared.max_wires}.")
    unknown = declared.gates - set(GATES)
    require(declared.gates and not unknown, f"gates expects names of circuits.GATES, got {sorted(unknown) or 'none'}.")
    require(not (declared.exact and (declared.shots or declared.noisy)), "exact excludes shots and noise, got both.")
    require(not (declared.state and declared.noisy), "a state vector excludes noise, got state and noisy.")
    require(backend.capabilities == declared, "capabilities expect to be equal at each call, got two different ones.")
    return _KEPT


def backends_are_values(backend: Backend) -> Measured:
    """Equal, equally hashed and printed after pickle, deepcopy, and open_backend(spec), used or unused."""
    circuit = cases.basis_state(backend.capabilities, "110")
    backend.expectations(circuit, None, None, (Z(0),), **request(backend))  # opens any live handle
    copies = {
        "pickle": pickle.loads(pickle.dumps(backend)),  # noqa: S301 -- written one line above
        "deepcopy": copy.deepcopy(backend),
        "open_backend(spec)": open_backend(backend.spec),
    }
    for name, other in copies.items():
        same = other == backend and hash(other) == hash(backend) and repr(other) == repr(backend)
        require(same and other.spec == backend.spec, f"{name} expects an equal backend, got {other!r} of {backend!r}.")
    answer = copies["pickle"].expectations(circuit, None, None, (Z(0),), **request(backend)).values
    require(float(answer) < 0, f"a copied backend expects <Z> < 0 of |1>, got {float(answer)}.")
    return _KEPT


def _results(backend: Backend, circuit: Circuit, inputs: Any, weights: Any, **asked: Any) -> dict[str, Estimate]:
    """Every kind of result, beside its shape for one sample."""
    both = {"weights_a": weights, "weights_b": weights}
    return {
        "expectations": backend.expectations(circuit, inputs, weights, (Z(0), Z(2)), **asked),
        "along": backend.expectations(circuit, inputs, weights, (Z(0), Z(2)), after=(1, 2, 3), **asked),
        "probabilities": backend.probabilities(circuit, inputs, weights, wires=(0, 1), **asked),
        "density": backend.density(circuit, inputs, weights, wires=(1,), **asked),
        "entropy": backend.entropy(circuit, inputs, weights, wires=(1,), **asked),
        "fidelity": backend.fidelity(circuit, inputs, circuit, inputs, **both, **asked),
        "gram": backend.fidelity(circuit, inputs, circuit, inputs, **both, gram=True, **asked),
        "samples": backend.samples(circuit, inputs, weights, wires=(0, 2), shots=7, seed=0),
    }


_SHAPES: dict[str, tuple[int, ...]] = {
    "expectations": (2,),
    "along": (3, 2),
    "probabilities": (4,),
    "density": (2, 2),
    "entropy": (),
    "fidelity": (),
    "samples": (7, 2),
}


def shapes_and_errors_are_right(backend: Backend) -> Measured:
    """Batches of 0 and more: shapes, dtypes, a standard error where and only where shots count, no graph on it."""
    circuit = cases.mixed(backend.capabilities)
    for batch in (0, 1 if backend.capabilities.noisy else 3):
        inputs, weights = cases.data(circuit, batch)
        for name, estimate in _results(backend, circuit, inputs, weights, **request(backend)).items():
            shape = (batch, batch) if name == "gram" else (batch, *_SHAPES[name])
            got = tuple(estimate.values.shape)
            require(got == shape, f"{name} of batch {batch} expects values of shape {shape}, got {got}.")
            for part in (estimate.stderr, estimate.truncation_error):
                whole = tuple(part.shape) == shape and bool((part >= 0).all()) and not part.requires_grad
                require(
                    whole, f"errors of {name} expect shape {shape}, no negatives and no graph: {tuple(part.shape)}."
                )
            require(estimate.infidelity.shape[:1] == (batch,), f"infidelity of {name} expects shape ({batch},).")
            if batch and name != "samples":
                _check_errors(backend, name, estimate)
    return _KEPT


def _check_errors(backend: Backend, name: str, estimate: Estimate) -> None:
    capabilities = backend.capabilities
    if capabilities.shots:
        counted = estimate.shots is not None and estimate.shots > 0
        require(counted, f"{name} expects the number of shots spent, got {estimate.shots}.")
        require((estimate.stderr > 0).any(), f"{name} from shots expects a standard error above 0, got none.")
    else:
        none = estimate.shots is None and not estimate.stderr.any()
        require(none, f"{name} without shots expects shots None and standard errors of 0.")
    if capabilities.exact:
        require(not estimate.truncation_error.any(), f"{name} of an exact backend expects no truncation error.")


def empty_batches_touch_weights(backend: Backend) -> Measured:
    """A batch of 0 gives the weights a gradient of zeros instead of none, so that distributed training goes on."""
    circuit = cases.mixed(backend.capabilities)
    inputs, weights = cases.data(circuit, 0)
    weights.requires_grad_()
    values = backend.expectations(circuit, inputs, weights, (Z(0),), **request(backend)).values
    require(values.requires_grad, "an empty batch expects values that touch the weights, got no graph.")
    (gradient,) = torch.autograd.grad(values.sum(), weights)
    return Measured(float(gradient.abs().max()), 1e-12)


def batches_equal_single_calls(backend: Backend) -> Measured:
    """One call for five samples equals five calls for one, in any order of the samples."""
    circuit = cases.mixed(backend.capabilities)
    inputs, weights = cases.data(circuit, 5)
    asked = request(backend)
    together = backend.expectations(circuit, inputs, weights, cases.OBSERVABLES, **asked)
    reverse = backend.expectations(circuit, inputs.flip(0), weights, cases.OBSERVABLES, **asked)
    single = [backend.expectations(circuit, row[None], weights, cases.OBSERVABLES, **asked) for row in inputs[:2]]
    values = torch.cat([estimate.values for estimate in single])
    errors = np.abs(numpy(together.values) - numpy(reverse.values.flip(0)))
    errors[:2] = np.maximum(errors[:2], np.abs(numpy(together.values)[:2] - numpy(values)))
    doubled = Estimate(together.values, together.stderr * math.sqrt(2), together.shots, together.truncation_error * 2)
    return compare_errors(backend, doubled, errors, 1.0, 0.05)


def dtypes_follow_the_caller(backend: Backend) -> Measured:
    """float16, bfloat16, float32 and float64 in and out; numpy and lists too; autocast changes nothing."""
    circuit = cases.basis_state(backend.capabilities, "110")
    free = Circuit(3, (*circuit.ops, *cases.mixed(backend.capabilities).ops))
    inputs, weights = cases.data(free, 2)
    asked = request(backend)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        values = backend.expectations(free, inputs.to(dtype), weights.to(dtype), (Z(0),), **asked).values
        require(values.dtype == dtype, f"{dtype} in expects {dtype} out, got {values.dtype}.")
    tensors = backend.expectations(free, inputs, weights, cases.OBSERVABLES, **asked)
    arrays = backend.expectations(free, inputs.numpy(), weights.tolist(), cases.OBSERVABLES, **asked)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = backend.expectations(free, inputs, weights, cases.OBSERVABLES, **asked)
    # The same seed: the same numbers, in whatever container the angles came.
    errors = [np.abs(numpy(tensors.values) - numpy(other.values)).max() for other in (arrays, cast)]
    return Measured(float(max(errors)), TOLERANCE[torch.float64])


def wrong_arguments_are_refused(backend: Backend) -> Measured:
    """NaN and infinite angles, wrong shapes, types, wires, observables, kinds, shots, seeds: before anything runs."""
    circuit = cases.mixed(backend.capabilities)
    x, w = cases.data(circuit, 2)
    nan, infinite = x.clone(), w.clone()
    nan[1, 0] = math.nan
    infinite[0] = math.inf
    calls: dict[str, Callable[[], Any]] = {
        "a NaN input": lambda: backend.expectations(circuit, nan, w, (Z(0),)),
        "an infinite weight": lambda: backend.expectations(circuit, x, infinite, (Z(0),)),
        "inputs without a batch axis": lambda: backend.expectations(circuit, x[0], w, (Z(0),)),
        "a missing input column": lambda: backend.expectations(circuit, x[:, :1], w, (Z(0),)),
        "no inputs": lambda: backend.expectations(circuit, None, w, (Z(0),)),
        "a missing weight": lambda: backend.expectations(circuit, x, w[:1], (Z(0),)),
        "complex inputs": lambda: backend.expectations(circuit, x + 0j, w, (Z(0),)),
        "no observable": lambda: backend.expectations(circuit, x, w, ()),
        "an observable on wire 3 of 3": lambda: backend.expectations(circuit, x, w, (Z(3),)),
        "a word for an observable": lambda: backend.expectations(circuit, x, w, ("Z",)),  # pyright: ignore[reportArgumentType]
        "a word for a circuit": lambda: backend.expectations("circuit", x, w, (Z(0),)),  # pyright: ignore[reportArgumentType]
        "repeated wires": lambda: backend.probabilities(circuit, x, w, wires=(1, 1)),
        "a wire out of range": lambda: backend.density(circuit, x, w, wires=(3,)),
        "a fractional wire": lambda: backend.probabilities(circuit, x, w, wires=(0.5,)),  # pyright: ignore[reportArgumentType]
        "no wires": lambda: backend.entropy(circuit, x, w, wires=()),
        "an unknown entropy": lambda: backend.entropy(circuit, x, w, wires=(0,), kind="shannon"),
        "no shots": lambda: backend.samples(circuit, x, w, shots=0),
        "a negative seed": lambda: backend.samples(circuit, x, w, shots=5, seed=-1),
        "times out of range": lambda: backend.expectations(circuit, x, w, (Z(0),), after=(0, 10**6)),
        "unequal batches": lambda: backend.fidelity(circuit, x, circuit, x[:1], weights_a=w, weights_b=w),
        "the fidelity of a reset": lambda: backend.fidelity(Circuit(3, Reset(0))),
        "the state after a reset": lambda: backend.state(Circuit(3, Reset(0))),
    }
    for what, call in calls.items():
        _expect_refusal(what, call)
    return _KEPT


def limits_are_kept(backend: Backend) -> Measured:
    """A circuit wider than ``max_wires`` and each gate that is not declared are refused before anything runs."""
    capabilities = backend.capabilities
    wide = Circuit(capabilities.max_wires + 1)
    _expect_refusal(f"{wide.n_wires} wires", lambda: backend.expectations(wide, None, None, (Z(0),)))
    for name in sorted(set(GATES) - capabilities.gates):
        gate = GATES[name]
        circuit = Circuit(3, (Op(name, tuple(range(gate.n_wires)), (0.5,) * gate.n_angles),))
        _expect_refusal(f"gate '{name}'", lambda circuit=circuit: backend.expectations(circuit, None, None, (Z(0),)))
    return _KEPT


def _expect_refusal(what: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except (ValueError, TypeError, IndexError) as error:
        require(0 < len(str(error)) < 400, f"{what} expects one sentence, got {len(str(error))} characters.")
    else:
        require(False, f"{what} expects ValueError, TypeError or IndexError, got an answer.")


CHECKS = (
    capabilities_are_consistent,
    backends_are_values,
    shapes_and_errors_are_right,
    empty_batches_touch_weights,
    batches_equal_single_calls,
    dtypes_follow_the_caller,
    wrong_arguments_are_refused,
    limits_are_kept,
)
