"""How far our estimates of prompts are off, by family of models, learned from what the upstream says.

Each family has a tokenizer of its own, and none is public; so `turn/tokens.py` fits one, and here is what it is off by
for each: the median of the last few ratios of observed to estimated. A median, because a single turn may be wrong by
any factor (images that the upstream dropped, a window that is not the advertised one), and such turns say nothing of
the next. A ratio outside of `LEAST` to `MOST` is not a tokenizer's doing, and is not kept at all.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from kirostream.turn.events import TurnEnded, TurnEvent, TurnStarted
from kirostream.turn.model import Model

KEPT: Final = 15
"""Ratios of a family: seven of them may be wrong, and the median is still between right ones."""
ENOUGH: Final = 3
"""Ratios from which on they count."""
SMALLEST: Final = 4_000
"""Estimated tokens of a prompt that is learned from. In a small one, what the upstream adds itself weighs too much."""
LEAST, MOST = 0.5, 2.0

_FAMILY: Final = re.compile(r"(.*?\d+(?:\.\d+)?)(?:-.*)?")


def family(model: str) -> str:
    """What models share a tokenizer, by their id: ``gpt-5.6`` of ``gpt-5.6-mini``, ``auto`` of ``auto``."""
    plain = model.strip().lower()
    found = _FAMILY.fullmatch(plain)
    return found[1] if found else plain


class Calibration:
    """What is known of each family.

    Args:
        known: ratios of an earlier life, by family.
    """

    def __init__(self, known: Mapping[str, Sequence[float]] | None = None) -> None:
        self._ratios: dict[str, deque[float]] = {}
        for name, ratios in (known or {}).items():
            self._ratios[name] = deque((r for r in ratios if LEAST <= r <= MOST), KEPT)

    def __repr__(self) -> str:
        known = ", ".join(f"{name} x{self.correction(name):.2f}" for name in self._ratios)
        return f"<Calibration {known or 'of nothing yet'}>"

    @property
    def ratios(self) -> Mapping[str, Sequence[float]]:
        """Everything that was learned, for the next life."""
        return {name: tuple(ratios) for name, ratios in self._ratios.items()}

    def correction(self, model: str) -> float:
        """Tokens that the upstream counts for one of our estimate; 1 while too little is known."""
        ratios = sorted(self._ratios.get(family(model), ()))
        middle = len(ratios) // 2
        return (ratios[middle] + ratios[~middle]) / 2 if len(ratios) >= ENOUGH else 1.0

    def learn(self, model: str, estimated: float, observed: float) -> bool:
        """One prompt: what we took it for, without a correction, and what it was.

        Returns:
            Whether it was kept.
        """
        if estimated < SMALLEST or not LEAST <= (ratio := observed / estimated) <= MOST:
            return False
        self._ratios.setdefault(family(model), deque(maxlen=KEPT)).append(ratio)
        return True

    def watch(self, model: Model, events: Sequence[TurnEvent]) -> bool:
        """Learn from one whole answer: its first event holds our estimate, its last one the upstream's figures.

        Those are the counts, where it gave any, or else its share of the window, which is of prompt and answer
        (kiro-protocol.md section 3.6). A full window says how large it is, and not how much there was.

        Returns:
            Whether there was something to learn.
        """
        if not events:
            return False
        first, last = events[0], events[-1]
        if not isinstance(first, TurnStarted) or not isinstance(last, TurnEnded):
            return False
        guess, usage = first.usage, last.usage
        if not guess.estimated or guess.context_percentage is not None or usage.searches:
            return False  # what a search found was not a part of the guess
        share = usage.context_percentage
        if not usage.estimated:
            observed = float(usage.prompt_tokens)
        elif share is not None and share < 100:
            observed = share * model.window / 100 - usage.output_tokens
        else:
            return False
        return self.learn(model.id, guess.prompt_tokens / model.correction, observed)
