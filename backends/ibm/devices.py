"""Fake IBM devices by name: snapshots of real ones that qiskit-ibm-runtime ships; nothing leaves the machine."""

from typing import Any

from backends.extras import require
from circuits._suggest import nearest


def fake_devices() -> dict[str, type]:
    """Return the classes of the shipped fake devices by name; ImportError without qiskit-ibm-runtime.

    >>> "fake_manila" in fake_devices()
    True
    """
    provider = require("ibm", "qiskit_ibm_runtime.fake_provider", "qiskit")
    classes = [thing for thing in vars(provider).values() if isinstance(thing, type)]
    names = [(getattr(cls, "backend_name", None), cls) for cls in classes]
    return {name: cls for name, cls in sorted(names, key=lambda pair: str(pair[0])) if name}


def check_device(name: str) -> None:
    """Raise ValueError, in one sentence, for a device that is no shipped fake one."""
    if not name:
        raise ValueError("backend 'ibm' expects a device after the colon, got none; write for example ibm:fake_manila.")
    known = fake_devices()
    if name in known:
        return
    hint = nearest(str(name).replace("ibm_", "fake_"), known)
    real = "" if str(name).startswith("fake") else ", because real ones are not supported yet"
    raise ValueError(
        f"backend 'ibm' expects a fake device{real}, got '{name}':{hint} backends.ibm.devices.fake_devices() lists all "
        f"{len(known)}."
    )


def open_device(name: str) -> Any:
    """Return the fake device, a Qiskit BackendV2 with the noise of a real one.

    >>> open_device("fake_manila").num_qubits
    5
    """
    check_device(name)
    return fake_devices()[name]()
