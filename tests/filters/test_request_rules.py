from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.images import PNG
from helpers.requests import GIF, JPEG, MESSAGE, RAW_SCHEMA, REQUEST, WEBP, image
from kirostream.dialects.dialect import Stamp
from kirostream.dialects.kiro.request import decode, write_request
from kirostream.errors import ContextOverflow
from kirostream.filters import request_rules as rules
from kirostream.filters.images import MAX_IMAGE_BYTES
from kirostream.filters.request_rules import RULES, apply_rules
from kirostream.filters.tool_schemas import OBJECT_SCHEMA, repair_schema
from kirostream.simulator.catalogue import offers
from kirostream.simulator.strict import check
from kirostream.turn.model import Model
from kirostream.turn.request import (
    ContentBlock,
    Image,
    Message,
    Role,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    TurnRequest,
)

CATALOGUE = offers("")
OBJECT = b'{"type":"object","properties":{}}'
READ = Tool("read", "Reads.", OBJECT)
NO_RESULT = ToolResult("1", (Text(rules.NO_RESULT),), is_error=True)


def user(*content: ContentBlock | str) -> Message:
    return Message(Role.USER, tuple(Text(c) if isinstance(c, str) else c for c in content))


def assistant(*content: ContentBlock | str) -> Message:
    return Message(Role.ASSISTANT, tuple(Text(c) if isinstance(c, str) else c for c in content))


def system(*content: ContentBlock | str) -> Message:
    return Message(Role.SYSTEM, tuple(Text(c) if isinstance(c, str) else c for c in content))


def call(call_id: str = "1", name: str = "read", arguments: bytes = b"{}") -> ToolCall:
    return ToolCall(call_id, name, arguments)


def result(call_id: str = "1", *content: Text | Image | str, error: bool = False) -> ToolResult:
    return ToolResult(call_id, tuple(Text(c) if isinstance(c, str) else c for c in content), error)


def request(*messages: Message, **more: Any) -> TurnRequest:
    return TurnRequest(model="claude-sonnet-4.5", messages=messages, **more)


def ruled(*messages: Message, tools: tuple[Tool, ...] = (READ,), **more: Any) -> list[Message]:
    return list(apply_rules(request(*messages, tools=tools, **more)).messages)


# The whole table


SAID: list[ContentBlock] = [Text("so"), Text(""), Thought("hm")]


@st.composite
def fitting(draw: st.DrawFn) -> TurnRequest:
    """Rounds of calls and results as an agent sends them, with something odd in it now and then."""
    messages = [user("go")]
    for at in range(draw(st.integers(0, 3))):
        ids = [f"c{at}{n}" for n in range(draw(st.integers(0, 2)))]
        said = draw(st.lists(st.sampled_from(SAID), max_size=2))
        messages.append(assistant(*said, *(call(each) for each in ids)))
        messages.append(user(*(result(each, "r") for each in ids), "go on"))
    if draw(st.booleans()):
        messages.insert(draw(st.integers(0, len(messages))), draw(MESSAGE))
    return request(*messages, tools=(READ,))


FITTING = fitting()


@settings(max_examples=60, deadline=None)
@given(REQUEST)
def test_any_ruled_request_passes_the_strict_check(asked: TurnRequest) -> None:
    once = apply_rules(asked)
    for rule in RULES:
        assert rule(once) is once, f"{rule.__name__} is not idempotent"
    body = write_request(once, Stamp(Model(asked.model), "c", "a", "arn", "AI_EDITOR"))
    refusal = check(decode(body), CATALOGUE)
    assert refusal is None, refusal


