"""Keys with limits, as the official SDKs meet them; what they may do; and what a restart gives back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anthropic
import httpx
import openai
import pytest
import trio
import trio_websocket

from e2e.conftest import clean_env
from e2e.test_faults import until
from kirostream.app import Gateway, open_gateway
from kirostream.gateway.keys import Key, KeyFile
from kirostream.gateway.limits import NONE, Limits
from kirostream.settings import load
from kirostream.telemetry.facts import Fact, Faulted, KeyRefused, TurnFinished
from kirostream.telemetry.recorder import Recorder

MODEL = "claude-sonnet-4.5"
OWN = "ks-the-gateways-own-key"
T = TypeVar("T")


class Place:
    """A gateway with the simulator behind it, and keys."""

    gateway: Gateway
    client: httpx.AsyncClient

    def __init__(self, folder: Path) -> None:
        self.file = KeyFile(folder, lambda: 1.0)
        self.facts: list[Fact] = []
        self.secrets: dict[str, str] = {}

    async def key(self, name: str, limits: Limits = NONE, *scopes: str) -> Key:
        """A key of this name, which the gateway knows."""
        key, self.secrets[name] = await self.file.add(name, limits=limits, scopes=scopes or ("api",))
        await self.gateway.book.load()
        return key

    async def ask(self, name: str, said: str = "[[say:hi]]", **more: object) -> httpx.Response:
        body = {"model": MODEL, "messages": [{"role": "user", "content": said}], **more}
        return await self.client.post("/v1/chat/completions", json=body, headers=self.auth(name))

    async def get(self, name: str, path: str) -> httpx.Response:
        return await self.client.get(path, headers=self.auth(name))

    def auth(self, name: str) -> dict[str, str]:
        return {"x-api-key": self.secrets.get(name, OWN)}


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    on = Place(folder)
    env = {"KIROSTREAM_CONFIG_DIR": str(folder / "config")}
    settings = load(env, arguments={"server.port": 0, "server.key": OWN, "pool.sync": 0.05, "usage.interval": 0.05})
    recorder = Recorder(lambda fact: on.facts.append(fact))
    with trio.fail_after(60):
        async with (
            open_gateway(settings, None, data_dir=folder, recorder=recorder) as on.gateway,
            httpx.AsyncClient(base_url=on.gateway.url, timeout=20) as on.client,
        ):
            yield on
    assert [fact for fact in on.facts if isinstance(fact, Faulted)] == []


async def in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work)


async def test_anthropics_sdk_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.key("ci", Limits(requests=1))
        sdk = anthropic.Anthropic(base_url=on.gateway.url, api_key=on.secrets["ci"], max_retries=0)

        def ask() -> str:
            made = sdk.messages.create(model=MODEL, max_tokens=9, messages=[{"role": "user", "content": "[[say:hi]]"}])
            return made.content[0].type

        assert await in_thread(ask) == "text"
        with pytest.raises(anthropic.RateLimitError, match="'ci' may make 1 requests a minute") as caught:
            await in_thread(ask)
        body: Any = caught.value.body
        assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")
        assert body["request_id"] == caught.value.request_id
        assert 55 < int(caught.value.response.headers["retry-after"]) <= 60
        with pytest.raises(anthropic.RateLimitError):  # before a stream's head, too
            await in_thread(
                lambda: sdk.messages.create(
                    model=MODEL, max_tokens=9, stream=True, messages=[{"role": "user", "content": "hi"}]
                )
            )
        sdk.close()
        assert [fact.limit for fact in on.facts if isinstance(fact, KeyRefused)] == ["requests", "requests"]
        assert [fact.key for fact in on.facts if isinstance(fact, TurnFinished)] == ["ci"]


async def test_openais_sdk_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.key("ci", Limits(requests=2))
        sdk = openai.OpenAI(base_url=f"{on.gateway.url}/v1", api_key=on.secrets["ci"], max_retries=0)

        def chat() -> object:
            return sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "[[say:hi]]"}])

        def respond() -> object:
            return sdk.responses.create(model=MODEL, input="[[say:hi]]")

        await in_thread(chat)
        await in_thread(respond)
        for again in (chat, respond):
            with pytest.raises(openai.RateLimitError, match="'ci' may make 2 requests a minute") as caught:
                await in_thread(again)
            assert (caught.value.type, caught.value.code) == ("rate_limit_error", "rate_limit_exceeded")
            assert 25 < int(caught.value.response.headers["retry-after"]) <= 30
            assert "x-should-retry" not in caught.value.response.headers
        sdk.close()


async def test_an_sdk_that_waits_as_told_gets_its_answer(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.key("ci", Limits(requests=120))
        while (await on.ask("ci", "[[say:.]]")).status_code == 200:
            pass
        sdk = openai.OpenAI(base_url=f"{on.gateway.url}/v1", api_key=on.secrets["ci"], max_retries=3)
        for _ in range(3):
            await in_thread(
                lambda: sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "[[say:hi]]"}])
            )
        sdk.close()


async def test_every_dialect_has_its_own_words_for_a_spent_budget(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.key("ci", Limits(credits_per_day=0.0001))
        assert (await on.ask("ci", "[[say:hi]]")).status_code == 200
        hello = [{"role": "user", "content": "hi"}]
        dialects: list[tuple[str, dict[str, Any], list[str]]] = [
            ("/v1/messages", {"max_tokens": 9, "messages": hello}, ["error", "type", "billing_error"]),
            ("/v1/chat/completions", {"messages": hello}, ["error", "code", "insufficient_quota"]),
            ("/v1/responses", {"input": "hi"}, ["error", "code", "insufficient_quota"]),
        ]
        for path, body, said in dialects:
            answer = await on.client.post(path, json={"model": MODEL, **body}, headers=on.auth("ci"))
            found: Any = answer.json()
            assert answer.status_code == 429
            assert found[said[0]][said[1]] == said[2]
            assert int(answer.headers["retry-after"]) <= 86_400
            assert "credits of the day" in answer.text
        assert (await on.ask("own")).status_code == 200


async def test_what_was_spent_outlives_a_restart(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.key("ci", Limits(credits_per_month=1000.0))
        assert (await on.ask("ci")).status_code == 200
        secrets, (use,) = on.secrets, on.gateway.book.uses()
        assert use.credits_this_month > 0
        await on.file.change("ci", limits={"credits_per_month": use.credits_this_month * 1.5})
    async with place(tmp_path) as on:
        on.secrets = secrets
        assert (await on.ask("ci")).status_code == 200
        assert (await on.ask("ci")).status_code == 429
        assert on.gateway.book.uses()[0].credits_this_month == pytest.approx(2 * use.credits_this_month)


async def test_a_place_is_free_again_when_its_client_has_left(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.key("ci", Limits(concurrency=1))
        slow = [{"role": "user", "content": "[[tokens:200]][[slow:50]]"}]
        body = {"model": MODEL, "stream": True, "messages": slow}
        async with on.client.stream("POST", "/v1/chat/completions", json=body, headers=on.auth("ci")) as answer:
            assert answer.status_code == 200
            refused = await on.ask("ci")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "1 turns at the same time" in refused.text
            counted = await on.client.post(
                "/v1/messages/count_tokens",
                json={"model": MODEL, "messages": [{"role": "user", "content": "hi"}]},
                headers=on.auth("ci"),
            )
            assert counted.status_code == 200  # it is no turn, and so is a list of models
            assert (await on.get("ci", "/v1/models")).status_code == 200
            assert (await on.get("ci", "/v1/turns")).json()["data"][0]["status"] == "in_progress"
        await until(lambda: on.gateway.book.uses()[0].in_flight == 0)
        assert (await on.ask("ci")).status_code == 200
        assert (await on.ask("ci", n=2)).status_code == 429
        await until(lambda: on.gateway.book.uses()[0].in_flight == 0)


async def test_turns_of_two_keys_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.key("ann")
        await on.key("bob")
        await on.key("eye", NONE, "watch")
        await on.key("boss", NONE, "admin")
        assert (await on.ask("ann")).status_code == 200
        (turn,) = (await on.get("ann", "/v1/turns")).json()["data"]
        path = f"/v1/turns/{turn['id']}"
        assert (await on.get("bob", "/v1/turns")).json()["data"] == []
        assert (await on.get("bob", path)).status_code == 404
        for watcher in ("ann", "eye", "own"):
            assert (await on.get(watcher, path)).json()["id"] == turn["id"]
            assert "hi" in (await on.get(watcher, f"{path}/events")).text
        for name, status in [("bob", 404), ("eye", 403), ("ann", 200), ("boss", 200), ("own", 200)]:
            cancelled = await on.client.post(f"{path}/cancel", headers=on.auth(name))
            assert (name, cancelled.status_code) == (name, status)
        refused = await on.ask("eye")
        assert refused.status_code == 403
        assert "'eye' may not do this: it takes a key with the scope api" in refused.text
        assert (await on.get("eye", "/v1/models")).status_code == 403
        assert (await on.get("boss", "/v1/turns")).status_code == 403
        assert (await on.ask("boss")).status_code == 403


async def test_a_socket_is_only_as_good_as_its_key(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.key("ann")
        await on.key("eye", NONE, "watch")
        await on.ask("ann")
        url = on.gateway.url.replace("http", "ws") + "/v1/stream"
        headers = [(b"x-api-key", on.secrets["eye"].encode())]
        async with trio_websocket.open_websocket_url(url, extra_headers=headers) as socket:

            async def said(**op: object) -> dict[str, Any]:
                await socket.send_message(json.dumps(op))
                found: dict[str, Any] = json.loads(await socket.get_message())
                return found

            (turn,) = (await said(op="list"))["data"]
            asked = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
            for op in ({"op": "start", "dialect": "anthropic", "request": asked}, {"op": "cancel", "turn": turn["id"]}):
                assert (await said(**op))["error"]["type"] == "NotAllowed"
            await on.gateway.book.changed(on.file.remove("eye"))
            for op in ({"op": "list"}, {"op": "watch", "turn": turn["id"]}):
                assert (await said(**op))["error"]["type"] == "KeyRejected"


async def test_a_stored_answer_belongs_to_its_key(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.key("ann")
        await on.key("bob")
        body = {"model": MODEL, "input": "[[say:hi]]"}
        made = await on.client.post("/v1/responses", json=body, headers=on.auth("ann"))
        path = f"/v1/responses/{made.json()['id']}"
        assert (await on.get("ann", path)).status_code == 200
        assert (await on.get("bob", path)).status_code == 404
        assert (await on.get("own", path)).status_code == 404
        secret = (await on.file.rotate("ann"))[1]
        assert (await on.get("ann", path)).status_code == 200  # not taken in yet
        on.secrets["ann"] = secret
        await on.gateway.book.load()
        assert (await on.get("ann", path)).status_code == 200


async def test_the_admin_room_opens_to_a_key_of_its_scope(tmp_path: Path) -> None:
    async with place(tmp_path) as on:
        await on.key("boss", NONE, "admin")
        await on.key("ann")
        path = "/admin/api/status"
        for name, status in [("boss", 200), ("ann", 401), ("own", 200)]:
            answer = await on.client.get(path, headers={"authorization": f"Bearer {on.secrets.get(name, OWN)}"})
            assert (name, answer.status_code) == (name, status)


def keys(folder: Path, *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kirostream", "keys", *arguments]
    return subprocess.run(
        command, env=clean_env(folder), capture_output=True, text=True, input=said, timeout=60, check=False
    )


async def test_the_commands_and_a_gateway_that_runs(tmp_path: Path) -> None:
    """Through the command line, as a person does it; the gateway takes it in by itself."""
    async with place(tmp_path / "data") as on:
        added = await in_thread(lambda: keys(tmp_path, "add", "ci", "--requests", "1000", "--scopes", "api,watch"))
        on.secrets["ci"] = secret = added.stdout.strip()
        assert secret.startswith("ks-")
        with trio.fail_after(10):
            while (await on.ask("ci")).status_code == 401:
                await trio.sleep(0.05)
        listed = await in_thread(lambda: keys(tmp_path, "list"))
        assert secret not in listed.stdout
        assert [word for word in ("ci", "1000 requests/min", "good") if word in listed.stdout] == [
            "ci",
            "1000 requests/min",
            "good",
        ]
        await in_thread(lambda: keys(tmp_path, "set", "ci", "--disable"))
        with trio.fail_after(10):
            while (await on.ask("ci")).status_code == 200:
                await trio.sleep(0.05)
        assert "'ci' is disabled" in (await on.ask("ci")).text


def test_the_commands(tmp_path: Path) -> None:
    added = keys(tmp_path, "add", "ci", "--credits-day", "2.5", "--expires", "2030-01-31", "--json")
    said = json.loads(added.stdout)
    assert (said["scopes"], said["limits"]["credits_per_day"], said["expires_at"]) == (["api"], 2.5, 1_896_048_000.0)
    rotated = keys(tmp_path, "rotate", "ci", "--keep", "1h")
    assert rotated.stdout.strip() not in ("", said["secret"])
    assert "shown only now" in rotated.stderr
    brought = keys(tmp_path, "add", "old", "--stdin", said="sk-a-key-of-earlier-days\n")
    assert brought.stdout == "sk-a-key-of-earlier-days\n"
    changed = keys(tmp_path, "set", "ci", "--tokens", "5", "--expires", "never")
    assert changed.stdout == "ci: api; limits: 5 tokens/min, 2.5 credits/day; good.\n"
    listed = json.loads(keys(tmp_path, "list", "--json").stdout)
    assert [each["name"] for each in listed] == ["ci", "old"]
    assert said["secret"] not in json.dumps(listed)
    assert keys(tmp_path, "remove", "ci").stdout == "ci was taken back.\n"
    for arguments, words in [
        (("remove", "ci"), "There is no key 'ci'. Known: old."),
        (("add", "x", "--scopes", "root"), "scopes admin, api, watch, and not root"),
        (("set", "old", "--expires", "soon"), "'soon' is no moment"),
        (("rotate", "old", "--keep", "x"), "'x' is no stretch of time"),
    ]:
        refused = keys(tmp_path, *arguments)
        assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr
    assert (tmp_path / "data" / "keys.json").stat().st_mode & 0o777 == 0o600
