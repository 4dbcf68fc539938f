"""Asking the simulated service about accounts."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import trio
import trio.testing

from helpers.simulated import FakeExchange
from kirostream.accounts.account import Account, AccountId, AuthMethod, Secret, Token
from kirostream.accounts.keeper import KeeperSettings, TokenKeeper
from kirostream.accounts.oidc import AuthHosts
from kirostream.accounts.sources.direct import DirectSource
from kirostream.errors import CredentialRejected, UpstreamDown, UpstreamTimeout
from kirostream.net.exchange import Headers, HttpRequest
from kirostream.providers.kiro import KiroProvider
from kirostream.relay.management import Management, with_token
from kirostream.simulator.oidc import Auth
from kirostream.simulator.upstream import Simulator


class Client:
    """Takes every URL to the simulator. `before` may answer, or fail, in its place."""

    def __init__(self, before: Callable[[str], tuple[int, bytes] | None] = lambda url: None) -> None:
        self.simulator = Simulator(now=lambda: 1_767_225_600.0)
        self.before = before
        self.urls: list[str] = []

    async def fetch(self, method: str, url: str, headers: Headers, content: bytes = b"") -> tuple[int, Headers, bytes]:
        await trio.lowlevel.checkpoint()
        self.urls.append(url)
        if (answer := self.before(url)) is not None:
            return answer[0], (), answer[1]
        parts = urlsplit(url)
        exchange = FakeExchange(HttpRequest(method, parts.path, parts.query, headers), content)
        await self.simulator(exchange)
        return exchange.status, tuple(exchange.headers.items()), exchange.answer

    def signed_in(self, auth: Auth = "social") -> tuple[Account, Token]:
        credential = self.simulator.credential("ann", auth)
        account = Account(id=AccountId("a"), label="ann", auth=credential.auth, machine_id="ab" * 32)
        assert credential.expires_at is not None
        return account, Token(credential.access_token, credential.expires_at, "", account.id)


async def test_usage_and_plans() -> None:
    client = Client()
    who = client.signed_in()
    management = Management(KiroProvider(), client)
    usage = await management.usage(*who)
    assert (usage.plan, usage.limit, usage.user_id) == ("KIRO PRO", 1100, "d-simulated.ann")
    assert usage.resets_at == 1_769_904_000
    assert [plan.name for plan in await management.plans(*who)][:2] == ["KIRO_FREE", "KIRO_PRO"]
    page = await management.checkout(*who, "Q_DEVELOPER_STANDALONE_PRO")
    assert page.url.startswith("https://checkout.simulated.invalid/")


async def test_an_account_without_such_an_answer_is_unknown_and_not_exhausted() -> None:
    client = Client(
        lambda url: (403, b'{"__type":"AccessDeniedException","reason":"FEATURE_NOT_SUPPORTED","message":"no"}')
    )
    usage = await Management(KiroProvider(), client).usage(*client.signed_in())
    assert usage.allowances == ()
    assert not usage.exhausted


DENIED = (403, b'{"__type":"AccessDeniedException","message":"User is not authorized"}')


@pytest.mark.parametrize("refusing", ["us-east-1", "eu-central-1", "none"])
async def test_a_profile_is_looked_for_in_both_regions(refusing: str) -> None:
    """A refusal by one of them is not final."""
    client = Client(lambda url: DENIED if f"q.{refusing}." in url else None)
    account, token = client.signed_in("idc")
    arn = await Management(KiroProvider(), client).profile(account, token)
    assert arn.startswith("arn:aws:codewhisperer:us-east-1:111122223333:profile/")
    assert {urlsplit(url).netloc for url in client.urls} == {
        "q.us-east-1.amazonaws.com",
        "q.eu-central-1.amazonaws.com",
    }


async def test_no_profile_anywhere_is_an_answer_and_no_answer_is_an_error() -> None:
    client = Client(lambda url: DENIED)
    assert await Management(KiroProvider(), client).profile(*client.signed_in("idc")) == ""

    def down(url: str) -> None:
        raise UpstreamDown("no route")

    client.before = down
    with pytest.raises(UpstreamDown, match="no route"):
        await Management(KiroProvider(), client).profile(*client.signed_in("idc"))


async def test_pages_of_profiles() -> None:
    pages = iter([b'{"profiles":[],"nextToken":"2"}', b'{"profiles":[{"arn":"arn:x"}]}'])
    client = Client(lambda url: (200, next(pages)) if "us-east-1" in url else DENIED)
    assert await Management(KiroProvider(), client).profile(*client.signed_in("idc")) == "arn:x"


async def test_a_service_that_does_not_answer(autojump_clock: trio.testing.MockClock) -> None:
    class Silent(Client):
        async def fetch(
            self, method: str, url: str, headers: Headers, content: bytes = b""
        ) -> tuple[int, Headers, bytes]:
            await trio.sleep_forever()
            raise AssertionError

    client = Silent()
    with pytest.raises(UpstreamTimeout, match="20 s"):
        await Management(KiroProvider(), client).usage(*client.signed_in())


async def test_a_token_that_is_refused_is_renewed_once(nursery: trio.Nursery) -> None:
    client = Client()
    management = Management(KiroProvider(), client)
    credential = client.simulator.credential("ann")
    account = Account(id=AccountId("a"), label="ann", auth=AuthMethod.SOCIAL, machine_id="ab" * 32)

    async def post(method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
        status, _, answer = await client.fetch(method, url, headers, body)
        return status, answer

    settings = KeeperSettings(hosts=AuthHosts(social="http://sim"))
    keeper = TokenKeeper(post, settings, time_source=lambda: 1_767_225_600.0)
    keeper.add(account, DirectSource(credential), credential)
    await nursery.start(keeper.run)
    client.simulator.revoke_access_tokens()
    assert (await with_token(keeper, account, management.usage)).plan == "KIRO PRO"
    assert sum("/refreshToken" in url for url in client.urls) == 1
    client.before = lambda url: (
        None
        if "refresh" in url
        else (
            403,
            b'{"message":"The bearer token included in the request is invalid."}',
        )
    )
    with pytest.raises(CredentialRejected):
        await with_token(keeper, account, management.usage)


def test_secrets_do_not_show() -> None:
    assert "SECRET" not in repr(Token(Secret("SECRET"), 0.0, "", AccountId("a")))
