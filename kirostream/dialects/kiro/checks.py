"""What the service refuses in a request, and why (kiro-protocol.md sections 2.2 to 2.8). Pure.

The service says ``Improperly formed request.`` and no more. Here is what it is known to mean by it, one function a
concern, as findings that name the rule. Two readers share them: the simulator refuses by them, so that converters are
held to them, and the gateway looks for the likely cause by them when the service has refused.

`broken` holds what is certain. `doubted` holds what the sources contradict each other about: most requests that hold
it pass. Each doubt has its counterpart in `filters.repair`, which takes it away.

What hangs on a model (its name, its own fields, its window) is not here; a body alone does not tell.
"""

from __future__ import annotations

import binascii
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from kirostream.dataclass import dataclass
from kirostream.dialects.kiro.names import LEGAL
from kirostream.dialects.kiro.request import (
    AssistantResponseMessage,
    Entry,
    Generate,
    ImageBlock,
    ToolEntry,
    ToolSpecification,
    ToolUseResult,
    UserContext,
    UserInputMessage,
    given,
)
from kirostream.filters import repair
from kirostream.filters.images import image_format
from kirostream.filters.request_rules import STUB

TRIGGERS: Final = frozenset({"MANUAL", "INLINE_CHAT", "DIAGNOSTIC"})
ORIGINS: Final = frozenset(
    {"AI_EDITOR", "CHATBOT", "CLI", "CONSOLE", "DOCUMENTATION", "GITLAB", "IDE", "INLINE_CHAT", "KIRO_CLI", "MARKETING"}
    | {"MD", "MD_CE", "MD_IDE", "MOBILE", "OPENSEARCH_DASHBOARD", "Q_DEV_BEXT", "SAGE_MAKER", "SERVICE_INTERNAL"}
    | {"SM_AI_STUDIO_IDE", "UNIFIED_SEARCH", "UNKNOWN"}
)
STATUSES: Final = frozenset({"success", "error"})
MAX_HISTORY: Final = 10_000
MAX_TEXT: Final = 600_000
MAX_RESULT: Final = 800_000
MAX_DESCRIPTION: Final = 10_000
MAX_IMAGES: Final = 10
MAX_IMAGE_BYTES: Final = 10_000_000
IMAGE_FORMATS: Final = frozenset({"gif", "jpeg", "png", "webp"})
SUSPICIOUS_SIZE: Final = 600_000
"""Bytes of a body without its images, over which a bare refusal most likely means its size (section 2.7)."""

IMPROPER: Final = "Improperly formed request."
TOO_LONG: Final = "Input is too long."


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the service refuses, or may refuse.

    Attributes:
        rule: the rule, in a few words; always the same for the same rule.
        section: of kiro-protocol.md.
        detail: what breaks it. It may name tools and ids of the client's, and nothing else of the request.
        reason: the word by which the service gives this refusal; empty where it gives none.
        message: the sentence of the service.
    """

    rule: str
    section: str
    detail: str
    reason: str = ""
    message: str = IMPROPER


Found: TypeAlias = Iterator[Finding]


def broken(body: Generate) -> Found:
    """Every rule that `body` breaks, lazily and in the order the service is thought to look.

    Args:
        body: the request, its types checked (`request.decode`).
    """
    return itertools.chain.from_iterable(concern(body) for concern in _CONCERNS)


def doubted(body: Generate) -> Found:
    """Everything in `body` that some source says is refused, and another that it is not."""
    return itertools.chain.from_iterable(concern(body) for concern in _DOUBTS)


def oversized(body: Generate, size: int) -> Found:
    """The size of a body as a suspect. Nothing mends it: the conversation has to become shorter.

    Args:
        body: the request.
        size: bytes of its JSON.
    """
    text = size - sum(len(image.source.bytes) for user in users(body) for image in user.images or ())
    if text > SUSPICIOUS_SIZE:
        yield Finding("size", "2.7", f"{text:,} bytes without images; over about {SUSPICIOUS_SIZE:,} some are refused")


# Looking at a body


def entries(body: Generate) -> list[Entry]:
    """The history, and the current message behind it."""
    return [*(body.conversation_state.history or ()), body.conversation_state.current_message]


def users(body: Generate) -> list[UserInputMessage]:
    """The user's messages."""
    return [entry.user_input_message for entry in entries(body) if entry.user_input_message]


