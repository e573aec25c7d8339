"""Results of backends as one PyTorch operator: what torch.compile, torch.func and FLOP counters can see through.

Called plainly, a backend is Python that checks its arguments and looks at their values; tracers cannot follow that. An
``Operator`` is the same call as a node of their graphs, with the shapes of its results, its gradient, its batching rule
and its cost.

Axis legend: b batch, i inputs, w weights; ... what follows the batch in a result.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.utils.flop_counter import register_flop_formula

from backends.base import Backend
from backends.estimate import Estimate
from backends.flops import backward_flops, forward_flops
from backends.transforms import refuse_forward_mode, transformed
from circuits import Circuit

Estimator = Callable[[Backend, Circuit, tuple[Any, ...], Tensor, Tensor, int | None], Estimate]
"""A module's function of backend, circuit, options, inputs (b, i), weights (w,) and seed."""
_LIVE: WeakValueDictionary[str, "Operator"] = WeakValueDictionary()


def watched() -> bool:
    """Whether a tracer, a function transform or a dispatch mode (such as a FLOP counter) looks at operators."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0 or transformed()


class Operator:
    """``estimate(backend, circuit, options, inputs, weights, seed)`` as an operator: its values, and their errors.

    ``shape``: of one sample's values. Equal operators are one object (see ``operator``), found again by ``key``.
    """

    def __init__(
        self, key: str, estimate: Estimator, backend: Backend, circuit: Circuit, options: tuple[Any, ...], shape: Any
    ) -> None:
        self.key, self.estimate, self.backend, self.circuit = key, estimate, backend, circuit
        self.options, self.shape = options, tuple(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return operator, (self.estimate, self.backend, self.circuit, self.options, self.shape)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Operator":
        return self

    def __call__(self, inputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (b, ...) and their standard errors, in the wider dtype of inputs and weights.

        On a backend with shots each call draws a seed of torch's generator.
        """
        return _forth(inputs, weights, self.key)

    def run(self, inputs: Tensor, weights: Tensor, seed: int | None) -> Estimate:
        """Return the estimate, computed at once."""
        return self.estimate(self.backend, self.circuit, self.options, inputs, weights, seed)

    def seed(self) -> int | None:
        """A seed of torch's generator where the backend needs one."""
        return int(torch.randint(2**31, ()).item()) if self.backend.capabilities.shots else None


def operator(
    estimate: Estimator, backend: Backend, circuit: Circuit, options: tuple[Any, ...], shape: tuple[int, ...]
) -> Operator:
    """Return the operator of a call, the same object for equal calls.

    Cost: the circuit's JSON is hashed.
    """
    said = repr((estimate.__module__, estimate.__qualname__, backend.spec, circuit.to_json(), options, shape))
    key = hashlib.sha256(said.encode()).hexdigest()
    found = _LIVE.get(key)
    if found is None:
        found = _LIVE[key] = Operator(key, estimate, backend, circuit, options, shape)
    return found


def _find(key: str) -> Operator:
    try:
        return _LIVE[key]
    except KeyError:
        raise RuntimeError(
            "a compiled graph expects the layer that it was traced with, got one that is gone; compile it again."
        ) from None


@torch.library.custom_op("hybridqlm::evaluate", mutates_args=())
def _evaluate(inputs: Tensor, weights: Tensor, key: str) -> tuple[Tensor, Tensor]:
    asked, dtype = _find(key), torch.promote_types(inputs.dtype, weights.dtype)
    found = asked.run(inputs, weights, asked.seed())
    return found.values.to(dtype).clone(), found.stderr.to(dtype).clone()


@_evaluate.register_fake
def _(inputs: Tensor, weights: Tensor, key: str) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(inputs.dtype, weights.dtype)
    shape = (inputs.shape[0], *_find(key).shape)
    return inputs.new_empty(shape, dtype=dtype), inputs.new_empty(shape, dtype=dtype)


@torch.library.custom_op("hybridqlm::evaluate_backward", mutates_args=())
def _evaluate_backward(cotangent: Tensor, inputs: Tensor, weights: Tensor, key: str) -> tuple[Tensor, Tensor]:
    asked = _find(key)
    leaves = inputs.detach().requires_grad_(), weights.detach().requires_grad_()
    with torch.enable_grad(), torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False):
        values = asked.run(*leaves, asked.seed()).values
    if not values.requires_grad:
        return torch.zeros_like(inputs), torch.zeros_like(weights)
    found = torch.autograd.grad(values, leaves, cotangent.to(values.dtype), allow_unused=True, materialize_grads=True)
    # of one sample both may be views of one tensor, which an operator must not return
    return tuple(part.clone(memory_format=torch.contiguous_format) for part in found)  # pyright: ignore[reportReturnType]


