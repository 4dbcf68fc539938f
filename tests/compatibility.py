# ruff: noqa: E501  one row a line
"""What kirostream does with every field: the rows of docs/compatibility.md, each with a sample that proves it.

``python tests/compatibility.py`` writes the page anew; `test_compatibility.py` holds the page to the rows, and the rows
to the code. A status is one of:

- supported: it reaches the model, or the answer, as the API says;
- emulated: Kiro has no such thing; the gateway does it;
- ignored: it is taken and changes nothing;
- refused: a 400 that names the field.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).parents[1] / "docs" / "compatibility.md"
SUPPORTED, EMULATED, IGNORED, REFUSED = "supported", "emulated", "ignored", "refused"


@dataclass(frozen=True)
class Row:
    """One field. `sample` is what it adds to the smallest body that is a request."""

    field: str
    status: str
    note: str
    sample: dict[str, Any]


_HI: Final = {"role": "user", "content": "hi"}
SMALLEST: Final[dict[str, Any]] = {
    "model": "m",
    "max_tokens": 64_000,
    "messages": [_HI, {"role": "assistant", "content": "x"}, _HI],
}
"""The smallest body that a sample is added to."""


def _message(role: str, *blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [*SMALLEST["messages"], {"role": role, "content": list(blocks), **more}]}


def _said(text: str, *blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The assistant said `text`, which stands in the smallest body too, and more."""
    return {"messages": [_HI, {"role": "assistant", "content": [*blocks, {"type": "text", "text": text}], **more}, _HI]}


def _user(block: dict[str, Any]) -> dict[str, Any]:
    return _message("user", block)


def _source(kind: str, **source: Any) -> dict[str, Any]:
    return _user({"type": kind, "source": source})


_CALL: Final = {"type": "tool_use", "id": "t", "name": "Read", "input": {}}
_TOOL: Final = {"name": "Read", "input_schema": {"type": "object"}}
_SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "string"}}}

