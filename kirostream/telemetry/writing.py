"""A task that writes what others say, for as long as a context lasts, and then once more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

LAST_WRITE: Final = 5.0
"""Seconds that the write at a stop may take."""


@asynccontextmanager
async def writing(run: Callable[[], Awaitable[None]], flush: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Have `run` write until the context ends, however it does; then `flush` what is left, within `LAST_WRITE`."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
            with trio.move_on_after(LAST_WRITE, shield=True):
                await flush()
