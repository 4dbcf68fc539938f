"""Debug captures: whole exchanges and refused forms, in a ring of files that a person may look at, or send.

Theory. A capture of an *exchange* holds what went in and out on both sides of one request: the client's, what was sent
upstream in each try, what came back, what the client got, and when. Nothing of that is looked at while it goes by: the
bytes are put aside, up to `part` of each, and `MOST_HELD` of all that is under way. When nobody holds the capture any
more (the exchange, and each turn that it began), the writer's task takes it: in a thread it becomes JSON without
secrets (`telemetry.redaction`), in a file of the ring. Of ``errors`` only what failed gets that far. A capture of a
*form* is what the upstream refused, without its contents (`relay.refusals`): another entry of the same ring.

Off, it costs a turn one look at an attribute. On, tokens go the long way: there is no track for what has to be seen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import trio

from kirostream._version import __version__
from kirostream.dataclass import dataclass
from kirostream.errors import KirostreamError, StoreError
from kirostream.net.exchange import Headers, HttpRequest
from kirostream.stores.ring import FileRing
from kirostream.telemetry.facts import Fact, SinkRecovered, SinkTroubled
from kirostream.telemetry.faults import faulted, worded
from kirostream.telemetry.writing import writing

FOLDER: Final = "captures"
"""In the data directory."""
SUFFIX: Final = ".capture.json"
MODES: Final = ("off", "errors", "all")
MOST_HELD: Final = 64 << 20
"""Bytes of all captures that are under way, or wait to be written. What finds them full is shown as cut."""
MOST_OPEN: Final = 256
"""Captures that are under way, or wait to be written. What finds them all taken is not captured, and counted."""
PRUNE: Final = 600.0
"""Seconds between two looks at what is too old."""
MOST_READS: Final = 10_000
"""Times of reads and writes in one part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    """Debug captures: exchanges as they were, without secrets, and requests whose form was refused, without contents.

    Raises:
        ValueError: a figure is out of its range, or `mode` is none of its words.
    """

    mode: str = field(
        default="off",
        metadata={
            "help": "Which exchanges are kept, with everything that was said in them: off, errors, all. Secrets are "
            "masked. All costs CPU. Requests whose form was refused are kept in any case, without their contents."
        },
    )
    keep: int = field(default=50, metadata={"help": "How many captures are kept, the newest. 0: none."})
    size: int = field(default=64 << 20, metadata={"help": "All of them together.", "unit": "bytes"})
    part: int = field(
        default=1 << 20,
        metadata={
            "help": "Of each part of an exchange: the request, what was sent upstream, what came back, the answer.",
            "unit": "bytes",
        },
    )
    retention_hours: float = field(default=24.0, metadata={"help": "How long they are kept.", "unit": "hours"})

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; it takes: {', '.join(MODES)}")
        if self.keep < 0:
            raise ValueError(f"keep is {self.keep}; it takes 0 or more")
        if self.size < 1 or self.part < 1 or self.retention_hours <= 0:
            raise ValueError("size, part and retention_hours have to be more than 0; mode and keep switch captures off")


@dataclass(frozen=True, slots=True)
class CapturesSnapshot:
    """Counts: under way or waiting to be written, written, dropped. `trouble` says why writing fails, "" if not."""

    queued: int
    written: int
    dropped: int
    trouble: str


class Part:
    """Bytes that went one way, as far as there is room, and when."""

    __slots__ = ("_data", "_owner", "at", "kind", "length", "times")

    def __init__(self, owner: Capture) -> None:
        self._owner = owner
        self._data: list[bytes] = []
        self.kind = b""
        """The content type."""
        self.length = 0
        """Of all that went, kept or not."""
        self.at: float | None = None
        """Seconds from the beginning of the capture to the first of it."""
        self.times: list[tuple[float, int]] = []
        """Milliseconds since then, and bytes, of each read or write."""

    def __repr__(self) -> str:
        return f"<Part of {self.length} bytes>"

    def add(self, data: bytes | bytearray) -> None:
        """Some more went."""
        now = self._owner.age
        if self.at is None:
            self.at = now
        if len(self.times) < MOST_READS:
            self.times.append((round((now - self.at) * 1e3, 3), len(data)))
        room = self._owner.room(len(data), self.length)
        if room:
            self._data.append(bytes(data[:room]))
        self.length += len(data)

    @property
    def data(self) -> bytes:
        """What was kept."""
        return b"".join(self._data)


