"""``kirostream settings``: what is set, where it comes from, and changing it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kirostream.settings_file import Setting, SettingsEditor

settings = typer.Typer(name="settings", help="Show and change what is set.", no_args_is_help=True)

Config = Annotated[Path | None, typer.Option("--config", help="Settings file, in place of the default one.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
Name = Annotated[str, typer.Argument(help="A setting, as server.port.")]


@settings.command()
def show(
    name: Annotated[str, typer.Argument(help="Only this setting, or this section.")] = "",
    config: Config = None,
    given: Annotated[bool, typer.Option("--given", help="Only what is not at its default.")] = False,
    json: Json = False,
) -> None:
    """Show what is set, and where it comes from. Secrets are masked."""
    every = _editor(config).show()
    found = [each for each in every if not name or each.name == name or each.name.startswith(f"{name}.")]
    if not found:
        found = [_editor(config).one(name)]  # which says what is near
    if given:
        found = [each for each in found if each.origin != "the defaults"]
    if json:
        _json([_as_json(each) for each in found])
        return
    width = max((len(_line(each)) for each in found), default=0)
    for each in found:
        typer.echo(f"{_line(each):{min(width, 60)}}  # {each.origin}")


@settings.command()
def explain(name: Name, config: Config = None, json: Json = False) -> None:
    """Say what a setting does, what it takes, and when a change of it acts."""
    one = _editor(config).one(name)
    if json:
        _json(_as_json(one))
        return
    variables = ", ".join([one.variable, *_legacy(name)])
    typer.echo(f"{_line(one)}\n\n{one.help}\n")
    rows = [
        ("type", one.kind + (f", {one.unit}" if one.unit else "")),
        ("default", _literal(one.default)),
        ("comes from", one.origin),
        ("variable", variables),
        ("a change acts", "at once, on what begins after it" if one.live else "after a restart"),
    ]
    for title, said in rows:
        typer.echo(f"{title:14} {said}")


@settings.command(name="set")
def set_(
    name: Name,
    value: Annotated[
        str | None, typer.Argument(help="Its new value; a table as { a = 'b' }. - reads a secret from stdin.")
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Take it out of the file, so that its default holds.")
    ] = False,
    config: Config = None,
) -> None:
    """Write a setting to the file. Its comments stay; what does not fit is refused, and nothing is written."""
    import trio

    from kirostream.errors import SettingsError

    if (value is None) is not default:
        raise SettingsError("Say a value, or --default.")
    if value == "-":
        value = sys.stdin.readline().rstrip("\n")
    editor = _editor(config)
    change = trio.run(editor.set, name, value)
    typer.echo(f"{_line(editor.one(name))}  # written to {editor.path}")
    words = {
        "now": "A gateway that runs takes it in on SIGHUP (kill -HUP PID), or from its panel.",
        "restart": "It acts after a restart.",
        "never": f"It does not act: {change.by} says otherwise.",
    }
    typer.echo(words[change.acts])


@settings.command()
def check(config: Config = None) -> None:
    """See whether everything that is set can be used. All that cannot is named, with its line."""
    from kirostream.settings import Sources, unread
    from kirostream.settings_file import doubtful, problems

    wrong, doubts = problems(Sources(os.environ, config)), [*unread(os.environ)]
    if not wrong:
        doubts += doubtful(_editor(config).acting)
    for line in (*wrong, *doubts):
        typer.echo(line, err=True)
    if wrong:
        raise typer.Exit(2)
    path = Sources(os.environ, config).file
    typer.echo(f"Everything fits. The settings file is {path}{'' if path.exists() else ', which is not there'}.")


@settings.command()
def docs() -> None:
    """Print docs/settings.md: every setting there is."""
    from kirostream.settings_docs import page

    typer.echo(page(), nl=False)


def _editor(config: Path | None) -> SettingsEditor:
    from kirostream.settings import Sources
    from kirostream.settings_file import SettingsEditor

    return SettingsEditor(Sources(os.environ, config))


def _line(setting: Setting) -> str:
    return f"{setting.name} = {_literal(setting.value)}"


def _literal(value: object) -> str:
    from kirostream.stores.toml_text import literal

    return literal("" if value is None else value)


def _legacy(name: str) -> list[str]:
    from kirostream.settings import LEGACY

    return [variable for variable, meant in LEGACY.items() if meant == name]


def _as_json(setting: Setting) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(setting)


def _json(value: object) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
