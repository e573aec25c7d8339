"""The PennyLane device ``qlm.statevector``: our simulator under PennyLane's QNodes.

It answers all of PennyLane's measurements, exactly or with shots, and runs a broadcast batch at once. Gradients:
``backprop`` through torch, else ``device`` (also named ``adjoint``), a reverse pass through our simulator for any
interface; with shots parameter shift. Mid-circuit measurements are deferred to fresh wires.

Of PennyLane's own device suite (``pl-device-test``, exact) it fails, with an error that says so, for two reasons:

- three gates of which PennyLane knows the matrix and no decomposition: BlockEncode, DoubleExcitationPlus and -Minus;
- five tests of backpropagation through the interface autograd: here it needs torch.

``KNOWN_FAILURES`` lists them.

Axis legend: b batch, n wires.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from backends.extras import require

require("qlm.statevector", "pennylane", "pennylane")  # this module subclasses what it cannot do without

import pennylane as qml
from pennylane.devices import Device, ExecutionConfig
from pennylane.devices.modifiers import simulator_tracking, single_tape_support
from pennylane.devices.preprocess import decompose, no_sampling, validate_device_wires, validate_measurements
from pennylane.devices.qubit.simulate import measure_final_state
from pennylane.exceptions import DeviceError
from pennylane.math.interface_utils import Interface
from pennylane.measurements import StateMeasurement, StateMP
from pennylane.tape import QuantumScript
from pennylane.transforms import broadcast_expand
from torch import Tensor

from backends.statevector.backend import Statevector
from circuits.interop.pennylane_ops import supported
from circuits.interop.pennylane_tape import from_tape
from circuits.slots import evaluate

_MATRIX_ALONE = "PennyLane knows the gate's matrix and no decomposition"
_TORCH_ALONE = "backpropagation runs through torch, not through autograd; 'device' and 'best' serve autograd"
KNOWN_FAILURES: Mapping[str, str] = MappingProxyType(
    {
        "test_supported_gates_can_be_implemented[device_kwargs0-BlockEncode]": _MATRIX_ALONE,
        "test_supported_gates_can_be_implemented[device_kwargs0-DoubleExcitationPlus]": _MATRIX_ALONE,
        "test_supported_gates_can_be_implemented[device_kwargs0-DoubleExcitationMinus]": _MATRIX_ALONE,
        "test_basic_grad[device_kwargs0-backprop]": _TORCH_ALONE,
        "test_backprop_state[device_kwargs0-backprop]": _TORCH_ALONE,
        "test_probs[device_kwargs0-backprop]": _TORCH_ALONE,
        "test_multi_meas[device_kwargs0-backprop]": _TORCH_ALONE,
        "test_hessian[device_kwargs0-backprop]": _TORCH_ALONE,
    }
)
"""Tests of PennyLane's device suite that fail, and why."""
_OWN = ("device", "adjoint")
_REAL = (torch.float32, torch.float64)


