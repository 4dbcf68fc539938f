"""A simulator that people sign in at, without a connection, and a person in front of a screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import trio

from helpers.simulated import FakeExchange
from helpers.tokens import unix_clock
from kirostream.accounts.login import Login, Task
from kirostream.accounts.login_settings import LoginSettings
from kirostream.accounts.oidc import AuthHosts, Headers
from kirostream.net.exchange import HttpRequest
from kirostream.simulator.settings import SimulatorSettings
from kirostream.simulator.upstream import Simulator

HOSTS = AuthHosts(social="http://sim", oidc="http://sim", portal="http://127.0.0.1:9")


class Service:
    """A simulator behind a `Post`. `failures` are raised first, in order; None lets a request through.

    Args:
        skew: seconds that the service's clock is ahead of ours.
    """

    def __init__(self, *, skew: float = 0.0, rotate: bool = False) -> None:
        clock = unix_clock()
        self.simulator = Simulator(SimulatorSettings(rotate=rotate), now=lambda: clock() + skew)
        self.failures: list[Exception | None] = []
        self.down = (0.0, 0.0)
        """From when to when (seconds since the start) nothing gets through."""
        self.asked: list[tuple[float, str]] = []
        """When (seconds since the start) which path was asked for."""
        self._start = trio.current_time()

    async def post(self, method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
        """As `kirostream.accounts.keeper.Post`."""
        parts = urlsplit(url)
        self.asked.append((trio.current_time() - self._start, parts.path))
        await trio.lowlevel.checkpoint()
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        exchange = FakeExchange(
            HttpRequest(method, parts.path, parts.query, [(b"host", b"127.0.0.1:9"), *headers]), body
        )
        await self.simulator(exchange)
        return exchange.status, exchange.answer

    def paths(self) -> list[str]:
        """The paths that were asked for."""
        return [path for _, path in self.asked]

    async def visit(self, url: str) -> str:
        """What a browser does with a page: the address it is sent to, empty where it stays."""
        parts = urlsplit(url)
        exchange = FakeExchange(HttpRequest("GET", parts.path, parts.query, [(b"host", b"127.0.0.1:9")]))
        await self.simulator(exchange)
        return exchange.headers.get(b"location", b"").decode()


@dataclass
class Person:
    """A screen, and what the person in front of it does with a task, in a task of the nursery."""

    tasks: list[Task] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    on_show: Callable[[Task], None] = lambda task: None
    clipboard: list[str] = field(default_factory=list)

    def show(self, task: Task) -> None:
        self.tasks.append(task)
        self.on_show(task)

    def waiting(self, left: float, trouble: str) -> None:
        self.left.append(left)
        if trouble and (not self.troubles or self.troubles[-1] != trouble):
            self.troubles.append(trouble)

    def complain(self, message: str) -> None:
        self.complaints.append(message)

    async def paste(self) -> str:
        while not self.clipboard:
            await trio.sleep(0.01)
        return self.clipboard.pop(0)

    def confirms(self, service: Service, after: float = 0.0, *, who: str = "ann", deny: bool = False) -> Person:
        """After some seconds the person opens the link of a device code."""

        def on_show(task: Task) -> None:
            code = parse_qs(urlsplit(task.url).query)["user_code"][0]
            assert code == task.code
            start = trio.current_time()

            def due() -> None:
                assert service.simulator.sign_ins.open(code, who, deny=deny)

            trio.lowlevel.spawn_system_task(_after, start + after, due)

        self.on_show = on_show
        return self


async def _after(at: float, do: Callable[[], None]) -> None:
    await trio.sleep_until(at)
    do()


def signing_in(service: Service, person: Person, settings: LoginSettings | None = None) -> Login:
    """A `Login` that asks the service and shows to the person."""
    clock = unix_clock()
    return Login(service.post, person, settings, HOSTS, user_agent="kirostream/test", time_source=clock)


async def get(url: str) -> tuple[int, str]:
    """What a browser is shown: status and page."""
    parts = urlsplit(url)
    async with await trio.open_tcp_stream(str(parts.hostname), parts.port or 80) as stream:
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        await stream.send_all(f"GET {target} HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n\r\n".encode())
        answer = b"".join([part async for part in stream]).decode()
    return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]
