"""The models that clients may ask for."""

from __future__ import annotations

import msgspec

from kirostream.admin.desk import Desk
from kirostream.admin.route import Call, Route


class Model(msgspec.Struct):
    """One model. `window` and `max_output` are tokens; `rate` is its cost relative to the base rate."""

    id: str
    name: str
    description: str
    window: int
    max_output: int
    images: bool
    thinks: bool
    rate: float | None


class Models(msgspec.Struct):
    """Every model. `complete`: the list is the upstream's own, not the short one that stands in for it."""

    models: list[Model]
    complete: bool


class ModelsPage:
    """``/models``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Its routes."""
        return [
            Route(
                method="GET",
                path="/models",
                endpoint=self.list,
                summary="The models that can be asked for.",
                tag="models",
                gives=Models,
            )
        ]

    async def list(self, call: Call) -> Models:
        """``GET /models``."""
        relay = self._desk.relay
        return Models(
            [
                Model(
                    each.id,
                    each.name,
                    each.description,
                    each.window,
                    each.max_output,
                    each.images,
                    each.thinks,
                    each.rate,
                )
                for each in await relay.offered()
            ],
            (await relay.models()).complete,
        )
