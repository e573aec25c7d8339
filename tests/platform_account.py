"""An account of the stand-in, and a device that it offers: fake_manila's calibration, simulated with its noise."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qiskit_ibm_runtime
from ibm_quantum_schemas.executor.version_2_0 import ParamsModel
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.fake_provider import FakeManilaV2
from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import run_quantum_program
from qiskit_ibm_runtime.options_models.simulator import SimulatorOptions
from qiskit_ibm_runtime.quantum_program.converters import quantum_program_from_2_0
from standin import CRN, HOST, StandIn

from backends.ledger.backoff import Backoff
from backends.ledger.courier import Courier

DEVICE = "ibm_standin"
CANARY = "canary-7f3a91-t0ken"
_MANILA = Path(qiskit_ibm_runtime.__file__).parent / "fake_provider" / "backends" / "manila"


def devices() -> dict[str, dict[str, Any]]:
    configuration = json.loads((_MANILA / "conf_manila.json").read_text())
    properties = json.loads((_MANILA / "props_manila.json").read_text())
    changes = {"backend_name": DEVICE, "simulator": False, "local": False}
    return {DEVICE: {"configuration": configuration | changes, "properties": properties}}


def execute(payload: dict[str, Any]) -> str:
    """Run what the runtime's client has sent and encode the outcome as the service does."""
    program, _ = quantum_program_from_2_0(ParamsModel.model_validate(payload["params"]))
    device = AerSimulator.from_backend(FakeManilaV2(), method="density_matrix")
    found = run_quantum_program(device, program, SimulatorOptions(seed_simulator=7, angle_decimals=12))
    return json.dumps(encoded(found, program))


def encoded(found: Any, program: Any) -> dict[str, Any]:
    from ibm_quantum_schemas.common import CompressedTensorModel
    from qiskit_ibm_runtime.quantum_program.converters.converters_2_0 import passthrough_data_to_2_0

    def plain(model: Any) -> Any:
        if isinstance(model, dict):
            return {name: plain(value) for name, value in model.items()}
        if isinstance(model, list):
            return [plain(value) for value in model]
        return model.model_dump(mode="json") if hasattr(model, "model_dump") else model

    items = [
        {
            "results": {
                name: CompressedTensorModel.from_numpy(np.asarray(value)).model_dump(mode="json")
                for name, value in item.items()
            },
            "metadata": {},
        }
        for item in found
    ]
    return {
        "schema_version": "v2.0",
        "data": items,
        "metadata": {"chunk_timing": []},
        "passthrough_data": plain(passthrough_data_to_2_0(program.passthrough_data)),
        "semantic_role": program._semantic_role,
    }


@contextmanager
def account(service: StandIn, token: str = CANARY, instance: str | None = CRN) -> Iterator[None]:
    """Point the runtime's client at the stand-in, as a user would: by the environment."""
    names = {
        "QISKIT_IBM_TOKEN": token,
        "QISKIT_IBM_URL": HOST,
        "IAM_URL": "http://iam.cloud.test",
        "HTTP_PROXY": service.address,
        "http_proxy": service.address,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "QISKIT_IBM_CHANNEL", "QISKIT_IBM_INSTANCE"):
            patch.delenv(name, raising=False)
        for name, value in names.items():
            patch.setenv(name, value)
        if instance is not None:
            patch.setenv("QISKIT_IBM_INSTANCE", instance)
        yield


def hurry(patch: pytest.MonkeyPatch, repeats: int = 3) -> None:
    """Let couriers and sessions pause for hundredths of a second between repetitions."""
    quick = Backoff(first=0.01, longest=0.05, repeats=repeats)
    patch.setattr("backends.ibm.transports.Courier", partial(Courier, safe=quick))
    patch.setattr("backends.ibm.gate._PAUSE", 0.01)
    patch.setattr("backends.ibm.live_session.Backoff", lambda: quick)
