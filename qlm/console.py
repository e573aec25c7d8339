"""What a person sees: rich consoles, and transformers without its own chatter."""

import contextlib
from collections.abc import Iterator

from rich.console import Console


def silent_console() -> Console:
    """Return a console that shows nothing, for use from Python.

    >>> silent_console().print("nothing")
    """
    return Console(quiet=True)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Errors alone from transformers, and none of its progress bars; as before on leaving.

    >>> with quiet_transformers():
    ...     pass
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
