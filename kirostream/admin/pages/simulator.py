"""The simulator in the place of the service: whether it is, and switching it."""

from __future__ import annotations

import msgspec

from kirostream.admin.desk import Desk
from kirostream.admin.errors import Conflict
from kirostream.admin.route import Call, Route


class Simulated(msgspec.Struct):
    """Whether turns are asked of the simulator."""

    on: bool
    demo: bool
    """Whether the gateway was started with it, and has no other upstream: then it cannot be switched."""
    in_flight: int
    """Turns that it answers. Those that were begun before it was switched off go on there."""


class SwitchTo(msgspec.Struct, forbid_unknown_fields=True):
    """Where turns are asked that begin from now on: of the simulator, or of the service."""

    on: bool


class SimulatorPage:
    """``/simulator``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Its routes."""
        return [
            Route(
                method="GET",
                path="/simulator",
                endpoint=self.show,
                summary="Whether turns are asked of the simulator.",
                tag="simulator",
                gives=Simulated,
            ),
            Route(
                method="PUT",
                path="/simulator",
                endpoint=self.turn,
                summary="Ask the simulator instead of the service, or the service again, until the next start.",
                tag="simulator",
                takes=SwitchTo,
                gives=Simulated,
                refuses=(409,),
            ),
        ]

    async def show(self, call: Call) -> Simulated:
        """``GET /simulator``."""
        desk, switch = self._desk, self._desk.switch
        if switch is None:
            return Simulated(on=True, demo=True, in_flight=desk.relay.own.turns)
        return Simulated(on=switch.on, demo=False, in_flight=switch.turns)

    async def turn(self, call: Call) -> Simulated:
        """``PUT /simulator``.

        Raises:
            Conflict: it is a demo.
        """
        switch = self._desk.switch
        if switch is None:
            if not call.body.on:
                raise Conflict("This is a demo: it has no upstream but the simulator. Start it without --demo.")
        else:
            await switch.turn(on=call.body.on)
        return await self.show(call)
