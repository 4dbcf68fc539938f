"""What travels through a client and comes back byte for byte (client-apis.md section 3.6).

The ``encrypted_content`` of an item is ours to fill: in a reasoning item it holds the thought with its signature, in a
compaction item the summary. Sealing needs a key,
which a dialect does not have; so a `Seal` is handed in, and `PLAIN` stands where none is. What does not come from our
seal is another server's, and says nothing to the models here.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, Protocol

import msgspec

from kirostream.turn.request import Thought

FOREIGN: Final = "openai:"
"""How the signature of a thought begins that another server sealed: the rest is its ``encrypted_content``."""

_MARK: Final = "ks0."


class Seal(Protocol):
    """Makes bytes into text that only its maker can make, and back. The same bytes always give the same text."""

    def seal(self, data: bytes) -> str:
        """The sealed form, ASCII."""

    def unseal(self, sealed: str) -> bytes | None:
        """What was sealed; None where this seal did not make it."""


class Plain:
    """No secret at all: base64 behind a mark."""

    def seal(self, data: bytes) -> str:
        """The mark, and base64."""
        return _MARK + base64.b64encode(data).decode()

    def unseal(self, sealed: str) -> bytes | None:
        """The bytes behind the mark."""
        if not sealed.startswith(_MARK):
            return None
        try:
            return base64.b64decode(sealed[len(_MARK) :], validate=True)
        except (binascii.Error, ValueError):
            return None


PLAIN: Final = Plain()


class _Packed(msgspec.Struct, array_like=True):
    text: str
    signature: str
    redacted: str


class _Summary(msgspec.Struct, array_like=True, tag="summary"):
    """Two strings, where a thought is three: neither is ever taken for the other."""

    text: str


_read = msgspec.json.Decoder(_Packed).decode
_read_summary = msgspec.json.Decoder(_Summary).decode


def pack(thought: Thought, seal: Seal) -> str:
    """The ``encrypted_content`` that holds `thought`."""
    return seal.seal(msgspec.json.encode(_Packed(thought.text, thought.signature, thought.redacted)))


def unpack(sealed: str, seal: Seal) -> Thought | None:
    """The thought in an ``encrypted_content``; None where it is not ours."""
    data = seal.unseal(sealed)
    if data is None:
        return None
    try:
        packed = _read(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return Thought(packed.text, packed.signature, packed.redacted)


def pack_summary(text: str, seal: Seal) -> str:
    """The ``encrypted_content`` that holds the summary of a conversation."""
    return seal.seal(msgspec.json.encode(_Summary(text)))


def unpack_summary(sealed: str, seal: Seal) -> str | None:
    """The summary in an ``encrypted_content``; None where it is not ours."""
    data = seal.unseal(sealed)
    if data is None:
        return None
    try:
        return _read_summary(data).text
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
