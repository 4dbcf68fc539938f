"""The gateway as an ASGI application, for a hypercorn of your own::

    hypercorn -k trio --graceful-timeout 30 kirostream.asgi:app

Settings come from the file and the environment, as for ``kirostream serve``; where to listen, certificates and limits
of the connection are the server's. The gateway begins and ends with the lifespan. `demo` has the simulator behind it.

Under a server that is not ours nothing can be cut (`net.asgi`): pass it a listening socket with ``TCP_USER_TIMEOUT``,
as ``fd://``, or a client that does not read keeps its turn. ``[[listen]]`` in the settings needs none of that.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import trio

from kirostream.errors import KirostreamError, LocalProtocolError, SettingsError

if TYPE_CHECKING:
    from kirostream.net.asgi import AsgiDoor, Receive, Scope, Send


class Application:
    """An ASGI 3 application on Trio. `demo`: the upstream is the built-in simulator, and no account is used."""

    def __init__(self, *, demo: bool = False) -> None:
        self._demo = demo
        self._door: AsgiDoor | None = None

    def __repr__(self) -> str:
        return f"<Application {'serving' if self._door else 'not begun'}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._door is None:
            raise LocalProtocolError("the server has to support ASGI's lifespan, which starts the gateway")
        else:
            await self._door(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        ended = "lifespan.shutdown.complete", ""
        try:
            if not trio.lowlevel.in_trio_run():
                raise SettingsError("The server does not run on Trio. Use: hypercorn -k trio kirostream.asgi:app")
            await self._serve(receive, send)
        except* KirostreamError as group:
            failed = "startup" if self._door is None else "shutdown"
            ended = f"lifespan.{failed}.failed", "; ".join(str(leaf) for leaf in _leaves(group))
        finally:
            self._door = None
        await send({"type": ended[0], "message": ended[1]})

    async def _serve(self, receive: Receive, send: Send) -> None:
        from kirostream.accounts.discovery import Discovery
        from kirostream.app import open_gateway
        from kirostream.finding import find_accounts, look_for_accounts
        from kirostream.running import settle_heap
        from kirostream.settings import Sources, data_dir, load
        from kirostream.telemetry.facts import ServiceChanged
        from kirostream.telemetry.log import LogSink
        from kirostream.telemetry.recorder import Recorder

        settings = load(os.environ)
        folder = data_dir(os.environ)
        log = LogSink(settings.log)
        recorder = Recorder(log)
        found = None if self._demo else await find_accounts(settings, os.environ, folder)

        async def find() -> Discovery:
            return await look_for_accounts(settings, os.environ, folder)

        async with open_gateway(
            settings,
            found,
            data_dir=folder,
            recorder=recorder,
            find=None if self._demo else find,
            sources=Sources(os.environ),
            listens=False,
        ) as gateway:
            gateway.steering.adopters.append(lambda new: log.adopt(new.log))
            self._door = gateway.door.application()
            settle_heap()
            recorder.record(ServiceChanged(service="gateway", state="listening", detail="ASGI"))
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown: the server has ended every connection
            gateway.responses.stopping.set()
        recorder.record(ServiceChanged(service="gateway", state="stopped"))


def _leaves(group: BaseExceptionGroup[Any]) -> list[Any]:
    found: list[Any] = []
    for inner in group.exceptions:
        found += _leaves(inner) if isinstance(inner, BaseExceptionGroup) else [inner]
    return found


app = Application()
demo = Application(demo=True)
