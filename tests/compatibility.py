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

from kirostream.dialects.openai_responses.thoughts import PLAIN, pack, pack_summary
from kirostream.turn.request import Thought

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
    Row("`thinking`", SUPPORTED, "`enabled`, `adaptive`, `disabled`; where it is absent, a beta for thinking asks for it, but for Claude Code's", {"thinking": {"type": "adaptive"}}),
    Row("`output_config.effort`", SUPPORTED, "", {"output_config": {"effort": "high"}}),
    Row(
        "`output_config.format`",
        EMULATED,
        "a forced tool, checked against the schema, one retry",
        {"output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}}},
    ),
    Row("`tools`", SUPPORTED, "", {"tools": [_TOOL]}),
    Row("`tools`: bash, text editor, memory, computer", EMULATED, "a schema is supplied", {"tools": [{"type": "bash_20250124", "name": "bash"}]}),
    Row("`tools`: web_search", EMULATED, "run over Kiro's own search; `max_uses`, both lists of domains, `user_location`", {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]}),
    Row("`tools`: others run by the service", IGNORED, "not offered to the model", {"tools": [{"type": "code_execution_20250825", "name": "c"}]}),
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
    Row("blocks `server_tool_use`, `web_search_tool_result` of a search", SUPPORTED, "a call and its result; `encrypted_content` of ours is read", _message("assistant", {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}})),
    Row("blocks of other server tools", EMULATED, "as text, without what is encrypted", _message("assistant", {"type": "server_tool_use", "name": "web_fetch", "input": {}})),
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
    Row("`reasoning_effort`", SUPPORTED, "thoughts come as `reasoning_content`, or as `server.chat_thoughts` says", {"reasoning_effort": "high"}),
    Row("`response_format`", EMULATED, "a forced tool, checked against the schema, one retry", {"response_format": {"type": "json_object"}}),
    Row("`tools`: function", SUPPORTED, "", {"tools": [_FUNCTION]}),
    Row("`tools`: custom", EMULATED, "a function of one string; its grammar is told, not enforced", {"tools": [{"type": "custom", "custom": {"name": "p"}}]}),
    Row("`tools`: others", IGNORED, "not offered to the model", {"tools": [{"type": "web_search"}]}),
    Row("`web_search_options`", EMULATED, "run over Kiro's own search; `url_citation` for the pages that the text names", {"web_search_options": {}}),
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

_ASKED: Final = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
_ANSWERED: Final = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
RESPONSES_SMALLEST: Final[dict[str, Any]] = {
    "model": "m",
    "max_output_tokens": 64_000,
    "input": [_ASKED, _ANSWERED, _ASKED],
}
"""The same of a Responses request."""


