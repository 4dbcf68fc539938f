"""All commands."""

from __future__ import annotations

import typer

from kirostream._version import __version__
from kirostream.commands.accounts import accounts
from kirostream.commands.admin import admin
from kirostream.commands.captures import captures
from kirostream.commands.doctor import doctor
from kirostream.commands.keys import keys
from kirostream.commands.login import login
from kirostream.commands.logs import logs
from kirostream.commands.report import report
from kirostream.commands.serve import serve, simulate
from kirostream.commands.settings import settings
from kirostream.commands.usage import usage
from kirostream.commands.watch import watch

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
app.command()(logs)
app.command()(doctor)
app.command()(report)
app.add_typer(accounts)
app.add_typer(keys)
app.add_typer(settings)
app.add_typer(captures)
app.add_typer(admin)
