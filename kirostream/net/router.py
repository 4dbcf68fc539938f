"""From method and path to a handler."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias
from urllib.parse import unquote

from kirostream.errors import LocalProtocolError, MalformedRequest, MethodNotAllowed, NoSuchRoute
from kirostream.net.exchange import Exchange, Handler, HttpRequest

Endpoint: TypeAlias = Callable[..., Awaitable[None]]
"""A `Handler` that also takes the names of its pattern, as keyword arguments of type str."""


class Router:
    """A `Handler` that picks one of many by method and path.

    A pattern is a path of literal segments and ``{name}`` segments; a name takes exactly one segment, percent-decoded,
    never empty. Paths are compared exactly: a slash at the end is another path. A literal segment wins over a name. A
    path without names is found in one look-up.

    What lies below a mounted prefix is its handler's business, whatever the method; a path without names wins over it.

    GET also serves HEAD (the door leaves the body out). OPTIONS is answered with ``allow`` where it has no endpoint of
    its own.

    Args:
        canonical: the path to try where there is nothing at the one that was asked for.
        on_mended: told of each request that was served at its canonical path.
    """

    def __init__(
        self,
        canonical: Callable[[str], str] | None = None,
        on_mended: Callable[[HttpRequest, str], None] | None = None,
    ) -> None:
        self._canonical = canonical
        self._on_mended = on_mended
        self._literal: Final[dict[str, _Methods]] = {}
        self._tree: Final = _Node()
        self._mounts: Final[list[tuple[str, Handler]]] = []

    def __repr__(self) -> str:
        return f"<Router: {len(self.routes())} routes>"

    def add(self, method: str, pattern: str, endpoint: Endpoint) -> None:
        """Add a route.

        Raises:
            LocalProtocolError: the route exists, the pattern is none, or the endpoint does not take its names.
        """
        segments, names = _parse(pattern)
        _check_takes(endpoint, names, pattern)
        methods = self._tree.reach(segments)
        if method in methods.endpoints:
            raise LocalProtocolError(f"the route {method} {pattern} was added twice")
        if methods.endpoints and methods.names != names:
            raise LocalProtocolError(f"the routes of {pattern} differ in the names of their segments")
        methods.endpoints[method] = endpoint
        methods.names = names
        methods.pattern = pattern
        if not names:
            self._literal[pattern] = methods

    def mount(self, prefix: str, handler: Handler) -> None:
        """Leave `prefix` and every path below it to a handler."""
        self._mounts.append((prefix, handler))

    def routes(self) -> list[tuple[str, str]]:
        """Every method and pattern, sorted by pattern."""
        found = [(method, leaf.pattern) for leaf in self._tree.leaves() for method in leaf.endpoints]
        return sorted(found, key=lambda route: (route[1], route[0]))

    async def __call__(self, exchange: Exchange) -> None:
        """Serve an exchange by the endpoint of its route.

        Raises:
            NoSuchRoute, MethodNotAllowed, MalformedRequest: there is none. And what the endpoint raises.
        """
        request = exchange.request
        if request.path not in self._literal:
            for prefix, handler in self._mounts:
                if request.path == prefix or request.path.startswith(f"{prefix}/"):
                    await handler(exchange)
                    return
        found = self._find(request.path)
        if found is None and self._canonical is not None:
            path = self._canonical(request.path)
            found = self._find(path)
            if found is not None and self._on_mended is not None:
                self._on_mended(request, path)
        if found is None:
            raise NoSuchRoute(f"Nothing is served at {request.path}.")
        methods, values = found
        endpoint = methods.endpoints.get(request.method)
        if endpoint is None and request.method == "HEAD":
            endpoint = methods.endpoints.get("GET")
        if endpoint is not None:
            await endpoint(exchange, **dict(zip(methods.names, values, strict=True)))
        elif request.method == "OPTIONS":
            await exchange.reply(204, [(b"allow", ", ".join(methods.allowed()).encode("ascii"))], b"")
        else:
            allowed = methods.allowed()
            raise MethodNotAllowed(
                f"{request.path} does not take {request.method}. It takes {', '.join(allowed)}.", allowed=allowed
            )

    def _find(self, path: str) -> tuple[_Methods, list[str]] | None:
        literal = self._literal.get(path)
        if literal is not None:
            return literal, []
        return self._tree.find(_split(path)) if path.startswith("/") else None


class _Methods:
    """What one pattern serves."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.names: tuple[str, ...] = ()
        self.pattern = ""

    def allowed(self) -> tuple[str, ...]:
        implied = {"OPTIONS"} | ({"HEAD"} if "GET" in self.endpoints else set())
        return tuple(sorted(implied | self.endpoints.keys()))


class _Node:
    """One segment of the tree of patterns. A name's segment is None."""

    def __init__(self) -> None:
        self.children: dict[str | None, _Node] = {}
        self.methods: _Methods | None = None

    def reach(self, segments: list[str | None]) -> _Methods:
        node = self
        for segment in segments:
            node = node.children.setdefault(segment, _Node())
        if node.methods is None:
            node.methods = _Methods()
        return node.methods

    def find(self, segments: list[str]) -> tuple[_Methods, list[str]] | None:
        if not segments:
            return None if self.methods is None else (self.methods, [])
        first, rest = segments[0], segments[1:]
        child = self.children.get(first)
        found = child.find(rest) if child else None
        if found is None and first and (child := self.children.get(None)) and (found := child.find(rest)):
            found = (found[0], [first, *found[1]])
        return found

    def leaves(self) -> list[_Methods]:
        own = [self.methods] if self.methods else []
        return own + [leaf for child in self.children.values() for leaf in child.leaves()]


def _split(path: str) -> list[str]:
    try:
        return [unquote(segment, errors="strict") for segment in path[1:].split("/")]
    except UnicodeDecodeError:
        raise MalformedRequest("The path is not UTF-8 once it is percent-decoded.") from None


def _parse(pattern: str) -> tuple[list[str | None], tuple[str, ...]]:
    if not pattern.startswith("/"):
        raise LocalProtocolError(f"a route's pattern begins with a slash: {pattern!r}")
    segments: list[str | None] = []
    names: list[str] = []
    for segment in pattern[1:].split("/"):
        if segment.startswith("{") and segment.endswith("}"):
            name = segment[1:-1]
            if not name.isidentifier() or name in names:
                raise LocalProtocolError(f"a segment's name is an identifier, once: {pattern!r}")
            names.append(name)
            segments.append(None)
        elif "{" in segment or "}" in segment:
            raise LocalProtocolError(f"a name is a whole segment: {pattern!r}")
        else:
            segments.append(unquote(segment))
    return segments, tuple(names)


def _check_takes(endpoint: Endpoint, names: tuple[str, ...], pattern: str) -> None:
    try:
        inspect.signature(endpoint).bind(None, **dict.fromkeys(names, ""))
    except TypeError as error:
        raise LocalProtocolError(f"the endpoint of {pattern} does not take its names: {error}") from None
