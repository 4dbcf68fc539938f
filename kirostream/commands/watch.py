"""``kirostream watch``: turns in flight, or the words of one, in a terminal, a pipe, or as JSON.

A person at a terminal gets a table that keeps itself up to date, or the text of a turn as it comes: thoughts dimmed,
calls of tools with their arguments. In a pipe there are plain lines and no control codes. What a model says is printed
without control characters, which a terminal would obey.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Protocol

import typer

from kirostream.errors import KirostreamError, SettingsError, UpstreamDown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from kirostream.client import Client

INTERVAL: Final = 0.5
"""Seconds between two looks at the turns."""
PATIENCE: Final = 5.0
"""Seconds for which a gateway that went away may come back."""
SHORT: Final = 8
"""Characters of an id in the table. The beginning of an id is enough for `watch`."""
_CONTROLS: Final = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}
Described = Mapping[str, Any]
"""A turn as ``GET /v1/turns`` describes it."""


def watch(
    turn: Annotated[str, typer.Argument(help="The id of a turn, or its beginning. None: all that are in flight.")] = "",
    every: Annotated[
        bool, typer.Option("--all", help="Also turns that are over, as long as they can be replayed.")
    ] = False,
    after: Annotated[str, typer.Option(help="Begin behind this place (the last `id:` of a stream).")] = "",
    dialect: Annotated[
        str, typer.Option(help="Raw events in this language: anthropic, openai_chat, openai_responses or canonical.")
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Raw events, or descriptions of turns: one JSON a line.")
    ] = False,
    url: Annotated[str | None, typer.Option("--url", help="The gateway's address; without it, the settings'.")] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            help="The gateway's key; without it, PROXY_API_KEY or the one it keeps. Others on this machine see what "
            "stands here.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file, in place of the default one.")] = None,
) -> None:
    """Watch turns as they are said."""
    import trio

    if turn and every:
        raise SettingsError("A turn was named, and --all. Say one of them.")
    if not turn and (after or dialect):
        raise SettingsError("--after and --dialect are about one turn: name it.")
    address, secret = _gateway(url, key, config)
    try:
        if not turn:
            trio.run(_watch_all, address, secret, every, as_json)
        elif not trio.run(_watch_one, address, secret, turn, after, dialect, as_json):
            sys.exit(1)
    except* BrokenPipeError:  # whoever read has enough; what is in the buffer is nobody's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _gateway(url: str | None, key: str | None, config: Path | None) -> tuple[str, str]:
    """Address and key of the gateway, as `serve` would have them."""
    from kirostream.gateway.callers import KEY_FILE
    from kirostream.settings import data_dir, load
    from kirostream.stores.files import read_file

    settings = load(os.environ, path=config)
    if url is None:
        host = settings.server.host
        host = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        if not settings.server.port:
            raise SettingsError("The gateway's port is chosen when it starts. Say where it is with --url.")
        url = f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}"
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"{url!r} is no address of a gateway. Write it as http://127.0.0.1:8000.")
    key = key or os.environ.get("KIROSTREAM_KEY") or settings.server.key
    if not key:
        path = data_dir(os.environ) / KEY_FILE
        if not path.exists():
            raise SettingsError(f"There is no key in {path}. Give the gateway's key with --key, or in KIROSTREAM_KEY.")
        key = read_file(path).decode("utf-8", "replace").strip()
    return url.rstrip("/"), key


def _advice(error: UpstreamDown, url: str) -> KirostreamError:
    """What to do about a connection that was not to be had."""
    match error.reason:
        case "401":
            return SettingsError(f"The gateway at {url} refuses the key. Give it with --key, or in KIROSTREAM_KEY.")
        case "404" | "426":
            return SettingsError(f"{url} serves no /v1/stream: it is no kirostream, or `websocket.enabled` is off.")
    return UpstreamDown(f"{error.message} Start a gateway with `kirostream serve`, or say where it is with --url.")


# All turns


class View(Protocol):
    """Shows turns."""

    def show(self, turns: list[Described]) -> None:
        """Take note of the turns as they are now."""


async def _watch_all(url: str, key: str, every: bool, as_json: bool) -> None:
    from rich.live import Live

    console = _console()
    if as_json or not console.is_terminal:
        await _poll(url, key, Lines(as_json=as_json), every)
        return
    with Live(console=console, auto_refresh=False) as live:
        await _poll(url, key, Screen(live), every)


async def _poll(url: str, key: str, view: View, every: bool) -> None:
    """Look at the turns until the gateway is gone."""
    import trio

    from kirostream.client import connect

    known = False
    trouble: KirostreamError | None = None
    try:
        async with connect(url, key, patience=PATIENCE) as client:
            known = True
            while trouble is None:
                try:
                    turns = await client.turns()
                except UpstreamDown:  # it may come back
                    trouble = client.trouble
                else:
                    view.show([turn for turn in turns if every or turn["status"] == "in_progress"])
                await trio.sleep(INTERVAL)
    except UpstreamDown as error:
        raise error if known else _advice(error, url) from None
    if trouble is not None:
        raise UpstreamDown(f"The gateway at {url} has stopped.")


class Lines:
    """A line when a turn is seen first, and one at its end; or its description whenever that changed."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._last: dict[str, Described] = {}

    def show(self, turns: list[Described]) -> None:
        for turn in turns:
            before = self._last.get(turn["id"])
            if self._as_json:
                if before is None or _lasting(before) != _lasting(turn):
                    _print(json.dumps(turn))
            elif before is None or before["status"] != turn["status"]:
                _print(_line(turn))
        gone = self._last.keys() - {turn["id"] for turn in turns}
        if not self._as_json:
            for name in sorted(gone):
                if self._last[name]["status"] == "in_progress":
                    _print(f"{name}  over")
        self._last = {turn["id"]: turn for turn in turns}


