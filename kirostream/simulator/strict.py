"""What the service refuses (kiro-protocol.md sections 2.2 to 2.8), so that converters are held to it. Pure.

One function a concern; the first refusal found is the answer. Where the sheet names a reason, the refusal has it;
everything else is the bare ``Improperly formed request.`` Each refusal also says in `detail` what is wrong, which the
real service does not.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from kirostream.dialects.kiro.names import LEGAL
from kirostream.dialects.kiro.request import (
    AssistantResponseMessage,
    Entry,
    Generate,
    ImageBlock,
    ToolEntry,
    ToolUseResult,
    UserContext,
    UserInputMessage,
    given,
    to_turn,
)
from kirostream.filters.request_rules import image_format
from kirostream.simulator.catalogue import Offer
from kirostream.simulator.refusals import TOO_LONG, Refusal, invalid
from kirostream.turn.tokens import estimate

TRIGGERS: Final = frozenset({"MANUAL", "INLINE_CHAT", "DIAGNOSTIC"})
ORIGINS: Final = frozenset(
    {"AI_EDITOR", "CHATBOT", "CLI", "CONSOLE", "DOCUMENTATION", "GITLAB", "IDE", "INLINE_CHAT", "KIRO_CLI", "MARKETING"}
    | {"MD", "MD_CE", "MD_IDE", "MOBILE", "OPENSEARCH_DASHBOARD", "Q_DEV_BEXT", "SAGE_MAKER", "SERVICE_INTERNAL"}
    | {"SM_AI_STUDIO_IDE", "UNIFIED_SEARCH", "UNKNOWN"}
)
MAX_HISTORY: Final = 10_000
MAX_TEXT: Final = 600_000
MAX_RESULT: Final = 800_000
MAX_DESCRIPTION: Final = 10_000
MAX_IMAGES: Final = 10
MAX_IMAGE_BYTES: Final = 10_000_000
IMAGE_FORMATS: Final = frozenset({"gif", "jpeg", "png", "webp"})

Found: TypeAlias = Iterator[Refusal]


def check(body: Generate, catalogue: Mapping[str, Offer]) -> Refusal | None:
    """The first reason to refuse `body`; None where the service takes it.

    Args:
        body: the request, its types checked (`dialects.kiro.request.decode`).
        catalogue: the models on offer, by id.
    """
    for concern in _CONCERNS:
        for refusal in concern(body, catalogue):
            return refusal
    return None


def _users(body: Generate) -> list[UserInputMessage]:
    entries = [*(body.conversation_state.history or ()), body.conversation_state.current_message]
    return [entry.user_input_message for entry in entries if entry.user_input_message]


def _assistants(body: Generate) -> list[AssistantResponseMessage]:
    history = body.conversation_state.history or ()
    return [entry.assistant_response_message for entry in history if entry.assistant_response_message]


def _results(user: UserInputMessage) -> list[ToolUseResult]:
    return (user.user_input_message_context or UserContext()).tool_results or []


def _tools(body: Generate) -> list[ToolEntry]:
    current = body.conversation_state.current_message.user_input_message
    return ((current and current.user_input_message_context) or UserContext()).tools or []


def _head(body: Generate, catalogue: Mapping[str, Offer]) -> Found:
    """Section 2.2: the fields round the conversation."""
    state = body.conversation_state
    if state.conversation_id == "":
        yield invalid("conversationId is empty", "INVALID_CONVERSATION_ID")
    if state.chat_trigger_type not in TRIGGERS:
        yield invalid(f"chatTriggerType {state.chat_trigger_type!r}")
    for user in _users(body):
        if user.origin is not None and user.origin not in ORIGINS:
            yield invalid(f"origin {user.origin!r}")
    current = state.current_message.user_input_message
    model = current.model_id if current else None
    if model not in catalogue:
        message = "Invalid model. Please select a different model to continue."
        yield invalid(f"modelId {model!r}", "INVALID_MODEL_ID", message)


def _order(body: Generate, catalogue: Mapping[str, Offer]) -> Found:
    """Section 2.4: who speaks when."""
    history = body.conversation_state.history or []
    if len(history) > MAX_HISTORY:
        yield invalid(f"{len(history)} messages, the limit is {MAX_HISTORY}")
    for at, entry in enumerate([*history, body.conversation_state.current_message]):
        if _kind(entry) != ("user", "assistant")[at % 2]:
            yield invalid(f"message {at} is of {_kind(entry)}, the other one is due")
    if _kind(body.conversation_state.current_message) != "user":
        yield invalid("the current message is not the user's")


def _kind(entry: Entry) -> str:
    if (entry.user_input_message is None) == (entry.assistant_response_message is None):
        return "nobody, or both"
    return "user" if entry.user_input_message else "assistant"


def _contents(body: Generate, catalogue: Mapping[str, Offer]) -> Found:
    """Sections 2.4 and 2.7: nothing empty, nothing too long."""
    for user in _users(body):
        if not user.content and not _results(user):
            yield invalid("a user message is empty")
        if len(user.content) > MAX_TEXT:
            yield TOO_LONG
    for assistant in _assistants(body):
        if not assistant.content:
            yield invalid("an assistant message is empty")


def _pairs(body: Generate, catalogue: Mapping[str, Offer]) -> Found:
    """Section 2.5: every use has its result in the next message, and the other way round."""
    due: list[str] = []
    seen: set[str] = set()
    for entry in (*(body.conversation_state.history or ()), body.conversation_state.current_message):
        if user := entry.user_input_message:
            given = [result.tool_use_id for result in _results(user)]
            if sorted(given) != sorted(due):
                yield invalid(f"results for {given}, due are {due}", "TOOL_USE_RESULT_MISMATCH")
            for result in _results(user):
                yield from _result(result)
            due = []
        if assistant := entry.assistant_response_message:
            due = [use.tool_use_id for use in assistant.tool_uses or ()]
            for use in assistant.tool_uses or ():
                if use.tool_use_id in seen or not use.tool_use_id:
                    yield invalid(f"the tool use {use.tool_use_id!r} comes twice", "TOOL_USE_RESULT_MISMATCH")
                seen.add(use.tool_use_id)
                if not bytes(use.input).lstrip().startswith(b"{"):
                    yield invalid(f"the input of the tool use {use.tool_use_id!r} is no object", "REQUEST_BODY_INVALID")


def _result(result: ToolUseResult) -> Found:
    where = f"the result of {result.tool_use_id!r}"
    if result.status not in (None, "success", "error"):
        yield invalid(f"{where} has the status {result.status!r}")
    if not result.content:
        yield invalid(f"{where} is empty")
    for part in result.content:
        if (part.text is None) == (not given(part.json)):
            yield invalid(f"{where} holds something else than text or JSON")
        if part.text == "":
            yield invalid(f"{where} holds an empty text")
    if sum(len(part.text or "") for part in result.content) > MAX_RESULT:
        yield TOO_LONG


def _tool_config(body: Generate, catalogue: Mapping[str, Offer]) -> Found:
    """Sections 2.5 and 2.6: what is declared, and that everything used is."""
    declared: set[str] = set()
    for at, entry in enumerate(_tools(body)):
        if (entry.tool_specification is None) == (entry.cache_point is None):
            yield invalid(f"tool {at} is not exactly one of toolSpecification and cachePoint")
        if spec := entry.tool_specification:
            if not LEGAL.fullmatch(spec.name):
                yield invalid(f"the tool name {spec.name!r}", "REQUEST_BODY_INVALID")
            if spec.name.lower() in declared:
                yield invalid(f"the tool {spec.name!r} comes twice", "TOOL_DUPLICATE")
            declared.add(spec.name.lower())
            if not (spec.description or "").strip() or len(spec.description or "") > MAX_DESCRIPTION:
                yield invalid(f"the description of {spec.name!r} has {len(spec.description or '')} characters")
            try:
                wrong = _schema(json.loads(bytes(spec.input_schema.json)), root=True)
            except RecursionError:
                wrong = " (its depth)"
            if wrong:
                message = f"The value at toolConfig.tools.{at}.toolSpec.inputSchema.json{wrong} is not valid."
                yield invalid(message, "TOOL_SCHEMA_INVALID", message)
    uses = [use for assistant in _assistants(body) for use in assistant.tool_uses or ()]
    if (uses or any(map(_results, _users(body)))) and not declared:
        yield invalid("tools are used and none is declared", "TOOL_CONFIG_MISSING")
    for use in uses:
        if use.name.lower() not in declared:
            yield invalid(f"the tool {use.name!r} is used and not declared", "TOOL_CONFIG_MISSING")


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


def _images(body: Generate, catalogue: Mapping[str, Offer]) -> Found:
    """Section 2.7: how many, of what kind, how large."""
    images = [image for user in _users(body) for image in user.images or ()]
    if len(images) > MAX_IMAGES:
        yield invalid(f"{len(images)} images, the limit is {MAX_IMAGES}", "IMAGE_COUNT_EXCEEDED")
    for image in images:
        yield from _image(image)


def _image(image: ImageBlock) -> Found:
    if image.format not in IMAGE_FORMATS:
        yield invalid(f"an image in {image.format!r}", "IMAGE_FORMAT_UNSUPPORTED")
    try:
        data = binascii.a2b_base64(image.source.bytes, strict_mode=True)
    except ValueError as error:
        yield invalid(f"an image is not base64: {error}", "REQUEST_BODY_INVALID")
        return
    if image_format(data) != image.format:
        yield invalid(f"an image says {image.format} and is none", "IMAGE_MIME_MISMATCH")
    if len(data) > MAX_IMAGE_BYTES:
        yield invalid(f"an image of {len(data)} bytes", "IMAGE_SIZE_EXCEEDED")


def _model_fields(body: Generate, catalogue: Mapping[str, Offer]) -> Found:
    """Section 2.8: each model has its own closed schema."""
    fields = given(body.model_fields)
    if not fields:
        return
    current = body.conversation_state.current_message.user_input_message
    offer = catalogue[(current and current.model_id) or ""]
    if offer.fields is None:
        yield invalid(f"{offer.model.id} takes no additionalModelRequestFields", "REQUEST_BODY_INVALID")
        return
    wrong = _misfit(msgspec.json.decode(fields), offer.fields, "additionalModelRequestFields")
    if wrong:
        yield invalid(wrong, "REQUEST_BODY_INVALID")


def _misfit(value: Any, schema: Mapping[str, Any], path: str) -> str:
    """Where `value` leaves the part of JSON Schema that the catalogue uses; empty where it fits."""
    if schema["type"] == "string":
        return "" if value in schema["enum"] else f"{path} is {value!r}, it takes {', '.join(schema['enum'])}"
    if not isinstance(value, dict):
        return f"{path} is no object"
    for key, inner in value.items():
        if key not in schema["properties"]:
            return f"{path}.{key} is not known"
        if wrong := _misfit(inner, schema["properties"][key], f"{path}.{key}"):
            return wrong
    return ""


def _window(body: Generate, catalogue: Mapping[str, Offer]) -> Found:
    """Section 2.7: the model's context window, by our own estimate of the prompt."""
    request = to_turn(body)
    if estimate(request) > catalogue[request.model].model.window:
        yield TOO_LONG


_CONCERNS: Final[Sequence[Callable[[Generate, Mapping[str, Offer]], Found]]] = (
    _head,
    _order,
    _contents,
    _tool_config,
    _pairs,
    _images,
    _model_fields,
    _window,
)
"""In the order they are asked; a later one may rely on what an earlier one found."""
