"""Kiro (Amazon Q Developer): endpoints, headers, the profile, the catalogue (kiro-protocol.md sections 1, 4, 6.2, 7).

One persona a request, as section 1.2 recommends: the IDE's, over the REST form of the endpoint. The device identity in
the user agent belongs to the account and never changes (section 1.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from kirostream.accounts.account import Account, AccountId, AuthMethod, Token
from kirostream.dataclass import dataclass
from kirostream.dialects import DIALECTS
from kirostream.dialects.dialect import Complaint, Dialect, Headers, Stamp
from kirostream.dialects.kiro.errors import classify
from kirostream.dialects.kiro.names import ToolNames
from kirostream.errors import RemoteProtocolError, SettingsError, UpstreamError
from kirostream.filters.request_rules import apply_rules
from kirostream.net.fields import Fields
from kirostream.providers.kiro_forms import KiroForms
from kirostream.providers.provider import Call, UpstreamRequest
from kirostream.turn.model import DEFAULT_WINDOW, Model
from kirostream.turn.request import SearchHit, Tool, TurnRequest

ORIGIN: Final = "AI_EDITOR"

REGIONS: Final = ("us-east-1", "eu-central-1", "us-gov-east-1", "us-gov-west-1")
"""Regions with a data plane (section 1.1)."""

ENDPOINTS: Final[Mapping[str, str]] = {
    "q": "https://q.{region}.amazonaws.com",
    "runtime": "https://runtime.{region}.kiro.dev",
    "codewhisperer": "https://codewhisperer.us-east-1.amazonaws.com",
}
"""The hosts of turns in REST form (section 1.1: E2, E5, E1)."""

TOKEN_TYPES: Final = {AuthMethod.API_KEY: b"API_KEY", AuthMethod.EXTERNAL_IDP: b"EXTERNAL_IDP"}
"""What marks a bearer that is none of the service's own tokens (section 1.3)."""

FALLBACK_MODELS: Final = tuple(
    Model(model_id, name, window=window)
    for model_id, name, window in (
        ("auto", "Auto", 1_000_000),
        ("claude-sonnet-4.5", "Claude Sonnet 4.5", 200_000),
        ("claude-sonnet-4", "Claude Sonnet 4", 200_000),
        ("claude-haiku-4.5", "Claude Haiku 4.5", 200_000),
        ("claude-opus-4.5", "Claude Opus 4.5", 200_000),
    )
)
"""Shown while the catalogue cannot be read (section 7.1): the ids every tier has had."""


MOST_KNOWN: Final = 4096
"""Accounts whose headers are remembered."""

FORMS: Final = KiroForms()


@dataclass(frozen=True, slots=True, kw_only=True)
class KiroSettings:
    """How Kiro is addressed."""

    endpoint: str = field(
        default="",
        metadata={
            "help": "Base URL of the service; several with commas between them. Empty: `endpoints`.",
            "unit": "URL",
        },
    )
    endpoints: str = field(
        default="q, runtime, codewhisperer",
        metadata={
            "help": "The public endpoints, in the order they are tried; the next one where one cannot be reached or "
            "fails: q, runtime (needs a profile ARN), codewhisperer (us-east-1 alone)."
        },
    )
    region: str = field(
        default="",
        metadata={"help": "API region. Empty: the region of the profile ARN, else the one nearest to the account's."},
    )
    agent_mode: str = field(default="vibe", metadata={"help": "vibe or spec; what the IDE calls its agent mode."})
    share_content: bool = field(
        default=False,
        metadata={"help": "Whether the vendor may use the content of your requests to improve the service."},
    )
    ide_version: str = field(default="0.12.155", metadata={"help": "The IDE version named in the user agent."})

    def __post_init__(self) -> None:
        names = listed(self.endpoints)
        if not names or not set(names) <= ENDPOINTS.keys():
            raise SettingsError(f"kiro.endpoints is {self.endpoints!r}; it takes of: {', '.join(ENDPOINTS)}")


