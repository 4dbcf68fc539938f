"""When the upstream refuses the form of a request: a capture, one stricter variant, an error that says what is known.

An `Inquiry` is one turn's. It keeps the first refused request without its contents, has the one variant that is tried,
and words the error if that is refused too. The form itself is the provider's business (`provider.Forms`).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio

from kirostream._version import __version__
from kirostream.errors import FormRefused, StoreError, UpstreamError
from kirostream.providers.provider import Forms
from kirostream.stores.ring import FileRing
from kirostream.telemetry.facts import RequestCaptured, RequestRepaired
from kirostream.telemetry.recorder import Recorder
from kirostream.turn.model import Model
from kirostream.turn.request import TurnRequest

SUFFIX: Final = ".capture.json"
SAVE: Final = 5.0
"""Seconds that keeping a capture may hold up a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    """Requests whose form the upstream refused, kept without their contents."""

    keep: int = field(default=20, metadata={"help": "How many are kept, the newest. 0: none."})
    size: int = field(default=8 << 20, metadata={"help": "All of them together.", "unit": "bytes"})

    def __post_init__(self) -> None:
        if self.keep < 0:
            raise ValueError(f"keep is {self.keep}; it takes 0 or more")


class Captures:
    """Writes captures.

    Args:
        folder: of its own.
        settings: how many.
        clock: unix seconds, for names that sort.
    """

    def __init__(self, folder: Path, settings: CaptureSettings, clock: Callable[[], float]) -> None:
        self._ring = FileRing(folder, suffix=SUFFIX, most=settings.keep, most_bytes=settings.size)
        self._keep = settings.keep > 0
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Captures {self._ring!r}>" if self._keep else "<Captures, switched off>"

    async def keep(
        self, turn: str, forms: Forms, refused: FormRefused, body: bytes
    ) -> tuple[str, RequestCaptured | None]:
        """Keep `body` without its contents. Its id, and the fact; an empty id where nothing was kept."""
        if not self._keep:
            return "", None
        made = datetime.fromtimestamp(self._clock(), UTC)
        name = f"{made:%Y%m%d-%H%M%S}-{turn[:8]}"
        suspects = forms.suspects(body)

        def write() -> Path:
            capture = {
                "kirostream": __version__,
                "at": made.isoformat(timespec="seconds"),
                "turn": turn,
                "status": refused.upstream_status,
                "reason": refused.reason,
                "suspects": suspects,
                "bytes": len(body),
                "request": forms.redacted(body, secrets.token_bytes(16)),
            }
            return self._ring.keep(name, json.dumps(capture, indent=1, ensure_ascii=False).encode())

        with trio.move_on_after(SAVE):
            try:
                path = await trio.to_thread.run_sync(write, abandon_on_cancel=True)
            except StoreError as error:
                return "", RequestCaptured(turn=turn, suspects=", ".join(suspects), error=error.message)
            return name, RequestCaptured(turn=turn, suspects=", ".join(suspects), file=str(path))
        late = f"it took longer than {SAVE:g} s"
        return "", RequestCaptured(turn=turn, suspects=", ".join(suspects), error=late)


class Inquiry:
    """One turn whose form was refused."""

    def __init__(self, turn: str, forms: Forms | None, captures: Captures | None, recorder: Recorder) -> None:
        self._turn = turn
        self._forms = forms
        self._captures = captures
        self._recorder = recorder
        self._repairs: Sequence[str] | None = None
        self._capture = ""
        self._body = b""

    def __repr__(self) -> str:
        return f"<Inquiry {self._turn}, capture {self._capture or 'none'}, repairs {self._repairs}>"

    async def look(self, refused: FormRefused, body: bytes) -> None:
        """Take notice of a refusal of `body`. The first one of a turn is kept."""
        first, self._body = not self._body, body
        if first and self._forms is not None and self._captures is not None:
            self._capture, fact = await self._captures.keep(self._turn, self._forms, refused, body)
            if fact:
                self._recorder.record(fact)

    def variant(self, refused: FormRefused, request: TurnRequest, model: Model) -> TurnRequest | None:
        """The stricter variant of `request`, once a turn; None where there is none, or it was tried already."""
        if self._forms is None or self._repairs is not None:
            return None
        variant, self._repairs = self._forms.stricter(request, model, refused)
        if not self._repairs:
            return None
        self._recorder.record(RequestRepaired(turn=self._turn, repairs=", ".join(self._repairs)))
        return variant

    def verdict(self, refused: FormRefused) -> UpstreamError:
        """What the client is told."""
        if self._forms is None:
            return refused
        return self._forms.explain(refused, self._body, repairs=self._repairs or (), capture=self._capture)
