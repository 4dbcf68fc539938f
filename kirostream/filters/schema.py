"""Does a value match a JSON Schema? The part of draft 2020-12 that answers are asked for in.

It is there to catch what a model got wrong, and to tell it: the first mismatch comes back as a sentence with its place.
Keywords that are not known here, and patterns that Python cannot read, hold for every value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

MAX_DEPTH: Final = 100
"""Levels of schema inside schema; deeper, every value matches. References may go round in circles."""

_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: (
        not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    ),
}


def mismatch(value: Any, schema: Any) -> str:
    """What is wrong with `value`, in one sentence; empty where it matches.

    Args:
        value: JSON, decoded.
        schema: a schema, decoded; ``$ref`` is followed within it.
    """
    return _Check(schema).at(value, schema, "$", 0)


class _Check:
    def __init__(self, root: Any) -> None:
        self._root = root

    def at(self, value: Any, schema: Any, path: str, depth: int) -> str:
        if isinstance(schema, bool):
            return "" if schema else f"{path} may not be there"
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return ""
        if isinstance(reference := schema.get("$ref"), str):
            wrong = self.at(value, self._target(reference), path, depth + 1)
            if wrong:
                return wrong
        return (
            self._kind(value, schema, path)
            or self._combined(value, schema, path, depth)
            or (self._members(value, schema, path, depth) if isinstance(value, dict) else "")
            or (self._items(value, schema, path, depth) if isinstance(value, list) else "")
            or (_text(value, schema, path) if isinstance(value, str) else "")
            or (_number(value, schema, path) if _TYPES["number"](value) else "")
        )

    def _kind(self, value: Any, schema: dict[str, Any], path: str) -> str:
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        known = [kind for kind in kinds if isinstance(kind, str)] if isinstance(kinds, list) else []
        if known and not any(_TYPES.get(kind, _any)(value) for kind in known):
            return f"{path} has to be of type {' or '.join(known)}"
        if "const" in schema and not _same(value, schema["const"]):
            return f"{path} has to be {json.dumps(schema['const'], ensure_ascii=False)}"
        allowed = schema.get("enum")
        if isinstance(allowed, list) and not any(_same(value, one) for one in allowed):
            return f"{path} has to be one of {json.dumps(allowed, ensure_ascii=False)}"
        return ""

    def _combined(self, value: Any, schema: dict[str, Any], path: str, depth: int) -> str:
        for part in _list(schema, "allOf"):
            if wrong := self.at(value, part, path, depth + 1):
                return wrong
        for key in ("anyOf", "oneOf"):
            wrongs = [self.at(value, part, path, depth + 1) for part in _list(schema, key)]
            if wrongs and all(wrongs):
                return wrongs[0] if len(wrongs) == 1 else f"{path} matches none of the forms it may have: {wrongs[0]}"
            if key == "oneOf" and wrongs.count("") > 1:
                return f"{path} matches more than one of the forms of which it may have one"
        if "not" in schema and not self.at(value, schema["not"], path, depth + 1):
            return f"{path} has a form that it may not have"
        return ""

    def _members(self, value: dict[str, Any], schema: dict[str, Any], path: str, depth: int) -> str:
        for name in _list(schema, "required"):
            if isinstance(name, str) and name not in value:
                return f"{path}.{name} is missing"
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        patterns = schema.get("patternProperties")
        patterns = patterns if isinstance(patterns, dict) else {}
        for name, member in value.items():
            here = f"{path}.{name}"
            parts = [properties[name]] if name in properties else []
            parts += [part for pattern, part in patterns.items() if _found(pattern, name)]
            if not parts and "additionalProperties" in schema:
                parts = [schema["additionalProperties"]]
            for part in parts:
                if wrong := self.at(member, part, here, depth + 1):
                    return wrong
        return _size(len(value), schema, "Properties", path)

    def _items(self, value: list[Any], schema: dict[str, Any], path: str, depth: int) -> str:
        first = _list(schema, "prefixItems")
        for index, item in enumerate(value):
            part = first[index] if index < len(first) else schema.get("items", True)
            if wrong := self.at(item, part, f"{path}[{index}]", depth + 1):
                return wrong
        if schema.get("uniqueItems") is True and any(_same(a, b) for i, a in enumerate(value) for b in value[:i]):
            return f"{path} holds an item twice"
        return _size(len(value), schema, "Items", path)

    def _target(self, reference: str) -> Any:
        """What a local reference points to (RFC 6901); anything at all for another."""
        found = self._root
        if not reference.startswith("#"):
            return True
        for step in reference[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                return True
            found = found[name]
        return found


def _any(value: Any) -> bool:
    return True


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _list(schema: dict[str, Any], key: str) -> list[Any]:
    found = schema.get(key)
    return found if isinstance(found, list) else []


def _found(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return True


def _bound(schema: dict[str, Any], key: str) -> float | None:
    found = schema.get(key)
    return found if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def _size(size: int, schema: dict[str, Any], of: str, path: str) -> str:
    least, most = _bound(schema, f"min{of}"), _bound(schema, f"max{of}")
    what = {"Properties": "members", "Items": "items", "Length": "characters"}[of]
    if least is not None and size < least:
        return f"{path} needs at least {least} {what}"
    if most is not None and size > most:
        return f"{path} may have at most {most} {what}"
    return ""


def _text(value: str, schema: dict[str, Any], path: str) -> str:
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and not _found(pattern, value):
        return f"{path} does not match the pattern {pattern}"
    return _size(len(value), schema, "Length", path)


def _number(value: float, schema: dict[str, Any], path: str) -> str:
    bounds: tuple[tuple[str, Callable[[float, float], bool], str], ...] = (
        ("minimum", lambda a, b: a >= b, "at least"),
        ("maximum", lambda a, b: a <= b, "at most"),
        ("exclusiveMinimum", lambda a, b: a > b, "more than"),
        ("exclusiveMaximum", lambda a, b: a < b, "less than"),
    )
    for key, holds, words in bounds:
        bound = _bound(schema, key)
        if bound is not None and not holds(value, bound):
            return f"{path} has to be {words} {bound}"
    step = schema.get("multipleOf")
    if isinstance(step, int) and not isinstance(step, bool) and step > 0 and value % step:
        return f"{path} has to be a multiple of {step}"
    return ""