@settings(max_examples=100, deadline=None)
@given(st.one_of(REQUEST, FITTING))
def test_the_rules_are_passed_by_only_where_none_has_anything_to_do(asked: TurnRequest) -> None:
    ruled_one_by_one = asked
    for rule in RULES:
        ruled_one_by_one = rule(ruled_one_by_one)
    assert apply_rules(asked) == ruled_one_by_one
    assert apply_rules(asked) == ruled_one_by_one, "what is kept changes nothing"
    if rules._settled(asked) is asked:
        for rule in rules.CONVERSATION_RULES:
            assert rule(asked) is asked, rule.__name__


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ("nothing", (user("a"), assistant("b", call()), user(result("1", "r"), "c", image()))),
        ("role", (user("a"), assistant("b"), assistant("c"), assistant("d"), user("e"))),
        ("first", (assistant("b"), user("d"))),
        ("last", (user("a"), assistant("b"))),
        ("system", (user("a"), system("b"), assistant("c"), user("d"))),
        ("thought", (user("a"), assistant(Thought("t"), "c"), user("d"))),
        ("no text", (user("a"), assistant(), user("d"))),
        ("empty text", (user("a", ""), assistant("b"), user("d"))),
        ("empty result", (user("a"), assistant("b", call()), user(result("1", "")))),
        ("no result", (user("a"), assistant("b", call()), user("d"))),
        ("no call", (user("a"), assistant("b"), user(result("1", "r"), "d"))),
        ("text first", (user("a"), assistant("b", call()), user("d", result("1", "r")))),
        ("other order", (user("a"), assistant("b", call("1"), call("2")), user(result("2", "r"), result("1", "r")))),
        ("id again", (user("a"), *(assistant("b", call()), user(result("1", "r"))) * 2)),
        ("id", (user("a"), assistant("b", call("1.2")), user(result("1.2", "r")))),
        ("name", (user("a"), assistant("b", call(name="other")), user(result("1", "r")))),
        ("arguments", (user("a"), assistant("b", call(arguments=b"[]")), user(result("1", "r")))),
        ("call of the user's", (user("a", call()), assistant("b"), user(result("1", "r")))),
        ("image of the assistant's", (user("a"), assistant("b", image()), user("c"))),
        ("image", (user("a", image(b"BM")),)),
        ("image in a result", (user("a"), assistant("b", call()), user(result("1", "r", image(b"BM"))))),
        ("images", (user("a", *[image()] * 11),)),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_every_need_is_seen(change: str, messages: tuple[Message, ...]) -> None:
    asked = request(*messages, tools=(READ,))
    assert (rules._settled(asked) is asked) is (change == "nothing") is (apply_rules(asked) is asked)


def test_a_fitting_request_is_not_touched() -> None:
    asked = request(
        user("look"), assistant("ok", call()), user(result("1", "text"), "more"), tools=(READ,), system=(Text("s"),)
    )
    assert apply_rules(asked) is asked


def test_a_message_is_repaired_once() -> None:
    asked = request(user("a"), assistant(Thought("t"), call()), user(result("1", "r")), system("s"), tools=(READ,))
    assert rules._settled(asked) is None
    once, again = apply_rules(asked), apply_rules(asked)
    assert once.messages[1] == assistant(" ", call())
    assert once.messages[1] is again.messages[1]


# 1. The cast


def test_thoughts_are_dropped() -> None:
    messages = ruled(user("a"), assistant(Thought("hm", "sig"), "b"), user("c"))
    assert messages[1] == assistant("b")


def test_a_message_of_thoughts_alone_keeps_its_place() -> None:
    assert ruled(user("a"), assistant(Thought("hm")), user("c")) == [user("a"), assistant(" "), user("c")]


def test_a_system_message_joins_the_turn_beside_it() -> None:
    messages = ruled(user("a"), system("be kind"), assistant("b"), user("c"))
    assert messages[0] == user("a", "<system-reminder>\nbe kind\n</system-reminder>")


def test_a_system_message_does_not_part_a_call_from_its_result() -> None:
    messages = ruled(user("a"), assistant(call()), system("x"), user(result("1", "ok")))
    assert messages[2] == user(result("1", "ok"), "<system-reminder>\nx\n</system-reminder>")


def test_a_result_in_an_assistant_message_moves_behind_it() -> None:
    messages = ruled(user("a"), assistant(call(), result("1", "ok")), user("b"))
    assert messages[1:] == [assistant(" ", call()), user(result("1", "ok"), "b")]


def test_blocks_of_the_other_role_become_text() -> None:
    messages = ruled(user("a", call()), assistant(image()), user("c"))
    assert messages == [user("a", "[Called the tool read with {}]"), assistant("[an image]"), user("c")]


# 2. The tools offered


def test_tool_choice_none_offers_nothing_and_flattens() -> None:
    asked = apply_rules(
        request(
            user("a"),
            assistant(call()),
            user(result("1", "ok", image())),
            tools=(READ,),
            tool_choice=ToolChoice("none"),
        )
    )
    assert asked.tools == ()
    assert asked.messages[1:] == (
        assistant("[Called the tool read with {}]"),
        user("[Result of the tool read]\nok", image()),
    )


