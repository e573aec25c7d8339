"""What a person sees: rich consoles, and transformers without its own chatter."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn


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


@contextlib.contextmanager
def progress_over(console: Console, label: str, n_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """Draw a bar over the bytes of a text (None: unknown), told how many were read; nothing where there is no terminal.

    >>> with progress_over(silent_console(), "a text", 10) as watch:
    ...     watch(5)
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=n_bytes)
        yield lambda done: bar.update(task, completed=done)
