"""Names the model that answers in place of the one that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kirostream.turn.events import TurnEvent, TurnStarted
from kirostream.turn.model import Model


class StandIn:
    """The filter of an answer that another model gives."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __repr__(self) -> str:
        return f"<StandIn {self._model.id}>"

    def take(self, events: Sequence[TurnEvent]) -> list[TurnEvent]:
        """The same events, the first of them with the model's name."""
        return [
            replace(event, model=self._model.id, stands_in=True) if isinstance(event, TurnStarted) else event
            for event in events
        ]
