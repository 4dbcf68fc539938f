"""What a request of the Responses API leans on, put in place (client-apis.md section 3.6).

``previous_response_id`` stands for a whole conversation, ``item_reference`` for one item. Both are replaced by what
they stand for before the dialect reads the request, so what comes behind never sees them. Answers that are still in
memory are asked first, then the store: a client that has the last event of an answer may refer to it at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Final

import msgspec
from msgspec import Raw

from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import Headers
from kirostream.dialects.jsontext import decode, encode, part, raw
from kirostream.dialects.openai_responses.compaction import is_trigger, summarising
from kirostream.dialects.openai_responses.request import read_request
from kirostream.dialects.openai_responses.response import response_id
from kirostream.dialects.openai_responses.thoughts import Seal
from kirostream.errors import MalformedRequest
from kirostream.gateway.media import Media
from kirostream.gateway.responses_store import ResponseStore, Stored
from kirostream.turn.request import RawJson, TurnRequest

Recent = Callable[[str, str], Stored | None]
"""From an id and a caller to an answer that is still in memory."""

_ITEM_ID: Final = re.compile(r"[a-z]+_([0-9a-f]{32})[0-9a-f]{4}")
_UNSET: Final = Raw()
_NOTHING: Final[Mapping[str, Stored]] = {}


class WireCacheOptions(msgspec.Struct):
    """``prompt_cache_options``."""

    prewarm: bool | None = None


class WireState(msgspec.Struct):
    """The fields of a body that are about memory."""

    input: str | list[Raw] | None = None
    previous_response_id: str | None = None
    conversation: Raw = _UNSET
    store: bool | None = None
    background: bool | None = None
    prompt: Raw = _UNSET
    generate: bool | None = None
    prompt_cache_options: WireCacheOptions | None = None


class WireReference(msgspec.Struct):
    """``item_reference``."""

    type: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, with what it leans on put in place.

    Attributes:
        request: what is asked of the model.
        items: what the request brought itself. Both are what people say: `repr` leaves them out.
        previous: the answer that it goes on from, empty where it begins.
        store, background: as the client set them.
        compacts: it asks for the conversation in one item, see `dialects.openai_responses.compaction`.
        generates: a model is asked; otherwise what was sent is kept for a later request, and that is all.
    """

    request: TurnRequest = field(repr=False)
    items: tuple[RawJson, ...] = field(repr=False)
    previous: str
    store: bool
    background: bool
    compacts: bool = False
    generates: bool = True


@dataclass(frozen=True, slots=True)
class _Placed:
    """A body in which nothing refers to anything; `before` are the items of earlier answers."""

    state: WireState
    before: Sequence[RawJson] = field(repr=False)
    items: tuple[RawJson, ...] = field(repr=False)
    body: bytes = field(repr=False)


