"""IBM devices by name: fake ones, snapshots that qiskit-ibm-runtime ships, and real ones, which the service offers."""

from typing import Any

from backends.extras import require
from circuits._suggest import nearest

LEAST_BUSY = "least_busy"
"""Stands for the real device with the fewest waiting jobs at the time of the first request."""


def fake_devices() -> dict[str, type]:
    """Return the classes of the shipped fake devices by name; ImportError without qiskit-ibm-runtime.

    >>> "fake_manila" in fake_devices()
    True
    """
    provider = require("ibm", "qiskit_ibm_runtime.fake_provider", "qiskit")
    classes = [thing for thing in vars(provider).values() if isinstance(thing, type)]
    names = [(getattr(cls, "backend_name", None), cls) for cls in classes]
    return {name: cls for name, cls in sorted(names, key=lambda pair: str(pair[0])) if name}


def is_real(name: str) -> bool:
    """Return whether a name stands for a real device.

    >>> is_real("ibm_torino"), is_real("fake_torino")
    (True, False)
    """
    return str(name) == LEAST_BUSY or str(name).startswith("ibm_")


def check_fake(owner: str, name: str) -> None:
    """Raise ValueError, in one sentence, for a name that is no shipped fake device's."""
    known = fake_devices()
    if name not in known:
        hint = nearest(str(name).replace("ibm_", "fake_"), known)
        raise ValueError(
            f"{owner} expects a fake device, got '{name}':{hint} backends.ibm.devices.fake_devices() lists all "
            f"{len(known)}."
        )


def check_device(name: str) -> None:
    """Raise ValueError, in one sentence, for a name that can be neither a fake nor a real device's."""
    if not name:
        raise ValueError("backend 'ibm' expects a device after the colon, got none; write for example ibm:fake_manila.")
    require("ibm", "qiskit_ibm_runtime", "qiskit")
    if not is_real(name):
        check_fake("backend 'ibm'", name)


def open_device(name: str) -> Any:
    """Return the fake device, a Qiskit BackendV2 with the noise of a real one.

    >>> open_device("fake_manila").num_qubits
    5
    """
    check_fake("open_device", name)
    return fake_devices()[name]()