def _items(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    """More items at the end of the input."""
    return {"input": [*RESPONSES_SMALLEST["input"], *items], **more}


def _part(part: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return _items({"type": "message", "role": role, "content": [part]})


def _called(kind: str, **members: Any) -> dict[str, Any]:
    """A call and its result, of one kind."""
    output = {"type": f"{kind}_output", "call_id": "c", "output": "done"}
    return _items({"type": kind, "call_id": "c", **members}, output)


_OURS: Final = {"type": "function", "name": "Read", "parameters": {"type": "object"}}
_SEALED: Final = pack(Thought("y", "s"), PLAIN)

OPENAI_RESPONSES: Final = (
    Row("`input`", SUPPORTED, "a text or items", {"input": "x"}),
    Row("`instructions`", SUPPORTED, "", {"instructions": "Be brief."}),
    Row("`stream`", SUPPORTED, "can be resumed with `starting_after` for `responses.linger` seconds", {"stream": True}),
    Row("`stream_options`", IGNORED, "nothing is padded", {"stream_options": {"include_obfuscation": True}}),
    Row("`store`", SUPPORTED, "`responses.store.days`; false: only the same WebSocket can refer to it", {"store": False}),
    Row("`previous_response_id`", SUPPORTED, "", {"previous_response_id": "resp_1"}),
    Row("`conversation`", REFUSED, "conversations are not kept; use `previous_response_id`", {"conversation": "conv_1"}),
    Row("`background`", SUPPORTED, "polled, streamed, resumed, cancelled; has to be stored", {"background": True}),
    Row("`background` with `store` false", REFUSED, "", {"background": True, "store": False}),
    Row("`background_options`", IGNORED, "it begins at once", {"background_options": {"completion_window": "8h"}}),
    Row("`prompt`", REFUSED, "templates are not kept", {"prompt": {"id": "p"}}),
    Row("`max_output_tokens`", EMULATED, "by estimate; never inside a tool call", {"max_output_tokens": 5}),
    Row("`temperature`, `top_p`, `top_logprobs`", IGNORED, "Kiro has none", {"temperature": 0.5, "top_p": 0.5, "top_logprobs": 2}),
    Row("`truncation`", IGNORED, "what is too long is refused, and nothing is dropped", {"truncation": "auto"}),
    Row("`context_management`", IGNORED, "nothing is compacted unasked", {"context_management": [{"type": "compaction", "compact_threshold": 1}]}),
    Row("`reasoning.effort`", SUPPORTED, "`none` is no thinking; without an effort, the model's usual one", {"reasoning": {"effort": "high"}}),
    Row("`reasoning.summary`", SUPPORTED, "the thought itself, whatever the word", {"reasoning": {"summary": "auto"}}),
    Row("`include`: `reasoning.encrypted_content`", SUPPORTED, "the thought with its signature, sealed", {"include": ["reasoning.encrypted_content"]}),
    Row("`include`: `web_search_call.action.sources`", SUPPORTED, "the addresses that were found", {"include": ["web_search_call.action.sources"]}),
    Row("`include`: others", IGNORED, "there is nothing to include", {"include": ["message.output_text.logprobs"]}),
    Row("`text.format`", EMULATED, "a forced tool, checked against the schema, one retry", {"text": {"format": {"type": "json_schema", "name": "a", "schema": _SCHEMA}}}),
    Row("`text.verbosity`", IGNORED, "", {"text": {"verbosity": "low"}}),
    Row("`tools`: function", SUPPORTED, "also with `defer_loading`: loaded at once", {"tools": [{**_OURS, "defer_loading": True}]}),
    Row("`tools`: custom", EMULATED, "a function of one string; its grammar is told, not enforced", {"tools": [{"type": "custom", "name": "p"}]}),
    Row("`tools`: namespace", EMULATED, "flat names upstream, namespaces in the answer", {"tools": [{"type": "namespace", "name": "n", "tools": [_OURS]}]}),
    Row("`tools`: local_shell, shell, apply_patch", EMULATED, "functions with a schema of ours, answered as the kind they are", {"tools": [{"type": "apply_patch"}]}),
    Row("`tools`: tool_search, run by the client", EMULATED, "", {"tools": [{"type": "tool_search", "execution": "client"}]}),
    Row("`tools`: web_search, web_search_preview", EMULATED, "run over Kiro's own search; not with `external_web_access` false", {"tools": [{"type": "web_search"}]}),
    Row("`max_tool_calls`", EMULATED, "the most searches of an answer", {"tools": [{"type": "web_search"}], "max_tool_calls": 2}),
    Row("`tools`: others that the service runs", IGNORED, "not offered to the model", {"tools": [{"type": "file_search"}, {"type": "code_interpreter"}, {"type": "mcp"}]}),
    Row("`tool_choice`", EMULATED, "by fewer tools and a line in the prompt; also `allowed_tools`", {"tools": [_OURS], "tool_choice": {"type": "function", "name": "Read"}}),
    Row("`parallel_tool_calls`", EMULATED, "false: the turn ends before a second call", {"tools": [_OURS], "parallel_tool_calls": False}),
    Row("`metadata`", SUPPORTED, "repeated in the answer", {"metadata": {"a": "b"}}),
    Row("`user`, `prompt_cache_key`, `safety_identifier`", SUPPORTED, "name the conversation", {"prompt_cache_key": "k"}),
    Row("`prompt_cache_options.prewarm`, `generate`", SUPPORTED, "what was sent is kept, and no model asked", {"prompt_cache_options": {"prewarm": True}}),
    Row("`prompt_cache_options`, `prompt_cache_retention`", IGNORED, "Kiro caches by itself", {"prompt_cache_retention": "24h"}),
    Row("`service_tier`, `moderation`, `image`, `access_programs`, `client_metadata`", IGNORED, "", {"service_tier": "flex", "client_metadata": {"a": "b"}}),
    Row("any other field", IGNORED, "", {"new_field": 1}),
    Row("item `message`, also without a type", SUPPORTED, "user, assistant, system, developer", _items({"role": "developer", "content": "x"})),
    Row("`phase` of an assistant's message", IGNORED, "Kiro has no place for it", {"input": [_ASKED, {**_ANSWERED, "phase": "commentary"}, _ASKED]}),
    Row("part `input_text`, `output_text`, `refusal`", SUPPORTED, "", _part({"type": "input_text", "text": "x"})),
    Row("part `input_image`, data", SUPPORTED, "png, jpeg, gif, webp", _part({"type": "input_image", "image_url": "data:image/png;base64,eA=="})),
    Row("part `input_image`, https", EMULATED, "fetched by the gateway", _part({"type": "input_image", "image_url": "https://x/y.png"})),
    Row("part `input_image`, `file_id`", REFUSED, "files are not kept", _part({"type": "input_image", "file_id": "f"})),
    Row("part `input_file`, `file_data`", EMULATED, "the text of a PDF, a text, or an image", _part({"type": "input_file", "file_data": "data:application/pdf;base64,eA=="})),
    Row("part `input_file`, `file_url`", EMULATED, "fetched by the gateway: a PDF, a text or an image", _part({"type": "input_file", "file_url": "https://x/y.pdf"})),
    Row("part `input_file`, `file_id`", REFUSED, "files are not kept", _part({"type": "input_file", "file_id": "f"})),
    Row("part `input_audio`", REFUSED, "", _part({"type": "input_audio"})),
    Row("a part of another type", EMULATED, "as text", _part({"type": "new"})),
    Row("item `function_call`, `function_call_output`", SUPPORTED, "output: a text, images and files", _called("function_call", name="Read", arguments="{}")),
    Row("item `custom_tool_call`, and its output", SUPPORTED, "", _called("custom_tool_call", name="p", input="x")),
    Row("item `local_shell_call`, and its output", SUPPORTED, "", _called("local_shell_call", action={"type": "exec", "command": ["ls"]})),
    Row("item `shell_call`, and its output", SUPPORTED, "", _called("shell_call", action={"commands": ["ls"]})),
    Row("item `apply_patch_call`, and its output", SUPPORTED, "", _called("apply_patch_call", operation={"type": "delete_file", "path": "a"})),
    Row("item `tool_search_call`, `tool_search_output`", SUPPORTED, "the tools that were found can be called", _items({"type": "tool_search_call", "call_id": "c", "execution": "client", "arguments": {}}, {"type": "tool_search_output", "call_id": "c", "tools": [_OURS]})),
    Row("item `additional_tools`", SUPPORTED, "", _items({"type": "additional_tools", "role": "developer", "tools": [_OURS]})),
    Row("item `reasoning`", IGNORED, "read; Kiro refuses most thoughts of earlier turns", {"input": [_ASKED, {"type": "reasoning", "summary": [], "encrypted_content": _SEALED}, _ANSWERED, _ASKED]}),
    Row("item `item_reference`", SUPPORTED, "an item of a stored answer", {"input": [_ASKED, {"type": "item_reference", "id": f"msg_{'0' * 36}"}, _ASKED]}),
    Row("item `compaction`", SUPPORTED, "of this gateway; another server's cannot be read", _items({"type": "compaction", "encrypted_content": pack_summary("seven", PLAIN)})),
    Row("item `compaction_trigger`, at the end", EMULATED, "the model writes a summary; one item and `response.compaction.compacting` answer", _items({"type": "compaction_trigger"})),
    Row("item `configuration_update`", SUPPORTED, "", _items({"type": "configuration_update", "reasoning": {"effort": "high"}})),
    Row("item `web_search_call`", SUPPORTED, "a call and its result; of a stored answer with what was found", _items({"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "x"}})),
    Row("items `file_search_call`, `computer_call`, `image_generation_call`, `mcp_*`", IGNORED, "the model has no such tool", _items({"type": "file_search_call", "id": "x", "queries": []})),
    Row("item `code_interpreter_call`, and an item of another type", EMULATED, "its JSON, as text", _items({"type": "code_interpreter_call", "code": "1"})),
)  # fmt: skip

LANGUAGES: Final = {
    "anthropic": ("Anthropic Messages", ANTHROPIC),
    "openai_chat": ("OpenAI Chat Completions", OPENAI_CHAT),
    "openai_responses": ("OpenAI Responses", OPENAI_RESPONSES),
}

EVENTS: Final = {
    "anthropic": [
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"),
        *("message_stop", "ping", "error"),
    ],
    "openai_chat": ["chat.completion.chunk", "[DONE]", "error"],
    "openai_responses": [
        *("response.created", "response.queued", "response.in_progress", "response.output_item.added"),
        *("response.reasoning_summary_part.added", "response.reasoning_summary_text.delta"),
        *("response.reasoning_summary_text.done", "response.reasoning_summary_part.done"),
        *("response.content_part.added", "response.output_text.delta", "response.output_text.done"),
        *("response.refusal.delta", "response.refusal.done", "response.content_part.done"),
        *("response.function_call_arguments.delta", "response.function_call_arguments.done"),
        *("response.custom_tool_call_input.delta", "response.custom_tool_call_input.done"),
        *("response.web_search_call.in_progress", "response.web_search_call.searching"),
        *("response.web_search_call.completed", "response.output_text.annotation.added"),
        *("response.output_item.done", "response.completed", "response.incomplete", "response.failed"),
    ],
}
"""What an answer's stream holds; a comment keeps a stream of OpenAI's alive."""


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
