"""The panel in a real browser: Chromium without a window, driven by Playwright, against `kirostream serve --demo`.

Skipped where Debian's Chromium is not installed (`apt-get install chromium`). What is seen is kept as pictures in
``build/panel``. Every page is watched: no error in its console, nothing that its policy forbids, nobody asked but the
gateway.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from helpers.certs import certificate, trusting

from .conftest import KEY, Running, serving, simulating

sync_api = pytest.importorskip("playwright.sync_api", reason="the dev extra is not installed: playwright is missing")

ROOT: Final = Path(__file__).parents[2]
PICTURES: Final = ROOT / "build" / "panel"
AXE: Final = Path(__file__).parent / "js" / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGES: Final = ("overview", "accounts", "turns", "logs", "usage", "keys", "settings", "setup")
REFUSED: Final = "the server responded with a status of 401"

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A demo with both doors, whose model speaks at the pace of a person who reads."""
    folder = tmp_path_factory.mktemp("panel")
    certfile, keyfile = certificate()
    config = folder / "config" / "kirostream.toml"
    config.parent.mkdir()
    config.write_text(f'[[listen]]\nport = 0\ncertfile = "{certfile}"\nkeyfile = "{keyfile}"\n')
    with serving(folder, KIROSTREAM_SIMULATOR_TOKENS_PER_SECOND="60") as running:
        yield running


@pytest.fixture
def gateway(demo: Running, request: pytest.FixtureRequest) -> Running:
    """The demo, by its first door, or by the one that a test names."""
    return Running(demo.others[0], demo.key) if getattr(request, "param", "http1") == "asgi" else demo


DOORS: Final = pytest.mark.parametrize("gateway", ["http1", "asgi"], indirect=True)
"""HTTP/1.1, and HTTP/2 behind TLS: for whatever logs in, changes something or follows a stream of events."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield found
        found.close()


@dataclass
class Seen:
    """A page, and what it should not have done."""

    page: Any
    url: str
    troubles: list[str] = field(default_factory=list)
    picture: Callable[[str], None] = lambda name: None

    def visit(self, name: str) -> None:
        """Go to a page of the panel."""
        self.page.goto(f"{self.url}/admin#/{name}")
        self.page.locator(f'.nav a[aria-current="page"][data-page="{name}"]').wait_for()
        self.page.locator(".page h1").wait_for()


@contextmanager
def looking(browser: Any, gateway: Running, *, theme: str = "light", forgive: str = "", **more: Any) -> Iterator[Seen]:
    """A new browser profile on the panel's door. `forgive` is what the console may say."""
    how = {"viewport": {"width": 1280, "height": 860}, "color_scheme": theme, "ignore_https_errors": True}
    context = browser.new_context(**how, **more)
    page = context.new_page()
    page.set_default_timeout(15_000)
    seen = Seen(page, gateway.url)

    def told(message: Any) -> None:
        if message.type in ("error", "warning") and not (forgive and forgive in message.text):
            seen.troubles.append(f"console {message.type}: {message.text}")

    page.on("console", told)
    page.on("pageerror", lambda error: seen.troubles.append(f"page error: {error}"))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(gateway.url) else seen.troubles.append(f"asked {asked.url}"),
    )
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.violatedDirective))"
    )
    PICTURES.mkdir(parents=True, exist_ok=True)
    seen.picture = lambda name: page.screenshot(path=str(PICTURES / f"{name}-{theme}.png"))
    page.goto(f"{gateway.url}/admin")
    try:
        yield seen
    finally:
        context.close()
    assert seen.troubles == []


@contextmanager
def operating(browser: Any, gateway: Running, **more: Any) -> Iterator[Seen]:
    """The same, logged in."""
    with looking(browser, gateway, **more) as seen:
        seen.page.fill("input[type=password]", KEY)
        seen.page.keyboard.press("Enter")
        seen.page.locator(".nav").wait_for()
        yield seen