def test_tool_choice_tool_offers_one() -> None:
    other = Tool("write", "Writes.", OBJECT)
    asked = apply_rules(request(user("a"), tools=(READ, other), tool_choice=ToolChoice("tool", "write")))
    assert asked.tools == (other,)
    assert asked.system == (Text("Answer with a call of the tool write."),)


def test_tool_choice_tool_keeps_used_tools_declared() -> None:
    other = Tool("write", "Writes.", OBJECT)
    asked = apply_rules(
        request(
            user("a"),
            assistant(call()),
            user(result()),
            tools=(READ, other),
            tool_choice=ToolChoice("tool", "write"),
        )
    )
    assert [(tool.name, tool.description) for tool in asked.tools] == [("write", "Writes."), ("read", rules.STUB)]


@pytest.mark.parametrize(
    ("choice", "lines"),
    [
        (ToolChoice("any"), ["Answer with at least one tool call."]),
        (ToolChoice("tool", "missing"), ["Answer with at least one tool call."]),
        (ToolChoice("auto", parallel=False), ["Call at most one tool at a time."]),
        (
            ToolChoice("any", parallel=False),
            ["Answer with at least one tool call.", "Call at most one tool at a time."],
        ),
        (ToolChoice("auto"), []),
    ],
)
def test_tool_choice_is_said_in_the_system_prompt(choice: ToolChoice, lines: list[str]) -> None:
    asked = apply_rules(request(user("a"), tools=(READ,), tool_choice=choice, system=(Text("s"),)))
    assert [part.text for part in asked.system] == ["s", *lines]


def test_tool_choice_without_tools_says_nothing() -> None:
    assert apply_rules(request(user("a"), tool_choice=ToolChoice("any"))).system == ()


def test_duplicate_tools_are_dropped() -> None:
    asked = apply_rules(request(user("a"), tools=(READ, Tool("x", "x", OBJECT), Tool("read", "Again.", OBJECT))))
    assert [tool.description for tool in asked.tools] == ["Reads.", "x"]
    assert apply_rules(request(user("a"), tools=(READ, READ))).tools == (READ,)


def test_without_tools_an_error_is_said_as_one() -> None:
    messages = ruled(user("a"), assistant(call()), user(result("1", "no", error=True)), tools=())
    assert messages[2] == user("[Error of the tool read]\nno")


# 3. The sequence


def test_neighbours_of_one_role_are_merged() -> None:
    assert ruled(user("a"), user("b"), assistant("c"), assistant("d"), user("e")) == [
        user("a", "b"),
        assistant("c", "d"),
        user("e"),
    ]


def test_the_user_opens() -> None:
    assert ruled(assistant("a"), user("b")) == [user(rules.OPENING), assistant("a"), user("b")]


@pytest.mark.parametrize("messages", [[], [user()], [system()]])
def test_a_conversation_of_nothing(messages: list[Message]) -> None:
    assert ruled(*messages) == [user("Continue")]


def test_a_prefill_goes_on() -> None:
    assert ruled(user("a"), assistant("b")) == [user("a"), assistant("b"), user("Continue")]


# 4. The pairs


def test_results_follow_the_order_of_the_calls() -> None:
    messages = ruled(user("a"), assistant(call("1"), call("2")), user(result("2", "two"), result("1", "one"), "b"))
    assert messages[2] == user(result("1", "one"), result("2", "two"), "b")


def test_calls_in_messages_of_their_own_are_one() -> None:
    messages = ruled(
        user("a"), assistant(call("1")), assistant(call("2")), user(result("1", "x")), user(result("2", "y"))
    )
    assert messages[1:] == [assistant(" ", call("1"), call("2")), user(result("1", "x"), result("2", "y"))]


def test_a_late_result_moves_forward() -> None:
    messages = ruled(user("a"), assistant(call()), user("wait"), assistant("ok"), user(result("1", "late")))
    assert messages[1:] == [
        assistant(" ", call()),
        user(result("1", "late"), "wait"),
        assistant("ok"),
        user("Continue"),
    ]


