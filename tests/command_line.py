"""Runs commands of ``qlm`` in this process."""

import warnings

from typer.testing import CliRunner, Result

from qlm.cli import app
from qlm.meter import BarrenPlateauWarning


def qlm(*arguments: object, text: str | None = None) -> Result:
    """Run a command; a traceback is a failure, and so is a warning, but for that of small circuits' small gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BarrenPlateauWarning)
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments], input=text)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def ok(*arguments: object, text: str | None = None) -> str:
    """Run a command that must succeed; return what it printed."""
    result = qlm(*arguments, text=text)
    assert result.exit_code == 0, result.stderr
    return result.stdout
