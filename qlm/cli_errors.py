"""One sentence and an exit code for whatever a user can cause; light, so that ``--help`` stays quick."""

import functools
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec

import typer

P = ParamSpec("P")

EXIT_OK = 0
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def guarded(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code.

    2 and one sentence on stderr for ValueError, TypeError, IndexError, OSError and ImportError; 130 after Ctrl-C;
    warnings become one line each.

    >>> guarded(lambda: None)
    0
    """
    shown, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        command()
        return EXIT_OK
    except KeyboardInterrupt as stop:
        print(f"Interrupted: {stop or 'nothing was saved.'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except (ValueError, TypeError, IndexError, OSError, ImportError) as error:
        print(f"Error: {sentence(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    finally:
        warnings.showwarning = shown


def reported(command: Callable[P, Any]) -> Callable[P, None]:
    """Return the command for Typer: ``guarded``, with its exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        code = guarded(lambda: command(*args, **kwargs))
        if code != EXIT_OK:
            raise typer.Exit(code)

    return run


def sentence(error: BaseException) -> str:
    """Return an error's message on one line.

    >>> sentence(ValueError("first,\\n  second"))
    'first, second'
    """
    return " ".join(str(error).split()) or type(error).__name__


def _show_warning(message: Warning | str, *_where: Any, **_how: Any) -> None:
    print(f"Warning: {' '.join(str(message).split())}", file=sys.stderr)
