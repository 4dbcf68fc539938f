"""What the simulated model says to a message without directives. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from kirostream.simulator.directives import Say, Step, Think
from kirostream.turn.request import Role, Text, TurnRequest

LONGEST_QUOTE: Final = 200

_OPENINGS: Final = ("Gladly.", "Sure, here we go.", "Thanks for asking.", "Let me see.", "Hello there.")
_MIDDLES: Final = (
    "No model stands behind these words: I am the simulator that comes with kirostream.",
    "I am the simulator that comes with kirostream, so nothing of this was thought, and none of it cost a credit.",
    "You are talking to kirostream's simulator; there is no model here, and no account was used.",
)
_ENDINGS: Final = (
    "But every piece of this answer came the real way: as event-stream frames, through the decoder and the relay, "
    "into the API you speak.",
    "Still, what you see streaming is real: frames were decoded, turned into events, and written in your dialect.",
    "If you read this piece by piece, then streaming works from end to end.",
)
_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)


def plain_steps(request: TurnRequest, reply: str, seed: int) -> tuple[Step, ...]:
    """The answer: `reply` itself, or, where it is ``quote``, a few sentences that quote the user's message.

    The same seed and message give the same answer.
    """
    if reply != "quote":
        return (Say(reply),)
    said = quote(request)
    pick = int.from_bytes(hashlib.sha256(f"{seed}:{said}".encode("utf-8", "replace")).digest()[:6], "big")
    opening, middle, ending = (
        words[(pick >> shift) % len(words)] for words, shift in ((_OPENINGS, 0), (_MIDDLES, 16), (_ENDINGS, 32))
    )
    text = f'{opening} You wrote: "{said}"\n\n{middle} {ending}' if said else f"{opening} {middle} {ending}"
    thinking = (Think("The user wrote something. I will quote it, and say what I am."),)
    return (*(thinking if request.thinking.enabled else ()), Say(text))


def quote(request: TurnRequest) -> str:
    """The last words the user typed, without what clients put round them, on one line."""
    for message in reversed(request.messages):
        typed = [_REMINDER.sub("", b.text).strip() for b in message.content if isinstance(b, Text)]
        if message.role is Role.USER and any(typed):
            words = " ".join(" ".join(typed).split())
            return words if len(words) <= LONGEST_QUOTE else f"{words[: LONGEST_QUOTE - 1]}…"
    return ""
