"""The simulated service: Kiro's endpoints on one host, as a `Handler` for any door.

Generation, in REST form and in JSON 1.0 form (kiro-protocol.md section 1.1); web search (section 6.5, `websearch`);
the catalogue, the usage limits, the plans and the profiles (section 6.2); the social and the OIDC token service
(sections 5.2 to 5.4). What the model says is in `directives`; how people sign in, in `signin`; what an account has, in
`accounts`; what is refused, in `strict`; how an answer is cut into beats, in `scene`.

An answer is sent by one loop with absolute times: beat n is due at ``start + n * interval``. A loop that is late sends
all that is due at once, so the pace holds on average, and a hundred streams cost no more wake-ups than there are beats.
Without a pace everything goes out in buffers of 64 KiB.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, parse_qsl

import trio

from kirostream.accounts.account import AuthMethod, Credential, Secret
from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import Complaint
from kirostream.dialects.kiro.request import Generate, decode, to_turn
from kirostream.dialects.kiro.response import CONTENT_TYPE, complain, event_frame, write_complaint
from kirostream.errors import KirostreamError, MalformedRequest, MethodNotAllowed, NoSuchRoute, RequestError
from kirostream.net.door import OnFault, log_fault, open_listeners
from kirostream.net.exchange import Exchange
from kirostream.net.http1 import Http1Door
from kirostream.net.router import Router
from kirostream.simulator import websearch
from kirostream.simulator.accounts import create_subscription_token, list_subscriptions, usage_limits
from kirostream.simulator.catalogue import AUTO_PICKS, offers
from kirostream.simulator.directives import Play, play
from kirostream.simulator.oidc import REGION, Auth, Grant, Issuer
from kirostream.simulator.plain import plain_steps
from kirostream.simulator.refusals import BAD_BEARER, INJECTED, NO_PROFILE, UNKNOWN_OPERATION, Refusal, denied
from kirostream.simulator.scene import Scene, stage
from kirostream.simulator.settings import SimulatorSettings
from kirostream.simulator.signin import SignIns
from kirostream.simulator.standing import Standing
from kirostream.simulator.strict import check

BUFFER: Final = 64 * 1024
BYTEWISE: Final = 3
PAGE: Final = 50
JSON: Final = (b"content-type", b"application/json")
TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
WHY: Final = b"x-simulator-detail"
"""Header of a refusal that says what is wrong with the request, which the real service never does."""

Answer: TypeAlias = tuple[int, dict[str, Any]]
Operation: TypeAlias = Callable[[Grant, Mapping[str, Any]], Answer]


@dataclass(frozen=True, slots=True)
class SimulatorSnapshot:
    """What the simulator has done. `active` counts answers that are being sent now."""

    active: int
    requests: int
    answered: int
    refused: int
    broken: int
    tokens_issued: int


class _Refused(Exception):
    """A refusal on its way out."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class Simulator:
    """A Kiro look-alike. One instance is one life: attempts, ids and tokens are counted from its beginning.

    Args:
        settings: pace, seed, models, and how strict it is.
        now: unix seconds; access tokens end by it.
    """

    def __init__(self, settings: SimulatorSettings | None = None, *, now: Callable[[], float] = time.time) -> None:
        self.settings = settings or SimulatorSettings()
        self._now = now
        self._catalogue = offers(self.settings.models)
        self._issuer = Issuer(self.settings.seed, self.settings.token_lifetime, rotate=self.settings.rotate)
        self._issuer.sign_in("demo", refresh_token=self.settings.refresh_token)
        self.sign_ins: Final = SignIns(self._issuer)
        self._attempts: Counter[str] = Counter()
        self.standing = Standing()
        self._active = self._requests = self._answered = self._refused = self._broken = 0
        self._credits = 0.0
        self._call_ids = (f"tooluse_{self._digest(f'call:{n}').hex()[:22]}" for n in itertools.count())
        self._request_ids = (
            str(uuid.UUID(bytes=self._digest(f"answer:{n}")[:16], version=4)) for n in itertools.count()
        )
        self._router = self._make_router()
        self._operations: dict[str, Operation] = {
            "listavailablemodels": self._list_models,
            "getusagelimits": self._usage_limits,
            "listavailableprofiles": self._list_profiles,
            "listavailablesubscriptions": list_subscriptions,
            "createsubscriptiontoken": create_subscription_token,
        }

    def __repr__(self) -> str:
        return f"<Simulator: {self.snapshot()}>"

    def snapshot(self) -> SimulatorSnapshot:
        """The counts, now."""
        return SimulatorSnapshot(
            active=self._active,
            requests=self._requests,
            answered=self._answered,
            refused=self._refused,
            broken=self._broken,
            tokens_issued=self._issuer.issued,
        )

    # For those who run it

    def credential(self, name: str = "demo", auth: Auth = "social") -> Credential:
        """A credential it accepts, with an access token that is good now. Any name is an account of its own."""
        grant = self._issuer.sign_in(name, auth)
        access, until = self._issuer.issue(grant, self._now())
        return Credential(
            auth=AuthMethod.SOCIAL if auth == "social" else AuthMethod.IDC,
            refresh_token=Secret(grant.refresh_token),
            access_token=Secret(access),
            expires_at=until,
            client_id=grant.client_id,
            client_secret=Secret(grant.client_secret),
            region=REGION,
            profile_arn=grant.profile_arn,
            provider="Google" if auth == "social" else "Enterprise",
        )

    def token_file(self, name: str = "demo") -> dict[str, str]:
        """The same as the IDE's token file holds it (section 5.5)."""
        credential = self.credential(name)
        until = datetime.fromtimestamp(credential.expires_at or 0.0, UTC)
        return {
            "accessToken": credential.access_token.reveal(),
            "refreshToken": credential.refresh_token.reveal(),
            "profileArn": credential.profile_arn,
            "expiresAt": until.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "authMethod": "social",
            "provider": "Google",
        }

    def revoke_access_tokens(self) -> None:
        """End every access token that is out; refresh tokens stay good."""
        self._issuer.revoke()

    def afflict(self, name: str, error: str | None) -> None:
        """Answer every generation and search of the account `name` with an error of `standing.ERRORS`; None ends it."""
        self.standing.afflict(name, error)

    # Requests

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one exchange."""
        self._requests += 1
        try:
            await self._router(exchange)
        except _Refused as refused:
            await self._refuse(exchange, refused.refusal)
        except (NoSuchRoute, MethodNotAllowed):
            await self._refuse(exchange, UNKNOWN_OPERATION)
        except RequestError as error:
            status, complaint = complain(error)
            await self._refuse(exchange, Refusal(status, complaint, error.message))

    def _make_router(self) -> Router:
        router = Router()
        for path in ("/generateAssistantResponse", "/SendMessageStreaming"):
            router.add("POST", path, self._generate_rest)
        router.add("POST", "/mcp", self._mcp)
        router.add("POST", "/", self._rpc)
        for path, operation in (
            ("/ListAvailableModels", "listavailablemodels"),
            ("/List-Available-Models", "listavailablemodels"),
            ("/getUsageLimits", "getusagelimits"),
            ("/ListAvailableProfiles", "listavailableprofiles"),
            ("/List-Available-Profiles", "listavailableprofiles"),
            ("/listAvailableSubscriptions", "listavailablesubscriptions"),
            ("/CreateSubscriptionToken", "createsubscriptiontoken"),
        ):
            router.add("GET", path, self._managed(operation))
            router.add("POST", path, self._managed(operation))
        sign_ins = self.sign_ins
        router.add("POST", "/refreshToken", self._tokens(self._issuer.refresh_social))
        router.add("POST", "/token", self._tokens(sign_ins.token))
        router.add("POST", "/client/register", self._tokens(sign_ins.register))
        router.add("POST", "/device_authorization", self._device_codes(sign_ins.device_authorization))
        router.add("POST", "/oauth/device/authorization", self._device_codes(sign_ins.social_device))
        router.add("POST", "/oauth/device/poll", self._tokens(sign_ins.social_poll))
        router.add("POST", "/oauth/token", self._tokens(sign_ins.social_token))
        router.add("GET", "/device", self._open_device)
        for path in ("/authorize", "/signin", "/login"):
            router.add("GET", path, self._authorize)
        return router

    async def _generate_rest(self, exchange: Exchange) -> None:
        await self._generate(exchange, rpc=False)

    async def _mcp(self, exchange: Exchange) -> None:
        """Tools that the service runs: the web search (section 6.5)."""
        body = await exchange.body(self.settings.max_body)
        grant = self._caller(exchange)
        if refusal := self.standing.call(grant.name, self._now()):
            raise _Refused(refusal)
        try:
            said = websearch.answer(_object(body), self._count)
        except websearch.Stalled:
            await trio.sleep_forever()
        if isinstance(said, Refusal):
            raise _Refused(said)
        await exchange.reply(200, [JSON], _dump(said))

    async def _rpc(self, exchange: Exchange) -> None:
        """The JSON 1.0 form: one path, the operation in a header."""
        target = (exchange.request.header(b"x-amz-target") or b"").decode("latin-1")
        operation = target.rpartition(".")[2].lower()
        if operation in ("generateassistantresponse", "sendmessage"):
            await self._generate(exchange, rpc=True)
        elif operation in self._operations:
            await self._managed(operation)(exchange)
        else:
            raise _Refused(UNKNOWN_OPERATION)

    def _managed(self, operation: str) -> Callable[[Exchange], Awaitable[None]]:
        """An endpoint of section 6.2: parameters in the query, in the body, or both."""

        async def endpoint(exchange: Exchange) -> None:
            body = await exchange.body(self.settings.max_body)
            given = {key: values[-1] for key, values in parse_qs(exchange.request.query).items()}
            grant = self._caller(exchange)
            status, said = self._operations[operation](grant, {**given, **_object(body)})
            await exchange.reply(status, [JSON], _dump(said))

        return endpoint

    def _tokens(self, refresh: Callable[[dict[str, Any], float], Answer]) -> Callable[[Exchange], Awaitable[None]]:
        async def endpoint(exchange: Exchange) -> None:
            status, said = refresh(_object(await exchange.body(self.settings.max_body)), self._now())
            await exchange.reply(status, [JSON], _dump(said))

        return endpoint

    def _device_codes(
        self, make: Callable[[dict[str, Any], float, str], Answer]
    ) -> Callable[[Exchange], Awaitable[None]]:
        async def endpoint(exchange: Exchange) -> None:
            host = (exchange.request.header(b"host") or b"127.0.0.1").decode("latin-1")
            status, said = make(_object(await exchange.body(self.settings.max_body)), self._now(), f"http://{host}")
            await exchange.reply(status, [JSON], _dump(said))

        return endpoint

    async def _open_device(self, exchange: Exchange) -> None:
        """The page of a device code. Opening it is what a person does to confirm."""
        query = dict(parse_qsl(exchange.request.query))
        known = self.sign_ins.open(query.get("user_code", ""), query.get("as", "demo"), deny="deny" in query)
        page = b"Signed in. You can close this page.\n" if known else b"There is no such code.\n"
        await exchange.reply(200 if known else 404, [TEXT], page)

    async def _authorize(self, exchange: Exchange) -> None:
        """The page on which a person signs in: it sends the browser back at once."""
        to = self.sign_ins.authorize(dict(parse_qsl(exchange.request.query)), self._now())
        if to is None:
            await exchange.reply(400, [TEXT], b"The request is not in order.\n")
        else:
            await exchange.reply(302, [(b"location", to.encode("ascii", "replace"))], b"")

    def _caller(self, exchange: Exchange) -> Grant:
        """Whose request it is (section 1.3)."""
        scheme, _, token = (exchange.request.header(b"authorization") or b"").decode("latin-1").partition(" ")
        grant = self._issuer.check(token.strip(), self._now()) if scheme.lower() == "bearer" else None
        if grant is None:
            raise _Refused(BAD_BEARER)
        return grant

    async def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self._refused += 1
        rpc = exchange.request.header(b"x-amz-target") is not None
        reply = write_complaint(refusal.status, refusal.complaint, next(self._request_ids), rpc=rpc)
        why = [(WHY, _header(refusal.detail))] if refusal.detail else []
        if refusal.retry_after:
            why.append((b"retry-after", b"%d" % refusal.retry_after))
        await exchange.reply(reply.status, [*reply.headers, *why], reply.body)

    # Generation

    async def _generate(self, exchange: Exchange, *, rpc: bool) -> None:
        raw = await exchange.body(self.settings.max_body)
        grant = self._caller(exchange)
        body = decode(raw)
        if self.settings.require_profile_arn and not body.profile_arn:
            raise _Refused(NO_PROFILE)
        if refusal := self.standing.call(grant.name, self._now()):
            raise _Refused(refusal)
        if refusal := check(body, self._catalogue, picky=self.settings.picky):
            raise _Refused(refusal)
        request = to_turn(body)
        due = play(request, self._count) or Play(plain_steps(request, self.settings.plain_reply, self.settings.seed))
        self._active += 1
        try:
            await trio.sleep(due.wait)
            if due.error:
                raise _Refused(INJECTED[due.error])
            if due.picky and (refusal := check(body, self._catalogue, picky=True)):
                raise _Refused(refusal)
            picked = AUTO_PICKS if request.model == "auto" and AUTO_PICKS in self._catalogue else request.model
            model = self._catalogue[request.model].model
            scene = stage(
                due,
                request,
                model=model,
                picked=picked,
                chunk=self.settings.chunk,
                call_ids=self._call_ids,
                clock=time.monotonic_ns,
            )
            await self._perform(exchange, body, due, scene, rpc=rpc)
        finally:
            self._active -= 1

    async def _perform(self, exchange: Exchange, body: Generate, due: Play, scene: Scene, *, rpc: bool) -> None:
        conversation = body.conversation_state.conversation_id or ""
        headers = [
            (b"content-type", CONTENT_TYPE),
            (b"x-amzn-requestid", next(self._request_ids).encode()),
            (b"x-amzn-codewhisperer-conversation-id", _header(conversation)),
        ]
        await exchange.start(200, headers)
        sender = _Sender(exchange, bytewise=due.chunk == "byte")
        if rpc:
            await sender.send(event_frame("initial-response", _dump({"conversationId": conversation})))
        if due.slow is not None:
            interval = due.slow
        else:
            interval = 1 / self.settings.tokens_per_second if self.settings.tokens_per_second else 0.0
        await trio.sleep(self.settings.first_token_delay)
        beats = scene.beats if scene.breaks is None else scene.beats[: scene.breaks.after]
        await _pace(sender, beats, interval)
        if scene.breaks is None:
            await sender.send(scene.tail)
            await exchange.finish()
            self._answered += 1
            self._credits += scene.credits
            return
        self._broken += 1
        await sender.send(scene.closing)
        if scene.breaks.kind == "stall":
            await trio.sleep_forever()
        elif scene.breaks.kind in ("cut", "reset"):
            exchange.abort()
        else:
            await exchange.finish()

    def _count(self, key: str) -> int:
        self._attempts[key] += 1
        return self._attempts[key]

    def _digest(self, what: str) -> bytes:
        return hashlib.sha256(f"{self.settings.seed}:{what}".encode()).digest()

    # Management (section 6)

    def _list_models(self, grant: Grant, given: Mapping[str, Any]) -> Answer:
        entries = [offer.entry() for offer in self._catalogue.values()]
        size = _whole(given.get("maxResults"), PAGE)
        at = _whole(given.get("nextToken"), 0)
        following = str(at + size) if at + size < len(entries) else None
        default = "auto" if "auto" in self._catalogue else next(iter(self._catalogue))
        return 200, {
            "defaultModel": {"modelId": default},
            "models": entries[at : at + size],
            "nextToken": following,
        }

    def _usage_limits(self, grant: Grant, given: Mapping[str, Any]) -> Answer:
        if grant.free:
            raise _Refused(denied("Operation not supported for this account.", "FEATURE_NOT_SUPPORTED"))
        return 200, usage_limits(grant.name, self._credits, self._now())

    def _list_profiles(self, grant: Grant, given: Mapping[str, Any]) -> Answer:
        if grant.auth == "social" or grant.free:
            raise _Refused(denied("Operation not supported for this account.", "FEATURE_NOT_SUPPORTED"))
        profile = {"arn": grant.profile_arn, "profileName": grant.name, "status": "ACTIVE", "profileType": "KIRO"}
        return 200, {"profiles": [profile], "nextToken": None}


class _Sender:
    """Sends bytes of frames, in buffers or in splinters of three bytes that keep no frame's border."""

    def __init__(self, exchange: Exchange, *, bytewise: bool) -> None:
        self._exchange = exchange
        self._step = BYTEWISE if bytewise else BUFFER

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        for at in range(0, len(data), self._step):
            await self._exchange.send(data[at : at + self._step])


