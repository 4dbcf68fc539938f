"""Tool schemas as Kiro takes them: an object at the root, no nulls, no references (kiro-protocol.md section 2.6).

Nearly all schemas of real clients need nothing, or lose their ``$schema`` and nothing else. Those are recognized in one
decode (`Fit`), without being walked in Python; every other is walked, and written again where the walk changed it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw

from kirostream import scan
from kirostream.turn.request import RawJson

OBJECT_SCHEMA: Final = b'{"type":"object","properties":{}}'
MAX_SCHEMA_NODES: Final = 20_000
"""References can unfold exponentially; past this many subschemas a reference stays open: ``{}``."""
MAX_SCHEMA_DEPTH: Final = 64

_NONE: Final[Mapping[str, int]] = MappingProxyType({})
_SCHEMA_KEYS: Final = frozenset(
    {"additionalItems", "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_SCHEMA_LISTS: Final = frozenset(("allOf", "anyOf", "items", "oneOf", "prefixItems"))
_SCHEMA_MAPS: Final = frozenset(("dependentSchemas", "patternProperties", "properties"))
_DATA: Final = frozenset(("const", "default", "enum", "examples"))
_DROPPED: Final = frozenset(("$schema", "$id", "$defs", "definitions", "$anchor", "$dynamicAnchor", "$comment"))


_REFERENCES: Final = frozenset(("$ref", "$dynamicRef"))
_SPECIAL: Final = _SCHEMA_KEYS | _SCHEMA_LISTS | _SCHEMA_MAPS | _DATA | _DROPPED | _REFERENCES | {"required"}
"""Keywords that are looked at; what any other holds stays as it is."""


class Fit(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A subschema with nothing to repair: known keywords, each of its own type.

    None is the default of what is not there; a null that is there does not fit.
    """

    type: str | list[str] = ""
    description: str = ""
    title: str = ""
    format: str = ""
    pattern: str = ""
    properties: dict[str, Fit | bool] = None  # type: ignore[assignment]
    required: list[str] = None  # type: ignore[assignment]
    items: Fit | bool = True
    additionalProperties: Fit | bool = True  # noqa: N815
    propertyNames: Fit | bool = True  # noqa: N815
    anyOf: list[Fit | bool] = None  # type: ignore[assignment]  # noqa: N815
    oneOf: list[Fit | bool] = None  # type: ignore[assignment]  # noqa: N815
    allOf: list[Fit | bool] = None  # type: ignore[assignment]  # noqa: N815
    const: Any = None
    default: Any = None
    enum: Any = None
    examples: Any = None
    minimum: float = 0
    maximum: float = 0
    exclusiveMinimum: float = 0  # noqa: N815
    exclusiveMaximum: float = 0  # noqa: N815
    multipleOf: float = 0  # noqa: N815
    minLength: float = 0  # noqa: N815
    maxLength: float = 0  # noqa: N815
    minItems: float = 0  # noqa: N815
    maxItems: float = 0  # noqa: N815
    uniqueItems: bool = False  # noqa: N815


