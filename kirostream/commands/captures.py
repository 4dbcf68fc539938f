"""``kirostream captures``: debug captures in the data directory, whether or not a gateway runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kirostream.errors import SettingsError

if TYPE_CHECKING:
    from kirostream.telemetry.capture_files import CaptureReader

captures = typer.Typer(
    name="captures",
    help="Debug captures: exchanges that were kept (relay.captures.mode), and requests whose form was refused.",
    no_args_is_help=True,
)


@captures.command("list")
def show_list(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """What there is, the newest first."""
    entries = _reader().entries()
    if as_json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(entries), indent=1).decode())
        return
    if not entries:
        typer.echo("There are none. To keep failed exchanges: kirostream settings set relay.captures.mode errors")
    for each in entries:
        status = "-" if each.status is None else str(each.status)
        typer.echo(f"{each.id}  {each.kind:<8}  {status:>3}  {each.bytes:>9,}  {_line(each.error or each.reason)}")


@captures.command()
def show(name: Annotated[str, typer.Argument(help="As `list` has it.", metavar="ID")]) -> None:
    """One of them."""
    found = _reader().get(name)
    if found is None:
        raise SettingsError(f"There is no capture {name[:80]!r}. To see what there is: kirostream captures list")
    sys.stdout.write(f"{found.decode()}\n")


@captures.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to write it; - for the terminal.")],
    forms: Annotated[bool, typer.Option("--forms", help="Only refused forms, which hold no contents.")] = False,
) -> None:
    """Put all of them into one file for a bug report. It holds what was said, and no secrets."""
    from kirostream.stores.files import atomic_write

    text = b"".join(_reader().export(("form",) if forms else ("exchange", "form")))
    if str(file) == "-":
        sys.stdout.write(text.decode())
        return
    atomic_write(file.absolute(), text)
    typer.echo(f"Written to {file}. Read it before you send it{'' if forms else ': it holds what was said'}.")


@captures.command()
def clear() -> None:
    """Delete all of them."""
    typer.echo(f"{_reader().clear()} deleted.")


def _reader() -> CaptureReader:
    from kirostream.settings import data_dir
    from kirostream.telemetry.capture_files import CaptureReader
    from kirostream.telemetry.captures import FOLDER

    return CaptureReader(data_dir(os.environ) / FOLDER)


def _line(text: str) -> str:
    """The text as one line of a terminal."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= 100 else f"{shown[:99]}…"
