"""A request without its contents: what may be attached to a bug report (kiro-protocol.md section 2). Pure.

The shape stays, all of it that a rule could hang on: fields, roles, order, counts, lengths, which strings are equal to
which, the keywords of schemas. Everything that somebody wrote goes: texts, arguments, images, names of tools and of
their parameters, ids, the profile.

It works by what is allowed, not by what is suspected: a field's name stays if section 2 knows it, a string if it is one
of a field's known words. Everything else becomes a placeholder, so a field that is new here is masked as well.

A placeholder says the kind, a fingerprint and the length: ``<text 1f3a99c0, 812 characters, 830 bytes>``. The
fingerprint is keyed with random bytes that nobody keeps, so that equal strings can be told within one capture, and a
short secret cannot be guessed from it.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any, Final

import msgspec

from kirostream.dialects.kiro.checks import IMAGE_FORMATS, ORIGINS, STATUSES, TRIGGERS
from kirostream.dialects.kiro.names import LEGAL
from kirostream.dialects.kiro.request import EFFORTS, ModelFields, Wire
from kirostream.filters.images import image_format

FIRST: Final = 20
LAST: Final = 180
"""Of a longer list (a history, mostly) so many at each end are kept."""
DEEPEST: Final = 40

_STRUCTS: Final[Sequence[type[msgspec.Struct]]] = (*Wire.__subclasses__(), ModelFields)
_FIELDS: Final = frozenset(name for struct in _STRUCTS for name in struct.__struct_encode_fields__)
_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "chatTriggerType": TRIGGERS,
    "origin": ORIGINS,
    "status": STATUSES,
    "format": IMAGE_FORMATS,
    "agentTaskType": frozenset(("vibe", "spectask")),
    "type": frozenset(("default", "adaptive", "disabled")),
    "display": frozenset(("summarized", "omitted")),
    "effort": frozenset(EFFORTS),
}
"""By field: the strings that say nothing of anybody."""

_MODEL: Final = re.compile(r"(auto|claude|deepseek|glm|gpt|kimi|minimax|nova|qwen)[a-z0-9.-]{0,40}")
"""Ids of the catalogue. A client may ask for any other name, and that one is its own."""
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

_SCHEMA_TYPES: Final = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
_SCHEMA_MAPS: Final = frozenset(("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"))
_SCHEMA_PARTS: Final = frozenset(
    {"items", "prefixItems", "additionalItems", "unevaluatedItems", "contains", "anyOf", "allOf", "oneOf", "not"}
    | {"if", "then", "else", "additionalProperties", "unevaluatedProperties", "propertyNames"}
)
_SCHEMA_DATA: Final = frozenset(
    {"type", "required", "enum", "const", "default", "examples", "title", "description", "format", "pattern"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"}
    | {"minItems", "maxItems", "uniqueItems", "minContains", "maxContains", "minProperties", "maxProperties"}
    | {"dependentRequired", "nullable", "deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType"}
    | {"$schema", "$id", "$ref", "$anchor", "$comment", "$dynamicRef", "$dynamicAnchor", "$vocabulary"}
)


def redacted(body: bytes, key: bytes) -> Any:
    """The shape of a request's body, as JSON values.

    Args:
        body: as it was sent.
        key: random bytes, at most 64, new for each capture.
    """
    masks = _Masks(key)
    try:
        return masks.wire(json.loads(body), "", 0)
    except (ValueError, RecursionError):
        return f"<unreadable, {len(body)} bytes>"


class _Masks:
    """Puts placeholders in place of values."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "<_Masks>"

    def wire(self, value: Any, field: str, depth: int) -> Any:
        """A value of the service's own fields. `field` is the name it stands under."""
        if depth > DEEPEST:
            return "<deeper>"
        if field in ("input", "json"):
            return self.data(value, depth)
        if field == "inputSchema" and isinstance(value, dict):
            return {self._name(key, ("json",)): self.schema(each, depth + 1) for key, each in value.items()}
        if isinstance(value, dict):
            return {self._name(key, _FIELDS): self.wire(each, key, depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self.wire(each, field, depth + 1) if each is not _GAP else each for each in _ends(value)]
        if not isinstance(value, str):
            return value if value is None or isinstance(value, bool) else "<number>"
        if value == "" or value in _WORDS.get(field, ()) or (field == "modelId" and _MODEL.fullmatch(value)):
            return value
        return self._text(value, field if field in ("bytes", "name") else "text")

    def schema(self, value: Any, depth: int) -> Any:
        """A subschema: its keywords stay, and what kind of thing stands behind them."""
        if depth > DEEPEST:
            return "<deeper>"
        if isinstance(value, list):
            return [self.schema(each, depth + 1) if each is not _GAP else each for each in _ends(value)]
        if not isinstance(value, dict):
            return value if value is None or isinstance(value, bool) else self.data(value, depth)
        shown: dict[str, Any] = {}
        for key, each in value.items():
            if key in _SCHEMA_MAPS and isinstance(each, dict):
                inner = {self._text(name, "name"): self.schema(part, depth + 2) for name, part in each.items()}
                shown[key] = inner
            elif key in _SCHEMA_PARTS:
                shown[key] = self.schema(each, depth + 1)
            else:
                shown[self._name(key, _SCHEMA_DATA)] = self._keyword(key, each, depth + 1)
        return shown

    def _keyword(self, key: str, value: Any, depth: int) -> Any:
        if key == "type":
            kinds = value if isinstance(value, list) else [value]
            if all(isinstance(kind, str) and kind in _SCHEMA_TYPES for kind in kinds):
                return value
        return value if value is None or value == [] else self.data(value, depth)

    def data(self, value: Any, depth: int) -> Any:
        """A value of somebody else's: nothing stays but its shape."""
        if depth > DEEPEST:
            return "<deeper>"
        if isinstance(value, dict):
            return {self._text(key, "name"): self.data(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self.data(each, depth + 1) if each is not _GAP else each for each in _ends(value)]
        if isinstance(value, str):
            return self._text(value, "text") if value else ""
        return {bool: "<boolean>", type(None): None}.get(type(value), "<number>")

    def _name(self, key: str, known: Container[str]) -> str:
        return key if key in known else self._text(key, "field")

    def _text(self, text: str, kind: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        mark = hashlib.blake2b(data, key=self._key, digest_size=4).hexdigest()
        traits = [f"{kind} {mark}", f"{len(text)} characters"]
        if len(data) != len(text):
            traits.append(f"{len(data)} bytes")
        if kind == "bytes":
            traits.append(_image(text) or "no image")
        elif kind == "name":
            traits.append("legal" if LEGAL.fullmatch(text) else "not legal")
        if text.isspace():
            traits.append("blank")
        if _CONTROLS.search(text):
            traits.append("control characters")
        return f"<{', '.join(traits)}>"


_GAP: Final = "<left out>"


def _ends(values: list[Any]) -> list[Any]:
    return values if len(values) <= FIRST + LAST else [*values[:FIRST], _GAP, *values[-LAST:]]


def _image(text: str) -> str:
    try:
        return image_format(binascii.a2b_base64(text[:16]))
    except ValueError:
        return "not base64"