def listed(text: str) -> list[str]:
    """The parts between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _usable(name: str, region: str, token: Token) -> bool:
    """Whether an endpoint serves an account (section 1.1)."""
    if name == "runtime":
        return bool(token.profile_arn)
    return name != "codewhisperer" or region == "us-east-1"


def api_region(chosen: str, profile_arn: str, sso_region: str) -> str:
    """The region of the generation host (section 1.1, "recommended").

    The operator's choice is taken as it is. The rest is kept to `REGIONS`: a sign-in region such as ``ap-southeast-1``
    has no data plane, and a mismatched pair is answered with misleading errors.
    """
    if chosen:
        return chosen
    parts = profile_arn.split(":")
    wanted = (parts[3] if len(parts) > 3 else "") or sso_region
    if wanted in REGIONS:
        return wanted
    return "eu-central-1" if wanted.startswith("eu-") else "us-east-1"


class _TokenLimits(msgspec.Struct, rename="camel"):
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None


class _Member(msgspec.Struct):
    """A JSON Schema of one member, as far as it matters here."""

    enum: list[Any] = []
    properties: dict[str, _Member] | None = None


class _FieldSchema(msgspec.Struct):
    """What a model's request may hold beside the conversation (section 2.8), in one of two shapes."""

    properties: dict[str, _Member] | None = None

    def efforts(self) -> tuple[str, ...]:
        """Words of the effort scale, weakest first."""
        for name in ("output_config", "reasoning"):
            effort = self._inner(name).get("effort")
            if effort is not None:
                return tuple(word for word in effort.enum if isinstance(word, str))
        return ()

    def thinking_fields(self) -> tuple[str, ...]:
        """See `Model.thinking_fields`. A member whose inside is not described takes what its kind takes."""
        fields = [f"{name}.{inner}" for name in _THINKING for inner in self._inner(name)]
        if "thinking" in (self.properties or {}) and not self._inner("thinking"):
            usual = ("type", "display") if "xhigh" in self.efforts() else ("type",)
            fields = [*(f"thinking.{inner}" for inner in usual), *fields]
        return tuple(fields)

    def _inner(self, name: str) -> dict[str, _Member]:
        member = (self.properties or {}).get(name)
        return (member and member.properties) or {}


_THINKING: Final = ("thinking", "output_config", "reasoning")


class _Model(msgspec.Struct, rename="camel"):
    model_id: str
    model_name: str | None = None
    description: str | None = None
    rate_multiplier: float | None = None
    token_limits: _TokenLimits | None = None
    supported_input_types: list[str] | None = None
    additional_model_request_fields_schema: _FieldSchema | None = None


class _ModelPage(msgspec.Struct, rename="camel"):
    models: list[_Model]
    next_token: str | None = None


_read_page = msgspec.json.Decoder(_ModelPage).decode


