"""What is asked over the wire, and faults that happen once."""

import torch
from standin import Fault

from circuits import Circuit, Input, Op, X, Z

CIRCUIT = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 1))))
ASKED = (CIRCUIT, torch.tensor([[0.4], [2.0]]), None, (Z(0), X(0) @ X(1)))
JOBS = "/api/v1/jobs"


def once(method: str, ending: str, fault: Fault) -> "Once":
    return Once(method, ending, fault)


class Once:
    """A fault of the first request that fits."""

    def __init__(self, method: str, ending: str, fault: Fault) -> None:
        self.method, self.ending, self.fault, self.happened = method, ending, fault, 0

    def __call__(self, method: str, path: str) -> Fault | None:
        if method != self.method or not path.endswith(self.ending) or self.happened:
            return None
        self.happened += 1
        return self.fault
