"""Several doors on one relay, with the SDKs over TLS and HTTP/2; and the application under a hypercorn of one's own."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
import trio
import websockets.sync.client

from e2e.conftest import clean_env
from e2e.test_faults import until
from helpers.certs import certificate, trusting
from kirostream.app import open_gateway
from kirostream.errors import SettingsError
from kirostream.running import drain
from kirostream.settings import load
from kirostream.telemetry.facts import Fact, Faulted
from kirostream.telemetry.recorder import Recorder

AUTH = {"x-api-key": "k"}
TLS: dict[str, object] = {"port": 0, "certfile": certificate()[0], "keyfile": certificate()[1]}


def ask(said: str, **more: Any) -> dict[str, Any]:
    return {"model": "auto", "max_tokens": 10_000, "messages": [{"role": "user", "content": said}], **more}


def sdks(url: str, context: ssl.SSLContext) -> None:
    """Both SDKs, streamed and whole, with their own HTTP client over HTTP/2."""
    with httpx2.Client(http2=True, verify=context, timeout=20) as web:
        claude = anthropic.Anthropic(base_url=url, api_key="k", http_client=web)
        message: Any = ask("[[say:hello 日本 😀]]")
        assert claude.messages.create(**message).content[0].text == "hello 日本 😀"
        with claude.messages.stream(**message) as stream:
            assert "".join(stream.text_stream) == "hello 日本 😀"
        gpt = openai.OpenAI(base_url=f"{url}/v1", api_key="k", http_client=web)
        chunks = gpt.chat.completions.create(**message, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "hello 日本 😀"
        with pytest.raises(openai.BadRequestError, match="messages"):
            gpt.chat.completions.create(model="auto", messages=3)  # type: ignore[call-overload]
        assert web.get(f"{url}/health").http_version == "HTTP/2"


async def test_sdks_over_http_2_and_a_turn_watched_through_every_door(tmp_path: Path) -> None:
    unix = tmp_path / "s"
    listen = [TLS, {"port": 0}, {"port": 0, "door": "http1"}, {"path": str(unix)}]
    arguments = {"server.port": 0, "server.key": "k", "listen": listen}
    settings = load({"KIROSTREAM_CONFIG_DIR": str(tmp_path)}, arguments=arguments)
    facts: list[Fact] = []
    with trio.fail_after(50):
        async with open_gateway(settings, None, data_dir=tmp_path, recorder=Recorder(facts.append)) as gateway:
            assert unix.stat().st_mode & 0o777 == 0o600
            await trio.to_thread.run_sync(sdks, gateway.more_urls[0], trusting("h2", "http/1.1"))
            heard: dict[str, bytes] = {}

            async def watch(url: str, turn: str) -> None:
                transport = httpx.AsyncHTTPTransport(uds=str(unix)) if "unix" in url else None
                async with httpx.AsyncClient(
                    http2=True, verify=trusting("h2", "http/1.1"), headers=AUTH, timeout=20, transport=transport
                ) as client:
                    base = "http://x" if "unix" in url else url
                    heard[url] = (await client.get(f"{base}/v1/turns/{turn}/events")).content

            async with httpx.AsyncClient(headers={**AUTH, "x-kirostream-resumable": "true"}, timeout=20) as client:
                body = ask("[[slow:3]][[tokens:60]]", stream=True)
                async with client.stream("POST", f"{gateway.url}/v1/messages", json=body) as answer:
                    turn = answer.headers["x-kirostream-turn"]
                    async with trio.open_nursery() as nursery:
                        for url in gateway.more_urls:
                            nursery.start_soon(watch, url, turn)
                        first = await answer.aread()
            assert list(heard.values()) == [first] * 4
            assert first.endswith(b'data: {"type":"message_stop"}\n\n')

            def socket_client() -> None:
                url = f"wss{gateway.more_urls[0][5:]}/v1/responses"
                with websockets.sync.client.connect(url, ssl=trusting(), additional_headers=AUTH) as client:
                    client.send('{"type":"response.create","model":"auto","input":"[[say:over a socket]]"}')
                    while "response.completed" not in (event := client.recv(timeout=20)):
                        pass
                    assert "over a socket" in event

            await trio.to_thread.run_sync(socket_client)
            await until(lambda: gateway.relay.snapshot().in_flight == 0)
            await drain(gateway, 5)
    assert not unix.exists()
    assert [fact for fact in facts if isinstance(fact, Faulted)] == []


async def test_a_certificate_that_is_none_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no")
    listen = [{"port": 0, "certfile": str(tmp_path / "no.pem"), "keyfile": str(tmp_path / "no.pem")}]
    arguments = {"server.port": 0, "server.key": "k", "listen": listen}
    settings = load({"KIROSTREAM_CONFIG_DIR": str(tmp_path)}, arguments=arguments)
    with pytest.RaisesGroup(SettingsError, flatten_subgroups=True, allow_unwrapped=True) as caught:
        async with open_gateway(settings, None, data_dir=tmp_path, recorder=Recorder(lambda _: None)):
            pass
    assert "no.pem" in repr(caught.value)


def test_under_a_hypercorn_of_ones_own(tmp_path: Path) -> None:
    """As the README has it, with the listening socket passed on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        certfile, keyfile = certificate()
        command = [sys.executable, "-m", "hypercorn", "-k", "trio", "--bind", f"fd://{listening.fileno()}"]
        command += ["--certfile", certfile, "--keyfile", keyfile, "kirostream.asgi:demo"]
        process = subprocess.Popen(
            command,
            env={**clean_env(tmp_path, PROXY_API_KEY="k"), "PYTHONPATH": str(Path(__file__).parents[2])},
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            sdks(f"https://127.0.0.1:{port}", trusting("h2", "http/1.1"))
        finally:
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=20)[0]
    assert process.returncode == 0, said
    assert "Traceback" not in said, said
