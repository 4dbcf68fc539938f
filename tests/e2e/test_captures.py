"""Debug captures of a gateway that runs: switched on and off, and looked at, through both doors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio_websocket
from typer.testing import CliRunner

from e2e.test_metrics import DOORS, KEY, PATHS, ask, running
from helpers.operating import place
from kirostream.app import Gateway
from kirostream.commands.app import app
from kirostream.telemetry.captures import CaptureSettings

SECRET = "aoaAAAAAGl0b2tlbi1vZi1zb21lYm9keQ"
CLI = CliRunner()


async def captures(client: httpx.AsyncClient, url: str) -> list[dict[str, Any]]:
    """Every capture, as the export has it, oldest first; none is under way."""
    while (await client.get(f"{url}/admin/api/captures", headers=KEY)).json()["queued"]:
        await trio.sleep(0.001)
    answer = await client.get(f"{url}/admin/api/captures/export", headers=KEY)
    assert answer.headers["content-disposition"] == 'attachment; filename="kirostream-captures.json"'
    return [each["capture"] for each in reversed(answer.json()["captures"])]


def switch(gateway: Gateway, mode: str) -> None:
    gateway.relay.adopt(replace(gateway.steering.now.relay, captures=CaptureSettings(mode=mode)))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_exchange_is_captured_on_both_sides(door: str, path: str, stream: bool, tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with running(tmp_path) as (gateway, urls), httpx.AsyncClient(timeout=20) as client:
            url = urls[door]
            said = f"[[say:one two {SECRET}]] I am a@example.org"
            plain = await client.post(url + path, json=ask(path, said, stream=stream), headers=KEY)
            assert await captures(client, url) == []
            switch(gateway, "all")
            answer = await client.post(url + path, json=ask(path, said, stream=stream), headers=KEY)
            assert answer.status_code == 200
            assert len(answer.content) == pytest.approx(len(plain.content), abs=20), "it is what it was"
            (found,) = await captures(client, url)
            assert found["request_id"] == (answer.headers.get("x-request-id") or answer.headers["request-id"])
            assert found["asked"]["path"] == path
            assert "[[say:one two ****]] I am ****" in json.dumps(found["asked"]["body"])
            (one,) = found["tries"]
            assert one["sent"]["body"]["profileArn"] == "****"
            assert one["came"]["status"] == 200
            assert one["came"]["body"][0]["run"]["payload"]["content"] == "one two ****"
            assert "one two ****" in json.dumps(found["answer"]["body"])
            assert found["answer"]["bytes"] == len(answer.content)
            assert found["outcomes"][0]["turn"] == found["turns"][0]
            assert SECRET not in json.dumps(found)
            switch(gateway, "off")
            await client.post(url + path, json=ask(path, said, stream=stream), headers=KEY)
            assert len(await captures(client, url)) == 1


@pytest.mark.parametrize("path", PATHS)
async def test_of_errors_the_failed_ones_are_kept(path: str, tmp_path: Path) -> None:
    with trio.fail_after(30):
        mode: dict[str, Any] = {"relay.captures.mode": "errors"}
        async with running(tmp_path, **mode) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            url = urls["http1"]
            for fate in ("[[say:one]]", "[[error:CONTEXT]]", "[[tokens:50]][[cut:20]]"):
                answer = await client.post(url + path, json=ask(path, fate, stream=True), headers=KEY)
                assert answer.status_code in (200, 400)
            await client.post(url + path, content=b"{", headers=KEY)
            found = await captures(client, url)
            assert len(found) == 3
            refused, broken, malformed = found
            assert (refused["status"], refused["tries"][0]["came"]["status"]) == (400, 400)
            assert "ContextOverflow" in refused["tries"][0]["error"]
            assert broken["status"] == 200
            assert "StreamCut" in broken["error"]
            assert broken["tries"][-1]["came"]["body"][0]["run"]["frame"] == "assistantResponseEvent"
            assert (malformed["status"], malformed["tries"], malformed["asked"]["body"]) == (400, [], "{")


async def test_a_turn_of_a_socket_and_of_several_answers(tmp_path: Path) -> None:
    with trio.fail_after(30):
        mode: dict[str, Any] = {"relay.captures.mode": "all"}
        async with running(tmp_path, **mode) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            url, path = urls["http1"], "/v1/chat/completions"
            body = {**ask(path, "[[say:one]]", stream=False), "n": 2}
            assert (await client.post(url + path, json=body, headers=KEY)).status_code == 200
            (found,) = await captures(client, url)
            assert (len(found["turns"]), len(found["tries"])) == (2, 2)
            place = url.replace("http", "ws") + "/v1/stream"
            async with trio_websocket.open_websocket_url(place, extra_headers=[(b"x-api-key", b"k")]) as socket:
                request = ask(path, "[[say:one]]", stream=True)
                await socket.send_message(json.dumps({"op": "start", "dialect": "openai_chat", "request": request}))
                while len(every := await captures(client, url)) < 2:
                    await trio.sleep(0.01)
            assert every[1]["asked"] == {}, "what goes over a socket belongs to several turns"
            assert every[1]["tries"][0]["came"]["status"] == 200


async def test_what_is_no_question_is_not_captured(tmp_path: Path) -> None:
    with trio.fail_after(30):
        mode: dict[str, Any] = {"relay.captures.mode": "all"}
        async with running(tmp_path, **mode) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            url = urls["http1"]
            await client.get(f"{url}/v1/models", headers=KEY)
            await client.post(f"{url}/admin/api/session", json={"password": "k"})
            assert await captures(client, url) == []


async def test_it_is_switched_by_a_setting_that_acts_at_once(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        for mode, count in (("all", 1), ("off", 1), ("errors", 1), ("all", 2)):
            done = await at.ask("PUT", "/admin/api/settings/relay.captures.mode", {"value": mode})
            assert (done.status_code, done.json()["acts"]) == (200, "now")
            assert (await at.say("[[say:one]]")).status_code == 200
            while (said := await at.get("/admin/api/captures"))["queued"]:
                await trio.sleep(0.001)
            assert (said["mode"], len(said["captures"])) == (mode, count)


async def test_the_admin_api(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with running(tmp_path) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            url, path = urls["http1"], "/v1/messages"
            await client.post(url + path, json=ask(path, "[[error:VALIDATION]]", stream=False), headers=KEY)
            listed = (await client.get(f"{url}/admin/api/captures", headers=KEY)).json()
            (entry,) = listed["captures"]
            assert (listed["mode"], entry["kind"], entry["status"]) == ("off", "form", 400)
            one = (await client.get(f"{url}/admin/api/captures/{entry['id']}", headers=KEY)).json()
            assert (one["kind"], one["turns"]) == ("form", entry["turns"])
            for wrong in ("none", "..%2Fkey", "export.capture.json"):
                assert (await client.get(f"{url}/admin/api/captures/{wrong}", headers=KEY)).status_code == 404
            gone = await client.request("DELETE", f"{url}/admin/api/captures", headers=KEY)
            assert gone.json() == {"deleted": 1}
            assert (await client.get(f"{url}/admin/api/captures", headers=KEY)).json()["captures"] == []


async def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    monkeypatch.setenv("KIROSTREAM_DATA_DIR", str(folder))
    monkeypatch.setenv("KIROSTREAM_CONFIG_DIR", str(tmp_path))

    def run(*arguments: str) -> str:
        done = CLI.invoke(app, ["captures", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "relay.captures.mode errors" in run("list")
    mode: dict[str, Any] = {"relay.captures.mode": "errors"}
    with trio.fail_after(30):
        async with running(tmp_path, folder=folder, **mode) as (_, urls), httpx.AsyncClient(timeout=20) as client:
            path = "/v1/messages"
            body = ask(path, "[[error:VALIDATION]] my plan", stream=False)
            await client.post(urls["http1"] + path, json=body, headers=KEY)
    exchange, form = sorted((line.split() for line in run("list").splitlines()), key=lambda line: line[1])
    assert (exchange[1:3], form[1:3]) == (["exchange", "400"], ["form", "400"])
    assert [each["id"] for each in json.loads(run("list", "--json"))] == [form[0], exchange[0]]
    assert "my plan" in run("show", exchange[0])
    assert "my plan" not in run("show", form[0])
    run("export", str(tmp_path / "all.json"))
    run("export", "--forms", str(tmp_path / "forms.json"))
    both, forms = (json.loads((tmp_path / name).read_text())["captures"] for name in ("all.json", "forms.json"))
    assert (len(both), [each["capture"]["kind"] for each in forms]) == (2, ["form"])
    told = CLI.invoke(app, ["report", str(tmp_path / "report.json")])
    assert "kirostream captures export" in told.output
    report = (tmp_path / "report.json").read_text()
    assert "my plan" not in report
    assert json.loads(report)["captures"] == {"forms": {form[0]: forms[0]["capture"]}, "exchanges": 1}
    assert run("clear") == "2 deleted.\n"
    with pytest.raises(Exception, match="There is no capture"):
        CLI.invoke(app, ["captures", "show", "none"], catch_exceptions=False)
