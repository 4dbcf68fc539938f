"""What ``serve`` and ``simulate`` do: settings, the loop, and what is printed for a person to start with."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from kirostream._version import __version__

if TYPE_CHECKING:
    from kirostream.app import Gateway
    from kirostream.simulator.upstream import Simulator


class Asked(TypedDict, total=False):
    """The arguments of `serve`. What is not there is the settings' to say."""

    host: str
    port: int
    key: str
    config: Path
    log_level: str
    demo: bool


def usual(words: Sequence[str]) -> Asked | None:
    """The arguments of a ``serve`` whose options are whole and apart from their values; None: this is for typer.

    Args:
        words: of the command line, behind the program's name.
    """
    if not words or words[0] != "serve":
        return None
    asked = Asked()
    rest = iter(words[1:])
    for word in rest:
        if word == "--demo":
            asked["demo"] = True
            continue
        value = next(rest, "")
        if not value or value.startswith("-"):
            return None
        if word == "--host":
            asked["host"] = value
        elif word == "--port" and value.isascii() and value.isdigit():
            asked["port"] = int(value)
        elif word == "--key":
            asked["key"] = value
        elif word == "--config":
            asked["config"] = Path(value)
        elif word == "--log-level":
            asked["log_level"] = value
        else:
            return None
    return asked


def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    key: str | None = None,
    config: Path | None = None,
    log_level: str | None = None,
    demo: bool = False,
) -> None:
    """Run a gateway until it is told to stop. None: as the settings say.

    Raises:
        KirostreamError: it cannot start.
    """
    # Imports make little that goes again, and none of it gets old; `running.settle_heap` ends this.
    gc.set_threshold(20_000, 1_000, 1_000)
    import trio

    from kirostream.running import serve as run
    from kirostream.settings import Sources, data_dir, load, unread
    from kirostream.telemetry.log import LogSink
    from kirostream.telemetry.recorder import Recorder

    for line in unread(os.environ):
        sys.stderr.write(f"kirostream: {line}\n")
    arguments = {"server.host": host, "server.port": port, "server.key": key, "log.level": log_level}
    settings = load(os.environ, path=config, arguments=arguments)
    log = LogSink(settings.log)
    folder = data_dir(os.environ)
    trio.run(
        lambda: run(
            settings,
            demo=demo,
            env=os.environ,
            data_dir=folder,
            recorder=Recorder(log),
            announce=lambda gateway: _announce(gateway, folder),
            sources=Sources(os.environ, config, arguments),
            on_settings=lambda new: log.adopt(new.log),
        )
    )


def simulate(
    *,
    host: str | None,
    port: int | None,
    config: Path | None,
    log_level: str | None,
    tokens_per_second: float | None,
    first_token_delay: float | None,
    seed: int | None,
) -> None:
    """Run the simulated upstream until it is told to stop. None: as the settings say.

    Raises:
        KirostreamError: it cannot start.
    """
    import trio

    from kirostream.running import simulate as run
    from kirostream.settings import load
    from kirostream.telemetry.log import LogSink
    from kirostream.telemetry.recorder import Recorder

    settings = load(
        os.environ,
        path=config,
        arguments={
            "simulator.host": host,
            "simulator.port": port,
            "simulator.tokens_per_second": tokens_per_second,
            "simulator.first_token_delay": first_token_delay,
            "simulator.seed": seed,
            "log.level": log_level,
        },
    )
    trio.run(lambda: run(settings, recorder=Recorder(LogSink(settings.log)), announce=_announce_simulator))


def _announce(gateway: Gateway, folder: Path) -> None:
    """What a person needs to start: the address, the key, and a line to paste for each API."""
    from kirostream.evstream import CORE
    from kirostream.gateway.callers import KEY_FILE

    shown = gateway.new_key or gateway.simulator is not None
    key = gateway.key if shown else f"$(cat {folder / KEY_FILE})"
    lines = [
        f"kirostream {__version__} listens on {gateway.url}",
        *(f"  also on:  {url}" for url in gateway.more_urls),
        f"  upstream: {gateway.using}",
        *(["  asked:    the built-in simulator in its place (simulator.instead)"] if gateway.switch.on else []),
        *(f"  note:     {note}" for note in gateway.notes),
        f"  key:      {gateway.key if shown else f'in {folder / KEY_FILE}'}",
        f"  core:     {CORE}, {'a hub for all streams' if gateway.hub else 'a task for each stream'}"
        + ("" if CORE == "compiled" else " (slow: no C compiler was found at installation)"),
        "",
        "Try it:",
        "",
        *_curl(gateway.url, key),
        "Stop it with Ctrl-C: streams in flight are finished first.",
    ]
    _print(lines)


def _print(lines: list[str]) -> None:
    """Lines for a person, the first in bold. None is wrapped, so that what is to be pasted stays whole."""
    first, *rest = lines
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        first = f"\033[1m{first}\033[0m"
    sys.stdout.write("\n".join([first, *rest, ""]))
    sys.stdout.flush()


def _curl(url: str, key: str) -> list[str]:
    messages = '"messages":[{"role":"user","content":"Say hello in three languages."}]'
    body = f'{{"model":"claude-sonnet-4.5","max_tokens":500,"stream":true,{messages}}}'
    anthropic = f"curl -N {url}/v1/messages -H \"x-api-key: {key}\" -H 'content-type: application/json' -d '{body}'"
    openai = (
        f'curl -N {url}/v1/chat/completions -H "authorization: Bearer {key}" '
        f"-H 'content-type: application/json' -d '{body}'"
    )
    models = f'curl {url}/v1/models -H "authorization: Bearer {key}"'
    return [anthropic, "", openai, "", models, ""]


def _announce_simulator(simulator: Simulator, url: str) -> None:
    _print([f"kirostream {__version__} simulates Kiro on {url}"])
