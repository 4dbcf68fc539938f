"""What was said, without what opens something: bytes of a request or an answer, as JSON values for a debug capture.

Contents stay, secrets go, by four nets, one behind the other:

- A header's value stays if its name is on a list of names that say nothing of anybody; a query's never does.
- What such a header or query held is looked for in everything else of the capture, whatever it looks like.
- A member whose name says that it is a secret loses its value.
- In every text, what looks like a secret is masked: tokens, keys, ARNs, addresses of people, passwords of URLs.

A secret may come in pieces, one a frame. So frames and events that differ in one string alone are shown as one, with
that string whole and the lengths of its pieces (`runs`), and masked then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from kirostream.errors import FrameError, without_tokens
from kirostream.evstream import FrameDecoder
from kirostream.net.exchange import Headers

MASK: Final = "****"
SHORTEST: Final = 6
"""Characters of a value that is looked for elsewhere: a shorter one is found in any text."""

_SHOWN: Final = frozenset(
    {b"accept", b"accept-encoding", b"accept-language", b"cache-control", b"connection", b"content-encoding"}
    | {b"content-length", b"content-type", b"date", b"host", b"openai-beta", b"originator", b"request-id"}
    | {b"retry-after", b"server", b"server-timing", b"transfer-encoding", b"user-agent", b"vary"}
    | {b"x-accel-buffering", b"x-app", b"x-request-id", b"x-should-retry", b"tokentype", b"traceparent"}
    | {b"amz-sdk-invocation-id", b"amz-sdk-request"}
)
_SHOWN_FAMILIES: Final = (
    b"access-control-",
    b"anthropic-",
    b"x-amz",
    b"x-kirostream-",
    b"x-ratelimit-",
    b"x-stainless-",
)
_NEVER: Final = (b"token", b"secret", b"key", b"signature", b"credential", b"cookie")
"""In a name of those families."""

_SECRET_NAME: Final = re.compile(
    r"token|secret|passw|api[-_]?key|authorization|cookie|credential|private[-_]?key|profile[-_]?arn|e[-_]?mail"
    r"|client[-_]?id|start[-_]?url",
    re.IGNORECASE,
)
_SECRETS: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:ks|ki|sk|pk|rk|gh[pousr]|github_pat|glpat|xox[abeprs])[-_][A-Za-z0-9_-]{12,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|\bAIza[A-Za-z0-9_-]{30,}"
    r"|(?i:\b(?:bearer|basic)\s+)[A-Za-z0-9+/=_.:~-]{8,}"
    r"|\barn:[^\s\"'\\<>,]+"
    r"|(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,}"
    r"|\b[0-9a-f]{64}\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_ASSIGNED: Final = re.compile(
    r"(?i)((?:token|secret|passw(?:or)?d|passphrase|api[-_]?key|authorization|cookie)[\w-]{0,40}\\?[\"']?\s*[:=]\s*\\?[\"']?)"
    r"([^\s\"'\\,;&<>]{6,})"
)
_SSE: Final = "text/event-stream"
_FRAMES: Final = "application/vnd.amazon.eventstream"


class Redactor:
    """Masks what one capture holds. Show heads first: what they hide is looked for in bodies."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._known)} known secrets>"

    def knows(self, secret: str) -> None:
        """From now on this is masked wherever it stands. A scheme before it (``Bearer``) is none of it."""
        for each in (secret, *secret.split()):
            if len(each) >= SHORTEST and each.lower() not in ("bearer", "basic"):
                self._known.add(each)

    def headers(self, headers: Headers) -> list[list[str]]:
        """Names and values, in their order."""
        return [[_text(name), self._header(name.lower(), _text(value))] for name, value in headers]

    def _header(self, name: bytes, value: str) -> str:
        family = name.startswith(_SHOWN_FAMILIES) and not any(word in name for word in _NEVER)
        if name in _SHOWN or family:
            return self.text(value)
        self.knows(value)
        for part in re.split(r"[;,\s]+", value) if name == b"cookie" else ():
            self.knows(part.partition("=")[2])
        return f"<{len(value)} characters>"

    def query(self, query: str) -> list[str]:
        """The names in a query."""
        said = [part.partition("=") for part in query.split("&") if part]
        for _, _, value in said:
            self.knows(value)
        return [self.text(name) for name, _, _ in said]

    def text(self, text: str) -> str:
        """A text, masked."""
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, MASK)
        return _ASSIGNED.sub(rf"\1{MASK}", _SECRETS.sub(MASK, without_tokens(text)))

    def value(self, value: Any) -> Any:
        """A JSON value, masked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(each) for each in value]
        if isinstance(value, dict):
            return {self.text(name): self._member(name, each) for name, each in value.items()}
        return value

    def _member(self, name: str, value: Any) -> Any:
        if isinstance(value, str) and value and _SECRET_NAME.search(name):
            self.knows(value)
            return MASK
        return self.value(value)

    def body(self, data: bytes, kind: bytes, *, cut: bool = False) -> Any:
        """A body, as what it is: JSON, events, frames, or text.

        Args:
            data: its beginning, or all of it.
            kind: the content type.
            cut: it goes on, and is not here.
        """
        if not data:
            return None
        said = _text(kind).partition(";")[0].strip().lower()
        if said == _FRAMES:
            return self.value(runs(list(_frames(data, cut=cut))))
        if said == _SSE:
            return self.value(runs(list(_events(data.decode("utf-8", "backslashreplace"), cut=cut))))
        try:
            return self.value(json.loads(data))
        except (ValueError, RecursionError):
            return self.text(_shown(data, cut=cut))


def runs(values: Sequence[Any]) -> list[Any]:
    """`values`, where those in a row that differ in one string alone, and in numbers, are one.

    That is ``{"run": the first of them, with the whole text, "lengths": of its pieces}``.
    """
    found: list[Any] = []
    run: _Run | None = None
    for value in values:
        if run is None or not run.takes(value):
            if run is not None:
                found.append(run.shown())
            run = _Run(value)
    return found if run is None else [*found, run.shown()]


class _Run:
    def __init__(self, first: Any) -> None:
        self._first = first
        self._path: tuple[Any, ...] | None = None
        self._pieces: list[str] = []

    def takes(self, value: Any) -> bool:
        differ = _differences(self._first, value)
        if differ is None or len(differ) > 1:
            return False
        if self._path is None:
            if not differ:
                return False
            self._path = differ[0]
            self._pieces = [_at(self._first, self._path)]
        elif differ and differ[0] != self._path:
            return False
        self._pieces.append(_at(value, self._path))
        return True

    def shown(self) -> Any:
        if self._path is None:
            return self._first
        return {"run": _with(self._first, self._path, "".join(self._pieces)), "lengths": list(map(len, self._pieces))}


def _differences(one: Any, other: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]] | None:
    """Where strings differ; None where more than strings and numbers do."""
    if type(one) is not type(other):
        return None
    if isinstance(one, str):
        return [] if one == other else [at]
    if isinstance(one, dict | list):
        keys: Iterable[Any] = one if isinstance(one, dict) else range(len(one))
        if len(one) != len(other) or (isinstance(one, dict) and one.keys() != other.keys()):
            return None
        found: list[tuple[Any, ...]] = []
        for key in keys:
            inner = _differences(one[key], other[key], (*at, key))
            if inner is None:
                return None
            found += inner
        return found
    return [] if one == other or not isinstance(one, bool) else None


def _at(value: Any, path: tuple[Any, ...]) -> str:
    for key in path:
        value = value[key]
    return str(value)


def _with(value: Any, path: tuple[Any, ...], text: str) -> Any:
    if not path:
        return text
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = _with(value[path[0]], path[1:], text)
    return changed


def _frames(data: bytes, *, cut: bool) -> Iterable[Any]:
    """The frames of an event stream, and what is none."""
    decoder = FrameDecoder()
    try:
        for frame in decoder.feed(data):
            yield {"frame": frame.event_type or frame.exception_type or frame.message_type, **_payload(frame.payload)}
        decoder.close()
    except FrameError as error:
        if not cut or error.fault != "truncated":
            yield {"broken": error.fault, "at": error.offset, "bytes": len(data)}


def _payload(payload: bytes) -> dict[str, Any]:
    try:
        return {"payload": json.loads(payload)}
    except (ValueError, RecursionError):
        return {"text": _shown(payload, cut=False)}


def _events(text: str, *, cut: bool) -> Iterable[Any]:
    """The events of an SSE stream (HTML Living Standard, section 9.2)."""
    *whole, rest = re.split(r"\r?\n\r?\n", text)
    for event in whole:
        said: dict[str, Any] = {}
        for line in event.splitlines():
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            said[name or "comment"] = f"{said[name]}\n{value}" if name in said else value
        try:
            said["data"] = json.loads(said["data"])
        except (KeyError, ValueError, RecursionError):
            pass
        yield said
    if rest and not cut:
        yield {"unfinished": rest}


def _shown(data: bytes, *, cut: bool) -> str:
    """Bytes as text. Where it is cut, the last word goes too: it may be half of a secret."""
    text = data.decode("utf-8", "backslashreplace")
    return text[: max(map(text.rfind, " \n\t\"'")) + 1] if cut else text


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
