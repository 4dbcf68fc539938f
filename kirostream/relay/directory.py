"""Turns by id: the ones in flight, and the ones that are over and can still be replayed.

A turn that is over keeps its log and its renderings, and gives up its question, which is most of its weight. It is
forgotten after `replay` seconds, or sooner where all of them together take more than `total` bytes: the oldest first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Final

import trio

from kirostream.dataclass import dataclass
from kirostream.errors import NoSuchTurn
from kirostream.relay.archive import Archive, ArchiveSettings
from kirostream.relay.live import LiveTurn
from kirostream.relay.log import CAP

HELD: Final = 4 << 10
"""Bytes that a turn which is over takes beside its log, about: most of it, where the answer was short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnsSettings:
    """How long turns can be watched and come back to."""

    linger: float = field(
        default=30.0,
        metadata={
            "help": "How long a resumable turn goes on after its last watcher has left. Others end at once.",
            "unit": "s",
        },
    )
    replay: float = field(
        default=300.0, metadata={"help": "How long a turn that is over can be replayed.", "unit": "s"}
    )
    cap: int = field(
        default=CAP, metadata={"help": "Largest answer; a longer one ends with an error.", "unit": "bytes"}
    )
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    total: int = field(
        default=64 << 20,
        metadata={"help": "Most that turns which are over may take together; the oldest is dropped.", "unit": "bytes"},
    )


@dataclass(frozen=True, slots=True)
class DirectorySnapshot:
    """What is kept. `size` is bytes of the turns that are over; `dropped` counts those forgotten before their time."""

    in_flight: int
    over: int
    size: int
    dropped: int


class Directory:
    """Finds turns. One instance serves one relay.

    Args:
        settings: how long they are kept in memory.
        archive: keeps them beyond a restart.
    """

    def __init__(self, settings: TurnsSettings, archive: Archive | None = None) -> None:
        self.settings = settings
        self._archive = archive
        self._in_flight: dict[str, LiveTurn] = {}
        self._over: OrderedDict[str, tuple[LiveTurn, float]] = OrderedDict()
        self._size = 0
        self._dropped = 0

    def __repr__(self) -> str:
        return f"<Directory {self.snapshot()}>"

    def adopt(self, settings: TurnsSettings) -> None:
        """Go by other settings. Turns that are over are forgotten when it was said they would be, or sooner."""
        self.settings = settings
        if self._archive is not None:
            self._archive.adopt(settings.archive)

    def __len__(self) -> int:
        return len(self._in_flight)

    def __iter__(self) -> Iterator[LiveTurn]:
        """The turns in flight, oldest first."""
        return iter(tuple(self._in_flight.values()))

    def snapshot(self) -> DirectorySnapshot:
        """Counts."""
        return DirectorySnapshot(len(self._in_flight), len(self._over), self._size, self._dropped)

    def add(self, live: LiveTurn) -> None:
        """A turn began."""
        self._in_flight[live.heading.turn] = live
        if self._archive is not None:
            self._archive.add(live)

    async def run(self) -> None:
        """Forget what is due, until cancelled."""
        while True:
            await trio.sleep(max(1.0, self.settings.replay / 20))
            self.forget()

    def close(self, live: LiveTurn) -> None:
        """A turn is over; from now on it can be replayed, if it came to an end of its own."""
        turn = live.heading.turn
        self._in_flight.pop(turn, None)
        self.forget()
        if self.settings.replay <= 0 or not live.log.finished:
            return
        live.slim()
        self._over[turn] = live, trio.current_time() + self.settings.replay
        self._size += HELD + live.log.size
        while self._size > self.settings.total:
            self._drop()
            self._dropped += 1

    def forget(self) -> None:
        """Let go of what was kept long enough."""
        now = trio.current_time()
        while self._over and next(iter(self._over.values()))[1] <= now:
            self._drop()

    def _drop(self) -> None:
        self._size -= HELD + self._over.popitem(last=False)[1][0].log.size

    async def find(self, turn: str, sees: Callable[[str], bool]) -> LiveTurn:
        """The turn of this id, where one sees the turns of who asked for it.

        Raises:
            NoSuchTurn: there is none, or one does not.
            StoreError: it may be on disk, and cannot be read.
        """
        live = self._in_flight.get(turn)
        if live is None and (kept := self._over.get(turn)) is not None:
            live = kept[0]
        if live is None and self._archive is not None:
            live = await self._archive.find(turn, sees)
        if live is None or not sees(live.caller):
            raise NoSuchTurn(
                f"There is no turn {turn!r}. Turns that are over are kept for {self.settings.replay:g} s "
                "(relay.turns.replay)."
            )
        return live

    def known(self, turn: str) -> LiveTurn | None:
        """The turn of this id, whoever asked for it, if it is in memory: for the operator."""
        kept = self._over.get(turn)
        return self._in_flight.get(turn) or (kept[0] if kept is not None else None)

    def everybodys(self) -> list[LiveTurn]:
        """The turns of all callers, for the operator: those in flight first, each part newest first."""
        return [*reversed(self._in_flight.values()), *(live for live, _ in reversed(self._over.values()))]

    def of(self, sees: Callable[[str], bool]) -> list[LiveTurn]:
        """The turns of whom one sees, those in flight first, each part oldest first."""
        known = [*self._in_flight.values(), *(live for live, _ in self._over.values())]
        return [live for live in known if sees(live.caller)]
