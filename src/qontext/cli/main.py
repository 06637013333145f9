"""The command line: parse, call, print. Exit codes: 0 fine, 2 the user's mistake, 1 ours."""

import os
import sys

import typer

from ..errors import QontextError
from . import calibrate_command, engine_commands, generate_command, report_commands, text_commands
from .console import note

app = typer.Typer(
    name="qontext",
    help="An open inference engine for Transformers: fused, packed, explained.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
text_commands.register(app)
generate_command.register(app)
engine_commands.register(app)
calibrate_command.register(app)
report_commands.register(app)


def _version(value: bool) -> None:
    if value:
        from ..version import __version__

        typer.echo(f"qontext {__version__}")
        raise typer.Exit


@app.callback()
def _options(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True)) -> None:
    """An open inference engine for Transformers: fused, packed, explained."""


def main() -> None:
    """The entry point of `qontext`."""
    try:
        app()
    except QontextError as error:
        note(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        note("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; that is no error
        sys.exit(0)
    except Exception as error:
        if os.environ.get("QONTEXT_TRACEBACK"):
            raise
        note(
            f"internal error: {type(error).__name__}: {error} (set QONTEXT_TRACEBACK=1 for the trace; please report it)"
        )
        sys.exit(1)
