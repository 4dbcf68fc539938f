"""Accounts that come with requests, beside the house's, in a running gateway: nobody is asked on another's."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from e2e.test_faults import running
from e2e.test_openai_responses_socket import dialled, text_of
from helpers.languages import LANGUAGES, Language
from kirostream.app import Gateway, open_gateway
from kirostream.finding import find_accounts
from kirostream.settings import DATABASE, Settings, load
from kirostream.simulated import open_simulator
from kirostream.telemetry.facts import Fact, TokenRefreshed, TurnFinished
from kirostream.telemetry.recorder import Recorder

INTERNAL = "internal-key"
languages = pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)


class World:
    """A gateway, a client, and the accounts of the simulated service."""

    def __init__(self, gateway: Gateway, facts: list[Fact], client: httpx.AsyncClient) -> None:
        assert gateway.simulator is not None
        self.gateway, self.facts, self.client, self.simulator = gateway, facts, client, gateway.simulator

    def guest(self, name: str, **more: str) -> dict[str, str]:
        """The headers of a request that brings an account."""
        token = self.simulator.credential(name).refresh_token.reveal()
        return {"authorization": f"Bearer {INTERNAL}", "x-kiro-refresh-token": token, **more}

    def who(self, name: str) -> dict[str, str]:
        return {"x-api-key": "k"} if name == "demo" else self.guest(name)

    async def ask(self, language: Language, said: str, headers: Mapping[str, str], **more: Any) -> httpx.Response:
        body = language.ask(said, stream=False, **more)
        return await self.client.post(language.path, json=body, headers=dict(headers))

    def asked(self) -> Counter[str]:
        """How often each account was asked."""
        return Counter(told.account for told in self.simulator.standing.log)


@asynccontextmanager
async def world(tmp_path: Path, **changes: object) -> AsyncIterator[World]:
    async with (
        running(tmp_path, **{"guests__key": INTERNAL, **changes}) as (gateway, facts),
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as client,
    ):
        yield World(gateway, facts, client)


CHAT, *_ = [language for language in LANGUAGES if language.name == "openai_chat"]
RESPONSES, *_ = [language for language in LANGUAGES if language.name == "openai_responses"]


@languages
async def test_two_guests_and_the_house_side_by_side(language: Language, tmp_path: Path) -> None:
    async with world(tmp_path) as on:
        answers: list[str] = []

        async def ask(name: str, number: int) -> None:
            said = await on.ask(language, f"[[slow:2]][[say:{name} {number}]]", on.who(name))
            assert said.status_code == 200, said.text
            answers.append(language.whole_text(said.content))

        async with trio.open_nursery() as nursery:
            for number in range(4):
                for name in ("ann", "bob", "demo"):
                    nursery.start_soon(ask, name, number)
        assert sorted(answers) == sorted(f"{name} {n}" for name in ("ann", "bob", "demo") for n in range(4))
        assert on.asked() == {"ann": 4, "bob": 4, "demo": 4}
        labels = {fact.account for fact in on.facts if isinstance(fact, TurnFinished)}
        assert len(labels) == 3
        assert sum(label.startswith("guest ") for label in labels) == 2
        async with on.client.stream(
            "POST", language.path, json=language.ask("[[say:streamed]]"), headers=on.guest("ann")
        ) as stream:
            body = await stream.aread()
        assert language.is_whole(body)
        assert language.text(body) == "streamed"


@languages
async def test_who_may_bring_an_account(language: Language, tmp_path: Path) -> None:
    async with world(tmp_path) as on:
        brought = {name: value for name, value in on.guest("ann").items() if name != "authorization"}
        for key, status in (("", 401), ("Bearer wrong", 401), ("Bearer k", 403)):
            refused = await on.ask(language, "x", {**brought, **({"authorization": key} if key else {})})
            assert refused.status_code == status, key
            assert language.error(refused.content)["message"]
        assert "internal key" in refused.text
        garbage = await on.ask(language, "x", on.guest("ann", **{"x-kiro-region": "evil.example.com/"}))
        assert garbage.status_code == 400
        assert "X-Kiro-Region" in language.error(garbage.content)["message"]
        assert "evil" not in garbage.text
        blank = await on.ask(language, "x", on.guest("ann", **{"x-kiro-refresh-token": ""}))
        assert blank.status_code == 400
        unknown = await on.ask(language, "x", on.guest("ann", **{"x-kiro-refresh-token": "aorUNKNOWN"}))
        assert unknown.status_code == 401
        assert "X-Kiro headers" in language.error(unknown.content)["message"]
        assert on.asked() == {}
        house = await on.ask(language, "[[say:house]]", {"x-api-key": INTERNAL})
        assert language.whole_text(house.content) == "house"
        assert on.asked() == {"demo": 1}


async def test_where_no_key_is_set_no_request_brings_an_account(tmp_path: Path) -> None:
    async with world(tmp_path, guests__key="") as on:
        refused = await on.ask(CHAT, "x", {**on.guest("ann"), "authorization": "Bearer k"})
        assert refused.status_code == 403
        assert "guests.key" in refused.text
        assert (await on.ask(CHAT, "x", on.guest("ann"))).status_code == 401
        assert on.asked() == {}


async def test_the_lists_of_models_and_the_counts(tmp_path: Path) -> None:
    async with world(tmp_path) as on:
        models = await on.client.get("/v1/models", headers=on.guest("ann"))
        assert "auto" in {each["id"] for each in models.json()["data"]}
        assert (await on.client.get("/v1/models/auto", headers=on.guest("ann"))).status_code == 200
        body = {"model": "auto", "messages": [{"role": "user", "content": "three words here"}]}
        for path in ("/v1/messages/count_tokens", "/v1/responses/input_tokens"):
            sent = body if "messages" in path else {"model": "auto", "input": "three words here"}
            counted = await on.client.post(path, json=sent, headers=on.guest("ann"))
            assert counted.json()["input_tokens"] > 0
            wrong = await on.client.post(path, json=sent, headers=on.guest("ann", **{"x-kiro-profile-arn": "x"}))
            assert wrong.status_code == 400
        assert (await on.client.get("/v1/models", headers=on.guest("ann", authorization="Bearer k"))).status_code == 403


async def test_nothing_of_one_is_there_for_another(tmp_path: Path) -> None:
    """Stored answers, idempotency keys, and turns that are watched."""
    async with world(tmp_path) as on:
        key = {"idempotency-key": "the same for all"}
        ids = {}
        for name in ("ann", "bob", "demo"):
            said = await on.ask(RESPONSES, "seven [[say:x]]", {**on.who(name), **key})
            ids[name] = said.json()["id"]
            turns = (await on.client.get("/v1/turns", headers=on.who(name))).json()["data"]
            assert len(turns) == 1
            ids[f"turn of {name}"] = turns[0]["id"]
        assert len(set(ids.values())) == 6
        for name in ("ann", "bob", "demo"):
            for other in ("ann", "bob", "demo"):
                found = (await on.client.get(f"/v1/responses/{ids[name]}", headers=on.who(other))).status_code
                assert found == (200 if name == other else 404)
                watched = await on.client.get(f"/v1/turns/{ids[f'turn of {name}']}", headers=on.who(other))
                assert watched.status_code == (200 if name == other else 404)
                leaning = await on.ask(RESPONSES, "[[say:y]]", on.who(other), previous_response_id=ids[name])
                assert leaning.status_code == (200 if name == other else 400)


async def test_a_socket_of_a_guest(tmp_path: Path) -> None:
    async with world(tmp_path) as on:
        headers = [(name.encode(), value.encode()) for name, value in on.guest("ann").items()]
        async with dialled(on.gateway.url, headers) as socket:
            first = await socket.create("[[say:hello]]")
            assert text_of(first) == "hello"
            again = await socket.create("[[say:again]]", previous_response_id=first[-1]["response"]["id"])
            assert text_of(again) == "again"
        assert on.asked() == {"ann": 2}


async def test_a_token_rotates_in_memory_and_nothing_of_it_is_written_or_told(tmp_path: Path) -> None:
    async with world(tmp_path, simulator__rotate=True, simulator__token_lifetime=1.0) as on:
        sent = on.guest("ann")
        for number in range(3):
            said = await on.ask(
                RESPONSES, f"[[say:{number}]]", {**sent, "x-kiro-profile-arn": "arn:aws:x:y:z:p/SECRET"}
            )
            assert said.status_code == 200, said.text
            await trio.sleep(1.0)
        refreshed = [fact for fact in on.facts if isinstance(fact, TokenRefreshed) and "guest" in fact.account]
        assert len(refreshed) == 3
        token = sent["x-kiro-refresh-token"]
        written = files_of(tmp_path)
        for secret in (token, "aoa-", INTERNAL, "p/SECRET"):
            assert secret not in "".join(written.values())
            assert secret not in repr(on.facts)
        assert [
            name
            for name, text in written.items()
            if "guest" in name or ("guest-" in text and not name.startswith(DATABASE) and not name.endswith(".jsonl"))
        ] == []


def files_of(folder: Path) -> dict[str, str]:
    """Every file of a folder: its name and what is in it."""
    return {path.name: path.read_text("latin-1") for path in folder.rglob("*") if path.is_file()}


async def test_a_guest_that_is_out_of_credits_says_so_and_nobody_else_pays(tmp_path: Path) -> None:
    async with world(tmp_path) as on:
        on.simulator.afflict("ann", "QUOTA")
        for _ in range(2):
            said = await on.ask(CHAT, "x", on.guest("ann"))
            assert said.status_code == 429, said.text
        assert (await on.ask(CHAT, "[[say:x]]", on.guest("bob"))).status_code == 200
        assert (await on.ask(CHAT, "[[say:x]]", on.who("demo"))).status_code == 200
        assert on.asked()["demo"] == on.asked()["bob"] == 1


async def test_a_gateway_without_an_account_of_its_own(tmp_path: Path) -> None:
    recorder = Recorder(lambda fact: None)
    with trio.fail_after(30):
        async with open_simulator(Settings(), recorder) as (simulator, url):
            hosts = {"kiro.endpoint": url, "keeper.hosts.social": url, "keeper.hosts.oidc": url}
            arguments = {"server.port": 0, "server.key": "k", "guests.key": INTERNAL, **hosts}
            settings = load({"KIROSTREAM_CONFIG_DIR": str(tmp_path)}, arguments=arguments)
            env = {"HOME": str(tmp_path)}
            found = await find_accounts(settings, env, tmp_path)
            async with (
                open_gateway(settings, found, data_dir=tmp_path, recorder=recorder) as gateway,
                httpx.AsyncClient(base_url=gateway.url, timeout=20) as client,
            ):
                assert gateway.using == "the accounts that come with requests"
                headers = {"authorization": f"Bearer {INTERNAL}"}
                body = CHAT.ask("[[say:x]]", stream=False)
                refused = await client.post(CHAT.path, json=body, headers=headers)
                assert refused.status_code == 503
                assert "kirostream login" in CHAT.error(refused.content)["message"]
                headers["x-kiro-refresh-token"] = simulator.credential("ann").refresh_token.reveal()
                said = await client.post(CHAT.path, json=body, headers=headers)
                assert CHAT.whole_text(said.content) == "x"