def say(gateway: Running, text: str, **more: Any) -> tuple[int, str]:
    """A turn: its status and body."""
    body = {"model": "claude-sonnet-4.5", "messages": [{"role": "user", "content": text}], **more}
    asked = urllib.request.Request(
        f"{gateway.url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(asked, context=trusting()) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


@contextmanager
def saying(gateway: Running, text: str) -> Iterator[None]:
    """A streamed turn, beside what the block does."""
    thread = threading.Thread(target=say, args=(gateway, text), kwargs={"stream": True})
    thread.start()
    try:
        yield
    finally:
        thread.join()


def expect(found: Any) -> Any:
    return sync_api.expect(found, "")


@DOORS
def test_a_wrong_password_is_told_and_the_right_one_opens(browser: Any, gateway: Running) -> None:
    with looking(browser, gateway, forgive=REFUSED) as seen:
        page = seen.page
        page.fill("input[type=password]", "wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Not accepted.")
        seen.picture("login")
        page.fill("input[type=password]", KEY)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator(".side .light")).to_have_attribute("aria-label", "All is well.")
        expect(page.locator(".mark")).to_have_text("simulated")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Password or admin key")).to_be_focused()


@DOORS
def test_a_session_outlives_a_reload_and_ends_with_it_at_the_gateway(browser: Any, gateway: Running) -> None:
    with operating(browser, gateway, forgive=REFUSED) as seen:
        seen.page.reload()
        seen.page.locator(".nav").wait_for()
        cookies = seen.page.context.cookies()
        assert [(each["httpOnly"], each["sameSite"], each["path"]) for each in cookies] == [(True, "Strict", "/admin")]
        assert cookies[0]["secure"] is gateway.url.startswith("https:")
        assert seen.page.evaluate("document.cookie") == ""
        seen.page.context.clear_cookies()
        expect(seen.page.get_by_role("alert")).to_contain_text("Your session has ended.")


@DOORS
def test_an_account_signs_in_by_device_code_and_another_is_skipped(browser: Any, gateway: Running) -> None:
    with operating(browser, gateway) as seen:
        page = seen.page
        seen.visit("accounts")
        page.get_by_role("button", name="Add account").click()
        page.get_by_role("button", name="Get a code").click()
        code = page.locator("dialog .code")
        expect(code).to_have_text(re.compile(r"[A-Z]{4}-[A-Z]{4}"))
        seen.picture("signing-in")
        link = page.get_by_role("link", name="Open the page").get_attribute("href")
        assert code.inner_text() in link
        with urllib.request.urlopen(f"{link}&as=ann") as opened:  # the person confirms
            assert opened.status == 200
        ann = page.locator(".account", has_text="a***@example.com")
        expect(ann.locator(".pill")).to_have_text("ready")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(ann).to_contain_text("1,100 left")
        simulated = page.locator(".account", has_text="simulator")

        ann.get_by_role("button", name="Test").click()
        expect(ann.get_by_role("status")).to_contain_text("Works:")
        simulated.get_by_role("button", name="Disable").click()
        expect(simulated.locator(".pill")).to_have_text("off")
        before = int(ann.locator(".figures dd").first.inner_text())
        for _ in range(3):
            assert say(gateway, "hello")[0] == 200
        expect(ann.locator(".figures dd").first).to_have_text(str(before + 3))
        seen.picture("accounts-one-off")

        ann.get_by_role("button", name="Disable").click()
        expect(ann.locator(".pill")).to_have_text("off")
        assert say(gateway, "hello")[0] == 503
        expect(page.locator(".side .light.bad")).to_have_count(1)
        for card in (simulated, ann):
            card.get_by_role("button", name="Enable").click()
            expect(card.locator(".pill")).to_have_text("ready")
        assert say(gateway, "hello")[0] == 200

        ann.get_by_role("button", name="Remove").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(page.locator(".account")).to_have_count(1)


@DOORS
def test_a_turn_is_seen_as_it_is_said(browser: Any, gateway: Running) -> None:
    with operating(browser, gateway) as seen:
        page = seen.page
        seen.visit("turns")
        with saying(gateway, "Tell me something about rivers, seas and the rain between them. " * 3):
            expect(page.locator("tr[aria-selected=true] .pill")).to_have_text("answering")
            speech = page.locator(".speech .text")
            expect(speech).to_contain_text("You wrote")
            early = len(speech.inner_text())
            expect(speech).to_contain_text("kirostream's simulator")
            assert page.locator(".speech .live").count() == 1, "it goes on"
            seen.picture("turns")
        expect(page.locator("tr[aria-selected=true] .pill")).to_have_text("done")
        assert len(speech.inner_text()) > early
        expect(page.locator(".speech .live")).to_have_count(0)

        with saying(gateway, "[[tool:get_weather]] and more, at length, so that there is time to end it. " * 30):
            page.locator("tr", has_text="answering").get_by_role("button").click()
            page.get_by_role("button", name="End this turn").click()
        expect(page.locator("tr[aria-selected=true] .pill")).to_have_text("failed")
        expect(page.locator(".speech")).to_contain_text("cancelled")


