"""``kirostream serve`` and ``kirostream simulate``, and what they print for a person to start with."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kirostream._version import __version__

if TYPE_CHECKING:
    from kirostream.app import Gateway
    from kirostream.simulator.upstream import Simulator

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on (127.0.0.1).")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on; 0 lets the system choose.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file, in place of the default one.")]
LogLevel = Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")]


def serve(
    host: Host = None,
    port: Port = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", help="The key clients have to send. Others on this machine see it; PROXY_API_KEY they do not."
        ),
    ] = None,
    config: Config = None,
    log_level: LogLevel = None,
    demo: Annotated[bool, typer.Option("--demo", help="Use the built-in simulator, and no account.")] = False,
) -> None:
    """Start the gateway."""
    gc.disable()  # imports make what stays: `app.serve` goes over it once, and enables it again
    import trio

    from kirostream.app import serve as run
    from kirostream.settings import Sources, data_dir, load, unread
    from kirostream.telemetry.log import LogSink
    from kirostream.telemetry.recorder import Recorder

    for line in unread(os.environ):
        typer.echo(f"kirostream: {line}", err=True)
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
    host: Host = None,
    port: Port = None,
    config: Config = None,
    log_level: LogLevel = None,
    tokens_per_second: Annotated[float | None, typer.Option(help="Pace of an answer; 0: as fast as it goes.")] = None,
    first_token_delay: Annotated[float | None, typer.Option(help="Seconds before the first token.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes what is random the same every time.")] = None,
) -> None:
    """Start the simulated upstream alone."""
    import trio

    from kirostream.app import simulate as run
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
        *(f"  note:     {note}" for note in gateway.notes),
        f"  key:      {gateway.key if shown else f'in {folder / KEY_FILE}'}",
        f"  core:     {CORE}" + ("" if CORE == "compiled" else " (slow: no C compiler was found at installation)"),
        "",
        "Try it:",
        "",
        *_curl(gateway.url, key),
        "Stop it with Ctrl-C: streams in flight are finished first.",
    ]
    _print(lines)


def _print(lines: list[str]) -> None:
    """Lines for a person, the first in bold. None is wrapped, so that what is to be pasted stays whole."""
    typer.secho(lines[0], bold=True)
    for line in lines[1:]:
        typer.echo(line)


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
