"""The way to the admin room: nothing of it is loaded before somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

import trio

from kirostream.net.exchange import Exchange, Handler

PREFIXES: Final = ("/admin", "/v0/management")
"""What is served here, each with all that is below it."""


class Lazily:
    """A `Handler` that is made with the first request.

    Args:
        module: is imported first, in a thread: streams go on meanwhile.
        make: makes the handler then.
    """

    def __init__(self, module: str, make: Callable[[], Handler]) -> None:
        self._module = module
        self._make = make
        self._handler: Handler | None = None
        self._making = trio.Lock()

    def __repr__(self) -> str:
        return f"<Lazily {self._handler or self._module}>"

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request."""
        if self._handler is None:
            async with self._making:
                if self._handler is None:
                    await trio.to_thread.run_sync(import_module, self._module)
                    self._handler = self._make()
        await self._handler(exchange)
