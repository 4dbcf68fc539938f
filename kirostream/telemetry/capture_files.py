"""Debug captures as files: what one looks like, and reading those that there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from kirostream._version import __version__
from kirostream.stores.files import file_trouble
from kirostream.stores.ring import FileRing
from kirostream.telemetry.captures import SUFFIX, Capture, Part
from kirostream.telemetry.redaction import Redactor


def encoded(entry: Mapping[str, Any]) -> bytes:
    """An entry as it stands in its file."""
    return msgspec.json.format(msgspec.json.encode(entry), indent=1)


def shown(capture: Capture) -> dict[str, Any]:
    """A capture as JSON values, without secrets."""
    redactor = Redactor()

    def part(of: Part) -> dict[str, Any]:
        data = of.data
        said: dict[str, Any] = {"body": redactor.body(data, of.kind, cut=len(data) < of.length), "bytes": of.length}
        if len(data) < of.length:
            said["kept"] = len(data)
        if len(of.times) > 1:
            said["times"] = of.times
        return {"at": of.at, **said} if of.at is not None else said

    head = capture.head
    # What heads hide is looked for in bodies: so heads come first, all of them.
    heads: list[tuple[dict[str, Any], Part]] = []
    asked: dict[str, Any] = {}
    if head is not None:
        query = redactor.query(head.query)
        asked = {"method": head.method, "path": redactor.text(head.path), "query": query}
        asked["headers"] = redactor.headers(head.headers)
        heads.append((asked, capture.asked))
    tries: list[dict[str, Any]] = []
    for each in capture.tries:
        url, _, asked_for = each.url.partition("?")
        sent: dict[str, Any] = {"method": each.method, "url": redactor.text(url)}
        sent["query"] = redactor.query(asked_for)
        sent["headers"] = redactor.headers(each.headers)
        came: dict[str, Any] = {"status": each.status, "headers": redactor.headers(each.answer_headers)}
        heads += [(sent, each.sent), (came, each.answer)]
        tries.append({"at": each.at, "account": each.account, "sent": sent, "came": came, "error": each.error})
    answer: dict[str, Any] = {"status": capture.status, "headers": redactor.headers(capture.answer_headers)}
    heads.append((answer, capture.answer))
    for said, of in heads:
        said.update(part(of))
    found: dict[str, Any] = {
        "status": capture.status,
        "error": "; ".join(capture.errors),
        "seconds": round(capture.seconds, 6),
        "outcomes": capture.turns,
        "asked": asked,
        "tries": tries,
        "answer": answer,
    }
    # Once more: what the last body said to be a secret is masked in the first one too.
    masked: dict[str, Any] = redactor.value(found)
    return masked


class CaptureEntry(msgspec.Struct, kw_only=True):
    """What a list says of a capture. `id` names it; `at` is ISO 8601 in UTC; `bytes` are those of its file."""

    id: str = ""
    kind: str = "form"
    at: str = ""
    request_id: str = ""
    turns: list[str] = []
    status: int | None = None
    error: str = ""
    seconds: float | None = None
    reason: str = ""
    bytes: int = 0


class CaptureReader:
    """Reads the captures of a folder, whoever writes them. It may not exist. It blocks: use a thread.

    All methods raise StoreError where they cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._ring = FileRing(folder, suffix=SUFFIX, most=0, most_bytes=0)

    def __repr__(self) -> str:
        return f"<CaptureReader {self._ring!r}>"

    def entries(self) -> list[CaptureEntry]:
        """What there is, the newest first."""
        found = []
        for path in self._ring.files():
            data = _read(path)
            if data is None:
                continue
            try:
                entry = msgspec.json.decode(data, type=CaptureEntry)
            except msgspec.MsgspecError:
                entry = CaptureEntry(error="it cannot be read")
            entry.id, entry.bytes = path.name.removesuffix(SUFFIX), len(data)
            found.append(entry)
        return found

    def get(self, name: str) -> bytes | None:
        """One of them, as JSON; None where there is none."""
        return next((_read(path) for path in self._ring.files() if path.name == f"{name}{SUFFIX}"), None)

    def export(self, kinds: Iterable[str] = ("exchange", "form")) -> Iterable[bytes]:
        """All of them as one JSON document, the newest first, a piece at a time."""
        yield msgspec.json.encode({"kirostream": __version__})[:-1] + b',"captures":['
        first = True
        for path in self._ring.files():
            data = _read(path)
            if data is None:
                continue
            try:
                entry = msgspec.json.decode(data, type=CaptureEntry)
            except msgspec.MsgspecError:
                continue
            if entry.kind in kinds:
                named = b'{"id":%b,"capture":%b}' % (msgspec.json.encode(path.name.removesuffix(SUFFIX)), data)
                yield named if first else b",\n" + named
                first = False
        yield b"]}\n"

    def clear(self) -> int:
        """Delete all of them. How many they were."""
        return self._ring.clear()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # it was deleted meanwhile
        return None
    except OSError as error:
        raise file_trouble(path, "read", error) from error
