"""The admin API over a running gateway: who may ask, what it says, and that its table says what is served."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
import trio

from helpers.operating import KEY, Place, place
from kirostream.accounts.formats import FORMATS
from kirostream.accounts.health import State
from kirostream.admin.pages.accounts import Import, StateName
from kirostream.admin.password import PasswordFile, hashed
from kirostream.admin.settings import AdminSettings
from kirostream.telemetry.facts import Faulted
from kirostream.telemetry.recent import Recent
from kirostream.turn.events import BlockDelta, TurnEnded
from kirostream.turn.wire import load

DOORS = pytest.mark.parametrize("tls", [False, True], ids=["http1", "asgi over TLS"])


async def operations(at: Place) -> list[tuple[str, str]]:
    paths = (await at.get("/admin/api/openapi.json"))["paths"]
    return [(method.upper(), re.sub(r"{\w+}", "some-id", path)) for path, each in paths.items() for method in each]


@DOORS
async def test_nothing_is_told_to_who_has_no_key(tmp_path: Path, tls: bool) -> None:
    async with place(tmp_path, tls=tls) as at:
        every = await operations(at)
        assert len(every) > 25
        for method, path in [
            *every,
            ("GET", "/admin/api/nothing"),
            ("PATCH", "/admin/api/status"),
            ("GET", "/admin/x"),
        ]:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}, {"cookie": "kirostream=1"}):
                answer = await at.client.request(method, path, headers=headers)
                assert answer.status_code in (401, 429), (method, path, answer.text)
                assert answer.headers["content-type"] == "application/json"
                assert set(answer.json()["error"]) == {"type", "message", "next", "param"}
                assert ("retry-after" in answer.headers) is (answer.status_code == 429)
                if (method, path) != ("POST", "/admin/api/session"):
                    assert answer.status_code == 401
                    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_page_logs_in_and_changes_something(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        entered = await at.client.post("/admin/api/session", json={"password": KEY})
        assert entered.status_code == 200, entered.text
        csrf = entered.json()["csrf"]
        shown = await at.client.get("/admin/api/session")
        assert shown.json() | {"expires_in": None} == entered.json() | {"expires_in": None}
        account = (await at.client.get("/admin/api/accounts")).json()["accounts"][0]["id"]
        change = f"/admin/api/accounts/{account}/disable"
        refused = await at.client.post(change)
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "forbidden")
        done = await at.client.post(change, headers={"x-csrf-token": csrf})
        assert (done.status_code, done.json()["state"]) == (200, "disabled")
        assert (await at.client.delete("/admin/api/session", headers={"x-csrf-token": csrf})).status_code == 204
        assert (await at.client.get("/admin/api/session")).status_code == 401


async def test_the_cookie_of_tls_is_for_tls(tmp_path: Path) -> None:
    async with place(tmp_path, tls=True) as at:
        entered = await at.client.post("/admin/api/session", json={"password": KEY})
        assert entered.headers["set-cookie"].endswith("; Secure")
        assert (await at.client.get("/admin/api/status")).status_code == 200


@DOORS
async def test_how_the_gateway_is(tmp_path: Path, tls: bool) -> None:
    async with place(tmp_path, tls=tls) as at:
        status = await at.get("/admin/api/status")
        assert (status["status"], status["reasons"], status["accounts"]) == ("healthy", [], {"ready": 1})
        assert status["demo"]
        assert (await at.say("hello")).status_code == 200
        stats = await at.get("/admin/api/stats")
        assert (stats["totals"]["turns"], stats["totals"]["answered"], stats["totals"]["failed"]) == (1, 1, 0)
        assert stats["totals"]["output_tokens"] > 0
        assert len(stats["minutes"]) == 60
        assert sum(minute["turns"] for minute in stats["minutes"]) == 1
        assert (await at.get("/admin/stats"))["minutes"] == stats["minutes"]
        health = await at.get("/v0/management/usage")
        assert (health["status"], health["total_requests"], health["failure_count"]) == ("healthy", 1, 0)
        assert health["total_tokens"] > 0


async def test_the_light_goes_red_without_accounts(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        account = (await at.get("/admin/api/accounts"))["accounts"][0]
        await at.ask("POST", f"/admin/api/accounts/{account['id']}/disable")
        status = await at.get("/admin/api/status")
        assert (status["status"], status["reasons"][0]["code"]) == ("unhealthy", "no_account")
        assert (await at.say("hello")).status_code == 503
        await at.ask("POST", f"/admin/api/accounts/{account['id']}/enable")
        assert (await at.get("/admin/api/status"))["status"] == "healthy"
        assert (await at.say("hello")).status_code == 200


def test_the_formats_are_those_that_are_known() -> None:
    taken = msgspec.json.schema(Import)["$defs"]["Import"]["properties"]["format"]["enum"]
    assert set(taken) == {"", *FORMATS}


def test_the_states_are_those_of_the_pool() -> None:
    assert set(StateName.__args__) == {state.value for state in State}  # type: ignore[attr-defined]


async def signed_in(at: Place, who: str, **said: str) -> dict[str, Any]:
    """Somebody signs in by device code, and is used at once."""
    begun = await at.ask("POST", "/admin/api/logins", {"method": "google", **said})
    assert begun.status_code == 201, begun.text
    login = begun.json()
    assert (login["state"], bool(login["code"])) == ("pending", True)
    async with httpx.AsyncClient() as browser:
        assert (await browser.get(f"{login['url']}&as={who}")).status_code == 200
    while login["state"] == "pending":
        await trio.sleep(0.02)
        login = await at.get(f"/admin/api/logins/{login['id']}")
    assert login["state"] == "done", login
    account: dict[str, Any] = await at.get(f"/admin/api/accounts/{login['account']}")
    return account


async def test_somebody_signs_in_by_device_code_and_is_used(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        account = await signed_in(at, "ann")
        assert (account["state"], account["kept"], account["source"]) == ("ready", True, "kirostream")
        both = (await at.get("/admin/accounts"))["accounts"]
        assert [each["id"] for each in both][1] == account["id"]
        await at.ask("POST", f"/admin/api/accounts/{both[0]['id']}/disable")
        assert (await at.say("hello")).status_code == 200
        assert (await at.get(f"/admin/api/accounts/{account['id']}"))["requests"] == 1
        again = await signed_in(at, "ann")
        assert again["id"] == account["id"], "the same person is the same account"
        assert (await at.get("/admin/api/logins"))["logins"][0]["replaced"]


async def test_a_sign_in_can_be_refused_given_up_and_forgotten(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        refused = (await at.ask("POST", "/admin/api/logins", {"method": "builder_id"})).json()
        async with httpx.AsyncClient() as browser:
            await browser.get(f"{refused['url']}&deny=1")
        while refused["state"] == "pending":
            await trio.sleep(0.02)
            refused = await at.get(f"/admin/api/logins/{refused['id']}")
        assert (refused["state"], refused["error"]) == ("failed", "The sign-in was refused on the page.")
        for _ in range(8):
            begun = await at.ask("POST", "/admin/api/logins", {"method": "github"})
        full = await at.ask("POST", "/admin/api/logins", {"method": "github"})
        assert (full.status_code, full.json()["error"]["type"]) == (409, "conflict")
        path = f"/admin/api/logins/{begun.json()['id']}"
        assert (await at.ask("DELETE", path)).status_code == 204
        assert (await at.get(path))["state"] == "cancelled"
        begun = await at.ask("POST", "/admin/api/logins", {"method": "github"})
        assert begun.status_code == 201
        await at.ask("DELETE", f"/admin/api/logins/{begun.json()['id']}")
        wrong = await at.ask("POST", "/admin/api/logins", {"method": "identity_center", "start_url": "http://x"})
        assert (wrong.status_code, wrong.json()["error"]["type"]) == (400, "bad_value")
        stranger = "https://unentitled.awsapps.com/start"
        denied = await at.ask("POST", "/admin/api/logins", {"method": "identity_center", "start_url": stranger})
        assert (denied.status_code, denied.json()["error"]["type"]) == (409, "account")
        assert len((await at.get("/admin/api/logins"))["logins"]) == 10


async def test_what_is_done_to_an_account(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        ann = f"/admin/api/accounts/{(await signed_in(at, 'ann'))['id']}"
        tested = (await at.ask("POST", f"{ann}/test")).json()
        assert (tested["ok"], tested["error"]) == (True, "")
        assert "claude-sonnet-4.5" in tested["models"]
        assert (await at.ask("POST", f"{ann}/refresh")).json()["expires_in"] > 3000
        quota = await at.get(f"{ann}/quota")
        assert (quota["plan"], quota["limit"], quota["exhausted"]) == ("KIRO PRO", 1100.0, False)
        assert (await at.get(ann))["quota"] == quota
        assert [plan["name"] for plan in (await at.get(f"{ann}/plans"))["plans"]][1] == "KIRO_PRO"
        page = (await at.ask("POST", f"{ann}/checkout", {"plan": "kiro_pro"})).json()
        assert page["url"].startswith("https://checkout.simulated.invalid/")
        assert (await at.ask("POST", f"{ann}/checkout", {"plan": "GOLD"})).status_code == 404
        assert (await at.ask("POST", f"{ann}/disable")).json()["enabled"] is False
        for verb in ("test", "refresh"):
            assert (await at.ask("POST", f"{ann}/{verb}")).json()["error"]["type"] == "conflict"
        assert (await at.ask("POST", f"{ann}/enable")).json()["state"] == "ready"
        assert (await at.ask("DELETE", ann)).status_code == 204
        assert (await at.ask("GET", ann)).status_code == 404
        simulated = (await at.get("/admin/api/accounts"))["accounts"]
        assert len(simulated) == 1
        kept = await at.ask("DELETE", f"/admin/api/accounts/{simulated[0]['id']}")
        assert (kept.status_code, kept.json()["error"]["type"]) == (409, "conflict")


async def test_an_account_that_fails_says_why(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        assert at.gateway.simulator is not None
        account = (await at.get("/admin/api/accounts"))["accounts"][0]["id"]
        at.gateway.simulator.standing.afflict("demo", "SUSPENDED")
        assert (await at.say("hello")).status_code >= 400
        shown = await at.get(f"/admin/api/accounts/{account}")
        assert shown["state"] == "suspended"
        assert "suspended" in shown["last_error"]["message"]
        at.gateway.simulator.standing.afflict("demo", None)
        assert (await at.ask("POST", f"/admin/api/accounts/{account}/clear")).json()["state"] == "ready"
        assert (await at.say("hello")).status_code == 200


async def test_accounts_are_added_and_imported(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        assert at.gateway.simulator is not None
        token = at.gateway.simulator.credential("bob").refresh_token.reveal()
        added = await at.ask("POST", "/admin/api/accounts", {"kind": "refresh_token", "value": token, "label": "bob"})
        assert (added.status_code, added.json()["known"]) == (201, False)
        assert (await at.get(f"/admin/api/accounts/{added.json()['account']['id']}"))["label"] == "bob"
        assert token not in json.dumps(await at.get("/admin/api/accounts"))
        other = at.gateway.simulator.credential("eve").refresh_token.reveal()
        done = await at.ask("POST", "/admin/api/accounts/import", {"text": f"REFRESH_TOKEN={other}", "format": "env"})
        assert (done.status_code, len(done.json()["added"])) == (200, 1), done.text
        assert (await at.get("/admin/api/status"))["accounts"] == {"ready": 3}
        nothing = await at.ask("POST", "/admin/api/accounts/import", {"text": "what is this"})
        assert nothing.status_code == 400
        missing = await at.ask("POST", "/admin/api/accounts", {"kind": "ide", "value": "/nowhere/token.json"})
        assert (missing.status_code, "/nowhere/token.json" in missing.text) == (400, True), missing.text


async def test_a_turn_is_watched_as_it_is_said(tmp_path: Path) -> None:
    async with place(tmp_path, tokens_per_second=40.0) as at, trio.open_nursery() as nursery:
        nursery.start_soon(at.say, "Tell me something.")
        turns: list[dict[str, Any]] = []
        while not turns:
            await trio.sleep(0.01)
            turns = (await at.get("/admin/api/turns"))["turns"]
        (turn,) = turns
        assert (turn["status"], turn["key"], turn["model"], turn["watchers"]) == (
            "in_progress",
            "default",
            "claude-sonnet-4.5",
            1,
        )
        said, states = "", set()
        headers = {"authorization": f"Bearer {KEY}"}
        async with at.client.stream("GET", f"/admin/api/turns/{turn['id']}/events", headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    event = load(line[6:].encode())
                    states.add((await at.get(f"/admin/api/turns/{turn['id']}"))["status"])
                    if isinstance(event, BlockDelta):
                        said += json.loads(b'"' + b"".join(event.pieces) + b'"')
        assert isinstance(event, TurnEnded)
        assert "Tell me something." in said
        assert states == {"in_progress", "completed"}
        shown = await at.get(f"/admin/api/turns/{turn['id']}")
        assert (shown["status"], shown["stop"], shown["output_tokens"] > 0) == ("completed", "end", True)


async def test_the_operator_ends_a_turn_and_keeps_none_alive(tmp_path: Path) -> None:
    async with place(tmp_path, tokens_per_second=5.0) as at:
        answers: list[httpx.Response] = []
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                answers.append(await at.say("Tell me something long."))

            nursery.start_soon(ask)
            while not (turns := (await at.get("/admin/api/turns"))["turns"]):
                await trio.sleep(0.01)
            path = f"/admin/api/turns/{turns[0]['id']}"
            assert (await at.ask("POST", f"{path}/cancel")).json()["status"] == "failed"
        assert answers[0].status_code == 499
        assert "cancelled" in (await at.get(path))["error"]
        assert (await at.get("/admin/api/turns"))["in_flight"] == 0
        assert (await at.ask("GET", "/admin/api/turns/turn_none/events")).status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"kind":"ide"}', ""),
        ('{"kind":"gold","value":"x"}', "$.kind"),
        ('{"kind":"ide","value":7}', "$.value"),
        ('{"kind":"ide","value":""}', "$.value"),
        ('{"kind":"ide","value":"x","more":1}', ""),
        ("[]", ""),
        ("{", ""),
        ("\udcff", ""),
    ],
)
async def test_a_body_that_is_wrong_is_told_where(tmp_path: Path, body: str, param: str) -> None:
    async with place(tmp_path) as at:
        answer = await at.client.post(
            "/admin/api/accounts",
            content=body.encode("utf-8", "surrogateescape"),
            headers={"authorization": f"Bearer {KEY}"},
        )
        said = answer.json()["error"]
        assert (answer.status_code, said["type"], said["param"]) == (400, "bad_request", param), said


async def test_what_is_not_there_is_said_in_the_same_form(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        for method, path, status in [
            ("GET", "/admin/api/nothing", 404),
            ("GET", "/admin/api/accounts/none", 404),
            ("POST", "/admin/api/accounts/none/test", 404),
            ("GET", "/admin/api/logins/none", 404),
            ("PATCH", "/admin/api/accounts", 405),
            ("GET", "/admin/api/accounts/%FF", 400),
        ]:
            answer = await at.ask(method, path)
            assert answer.status_code == status, (path, answer.text)
            assert answer.json()["error"]["next"]
        large = await at.ask("POST", "/admin/api/logins", {"method": "google", "label": "x" * (2 << 20)})
        assert large.status_code == 413


async def test_it_can_be_switched_off(tmp_path: Path) -> None:
    async with place(tmp_path, admin=AdminSettings(enabled=False)) as at:
        for path in ("/admin", "/admin/api/status", "/v0/management/usage"):
            assert (await at.ask("GET", path)).status_code == 404
        assert (await at.say("hello")).status_code == 200


async def test_models_are_those_that_clients_may_ask_for(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        said = await at.get("/admin/api/models")
        assert said["complete"]
        assert {"claude-sonnet-4.5", "auto"} <= {model["id"] for model in said["models"]}


async def test_a_demo_leaves_nothing_behind_and_takes_nothing_of_the_person(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        await signed_in(at, "ann")
        assert not (tmp_path / "data" / "accounts.json").exists()
        assert not (tmp_path / "data" / "sealed" / "own").exists()
    async with place(tmp_path) as at:
        assert len((await at.get("/admin/api/accounts"))["accounts"]) == 1


async def test_what_turns_cost(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        for _ in range(3):
            await at.say("hello")
        await at.say("[[error:VALIDATION]]")
        usage = await at.get("/admin/api/usage?by=model")
        assert (usage["totals"]["turns"], usage["totals"]["failed"]) == (4, 1)
        assert [share["name"] for share in usage["shares"]] == ["claude-sonnet-4.5"]
        keys = await at.get("/admin/api/usage?by=key&model=claude-sonnet-4.5&since=1")
        assert [share["name"] for share in keys["shares"]] == ["default"]
        assert (await at.get("/admin/api/usage?key=nobody"))["totals"]["turns"] == 0
        since = an_hour_ago()
        series = await at.get(f"/admin/api/usage/series?step=minute&since={since}")
        assert sum(bucket["totals"]["turns"] for bucket in series["buckets"]) == 4
        assert len(series["buckets"]) in (61, 62)
        turns = (await at.get("/admin/api/usage/turns?most=2"))["turns"]
        older = (await at.get(f"/admin/api/usage/turns?before={turns[-1]['number']}"))["turns"]
        assert [len(turns), len(older)] == [2, 2]
        failed = (await at.get("/admin/api/usage/turns?outcome=failed"))["turns"]
        assert [turn["outcome"] for turn in failed] == ["failed"]
        csv = await at.ask("GET", "/admin/api/usage/export")
        assert csv.headers["content-disposition"] == 'attachment; filename="kirostream-turns.csv"'
        assert len(csv.text.splitlines()) == 5
        assert len((await at.ask("GET", "/admin/api/usage/export?form=json")).json()) == 4
        shares = await at.ask("GET", "/admin/api/usage/export?what=shares&by=model&form=csv")
        assert shares.text.splitlines()[1].startswith("claude-sonnet-4.5,")
        for query, param in [("by=moon", "$.by"), ("since=x", "$.since"), ("since=-1", "$.since"), ("nothing=1", "")]:
            wrong = await at.ask("GET", f"/admin/api/usage?{query}")
            assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, param), wrong.text
        assert (await at.ask("GET", "/admin/api/usage/series?step=minute&since=0")).status_code == 400


def an_hour_ago() -> int:
    return int(time.time()) - 3600


async def test_a_setting_is_changed_and_acts(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        everything = await at.get("/admin/api/settings")
        assert len(everything["settings"]) > 100
        assert KEY not in json.dumps(everything)
        one = "/admin/api/settings/server.most_choices"
        before = await at.get(one)
        assert (before["value"], before["live"], before["origin"]) == (8, True, "the defaults")
        done = (await at.ask("PUT", one, {"value": 3})).json()
        assert (done["acts"], done["setting"]["value"], done["setting"]["waiting"]) == ("now", 3, False)
        assert "most_choices = 3" in (tmp_path / "config" / "kirostream.toml").read_text()
        body = {"model": "claude-sonnet-4.5", "n": 5, "messages": [{"role": "user", "content": "hi"}]}
        refused = await at.ask("POST", "/v1/chat/completions", body)
        assert "at most 3 answers" in refused.text
        later = (await at.ask("PUT", "/admin/api/settings/server.memory", {"value": "1000"})).json()
        assert (later["acts"], later["setting"]["waiting"]) == ("restart", True)
        assert (await at.ask("PUT", one, {"value": None})).json()["setting"]["value"] == 8
        near = await at.ask("GET", "/admin/api/settings/server.most_choice")
        assert (near.status_code, "server.most_choices" in near.text) == (404, True)
        assert (await at.ask("PUT", "/admin/api/settings/server.nothing", {"value": 1})).status_code == 404
        for name, value in [("server.most_choices", "many"), ("server.port", -1.5)]:
            wrong = await at.ask("PUT", f"/admin/api/settings/{name}", {"value": value})
            assert (wrong.status_code, wrong.json()["error"]["type"]) == (400, "bad_value"), wrong.text
        checked = await at.ask("POST", "/admin/api/settings/check", {"changes": {"server.most_choices": "x"}})
        assert not checked.json()["ok"]
        assert "server.most_choices" in checked.json()["error"]
        assert (await at.ask("POST", "/admin/api/settings/check", {"changes": {"server.grace": 5}})).json()["ok"]
        (tmp_path / "config" / "kirostream.toml").write_text("[server]\ngrace = 7\n")
        assert (await at.ask("POST", "/admin/api/settings/reload")).json()["now"] == ["server.grace"]
        assert (await at.ask("PUT", one, {})).status_code == 400


async def test_the_log_is_read_searched_and_followed(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        await at.say("hello")
        await at.say("[[error:VALIDATION]]")

        async def lines(query: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = (await at.get(f"/admin/api/logs?{query}"))["lines"]
            return found

        while len(turns := await lines("search=turn finished")) < 2:
            await trio.sleep(0.05)
        assert [line["event"] for line in turns] == ["turn finished"] * 2
        assert turns[0]["timestamp"] >= turns[1]["timestamp"]
        assert [line["known"]["outcome"] for line in turns] == ["failed", "end"]
        assert len(await lines("search=turn finished&most=1")) == 1
        assert {line["level"] for line in await lines("level=warning")} <= {"warning", "error"}
        assert await lines(f"since={time.time() + 60:.0f}") == []
        assert (await at.get("/admin/logs?search=turn finished"))["lines"] == turns
        assert KEY not in json.dumps(await lines("most=2000"))
        exported = await at.ask("GET", "/admin/api/logs/export?search=turn finished")
        assert [json.loads(line)["outcome"] for line in exported.text.splitlines()] == ["end", "failed"]
        parts = urlsplit(at.gateway.url)
        async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as live:
            target = "/admin/api/logs/live?search=turn%20finished"
            await live.send_all(f"GET {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\r\n".encode())
            said = b""
            while b": \n\n" not in said:
                said += await live.receive_some()
            await trio.sleep(0.3)
            await at.say("again")
            while b'"outcome":"end"' not in said:
                said += await live.receive_some()
        assert b"text/event-stream" in said
        assert b"data: {" in said
        for query in ("level=loud", "since=x", "most=0", "what=1"):
            assert (await at.ask("GET", f"/admin/api/logs?{query}")).status_code == 400


async def test_a_key_is_given_out_limited_rotated_and_taken_back(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        assert (await at.get("/admin/api/keys"))["keys"] == []
        given = await at.ask("POST", "/admin/api/keys", {"name": "ci", "limits": {"requests": 2}})
        assert given.status_code == 201, given.text
        secret = given.json()["secret"]
        assert given.json()["key"]["scopes"] == ["api"]
        body = {"model": "claude-sonnet-4.5", "messages": [{"role": "user", "content": "hi"}]}

        async def ask(key: str) -> int:
            return (await at.ask("POST", "/v1/chat/completions", body, key=key)).status_code

        assert [await ask(secret) for _ in range(3)] == [200, 200, 429]
        assert [turn["key"] for turn in (await at.get("/admin/api/turns"))["turns"]] == ["ci", "ci"]
        assert (await at.ask("GET", "/admin/api/status", key=secret)).status_code == 401, "it is no admin's"
        one = "/admin/api/keys/ci"
        changed = (await at.ask("PATCH", one, {"scopes": ["api", "admin"], "limits": {}})).json()
        assert (changed["scopes"], changed["limits"]["requests"]) == (["api", "admin"], 0)
        assert await ask(secret) == 200
        assert (await at.ask("GET", "/admin/api/status", key=secret)).status_code == 200
        assert (await at.client.post("/admin/api/session", json={"password": secret})).json()["name"] == "ci"
        again = (await at.ask("POST", f"{one}/rotate", {"keep": 0})).json()["secret"]
        assert (await ask(secret), await ask(again)) == (401, 200)
        listed = json.dumps(await at.get("/admin/api/keys"))
        assert secret not in listed
        assert again not in listed
        assert (await at.ask("PATCH", one, {"enabled": False})).json()["enabled"] is False
        assert await ask(again) == 401
        twice = await at.ask("POST", "/admin/api/keys", {"name": "ci"})
        assert (twice.status_code, "already" in twice.text) == (400, True)
        for wrong in ({"name": "a b"}, {"name": "x", "scopes": []}, {"name": "x", "limits": {"tokens": -1}}):
            assert (await at.ask("POST", "/admin/api/keys", wrong)).status_code == 400
        assert (await at.ask("DELETE", one)).status_code == 204
        assert (await at.ask("GET", one)).status_code == 404


@DOORS
async def test_a_bug_is_worded_as_the_api_words_it(tmp_path: Path, tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Recent) -> None:
        raise ZeroDivisionError("secret words")

    async with place(tmp_path, tls=tls) as at:
        await at.get("/admin/api/stats")
        monkeypatch.setattr(Recent, "minutes", broken)
        for path in ("/admin/api/stats", "/admin/stats"):
            answer = await at.ask("GET", path)
            assert (answer.status_code, answer.headers["content-type"]) == (500, "application/json")
            assert answer.headers["cache-control"] == "no-store"
            error = answer.json()["error"]
            assert set(error) == {"type", "message", "next", "param"}
            assert error["type"] == "internal"
            assert "secret" not in answer.text
        assert sum(isinstance(fact, Faulted) for fact in at.facts) == 2
        elsewhere = await at.ask("GET", "/v1/turns/none")
        assert elsewhere.json()["error"].keys() >= {"message", "type"}
        assert "next" not in elsewhere.json()["error"]


async def test_settings_of_the_panel_act_at_once(tmp_path: Path) -> None:
    async with place(tmp_path) as at:

        async def put(name: str, value: object) -> None:
            done = await at.ask("PUT", f"/admin/api/settings/{name}", {"value": value})
            assert (done.status_code, done.json()["acts"]) == (200, "now"), done.text

        async def enter(password: str) -> int:
            return (await at.client.post("/admin/api/session", json={"password": password})).status_code

        given = (await at.ask("POST", "/admin/api/keys", {"name": "op", "scopes": ["admin"]})).json()["secret"]
        assert await enter(KEY) == 200
        assert (await at.client.get("/admin/api/status")).status_code == 200
        await put("admin.password", "correct horse battery")
        assert (await at.client.get("/admin/api/status")).status_code == 401, "the session is over"
        assert (await at.ask("GET", "/admin/api/status")).status_code == 401, "the gateway's key opens nothing now"
        assert await enter("correct horse battery") == 200
        at.client.cookies.clear()
        operator = {"authorization": f"Bearer {given}"}
        for name, value in (("admin.tries", 2), ("admin.session", 60)):
            answer = await at.client.put(f"/admin/api/settings/{name}", json={"value": value}, headers=operator)
            assert (answer.status_code, answer.json()["acts"]) == (200, "now")
        assert await enter("correct horse battery") == 200
        said = (await at.client.get("/admin/api/session")).json()
        assert said["expires_in"] <= 60
        assert [await enter("wrong") for _ in range(3)] == [401, 401, 429]
        off = await at.client.put("/admin/api/settings/admin.enabled", json={"value": False}, headers=operator)
        assert off.status_code == 200
        for path in ("/admin", "/admin/api/status", "/v0/management/usage"):
            assert (await at.client.get(path, headers=operator)).status_code == 404
        await at.gateway.steering.editor.set("admin.enabled", True)
        assert (await at.client.get("/admin/api/status", headers=operator)).status_code == 200


async def test_with_a_password_the_gateways_own_key_opens_nothing(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        assert (await at.client.post("/admin/api/session", json={"password": KEY})).status_code == 200
        PasswordFile(at.data).write(hashed("correct horse battery"))
        assert (await at.client.get("/admin/api/session")).status_code == 401, "the session is over"
        assert (await at.ask("GET", "/admin/api/status")).status_code == 401
        entered = await at.client.post("/admin/api/session", json={"password": "correct horse battery"})
        assert (entered.json()["name"], entered.json()["own_password"]) == ("admin", True)
        assert (await at.client.get("/admin/api/status")).status_code == 200
        assert (await at.say("hello")).status_code == 200, "it goes on to ask models"
