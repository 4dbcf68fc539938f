"""Every way to sign in, from the first request to the credential, against the simulator."""

from __future__ import annotations

import itertools
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
import trio.testing

from helpers.cancel import every_checkpoint
from helpers.signin import HOSTS, Person, Service, get, signing_in
from helpers.tokens import NOW
from kirostream.accounts.account import AuthMethod, Credential, Secret
from kirostream.accounts.login import Task, builder_id, identity_center, social
from kirostream.accounts.login_settings import LoginSettings
from kirostream.accounts.oidc import AuthRequest, Headers, read_refresh, refresh_request
from kirostream.errors import (
    AccessDenied,
    CredentialRejected,
    SettingsError,
    UpstreamDown,
    UpstreamFault,
    UpstreamTimeout,
)
from kirostream.simulator.signin import UNENTITLED

COMPANY = "https://d-1234567890.awsapps.com/start"
DEVICE_TEMPLATES = [
    pytest.param(builder_id(), id="builder-id"),
    pytest.param(identity_center(COMPANY, "eu-west-1"), id="identity-center"),
    pytest.param(social("google"), id="google"),
    pytest.param(social("GitHub"), id="github"),
]


async def refreshed(service: Service, credential: Credential) -> Credential:
    """The credential after a refresh: the proof that what was stored works as one unit."""
    asked = refresh_request(credential, HOSTS, user_agent="test")
    assert isinstance(asked, AuthRequest)
    answer = read_refresh(credential, *await service.post("POST", asked.url, asked.headers, asked.body), NOW)
    assert isinstance(answer, Credential), answer
    return answer


# -- by device code


@pytest.mark.parametrize("template", DEVICE_TEMPLATES)
async def test_a_device_code(autojump_clock: trio.testing.MockClock, template: Credential) -> None:
    service, person = Service(), Person()
    person.confirms(service, after=20)
    credential = await signing_in(service, person).by_device_code(template)
    (task,) = person.tasks
    assert (task.pasteable, task.expires_in) == (False, 600)
    assert task.code in task.url
    assert (credential.auth, credential.provider, credential.region) == (
        template.auth,
        template.provider,
        template.region,
    )
    assert credential.start_url == template.start_url
    assert credential.expires_at is not None
    assert NOW + 3600 <= credential.expires_at <= NOW + 3600 + 25
    if template.auth is AuthMethod.IDC:
        assert credential.client_id
        assert credential.client_secret
        assert credential.registration_expires_at == pytest.approx(NOW + 90 * 86400, abs=5)
    else:
        assert credential.profile_arn.startswith("arn:aws:codewhisperer:")
    assert person.left[:3] == [600, 599, 598]
    assert "aor" not in repr(credential)
    await refreshed(service, credential)


async def test_the_pace_is_the_services(autojump_clock: trio.testing.MockClock) -> None:
    """One question a second; ``slow_down`` makes every later pause five seconds longer."""
    service, person = Service(), Person()
    service.simulator.sign_ins.faults.extend(["slow_down"])
    person.confirms(service, after=10)
    await signing_in(service, person).by_device_code(builder_id())
    assert [round(at) for at, path in service.asked if path == "/token"] == [1, 7, 13]


@pytest.mark.parametrize("template", DEVICE_TEMPLATES)
async def test_a_code_that_nobody_confirms_expires(
    autojump_clock: trio.testing.MockClock, template: Credential
) -> None:
    service, person = Service(), Person()
    start = trio.current_time()
    with pytest.raises(CredentialRejected) as caught:
        await signing_in(service, person).by_device_code(template)
    assert caught.value.reason == "expired_token"
    assert "kirostream login" in caught.value.message
    assert trio.current_time() - start == pytest.approx(600, abs=1)


async def test_the_service_may_end_a_code_early(autojump_clock: trio.testing.MockClock) -> None:
    service, person = Service(), Person()
    service.simulator.sign_ins.faults.extend(["expired_token"])
    with pytest.raises(CredentialRejected, match="has expired before it was confirmed"):
        await signing_in(service, person).by_device_code(social("google"))


@pytest.mark.parametrize("template", DEVICE_TEMPLATES)
async def test_a_person_may_refuse(autojump_clock: trio.testing.MockClock, template: Credential) -> None:
    service, person = Service(), Person()
    person.confirms(service, after=3, deny=True)
    with pytest.raises(CredentialRejected, match="was refused on the page") as caught:
        await signing_in(service, person).by_device_code(template)
    assert caught.value.reason == "access_denied"


