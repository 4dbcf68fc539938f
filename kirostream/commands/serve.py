"""``kirostream serve`` and ``kirostream simulate``, as typer is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kirostream.starting import serve as run_serve
from kirostream.starting import simulate as run_simulate

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
    run_serve(host=host, port=port, key=key, config=config, log_level=log_level, demo=demo)


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
    run_simulate(
        host=host,
        port=port,
        config=config,
        log_level=log_level,
        tokens_per_second=tokens_per_second,
        first_token_delay=first_token_delay,
        seed=seed,
    )
