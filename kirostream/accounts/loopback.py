"""The address of this machine that a browser comes back to with the code of a sign-in (RFC 8252 section 7.3).

It listens on 127.0.0.1 alone, and only what carries the state of the sign-in counts: another page that calls it gets an
error, and the sign-in waits on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from kirostream.accounts.account import Secret
from kirostream.accounts.login_messages import Proof, read_callback
from kirostream.accounts.oidc import Refusal, Refused
from kirostream.net.door import open_listeners
from kirostream.net.exchange import Exchange
from kirostream.net.http1 import Http1Door

_LAST_WORDS: Final = 1.0
"""Seconds for the page to reach the browser."""

_HEADERS: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'"),
)


class Loopback:
    """The listening address. `wait` gives what the browser brought. Make one with `open_loopback`."""

    def __init__(self, proof: Proof) -> None:
        self._proof = proof
        self._brought: Secret | Refused | None = None
        self._here = trio.Event()
        self.port = 0

    def __repr__(self) -> str:
        return f"<Loopback 127.0.0.1:{self.port}{', visited' if self._here.is_set() else ''}>"

    async def wait(self) -> Secret | Refused:
        """The code, or the refusal that the service sent in its place."""
        await self._here.wait()
        assert self._brought is not None
        return self._brought

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one visit."""
        answer = read_callback(f"?{exchange.request.query}", self._proof)
        if isinstance(answer, Refused) and answer.kind is Refusal.TRANSIENT:
            await exchange.reply(400, _HEADERS, _page("Not this one", f"{answer.message.capitalize()}."))
            return
        if isinstance(answer, Refused):
            page = _page("The sign-in was refused", answer.message)
        else:
            page = _page("Signed in", "kirostream has what it needs. You can close this page.")
        try:
            await exchange.reply(200, _HEADERS, page)
        finally:  # the code counts, also where the browser did not stay for the page
            if self._brought is None:
                self._brought = answer
                self._here.set()


@asynccontextmanager
async def open_loopback(proof: Proof, port: int = 0) -> AsyncIterator[Loopback]:
    """Listen until the context ends.

    Args:
        port: 0 lets the system choose.

    Raises:
        SettingsError: the port is taken. The message names it.
    """
    loopback = Loopback(proof)
    listeners = await open_listeners("127.0.0.1", port)
    loopback.port = listeners[0].socket.getsockname()[1]
    door = Http1Door(loopback)
    async with trio.open_nursery() as nursery:
        await nursery.start(door.serve, listeners)
        yield loopback
        door.stop(_LAST_WORDS)
        nursery.cancel_scope.deadline = trio.current_time() + _LAST_WORDS


def _page(title: str, text: str) -> bytes:
    import html  # here: its table of names costs more than all of this file, and few processes ever show a page

    said = f"<h1>{html.escape(title)}</h1><p>{html.escape(text)}</p>"
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>{said}'.encode()