@pytest.mark.parametrize("skew", [-7200.0, 7200.0])
@pytest.mark.parametrize("template", DEVICE_TEMPLATES)
async def test_clocks_that_differ_change_nothing(
    autojump_clock: trio.testing.MockClock, template: Credential, skew: float
) -> None:
    service, person = Service(skew=skew), Person()
    person.confirms(service, after=30)
    credential = await signing_in(service, person).by_device_code(template)
    assert credential.expires_at == pytest.approx(NOW + 3630, abs=5)
    assert (await refreshed(service, credential)).access_token != credential.access_token


async def test_a_lost_network_is_waited_for_while_the_code_lasts(autojump_clock: trio.testing.MockClock) -> None:
    service, person = Service(), Person()
    down = UpstreamDown("Cannot connect to sim: no route.")
    service.failures = [None, None, None, *[down] * 5]
    service.simulator.sign_ins.faults.extend(["internal"])
    person.confirms(service, after=60)
    await signing_in(service, person).by_device_code(builder_id())
    assert person.troubles == ["HTTP 500, server_error: Internal error", "Cannot connect to sim: no route."]
    polls = [at for at, path in service.asked if path == "/token"]
    pauses = [round(after - before) for before, after in itertools.pairwise(polls)]
    assert pauses == [2, 4, 8, 16, 32, 60]  # longer and longer, to a minute


async def test_a_network_that_stays_away_ends_with_the_code(autojump_clock: trio.testing.MockClock) -> None:
    service, person = Service(), Person()
    service.failures = [None, None, *[UpstreamDown("no route")] * 100]
    start = trio.current_time()
    with pytest.raises(CredentialRejected, match="within 10 minutes"):
        await signing_in(service, person).by_device_code(builder_id())
    assert trio.current_time() - start == pytest.approx(600, abs=1)


async def test_a_network_that_comes_back_at_the_end_is_in_time(autojump_clock: trio.testing.MockClock) -> None:
    service, person = Service(), Person()
    service.down = (20, 598)
    person.confirms(service, after=500)
    await refreshed(service, await signing_in(service, person).by_device_code(builder_id()))


async def test_without_a_network_a_sign_in_does_not_begin(autojump_clock: trio.testing.MockClock) -> None:
    service, person = Service(), Person()
    service.failures = [UpstreamDown("Cannot connect to sim: no route.")]
    with pytest.raises(UpstreamDown, match="no route"):
        await signing_in(service, person).by_device_code(builder_id())
    assert person.tasks == []


