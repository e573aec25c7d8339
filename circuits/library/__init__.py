"""Circuit families: pure functions that return a ``Circuit``."""

from circuits.library.ansatz import hardware_efficient, reuploading
from circuits.library.encoders import angle_encoding
from circuits.library.floquet import kicked_ising, period_ends
from circuits.library.routing import vqc_router

__all__ = ["angle_encoding", "hardware_efficient", "kicked_ising", "period_ends", "reuploading", "vqc_router"]