def _lasting(turn: Described) -> dict[str, Any]:
    """What of a description does not change by itself."""
    return {name: value for name, value in turn.items() if name != "seconds"}


class Screen:
    """A table that keeps itself up to date."""

    def __init__(self, live: Any) -> None:
        self._live = live
        self._last: dict[str, Described] = {}

    def show(self, turns: list[Described]) -> None:
        self._live.update(table(turns, self._last), refresh=True)
        self._last = {turn["id"]: turn for turn in turns}


_COLUMNS: Final = ("turn", "asked in", "model", "state", "tokens", "rate", "age", "account", "credits")
_NUMBERS: Final = ("tokens", "rate", "age", "credits")
_WORDS: Final = ("asked in", "model", "state", "account")
"""What gives way where the terminal is narrow."""


def table(turns: list[Described], before: Mapping[str, Described]) -> Table:
    """The turns, with the pace since `before`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in _COLUMNS:
        justify: Literal["left", "right"] = "right" if name in _NUMBERS else "left"
        shown.add_column(name, justify=justify, no_wrap=name not in _WORDS)
    for turn in turns:
        style = {"failed": "red", "completed": "dim"}.get(turn["status"], "")
        cells = [
            turn["id"][:SHORT],
            turn["dialect"],
            turn["answered_by"] or turn["model"],
            _state(turn),
            _tokens(turn),
            _pace(turn, before.get(turn["id"])),
            _age(turn),
            turn["account"],
            _cost(turn),
        ]
        shown.add_row(*(Text(_clean(cell), no_wrap=True, overflow="ellipsis") for cell in cells), style=style)
    if not turns:
        shown.caption = "No turn is in flight."
    return shown


def _line(turn: Described) -> str:
    """What is said of a turn in one line: the cells of its row that there are, with their units."""
    model = turn["model"] if turn["answered_by"] in ("", turn["model"]) else f"{turn['model']} ({turn['answered_by']})"
    cost = _cost(turn)
    said = [turn["id"], turn["dialect"], model, _state(turn), f"{_tokens(turn)} tokens", _pace(turn), _age(turn)]
    said += [turn["account"], f"{cost} credits" if cost else ""]
    return "  ".join(_clean(cell) for cell in said if cell)


def _state(turn: Described) -> str:
    state: str = "running" if turn["status"] == "in_progress" else turn["status"]
    return f"{state}: {turn['error']['type']}" if "error" in turn else state


def _tokens(turn: Described) -> str:
    """As an estimate, while it is one."""
    return f"{'~' if turn['status'] == 'in_progress' else ''}{turn['tokens']}"


def _pace(turn: Described, before: Described | None = None) -> str:
    """Tokens a second: since `before` while it runs, else from its beginning on."""
    tokens, seconds = turn["tokens"], turn.get("seconds", 0.0)
    if before is not None and turn["status"] == "in_progress" and seconds > before.get("seconds", seconds):
        tokens, seconds = tokens - before["tokens"], seconds - before["seconds"]
    return f"{tokens / seconds:.0f}/s" if seconds else ""


def _age(turn: Described) -> str:
    return f"{turn['seconds']:.1f} s" if "seconds" in turn else ""


def _cost(turn: Described) -> str:
    """Credits; known at the end."""
    return f"{turn['credits']:.4f}" if "credits" in turn else ""


# One turn


async def _watch_one(url: str, key: str, name: str, after: str, dialect: str, as_json: bool) -> bool:
    """Show a turn to its end. Returns whether it came to a good one."""
    from kirostream.client import connect

    known = False
    try:
        async with connect(url, key, patience=PATIENCE) as client:
            known = True
            turn = await client.watch(await _whole_id(client, name), dialect or "canonical", after)
            if as_json or dialect:
                async for event in turn:
                    _print(json.dumps(event))
                return turn.status == "completed"
            words = Words(_console())
            async for event in turn:
                words.say(event)
            words.end()
            described = [each for each in await client.turns() if each["id"] == turn.id]
    except UpstreamDown as error:
        raise error if known else _advice(error, url) from None
    for each in described:
        typer.echo(_line(each), err=True)
    return turn.status == "completed"


async def _whole_id(client: Client, name: str) -> str:
    """The id that begins so. What begins no turn that is listed may be one on disk."""
    found = [turn["id"] for turn in await client.turns() if turn["id"].startswith(name)]
    if len(found) > 1:
        raise SettingsError(f"{len(found)} turns begin with {name!r}: {', '.join(found[:5])}. Write more of it.")
    return found[0] if found else name


class Words:
    """Prints the canonical events of a turn for a person."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._kinds: dict[int, str] = {}
        self._at = -1
        self._column = 0

    def say(self, event: Described) -> None:
        """Print what an event says."""
        match event["type"]:
            case "block_started":
                self._kinds[event["index"]] = event["kind"]
                self._begin(event)
            case "block_delta":
                if event["index"] != self._at:  # blocks may overlap
                    self._turn_to(event["index"])
                self._put("".join(event["pieces"]), self._kinds.get(event["index"], ""))
            case "turn_failed":
                error = event["error"]
                self._line(f"[{error['class']}] {error['message']}", "bold red")

    def end(self) -> None:
        """End the last line."""
        if self._column:
            self._put("\n", "")

    def _begin(self, event: Described) -> None:
        self._turn_to(event["index"])
        match event["kind"]:
            case "thinking":
                self._put("[thinking] ", "thinking")
            case "redacted":
                self._line("[a thought that the model does not show]", "dim")
            case "tool_call":
                self._put(f"[call of {event.get('name', '')}] ", "tool_call")
            case "search":
                self._put("[web search] ", "search")
            case "search_result":
                hits = (event.get("outcome") or {}).get("hits")
                self._line(f"[{'search failed' if hits is None else f'{len(hits)} results'}]", "cyan")

    def _turn_to(self, index: int) -> None:
        self.end()
        self._at = index

    def _line(self, text: str, style: str) -> None:
        self.end()
        self._put(f"{text}\n", style)

    def _put(self, text: str, kind: str) -> None:
        style = {"thinking": "dim", "tool_call": "cyan", "search": "cyan", "text": ""}.get(kind, kind)
        text = _clean(text)
        if not text:
            return
        if style and self._console.is_terminal:
            self._console.print(text, end="", style=style)
        else:
            self._console.file.write(text)  # as it is: rich would make spaces of tabs
        self._console.file.flush()
        self._column = 0 if text.endswith("\n") else 1


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _clean(text: str) -> str:
    """The text without control characters, which a terminal would obey; line ends and tabs stay."""
    return text.translate(_CONTROLS)
