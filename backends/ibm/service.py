"""The IBM service: how a real device is reached, and what went wrong, in one sentence.

Credentials are the runtime's own business: it reads the environment (QISKIT_IBM_TOKEN, QISKIT_IBM_INSTANCE) or the
account that was saved with it. Nothing here takes, holds or prints one.
"""

import re
from collections.abc import Iterator
from typing import Any

from backends.extras import require
from backends.ibm.devices import LEAST_BUSY, is_real
from circuits._suggest import unknown

_REFUSED = (400, 401, 403)
"""HTTP answers to a token that is no token, not valid, or not allowed in."""
FOR_NOW = (408, 429)
"""HTTP answers to a request that was not taken, and may be made again: it came too slowly, or one of too many."""
_NETWORK = ("ConnectionError", "Timeout", "TimeoutError", "gaierror", "ConnectTimeoutError", "MaxRetryError")
"""Classes of errors in reaching another machine."""


class ServiceError(ValueError):
    """The IBM service cannot be used as asked; the sentence says why, and what to do."""


def connect(name: str) -> Any:
    """Return the real device of that name, or the one with the fewest waiting jobs for "least_busy".

    Raises ServiceError, with a sentence of its own for a missing account, a bad token, no network, no instance, and an
    unknown device.
    """
    runtime = require("ibm", "qiskit_ibm_runtime", "qiskit")
    trouble = failures()
    try:
        service = runtime.QiskitRuntimeService()
    except trouble as error:
        raise ServiceError(explain(error)) from error
    try:
        return service.least_busy() if name == LEAST_BUSY else service.backend(name)
    except trouble as error:
        if not _is_any(error, "QiskitBackendNotFoundError"):
            raise ServiceError(explain(error)) from error
    try:
        known = sorted(device.name for device in service.backends())
    except trouble as error:
        raise ServiceError(explain(error)) from error
    if name == LEAST_BUSY:
        raise ServiceError("the IBM account expects access to a device that is online, got none; try again later.")
    raise ServiceError(unknown("device of the IBM account", name, known))


def about(name: str) -> list[str]:
    """Return what an account offers, line by line: a device, its size and queue; ServiceError where it is no use."""
    if not is_real(name):
        raise ServiceError(f"an account expects a real device's name, got '{name}'; write for example ibm_torino.")
    device = connect(name)
    try:
        status = device.status()
    except failures() as error:
        raise ServiceError(explain(error)) from error
    state = "online" if status.operational else f"offline ({status.status_msg})"
    return [
        "The account works: its token is valid and it may use an instance.",
        f"{device.name}: {device.num_qubits} qubits, {state}, {status.pending_jobs} jobs waiting.",
    ]


def explain(error: BaseException) -> str:
    """Return what a failure of the service means for its user: one sentence with a remedy.

    The runtime reports a bad token and a missing network by the same exception: what caused it tells them apart.

    >>> explain(ConnectionError("unreachable")).partition(",")[0]
    'the IBM service expects a network connection'
    """
    if _is_any(error, "AccountNotFoundError"):
        return (
            "the IBM service expects an account, got none; set QISKIT_IBM_TOKEN, or save one once with "
            "QiskitRuntimeService.save_account(token=...)."
        )
    if _is_any(error, *_NETWORK):
        return (
            "the IBM service expects a network connection, got none; check the network and its proxy, then try again."
        )
    if any(status == 429 for status in _statuses(error)):
        return (
            "the IBM service expects fewer requests at a time, got one too many (HTTP 429); wait a while, then try "
            "again."
        )
    if _is_any(error, "CloudResourceNameResolutionError") or _mentions(error, "instance", "InvalidAccountError"):
        return (
            "the IBM service expects an instance that the account may use, got none; set QISKIT_IBM_INSTANCE to its "
            "name or CRN, or create one on the platform."
        )
    if _is_any(error, "IBMNotAuthorizedError", "InvalidAccountError") or any(map(_refused, _chain(error))):
        return (
            "the IBM service expects a valid token, got one that it refuses; create a new one on the platform and set "
            "QISKIT_IBM_TOKEN, or save it with QiskitRuntimeService.save_account(token=..., overwrite=True)."
        )
    return f"the IBM service expects no failure, got {type(error).__name__}; try again, or look at the error above."


def refusal(status: int, error: BaseException) -> str:
    """Return why the service refused a job: numbers alone, since its text is not ours to repeat.

    >>> refusal(400, ValueError("Bad circuit. Error code: 1517."))
    'the IBM service refused the job with HTTP 400, code 1517; its error codes are explained on the platform'
    """
    codes = re.findall(r"code:? (\d{4})\b", str(error))
    return (
        f"the IBM service refused the job with HTTP {status}{''.join(f', code {code}' for code in codes[:1])}; its "
        "error codes are explained on the platform"
    )


def not_now(status: int) -> str:
    """Return why a job waits on that the service would not take yet.

    >>> not_now(429)
    'the IBM service would not take the job yet (HTTP 429); it waits: qlm jobs resume'
    """
    return f"the IBM service would not take the job yet (HTTP {status}); it waits: qlm jobs resume"


def unopened(mode: str, status: int | None, error: BaseException) -> str:
    """Return why no batch or session could be opened.

    >>> unopened("session", 403, ValueError())[:63]
    'the IBM service refused to open a session with HTTP 403; a plan'
    """
    if status is None or status == 401:
        return f"no {mode} was opened: {explain(error)}"
    return (
        f"the IBM service refused to open a {mode} with HTTP {status}; a plan may have none, as the open one has no "
        "sessions: use mode 'batch' or 'job'."
    )


def is_temporary(error: BaseException) -> bool:
    """Return whether the same question may be answered later: no network, no answer in time, 408, 429 or 5xx.

    >>> is_temporary(TimeoutError()), is_temporary(ValueError())
    (True, False)
    """
    return _is_any(error, *_NETWORK) or any(status in FOR_NOW or status >= 500 for status in _statuses(error))


def failures() -> tuple[type[BaseException], ...]:
    """What the runtime throws when the service cannot be used."""
    from ibm_cloud_sdk_core import ApiException
    from qiskit.exceptions import QiskitError

    return (QiskitError, ApiException, OSError, ValueError)


def _statuses(error: BaseException) -> list[int]:
    """The HTTP statuses that an error and all that led to it speak of."""
    links = [owner for link in _chain(error) for owner in (link, getattr(link, "response", None))]
    return [status for link in links if isinstance(status := getattr(link, "status_code", None), int)]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_any(error: BaseException, *names: str) -> bool:
    """Whether some link of the chain is of a class of that name: libraries disagree on where such a class lives."""
    return any(cls.__name__ in names for link in _chain(error) for cls in type(link).__mro__)


def _mentions(error: BaseException, word: str, other_than: str) -> bool:
    """Whether the error itself speaks of something; the class excepted speaks of it in every message."""
    return word in str(error).lower() and type(error).__name__ != other_than


def _refused(error: BaseException) -> bool:
    status = getattr(error, "status_code", getattr(error, "code", None))
    return status in _REFUSED
