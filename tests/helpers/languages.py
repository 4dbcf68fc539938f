"""The public languages, side by side: a body that asks, and what their streams say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Language:
    """One language as a test speaks it."""

    name: str
    path: str

    def ask(self, prompt: str, *, stream: bool = True, **more: Any) -> dict[str, Any]:
        """A request body."""
        if self.name == "openai_responses":
            return {"model": "claude-sonnet-4.5", "stream": stream, "input": prompt, **more}
        body = {
            "model": "claude-sonnet-4.5",
            "stream": stream,
            "messages": [{"role": "user", "content": prompt}],
            **more,
        }
        return {"max_tokens": 1_000_000, **body} if self.name == "anthropic" else body

    def events(self, body: bytes) -> list[dict[str, Any]]:
        """The JSON of every event of a stream, without the end mark."""
        lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
        return [json.loads(line) for line in lines if line != b"[DONE]"]

    def text(self, body: bytes) -> str:
        """The text that a stream says."""
        said = []
        for event in self.events(body):
            if self.name == "anthropic":
                said.append(event.get("delta", {}).get("text", ""))
            elif self.name == "openai_responses":
                said.append(event["delta"] if event["type"] == "response.output_text.delta" else "")
            else:
                said += [choice["delta"].get("content") or "" for choice in event.get("choices", [])]
        return "".join(said)

    def whole_text(self, body: bytes) -> str:
        """The text of a whole answer."""
        answer = json.loads(body)
        if self.name == "anthropic":
            return "".join(block.get("text", "") for block in answer["content"])
        if self.name == "openai_responses":
            return "".join(part["text"] for item in answer["output"] for part in item.get("content", ()))
        return answer["choices"][0]["message"]["content"] or ""

    def is_whole(self, body: bytes) -> bool:
        """Whether a stream says that it is complete."""
        ends = {"anthropic": b"event: message_stop", "openai_responses": b"event: response.completed"}
        return ends[self.name] in body if self.name in ends else body.endswith(b"data: [DONE]\n\n")

    def error(self, body: bytes) -> dict[str, Any]:
        """The error that a stream or a whole answer holds; empty where there is none."""
        if body.startswith(b"{"):
            found: dict[str, Any] = json.loads(body).get("error", {})
            return found
        if self.name == "openai_responses":
            failed = (event["response"]["error"] for event in self.events(body) if event["type"] == "response.failed")
            return next(failed, {})
        return next((event["error"] for event in self.events(body) if "error" in event), {})


LANGUAGES = [
    Language("anthropic", "/v1/messages"),
    Language("openai_chat", "/v1/chat/completions"),
    Language("openai_responses", "/v1/responses"),
]