def test_a_missing_result_is_an_error() -> None:
    messages = ruled(user("a"), assistant(call()), user("go on"))
    assert messages[2] == user(NO_RESULT, "go on")


def test_a_missing_result_at_the_end() -> None:
    assert ruled(user("a"), assistant(call())) == [user("a"), assistant(" ", call()), user(NO_RESULT)]


def test_an_orphan_result_becomes_text() -> None:
    assert ruled(user("a", result("9", "lost", image()))) == [user("a", "[Result of the tool 9]\nlost", image())]


def test_a_result_before_its_call_becomes_text() -> None:
    messages = ruled(user(result("1", "early")), assistant(call()), user("b"))
    assert messages == [user("[Result of the tool 1]\nearly"), assistant(" ", call()), user(NO_RESULT, "b")]


def test_a_second_result_is_dropped() -> None:
    messages = ruled(user("a"), assistant(call()), user(result("1", "x"), result("1", "y")))
    assert messages[2] == user(result("1", "x"))


def test_a_second_call_of_one_id_in_one_message_is_dropped() -> None:
    messages = ruled(user("a"), assistant(call(), call()), user(result("1", "x")))
    assert messages[1:] == [assistant(" ", call()), user(result("1", "x"))]


def test_an_id_that_comes_again_is_renamed_on_both_sides() -> None:
    messages = ruled(
        user("a"), assistant(call()), user(result("1", "x")), assistant(call()), user(result("1", "y")), assistant("z")
    )
    again = messages[3].content[1]
    assert isinstance(again, ToolCall)
    assert again.id != "1"
    assert messages[2] == user(result("1", "x"))
    assert messages[4] == user(result(again.id, "y"))


@pytest.mark.parametrize("call_id", ["", "a.b", "x" * 65, "é"])
def test_an_id_that_the_models_refuse_is_renamed(call_id: str) -> None:
    messages = ruled(user("a"), assistant(call(call_id)), user(result(call_id, "x")))
    renamed = messages[1].content[1]
    assert isinstance(renamed, ToolCall)
    assert renamed.id.startswith("tooluse_")
    assert messages[2] == user(result(renamed.id, "x"))


def test_a_used_tool_is_declared_by_a_stub() -> None:
    asked = apply_rules(
        request(user("a"), assistant(call(name="gone"), call("2", "READ")), user(result()), tools=(READ,))
    )
    assert asked.tools == (READ, Tool("gone", rules.STUB, OBJECT_SCHEMA))


# 5. The contents


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (b'{"a":1}', b'{"a":1}'),
        (b' {"a":1}', b' {"a":1}'),
        (b"", b"{}"),
        (b"null", b"{}"),
        (b'""', b"{}"),
        (b"[1]", b'{"value":[1]}'),
        (b'"x"', b'{"value":"x"}'),
    ],
)
def test_arguments_are_an_object(given: bytes, sent: bytes) -> None:
    block = ruled(user("a"), assistant(call(arguments=given)))[1].content[1]
    assert isinstance(block, ToolCall)
    assert block.arguments == sent


@pytest.mark.parametrize(
    ("data", "kind"), [(PNG, "png"), (JPEG, "jpeg"), (GIF, "gif"), (WEBP, "webp")], ids=["png", "jpeg", "gif", "webp"]
)
def test_an_image_says_what_its_bytes_are(data: bytes, kind: str) -> None:
    assert ruled(user("a", image(data, "image/wrong"))) == [user("a", image(data, f"image/{kind}"))]


def test_base64_is_cleaned() -> None:
    clean = base64.b64encode(PNG).decode()
    dirty = clean.rstrip("=").replace("+", "-").replace("/", "_")
    dirty = f"{dirty[:20]}\n{dirty[20:]}"
    assert ruled(user("a", Image("image/png", dirty))) == [user("a", Image("image/png", clean))]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (image(b"BM", "image/bmp"), "this is image/bmp"),
        (image(b"what", ""), "an unknown type"),
        (Image("image/png", "!!!"), "not base64"),
        (image(PNG + b"\0" * MAX_IMAGE_BYTES), "Kiro takes 10,000,000"),
    ],
    ids=["bmp", "unknown", "no base64", "too large"],
)
def test_an_image_that_cannot_be_sent_says_why(bad: Image, words: str) -> None:
    (message,) = ruled(user("a", bad))
    assert isinstance(message.content[1], Text)
    assert words in message.content[1].text


