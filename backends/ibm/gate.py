"""What passes between the runtime's client and the service: a submission is sent once, and it is known whether it was.

The client as it comes repeats a submission after 5xx, trusting the service to notice, and, behind an HTTP proxy, after
a connection that broke: where the first one was accepted, that is a second job, or a second session. Here questions
alone are repeated, with jittered pauses.
"""

import threading
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from urllib3.util import Retry

from backends.extras import require

_TROUBLE = (500, 502, 503, 504, 520, 521, 522, 524)
_SECONDS = 60.0
"""How long an answer may take that the client would wait for without end."""


_PAUSE = 0.25
"""Seconds before a question is repeated for the first time."""


class Heard(threading.local):
    """What became of this thread's last submission: whether it has left this machine, and the status answered.

    ``refused``: the status of the last answer of 4xx to anything else that is no question.
    """

    sent: bool = False
    status: int | None = None
    refused: int | None = None


class Gate(HTTPAdapter):
    """An HTTP adapter that notes whether a job's submission has left this machine, and what was answered."""

    def __init__(self) -> None:
        self.heard = Heard()
        self._once = HTTPAdapter(max_retries=0)
        super().__init__(
            max_retries=Retry(
                total=5,
                connect=3,
                allowed_methods=frozenset({"GET"}),
                status_forcelist=_TROUBLE,
                backoff_factor=_PAUSE,
                backoff_jitter=0.5,
                raise_on_status=False,
            )
        )

    def send(self, request: PreparedRequest, *args: Any, timeout: Any = None, **more: Any) -> Response:
        """Send a request; what is no question is sent once, and submissions are watched."""
        if isinstance(timeout, tuple) and timeout[1] is None:
            timeout = (timeout[0], _SECONDS)
        if request.method == "GET":
            return super().send(request, *args, timeout=timeout, **more)
        if not (request.method == "POST" and urlsplit(request.url or "").path.endswith("/jobs")):
            response = self._once.send(request, *args, timeout=timeout, **more)
            self.heard.refused = response.status_code if 400 <= response.status_code < 500 else None
            return response
        self.heard.sent, self.heard.status = True, None
        try:
            response = self._once.send(request, *args, timeout=timeout, **more)
        except RequestException as error:
            self.heard.sent = not _never_connected(error)
            raise
        self.heard.status = response.status_code
        return response


def guarded(device: Any) -> Gate:
    """Return the gate between a device and its service, put there at need; without a service nothing is to be guarded.

    A device has one gate, whoever asks: a submission that another one watched would look as if it had not left.
    """
    if not isinstance(device, require("ibm", "qiskit_ibm_runtime", "qiskit").IBMBackend):
        return Gate()
    service = device.service
    clients = (service._active_api_client, *service._api_clients.values(), device._api_client)
    mounted = [adapter for client in clients for adapter in client._session.adapters.values()]
    gate = next((adapter for adapter in mounted if isinstance(adapter, Gate)), None) or Gate()
    for client in clients:
        for scheme in ("http://", "https://"):
            client._session.mount(scheme, gate)
    return gate


def _never_connected(error: BaseException | None) -> bool:
    """Whether a request failed before there was a connection to send it over."""
    while error is not None:
        if type(error).__name__ in ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError"):
            return True
        error = error.__cause__ or error.__context__
    return False
