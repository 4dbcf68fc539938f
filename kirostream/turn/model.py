"""What is known of a model."""

from __future__ import annotations

from typing import Final

from kirostream.dataclass import dataclass

DEFAULT_WINDOW: Final = 200_000
"""Tokens; the window assumed where a catalogue gives none (kiro-protocol.md section 7.3)."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a catalogue.

    `window` and `max_output` are tokens. `rate` is what a turn costs relative to the provider's base rate.
    """

    id: str
    name: str = ""
    description: str = ""
    window: int = DEFAULT_WINDOW
    max_output: int = 64_000
    images: bool = True
    rate: float | None = None
    efforts: tuple[str, ...] = ()
    """Words of the native effort scale, empty where the model does not advertise one."""
    thinking_fields: tuple[str, ...] = ()
    """What a request may say of native thinking, as the catalogue has it: dotted names of members, such as
    ``thinking.type`` or ``reasoning.effort``. Empty where no catalogue said, or the model has none."""
    correction: float = 1.0
    """Tokens that the upstream counts for one of our estimate, as far as was seen; see `turn.calibration`."""

    @property
    def thinks(self) -> bool:
        """Whether the model has native thinking."""
        return bool(self.efforts or self.thinking_fields)
