"""``kirostream keys``: the keys that clients send, beside the gateway's own.

A secret is printed once, when it is made, on a line of its own on stdout; nothing else ever prints one.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from kirostream.gateway.keys import Key, KeyFile

T = TypeVar("T")

keys = typer.Typer(name="keys", help="The keys that clients send, beside the gateway's own.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What the key is called.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Scopes = Annotated[
    str | None,
    typer.Option(
        "--scopes", help="What it may do, with commas: api (ask), watch (every key's turns), admin. New: api."
    ),
]
Requests = Annotated[int | None, typer.Option("--requests", min=0, help="Most requests a minute; 0: no limit.")]
Tokens = Annotated[int | None, typer.Option("--tokens", min=0, help="Most tokens a minute; 0: no limit.")]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", min=0, help="Most turns at the same time; 0: no limit.")
]
CreditsDay = Annotated[float | None, typer.Option("--credits-day", min=0, help="Credits a day (UTC); 0: no limit.")]
CreditsMonth = Annotated[
    float | None, typer.Option("--credits-month", min=0, help="Credits a month (UTC); 0: no limit.")
]
Expires = Annotated[
    str | None, typer.Option("--expires", help="When it ends: 2027-01-31, 2027-01-31T12:00Z, or 30d, 12h; never.")
]


@keys.command(name="list")
def list_(json: AsJson = False) -> None:
    """Show the keys, what they may do, and their limits."""
    found = _run(lambda file: file.keys())
    if json:
        _json([_as_json(key) for key in found])
        return
    if not found:
        typer.echo("There are no keys but the gateway's own. kirostream keys add NAME makes one.")
        return
    rows = [("NAME", "KEY", "SCOPES", "LIMITS", "STATE")]
    rows += [(key.name, key.hint, ",".join(sorted(key.scopes)), _limits(key) or "none", _state(key)) for key in found]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        typer.echo("  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[4]]))


@keys.command()
def add(
    name: Name,
    scopes: Scopes = None,
    requests: Requests = None,
    tokens: Tokens = None,
    concurrency: Concurrency = None,
    credits_day: CreditsDay = None,
    credits_month: CreditsMonth = None,
    expires: Expires = None,
    secret: Annotated[bool, typer.Option("--stdin", help="Read its secret from stdin, in place of a new one.")] = False,
    json: AsJson = False,
) -> None:
    """Give out a key. Its secret is printed now, and never again."""
    from kirostream.gateway.keys import amended_limits
    from kirostream.gateway.limits import NONE

    limits = amended_limits(NONE, _figures(requests, tokens, concurrency, credits_day, credits_month))
    brought = sys.stdin.readline().strip() if secret else ""
    until = 0.0 if expires is None else _moment(expires)
    may = ("api",) if scopes is None else _listed(scopes)
    key, given = _run(lambda file: file.add(name, scopes=may, limits=limits, expires_at=until, secret=brought))
    _shown(key, given, json=json)


@keys.command(name="set")
def set_(
    name: Name,
    scopes: Scopes = None,
    requests: Requests = None,
    tokens: Tokens = None,
    concurrency: Concurrency = None,
    credits_day: CreditsDay = None,
    credits_month: CreditsMonth = None,
    expires: Expires = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether it is let in.")] = None,
    json: AsJson = False,
) -> None:
    """Change what a key may do or use. What is not named stays as it is."""
    figures = _figures(requests, tokens, concurrency, credits_day, credits_month)
    until = None if expires is None else _moment(expires)
    may = None if scopes is None else _listed(scopes)
    key = _run(lambda file: file.change(name, scopes=may, limits=figures, enabled=enabled, expires_at=until))
    if json:
        _json(_as_json(key))
    else:
        typer.echo(f"{key.name}: {', '.join(sorted(key.scopes))}; limits: {_limits(key) or 'none'}; {_state(key)}.")


@keys.command()
def rotate(
    name: Name,
    keep: Annotated[str, typer.Option(help="How long the old secret is good for: 30m, 1h, 7d. 0: no longer.")] = "0",
    json: AsJson = False,
) -> None:
    """Give a key another secret. It is printed now, and never again."""
    key, given = _run(lambda file: file.rotate(name, keep=_seconds(keep)))
    _shown(key, given, json=json)


@keys.command()
def remove(name: Name) -> None:
    """Take a key back. A gateway that runs lets it in no more within seconds; its turns in flight end by themselves."""
    key = _run(lambda file: file.remove(name))
    typer.echo(f"{key.name} was taken back.")


def _run(work: Callable[[KeyFile], Awaitable[T]]) -> T:
    import trio

    from kirostream.gateway.keys import KeyFile
    from kirostream.settings import data_dir

    file = KeyFile(data_dir(os.environ), time.time)

    async def main() -> T:
        return await work(file)

    return trio.run(main)


def _figures(
    requests: int | None, tokens: int | None, concurrency: int | None, day: float | None, month: float | None
) -> dict[str, float]:
    named: dict[str, float | None] = {
        "requests": requests,
        "tokens": tokens,
        "concurrency": concurrency,
        "credits_per_day": day,
        "credits_per_month": month,
    }
    return {name: value for name, value in named.items() if value is not None}


def _listed(scopes: str) -> list[str]:
    return [each.strip() for each in scopes.split(",") if each.strip()]


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def _seconds(said: str) -> float:
    from kirostream.errors import SettingsError

    found = re.fullmatch(r"(\d+)([smhd]?)", said.strip())
    if found is None:
        raise SettingsError(f"{said!r} is no stretch of time. Write 30m, 12h or 7d.")
    return float(found[1]) * _UNITS[found[2] or "s"]


def _moment(said: str) -> float:
    """A moment in unix seconds, 0 for never."""
    from datetime import UTC, datetime

    from kirostream.errors import SettingsError

    if said.strip().lower() in ("never", ""):
        return 0.0
    if re.fullmatch(r"\d+[smhd]", said.strip()):
        return time.time() + _seconds(said)
    try:
        found = datetime.fromisoformat(said.strip())
    except ValueError as error:
        raise SettingsError(f"{said!r} is no moment. Write 2027-01-31, 2027-01-31T12:00Z, 30d, or never.") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _at(moment: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _limits(key: Key) -> str:
    words = {
        "requests": "requests/min",
        "tokens": "tokens/min",
        "concurrency": "at once",
        "credits_per_day": "credits/day",
        "credits_per_month": "credits/month",
    }
    return ", ".join(f"{value:g} {words[name]}" for name, value in _figures_of(key).items() if value)


def _figures_of(key: Key) -> dict[str, float]:
    from kirostream.gateway.keys import FIGURES

    return {name: getattr(key.limits, name) for name in FIGURES}


def _state(key: Key) -> str:
    if not key.enabled:
        return "disabled"
    if key.expires_at:
        return f"{'expired' if key.expires_at <= time.time() else 'until'} {_at(key.expires_at)}"
    return "good"


def _shown(key: Key, secret: str, *, json: bool) -> None:
    if json:
        _json({**_as_json(key), "secret": secret})
        return
    typer.echo(f"The secret of {key.name}, which is shown only now:", err=True)
    typer.echo(secret)


def _as_json(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "hint": key.hint,
        "scopes": sorted(key.scopes),
        "limits": _figures_of(key),
        "enabled": key.enabled,
        "expires_at": key.expires_at or None,
        "created_at": key.created_at,
    }


def _json(value: object) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
