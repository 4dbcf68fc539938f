"""``kirostream admin``: the panel's password."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from kirostream.errors import SettingsError

admin = typer.Typer(name="admin", help="The panel, at /admin of a gateway that runs.", no_args_is_help=True)


@admin.callback()
def group() -> None:
    """The panel, at /admin of a gateway that runs."""


@admin.command()
def password(
    remove: Annotated[
        bool, typer.Option("--remove", help="Forget it: the gateway's key opens the panel again.")
    ] = False,
) -> None:
    """Set the panel's password; it holds at once, also in a gateway that runs, and ends every session."""
    from kirostream.admin.password import PasswordFile, hashed
    from kirostream.settings import data_dir

    file = PasswordFile(data_dir(os.environ))
    if remove:
        there = file.remove()
        typer.echo("Removed. The gateway's own key opens the panel." if there else "There was no password.")
        return
    file.write(hashed(_ask()))
    typer.echo("Set. Log in at /admin with it; the gateway's own key does not open the panel any more.")


def _ask() -> str:
    """A new password, twice from a terminal without showing it, or once from a pipe; never from the command line."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    import getpass

    first = getpass.getpass("New password: ")
    if getpass.getpass("The same again: ") != first:
        raise SettingsError("The two are not the same. Nothing was changed.")
    return first
