"""A gateway that runs takes in what a person does with the accounts, and no turn in flight is hurt."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from e2e.conftest import KEY
from e2e.test_accounts_cli import log_in, upstream  # noqa: F401  a fixture
from e2e.test_cli import kirostream, start, stop
from e2e.test_faults import until
from kirostream.accounts.account import Credential, Secret
from kirostream.accounts.discovery import Discovery
from kirostream.accounts.roster import Entry, Roster
from kirostream.app import Gateway, open_gateway
from kirostream.finding import find_accounts, look_for_accounts
from kirostream.settings import load
from kirostream.simulated import open_simulator
from kirostream.simulator.upstream import Simulator
from kirostream.stores.sealed import SealedStore
from kirostream.telemetry.facts import AccountJoined, AccountLeft, Fact, Faulted, PoolTroubled
from kirostream.telemetry.recorder import Recorder


class Place:
    """A gateway on a simulator, and the list of its accounts."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self.simulator = simulator
        self.roster = Roster(folder, SealedStore(folder / "sealed"))
        self.facts: list[Fact] = []
        self._numbers = itertools.count()
        self.gateway: Gateway
        self.client: httpx.AsyncClient

    async def keep(self, name: str, credential: Credential | None = None) -> Entry:
        kept = await self.roster.keep(
            credential or self.simulator.credential(name), persons=[name], label=name, now=time.time()
        )
        return kept.entry

    async def ask(self, said: str = "[[say:x]]") -> httpx.Response:
        """A conversation of its own."""
        messages = [{"role": "user", "content": f"{next(self._numbers)} {said}"}]
        return await self.client.post("/v1/chat/completions", json={"model": "auto", "messages": messages})

    async def status(self) -> dict[str, Any]:
        answer = await self.client.get("/v1/accounts/status")
        found: dict[str, Any] = answer.json()
        return found

    def here(self) -> list[str]:
        return [account.label for account in self.gateway.pool.snapshot().accounts]

    async def are(self, *names: str) -> None:
        await until(lambda: sorted(self.here()) == sorted(names))

    def asked(self) -> Counter[str]:
        return Counter(told.account for told in self.simulator.standing.log)


@asynccontextmanager
async def place(
    tmp_path: Path,
    *accounts: str,
    before: Callable[[Simulator], None] = lambda simulator: None,
    found_them: Callable[[], None] = lambda: None,
    **more: object,
) -> AsyncIterator[Place]:
    """`more`: settings of the gateway alone, with two underscores for a dot."""
    arguments = {"server.port": 0, "server.key": "k", "pool.sync": 0.05, "relay.failover.backoff": 0.01}
    recorder = Recorder(lambda fact: on.facts.append(fact))
    with trio.fail_after(30):
        async with open_simulator(load({"KIROSTREAM_CONFIG_DIR": str(tmp_path)}), recorder) as (simulator, url):
            on = Place(tmp_path, simulator)
            before(simulator)
            for name in accounts:
                await on.keep(name)
            named = {name.replace("__", "."): value for name, value in more.items()}
            hosts: dict[str, object] = {"kiro.endpoint": url, "keeper.hosts.social": url, "keeper.hosts.oidc": url}
            settings = load({"KIROSTREAM_CONFIG_DIR": str(tmp_path)}, arguments=arguments | hosts | named)
            env = {"HOME": str(tmp_path)}

            async def find() -> Discovery:
                return await look_for_accounts(settings, env, tmp_path)

            found = await find_accounts(settings, env, tmp_path)
            found_them()
            async with (
                open_gateway(settings, found, data_dir=tmp_path, recorder=recorder, find=find) as on.gateway,
                httpx.AsyncClient(base_url=on.gateway.url, headers={"x-api-key": "k"}, timeout=20) as on.client,
            ):
                yield on
    assert [fact for fact in on.facts if isinstance(fact, Faulted)] == []


async def test_who_signs_in_is_leased_at_once(tmp_path: Path) -> None:
    async with place(tmp_path, "ann") as on:
        status = await on.status()
        assert (status["mode"], status["total_tokens"], status["healthy_tokens"]) == ("single-account", 1, 1)
        await on.keep("bob")
        await on.are("ann", "bob")
        for _ in range(4):
            assert (await on.ask()).status_code == 200
        assert on.asked() == {"ann": 2, "bob": 2}
        assert [fact.account for fact in on.facts if isinstance(fact, AccountJoined)] == ["bob"]
        status = await on.status()
        assert (status["mode"], status["total_tokens"], status["healthy_tokens"]) == ("multi-account", 2, 2)
        assert [(each["label"], each["state"], each["requests"]) for each in status["accounts"]] == [
            ("ann", "ready", 2),
            ("bob", "ready", 2),
        ]
        assert "aoa-" not in json.dumps(status)
        assert "aor-" not in json.dumps(status)


