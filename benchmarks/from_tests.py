"""What benchmarks borrow from the test suite: its oracles and its random circuits.

The folder of tests is no package, so it is put on the path here, behind everything else.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from fuzz_cases import Case, Errors, draw, errors
from oracles import random_circuit, random_data, random_slot

__all__ = ["Case", "Errors", "draw", "errors", "random_circuit", "random_data", "random_slot"]
