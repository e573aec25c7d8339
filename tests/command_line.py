"""Runs commands of ``qlm`` in this process."""

from typer.testing import CliRunner, Result

from qlm.cli import app


def qlm(*arguments: object, text: str | None = None) -> Result:
    """Run a command; a traceback is a failure."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments], input=text)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def ok(*arguments: object, text: str | None = None) -> str:
    """Run a command that must succeed; return what it printed."""
    result = qlm(*arguments, text=text)
    assert result.exit_code == 0, result.stderr
    return result.stdout
