"""Signing in from the panel, by device code: begin, show the code, ask until it is confirmed."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import Annotated, Final, Literal

import msgspec
import trio
from msgspec import Meta

from kirostream.accounts.account import Credential
from kirostream.accounts.login import Task, builder_id, identity_center, social
from kirostream.admin.desk import Desk
from kirostream.admin.errors import Conflict
from kirostream.admin.route import Call, Route, there
from kirostream.errors import KirostreamError

AT_ONCE: Final = 8
"""Sign-ins that wait for a person at the same time."""
KEPT: Final = 32
"""Sign-ins that are remembered, those that are over too."""

Progress = Literal["pending", "done", "failed", "cancelled"]


class Begin(msgspec.Struct, forbid_unknown_fields=True):
    """Who signs in, and where. `start_url` and `region` are for an organisation's IAM Identity Center."""

    method: Literal["google", "github", "builder_id", "identity_center"]
    start_url: Annotated[str, Meta(max_length=2000)] = ""
    region: Annotated[str, Meta(max_length=40)] = "us-east-1"
    label: Annotated[str, Meta(max_length=200)] = ""


class Login(msgspec.Struct):
    """A sign-in. A person opens `url`, compares `code`, and confirms; then `account` says who it is.

    `left` are seconds until the code ends; `trouble` is what is wrong at the moment, `error` what ended it.
    """

    id: str
    method: str
    state: Progress
    url: str
    code: str
    left: float
    trouble: str
    account: str
    label: str
    replaced: bool
    notes: list[str]
    error: str


class Logins(msgspec.Struct):
    """The sign-ins, the newest first."""

    logins: list[Login]


class _Screen:
    """One sign-in, as a `Screen`: what a person has to do is kept here, and shown when the page asks."""

    def __init__(self, said: Login) -> None:
        self.said = said
        self.shown = trio.Event()
        self.scope = trio.CancelScope()
        self.failure: KirostreamError | None = None

    def show(self, task: Task) -> None:
        self.said.url, self.said.code, self.said.left = task.url, task.code, round(task.expires_in, 1)
        self.shown.set()

    def waiting(self, left: float, trouble: str) -> None:
        self.said.left, self.said.trouble = round(left, 1), trouble

    def complain(self, message: str) -> None:
        self.said.trouble = message

    async def paste(self) -> str:
        await trio.sleep_forever()


class LoginsPage:
    """``/logins``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._screens: OrderedDict[str, _Screen] = OrderedDict()

    def routes(self) -> list[Route]:
        """Its routes."""
        tag, one = "logins", "/logins/{id}"
        return [
            Route(method="GET", path="/logins", endpoint=self.list, summary="Sign-ins.", tag=tag, gives=Logins),
            Route(
                method="POST",
                path="/logins",
                endpoint=self.begin,
                summary="Begin to sign in: the answer has the page to open and the code it shows.",
                tag=tag,
                takes=Begin,
                gives=Login,
                status=201,
                refuses=(409, 502, 503, 504),
            ),
            Route(
                method="GET",
                path=one,
                endpoint=self.show,
                summary="How far it is. Ask every second or two.",
                tag=tag,
                gives=Login,
                refuses=(404,),
            ),
            Route(
                method="DELETE",
                path=one,
                endpoint=self.cancel,
                summary="Give it up.",
                tag=tag,
                status=204,
                refuses=(404,),
            ),
        ]

    async def list(self, call: Call) -> Logins:
        """``GET /logins``."""
        return Logins([screen.said for screen in reversed(self._screens.values())])

    async def begin(self, call: Call) -> Login:
        """``POST /logins``. It waits for the code, for as long as the service may take."""
        said: Begin = call.body
        template = _template(said)
        if sum(screen.said.state == "pending" for screen in self._screens.values()) >= AT_ONCE:
            raise Conflict(f"{AT_ONCE} sign-ins wait for a person already. Confirm one of them, or give it up.")
        name = secrets.token_urlsafe(9)
        screen = _Screen(Login(name, said.method, "pending", "", "", 0.0, "", "", said.label, False, [], ""))
        self._screens[name] = screen
        while len(self._screens) > KEPT:
            over = next((each for each, held in self._screens.items() if held.said.state != "pending"), name)
            del self._screens[over]
        self._desk.nursery.start_soon(self._sign_in, screen, template, said.label)
        await screen.shown.wait()
        if screen.failure is not None:
            del self._screens[name]
            raise screen.failure
        return screen.said

    async def show(self, call: Call) -> Login:
        """``GET /logins/{id}``."""
        return self._screen(call).said

    async def cancel(self, call: Call) -> None:
        """``DELETE /logins/{id}``. One that is over stays as it is."""
        screen = self._screen(call)
        if screen.said.state == "pending":
            screen.said.state = "cancelled"
            screen.scope.cancel()

    def _screen(self, call: Call) -> _Screen:
        name = call.path["id"]
        return there(self._screens.get(name), f"sign-in {name!r}")

    async def _sign_in(self, screen: _Screen, template: Credential, label: str) -> None:
        said = screen.said
        with screen.scope:
            try:
                done = await self._desk.verbs.log_in(template, screen, browser=False, label=label)
            except KirostreamError as error:
                if not screen.shown.is_set():
                    screen.failure = error
                said.state, said.error = "failed", error.message
            else:
                await self._desk.house.look_now()
                entry = done.kept.entry
                said.state, said.account, said.label = "done", entry.id, entry.label
                said.replaced, said.notes = done.kept.replaced, list(done.notes)
        screen.shown.set()


def _template(said: Begin) -> Credential:
    if said.method == "builder_id":
        return builder_id()
    if said.method == "identity_center":
        return identity_center(said.start_url, said.region)
    return social(said.method)
