"""Debug captures: what there is, one of them, all as one file, and none any more. What is captured is a setting."""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from kirostream.admin.desk import Desk
from kirostream.admin.errors import NotThere
from kirostream.admin.route import ANSWERED, Call, Route
from kirostream.telemetry.capture_files import CaptureEntry, CaptureReader


class CapturesSaid(msgspec.Struct):
    """What there is, the newest first.

    `mode` is ``relay.captures.mode``; `queued` are under way or wait to be written; `dropped` were not kept; `trouble`
    says why writing fails, "" where it does not.
    """

    mode: str
    queued: int
    dropped: int
    trouble: str
    captures: list[CaptureEntry]


class Cleared(msgspec.Struct):
    """How many were deleted."""

    deleted: int


class CapturesPage:
    """``/captures``."""

    def __init__(self, desk: Desk) -> None:
        self._captures = desk.captures
        self._reader = CaptureReader(desk.captures.folder)

    def routes(self) -> list[Route]:
        """Its routes."""
        tag = "captures"
        return [
            Route(
                method="GET",
                path="/captures",
                endpoint=self.list,
                summary="The debug captures that there are.",
                tag=tag,
                gives=CapturesSaid,
            ),
            Route(
                method="GET",
                path="/captures/export",
                endpoint=self.file,
                summary="All of them as one file, for a bug report. It holds what was said, and no secrets.",
                tag=tag,
                media=("application/json",),
            ),
            Route(
                method="GET",
                path="/captures/{id}",
                endpoint=self.one,
                summary="One of them.",
                tag=tag,
                gives=dict[str, Any],
                refuses=(404,),
            ),
            Route(
                method="DELETE",
                path="/captures",
                endpoint=self.clear,
                summary="Delete all of them.",
                tag=tag,
                gives=Cleared,
            ),
        ]

    async def list(self, call: Call) -> CapturesSaid:
        """``GET /captures``."""
        now = self._captures.snapshot()
        entries = await trio.to_thread.run_sync(self._reader.entries)
        return CapturesSaid(self._captures.settings.mode, now.queued, now.dropped, now.trouble, entries)

    async def one(self, call: Call) -> dict[str, Any]:
        """``GET /captures/{id}``."""
        found = await trio.to_thread.run_sync(self._reader.get, call.path["id"])
        if found is None:
            raise NotThere("There is no such capture.")
        try:
            return msgspec.json.decode(found, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise NotThere("That capture cannot be read.") from None

    async def file(self, call: Call) -> object:
        """``GET /captures/export``."""
        exchange, parts = call.exchange, iter(self._reader.export())
        data = await trio.to_thread.run_sync(next, parts, b"")
        headers = (
            (b"content-type", b"application/json"),
            (b"content-disposition", b'attachment; filename="kirostream-captures.json"'),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        )
        await exchange.start(200, headers, data)
        while data := await trio.to_thread.run_sync(next, parts, b""):
            await exchange.send(data)
        await exchange.finish()
        return ANSWERED

    async def clear(self, call: Call) -> Cleared:
        """``DELETE /captures``."""
        return Cleared(await self._captures.clear())
