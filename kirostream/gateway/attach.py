"""Idempotency: a request that is sent again joins its turn instead of paying for another one.

A client that sends ``Idempotency-Key`` says: the same key is the same request, however often it arrives. The first one
starts a turn, which lingers when its client is lost; one that comes while it runs, or while it can be replayed, follows
it from the beginning, whole or streamed as it asks. A turn that failed is not replayed: who asks again wants an answer,
so the key starts a new turn. The same key with another body is a mistake of the client's, and is told so.

Two that arrive at the same moment are one as well: the second waits until the first has a turn, or failed to get one.

Where **coalescing** is on, a request without a key that is byte for byte another one's shares its turn while that runs.

``x-stainless-retry-count`` of the official SDKs is no such key: it counts tries, and does not say of what.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final, Generic, TypeVar

import trio

from kirostream.errors import KeyReused, MalformedRequest
from kirostream.net.exchange import HttpRequest
from kirostream.relay.live import LiveTurn
from kirostream.turn.events import TurnFailed

HEADER: Final = b"idempotency-key"
LONGEST: Final = 255
"""Characters of a key."""


T = TypeVar("T")


class Claim(Generic[T]):
    """One key: the body it came with, and the turn it led to. It does not keep the turn: the relay's directory does."""

    def __init__(self, digest: bytes, turn_of: Callable[[T], LiveTurn], *, named: bool) -> None:
        self.digest = digest
        self.named = named
        """Whether the client gave the key, and may come back to the turn when it is over."""
        self._turn_of = turn_of
        self.decided = trio.Event()
        self._found: weakref.ref[T] | None = None

    def __repr__(self) -> str:
        return f"<Claim {self.found!r}>"

    @property
    def found(self) -> T | None:
        """What a request with this key follows; None where that is not decided, or there is nothing to follow."""
        found = None if self._found is None else self._found()
        if found is None:
            return None
        live = self._turn_of(found)
        if live.log.finished:
            return found if self.named and not isinstance(live.log.events[-1], TurnFailed) else None
        return None if live.over.is_set() or live.scope.cancel_called else found

    def settle(self, found: T) -> None:
        """The first request has its turn."""
        self._found = weakref.ref(found)
        self.decided.set()


class Attachments(Generic[T]):
    """The keys of one path.

    Args:
        turn_of: the turn of what a key leads to.
        coalesce: whether identical requests without a key share a turn.
    """

    def __init__(self, turn_of: Callable[[T], LiveTurn], *, coalesce: bool = False) -> None:
        self._turn_of = turn_of
        self.coalesce = coalesce
        self._claims: OrderedDict[tuple[str, str], Claim[T]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Attachments {len(self._claims)} keys>"

    def wanted(self, request: HttpRequest) -> bool:
        """Whether there is something to `claim`: a context costs more than most have of it."""
        return self.coalesce or request.header(HEADER) is not None

    @asynccontextmanager
    async def claim(self, caller: str, request: HttpRequest, body: bytes) -> AsyncIterator[Claim[T] | None]:
        """What the key of a request stands for.

        Gives None where it has no key, and none is made of its body. Gives a claim whose `found` is set where the
        request has a turn already. Else the request is the first: it calls `settle` as soon as it has a turn.

        Args:
            caller: who asks; keys of two callers have nothing to do with each other.
            request: the head.
            body: as it was sent.

        Raises:
            KeyReused: the key came with another body before.
            MalformedRequest: the key is too long.
        """
        key = (request.header(HEADER) or b"").decode("latin-1").strip()
        named = bool(key)
        if not named and not self.coalesce:
            yield None
            return
        if len(key) > LONGEST:
            raise MalformedRequest(f"idempotency-key is limited to {LONGEST} characters.", param="$.idempotency-key")
        digest = hashlib.sha256(body).digest()
        key = key or f"body {digest.hex()}"
        while (known := self._claims.get((caller, key))) is not None:
            if known.decided.is_set() and known.found is None:
                break
            if known.digest != digest:
                raise KeyReused(
                    f"The idempotency key {key!r} came with another body before. Use a new key for a new request."
                )
            await known.decided.wait()
            if known.found is not None:
                yield known
                return
        self._prune()
        mine = self._claims[caller, key] = Claim(digest, self._turn_of, named=named)
        try:
            yield mine
        finally:
            mine.decided.set()

    def _prune(self) -> None:
        """Forget keys that stand for nothing any more, of the oldest few: as many go as come."""
        for name in [*islice(self._claims, 4)]:
            claim = self._claims[name]
            if claim.decided.is_set() and claim.found is None:
                del self._claims[name]
            else:
                self._claims.move_to_end(name)
