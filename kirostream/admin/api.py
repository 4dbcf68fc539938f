"""The admin room as one `Handler`: the API by its table, and the panel's files.

A request to the API goes through four steps, in this order: who asks (`guard`), is the query and the body what the
route takes, the route, the answer as JSON. Who may not ask learns nothing of what is there: a path that does not exist
and one that does are refused alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from kirostream.admin.desk import Desk
from kirostream.admin.errors import SAFE_HEADERS
from kirostream.admin.guard import Guard
from kirostream.admin.openapi import document
from kirostream.admin.pages.accounts import AccountsPage
from kirostream.admin.pages.captures import CapturesPage
from kirostream.admin.pages.keys import KeysPage
from kirostream.admin.pages.logins import LoginsPage
from kirostream.admin.pages.logs import LogsPage
from kirostream.admin.pages.models import ModelsPage
from kirostream.admin.pages.session import SessionPage
from kirostream.admin.pages.settings import SettingsPage
from kirostream.admin.pages.simulator import SimulatorPage
from kirostream.admin.pages.status import StatusPage
from kirostream.admin.pages.turns import TurnsPage
from kirostream.admin.pages.usage import UsagePage
from kirostream.admin.panel import Panel
from kirostream.admin.password import PasswordFile
from kirostream.admin.route import ANSWERED, API, Call, Route
from kirostream.admin.settings import AdminSettings
from kirostream.errors import MalformedRequest
from kirostream.net.exchange import Exchange, Headers, HttpRequest
from kirostream.net.router import Router

DOCUMENT: Final = f"{API}/openapi.json"


class Admin:
    """Serves ``/admin`` and what is below it."""

    def __init__(self, desk: Desk, guard: Guard) -> None:
        self._guard = guard
        self._panel = Panel()
        pages = (
            SessionPage(guard),
            StatusPage(desk),
            AccountsPage(desk),
            LoginsPage(desk),
            TurnsPage(desk),
            LogsPage(desk),
            CapturesPage(desk),
            UsagePage(desk),
            KeysPage(desk.key_ring),
            SettingsPage(desk.editor),
            ModelsPage(desk),
            SimulatorPage(desk),
        )
        self.routes: Final[Sequence[Route]] = [
            *(route for page in pages for route in page.routes()),
            Route(
                method="GET",
                path="/openapi.json",
                endpoint=self._document,
                summary="This document.",
                tag="document",
                gives=dict[str, Any],
            ),
        ]
        self._router = Router()
        for route in self.routes:
            self._router.add(route.method, route.whole_path, partial(self._serve, route))

    def adopt(self, settings: AdminSettings) -> None:
        """Go by other settings from now on."""
        self._guard.adopt(settings)

    def __repr__(self) -> str:
        return f"<Admin {len(self.routes)} routes, {self._guard!r}>"

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request. What it raises, the door has worded (`lazy.refusing`).

        Raises:
            KirostreamError: it is refused.
        """
        request = exchange.request
        if self._panel.has(request.path):
            await self._panel(exchange)
            return
        if not self._is_public(request):
            self._guard.check(request)
        await self._router(exchange)

    def _is_public(self, request: HttpRequest) -> bool:
        return any(
            route.public and route.method == request.method and route.whole_path == request.path
            for route in self.routes
        )

    async def _serve(self, route: Route, exchange: Exchange, **path: str) -> None:
        request = exchange.request
        who = None if route.public else self._guard.check(request)
        query = _query(request, route.query) if route.query is not None else None
        body = _body(await exchange.body(route.limit), route.takes) if route.takes is not None else None
        said = await route.endpoint(Call(exchange, who, path, body, query))
        if said is ANSWERED:
            return
        headers: Headers = SAFE_HEADERS
        content = b""
        if route.gives is not None:
            headers = ((b"content-type", b"application/json"), *SAFE_HEADERS)
            content = msgspec.json.encode(said)
        await exchange.reply(route.status, headers, content)

    async def _document(self, call: Call) -> object:
        return document(self.routes, self._guard.cookie)


def _body(data: bytes, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """The body of a request; an empty one is an empty object.

    Raises:
        MalformedRequest: it is not what the route takes.
    """
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise _malformed(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"The body is not JSON: {error}") from None


def _query(request: HttpRequest, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """The query of a request; of a name that comes twice the last value counts.

    Raises:
        MalformedRequest: it is not what the route takes.
    """
    try:
        return msgspec.convert(
            dict(parse_qsl(request.query, keep_blank_values=True, max_num_fields=100)), kind, strict=False
        )
    except msgspec.ValidationError as error:
        raise _malformed(error) from None
    except ValueError as error:
        raise MalformedRequest(f"The query cannot be read: {error}.") from None


def _malformed(error: msgspec.ValidationError) -> MalformedRequest:
    message, _, path = str(error).partition(" - at ")
    return MalformedRequest(f"{message}.", param=path.strip("`"))


def open_admin(desk: Desk, clock: Callable[[], float] | None = None) -> Admin:
    """The room, over a running gateway.

    Args:
        clock: seconds, for the age of sessions; None: trio's.
    """
    more: dict[str, Any] = {} if clock is None else {"clock": clock}
    folder = desk.about.data_dir
    return Admin(desk, Guard(desk.settings, PasswordFile(folder), desk.keys, str(folder.absolute()), **more))
