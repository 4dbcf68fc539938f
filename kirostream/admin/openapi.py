"""The admin API's document (OpenAPI 3.1), made from the table of routes: it cannot say what is not served."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from kirostream._version import __version__
from kirostream.admin.errors import Failure
from kirostream.admin.route import Route

REF: Final = "#/components/schemas/{name}"
WHY: Final = {
    400: "What came cannot be used; `param` names the member.",
    401: "Nobody is logged in, and no admin key came.",
    403: "The session's token did not come with a request that changes something.",
    404: "What the path names is not there.",
    409: "It cannot be done as things are.",
    413: "The body is too large.",
    429: "Too many wrong passwords came; `retry-after` says when the next one is looked at.",
    500: "Something on this machine has to be put right first, such as a full disk; or the gateway failed, and its log "
    "has the reason.",
    502: "The upstream refused, or failed.",
    503: "It cannot be done just now.",
    504: "The upstream did not answer in time.",
}


def document(routes: Iterable[Route], cookie: str) -> dict[str, Any]:
    """The document, as what JSON is made of.

    Args:
        cookie: the name of a session's cookie.
    """
    routes = list(routes)
    kinds: list[Any] = [Failure]
    for route in routes:
        kinds += [kind for kind in (route.takes, route.query, route.gives) if kind is not None]
    kinds = list(dict.fromkeys(kinds))
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REF)
    schema_of = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.whole_path, {})[route.method.lower()] = _operation(route, schema_of, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kirostream admin API",
            "version": __version__,
            "description": "What an operator sees of a running gateway, and changes of it. A program sends an admin "
            "key with every request; a page logs in, and sends the session's token in X-CSRF-Token with what changes "
            "something.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {"session": [], "csrf": []}],
        "tags": [{"name": name} for name in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "A key of scope admin."},
                "session": {"type": "apiKey", "in": "cookie", "name": cookie},
                "csrf": {"type": "apiKey", "in": "header", "name": "X-CSRF-Token"},
            },
        },
    }


def _operation(route: Route, schema_of: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [route.tag],
        "responses": _responses(route, schema_of),
    }
    if route.public:
        said["security"] = []
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", route.whole_path)
    ]
    if route.query is not None:
        schema = components[route.query.__name__]
        parameters += [
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "schema": {key: value for key, value in member.items() if key != "description"},
                **({"description": member["description"]} if "description" in member else {}),
            }
            for name, member in schema["properties"].items()
        ]
    if parameters:
        said["parameters"] = parameters
    if route.takes is not None:
        needed = bool(components[route.takes.__name__].get("required"))  # an empty body is an empty object
        said["requestBody"] = {"required": needed, "content": {"application/json": {"schema": schema_of[route.takes]}}}
    return said


def _responses(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    failure = {"content": {"application/json": {"schema": schema_of[Failure]}}}
    good: dict[str, Any] = {"description": route.summary}
    if route.media:
        good["content"] = {
            media: {"schema": {} if media == "application/json" else {"type": "string"}} for media in route.media
        }
    if route.gives is not None:
        good.setdefault("content", {})["application/json"] = {"schema": schema_of[route.gives]}
    statuses = {400, 401, 500, *route.refuses}
    if route.method not in ("GET", "HEAD"):
        statuses.add(403)
    if route.takes is not None:
        statuses.add(413)
    return {
        str(route.status): good,
        **{str(status): {"description": WHY[status], **failure} for status in sorted(statuses)},
    }


def operation_id(route: Route) -> str:
    """A name for programs: ``post_accounts_id_test``."""
    words = re.findall(r"\w+", route.path.replace("//", "root/"))
    return "_".join([route.method.lower(), *words])