class Try:
    """One try upstream, as it went by."""

    __slots__ = ("account", "answer", "answer_headers", "at", "error", "headers", "method", "sent", "status", "url")

    def __init__(self, owner: Capture, account: str, method: str, url: str, headers: Headers, body: bytes) -> None:
        self.at = owner.age
        self.account = account
        self.method = method
        self.url = url
        self.headers = headers
        self.sent = Part(owner)
        self.sent.kind = dict(headers).get(b"content-type", b"")
        self.sent.add(body)
        self.status = 0
        self.answer_headers: Headers = ()
        self.answer = Part(owner)
        self.error = ""

    def __repr__(self) -> str:
        return f"<Try with status {self.status}>"

    def answered(self, status: int, headers: Headers) -> None:
        """The head of the answer is there."""
        self.status, self.answer_headers = status, headers
        self.answer.kind = dict(headers).get(b"content-type", b"")


class Capture:
    """One exchange, as it goes by. Who holds it lets it go with `release`; the last one has it written.

    Attributes:
        request: the id of the exchange.
        failed: it is one of the ``errors``.
    """

    def __init__(self, owner: Captures, request: str) -> None:
        self._owner = owner
        self._holders = 1
        self._taken = 0
        self._began = perf_counter()
        self.made = owner.clock()
        self.request = request
        self.head: HttpRequest | None = None
        self.asked = Part(self)
        self.tries: list[Try] = []
        self.turns: list[Mapping[str, object]] = []
        self.status = 0
        self.answer_headers: Headers = ()
        self.answer = Part(self)
        self.errors: list[str] = []
        self.failed = False
        self.seconds = 0.0

    def __repr__(self) -> str:
        return f"<Capture of {self.request}, {len(self.tries)} tries>"

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return perf_counter() - self._began

    @property
    def taken(self) -> int:
        """Bytes it holds."""
        return self._taken

    def room(self, wanted: int, before: int) -> int:
        """How many of `wanted` bytes may be kept, where there were some `before` in this part."""
        room = max(min(wanted, self._owner.settings.part - before, MOST_HELD - self._owner.held), 0)
        self._taken += room
        self._owner.held += room
        return room

    def trying(self, account: str, method: str, url: str, headers: Headers, body: bytes) -> Try:
        """A try begins. `account` is a label."""
        made = Try(self, account, method, url, headers, body)
        self.tries.append(made)
        return made

    def answered(self, status: int, headers: Headers) -> None:
        """The head of the client's answer."""
        self.status, self.answer_headers = status, headers
        self.answer.kind = dict(headers).get(b"content-type", b"")
        self.failed = self.failed or status >= 400

    def try_failed(self, error: KirostreamError) -> None:
        """The try under way failed, or what had to come before it."""
        if self.tries and not self.tries[-1].error:
            self.tries[-1].error = worded(error)
        else:
            self.errors.append(worded(error))

    def turn_over(self, turn: Mapping[str, object]) -> None:
        """A turn of it is over."""
        self.turns.append(turn)

    def fail(self, error: Exception) -> None:
        """It failed with `error`."""
        said = worded(error)
        if said not in self.errors:
            self.errors.append(said)
        self.failed = True

    def hold(self) -> None:
        """One more wants it."""
        self._holders += 1

    def release(self) -> None:
        """One lets it go."""
        self._holders -= 1
        if not self._holders:
            self.seconds = self.age
            self._owner.over(self)