def test_the_ten_newest_images_stay() -> None:
    images = [image(PNG + bytes([n])) for n in range(12)]
    first = user(*images[:5], result("9", images[5]))
    messages = ruled(first, assistant("b"), user("c", *images[6:]))
    kept = [block for message in messages for block in message.content if isinstance(block, Image)]
    assert kept == images[2:]
    assert isinstance(messages[0].content[0], Text)


def test_images_in_results_are_checked() -> None:
    messages = ruled(
        user("a"), assistant(call()), user(result("1", image(b"BM", "image/bmp"), image(JPEG, "image/png")))
    )
    (checked,) = messages[2].content
    assert isinstance(checked, ToolResult)
    assert isinstance(checked.content[0], Text)
    assert checked.content[1] == image(JPEG, "image/jpeg")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (user(""), user("Continue")),
        (user(image()), user(image(), rules.SEE_IMAGE)),
        (user("", "x"), user("x")),
        (user(" "), user(" ")),
    ],
)
def test_no_user_message_is_empty(given: Message, sent: Message) -> None:
    assert ruled(given) == [sent]


def test_no_assistant_message_is_empty() -> None:
    assert ruled(user("a"), assistant(""), user("b"))[1] == assistant(" ")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (result("1"), result("1", "(no output)")),
        (result("1", ""), result("1", "(no output)")),
        (result("1", image()), result("1", rules.SEE_IMAGE, image())),
        (result("1", "", "x"), result("1", "x")),
    ],
)
def test_no_result_is_empty(given: ToolResult, sent: ToolResult) -> None:
    assert ruled(user("a"), assistant(call()), user(given))[2] == user(sent)


def test_more_messages_than_the_service_takes_are_refused_here() -> None:
    talk = [user("a"), assistant("b")] * 4_999
    asked = request(*talk, user("c"), system=(Text("s"),))
    assert apply_rules(asked) is asked
    assert check(decode(write_request(asked, Stamp(Model("claude-sonnet-4.5")))), CATALOGUE) is None
    for more in ([user("c"), assistant("d"), user("e")], [user("c"), assistant("d")]):
        with pytest.raises(ContextOverflow, match="compact it") as caught:
            apply_rules(request(*talk, *more))
        assert caught.value.status == 400


# 6. Tools


def test_an_empty_description_gets_a_placeholder() -> None:
    asked = apply_rules(request(user("a"), tools=(Tool("read", " ", OBJECT),)))
    assert asked.tools[0].description == "Tool: read"


@pytest.mark.parametrize("long", ["x" * 10_001, "é" * 5_001])
def test_a_long_description_moves_into_the_system_prompt(long: str) -> None:
    asked = apply_rules(request(user("a"), tools=(Tool("read", long, OBJECT),), system=(Text("s"),)))
    assert asked.system == (Text("s"), Text(f"## Tool: read\n\n{long}"))
    assert asked.tools[0].description == 'The description is in the system prompt, under "## Tool: read".'


@pytest.mark.parametrize("fits", ["x" * 10_000, "é" * 5_000])
def test_a_description_at_the_limit_stays(fits: str) -> None:
    asked = request(user("a"), tools=(Tool("read", fits, OBJECT),))
    assert apply_rules(asked) is asked


