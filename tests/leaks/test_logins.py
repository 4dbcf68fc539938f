"""Signing in, every way: device codes, verifiers, codes and the tokens that come are never shown."""

from __future__ import annotations

import itertools
import secrets
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import trio

from helpers.signin import get
from kirostream.accounts import login
from kirostream.accounts.account import Credential
from kirostream.accounts.login import Task, identity_center, social
from kirostream.commands.account_admin import open_account_admin
from kirostream.errors import KirostreamError
from kirostream.net.http1 import Http1Door
from kirostream.settings import Settings
from kirostream.simulator.settings import SimulatorSettings

from . import sinks
from .plants import MARK, mark_what_is_issued, secret
from .world import Ear, Watching, at

WAYS: dict[str, Credential] = {
    "google": social("google"),
    "identity center": identity_center("https://d-1.awsapps.com/start", "us-east-1"),
}


class Watched:
    """A screen that an ear is held to, and a person who pastes nonsense first and then confirms or refuses."""

    def __init__(self, ear: Ear, nursery: trio.Nursery, *, refuses: bool) -> None:
        self._ear = ear
        self._nursery = nursery
        self._refuses = refuses
        self._clipboard = [f"http://127.0.0.1/oauth/callback?code={secret('code')}&state=wrong"]

    def show(self, task: Task) -> None:
        self._ear.hear("screen", f"{task!r} {task.url} {task.code}")
        self._nursery.start_soon(self._act, task)

    async def _act(self, task: Task) -> None:
        self._ear.look("shown")
        url = f"{task.url}&as=ann{'&deny=1' if self._refuses else ''}"
        if task.code:
            _, page = await get(url)
            self._ear.hear("page", page)
            return
        back = await sent_to(url)
        assert (MARK in back) is not self._refuses, "there was a code to show"
        for target in (back.replace("code=", "code=x").replace("state=", "state=x"), back):
            _, page = await get(target)
            self._ear.hear("loopback", page)

    def waiting(self, left: float, trouble: str) -> None:
        self._ear.hear("screen", trouble)

    def complain(self, message: str) -> None:
        self._ear.hear("complaint", message)

    async def paste(self) -> str:
        if not self._clipboard:
            await trio.sleep_forever()
        return self._clipboard.pop()


async def sent_to(url: str) -> str:
    """Where a page sends the browser."""
    parts = urlsplit(url)
    async with await trio.open_tcp_stream(str(parts.hostname), parts.port or 80) as stream:
        head = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n\r\n"
        await stream.send_all(head.encode())
        answer = b"".join([part async for part in stream]).decode()
    return next(line.partition(": ")[2] for line in answer.splitlines() if line.startswith("location"))


@pytest.mark.parametrize("answer", ["confirms", "refuses"])
@pytest.mark.parametrize("browser", [False, True], ids=["by device code", "by browser"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_sign_in_shows_no_secret(
    way: str, browser: bool, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_what_is_issued(monkeypatch)
    random = itertools.cycle([secret("v"), secrets.token_urlsafe(9)])  # the verifier, then the state
    monkeypatch.setattr(login, "secrets", SimpleNamespace(token_urlsafe=lambda size: next(random)))
    ear = Ear(looks_at_most=1)
    simulator = Watching(SimulatorSettings())
    simulator.ear = ear
    simulator.sign_ins.interval = 0.01
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            await nursery.start(Http1Door(simulator).serve, listeners)
            async with open_account_admin(at(Settings(), url), {"HOME": str(tmp_path)}, tmp_path / "data") as admin:
                screen = Watched(ear, nursery, refuses=answer == "refuses")
                try:
                    done = await admin.log_in(WAYS[way], screen, browser=browser)
                    ear.hear("done", f"{done!r} {done.kept.entry!r} {done.notes}")
                    assert answer == "confirms"
                    ear.listen(sinks.files(tmp_path / "data"), MARK)
                except KirostreamError as error:
                    ear.hear("error", f"{error!r} {error.__cause__!r}")
                    assert answer == "refuses", error  # noqa: PT017
                ear.look("the end")
            nursery.cancel_scope.cancel()
    ear.heard_nothing()
    kinds = {where.rpartition(".")[2] for where in ear.seen}
    assert ("Proof" if browser else "DeviceCode") in kinds
    assert ("complaint" in ear.seen) is browser