def assistants(body: Generate) -> list[AssistantResponseMessage]:
    """The assistant's messages."""
    return [entry.assistant_response_message for entry in entries(body) if entry.assistant_response_message]


def results_of(user: UserInputMessage) -> list[ToolUseResult]:
    """The results of tools in a message."""
    return (user.user_input_message_context or UserContext()).tool_results or []


def tools_of(body: Generate) -> list[ToolEntry]:
    """The tools offered."""
    current = body.conversation_state.current_message.user_input_message
    return ((current and current.user_input_message_context) or UserContext()).tools or []


def _specifications(body: Generate) -> list[ToolSpecification]:
    return [entry.tool_specification for entry in tools_of(body) if entry.tool_specification]


# What is certain


def _head(body: Generate) -> Found:
    """Section 2.2: the fields round the conversation."""
    state = body.conversation_state
    if state.conversation_id == "":
        yield Finding("conversation id", "2.2", "conversationId is empty", "INVALID_CONVERSATION_ID")
    if state.chat_trigger_type not in TRIGGERS:
        yield Finding("trigger", "2.2", f"chatTriggerType {state.chat_trigger_type!r}")
    for user in users(body):
        if user.origin is not None and user.origin not in ORIGINS:
            yield Finding("origin", "2.2", f"origin {user.origin!r}")


def _order(body: Generate) -> Found:
    """Section 2.4: who speaks when."""
    history = body.conversation_state.history or []
    if len(history) > MAX_HISTORY:
        yield Finding("count of messages", "2.4", f"{len(history)} messages, the limit is {MAX_HISTORY}")
    for at, entry in enumerate(entries(body)):
        if _kind(entry) != ("user", "assistant")[at % 2]:
            yield Finding("order of roles", "2.4", f"message {at} is of {_kind(entry)}, the other one is due")
    if _kind(body.conversation_state.current_message) != "user":
        yield Finding("order of roles", "2.4", "the current message is not the user's")


def _kind(entry: Entry) -> str:
    if (entry.user_input_message is None) == (entry.assistant_response_message is None):
        return "nobody, or both"
    return "user" if entry.user_input_message else "assistant"


def _contents(body: Generate) -> Found:
    """Sections 2.4 and 2.7: nothing empty, nothing too long."""
    for user in users(body):
        if not user.content and not results_of(user):
            yield Finding("empty message", "2.4", "a user message is empty")
        if len(user.content) > MAX_TEXT:
            yield _too_long("length of a message", len(user.content), MAX_TEXT)
    for assistant in assistants(body):
        if not assistant.content:
            yield Finding("empty message", "2.4", "an assistant message is empty")


def _too_long(rule: str, length: int, limit: int) -> Finding:
    detail = f"{length:,} characters, the limit is {limit:,}"
    return Finding(rule, "2.7", detail, "CONTENT_LENGTH_EXCEEDS_THRESHOLD", TOO_LONG)


def _tool_config(body: Generate) -> Found:
    """Sections 2.5 and 2.6: what is declared, and that everything used is."""
    declared: set[str] = set()
    for at, entry in enumerate(tools_of(body)):
        if (entry.tool_specification is None) == (entry.cache_point is None):
            yield Finding("tool entry", "2.2", f"tool {at} is not exactly one of toolSpecification and cachePoint")
        if spec := entry.tool_specification:
            yield from _specification(spec, at, declared)
            declared.add(spec.name.lower())
    uses = [use for assistant in assistants(body) for use in assistant.tool_uses or ()]
    if (uses or any(map(results_of, users(body)))) and not declared:
        yield Finding("declared tools", "2.5", "tools are used and none is declared", "TOOL_CONFIG_MISSING")
    for use in uses:
        if use.name.lower() not in declared:
            yield Finding(
                "declared tools", "2.5", f"the tool {use.name!r} is used and not declared", "TOOL_CONFIG_MISSING"
            )