SCHEMAS: list[tuple[str, Any, Any]] = [
    ("true", True, {"type": "object", "properties": {}}),
    ("null", None, {"type": "object", "properties": {}}),
    ("list", [], {"type": "object", "properties": {}}),
    ("empty", {}, {"type": "object", "properties": {}}),
    ("no type", {"properties": {"x": {}}}, {"type": "object", "properties": {"x": {}}}),
    ("no properties", {"type": "object"}, {"type": "object", "properties": {}}),
    ("type list", {"type": ["object", "null"]}, {"type": "object", "properties": {}}),
    ("other type", {"type": "string"}, {"type": "object", "properties": {"value": {"type": "string"}}}),
    (
        "nulls",
        {"type": "object", "properties": None, "required": None, "description": None},
        {"type": "object", "properties": {}},
    ),
    (
        "inner nulls",
        {"type": "object", "properties": {"x": {"type": "object", "required": None, "items": None}}},
        {"type": "object", "properties": {"x": {"type": "object"}}},
    ),
    (
        "null data stays",
        {"type": "object", "properties": {"x": {"enum": [None], "default": None, "const": None}}},
        {"type": "object", "properties": {"x": {"enum": [None], "default": None, "const": None}}},
    ),
    (
        "required of draft 3",
        {"type": "object", "properties": {"x": {"type": "string", "required": True}}},
        {"type": "object", "properties": {"x": {"type": "string"}}},
    ),
    (
        "names are not keywords",
        {"type": "object", "properties": {"$schema": {}, "required": {"type": "string"}, "$id": {}}},
        {"type": "object", "properties": {"$schema": {}, "required": {"type": "string"}, "$id": {}}},
    ),
    (
        "schema and id",
        {"$schema": "x", "$id": "y", "type": "object", "properties": {"x": {"$id": "z"}}},
        {"type": "object", "properties": {"x": {}}},
    ),
    (
        "reference",
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}},
        {"type": "object", "properties": {"x": {"type": "string"}}},
    ),
    (
        "reference with siblings",
        {
            "type": "object",
            "properties": {"x": {"$ref": "#/definitions/a", "description": "mine"}},
            "definitions": {"a": {"type": "string", "description": "theirs"}},
        },
        {"type": "object", "properties": {"x": {"type": "string", "description": "mine"}}},
    ),
    (
        "reference at the root",
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"x": {}}}}},
        {"type": "object", "properties": {"x": {}}},
    ),
    (
        "escaped reference",
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/a~1b~0c"}}, "$defs": {"a/b~c": {"type": "string"}}},
        {"type": "object", "properties": {"x": {"type": "string"}}},
    ),
    (
        "reference into a list",
        {"type": "object", "properties": {"x": {"$ref": "#/anyOf/0"}}, "anyOf": [{"type": "string"}]},
        {"type": "object", "properties": {"x": {"type": "string"}}, "anyOf": [{"type": "string"}]},
    ),
    (
        "recursion is cut",
        {
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/tree"}},
            "$defs": {"tree": {"type": "object", "properties": {"kids": {"items": {"$ref": "#/$defs/tree"}}}}},
        },
        {"type": "object", "properties": {"x": {"type": "object", "properties": {"kids": {"items": {}}}}}},
    ),
    (
        "reference to nowhere",
        {"type": "object", "properties": {"x": {"$ref": "#/no", "title": "t"}, "y": {"$ref": "http://x"}}},
        {"type": "object", "properties": {"x": {"title": "t"}, "y": {}}},
    ),
    (
        "everything else stays",
        {"type": "object", "properties": {"x": {"pattern": "^a", "minLength": 1}}, "additionalProperties": False},
        {"type": "object", "properties": {"x": {"pattern": "^a", "minLength": 1}}, "additionalProperties": False},
    ),
]


@pytest.mark.parametrize(("given", "sent"), [case[1:] for case in SCHEMAS], ids=[case[0] for case in SCHEMAS])
def test_schemas_are_repaired(given: Any, sent: Any) -> None:
    assert json.loads(repair_schema(json.dumps(given).encode())) == sent


def test_a_schema_that_fits_keeps_its_bytes() -> None:
    raw = b'{ "type" : "object", "properties": {"a": {"default": null}} }'
    assert repair_schema(raw) is raw


def test_references_do_not_explode() -> None:
    defs = {
        f"a{n}": {"properties": {"l": {"$ref": f"#/$defs/a{n + 1}"}, "r": {"$ref": f"#/$defs/a{n + 1}"}}}
        for n in range(40)
    }
    raw = json.dumps({"type": "object", "properties": {"x": {"$ref": "#/$defs/a0"}}, "$defs": defs}).encode()
    assert len(repair_schema(raw)) < 3_000_000


@pytest.mark.parametrize("raw", [b'{"items":' * 3000 + b"{}" + b"}" * 3000, b"not json"])
def test_a_schema_that_cannot_be_read_is_replaced(raw: bytes) -> None:
    assert repair_schema(raw) == OBJECT_SCHEMA


@given(RAW_SCHEMA)
def test_a_repaired_schema_needs_no_repair(raw: bytes) -> None:
    repaired = repair_schema(raw)
    assert repair_schema(repaired) == repaired