class KiroProvider:
    """The place. One instance serves every account."""

    name = "kiro"
    fallback_models: Sequence[Model] = FALLBACK_MODELS

    def __init__(self, settings: KiroSettings | None = None) -> None:
        self.settings = settings or KiroSettings()
        self._known: dict[AccountId, _Standing] = {}

    def __repr__(self) -> str:
        return f"<KiroProvider {self.settings.endpoint or 'public endpoints'}>"

    @property
    def dialect(self) -> Dialect:
        """Kiro's own."""
        return DIALECTS["kiro"]

    @property
    def forms(self) -> KiroForms:
        """See `Provider.forms`."""
        return FORMS

    def region(self, account: Account, token: Token) -> str:
        """The region that the account is served in."""
        return api_region(self.settings.region or account.api_region, token.profile_arn, account.region)

    def base_url(self, account: Account, token: Token) -> str:
        """Scheme and host for everything but turns, without a slash at the end (section 6.1)."""
        if self.settings.endpoint:
            return listed(self.settings.endpoint)[0].rstrip("/")
        return ENDPOINTS["q"].format(region=self.region(account, token))

    def endpoints(self, account: Account, token: Token) -> Sequence[str]:
        """See `Provider.endpoints` (section 1.1): those of the settings, the one that the account prefers first."""
        if self.settings.endpoint:
            return [url.rstrip("/") for url in listed(self.settings.endpoint)]
        region = self.region(account, token)
        names = listed(self.settings.endpoints)
        if account.endpoint in ENDPOINTS:
            names = list(dict.fromkeys((account.endpoint, *names)))
        usable = [name for name in names if _usable(name, region, token)]
        return [ENDPOINTS[name].format(region=region) for name in usable or ("q",)]

    def tool_names(self, tools: Sequence[Tool]) -> Mapping[str, str]:
        """See `Provider.tool_names`; names that Kiro does not take are shortened (section 2.6)."""
        names = ToolNames(tool.name for tool in tools)
        return {tool.name: names.wire(tool.name) for tool in tools}

    def fit(self, request: TurnRequest) -> TurnRequest:
        """See `Provider.fit`: everything the service refuses with one sentence is put right (sections 2.4 to 2.7)."""
        return apply_rules(request)

    def prepare(self, request: TurnRequest, call: Call, account: Account, token: Token) -> UpstreamRequest:
        """See `Provider.prepare`. REST form of ``generateAssistantResponse`` (section 1.1, E2)."""
        body = self.dialect.write_request(
            request,
            Stamp(
                model=call.model,
                conversation_id=call.conversation_id,
                continuation_id=call.continuation_id,
                profile_arn=token.profile_arn,
                origin=ORIGIN,
            ),
        )
        standing = self._standing(account, token)
        raw = b"%bamz-sdk-request: attempt=%d; max=%d\r\namz-sdk-invocation-id: %b\r\n%b" % (
            standing.before,
            call.attempt,
            call.attempts,
            call.invocation_id.encode(),
            standing.behind,
        )
        return UpstreamRequest("POST", standing.urls[call.endpoint], Fields.written(raw), body)

    def _standing(self, account: Account, token: Token) -> _Standing:
        """What all requests for turns of an account with this token have."""
        held = self._known.get(account.id)
        if held is None or held.token is not token or held.account is not account or held.settings is not self.settings:
            if len(self._known) >= MOST_KNOWN:  # guests come and go
                self._known.clear()
            before, behind = self._parts(account, token)
            behind += [
                (b"content-type", b"application/json"),
                (b"accept", b"application/vnd.amazon.eventstream, application/json"),
                (b"x-amzn-kiro-agent-mode", self.settings.agent_mode.encode()),
            ]
            urls = [f"{url}/generateAssistantResponse" for url in self.endpoints(account, token)]
            held = self._known[account.id] = _Standing(
                self.settings, account, token, Fields(before).raw, Fields(behind).raw, urls
            )
        return held

    def classify(self, status: int, headers: Headers, complaint: Complaint) -> UpstreamError:
        """See `Provider.classify`; section 4.3's table."""
        return classify(complaint, status, _retry_after(headers))

    def list_models(self, account: Account, token: Token, page: str = "") -> UpstreamRequest:
        """See `Provider.list_models` (section 6.2)."""
        query = {"origin": ORIGIN, "maxResults": "50"}
        if token.profile_arn:
            query["profileArn"] = token.profile_arn
        if page:
            query["nextToken"] = page
        url = f"{self.base_url(account, token)}/ListAvailableModels?{urlencode(query, quote_via=quote)}"
        return UpstreamRequest("GET", url, [*self._headers(account, token, "attempt=1; max=1", "")])

    def read_models(self, body: bytes) -> tuple[list[Model], str]:
        """See `Provider.read_models` (section 6.3)."""
        try:
            page = _read_page(body)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise RemoteProtocolError(f"the list of models cannot be read: {error}") from error
        return [_model(entry) for entry in page.models], page.next_token or ""

    def management_headers(self, account: Account, token: Token) -> list[tuple[bytes, bytes]]:
        """What every call carries that is no turn (section 1.3)."""
        return self._headers(account, token, "attempt=1; max=1", "")

    def web_search(self, query: str, request_id: str, account: Account, token: Token) -> UpstreamRequest:
        """See `Provider.web_search`: a tool of the service's MCP endpoint (section 6.5)."""
        call = {"name": "web_search", "arguments": {"query": query}}
        body = msgspec.json.encode({"id": request_id, "jsonrpc": "2.0", "method": "tools/call", "params": call})
        headers = [
            *self._headers(account, token, "attempt=1; max=1", ""),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json"),
        ]
        if token.profile_arn:
            headers.append((b"x-amzn-kiro-profile-arn", token.profile_arn.encode()))
        return UpstreamRequest("POST", f"{self.base_url(account, token)}/mcp", headers, body)

    def read_web_search(self, body: bytes) -> list[SearchHit]:
        """See `Provider.read_web_search`."""
        from kirostream.providers.kiro_search import read_results  # here: few turns search

        return read_results(body)

    def _headers(self, account: Account, token: Token, attempt: str, invocation_id: str) -> list[tuple[bytes, bytes]]:
        """What every call carries (section 1.3)."""
        before, behind = self._parts(account, token)
        named = [(b"amz-sdk-invocation-id", invocation_id.encode())] if invocation_id else []
        return [*before, (b"amz-sdk-request", attempt.encode()), *named, *behind]

    def _parts(self, account: Account, token: Token) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
        """The same without what is of one call: what stands before that, and what behind."""
        version, machine = self.settings.ide_version, account.machine_id
        agent = (
            f"aws-sdk-js/1.0.34 ua/2.1 os/linux lang/js md/nodejs#22.21.1 "
            f"api/codewhispererstreaming#1.0.34 m/E KiroIDE-{version}-{machine}"
        )
        before = [
            (b"authorization", b"Bearer " + token.access.reveal().encode()),
            (b"user-agent", agent.encode()),
            (b"x-amz-user-agent", f"aws-sdk-js/1.0.34 KiroIDE {version} {machine}".encode()),
            (b"x-amzn-codewhisperer-optout", b"false" if self.settings.share_content else b"true"),
        ]
        marker = TOKEN_TYPES.get(account.auth)
        return before, [(b"tokentype", marker)] if marker else []


