"""Asking the simulator in the place of the service, while the gateway runs, and going back.

A turn is asked where it was begun: the switch says where the next ones begin. The stand-in is opened when it is wanted,
with an account of its own, and closed when it is not wanted any more and the last of its turns is over. Who switches it
on again meanwhile gets another one. Nothing of it is written down, so a start knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import trio

from kirostream.relay.relay import Relay
from kirostream.relay.service import Service
from kirostream.telemetry.facts import ServiceChanged
from kirostream.telemetry.recorder import Recorder

Opening: TypeAlias = Callable[[], AbstractAsyncContextManager[Service]]
"""Opens a stand-in, which is there until the block ends."""


class Switch:
    """Says whether turns are asked of the service or of a stand-in.

    Args:
        relay: whose turns.
        opening: makes the stand-in.
        nursery: owns it.
        recorder: told of every change.
    """

    def __init__(self, relay: Relay, opening: Opening, nursery: trio.Nursery, recorder: Recorder) -> None:
        self._relay = relay
        self._opening = opening
        self._nursery = nursery
        self._recorder = recorder
        self._off = trio.Event()
        self._turning = trio.Lock()
        self._there: set[Service] = set()

    def __repr__(self) -> str:
        return f"<Switch {'on' if self.on else 'off'}, {self.turns} turns there>"

    @property
    def on(self) -> bool:
        """Whether turns that begin now are asked of the stand-in."""
        return self._relay.asked is not self._relay.own

    @property
    def turns(self) -> int:
        """Turns that a stand-in answers, also one that was switched off meanwhile."""
        return sum(service.turns for service in self._there)

    async def turn(self, *, on: bool) -> None:
        """Have turns that begin from now on asked of the stand-in, or of the service again.

        Raises:
            SettingsError, OSError: the stand-in cannot be opened.
        """
        async with self._turning:
            if on == self.on:
                return
            if on:
                self._off = trio.Event()
                await self._nursery.start(self._stand_in, self._off)
            else:
                self._relay.asked = self._relay.own
                self._off.set()
        state = "in place of the service" if on else "off"
        self._recorder.record(ServiceChanged(service="simulator", state=state))

    async def _stand_in(self, off: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        async with self._opening() as service:
            self._there.add(service)
            try:
                self._relay.asked = service
                task_status.started()
                await off.wait()
                await service.idle()
            finally:
                self._there.discard(service)
