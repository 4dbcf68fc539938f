"""How Kiro is addressed (kiro-protocol.md sections 1 and 6)."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from kirostream.accounts.account import NEVER, Account, AccountId, AuthMethod, Secret, Token
from kirostream.dialects.dialect import Complaint
from kirostream.errors import AccountThrottled, RemoteProtocolError, SettingsError
from kirostream.providers.kiro import KiroProvider, KiroSettings, api_region
from kirostream.providers.provider import Call
from kirostream.turn.model import DEFAULT_WINDOW, Model
from kirostream.turn.request import Message, Role, Text, Tool, TurnRequest

ARN = "arn:aws:codewhisperer:eu-central-1:111122223333:profile/EXAMPLE"
ASK = TurnRequest(model="claude-sonnet-4-5", messages=(Message(Role.USER, (Text("hi"),)),))
CALL = Call(Model("claude-sonnet-4.5"), "conv", "cont", "inv", attempt=2)


def account(auth: AuthMethod = AuthMethod.SOCIAL, **more: str) -> Account:
    return Account(id=AccountId("a"), label="someone", auth=auth, machine_id="ab" * 32, **more)


def token(arn: str = ARN) -> Token:
    return Token(Secret("aoaSECRET"), NEVER, arn, AccountId("a"))


@pytest.mark.parametrize(
    ("chosen", "arn", "sso", "region"),
    [
        ("", ARN, "us-east-1", "eu-central-1"),
        ("us-east-1", ARN, "eu-west-1", "us-east-1"),
        ("", "", "ap-southeast-1", "us-east-1"),
        ("", "", "eu-west-1", "eu-central-1"),
        ("", "", "us-gov-west-1", "us-gov-west-1"),
        ("", "nonsense", "", "us-east-1"),
    ],
)
def test_regions(chosen: str, arn: str, sso: str, region: str) -> None:
    assert api_region(chosen, arn, sso) == region


def test_a_request_for_a_turn() -> None:
    ask = KiroProvider().prepare(ASK, CALL, account(), token())
    headers = dict(ask.headers)
    body = json.loads(ask.body)
    assert (ask.method, ask.url) == ("POST", "https://q.eu-central-1.amazonaws.com/generateAssistantResponse")
    assert headers[b"authorization"] == b"Bearer aoaSECRET"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-amzn-kiro-agent-mode"] == b"vibe"
    assert headers[b"x-amzn-codewhisperer-optout"] == b"true"
    assert headers[b"amz-sdk-invocation-id"] == b"inv"
    assert headers[b"amz-sdk-request"] == b"attempt=2; max=3"
    assert headers[b"user-agent"].endswith(b"KiroIDE-0.12.155-" + b"ab" * 32)
    assert b"tokentype" not in headers
    assert body["profileArn"] == ARN
    assert body["conversationState"]["conversationId"] == "conv"
    assert body["conversationState"]["currentMessage"]["userInputMessage"]["modelId"] == "claude-sonnet-4.5"
    assert body["conversationState"]["currentMessage"]["userInputMessage"]["origin"] == "AI_EDITOR"


@pytest.mark.parametrize(
    ("auth", "marker"), [(AuthMethod.API_KEY, b"API_KEY"), (AuthMethod.EXTERNAL_IDP, b"EXTERNAL_IDP")]
)
def test_foreign_tokens_are_marked(auth: AuthMethod, marker: bytes) -> None:
    ask = KiroProvider().prepare(ASK, CALL, account(auth), token(""))
    assert dict(ask.headers)[b"tokentype"] == marker
    assert "profileArn" not in json.loads(ask.body)


@pytest.mark.parametrize(
    ("settings", "preferred", "arn", "hosts"),
    [
        (KiroSettings(), "", ARN, ["q.eu-central-1.amazonaws.com", "runtime.eu-central-1.kiro.dev"]),
        (
            KiroSettings(region="us-east-1"),
            "",
            ARN,
            ["q.us-east-1.amazonaws.com", "runtime.us-east-1.kiro.dev", "codewhisperer.us-east-1.amazonaws.com"],
        ),
        (KiroSettings(), "", "", ["q.us-east-1.amazonaws.com", "codewhisperer.us-east-1.amazonaws.com"]),
        (KiroSettings(), "runtime", ARN, ["runtime.eu-central-1.kiro.dev", "q.eu-central-1.amazonaws.com"]),
        (KiroSettings(endpoints="runtime"), "", ARN, ["runtime.eu-central-1.kiro.dev"]),
        (KiroSettings(endpoints="runtime"), "", "", ["q.us-east-1.amazonaws.com"]),
        (KiroSettings(endpoint="http://one/, http://two"), "runtime", ARN, ["one", "two"]),
    ],
)
def test_endpoints(settings: KiroSettings, preferred: str, arn: str, hosts: list[str]) -> None:
    """What an account cannot be served by is left out; something is always left."""
    provider, asking = KiroProvider(settings), account(endpoint=preferred)
    urls = provider.endpoints(asking, token(arn))
    assert [urlsplit(url).netloc for url in urls] == hosts
    for number, url in enumerate(urls):
        ask = provider.prepare(ASK, replace(CALL, endpoint=number), asking, token(arn))
        assert ask.url == f"{url}/generateAssistantResponse"


def test_an_endpoint_that_is_none_is_refused() -> None:
    for endpoints in ("", "q, elsewhere"):
        with pytest.raises(SettingsError, match="codewhisperer"):
            KiroSettings(endpoints=endpoints)


def test_an_endpoint_of_ones_own() -> None:
    provider = KiroProvider(KiroSettings(endpoint="http://127.0.0.1:1/", share_content=True))
    ask = provider.prepare(ASK, CALL, account(), token())
    assert ask.url == "http://127.0.0.1:1/generateAssistantResponse"
    assert dict(ask.headers)[b"x-amzn-codewhisperer-optout"] == b"false"


def test_a_request_does_not_show_its_token() -> None:
    assert "SECRET" not in repr(KiroProvider().prepare(ASK, CALL, account(), token()))


def test_the_catalogue() -> None:
    ask = KiroProvider().list_models(account(), token(), "next page")
    query = parse_qs(urlsplit(ask.url).query)
    assert query == {"origin": ["AI_EDITOR"], "maxResults": ["50"], "profileArn": [ARN], "nextToken": ["next page"]}
    body = {
        "defaultModel": {"modelId": "auto"},
        "nextToken": "n",
        "models": [
            {
                "modelId": "claude-opus-4.7",
                "modelName": "Claude Opus 4.7",
                "rateMultiplier": 2.2,
                "supportedInputTypes": ["TEXT", "IMAGE"],
                "tokenLimits": {"maxInputTokens": 1_000_000, "maxOutputTokens": 64_000},
                "additionalModelRequestFieldsSchema": {
                    "type": "object",
                    "properties": {
                        "thinking": {},
                        "output_config": {"properties": {"effort": {"enum": ["low", "high"]}}},
                    },
                },
            },
            {"modelId": "bare", "supportedInputTypes": ["TEXT"], "tokenLimits": None, "unknown": [1]},
        ],
    }
    models, page = KiroProvider().read_models(json.dumps(body).encode())
    assert page == "n"
    assert models == [
        Model(
            "claude-opus-4.7",
            "Claude Opus 4.7",
            "",
            1_000_000,
            64_000,
            True,
            2.2,
            efforts=("low", "high"),
            thinking_fields=("thinking.type", "output_config.effort"),
        ),
        Model("bare", "bare", "", DEFAULT_WINDOW, 64_000, False),
    ]


@pytest.mark.parametrize(
    ("properties", "efforts", "fields"),
    [
        (None, (), ()),
        ({}, (), ()),
        ({"anything": {"type": "string"}}, (), ()),
        (
            {"thinking": {}, "output_config": {"properties": {"effort": {"enum": ["low", "xhigh"]}}}},
            ("low", "xhigh"),
            ("thinking.type", "thinking.display", "output_config.effort"),
        ),
        (
            {"thinking": {"properties": {"type": {"enum": ["adaptive"]}, "display": {}}}},
            (),
            ("thinking.type", "thinking.display"),
        ),
        ({"reasoning": {"properties": {"effort": {"enum": ["low", 1]}}}}, ("low",), ("reasoning.effort",)),
    ],
)
def test_the_catalogue_says_how_native_thinking_is_asked_for(
    properties: object, efforts: tuple[str, ...], fields: tuple[str, ...]
) -> None:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    body = {"models": [{"modelId": "m", "additionalModelRequestFieldsSchema": schema}]}
    ((model,), _) = KiroProvider().read_models(json.dumps(body).encode())
    assert (model.efforts, model.thinking_fields, model.thinks) == (efforts, fields, bool(fields))


def test_tools_are_named_as_the_model_knows_them() -> None:
    tools = (Tool("Read", "", b"{}"), Tool("mcp__server__" + "x" * 60, "", b"{}"))
    names = KiroProvider().tool_names(tools)
    assert names["Read"] == "Read"
    assert len(names[tools[1].name]) <= 64
    ask = KiroProvider().prepare(replace(ASK, tools=tools), CALL, account(), token())
    assert names[tools[1].name].encode() in ask.body


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"models":[{}]}', b"<html>"])
def test_what_is_no_catalogue(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        KiroProvider().read_models(body)


@pytest.mark.parametrize(("value", "seconds"), [(b"7", 7.0), (b"1.5", 1.5), (b"-3", 0.0), (b"Wed, 21 Oct", None)])
def test_retry_after_reaches_the_error(value: bytes, seconds: float | None) -> None:
    error = KiroProvider().classify(429, [(b"retry-after", value)], Complaint("ThrottlingException", "", "slow"))
    assert isinstance(error, AccountThrottled)
    assert error.retry_after == seconds or seconds is None
