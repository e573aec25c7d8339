"""A module's mode, set for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; the mode comes back on leaving.

    >>> layer = nn.Dropout()
    >>> with evaluating(layer):
    ...     print(layer.training)
    False
    """
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