@pytest.mark.parametrize("how", ["removed", "disabled"])
async def test_who_leaves_gets_no_new_turns_and_ends_those_it_has(tmp_path: Path, how: str) -> None:
    async with place(tmp_path, "ann") as on:
        ann = (await on.roster.entries())[0].id
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(await on.ask("[[slow:20]][[tokens:50]]"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: on.simulator.snapshot().active == 1)
            await on.keep("bob")
            await (on.roster.remove(ann) if how == "removed" else on.roster.enable(ann, False))
            await on.are("bob")
            for _ in range(3):
                assert (await on.ask()).status_code == 200
            assert answers == []
        assert answers[0].status_code == 200
        assert len(answers[0].json()["choices"][0]["message"]["content"].split()) == 50
        assert on.asked() == {"ann": 1, "bob": 3}
        assert [fact.account for fact in on.facts if isinstance(fact, AccountLeft)] == ["ann"]
        if how == "disabled":
            await on.roster.enable(ann, True)
            await on.are("ann", "bob")
            for _ in range(2):
                assert (await on.ask()).status_code == 200
            assert on.asked()["ann"] == 2


async def test_where_nobody_is_left_a_client_is_told_what_to_do(tmp_path: Path) -> None:
    async with place(tmp_path, "ann") as on:
        ann = (await on.roster.entries())[0].id
        await on.roster.remove(ann)
        await on.are()
        refused = await on.ask()
        assert refused.status_code == 503
        assert "kirostream login" in refused.text
        assert (await on.status())["total_tokens"] == 0
        await on.keep("bob")
        await on.are("bob")
        assert (await on.ask()).status_code == 200


async def test_who_had_to_sign_in_again_and_did(tmp_path: Path) -> None:
    async with place(tmp_path, "bob") as on:
        good = on.simulator.credential("ann")
        lost = replace(good, refresh_token=Secret("aorLOST"), access_token=Secret(""), expires_at=None)
        await on.keep("ann", lost)
        await on.are("ann", "bob")
        for _ in range(3):
            assert (await on.ask()).status_code == 200
        assert [(each["label"], each["state"]) for each in (await on.status())["accounts"]] == [
            ("bob", "ready"),
            ("ann", "needs login"),
        ]
        await on.keep("ann", good)
        await until(lambda: {each.state.value for each in on.gateway.pool.snapshot().accounts} == {"ready"})
        before = on.asked()["ann"]
        for _ in range(2):
            assert (await on.ask()).status_code == 200
        assert on.asked()["ann"] == before + 1


async def test_a_list_that_is_damaged_changes_nothing_and_is_told_once(tmp_path: Path) -> None:
    async with place(tmp_path, "ann") as on:
        path = tmp_path / "accounts.json"
        good = path.read_bytes()
        path.write_bytes(b"{")
        await until(lambda: any(isinstance(fact, PoolTroubled) for fact in on.facts))
        await trio.sleep(0.3)
        assert len([fact for fact in on.facts if isinstance(fact, PoolTroubled)]) == 1
        assert (await on.ask()).status_code == 200
        path.write_bytes(good)
        await on.keep("bob")
        await on.are("ann", "bob")


async def test_an_account_that_cannot_be_read_just_now_stays(tmp_path: Path) -> None:
    async with place(tmp_path, "ann") as on:
        (record,) = [path for path in (tmp_path / "sealed").rglob("*") if path.is_file() and "key" not in path.name]
        record.write_bytes(b"damaged")
        await on.keep("bob")
        await on.are("ann", "bob")
        for _ in range(2):
            assert (await on.ask()).status_code == 200
        assert on.asked() == {"ann": 1, "bob": 1}


def spoil(path: Path) -> None:
    path.write_text("{")


async def test_the_file_of_another_program_that_cannot_be_read_just_now_stays(tmp_path: Path) -> None:
    def write(simulator: Simulator) -> None:
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(simulator.token_file("ann")))

    path = tmp_path / ".aws" / "sso" / "cache" / "kiro-auth-token.json"
    async with place(tmp_path, before=write, found_them=lambda: spoil(path)) as on:
        await until(lambda: any(isinstance(fact, PoolTroubled) for fact in on.facts))
        assert (await on.ask()).status_code == 200
        await on.keep("bob")  # from now on the list decides
        await on.are("bob")


def test_the_commands_and_a_gateway_that_runs(tmp_path: Path, upstream: dict[str, str]) -> None:  # noqa: F811
    log_in(tmp_path, upstream, "--social", "google", "--browser", "--name", "ann", who="ann")
    env = {**upstream, "PROXY_API_KEY": KEY, "KIROSTREAM_POOL_SYNC": "0.1"}
    process, url, _ = start(tmp_path, "serve", "--port", "0", **env)
    try:
        with httpx.Client(base_url=url, headers={"x-api-key": KEY}, timeout=20) as client:

            def states() -> dict[str, str]:
                said = client.get("/v1/accounts/status").json()["accounts"]
                return {each["label"]: each["state"] for each in said}

            def become(wanted: dict[str, str]) -> None:
                deadline = time.monotonic() + 10
                while states() != wanted:
                    assert time.monotonic() < deadline, (states(), wanted)
                    time.sleep(0.05)

            become({"ann": "ready"})
            log_in(tmp_path, upstream, "--social", "github", "--browser", "--name", "bob", who="bob")
            become({"ann": "ready", "bob": "ready"})
            assert kirostream(tmp_path, "accounts", "disable", "ann", **env).returncode == 0
            become({"bob": "ready"})
            body = {"model": "auto", "messages": [{"role": "user", "content": "[[say:x]]"}]}
            assert client.post("/v1/chat/completions", json=body).status_code == 200
            assert kirostream(tmp_path, "accounts", "enable", "ann", **env).returncode == 0
            assert kirostream(tmp_path, "accounts", "remove", "bob", **env).returncode == 0
            become({"ann": "ready"})
            listed = json.loads(kirostream(tmp_path, "accounts", "list", "--json", **env).stdout)["accounts"]
            assert [each["label"] for each in listed] == ["ann"]
            assert client.get("/v1/accounts/status", headers={"x-api-key": "wrong"}).status_code == 401
    finally:
        stop(process)