def _specification(spec: ToolSpecification, at: int, declared: set[str]) -> Found:
    if not LEGAL.fullmatch(spec.name):
        yield Finding("tool name", "2.6", f"the tool name {spec.name!r}", "REQUEST_BODY_INVALID")
    if spec.name.lower() in declared:
        yield Finding("tool name twice", "2.5", f"the tool {spec.name!r} comes twice", "TOOL_DUPLICATE")
    description = spec.description or ""
    if not description.strip() or len(description) > MAX_DESCRIPTION:
        yield Finding(
            "tool description", "2.6", f"the description of {spec.name!r} has {len(description):,} characters"
        )
    try:
        wrong = _schema(json.loads(bytes(spec.input_schema.json)), root=True)
    except RecursionError:
        wrong = " (its depth)"
    if wrong:
        message = f"The value at toolConfig.tools.{at}.toolSpec.inputSchema.json{wrong} is not valid."
        yield Finding("tool schema", "2.6", f"{spec.name!r}: {message}", "TOOL_SCHEMA_INVALID", message)


def _schema(schema: Any, *, root: bool = False) -> str:
    """Where a schema is wrong, as a path; empty where it is not: the root is an object, no keyword is null."""
    if not isinstance(schema, dict):
        return "" if isinstance(schema, bool) and not root else ".type"
    if root and schema.get("type") != "object":
        return ".type"
    for key in ("properties", "required", "type", "items"):
        if key in schema and schema[key] is None:
            return f".{key}"
    for key in ("properties", "$defs", "definitions"):
        inner = schema.get(key, {})
        if not isinstance(inner, dict):
            return f".{key}"
        for name, each in inner.items():
            if wrong := _schema(each):
                return f".{key}.{name}{wrong}"
    if isinstance(schema.get("items"), dict) and (wrong := _schema(schema["items"])):
        return f".items{wrong}"
    return ""


def _pairs(body: Generate) -> Found:
    """Section 2.5: every use has its result in the next message, and the other way round."""
    rule, reason = "pairs of tool calls and results", "TOOL_USE_RESULT_MISMATCH"
    due: list[str] = []
    seen: set[str] = set()
    for entry in entries(body):
        if user := entry.user_input_message:
            results = [result.tool_use_id for result in results_of(user)]
            if sorted(results) != sorted(due):
                yield Finding(rule, "2.5", f"results for {results}, due are {due}", reason)
            for result in results_of(user):
                yield from _result(result)
            due = []
        if assistant := entry.assistant_response_message:
            due = [use.tool_use_id for use in assistant.tool_uses or ()]
            for use in assistant.tool_uses or ():
                if use.tool_use_id in seen or not use.tool_use_id:
                    yield Finding(rule, "2.5", f"the tool use {use.tool_use_id!r} comes twice", reason)
                seen.add(use.tool_use_id)
                if not bytes(use.input).lstrip().startswith(b"{"):
                    detail = f"the input of the tool use {use.tool_use_id!r} is no object"
                    yield Finding("tool arguments", "2.2", detail, "REQUEST_BODY_INVALID")


def _result(result: ToolUseResult) -> Found:
    where = f"the result of {result.tool_use_id!r}"
    if result.status is not None and result.status not in STATUSES:
        yield Finding("tool result", "2.2", f"{where} has the status {result.status!r}")
    if not result.content:
        yield Finding("tool result", "2.2", f"{where} is empty")
    for part in result.content:
        if (part.text is None) == (not given(part.json)):
            yield Finding("tool result", "2.2", f"{where} holds something else than text or JSON")
        if part.text == "":
            yield Finding("tool result", "2.4", f"{where} holds an empty text")
    if (length := _length(result)) > MAX_RESULT:
        yield _too_long("length of a tool result", length, MAX_RESULT)


def _length(result: ToolUseResult) -> int:
    return sum(len(part.text or "") for part in result.content)


def _images(body: Generate) -> Found:
    """Section 2.7: how many, of what kind, how large."""
    images = [image for user in users(body) for image in user.images or ()]
    if len(images) > MAX_IMAGES:
        detail = f"{len(images)} images, the limit is {MAX_IMAGES}"
        yield Finding("count of images", "2.7", detail, "IMAGE_COUNT_EXCEEDED")
    for image in images:
        yield from _image(image)


