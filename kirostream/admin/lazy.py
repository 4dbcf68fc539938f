"""The way to the admin room: nothing of it is loaded before somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

import trio

from kirostream.errors import KirostreamError, NoSuchRoute
from kirostream.net.door import Refuse
from kirostream.net.exchange import Exchange, Handler, Headers, HttpRequest

PREFIXES: Final = ("/admin", "/v0/management")
"""What is served here, each with all that is below it."""


def refusing(refuse: Refuse) -> Refuse:
    """`refuse`, but for what is served here: whatever fails below `PREFIXES`, a bug too, is worded as the API does."""

    def worded(error: KirostreamError, request: HttpRequest | None) -> tuple[int, Headers, bytes]:
        if request is None or not any(f"{request.path}/".startswith(f"{prefix}/") for prefix in PREFIXES):
            return refuse(error, request)
        from kirostream.admin.errors import word

        return word(error)

    return worded


class Lazily:
    """A `Handler` that is made with the first request.

    Args:
        module: is imported first, in a thread: streams go on meanwhile.
        make: makes the handler then.
        is_on: whether it serves at all, just now.
    """

    def __init__(self, module: str, make: Callable[[], Handler], is_on: Callable[[], bool] = lambda: True) -> None:
        self._module = module
        self._make = make
        self._is_on = is_on
        self._handler: Handler | None = None
        self._making = trio.Lock()

    def __repr__(self) -> str:
        return f"<Lazily {self._handler or self._module}>"

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request.

        Raises:
            NoSuchRoute: it is off.
        """
        if not self._is_on():
            raise NoSuchRoute(f"Nothing is served at {exchange.request.path}.")
        if self._handler is None:
            async with self._making:
                if self._handler is None:
                    await trio.to_thread.run_sync(import_module, self._module)
                    self._handler = self._make()
        await self._handler(exchange)
