"""When the upstream refuses the form of a request: a capture, one stricter variant, an error that says what is known.

`Refusals` keeps the first refused request of a turn without its contents, has the one variant that is tried, and words
the error if that is refused too; an `Inquiry` is what it knows of one turn. The form itself is the provider's business
(`provider.Forms`).
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Final

import trio

from kirostream.dataclass import dataclass
from kirostream.errors import FormRefused, LocalProtocolError, StoreError, UpstreamError
from kirostream.providers.provider import Forms
from kirostream.telemetry.captures import SUFFIX, Captures
from kirostream.telemetry.facts import RequestCaptured, RequestRepaired
from kirostream.telemetry.recorder import Recorder
from kirostream.turn.model import Model
from kirostream.turn.request import TurnRequest

SAVE: Final = 5.0
"""Seconds that keeping a capture may hold up a turn."""
REMEMBERED: Final = 600.0
"""Seconds after a refusal in which the conversation's turns begin with the stricter form."""
MOST_REMEMBERED: Final = 1_000
"""Conversations of which that is known."""


@dataclass(slots=True)
class Inquiry:
    """What is known of one turn's refused form; empty for nearly every turn.

    Attributes:
        turn, request: its id, and that of the exchange that asked.
        body: what was refused last, as long as it is of use.
        capture: the id of what was kept of the first one.
        variant: the stricter request that may be tried.
        repairs: what differs in it; set as soon as one was looked for, since there is one a turn.
        refused: why it was made, in this turn or in one before it.
    """

    turn: str
    request: str = ""
    body: bytes = field(default=b"", repr=False)
    capture: str = ""
    variant: TurnRequest | None = field(default=None, repr=False)
    repairs: Sequence[str] | None = None
    refused: FormRefused | None = None


class Refusals:
    """Leads inquiries.

    Args:
        forms: what is known of the provider's form; None: nothing, and every refusal stands as it is.
        captures: None: nothing is kept.
        recorder: where facts go.
    """

    def __init__(self, forms: Forms | None, captures: Captures | None, recorder: Recorder) -> None:
        self._forms = forms
        self._captures = captures
        self._recorder = recorder

        self._lately: OrderedDict[str, tuple[float, FormRefused]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Refusals, {len(self._lately)} of late, {self._captures!r}>"

    async def look(
        self, inquiry: Inquiry, refused: FormRefused, request: TurnRequest, model: Model, body: bytes
    ) -> None:
        """Take notice of a refusal of `request`, which was sent as `body`. The first one of a turn is kept."""
        if self._forms is None:
            return
        inquiry.body = body
        if inquiry.repairs is None:
            inquiry.refused = refused
            variant, inquiry.repairs = self._forms.stricter(request, model, refused)
            inquiry.variant = variant if inquiry.repairs else None
        if self._captures is not None and not inquiry.capture:
            await self._keep(self._captures, self._forms, inquiry, refused, body)

    async def _keep(
        self, captures: Captures, forms: Forms, inquiry: Inquiry, refused: FormRefused, body: bytes
    ) -> None:
        """Keep `body` without its contents."""
        if not captures.settings.keep:
            return
        suspects: Sequence[str] = ()

        def write() -> Path | None:
            nonlocal suspects
            suspects = forms.suspects(body)
            known = {
                "status": refused.upstream_status,
                "reason": refused.reason,
                "suspects": suspects,
                "bytes": len(body),
                "request": forms.redacted(body, secrets.token_bytes(16)),
            }
            return captures.keep("form", inquiry.request, [inquiry.turn], known)

        file, error = None, f"it took longer than {SAVE:g} s"
        with trio.move_on_after(SAVE):
            try:
                file = await trio.to_thread.run_sync(write, abandon_on_cancel=True)
                error = ""
            except StoreError as trouble:
                error = trouble.message
        inquiry.capture = file.name.removesuffix(SUFFIX) if file else ""
        self._recorder.record(
            RequestCaptured(
                turn=inquiry.turn,
                request=inquiry.request,
                suspects=", ".join(suspects),
                file=str(file or ""),
                error=error,
            )
        )

    def stricter(self, inquiry: Inquiry) -> TurnRequest:
        """The variant, which is tried now, and not again.

        Raises:
            LocalProtocolError: there is none.
        """
        variant, inquiry.variant = inquiry.variant, None
        if variant is None:
            raise LocalProtocolError(f"turn {inquiry.turn} has no stricter variant")
        self._recorder.record(_repaired(inquiry, inquiry.repairs or ()))
        return variant

    def remember(self, inquiry: Inquiry, conversation: str, now: float) -> None:
        """An answer came. Where it took the variant, the conversation's next turns begin with theirs, for a while."""
        if inquiry.refused is not None and inquiry.repairs and inquiry.variant is None and inquiry.body:
            self._lately.pop(conversation, None)
            self._lately[conversation] = (now, inquiry.refused)
            while len(self._lately) > MOST_REMEMBERED:
                self._lately.popitem(last=False)
        inquiry.body = b""  # a turn that is over may be kept for a while, and this is large

    def recall(self, inquiry: Inquiry, conversation: str, now: float) -> None:
        """A turn of a conversation begins."""
        then, refused = self._lately.get(conversation, (0.0, None))
        if refused is not None and now - then < REMEMBERED:
            inquiry.refused = refused

    def as_before(self, inquiry: Inquiry, request: TurnRequest, model: Model) -> TurnRequest:
        """A request of the turn, repaired from the start where one before it had to be."""
        if self._forms is None or inquiry.refused is None or inquiry.variant is not None:
            return request
        variant, repairs = self._forms.stricter(request, model, inquiry.refused)
        if inquiry.repairs is None and repairs:
            inquiry.repairs = repairs
            self._recorder.record(_repaired(inquiry, repairs))
        return variant

    def verdict(self, inquiry: Inquiry, refused: FormRefused) -> UpstreamError:
        """What the client is told, once a turn."""
        body, inquiry.body = inquiry.body, b""
        if self._forms is None or not body:
            return refused
        tried = inquiry.repairs if inquiry.variant is None else None
        return self._forms.explain(refused, body, repairs=tried or (), capture=inquiry.capture)


def _repaired(inquiry: Inquiry, repairs: Sequence[str]) -> RequestRepaired:
    return RequestRepaired(turn=inquiry.turn, request=inquiry.request, repairs=", ".join(repairs))