async def test_an_organisation_without_a_subscription(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(AccessDenied, match="has no subscription to Kiro"):
        await signing_in(Service(), Person()).by_device_code(identity_center(UNENTITLED, "us-east-1"))


async def test_a_service_that_answers_nonsense(autojump_clock: trio.testing.MockClock) -> None:
    class Portal(Service):
        async def post(self, method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
            return 200, b"<html>Please accept our terms"

    service = Portal()
    for template in (builder_id(), social("google")):
        with pytest.raises(UpstreamFault, match="answered without"):
            await signing_in(service, Person()).by_device_code(template)


async def test_a_service_that_does_not_answer(autojump_clock: trio.testing.MockClock) -> None:
    class Silent(Service):
        async def post(self, method: str, url: str, headers: Headers, body: bytes) -> tuple[int, bytes]:
            await trio.sleep_forever()
            raise AssertionError

    service = Silent()
    with pytest.raises(UpstreamTimeout, match="sim did not answer in 30 s"):
        await signing_in(service, Person()).by_device_code(builder_id())


async def test_a_sign_in_may_be_cancelled_anywhere(autojump_clock: trio.testing.MockClock) -> None:
    """It leaves nothing behind, and can be begun again."""
    for cut in every_checkpoint():
        service, person = Service(), Person()
        person.confirms(service)
        login = signing_in(service, person)

        async def whole() -> None:
            await login.by_device_code(builder_id())  # noqa: B023

        await cut.run(whole)
        again = Person().confirms(service)
        await refreshed(service, await signing_in(service, again).by_device_code(builder_id()))


# -- by browser


class Browser(Person):
    """Opens the page in a browser of this machine, or of another one."""

    def goes_to(self, service: Service, more: str = "", *, here: bool = True) -> Browser:
        def on_show(task: Task) -> None:
            trio.lowlevel.spawn_system_task(self._go, service, task.url + more, here)

        self.on_show = on_show
        return self

    async def _go(self, service: Service, url: str, here: bool) -> None:
        to = await service.visit(url)
        assert to, "the page was not in order"
        if here:
            self.pages.append(await get(to))
        else:
            self.clipboard.append(to)

    pages: list[tuple[int, str]]

    def __init__(self) -> None:
        super().__init__()
        self.pages = []


BROWSER_TEMPLATES = [DEVICE_TEMPLATES[0], DEVICE_TEMPLATES[1], DEVICE_TEMPLATES[2]]


@pytest.mark.parametrize("template", BROWSER_TEMPLATES)
async def test_a_browser_of_this_machine(template: Credential) -> None:
    service, browser = Service(), Browser()
    browser.goes_to(service, "&as=bob")
    credential = await signing_in(service, browser).by_browser(template)
    assert credential.auth is template.auth
    assert credential.provider == template.provider
    assert [(status, "Signed in" in page) for status, page in browser.pages] == [(200, True)]
    await refreshed(service, credential)


@pytest.mark.parametrize("template", BROWSER_TEMPLATES)
async def test_a_browser_of_another_machine(template: Credential) -> None:
    service, browser = Service(), Browser()
    browser.clipboard = ["", "https://example.com/?code=1", "what do you want?"]
    browser.goes_to(service, here=False)
    credential = await signing_in(service, browser).by_browser(template)
    assert len(browser.complaints) == 3
    assert all("Paste the whole address" in said for said in browser.complaints)
    await refreshed(service, credential)


async def test_the_page_of_oidc_is_asked_as_documented(autojump_clock: trio.testing.MockClock) -> None:
    service, browser = Service(), Browser()
    login = signing_in(service, browser, LoginSettings(callback_deadline=1))
    with pytest.raises(CredentialRejected, match="not confirmed"):
        await login.by_browser(builder_id())
    url = urlsplit(browser.tasks[0].url)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert url.path == "/authorize"
    assert query["scopes"].split(" ")[0] == "codewhisperer:completions"
    assert "+" not in url.query
    assert query["code_challenge_method"] == "S256"
    assert query["redirect_uri"].startswith("http://127.0.0.1:")
    assert query["redirect_uri"].endswith("/oauth/callback")


async def test_a_foreign_visit_does_not_end_the_sign_in() -> None:
    """Any page may call an address of this machine: without the state it is nobody's answer."""
    service, browser = Service(), Browser()

    def on_show(task: Task) -> None:
        trio.lowlevel.spawn_system_task(visits, task)

    async def visits(task: Task) -> None:
        callback = parse_qs(urlsplit(task.url).query)["redirect_uri"][0]
        for query in ("?code=stolen&state=wrong", "?error=access_denied", "", "?state=&code=x"):
            status, _ = await get(callback + query)
            assert status == 400
        await get(await service.visit(task.url))

    browser.on_show = on_show
    credential = await signing_in(service, browser).by_browser(builder_id())
    await refreshed(service, credential)


async def test_a_refusal_in_the_browser() -> None:
    service, browser = Service(), Browser()
    browser.goes_to(service, "&deny=1")
    with pytest.raises(CredentialRejected, match="was refused on the page"):
        await signing_in(service, browser).by_browser(social("google"))
    assert "The person said no" in browser.pages[0][1]


async def test_a_code_is_sent_again_where_the_connection_fails() -> None:
    service, browser = Service(), Browser()
    service.failures = [UpstreamDown("reset")]
    browser.goes_to(service)
    credential = await signing_in(service, browser).by_browser(social("google"))
    await refreshed(service, credential)


async def test_a_page_that_nobody_opens(autojump_clock: trio.testing.MockClock) -> None:
    service, person = Service(), Person()
    with pytest.raises(CredentialRejected, match="within 1 minutes") as caught:
        await signing_in(service, person, LoginSettings(callback_deadline=60)).by_browser(social("github"))
    assert caught.value.reason == "expired_token"


async def test_a_taken_port_is_named() -> None:
    (taken,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with taken:
        port = taken.socket.getsockname()[1]
        login = signing_in(Service(), Person(), LoginSettings(callback_port=port))
        with pytest.raises(SettingsError, match=str(port)):
            await login.by_browser(social("google"))


# -- what people ask for


@pytest.mark.parametrize("url", ["http://d-1.awsapps.com/start", "d-1.awsapps.com", "https://", "https://a\nb"])
def test_a_start_url_that_is_none(url: str) -> None:
    with pytest.raises(SettingsError, match="start URL"):
        identity_center(url, "us-east-1")


def test_a_region_that_is_none() -> None:
    with pytest.raises(SettingsError, match="AWS region"):
        identity_center(COMPANY, "evil.example.com/")


def test_a_provider_that_is_none() -> None:
    with pytest.raises(SettingsError, match="google or github"):
        social("facebook")


def test_a_start_url_as_people_copy_it() -> None:
    assert identity_center(f" {COMPANY}/#/ ", "us-east-1").start_url == COMPANY
    assert identity_center("https://view.awsapps.com/start/", "eu-west-1") == builder_id()


def test_secrets_do_not_show() -> None:
    assert "s3cret" not in repr(Credential(auth=AuthMethod.IDC, client_secret=Secret("s3cret")))