async def _pace(sender: _Sender, beats: Sequence[bytes], interval: float) -> None:
    """Send the beats, the first at once and each other `interval` seconds after the one before it."""
    if not interval:
        await sender.send(b"".join(beats))
        return
    start = trio.current_time()
    sent, count = 0, len(beats)
    while sent < count:
        await trio.sleep_until(start + sent * interval)
        now = trio.current_time()
        due = sent + 1
        while due < count and start + due * interval <= now:
            due += 1
        await sender.send(b"".join(beats[sent:due]))
        sent = due


def _header(text: str) -> bytes:
    """As much of a text as a header takes: it comes from the client, and may hold anything."""
    return "".join(char if " " <= char <= "~" else "?" for char in text[:500]).strip().encode()


def _whole(value: object, default: int) -> int:
    text = str(value)
    return int(text) if text.isdecimal() and len(text) < 9 and int(text) > 0 else default


def _object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        said = json.loads(body)
    except ValueError as error:
        raise MalformedRequest(f"The body is not JSON: {error}") from error
    return said if isinstance(said, dict) else {}


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def word(error: KirostreamError, _: object) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """What the door says of its own errors, in the service's words."""
    status, complaint = complain(error)
    reply = write_complaint(status, Complaint(complaint.code, "", complaint.message))
    return reply.status, list(reply.headers), reply.body


async def serve(
    settings: SimulatorSettings | None = None,
    on_fault: OnFault = log_fault,
    *,
    task_status: trio.TaskStatus[tuple[Simulator, str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a new simulator until cancelled. Reports it and its base URL, without a slash at the end, when it listens.

    Args:
        settings: pace, seed, models, and where it listens.
        on_fault: told of each exception that is a bug.

    Raises:
        SettingsError: the port is taken. The message names it.
    """
    simulator = Simulator(settings)
    listeners = await open_listeners(simulator.settings.host, simulator.settings.port)
    host, port = listeners[0].socket.getsockname()[:2]
    door = Http1Door(simulator, refuse=word, on_fault=on_fault)
    async with trio.open_nursery() as nursery:
        await nursery.start(door.serve, listeners)
        task_status.started((simulator, f"http://{f'[{host}]' if ':' in host else host}:{port}"))
