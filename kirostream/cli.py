"""The command line.

Every command turns a `KirostreamError` into one sentence on stderr and an exit code: 2 for settings (a taken port, an
unreadable file, no credential), 1 for the rest. No command shows a traceback for what a person can put right; that of a
bug quotes no values (`telemetry.faults`).
"""

from __future__ import annotations

import sys

import typer

from kirostream._version import __version__
from kirostream.commands.accounts import accounts
from kirostream.commands.admin import admin
from kirostream.commands.login import login
from kirostream.commands.serve import serve, simulate
from kirostream.commands.settings import settings
from kirostream.commands.usage import usage
from kirostream.commands.watch import watch
from kirostream.errors import KirostreamError, SettingsError

BUG = 70
"""The exit code of what should not have happened (EX_SOFTWARE of sysexits.h)."""

app = typer.Typer(
    name="kirostream",
    help="A streaming gateway: OpenAI and Anthropic clients in, Kiro models out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def version() -> None:
    """Show the version, and which core decodes the event stream."""
    import platform

    from kirostream.evstream import CORE

    typer.echo(f"kirostream {__version__} (event stream core: {CORE}, Python {platform.python_version()})")


app.command()(serve)
app.command()(simulate)
app.command()(login)
app.command()(watch)
app.command()(usage)
app.add_typer(accounts)
app.add_typer(settings)
app.add_typer(admin)


def main() -> None:
    """The entry point of the `kirostream` command."""
    code = 0
    try:
        app()
    except* KirostreamError as group:
        error = _first(group)
        typer.echo(f"kirostream: {error.message}", err=True)
        code = 2 if isinstance(error, SettingsError) else 1
    except* KeyboardInterrupt:
        code = 130
    except* Exception as group:  # noqa: BLE001 - a bug: it ends the program either way
        from kirostream.telemetry.faults import traced

        typer.echo(
            f"{''.join(traced(group))}\nkirostream: This is a bug. Please report it with the lines above.", err=True
        )
        code = BUG
    sys.exit(code)


def _first(group: BaseExceptionGroup[KirostreamError]) -> KirostreamError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, KirostreamError)
    return error