class Captures:
    """The ring, and what is on its way there. Make one with `open_captures`.

    Args:
        folder: of its own; made with the first capture.
        settings: which, and how many.
        clock: unix seconds, for names that sort.
        tell: hears when writing begins to fail, and when it works again.
    """

    def __init__(
        self,
        folder: Path,
        settings: CaptureSettings,
        clock: Callable[[], float] = time.time,
        tell: Callable[[Fact], None] = lambda fact: None,
    ) -> None:
        self.folder = folder
        self.clock = clock
        self._tell = tell
        self.held = 0
        """Bytes of all that is under way."""
        self._open: dict[str, Capture] = {}
        self._queue: deque[Capture] = deque()
        self._some = trio.lowlevel.ParkingLot()
        self._writing = trio.Lock()
        self._written = self._dropped = 0
        self._trouble = ""
        self.adopt(settings)

    def __repr__(self) -> str:
        return f"<Captures of {self.settings.mode}, {self.snapshot()}>"

    def adopt(self, settings: CaptureSettings) -> None:
        """Go by other settings, from the next capture on."""
        self.settings = settings
        self.on = settings.mode != "off" and settings.keep > 0
        self._ring = FileRing(
            self.folder,
            suffix=SUFFIX,
            most=settings.keep,
            most_bytes=settings.size,
            oldest=settings.retention_hours * 3600,
            clock=self.clock,
        )

    def snapshot(self) -> CapturesSnapshot:
        """How it goes."""
        return CapturesSnapshot(len(self._open) + len(self._queue), self._written, self._dropped, self._trouble)

    def begin(self, request: str) -> Capture | None:
        """A capture of an exchange, held by who asked; None: none is wanted, or there are too many."""
        if not self.on:
            return None
        if len(self._open) + len(self._queue) >= MOST_OPEN:
            self._dropped += 1
            return None
        made = self._open[request] = Capture(self, request)
        return made

    def join(self, request: str) -> Capture | None:
        """The capture of the exchange that asks for a turn, held once more; one of its own where it has none."""
        found = self._open.get(request)
        if found is None:
            return self.begin(request)
        found.hold()
        return found

    def over(self, capture: Capture) -> None:
        """Nobody holds it any more."""
        self._open.pop(capture.request, None)
        if self.on and (capture.failed or self.settings.mode == "all"):
            self._queue.append(capture)
            if self._some:
                self._some.unpark_all()
        else:
            self.held -= capture.taken

    def keep(
        self, kind: str, request: str, turns: list[str], known: Mapping[str, Any], made: float | None = None
    ) -> Path | None:
        """Write an entry; None where none are kept. It blocks.

        Args:
            kind: ``exchange`` or ``form``.
            request, turns: ids.
            known: what there is to say, without secrets.
            made: when, in unix seconds; None: now.

        Raises:
            StoreError: it cannot be written.
        """
        if not self.settings.keep:
            return None
        made = self.clock() if made is None else made
        entry = {
            "kirostream": __version__,
            "kind": kind,
            "at": datetime.fromtimestamp(made, UTC).isoformat(timespec="milliseconds"),
            "request_id": request,
            "turns": turns,
            **known,
        }
        from kirostream.telemetry.capture_files import encoded

        data = encoded(entry)
        return self._ring.keep(self.name(turns[0] if turns else request.removeprefix("req_"), kind, made), data)

    def name(self, of: str, kind: str, made: float) -> str:
        """The name of an entry, which sorts by time."""
        at = f"{datetime.fromtimestamp(made, UTC):%Y%m%d-%H%M%S-%f}"[:-3]
        return f"{at}-{of[:8]}{'' if kind == 'form' else f'-{kind}'}"

    async def run(self) -> None:
        """Write what is over, and delete what is too old, until cancelled."""
        while True:
            if not self._queue:
                with trio.move_on_after(PRUNE) as patience:
                    await self._some.park()
                if patience.cancelled_caught:
                    await self._blocking(self._ring.prune)
            await self.flush()

    async def flush(self) -> None:
        """Write what is over. What cannot be written is told, once, and lost."""
        async with self._writing:
            while self._queue:
                capture = self._queue[0]
                await self._blocking(partial(self._write, capture))
                self._queue.popleft()
                self.held -= capture.taken

    async def clear(self) -> int:
        """Delete all of them. How many they were.

        Raises:
            StoreError: one cannot be deleted.
        """
        await self.flush()
        return await trio.to_thread.run_sync(self._ring.clear)

    async def _blocking(self, work: Callable[[], None]) -> None:
        try:
            await trio.to_thread.run_sync(work)
        except StoreError as error:
            if not self._trouble:
                self._tell(SinkTroubled(sink="captures", message=error.message))
            self._trouble = error.message
            self._dropped += 1
            return
        except Exception as error:  # noqa: BLE001 - a bug here costs this capture, and nothing else
            self._tell(faulted("captures", error))
            self._dropped += 1
            return
        if self._trouble:
            self._trouble = ""
            self._tell(SinkRecovered(sink="captures", lost=self._dropped))

    def _write(self, capture: Capture) -> None:
        from kirostream.telemetry.capture_files import shown

        turns = [str(turn["turn"]) for turn in capture.turns]
        if self.keep("exchange", capture.request, turns, shown(capture), capture.made) is not None:
            self._written += 1


@asynccontextmanager
async def open_captures(
    folder: Path, settings: CaptureSettings, tell: Callable[[Fact], None], clock: Callable[[], float] = time.time
) -> AsyncIterator[Captures]:
    """Captures that are written until the context ends, and then once more."""
    captures = Captures(folder, settings, clock, tell)
    async with writing(captures.run, captures.flush):
        yield captures