@DOORS
def test_the_log_is_filtered_held_and_cleared(browser: Any, gateway: Running) -> None:
    with operating(browser, gateway) as seen:
        page = seen.page
        seen.visit("logs")
        lines = page.locator(".log > div")
        expect(lines.filter(has_text="service changed")).not_to_have_count(0)
        say(gateway, "[[error:VALIDATION]] hello")
        expect(lines.filter(has_text="attempt failed")).not_to_have_count(0)
        seen.picture("logs")
        page.get_by_role("button", name="warnings").click()
        expect(page.locator('.log > div[data-level="info"]')).to_have_count(0)
        expect(lines.filter(has_text="attempt failed")).not_to_have_count(0)
        page.get_by_role("button", name="info").click()
        page.get_by_label("Search the log").fill("turn finished")
        expect(lines.filter(has_text="attempt failed")).to_have_count(0)
        expect(lines.filter(has_text="turn finished")).not_to_have_count(0)
        page.get_by_role("button", name="Pause").click()
        there = lines.count()
        say(gateway, "hello")
        expect(page.get_by_text("1 new lines are held back.")).to_be_visible()
        assert lines.count() == there
        page.get_by_role("button", name="Go on").click()
        expect(lines).to_have_count(there + 1)
        page.get_by_role("button", name="Clear view").click()
        expect(lines).to_have_count(0)
        with page.expect_download() as saved:
            page.get_by_role("link", name="Export").click()
        text = Path(saved.value.path()).read_text()
        assert {json.loads(line)["event"] for line in text.splitlines()} == {"turn finished"}


def test_debug_captures_are_switched_on_and_downloaded(browser: Any, gateway: Running) -> None:
    with operating(browser, gateway) as seen:
        page = seen.page
        seen.visit("logs")
        card = page.get_by_role("region", name="Debug captures")
        card.get_by_role("button", name="failed").click()
        expect(page.get_by_text("relay.captures.mode acts now.")).to_be_visible()
        say(gateway, "hello")
        say(gateway, "[[error:CONTEXT]] what I said")
        seen.visit("overview")
        seen.visit("logs")
        expect(card.get_by_role("button", name="failed")).to_have_attribute("aria-pressed", "true")
        seen.picture("captures")
        with page.expect_download() as saved:
            card.get_by_role("link", name="Download").click()
        kept = json.loads(Path(saved.value.path()).read_text())["captures"]
        exchanges = [each["capture"] for each in kept if each["capture"]["kind"] == "exchange"]
        assert ["what I said" in json.dumps(each["asked"]["body"]) for each in exchanges] == [True]
        card.get_by_role("button", name="Delete all").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete all").click()
        expect(card).to_contain_text("0 captures are kept.")
        card.get_by_role("button", name="off").click()
        expect(card.get_by_role("button", name="off")).to_have_attribute("aria-pressed", "true")


@DOORS
def test_a_setting_is_changed_and_acts(browser: Any, gateway: Running) -> None:
    with operating(browser, gateway, forgive="status of 400") as seen:
        page = seen.page
        seen.visit("settings")
        page.get_by_label("Search settings").fill("most_choices")
        setting = page.locator('[data-setting="server.most_choices"]')
        expect(page.locator(".setting")).to_have_count(1)
        box = setting.get_by_label("most_choices")
        box.fill("many")
        box.press("Enter")
        expect(setting.get_by_role("alert")).to_contain_text("server.most_choices")
        seen.picture("settings-refused")
        box.fill("2")
        setting.get_by_role("button", name="Save").click()
        expect(page.get_by_text("server.most_choices acts now.")).to_be_visible()
        status, body = say(gateway, "hello", n=3)
        assert (status, "at most 2 answers" in body) == (400, True)
        expect(setting).to_contain_text("kirostream.toml")
        setting.get_by_role("button", name="Default").click()
        expect(box).to_have_value("8")
        assert say(gateway, "hello", n=3)[0] == 200
        page.get_by_label("Search settings").fill("server.memory")
        memory = page.locator('[data-setting="server.memory"]')
        memory.get_by_label("memory").fill("1000000")
        memory.get_by_label("memory").press("Enter")
        expect(memory).to_contain_text("waits for a restart")