@dataclass(frozen=True, slots=True)
class _Standing:
    """What the turns of one account have in common, as long as account, token and settings are the same objects.

    `before` and `behind` are the headers round those of one call, as they are sent; `urls` are those of the endpoints.
    """

    settings: KiroSettings
    account: Account
    token: Token
    before: bytes = field(repr=False)
    behind: bytes = field(repr=False)
    urls: Sequence[str]


def _model(entry: _Model) -> Model:
    limits = entry.token_limits or _TokenLimits()
    schema = entry.additional_model_request_fields_schema
    return Model(
        id=entry.model_id,
        name=entry.model_name or entry.model_id,
        description=entry.description or "",
        window=limits.max_input_tokens or DEFAULT_WINDOW,
        max_output=limits.max_output_tokens or 64_000,
        images="IMAGE" in (entry.supported_input_types or ["IMAGE"]),
        rate=entry.rate_multiplier,
        efforts=schema.efforts() if schema else (),
        thinking_fields=schema.thinking_fields() if schema else (),
    )


def _retry_after(headers: Headers) -> float | None:
    """Seconds of a ``retry-after`` header, None where there is none or it is a date."""
    for name, value in headers:
        if name == b"retry-after":
            try:
                return max(0.0, float(value))
            except ValueError:
                return None
    return None
