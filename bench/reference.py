"""The yardstick: a gateway from Messages to Kiro as one usually writes it. hypercorn, httpx, struct, zlib, json.

It does what such gateways do, and nothing slowly on purpose: one client for all upstream calls without a limit of
connections, an event a token, the upstream let go when the client leaves. It runs in hypercorn's asyncio worker, which
is its default and what httpx is mostly used with. It has no accounts, no retries, no rules for requests and no tools:
all that a comparison with a whole gateway could hold against it makes it faster.

``python -m bench.reference --port PORT --upstream URL --token TOKEN``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from hypercorn.asyncio import serve
from hypercorn.config import Config

from bench.wire import FrameReader, kiro_body

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]


class Gateway:
    """The ASGI application."""

    def __init__(self, upstream: str, token: str) -> None:
        self.url = f"{upstream}/generateAssistantResponse"
        self.headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self.client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None))

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await self.client.aclose()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["path"] == "/v1/messages":
            await self.messages(receive, send)
        else:
            status = 200 if scope["path"] == "/health" else 404
            await reply(send, status, {"status": "ok" if status == 200 else "no such path"})

    async def messages(self, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        answering = asyncio.ensure_future(self.answer(json.loads(body), send))
        leaving = asyncio.ensure_future(receive())  # the next message can only be http.disconnect
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not answering.done():
            answering.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)
        if not answering.cancelled() and (error := answering.exception()):
            raise error

    async def answer(self, question: dict[str, Any], send: Send) -> None:
        async def event(kind: str, **members: Any) -> None:
            data = json.dumps({"type": kind, **members})
            body = f"event: {kind}\ndata: {data}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})

        asked = kiro_body(question["messages"][-1]["content"])
        async with self.client.stream("POST", self.url, headers=self.headers, content=asked) as response:
            if response.status_code != 200:
                said = (await response.aread()).decode(errors="replace")
                await reply(send, 502, {"type": "error", "error": {"type": "api_error", "message": said}})
                return
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            usage = {"input_tokens": 0, "output_tokens": 0}
            message = {
                "id": f"msg_{uuid.uuid4().hex}",
                "type": "message",
                "role": "assistant",
                "content": [],
                "model": question["model"],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": usage,
            }
            await event("message_start", message=message)
            await event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            reader = FrameReader()
            async for data in response.aiter_bytes():
                for kind, payload in reader.frames(data):
                    if kind == "assistantResponseEvent":
                        usage["output_tokens"] += 1
                        text = json.loads(payload)["content"]
                        await event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
                    elif kind.endswith("Exception"):
                        await event("error", error={"type": "api_error", "message": payload.decode()})
                        return
            reader.close()
            await event("content_block_stop", index=0)
            await event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage)
            await event("message_stop")
            await send({"type": "http.response.body", "body": b""})


async def reply(send: Send, status: int, said: dict[str, Any]) -> None:
    """A whole JSON answer."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reference", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--token", required=True)
    options = parser.parse_args()
    config = Config()
    config.bind = [f"127.0.0.1:{options.port}"]
    asyncio.run(serve(Gateway(options.upstream, options.token), config))


if __name__ == "__main__":
    main()