@DOORS
def test_a_key_is_given_out_and_taken_back(browser: Any, gateway: Running) -> None:
    with operating(browser, gateway) as seen:
        page = seen.page
        seen.visit("keys")
        page.get_by_role("button", name="New key").click()
        form = page.get_by_role("dialog")
        form.get_by_label("Name").fill("laptop")
        form.get_by_label("Requests a minute").fill("1")
        seen.picture("key-new")
        form.get_by_role("button", name="New key").click()
        secret = page.locator("dialog .snippet code").inner_text()
        laptop = Running(gateway.url, secret)
        assert say(laptop, "hello")[0] == 200
        assert say(laptop, "hello")[0] == 429
        page.get_by_role("button", name="I have it").click()
        row = page.locator('tr[data-key="laptop"]')
        expect(row).to_contain_text("1 requests/min")
        seen.picture("keys-given")
        row.get_by_role("button", name="Edit").click()
        form.get_by_label("Requests a minute").fill("0")
        form.get_by_role("button", name="Save").click()
        expect(row).to_contain_text("no limit")
        assert say(laptop, "hello")[0] == 200
        row.get_by_role("button", name="Disable").click()
        expect(row).to_contain_text("off")
        assert say(laptop, "hello")[0] == 401
        row.get_by_role("button", name="Remove").click()
        form.get_by_role("button", name="Remove").click()
        expect(row).to_have_count(0)


def test_the_simulator_is_switched_on_and_off(browser: Any, tmp_path: Path) -> None:
    """A gateway whose service is another simulator, which says how often it was asked."""
    token = "aor-panel-" + "0" * 120
    service, folder = tmp_path / "service", tmp_path / "gateway"
    for each in (service, folder):
        each.mkdir()
    with (
        simulating(service, KIROSTREAM_SIMULATOR_REFRESH_TOKEN=token) as url,
        serving(
            folder,
            "--key",
            KEY,
            REFRESH_TOKEN=token,
            KIROSTREAM_KIRO_ENDPOINT=url,
            KIROSTREAM_KEEPER_HOSTS_SOCIAL=url,
            KIROSTREAM_SIMULATOR_PLAIN_REPLY="from the stand-in",
        ) as gateway,
        operating(browser, gateway) as seen,
    ):
        page = seen.page
        mark = page.locator(".mark")
        assert "from the stand-in" not in say(gateway, "hello")[1]
        seen.visit("overview")
        expect(page.get_by_role("button", name="Ask the simulator")).to_be_visible()
        expect(mark).to_be_hidden()
        page.get_by_role("button", name="Ask the simulator").click()
        form = page.get_by_role("dialog")
        expect(form).to_contain_text("an account of its own")
        form.get_by_role("button", name="Ask the simulator").click()
        expect(page.get_by_text("The simulator is asked now.")).to_be_visible()
        expect(mark).to_be_visible()
        expect(page.locator(".notice")).to_contain_text("not of the service")
        seen.picture("simulated")
        assert "from the stand-in" in say(gateway, "hello")[1]
        seen.visit("turns")
        expect(mark).to_be_visible()
        expect(page.locator(".watch .facts")).to_contain_text("simulator")
        mark.click()
        page.get_by_role("button", name="Ask the service again").click()
        expect(mark).to_be_hidden()
        expect(page.get_by_role("button", name="Ask the simulator")).to_be_visible()
        assert "from the stand-in" not in say(gateway, "hello")[1]