def _image(image: ImageBlock) -> Found:
    if image.format not in IMAGE_FORMATS:
        yield Finding("image format", "2.7", f"an image in {image.format!r}", "IMAGE_FORMAT_UNSUPPORTED")
    try:
        data = binascii.a2b_base64(image.source.bytes, strict_mode=True)
    except ValueError as error:
        yield Finding("image data", "2.7", f"an image is not base64: {error}", "REQUEST_BODY_INVALID")
        return
    if image_format(data) != image.format:
        yield Finding("image format", "2.7", f"an image says {image.format} and is none", "IMAGE_MIME_MISMATCH")
    if len(data) > MAX_IMAGE_BYTES:
        yield Finding("size of an image", "2.7", f"an image of {len(data):,} bytes", "IMAGE_SIZE_EXCEEDED")


_CONCERNS: Final[Sequence[Callable[[Generate], Found]]] = (_head, _order, _contents, _tool_config, _pairs, _images)
"""In the order they are asked; a later one may rely on what an earlier one found."""


# What is doubted


def _wordy_schemas(body: Generate) -> Found:
    """Section 2.6: sources contradict each other on every keyword beyond a handful."""
    for spec in _specifications(body):
        try:
            odd = repair.beyond_strict(json.loads(bytes(spec.input_schema.json)))
        except RecursionError:
            odd = "too many levels"
        if odd:
            yield Finding("schema keywords", "2.6", f"the schema of {spec.name!r} holds {odd}")


def _long_descriptions(body: Generate) -> Found:
    for spec in _specifications(body):
        if _bytes(spec.description or "") > repair.SHORT_DESCRIPTION:
            yield Finding("long descriptions", "2.6", f"the description of {spec.name!r} is long")


def _stubs(body: Generate) -> Found:
    """Section 2.5: of what to do with a call of a tool that is offered no more, there are four opinions."""
    for spec in _specifications(body):
        if spec.description == STUB:
            yield Finding("tools of the past", "2.5", f"{spec.name!r} is declared for the sake of the history")


def _old_images(body: Generate) -> Found:
    count = sum(len(user.images or ()) for user in users(body)[:-1])
    if count:
        yield Finding("images in the history", "2.7", f"{count} images stand in earlier messages")


def _blanks(body: Generate) -> Found:
    """Section 2.4: a single space is what peers send for nothing; the models' own API refuses it."""
    if any(content.isspace() for content in _contents_of(body)):
        yield Finding("blank texts", "2.4", "a message is nothing but white space")
    for result in itertools.chain.from_iterable(map(results_of, users(body))):
        if any(part.text and part.text.isspace() for part in result.content):
            yield Finding("blank texts", "2.4", f"the result of {result.tool_use_id!r} is nothing but white space")


def _native_thinking(body: Generate) -> Found:
    if given(body.model_fields):
        yield Finding("thinking fields", "2.8", "additionalModelRequestFields is sent; each model has its own schema")


def _long_texts(body: Generate) -> Found:
    """Section 2.7: the official client stays under this, far below the limit it knows; characters or bytes, unknown."""
    for content in _contents_of(body):
        if _bytes(content) > repair.LONG_TEXT:
            yield Finding("long texts", "2.7", f"a message of {len(content):,} characters")
    for result in itertools.chain.from_iterable(map(results_of, users(body))):
        if sum(_bytes(part.text or "") for part in result.content) > repair.LONG_TEXT:
            yield Finding("long texts", "2.7", f"the result of {result.tool_use_id!r}: {_length(result):,} characters")


def _contents_of(body: Generate) -> list[str]:
    return [*(user.content for user in users(body)), *(assistant.content for assistant in assistants(body))]


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


_DOUBTS: Final[Sequence[Callable[[Generate], Found]]] = (
    _wordy_schemas,
    _long_descriptions,
    _stubs,
    _old_images,
    _blanks,
    _native_thinking,
    _long_texts,
)