@simulator_tracking
@single_tape_support
class StatevectorDevice(Device):
    """``qml.device("qlm.statevector", wires=4)``: exact state vectors in double precision, up to 25 wires.

    float32 torch parameters alone run in single precision. ``seed`` is that of ``numpy.random.default_rng``.

    >>> device = qml.device("qlm.statevector", wires=1)
    >>> circuit = qml.QNode(lambda x: (qml.RX(x, 0), qml.expval(qml.Z(0)))[1], device)
    >>> round(float(circuit(0.5)), 4)
    0.8776
    """

    def __init__(self, wires: Any = None, shots: Any = None, seed: Any = None) -> None:
        super().__init__(wires=wires, shots=shots)
        self._random = np.random.default_rng(seed)

    @property
    def name(self) -> str:
        """The name that opens the device."""
        return "qlm.statevector"

    def supports_derivatives(
        self, execution_config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> bool:
        """Whether the gradient asked for exists: exact results that are real; backpropagation in torch alone."""
        method = "best" if execution_config is None else execution_config.gradient_method
        if method == "backprop":  # which interface it will be is not known before there is a circuit
            return circuit is None or not circuit.shots
        return method in ("best", *_OWN) and (circuit is None or _has_jacobian(circuit))

    def setup_execution_config(
        self, config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> ExecutionConfig:
        """Resolve ``best``: backpropagation for torch, else our own reverse pass."""
        config = config or ExecutionConfig()
        torches = config.interface == Interface.TORCH
        method = config.gradient_method
        if method == "best":
            method = "backprop" if torches else "device"
        if method == "backprop" and not torches:
            raise DeviceError("qlm.statevector expects interface='torch' for backprop; use diff_method='best'.")
        own = config.use_device_gradient
        return replace(
            config,
            gradient_method=method,
            use_device_gradient=method in ("backprop", *_OWN) if own is None else own,
            grad_on_execution=False if config.grad_on_execution is None else config.grad_on_execution,
        )

    def preprocess_transforms(self, execution_config: ExecutionConfig | None = None) -> Any:
        """Defer measurements and decompose to our gates; batches are split for our own reverse pass alone."""
        method = None if execution_config is None else execution_config.gradient_method
        pipeline = qml.CompilePipeline()
        pipeline.add_transform(qml.defer_measurements, allow_postselect=False)
        pipeline.add_transform(decompose, stopping_condition=supported, skip_initial_state_prep=False, name=self.name)
        pipeline.add_transform(validate_device_wires, self.wires, name=self.name)
        pipeline.add_transform(
            validate_measurements, analytic_measurements=_is_exact, sample_measurements=_any, name=self.name
        )
        if method == "backprop":
            pipeline.add_transform(no_sampling, name="backprop + qlm.statevector")
        if method in _OWN:
            pipeline.add_transform(broadcast_expand)
        return pipeline

    def execute(self, circuits: Any, execution_config: ExecutionConfig | None = None) -> Any:
        """Results in the interface of the parameters: torch where one is a tensor, else numpy."""
        return tuple(self._execute(circuit) for circuit in circuits)

    def _execute(self, circuit: QuantumScript) -> Any:
        torches = any(isinstance(entry, Tensor) for entry in circuit.get_parameters(trainable_only=False))
        standard, state = _state(circuit)
        batched = circuit.batch_size is not None
        shown = state if torches and not circuit.shots else state.detach().numpy()
        return measure_final_state(standard, shown, batched, rng=self._random)

    def compute_derivatives(self, circuits: Any, execution_config: ExecutionConfig | None = None) -> Any:
        """Jacobians with respect to the trainable parameters, nested as PennyLane does: measurements, parameters."""
        return tuple(_jacobian(circuit) for circuit in circuits)


def _tensor(parameter: Any) -> Tensor:
    """float32 and float64 tensors as they are, anything else in double precision."""
    if isinstance(parameter, Tensor) and parameter.dtype in _REAL:
        return parameter
    return torch.as_tensor(np.asarray(parameter, dtype=float))


def _state(circuit: QuantumScript) -> tuple[QuantumScript, Tensor]:
    """The circuit on wires 0, 1, ..., and its final state (2, ..., 2), after a batch axis where there is one."""
    angles = range(sum(len(operation.data) for operation in circuit.operations))  # observables' parameters come later
    data = circuit.get_parameters(trainable_only=False, operations_only=True)
    tensors: list[Any] = [_tensor(entry) for entry in data]
    circuit = circuit.bind_new_parameters(tensors, angles)
    standard = circuit.map_to_standard_wires()
    n_wires = max(1, len(standard.wires))
    ours, inputs, weights, _ = from_tape(standard, angles, range(n_wires))
    state = Statevector().state(ours, inputs, weights).values
    if ours.global_phase:
        like = next((data for data in (inputs, weights) if data is not None), torch.zeros(0, dtype=torch.float64))
        rows = like.new_zeros(1, 0) if inputs is None else inputs
        phase = evaluate(ours.global_phase, rows, like.new_zeros(0) if weights is None else weights).sum(1)
        state = state * torch.polar(torch.ones_like(phase), phase)[:, None]
    shape = [2] * n_wires
    return standard, state.reshape([-1, *shape] if circuit.batch_size is not None else shape)


def _is_exact(measurement: Any) -> bool:
    return isinstance(measurement, StateMeasurement)


def _any(_: Any) -> bool:
    return True


def _has_jacobian(circuit: QuantumScript) -> bool:
    """Exact and real measurements of observables that torch can hold."""
    return not circuit.shots and not any(
        isinstance(measurement, StateMP) or isinstance(measurement.obs, qml.SparseHamiltonian)
        for measurement in circuit.measurements
    )


@torch.enable_grad()
def _jacobian(circuit: QuantumScript) -> Any:
    n_angles = len(circuit.get_parameters(trainable_only=False, operations_only=True))
    if any(index >= n_angles for index in circuit.trainable_params):
        raise DeviceError(
            "qlm.statevector's own gradient expects trainable gates alone, got a trainable observable; use "
            "diff_method='parameter-shift', or interface='torch' with 'backprop'."
        )
    trained: list[Any] = [_tensor(entry).detach().requires_grad_() for entry in circuit.get_parameters()]
    standard, state = _state(circuit.bind_new_parameters(trained, circuit.trainable_params))
    found = measure_final_state(standard, state, False)
    results = (found,) if len(circuit.measurements) == 1 else found
    nested = tuple(_rows(result, trained) for result in results)
    return nested[0] if len(nested) == 1 else nested


def _rows(result: Tensor, trained: list[Tensor]) -> Any:
    """The derivatives of one result: an array of its shape per parameter, a single one without its tuple."""
    entries = result.reshape(-1)
    rows = [
        torch.autograd.grad(entry, trained, retain_graph=True, allow_unused=True, materialize_grads=True)
        for entry in entries
        if trained
    ]
    columns = tuple(np.stack([row[k].numpy() for row in rows]).reshape(result.shape) for k in range(len(trained)))
    return columns[0] if len(columns) == 1 else columns