def test_what_turns_cost(browser: Any, gateway: Running) -> None:
    say(gateway, "hello")
    with operating(browser, gateway) as seen:
        page = seen.page
        seen.visit("usage")
        rows = page.get_by_role("region", name="By").locator("tbody tr")
        expect(rows.filter(has_text="claude-sonnet-4.5")).to_have_count(1)
        page.get_by_role("group", name="By").get_by_role("button", name="Key").click()
        expect(rows).to_contain_text(["default"])
        page.get_by_role("button", name="Tokens").click()
        expect(page.get_by_role("img", name=re.compile("^Tokens: "))).to_be_visible()
        rows.get_by_role("button", name="default").click()
        expect(page.get_by_role("button", name="Show all again")).to_be_visible()
        seen.picture("usage")
        with page.expect_download() as saved:
            page.get_by_role("link", name="CSV").click()
        assert Path(saved.value.path()).read_text().startswith("number,at,turn,")


def test_what_to_paste_is_copied(browser: Any, gateway: Running) -> None:
    with operating(browser, gateway, permissions=["clipboard-read", "clipboard-write"]) as seen:
        page = seen.page
        seen.visit("setup")
        for tool in ("Claude Code", "Codex", "OpenCode", "Cline", "Continue", "curl"):
            page.get_by_role("button", name=tool, exact=True).click()
            page.locator(".snippet").first.get_by_role("button").click()
            expect(page.get_by_text("Copied.").last).to_be_visible()
            text = page.evaluate("navigator.clipboard.readText()")
            assert gateway.url in text, tool
            if tool == "curl":
                done = subprocess.run(
                    ["sh", "-c", text.replace("YOUR_KEY", KEY)], capture_output=True, text=True, timeout=20, check=False
                )
                assert "message_stop" in done.stdout, done.stderr


def test_it_is_operated_by_keys_alone(browser: Any, gateway: Running) -> None:
    with operating(browser, gateway) as seen:
        page = seen.page
        page.reload()
        page.locator(".nav").wait_for()
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        page.locator(".nav a", has_text="Accounts").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".page h1")).to_have_text("Accounts")
        page.get_by_role("button", name="Add account").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("button", name="Add account")).to_be_focused()


def test_it_speaks_chinese_and_remembers(browser: Any, gateway: Running) -> None:
    with operating(browser, gateway, theme="dark", locale="zh-CN") as seen:
        page = seen.page
        assert page.locator("html").get_attribute("lang") == "zh-CN"
        assert page.locator("html").get_attribute("data-theme") == "dark"
        for name in PAGES:
            seen.visit(name)
            page.wait_for_timeout(250)
            left = page.evaluate("document.body.innerText.match(/\\b(undefined|NaN|null|\\[object)\\b/)")
            assert left is None, (name, left)
            seen.picture(f"chinese-{name}")
        page.get_by_role("button", name="English").click()
        expect(page.locator(".nav a").first).to_have_text("Overview")
        page.get_by_role("button", name="Light").click()
        page.reload()
        expect(page.locator(".nav a").first).to_have_text("Overview")
        assert page.locator("html").get_attribute("data-theme") == "light"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_use_it(browser: Any, gateway: Running, theme: str) -> None:
    """axe-core finds nothing serious, on any page, in either theme, in wide and narrow windows."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: `make js` installs it")
    rules = AXE.read_text()
    say(gateway, "hello")
    found: dict[str, list[str]] = {}

    def check(page: Any, name: str) -> None:
        page.evaluate(rules)
        said = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        for each in said["violations"]:
            if each["impact"] in ("serious", "critical"):
                found.setdefault(name, []).append(f"{each['id']}: {[node['html'][:120] for node in each['nodes'][:3]]}")

    with looking(browser, gateway, theme=theme) as seen:
        check(seen.page, "login")
    with operating(browser, gateway, theme=theme) as seen:
        for name in PAGES:
            seen.visit(name)
            seen.page.wait_for_timeout(500)
            check(seen.page, name)
            seen.picture(name)
        seen.visit("accounts")
        seen.page.get_by_role("button", name="Add account").click()
        check(seen.page, "dialog")
        seen.page.keyboard.press("Escape")
        seen.page.set_viewport_size({"width": 420, "height": 800})
        check(seen.page, "narrow")
        wide = seen.page.evaluate("document.documentElement.scrollWidth")
        seen.picture("narrow")
        assert wide <= 420, "nothing sticks out of a narrow window"
    assert found == {}
