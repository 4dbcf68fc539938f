"""The simulator in the place of the service: switched on and off while turns are in flight, and nothing mixes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio

from e2e.test_faults import until
from e2e.test_house import Place, place
from helpers.operating import place as demo
from kirostream.net.exchange import Exchange
from kirostream.settings import Settings
from kirostream.simulator.upstream import Simulator
from kirostream.telemetry.facts import ServiceChanged, TokenRefreshed, TurnFinished

PATH = "/admin/api/simulator"
OTHER: Final[dict[str, Any]] = {"simulator__seed": 7, "simulator__refresh_token": "aor-of-the-stand-in"}
"""Of the stand-in, so that its tokens are not those of the service, which is a simulator here, too."""

Heads = dict[Simulator, list[tuple[str, bytes]]]


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> Heads:
    """What each simulator was sent: path and credential."""
    seen: Heads = {}
    serve = Simulator.__call__

    async def listening(self: Simulator, exchange: Exchange) -> None:
        request = exchange.request
        seen.setdefault(self, []).append((request.path, request.header(b"authorization") or b""))
        await serve(self, exchange)

    monkeypatch.setattr(Simulator, "__call__", listening)
    return seen


async def turn(on: Place, *, to: bool) -> dict[str, Any]:
    answer = await on.client.put(PATH, json={"on": to})
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def state(on: Place) -> dict[str, Any]:
    said: dict[str, Any] = (await on.client.get("/admin/api/status")).json()
    return said


def finished(on: Place) -> list[tuple[str, str, float | None]]:
    return [(fact.provider, fact.outcome, fact.credits) for fact in on.facts if isinstance(fact, TurnFinished)]


async def test_turns_are_asked_of_the_simulator_and_of_the_service_again(tmp_path: Path) -> None:
    async with place(tmp_path, "ann", **OTHER) as on:
        assert (await state(on))["simulated"] is False
        assert (await on.client.get(PATH)).json() == {"on": False, "demo": False, "in_flight": 0}
        assert (await on.ask()).status_code == 200
        assert await turn(on, to=True) == {"on": True, "demo": False, "in_flight": 0}
        assert await turn(on, to=True) == {"on": True, "demo": False, "in_flight": 0}
        said = await state(on)
        assert (said["simulated"], said["upstream"]) == (True, "the built-in simulator")
        assert [each["label"] for each in (await on.status())["accounts"]] == ["simulator"]
        for _ in range(3):
            assert (await on.ask()).status_code == 200
        assert on.asked() == {"ann": 1}
        await turn(on, to=False)
        assert (await state(on))["simulated"] is False
        assert (await on.ask()).status_code == 200
        assert on.asked() == {"ann": 2}
        assert [provider for provider, _, _ in finished(on)] == ["kiro", "simulator", "simulator", "simulator", "kiro"]
        assert [spent is None for _, _, spent in finished(on)] == [False, True, True, True, False]
        changes = [fact.state for fact in on.facts if isinstance(fact, ServiceChanged) and fact.service == "simulator"]
        assert changes == ["in place of the service", "off"]


async def test_turns_in_flight_end_where_they_began(tmp_path: Path, heads: Heads) -> None:
    answers: list[httpx.Response] = []

    async def ask() -> None:
        answers.append(await on.ask("[[slow:20]][[tokens:50]]"))

    def serving(simulator: Simulator) -> int:
        return simulator.snapshot().active

    async with place(tmp_path, "ann", **OTHER) as on, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await until(lambda: serving(on.simulator) == 1)
        await turn(on, to=True)
        (await on.ask()).raise_for_status()
        (stand_in,) = set(heads) - {on.simulator}
        nursery.start_soon(ask)
        await until(lambda: serving(stand_in) == 1)
        assert (await on.client.get(PATH)).json()["in_flight"] == 1
        await turn(on, to=False)
        assert await turn(on, to=True) == {"on": True, "demo": False, "in_flight": 1}  # another, beside the first
        (await on.ask()).raise_for_status()
        assert len(heads) == 3
        assert answers == []
        assert (serving(on.simulator), serving(stand_in)) == (1, 1)
        assert await turn(on, to=False) == {"on": False, "demo": False, "in_flight": 1}
        await until(lambda: len(answers) == 2)
        assert [answer.status_code for answer in answers] == [200, 200]
        assert on.asked() == {"ann": 1}
        await until(lambda: "0 turns there" in repr(on.gateway.switch))
        assert [outcome for _, outcome, _ in finished(on)] == ["end"] * 4


async def test_no_credential_goes_to_the_wrong_place(tmp_path: Path, heads: Heads) -> None:
    """Not of the house, not of a guest, not in a turn, a list of models, a usage or a refresh."""

    def guest() -> dict[str, str]:
        token = on.simulator.credential("bob").refresh_token.reveal()
        return {"authorization": "Bearer internal", "x-kiro-refresh-token": token}

    async def bring() -> int:
        body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
        async with httpx.AsyncClient(base_url=on.gateway.url) as client:
            return (await client.post("/v1/chat/completions", json=body, headers=guest())).status_code

    async with place(tmp_path, "ann", guests__key="internal", **OTHER) as on:
        for to in (True, False, True):
            await turn(on, to=to)
            assert (await on.ask()).status_code == 200
            assert await bring() == 200
            (await on.client.get("/v1/models")).raise_for_status()
        (account,) = (await on.client.get("/admin/api/accounts")).json()["accounts"]
        (await on.client.post(f"/admin/api/accounts/{account['id']}/refresh")).raise_for_status()
        assert [fact.account for fact in on.facts if isinstance(fact, TokenRefreshed)][-1] == "ann"
        assert on.asked() == {"ann": 1, "bob": 1}
        assert len(heads) == 3
        real = heads.pop(on.simulator)
        simulated = [sent for each in heads.values() for sent in each]
        assert {credential for _, credential in simulated}.isdisjoint(credential for _, credential in real)
        assert "/refreshToken" in [path for path, _ in real]
        assert "/refreshToken" not in [path for path, _ in simulated]


async def test_nothing_of_it_is_there_after_a_restart(tmp_path: Path) -> None:
    async with place(tmp_path, "ann", **OTHER) as on:
        await turn(on, to=True)
        (await on.ask()).raise_for_status()
        before = on.simulator
    async with place(tmp_path, before=lambda simulator: None, simulator__seed=7) as on:
        assert before is not on.simulator
        assert (await on.client.get(PATH)).json()["on"] is False
        assert [each["label"] for each in (await on.status())["accounts"]] == ["ann"]
    assert "of-the-stand-in" not in "".join(path.read_text("latin-1") for path in files(tmp_path))


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("accounts", [[], ["ann"]])
async def test_it_can_be_a_setting(tmp_path: Path, accounts: list[str]) -> None:
    async with place(tmp_path, *accounts, simulator__instead=True, **OTHER) as on:
        said = await state(on)
        assert (said["status"], said["reasons"], said["simulated"]) == ("healthy", [], True)
        assert (await on.ask()).status_code == 200
        assert on.asked() == {}
        await turn(on, to=False)
        said = await state(on)
        assert said["status"] == ("healthy" if accounts else "unhealthy")
        assert (await on.ask()).status_code == (200 if accounts else 503)


async def test_a_demo_has_nothing_else(tmp_path: Path) -> None:
    async with demo(tmp_path) as at:
        assert (await at.get("/admin/api/status"))["simulated"] is True
        assert (await at.get(PATH)) == {"on": True, "demo": True, "in_flight": 0}
        assert (await at.ask("PUT", PATH, {"on": True})).status_code == 200
        refused = await at.ask("PUT", PATH, {"on": False})
        assert (refused.status_code, refused.json()["error"]["type"]) == (409, "conflict")
        assert "without --demo" in refused.json()["error"]["message"]


async def test_credits_of_the_simulator_are_no_ones(tmp_path: Path) -> None:
    async with place(tmp_path, "ann", **OTHER) as on:
        given = {"name": "tool", "scopes": ["api"], "limits": {"credits_per_day": 0.0001}}
        answer = await on.client.post("/admin/api/keys", json=given)
        assert answer.status_code in (200, 201), answer.text
        key = answer.json()["secret"]
        body = {"model": "auto", "messages": [{"role": "user", "content": "[[say:x]]"}]}
        headers = {"x-api-key": key}
        await turn(on, to=True)
        for _ in range(3):
            assert (await on.client.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200
        await turn(on, to=False)
        assert (await on.client.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200
        assert (await on.client.post("/v1/chat/completions", json=body, headers=headers)).status_code == 429


async def test_the_light_is_green_where_accounts_come_with_requests(tmp_path: Path) -> None:
    async with place(tmp_path, guests__key="internal") as on:
        said = await state(on)
        assert (said["status"], said["reasons"], said["accounts"]) == ("healthy", [], {})
    async with place(tmp_path, "ann", guests__key="internal") as on:
        (account,) = on.gateway.pool.snapshot().accounts
        await on.gateway.pool.disable(account.id, "out of order")
        said = await state(on)
        assert said["status"] == "degraded"
        assert said["reasons"][0]["code"] == "no_account"


def test_it_is_off_by_default() -> None:
    assert Settings().simulator.instead is False
