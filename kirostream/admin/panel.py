"""The panel's own files: a page, its modules and its look. They hold nothing of the gateway, so they are for anybody.

What they may do is little (the policy below): load scripts and styles from here, talk to here. Nothing inline, nothing
from elsewhere, so the panel works offline, and what a model says can never become a script.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from typing import Final

from kirostream.dataclass import dataclass
from kirostream.net.exchange import Exchange

ROOT: Final = "/admin"
STATIC: Final = f"{ROOT}/static/"
POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS: Final = (
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
)
TYPES: Final = {
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "json": b"application/json",
    "svg": b"image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _File:
    kind: bytes
    data: bytes
    tag: bytes


class Panel:
    """Serves the files. They are read once."""

    def __init__(self) -> None:
        folder = importlib.resources.files("kirostream.admin").joinpath("static")
        self._files = {f"{STATIC}{name}": _load(name, file) for name, file in _walk(folder, "")}
        page = self._files[f"{STATIC}index.html"]
        self._files |= {ROOT: page, f"{ROOT}/": page}

    def __repr__(self) -> str:
        return f"<Panel {len(self._files)} files>"

    def has(self, path: str) -> bool:
        """Whether a path is one of the panel's files."""
        return path in self._files

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one of them."""
        request = exchange.request
        file = self._files[request.path]
        if request.method not in ("GET", "HEAD"):
            await exchange.reply(405, ((b"allow", b"GET, HEAD"), *HEADERS), b"")
        elif request.header(b"if-none-match") == file.tag:
            await exchange.reply(304, ((b"etag", file.tag), *HEADERS), b"")
        else:
            await exchange.reply(200, ((b"content-type", file.kind), (b"etag", file.tag), *HEADERS), file.data)


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.rpartition(".")[2] in TYPES:
            yield f"{prefix}{entry.name}", entry


def _load(name: str, file: Traversable) -> _File:
    data = file.read_bytes()
    return _File(TYPES[name.rpartition(".")[2]], data, b'"%b"' % hashlib.sha256(data).hexdigest()[:16].encode())
