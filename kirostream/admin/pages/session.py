"""Logging in and out."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from kirostream.admin.guard import Guard, Who
from kirostream.admin.password import LONGEST
from kirostream.admin.route import ANSWERED, Call, Route
from kirostream.errors import KeyRejected


class LogIn(msgspec.Struct, forbid_unknown_fields=True):
    """The panel's password, or a key that may administer."""

    password: Annotated[str, Meta(max_length=LONGEST)] = ""


class Session(msgspec.Struct):
    """Who is logged in. `csrf` goes into X-CSRF-Token; it is empty, and not needed, where a key came instead."""

    name: str
    csrf: str
    expires_in: float | None
    own_password: bool
    """Whether the panel has a password of its own."""


class SessionPage:
    """``/session``."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def routes(self) -> list[Route]:
        """Its routes."""
        tag = "session"
        return [
            Route(
                method="POST",
                path="/session",
                endpoint=self.log_in,
                summary="Log in, and get a session: a cookie, and the token of X-CSRF-Token.",
                tag=tag,
                takes=LogIn,
                gives=Session,
                public=True,
                refuses=(429,),
            ),
            Route(method="GET", path="/session", endpoint=self.show, summary="Who asks.", tag=tag, gives=Session),
            Route(method="DELETE", path="/session", endpoint=self.log_out, summary="Log out.", tag=tag, status=204),
        ]

    async def log_in(self, call: Call) -> object:
        """``POST``."""
        request = call.exchange.request
        if not call.body.password:
            raise KeyRejected("No password came.")
        who, cookie = await self._guard.log_in(request, call.body.password)
        body = msgspec.json.encode(self._said(who))
        headers = (
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            (b"set-cookie", cookie.encode("ascii")),
        )
        await call.exchange.reply(200, headers, body)
        return ANSWERED

    async def show(self, call: Call) -> Session:
        """``GET``."""
        assert call.who is not None
        return self._said(call.who)

    async def log_out(self, call: Call) -> object:
        """``DELETE``."""
        cookie = self._guard.log_out(call.exchange.request)
        await call.exchange.reply(204, ((b"set-cookie", cookie.encode("ascii")), (b"cache-control", b"no-store")), b"")
        return ANSWERED

    def _said(self, who: Who) -> Session:
        left = self._guard.left(who)
        return Session(who.name, who.csrf, None if left is None else round(left, 3), self._guard.has_password)
