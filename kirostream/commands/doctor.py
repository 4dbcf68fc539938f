"""``kirostream doctor``: what is there, what works, and what does not; the first thing to run when something is off."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kirostream.commands.checks import Finding

_COLOURS = {"ok": "green", "note": "yellow", "trouble": "red"}


def doctor(
    config: Annotated[Path | None, typer.Option("--config", help="Settings file, in place of the default one.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nothing outside this machine.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look at everything a gateway needs, and say what is wrong. It repairs nothing, and exits with 1 for trouble."""
    import trio

    from kirostream.commands.checks import Scene, check
    from kirostream.settings import Sources, data_dir

    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            _print(finding)

    trio.run(check, Scene(Sources(os.environ, config), os.environ, data_dir(os.environ), offline), tell)
    if as_json:
        typer.echo(json.dumps([each._asdict() for each in found], indent=2, ensure_ascii=False))
    if any(each.verdict == "trouble" for each in found):
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    verdict = f"{finding.verdict:<7}"
    if sys.stdout.isatty():
        verdict = typer.style(verdict, fg=_COLOURS[finding.verdict])
    first, *rest = finding.said.splitlines()
    typer.echo("\n".join([f"{verdict}  {finding.subject:<8}  {first}", *(f"{'':19}{line}" for line in rest)]))
