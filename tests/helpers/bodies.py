"""Hypothesis strategies for what clients send: raw bodies of each public language, odd ones above all.

Every body is JSON of the language's own shape, most of it legal there, and none of it what a careful client would send:
results without calls and calls without results, ids that come twice, empty texts, half characters, schemas of any
depth, names in any script, images in results, thoughts that come back, histories that begin in the middle.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import strategies as st

from helpers.images import PNG
from helpers.requests import GIF, JPEG, JSON_VALUE, SCHEMA, TEXT, TOOL_NAME, WEBP
from kirostream.dialects.openai_responses.thoughts import PLAIN, pack_summary

Json = dict[str, Any]
Bodies = st.SearchStrategy[bytes]

MODEL = "claude-opus-4.7"

ODD_TEXT = st.one_of(
    TEXT, st.sampled_from(["\x00\x1b[1m", "\u2028", "\ufffe", "\ud800\udc00", "<system>", "x" * 3_000])
)
NAME = st.one_of(
    TOOL_NAME, st.sampled_from(["größe", "读取文件", "a b", "tool\n", "web_search", "Bash", "-", "x" * 300, "e\u0301"])
)
ID = st.one_of(st.sampled_from(["c1", "c2", "c3", "toolu_01", "", "a.b:c", "日本", "x" * 80, " "]), st.text(max_size=3))
"""Few, so that they meet and collide."""


def _deep(levels: int, schema: Any) -> Any:
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


ODD_SCHEMA: st.SearchStrategy[Any] = st.one_of(
    SCHEMA,
    st.builds(_deep, st.sampled_from([5, 40, 150]), SCHEMA),
    st.sampled_from([None, True, [], "x", {"type": "object"}, {"type": "object", "properties": {"größe": {}, "": {}}}]),
    st.just({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}}),
)
DATA = st.sampled_from(
    [base64.b64encode(data).decode() for data in (PNG, JPEG, GIF, WEBP, b"BM", b"")] + ["not base64!", "===="]
)
MEDIA = st.sampled_from(["image/png", "image/jpeg", "image/jpg", "image/bmp", ""])
EFFORT = st.sampled_from(["none", "minimal", "low", "high", "xhigh", "max", "new"])


def optional(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """An object with some of these members."""
    return st.fixed_dictionaries({}, optional=members)


def typed(kind: str, /, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """An object of this ``type`` with all of these members."""
    return st.fixed_dictionaries({"type": st.just(kind), **members})


def both(one: st.SearchStrategy[Json], other: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """One object with the members of both."""
    return st.builds(lambda a, b: {**a, **b}, one, other)


def several(each: st.SearchStrategy[Any], most: int = 4) -> st.SearchStrategy[list[Any]]:
    """A short list."""
    return st.lists(each, max_size=most)


def as_body(body: st.SearchStrategy[Json]) -> Bodies:
    """Bytes of JSON. Half characters stand in it as escapes."""
    return body.map(lambda value: json.dumps(value).encode())


# Anthropic Messages


_CACHED = optional(cache_control=st.just({"type": "ephemeral"}))
_TEXT_BLOCK = both(typed("text", text=ODD_TEXT), _CACHED)
_IMAGE_BLOCK = typed("image", source=typed("base64", media_type=MEDIA, data=DATA))
_IMAGE_URL = typed("image", source=typed("url", url=st.sampled_from(["https://x.example/a.png", "http://[::1/"])))
_DOCUMENT = typed(
    "document",
    source=st.one_of(
        typed("text", media_type=st.just("text/plain"), data=ODD_TEXT),
        typed("base64", media_type=st.just("application/pdf"), data=DATA),
        typed("content", content=st.one_of(ODD_TEXT, several(_TEXT_BLOCK, 2))),
    ),
    title=st.one_of(st.none(), ODD_TEXT),
)
_REFERENCE = typed("tool_reference", tool_name=NAME)
_RESULT_PART = st.one_of(_TEXT_BLOCK, _IMAGE_BLOCK, _IMAGE_URL, _DOCUMENT, _REFERENCE)
_TOOL_RESULT = both(
    typed("tool_result", tool_use_id=ID),
    optional(content=st.one_of(st.none(), ODD_TEXT, several(_RESULT_PART, 3)), is_error=st.booleans()),
)
_TOOL_USE = typed(
    "tool_use", id=ID, name=NAME, input=st.one_of(st.dictionaries(TEXT, JSON_VALUE, max_size=2), JSON_VALUE)
)
_THINKING = st.one_of(
    both(typed("thinking", thinking=ODD_TEXT), optional(signature=st.sampled_from(["", "sig", None]))),
    typed("redacted_thinking", data=st.just("b64==")),
)
_SERVER = st.one_of(
    typed("server_tool_use", id=ID, name=st.sampled_from(["web_search", "new"]), input=st.just({"query": "x"})),
    typed("web_search_tool_result", tool_use_id=ID, content=st.just([])),
    typed("mcp_tool_use", id=ID, name=NAME, server_name=TEXT, input=st.just({})),
    typed("compaction", content=st.one_of(st.none(), ODD_TEXT)),
    typed("search_result", source=TEXT, title=TEXT, content=several(_TEXT_BLOCK, 1)),
    typed("something_new", text=ODD_TEXT),
)
_BLOCK = st.one_of(
    _TEXT_BLOCK, _TOOL_RESULT, _TOOL_USE, _TOOL_RESULT, _TOOL_USE, _IMAGE_BLOCK, _THINKING, _DOCUMENT, _SERVER
)
_MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "user", "assistant", "system"]),
        "content": st.one_of(ODD_TEXT, several(_BLOCK)),
    }
)
_TOOL = st.one_of(
    both(
        st.fixed_dictionaries({"name": NAME, "input_schema": ODD_SCHEMA}),
        optional(
            description=st.one_of(st.none(), ODD_TEXT, st.sampled_from(["x" * 10_001, "é" * 6_000])),
            type=st.just("custom"),
            defer_loading=st.booleans(),
            cache_control=st.just({"type": "ephemeral"}),
        ),
    ),
    st.sampled_from(
        [
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
            {"type": "bash_20250124", "name": "bash"},
            {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
            {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
            {"type": "new_20990101", "name": "new"},
        ]
    ),
)
MESSAGES: Bodies = as_body(
    both(
        st.fixed_dictionaries(
            {
                "model": st.just(MODEL),
                "max_tokens": st.just(100),
                "messages": st.lists(_MESSAGE, min_size=1, max_size=7),
            }
        ),
        optional(
            system=st.one_of(ODD_TEXT, several(_TEXT_BLOCK, 2)),
            tools=several(_TOOL),
            tool_choice=st.one_of(
                typed("auto"),
                typed("none"),
                typed("any", disable_parallel_tool_use=st.booleans()),
                typed("tool", name=NAME),
            ),
            thinking=st.one_of(
                typed("enabled", budget_tokens=st.sampled_from([0, 1_024, 99_999])),
                typed("adaptive"),
                typed("disabled"),
            ),
            output_config=optional(effort=EFFORT, format=typed("json_schema", schema=ODD_SCHEMA)),
            stop_sequences=several(ODD_TEXT, 2),
            metadata=optional(user_id=ODD_TEXT),
            context_management=st.just({"edits": []}),
        ),
    )
)


# OpenAI Chat


_URL = st.one_of(
    st.builds(lambda media, data: f"data:{media};base64,{data}", MEDIA, DATA),
    st.sampled_from(["https://x.example/a.png", "data:,x", ""]),
)
_CHAT_TEXT = typed("text", text=ODD_TEXT)
_CHAT_PART = st.one_of(
    _CHAT_TEXT,
    _CHAT_TEXT,
    typed("image_url", image_url=st.fixed_dictionaries({"url": _URL})),
    typed("refusal", refusal=ODD_TEXT),
    typed("file", file=optional(filename=st.just("a.txt"), file_data=_URL)),
    typed("something_new", text=ODD_TEXT),
)
_CHAT_CONTENT = st.one_of(st.none(), ODD_TEXT, several(_CHAT_PART, 3))
_ARGUMENTS = st.one_of(
    st.sampled_from(["", "{}", "null", "not json", '{"a":', "[1]", '"x"', '{"a":"\\ud83d"}', '{"a":1e999}', "{}{}"]),
    JSON_VALUE.map(json.dumps),
)
_FUNCTION = st.fixed_dictionaries({"name": NAME, "arguments": _ARGUMENTS})
_CHAT_CALL = st.one_of(
    typed("function", id=ID, function=_FUNCTION),
    typed("custom", id=ID, custom=st.fixed_dictionaries({"name": NAME, "input": ODD_TEXT})),
)
_CHAT_MESSAGE = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "developer"]), "content": _CHAT_CONTENT}),
    both(
        st.fixed_dictionaries({"role": st.just("assistant"), "content": _CHAT_CONTENT}),
        optional(
            tool_calls=several(_CHAT_CALL, 3),
            function_call=_FUNCTION,
            reasoning_content=ODD_TEXT,
            refusal=st.one_of(st.none(), ODD_TEXT),
        ),
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": ID, "content": _CHAT_CONTENT}),
    st.fixed_dictionaries({"role": st.just("function"), "name": NAME, "content": _CHAT_CONTENT}),
)
_CHAT_TOOL = st.one_of(
    typed(
        "function",
        function=both(st.fixed_dictionaries({"name": NAME}), optional(description=ODD_TEXT, parameters=ODD_SCHEMA)),
    ),
    typed("custom", custom=both(st.fixed_dictionaries({"name": NAME}), optional(description=ODD_TEXT))),
    st.just({"type": "new"}),
)
CHAT: Bodies = as_body(
    both(
        st.fixed_dictionaries({"model": st.just(MODEL), "messages": st.lists(_CHAT_MESSAGE, min_size=1, max_size=8)}),
        optional(
            tools=several(_CHAT_TOOL),
            functions=several(st.fixed_dictionaries({"name": NAME, "parameters": ODD_SCHEMA}), 2),
            tool_choice=st.one_of(
                st.sampled_from(["auto", "none", "required"]),
                typed("function", function=st.fixed_dictionaries({"name": NAME})),
            ),
            parallel_tool_calls=st.booleans(),
            reasoning_effort=EFFORT,
            response_format=st.one_of(
                typed("json_object"), typed("json_schema", json_schema=st.fixed_dictionaries({"schema": ODD_SCHEMA}))
            ),
            stop=st.one_of(ODD_TEXT, several(ODD_TEXT, 2)),
            user=ODD_TEXT,
        ),
    )
)


# OpenAI Responses


_PART = st.one_of(
    typed("input_text", text=ODD_TEXT),
    typed("output_text", text=ODD_TEXT),
    typed("input_image", image_url=_URL),
    typed("refusal", refusal=ODD_TEXT),
    typed("something_new", text=ODD_TEXT),
)
_ITEM = st.one_of(
    both(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["user", "assistant", "system", "developer"]),
                "content": st.one_of(ODD_TEXT, several(_PART, 3)),
            }
        ),
        optional(type=st.just("message")),
    ),
    both(typed("function_call", call_id=ID, name=NAME, arguments=_ARGUMENTS), optional(namespace=NAME)),
    typed("function_call_output", call_id=ID, output=st.one_of(ODD_TEXT, several(_PART, 2))),
    typed("custom_tool_call", call_id=ID, name=NAME, input=ODD_TEXT),
    typed("custom_tool_call_output", call_id=ID, output=ODD_TEXT),
    typed("local_shell_call", call_id=ID, action=st.just({"type": "exec", "command": ["ls"], "env": {}})),
    typed("local_shell_call_output", id=ID, output=ODD_TEXT),
    typed("apply_patch_call", call_id=ID, operation=st.just({"type": "delete_file", "path": "a"})),
    typed("apply_patch_call_output", call_id=ID, status=st.sampled_from(["completed", "failed"]), output=ODD_TEXT),
    both(
        typed("reasoning", summary=several(typed("summary_text", text=ODD_TEXT), 2)),
        optional(encrypted_content=st.sampled_from(["", "gAAAA", None]), id=ID),
    ),
    typed("web_search_call", id=ID, status=st.just("completed"), action=st.just({"type": "search", "query": "x"})),
    typed("item_reference", id=ID),
    typed("compaction", encrypted_content=st.sampled_from(["gAAAA", pack_summary("seven {}", PLAIN)])),
    typed("compaction_trigger"),
    both(typed("configuration_update"), optional(reasoning=optional(effort=EFFORT))),
    typed("something_new", text=ODD_TEXT),
)
_RESPONSES_TOOL = st.one_of(
    both(typed("function", name=NAME), optional(description=ODD_TEXT, parameters=ODD_SCHEMA)),
    both(typed("custom", name=NAME), optional(description=ODD_TEXT)),
    typed(
        "namespace",
        name=NAME,
        description=ODD_TEXT,
        tools=several(typed("function", name=NAME, parameters=ODD_SCHEMA), 2),
    ),
    st.sampled_from([{"type": "web_search"}, {"type": "local_shell"}, {"type": "apply_patch"}, {"type": "new"}]),
)
RESPONSES: Bodies = as_body(
    both(
        st.fixed_dictionaries(
            {"model": st.just(MODEL), "input": st.one_of(ODD_TEXT, st.lists(_ITEM, min_size=1, max_size=8))}
        ),
        optional(
            instructions=st.one_of(st.none(), ODD_TEXT),
            tools=several(_RESPONSES_TOOL),
            tool_choice=st.one_of(st.sampled_from(["auto", "none", "required"]), typed("function", name=NAME)),
            parallel_tool_calls=st.booleans(),
            reasoning=optional(effort=EFFORT),
            text=optional(format=typed("json_schema", name=st.just("x"), schema=ODD_SCHEMA)),
            prompt_cache_key=ODD_TEXT,
        ),
    )
)

# Conversations that were in order once


def _worn(history: list[Any], wear: list[tuple[str, int, int]]) -> list[Any]:
    """A history after what clients do to theirs: cut, trimmed, retried, put together again. It is never empty."""
    for what, at, other in wear:
        at, other = at % len(history), other % len(history)
        match what:
            case "cut":
                history = history[at:]
            case "trim" if len(history) > 1:
                history = history[:at] + history[at + 1 :]
            case "repeat":
                history = [*history[: at + 1], *history[at:]]
            case "move":
                rest = history[:at] + history[at + 1 :]
                history = [*rest[:other], history[at], *rest[other:]]
            case _:
                pass
    return history


WEAR = several(st.tuples(st.sampled_from(["cut", "trim", "repeat", "move"]), st.integers(0, 40), st.integers(0, 40)), 5)
ROUNDS = several(st.integers(1, 3), 5)
"""The calls of each round of an agent."""


def _messages_history(rounds: list[int]) -> list[Any]:
    history: list[Any] = [{"role": "user", "content": "look"}]
    for number, calls in enumerate(rounds):
        ids = [f"toolu_{number}_{nth}" for nth in range(calls)]
        uses = [{"type": "tool_use", "id": one, "name": "read", "input": {"n": number}} for one in ids]
        results = [{"type": "tool_result", "tool_use_id": one, "content": f"of {one}"} for one in reversed(ids)]
        thought = {"type": "thinking", "thinking": "hm", "signature": "sig"}
        history += [{"role": "assistant", "content": [thought, *uses]}, {"role": "user", "content": results}]
    return [*history, {"role": "assistant", "content": "done"}, {"role": "user", "content": "thanks"}]


def _chat_history(rounds: list[int]) -> list[Any]:
    history: list[Any] = [{"role": "system", "content": "s"}, {"role": "user", "content": "look"}]
    for number, calls in enumerate(rounds):
        ids = [f"call_{number}_{nth}" for nth in range(calls)]
        uses = [{"id": one, "type": "function", "function": {"name": "read", "arguments": "{}"}} for one in ids]
        history.append({"role": "assistant", "content": None, "tool_calls": uses})
        history += [{"role": "tool", "tool_call_id": one, "content": f"of {one}"} for one in reversed(ids)]
    return [*history, {"role": "assistant", "content": "done"}, {"role": "user", "content": "thanks"}]


def _responses_history(rounds: list[int]) -> list[Any]:
    history: list[Any] = [{"role": "developer", "content": "s"}, {"role": "user", "content": "look"}]
    for number, calls in enumerate(rounds):
        ids = [f"call_{number}_{nth}" for nth in range(calls)]
        history.append({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]})
        history += [{"type": "function_call", "call_id": one, "name": "read", "arguments": "{}"} for one in ids]
        history += [{"type": "function_call_output", "call_id": one, "output": f"of {one}"} for one in reversed(ids)]
    return [*history, {"role": "assistant", "content": "done"}, {"role": "user", "content": "thanks"}]


READ: Json = {"name": "read", "description": "Reads."}
OFFERS = st.sampled_from([[], ["read"], ["READ", "other"], ["other"], ["read", "read"]])
"""Names of the tools that are still offered."""

WORN_MESSAGES: Bodies = as_body(
    st.builds(
        lambda rounds, wear, names: {
            "model": MODEL,
            "max_tokens": 100,
            "messages": _worn(_messages_history(rounds), wear),
            "tools": [{**READ, "name": name, "input_schema": {"type": "object"}} for name in names],
        },
        ROUNDS,
        WEAR,
        OFFERS,
    )
)
WORN_CHAT: Bodies = as_body(
    st.builds(
        lambda rounds, wear, names: {
            "model": MODEL,
            "messages": _worn(_chat_history(rounds), wear),
            "tools": [{"type": "function", "function": {**READ, "name": name}} for name in names],
        },
        ROUNDS,
        WEAR,
        OFFERS,
    )
)
WORN_RESPONSES: Bodies = as_body(
    st.builds(
        lambda rounds, wear, names: {
            "model": MODEL,
            "input": _worn(_responses_history(rounds), wear),
            "tools": [{"type": "function", **READ, "name": name} for name in names],
        },
        ROUNDS,
        WEAR,
        OFFERS,
    )
)

WORN = {"anthropic": WORN_MESSAGES, "openai_chat": WORN_CHAT, "openai_responses": WORN_RESPONSES}
BODIES = {
    "anthropic": st.one_of(MESSAGES, WORN_MESSAGES),
    "openai_chat": st.one_of(CHAT, WORN_CHAT),
    "openai_responses": st.one_of(RESPONSES, WORN_RESPONSES),
}
"""By the name of the language."""