@_evaluate_backward.register_fake
def _(cotangent: Tensor, inputs: Tensor, weights: Tensor, key: str) -> tuple[Tensor, Tensor]:  # noqa: ARG001 (the operator's signature)
    return torch.empty_like(inputs).contiguous(), torch.empty_like(weights).contiguous()


def _save(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor, str], output: Any) -> None:  # noqa: ARG001 (torch's signature)
    ctx.save_for_backward(*inputs[:2])
    ctx.key = inputs[2]  # pyright: ignore[reportAttributeAccessIssue]
    ctx.alive = _LIVE.get(inputs[2])  # pyright: ignore[reportAttributeAccessIssue] -- until the way back


def _differentiate(ctx: BackwardCFunction, cotangent: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
    inputs, weights = iter(ctx.saved_tensors)  # PyTorch's stubs say one tensor
    return *_back(cotangent, inputs, weights, ctx.key), None  # pyright: ignore[reportAttributeAccessIssue]


_evaluate.register_autograd(_differentiate, setup_context=_save)


def _forth(inputs: Tensor, weights: Tensor, key: str) -> tuple[Tensor, Tensor]:
    """The operator, in the form that torch.func can look into where it looks."""
    if not torch.compiler.is_compiling() and transformed():
        return _Transformed.apply(inputs, weights, key)  # pyright: ignore[reportReturnType]
    return _evaluate(inputs, weights, key)


def _back(cotangent: Tensor, inputs: Tensor, weights: Tensor, key: str) -> tuple[Tensor, Tensor]:
    """The way back, likewise."""
    if not torch.compiler.is_compiling() and transformed():
        return _TransformedBackward.apply(cotangent, inputs, weights, key)  # pyright: ignore[reportReturnType]
    return _evaluate_backward(cotangent, inputs, weights, key)


def _vmap(function: Callable[..., Any], folds: bool) -> Callable[..., Any]:
    """The batching rule: all samples as one batch where weights are common and it ``folds``, else call after call."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, tuple[int, int]]:
        *tensors, key = arguments
        moved = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(tensors, in_dims, strict=False)
        ]
        if folds and in_dims[len(tensors) - 1] is None:
            flat = [tensor.flatten(0, 1) for tensor in moved[:-1]]
            return tuple(part.unflatten(0, moved[0].shape[:2]) for part in function(*flat, tensors[-1], key)), (0, 0)
        parts = [function(*(tensor[k] for tensor in moved), key) for k in range(info.batch_size)]
        return tuple(torch.stack(part) for part in zip(*parts, strict=True)), (0, 0)

    return rule


_FORTH = _vmap(_forth, folds=True)
_BACK = _vmap(_back, folds=False)  # each map has weights' slopes of its own
_evaluate.register_vmap(_FORTH)
_evaluate_backward.register_vmap(_BACK)


class _Transformed(torch.autograd.Function):
    """The operator for torch.func, which cannot look into those of ``torch.library``."""

    setup_context = staticmethod(_save)
    jvp = staticmethod(refuse_forward_mode)

    @staticmethod
    def forward(inputs: Tensor, weights: Tensor, key: str) -> tuple[Tensor, Tensor]:
        return _evaluate(inputs, weights, key)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, Tensor, None]:
        return _differentiate(ctx, *cotangents)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, tuple[int, int]]:
        return _FORTH(info, in_dims, *arguments)


class _TransformedBackward(torch.autograd.Function):
    """The way back of ``_Transformed``, once."""

    @staticmethod
    def forward(cotangent: Tensor, inputs: Tensor, weights: Tensor, key: str) -> tuple[Tensor, Tensor]:
        return _evaluate_backward(cotangent, inputs, weights, key)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> None:
        raise NotImplementedError(
            "torch.func and torch.compile expect first derivatives of circuits, got a request for a second one; "
            "use torch.autograd.grad(..., create_graph=True) on the layer itself."
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, tuple[int, int]]:
        return _BACK(info, in_dims, *arguments)


@register_flop_formula(torch.ops.hybridqlm.evaluate)
def _forward_cost(inputs: Any, weights: Any, key: str, **_: Any) -> int:  # noqa: ARG001 (the operator's signature)
    return inputs[0] * forward_flops(_find(key).circuit, math.prod(_find(key).shape))


@register_flop_formula(torch.ops.hybridqlm.evaluate_backward)
def _backward_cost(cotangent: Any, inputs: Any, weights: Any, key: str, **_: Any) -> int:  # noqa: ARG001 (the operator's signature)
    return inputs[0] * backward_flops(_find(key).circuit, math.prod(_find(key).shape))
