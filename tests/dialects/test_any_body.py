"""Any request a client can make is refused by us with a clear 400, or accepted upstream.

From the bytes of a body to the bytes for Kiro, by the same steps as in the gateway, except that attachments are put in
place without a network. What is accepted upstream is what the simulator's strict check lets pass. That a conversation
is too long for the model is the one thing that upstream alone can tell.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.bodies import BODIES, WORN
from helpers.requests import image
from kirostream.accounts.account import NEVER, Account, AccountId, AuthMethod, Secret, Token
from kirostream.dialects import DIALECTS
from kirostream.dialects.kiro.checks import TOO_LONG
from kirostream.dialects.kiro.request import decode
from kirostream.errors import MalformedRequest
from kirostream.filters import FilterSettings, emulate
from kirostream.filters.repair import stricter
from kirostream.filters.request_rules import RULES
from kirostream.filters.structured import Structured
from kirostream.providers.kiro import KiroProvider
from kirostream.providers.provider import Call
from kirostream.simulator.catalogue import offers
from kirostream.simulator.strict import check
from kirostream.turn.request import Attachment, ContentBlock, Text, ToolResult, TurnRequest

CATALOGUE = offers("")
MODEL = CATALOGUE["claude-opus-4.7"].model
PROVIDER = KiroProvider()
ACCOUNT = Account(id=AccountId("a"), label="someone", auth=AuthMethod.SOCIAL, machine_id="0" * 64)
TOKEN = Token(Secret("t"), NEVER, "arn", ACCOUNT.id)


def settled(request: TurnRequest) -> TurnRequest:
    """What `gateway.media` makes of a request: the text of a document, the image behind an address."""

    def put(block: ContentBlock) -> Any:
        if isinstance(block, ToolResult):
            return replace(block, content=tuple(map(put, block.content)))
        if isinstance(block, Attachment):
            return image() if block.url else Text(block.title)
        return block

    messages = (replace(message, content=tuple(map(put, message.content))) for message in request.messages)
    return replace(request, messages=tuple(messages))


def fitted(request: TurnRequest) -> TurnRequest:
    """As `relay.relay` asks it."""
    asked = Structured(request, request.output).request if request.output else request
    return PROVIDER.fit(emulate(asked, MODEL, FilterSettings()))


def refusal_of(request: TurnRequest, *, picky: bool = False) -> str:
    """What upstream says to it; empty where it answers."""
    body = PROVIDER.prepare(request, Call(MODEL, "c", "a", "i"), ACCOUNT, TOKEN).body
    json.loads(body)  # a stricter reader than ours
    refusal = check(decode(body), CATALOGUE, picky=picky)
    if refusal is None or refusal.complaint.message == TOO_LONG:
        return ""
    return refusal.detail


@pytest.mark.parametrize("language", BODIES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_body(language: str, data: st.DataObject) -> None:
    body = data.draw(BODIES[language])
    try:
        request = DIALECTS[language].read_request(body, ())
    except MalformedRequest as error:
        refused = DIALECTS[language].write_error(error, "req_1")
        assert json.loads(refused.body)["error"]["message"]
        assert refused.status == 400
        return
    asked = fitted(settled(request))
    assert refusal_of(asked) == ""
    for rule in RULES:
        assert rule(asked) is asked, f"{rule.__name__} is not idempotent"
    variant, repairs = stricter(asked, MODEL)
    assert refusal_of(variant, picky=True) == "", f"after {repairs}"


@pytest.mark.parametrize("language", WORN)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_nothing_that_was_said_is_lost(language: str, data: st.DataObject) -> None:
    """Whatever became of a history: every text and every result in it reaches the model, in its place or as text."""
    body = data.draw(WORN[language])
    said = set(re.findall(rb'"(of \w+|look|done|thanks)"', body))
    asked = fitted(settled(DIALECTS[language].read_request(body, ())))
    sent = PROVIDER.prepare(asked, Call(MODEL, "c", "a", "i"), ACCOUNT, TOKEN).body
    assert [text for text in said if text not in sent] == []
    variant, _ = stricter(asked, MODEL)
    sent = PROVIDER.prepare(variant, Call(MODEL, "c", "a", "i"), ACCOUNT, TOKEN).body
    assert [text for text in said if text not in sent] == []


@pytest.mark.parametrize("language", BODIES)
def test_most_bodies_are_understood(language: str) -> None:
    """Else the test above would say nothing."""
    understood: list[bool] = []

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(BODIES[language])
    def read(body: bytes) -> None:
        try:
            DIALECTS[language].read_request(body, ())
        except MalformedRequest:
            understood.append(False)
        else:
            understood.append(True)

    read()
    assert sum(understood) > len(understood) / 2, f"{sum(understood)} of {len(understood)}"
