"""What was learned of the models' tokenizers (`turn/calibration.py`), from one life of the process to the next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import trio

from kirostream.errors import StoreError
from kirostream.stores.sqlite import Connection, Database
from kirostream.telemetry.facts import Fact, Faulted
from kirostream.turn.calibration import Calibration

SAVE: Final = 5.0
"""Seconds that saving may take at the end."""

_ratios: Final = msgspec.json.Decoder(tuple[float, ...]).decode


@asynccontextmanager
async def open_calibration(database: Database, tell: Callable[[Fact], None]) -> AsyncIterator[Calibration]:
    """What is known, until the context ends; what was learned meanwhile is saved then.

    What cannot be saved is told, and lost: it is learned again.

    Raises:
        StoreError: the database cannot be read.
    """
    known = await database.read(_load)
    calibration = Calibration(known)
    try:
        yield calibration
    finally:
        learned = {family: ratios for family, ratios in calibration.ratios.items() if ratios != known.get(family)}
        if learned:
            with trio.CancelScope(deadline=trio.current_time() + SAVE, shield=True):
                try:
                    await database.write(lambda connection: _save(connection, learned))
                except StoreError as error:
                    tell(Faulted(where="calibration", error=error.message, trace=""))


def _load(connection: Connection) -> dict[str, tuple[float, ...]]:
    known = {}
    for family, text in connection.execute("SELECT family, ratios FROM calibration"):
        try:
            known[family] = _ratios(text)
        except msgspec.DecodeError:
            continue  # not ours; the next save of this family replaces it
    return known


def _save(connection: Connection, learned: Mapping[str, Sequence[float]]) -> None:
    rows = [(family, msgspec.json.encode(ratios).decode()) for family, ratios in learned.items()]
    connection.executemany("INSERT OR REPLACE INTO calibration VALUES (?, ?)", rows)
