"""What is known of the form of Kiro's requests, for when it refuses one and does not say why (section 4.3). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from kirostream.errors import ContextOverflow, FormRefused, MalformedRequest, UpstreamError
from kirostream.turn.model import Model
from kirostream.turn.request import TurnRequest

if TYPE_CHECKING:
    from kirostream.dialects.kiro.checks import Finding

MOST_NAMED: Final = 3
"""Suspects that one message names."""
LONGEST: Final = 300
"""Characters of what it says of one; a detail may list every id of a message."""
MOST_FOUND: Final = 200
"""Findings that are looked at; a long history may hold one in every message."""
BARE: Final = frozenset(("", "ValidationException"))
"""What stands in the place of a reason where the service gave none (section 4.1)."""


class KiroForms:
    """See `provider.Forms`. What it goes by is imported with the first refusal: most gateways see none."""

    def stricter(self, request: TurnRequest, model: Model, refused: FormRefused) -> tuple[TurnRequest, Sequence[str]]:
        """See `provider.Forms.stricter`."""
        from kirostream.filters.repair import stricter

        return stricter(request, model, refused.reason)

    def suspects(self, body: bytes) -> Sequence[str]:
        """See `provider.Forms.suspects`. Each is a rule and its section of kiro-protocol.md."""
        certain, doubts = _findings(body)
        return list(dict.fromkeys(f"{each.rule} ({each.section})" for each in (*certain, *doubts)))

    def redacted(self, body: bytes, key: bytes) -> Any:
        """See `provider.Forms.redacted`."""
        from kirostream.dialects.kiro.capture import redacted

        return redacted(body, key)

    def explain(self, refused: FormRefused, body: bytes, *, repairs: Sequence[str], capture: str) -> UpstreamError:
        """See `provider.Forms.explain`.

        A bare refusal of a very long request is told as an overflow: clients shorten the conversation for that, and
        for nothing else.
        """
        certain, doubts = _findings(body)
        said = [refused.message]
        if certain:
            said.append(f"It breaks a rule: {_named(certain)}.")
        elif doubts:
            said.append(f"What may be the cause: {_named(doubts)}.")
        else:
            said.append("It breaks no rule that is known.")
        if repairs:
            said.append(f"A stricter form of it was refused as well ({', '.join(repairs)}).")
        said.append("A shorter or a new conversation may pass, and one with fewer tools.")
        if capture:
            said.append(f"Its form was kept without its contents, as capture {capture}: put it into a bug report.")
        message = " ".join(said)
        if refused.reason in BARE and not certain and any(each.rule == "size" for each in doubts):
            return ContextOverflow(message, reason=refused.reason, upstream_status=refused.upstream_status)
        return FormRefused(message, reason=refused.reason, upstream_status=refused.upstream_status)


def _findings(body: bytes) -> tuple[list[Finding], list[Finding]]:
    """What is certain, and what is doubted; of each rule the first finding, the likeliest rule first."""
    from kirostream.dialects.kiro.checks import Finding, broken, doubted, oversized
    from kirostream.dialects.kiro.request import decode

    try:
        request = decode(body)
    except MalformedRequest as error:
        return [Finding("JSON", "2.2", error.message)], []
    return _first_of_each(broken(request)), _first_of_each(chain(oversized(request, len(body)), doubted(request)))


def _first_of_each(found: Iterator[Finding]) -> list[Finding]:
    first: dict[str, Finding] = {}
    for each in islice(found, MOST_FOUND):
        first.setdefault(each.rule, each)
    return list(first.values())


def _named(found: Sequence[Finding]) -> str:
    return "; ".join(f"{each.rule}: {each.detail}"[:LONGEST] for each in found[:MOST_NAMED])