ANTHROPIC: Final = (
    Row("`system`", SUPPORTED, "text or blocks; the billing header of Claude Code is dropped", {"system": "Be brief."}),
    Row("`max_tokens`", EMULATED, "by estimate; never inside a tool call", {"max_tokens": 5}),
    Row("`stop_sequences`", EMULATED, "on the stream, in text blocks", {"stop_sequences": ["x"]}),
    Row("`stream`", SUPPORTED, "", {"stream": True}),
    Row("`temperature`, `top_p`, `top_k`", IGNORED, "Kiro has none", {"temperature": 0.5, "top_k": 5}),
    Row("`thinking`", SUPPORTED, "`enabled`, `adaptive`, `disabled`", {"thinking": {"type": "adaptive"}}),
    Row("`output_config.effort`", SUPPORTED, "", {"output_config": {"effort": "high"}}),
    Row(
        "`output_config.format`",
        EMULATED,
        "a forced tool, checked against the schema, one retry",
        {"output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}}},
    ),
    Row("`tools`", SUPPORTED, "", {"tools": [_TOOL]}),
    Row("`tools`: bash, text editor, memory, computer", EMULATED, "a schema is supplied", {"tools": [{"type": "bash_20250124", "name": "bash"}]}),
    Row("`tools`: run by the service", IGNORED, "not offered to the model", {"tools": [{"type": "code_execution_20250825", "name": "c"}]}),
    Row("`tools[].defer_loading`", SUPPORTED, "loaded at once; Claude Code's placeholder is dropped", {"tools": [{**_TOOL, "defer_loading": True}]}),
    Row("`tool_choice`", EMULATED, "by fewer tools and a line in the prompt", {"tools": [_TOOL], "tool_choice": {"type": "any"}}),
    Row("`tool_choice.disable_parallel_tool_use`", EMULATED, "the turn ends before a second call", {"tools": [_TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
    Row("`metadata.user_id`", SUPPORTED, "names the conversation", {"metadata": {"user_id": "me"}}),
    Row("`cache_control`", IGNORED, "Kiro caches by itself", {"cache_control": {"type": "ephemeral"}}),
    Row("`context_management`", IGNORED, "the client's history stands as it is sent", {"context_management": {"edits": []}}),
    Row("`mcp_servers`, `container`, `service_tier`, `speed`, `safeguards`", IGNORED, "", {"mcp_servers": []}),
    Row("`thread`", REFUSED, "conversations are not kept", {"thread": {"type": "create"}}),
    Row("any other field", IGNORED, "clients are updated more often than gateways", {"new_field": 1}),
    Row("message `system`", SUPPORTED, "user text under a label", _message("system", {"type": "text", "text": "x"})),
    Row("block `text`", SUPPORTED, "", _user({"type": "text", "text": "x"})),
    Row("block `image`, base64", SUPPORTED, "png, jpeg, gif, webp", _source("image", type="base64", media_type="image/png", data="eA==")),
    Row("block `image`, url", EMULATED, "fetched by the gateway; https and the open internet", _source("image", type="url", url="https://x/y.png")),
    Row("block `image`, file", REFUSED, "files are not kept", _source("image", type="file", file_id="f")),
    Row("block `document`, PDF", EMULATED, "its text", _source("document", type="base64", media_type="application/pdf", data="eA==")),
    Row("block `document`, text or content", SUPPORTED, "", _source("document", type="text", data="x")),
    Row("block `document`, url", EMULATED, "fetched by the gateway: a PDF, a text or an image", _source("document", type="url", url="https://x")),
    Row("block `document`, file", REFUSED, "files are not kept", _source("document", type="file", file_id="f")),
    Row("block `search_result`", SUPPORTED, "as text", _user({"type": "search_result", "source": "s", "title": "t", "content": []})),
    Row("block `tool_use`", SUPPORTED, "", _message("assistant", _CALL)),
    Row("block `tool_result`", SUPPORTED, "texts, images and documents", _user({"type": "tool_result", "tool_use_id": "t", "content": "x"})),
    Row("block `tool_reference`", EMULATED, "as text", _user({"type": "tool_reference", "tool_name": "Read"})),
    Row("block `thinking`, `redacted_thinking`", IGNORED, "Kiro refuses most thoughts of earlier turns", _said("x", {"type": "thinking", "thinking": "y", "signature": "s"})),
    Row("blocks of server tools", EMULATED, "as text, without what is encrypted", _message("assistant", {"type": "server_tool_use", "name": "web_search", "input": {}})),
    Row("block `compaction`", SUPPORTED, "", _message("assistant", {"type": "compaction", "content": "x"})),
    Row("a block of another type", EMULATED, "as text", _user({"type": "new"})),
)  # fmt: skip

_FUNCTION: Final = {"type": "function", "function": {"name": "Read", "parameters": {"type": "object"}}}

OPENAI_CHAT: Final = (
    Row("`stream`", SUPPORTED, "", {"stream": True}),
    Row("`stream_options.include_usage`", SUPPORTED, "", {"stream_options": {"include_usage": True}}),
    Row("`max_tokens`, `max_completion_tokens`", EMULATED, "by estimate; the second wins", {"max_completion_tokens": 5}),
    Row("`stop`", EMULATED, "on the stream", {"stop": "x"}),
    Row("`n`", EMULATED, "as many turns side by side, up to `server.most_choices`", {"n": 2}),
    Row("`temperature`, `top_p`", IGNORED, "Kiro has none", {"temperature": 0.5}),
    Row("`reasoning_effort`", SUPPORTED, "", {"reasoning_effort": "high"}),
    Row("`response_format`", EMULATED, "a forced tool, checked against the schema, one retry", {"response_format": {"type": "json_object"}}),
    Row("`tools`: function", SUPPORTED, "", {"tools": [_FUNCTION]}),
    Row("`tools`: custom", EMULATED, "a function of one string; its grammar is told, not enforced", {"tools": [{"type": "custom", "custom": {"name": "p"}}]}),
    Row("`tools`: others", IGNORED, "not offered to the model", {"tools": [{"type": "web_search"}]}),
    Row("`functions`, `function_call`", EMULATED, "tools, answered in the old form", {"functions": [{"name": "f"}]}),
    Row("`tool_choice`", EMULATED, "by fewer tools and a line in the prompt", {"tools": [_FUNCTION], "tool_choice": "required"}),
    Row("`parallel_tool_calls`", EMULATED, "false: the turn ends before a second call", {"tools": [_FUNCTION], "parallel_tool_calls": False}),
    Row("`user`, `prompt_cache_key`, `safety_identifier`", SUPPORTED, "name the conversation", {"prompt_cache_key": "k"}),
    Row("`seed`, `logit_bias`, `logprobs`, penalties", IGNORED, "Kiro has none", {"seed": 1}),
    Row("`service_tier`, `store`, `metadata`, `verbosity`, `prediction`", IGNORED, "", {"store": True}),
    Row("`modalities` with audio", REFUSED, "", {"modalities": ["audio"]}),
    Row("any other field", IGNORED, "", {"new_field": 1}),
    Row("message `system`, `developer`", SUPPORTED, "in their order", _message("developer", {"type": "text", "text": "x"})),
    Row("message `tool`", SUPPORTED, "a string or parts", _message("tool", {"type": "text", "text": "x"}, tool_call_id="c")),
    Row("`reasoning_content` of an assistant", IGNORED, "Kiro refuses most thoughts of earlier turns", _said("x", reasoning_content="y")),
    Row("part `image_url`, data", SUPPORTED, "", _user({"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}})),
    Row("part `image_url`, https", EMULATED, "fetched by the gateway", _user({"type": "image_url", "image_url": {"url": "https://x/y.png"}})),
    Row("part `file`, data", EMULATED, "the text of a PDF or a text", _user({"type": "file", "file": {"file_data": "data:application/pdf;base64,eA=="}})),
    Row("part `file`, id", REFUSED, "files are not kept", _user({"type": "file", "file": {"file_id": "f"}})),
    Row("part `input_audio`", REFUSED, "", _user({"type": "input_audio", "input_audio": {}})),
    Row("`input` in place of `messages`", SUPPORTED, "a Responses body, answered as chat", {"messages": None, "input": "x"}),
)  # fmt: skip

LANGUAGES: Final = {
    "anthropic": ("Anthropic Messages", ANTHROPIC),
    "openai_chat": ("OpenAI Chat Completions", OPENAI_CHAT),
}

EVENTS: Final = {
    "anthropic": [
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"),
        *("message_stop", "ping", "error"),
    ],
    "openai_chat": ["chat.completion.chunk", "[DONE]", "error"],
}
"""What an answer's stream holds; a comment keeps a chat stream alive."""


def render() -> str:
    """The page."""
    lines = ["# Compatibility", "", *(__doc__ or "").split("\n", 4)[4].strip().splitlines(), ""]
    lines.insert(2, "What becomes of each field. Every row is proved by `tests/test_compatibility.py`. Status:")
    lines.insert(3, "")
    for name, (title, rows) in LANGUAGES.items():
        lines += [f"## {title}", "", "| field | status | |", "|---|---|---|"]
        lines += [f"| {row.field} | {row.status} | {row.note} |" for row in rows]
        lines += ["", f"Events of a stream: {', '.join(f'`{event}`' for event in EVENTS[name])}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(render())