class Inputs:
    """Reads the requests of the Responses API."""

    def __init__(self, store: ResponseStore, media: Media, seal: Seal, recent: Recent) -> None:
        self._store = store
        self._media = media
        self._seal = seal
        self._recent = recent

    def __repr__(self) -> str:
        return f"<Inputs {self._store!r}>"

    async def read(
        self, body: bytes, headers: Headers, caller: str, local: Mapping[str, Stored] = _NOTHING, *, fetch: bool = True
    ) -> Asked:
        """Read a request.

        Args:
            body, headers: of the request.
            caller: whose answers it may lean on.
            local: further answers it may lean on, by id: those of one connection.
            fetch: False leaves files where they are, for who only counts.

        Raises:
            MalformedRequest: it cannot be understood, or leans on what is not there.
        """
        placed = await self._place(body, caller, local)
        request = await self._media.settle(read_request(placed.body, headers, seal=self._seal), fetch=fetch)
        state, compacts = placed.state, is_trigger(placed.items)
        prewarm = state.prompt_cache_options is not None and state.prompt_cache_options.prewarm is True
        return Asked(
            summarising(request) if compacts else request,
            placed.items,
            state.previous_response_id or "",
            state.store is not False,
            bool(state.background),
            compacts,
            generates=state.generate is not False and not prewarm,
        )

    async def read_whole(self, body: bytes, headers: Headers, caller: str) -> tuple[TurnRequest, list[RawJson]]:
        """The question for a summary of a conversation, and all its items.

        Raises:
            MalformedRequest: as for `read`.
        """
        placed = await self._place(body, caller, _NOTHING)
        request = await self._media.settle(read_request(placed.body, headers, seal=self._seal))
        return summarising(request), [*placed.before, *placed.items]

    async def _place(self, body: bytes, caller: str, local: Mapping[str, Stored]) -> _Placed:
        state = decode(body, WireState)
        _check(state)
        own = _own_items(state.input)
        items = await self._with_references(own, caller, local)
        before: list[RawJson] = []
        if state.previous_response_id:
            before = await self._history(state.previous_response_id, caller, local)
        if before or items is not own:
            fields = decode(body, dict[str, Raw])
            fields["input"] = Raw(b"[" + b",".join([*before, *items]) + b"]")
            body = encode(fields)
        return _Placed(state, before, items, body)

    async def _with_references(
        self, items: tuple[RawJson, ...], caller: str, local: Mapping[str, Stored]
    ) -> tuple[RawJson, ...]:
        wanted: dict[int, str] = {}
        for i, item in enumerate(items):
            if b'"item_reference"' in item:
                reference = part(Raw(item), WireReference, f"$.input[{i}]")
                if reference.type == "item_reference":
                    wanted[i] = reference.id or ""
        if not wanted:
            return items
        answers = {name: (found := _ITEM_ID.fullmatch(name)) and response_id(found[1]) for name in wanted.values()}
        known: dict[str, Sequence[RawJson]] = {}
        for answer in dict.fromkeys(filter(None, answers.values())):
            stored = local.get(answer) or self._recent(answer, caller)
            if stored is not None:
                known[answer] = stored.output
        missing = [answer for answer in dict.fromkeys(filter(None, answers.values())) if answer not in known]
        if missing:
            known |= await self._store.outputs(missing, caller)
        found_items = {_id_of(item): item for output in known.values() for item in output}
        resolved = list(items)
        for i, name in wanted.items():
            if name not in found_items:
                raise MalformedRequest(
                    f"Item with id {name!r} not found. Items are kept where `store` is not false, and not for ever; "
                    "send the item itself.",
                    param=f"$.input[{i}].id",
                    reason="item_not_found",
                )
            resolved[i] = found_items[name]
        return tuple(resolved)

    async def _history(self, name: str, caller: str, local: Mapping[str, Stored]) -> list[RawJson]:
        """The items of a response and of all before it."""
        found: list[Stored] = []
        at = name
        while at:
            stored = local.get(at) or self._recent(at, caller)
            if stored is None:
                chain = await self._store.chain(at, caller)
                if chain is None:
                    raise MalformedRequest(
                        f"Previous response with id {name!r} not found. Send the whole conversation instead.",
                        param="$.previous_response_id",
                        reason="previous_response_not_found",
                    )
                found += chain[::-1]
                break
            found.append(stored)
            at = stored.previous
        return [item for stored in reversed(found) for item in (*stored.input, *stored.output)]


def _check(state: WireState) -> None:
    if state.conversation and bytes(state.conversation) != b"null":
        raise MalformedRequest(
            "Conversations are not kept here: leave conversation out, and use previous_response_id or send the items.",
            param="$.conversation",
            reason="unsupported_value",
        )
    if state.prompt and bytes(state.prompt) != b"null":
        raise MalformedRequest(
            "Prompt templates are not kept here: send the text itself, in instructions and input.",
            param="$.prompt",
            reason="unsupported_value",
        )
    if state.background and state.store is False:
        raise MalformedRequest(
            "A background response has to be stored: leave store out, or set it to true.",
            param="$.background",
            reason="invalid_value",
        )


def _own_items(said: str | Sequence[Raw] | None) -> tuple[RawJson, ...]:
    """The items of an input; a text is a message."""
    if isinstance(said, str):
        content = [{"type": "input_text", "text": said}]
        return (encode({"type": "message", "role": "user", "content": content}),) if said else ()
    return tuple(raw(item, f"$.input[{i}]") for i, item in enumerate(said or ()))


def _id_of(item: RawJson) -> str:
    return msgspec.json.decode(item, type=WireReference).id or ""