class FitRoot(Fit, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The same at the root, where ``$schema`` may be taken away."""

    dialect: Any = msgspec.field(name="$schema", default=msgspec.UNSET)
    type: Literal["object"]
    properties: dict[str, Fit | bool]


MAX_FIT: Final = 3 * MAX_SCHEMA_NODES
"""Bytes. No shorter schema has more than `MAX_SCHEMA_NODES` subschemas."""

_seen_to_fit: Final = scan.Fitter(Fit.__annotations__)
_fit: Final = msgspec.json.Decoder(FitRoot).decode
_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


def repair_schema(raw: RawJson) -> RawJson:
    """The schema as Kiro takes it; the same bytes where nothing is wrong."""
    fitting = _fitting(raw) if len(raw) <= MAX_FIT else None
    return _repair_known(raw) if fitting is None else fitting


def _fitting(raw: RawJson) -> RawJson | None:
    """The schema without its ``$schema``; None where it may need more than that."""
    if (fitting := _seen_to_fit(raw)) is not None:
        return fitting or None
    try:
        if _fit(raw).dialect is msgspec.UNSET:
            return raw
        members = _members(raw)
    except (ValueError, RecursionError):
        return None
    del members["$schema"]
    return _encode(members)


def _repair_known(raw: RawJson) -> RawJson:
    """The walk, remembered for schemas of a usual size: a client's tools rarely change."""
    return _remembered(raw) if len(raw) <= MAX_REMEMBERED else _repair(raw)


def _repair(raw: RawJson) -> RawJson:
    try:
        schema = msgspec.json.decode(raw)
        repaired = _repaired(schema, _seen_to_fit.properties(raw))
        return raw if repaired == schema else _encode(repaired)
    except (ValueError, OverflowError, RecursionError):
        return _repair_odd(raw)


def _repaired(schema: Any, fitting: Mapping[str, int]) -> dict[str, Any]:
    """What becomes of a schema, some properties of which fit: these are not walked.

    Whether they are makes a difference only where there is too much to walk; then everything is.
    """
    walk = _Repair(schema, fitting)
    repaired = walk.root()
    return repaired if walk.nodes <= MAX_SCHEMA_NODES or not fitting else _Repair(schema).root()


def _repair_odd(raw: RawJson) -> RawJson:
    """The same by the standard library, which takes half characters and numbers that msgspec does not."""
    try:
        schema = json.loads(raw)
        repaired = _Repair(schema).root()
        if repaired == schema:
            return raw
        return json.dumps(repaired, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return OBJECT_SCHEMA


MAX_REMEMBERED: Final = 1 << 16
"""Bytes."""
_remembered: Final = functools.lru_cache(maxsize=128)(_repair)


class _Repair:
    """One schema's repair: walks subschemas only, never data, and counts what it has unfolded."""

    def __init__(self, schema: Any, fitting: Mapping[str, int] = _NONE) -> None:
        self._schema = schema
        self._fitting = fitting
        self.nodes = 0

    def root(self) -> dict[str, Any]:
        root = self._subschema(self._schema, ())
        if not isinstance(root, dict):
            return {"type": "object", "properties": {}}
        kind = root.get("type", "object")
        if kind == "object" or (isinstance(kind, list) and "object" in kind):
            if root.get("type") == "object" and "properties" in root:
                return root
            return {**root, "type": "object", "properties": root.get("properties", {})}
        return {"type": "object", "properties": {"value": root}}

    def _subschema(self, schema: Any, within: tuple[str, ...]) -> Any:
        """`schema` repaired. `within` holds the references that are being unfolded, outermost first."""
        self.nodes += 1
        if not isinstance(schema, dict):
            return schema if isinstance(schema, bool) else {}
        if self.nodes > MAX_SCHEMA_NODES or len(within) > MAX_SCHEMA_DEPTH:
            return {}
        if _SPECIAL.isdisjoint(schema) and None not in schema.values():
            return schema
        reference = schema.get("$ref", schema.get("$dynamicRef"))
        if isinstance(reference, str):
            target = self._target(reference) if reference not in within else None
            own = {key: value for key, value in schema.items() if key not in ("$ref", "$dynamicRef")}
            if isinstance(target, dict):
                return self._subschema({**target, **own}, (*within, reference))
            return self._subschema(own, within)
        repaired = {}
        for key, value in schema.items():
            if key not in _SPECIAL:
                if value is not None:
                    repaired[key] = value
            elif key == "properties" and schema is self._schema and isinstance(value, dict):
                repaired[key] = {name: self._property(name, one, within) for name, one in value.items()}
            elif key in _SCHEMA_MAPS and isinstance(value, dict):
                repaired[key] = {name: self._subschema(one, within) for name, one in value.items()}
            elif key == "properties":
                repaired[key] = {}
            elif key in _DATA:
                repaired[key] = value
            elif value is None or key in _DROPPED or (key == "required" and not isinstance(value, list)):
                continue
            elif key in _SCHEMA_LISTS and isinstance(value, list):
                repaired[key] = [self._subschema(one, within) for one in value]
            elif key in _SCHEMA_KEYS:
                repaired[key] = self._subschema(value, within)
            else:
                repaired[key] = value
        return repaired

    def _property(self, name: str, schema: Any, within: tuple[str, ...]) -> Any:
        """One of the root's."""
        most = self._fitting.get(name)
        if most is None:
            return self._subschema(schema, within)
        self.nodes += most
        return schema

    def _target(self, reference: str) -> Any:
        """What a local reference (``#/$defs/x``, RFC 6901) points to; None for any other."""
        if not reference.startswith("#"):
            return None
        found = self._schema
        for step in reference[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(name)
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                return None
        return found
