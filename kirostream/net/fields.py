"""Header fields of requests as they are sent: checked once, and used for many. No I/O.

An upstream is asked with the same headers over and over, but for one or two of them. To put a dozen together and to
look at every byte of them costs more than sending them does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, overload

from kirostream.errors import LocalProtocolError

PLAIN: Final = re.compile(
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++: (?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?\r\n)*+",
    re.DOTALL,
)
"""Fields as they are written here."""
FRAMING: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"upgrade"})
"""What depends on the connection and the body, and is not said before these are known."""


class Fields(Sequence[tuple[bytes, bytes]]):
    """Some header fields, in their order.

    Attributes:
        raw: as they are written, each with its line end.

    Raises:
        LocalProtocolError: one of them is not HTTP, or depends on the body (`FRAMING`). The message names it.
    """

    __slots__ = ("raw",)

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        for name, value in pairs:
            line = b"%s: %s\r\n" % (name, value)
            if PLAIN.fullmatch(line) is None or line.count(b"\n") != 1 or name.lower() in FRAMING:
                raise LocalProtocolError(f"the header {name!r} cannot be sent to an upstream")
        self.raw = b"".join([b"%s: %s\r\n" % pair for pair in pairs])

    @classmethod
    def written(cls, raw: bytes) -> Fields:
        """Fields that are written already, by who knows that they are plain."""
        made = cls.__new__(cls)
        made.raw = raw
        return made

    def __repr__(self) -> str:
        return f"<Fields {', '.join(name.decode() for name, _ in self)}>"  # values may be secrets

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, Fields) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def _pairs(self) -> list[tuple[bytes, bytes]]:
        parts = [line.partition(b": ") for line in self.raw.split(b"\r\n")[:-1]]
        return [(name, value) for name, _, value in parts]

    def __len__(self) -> int:
        return self.raw.count(b"\n")

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._pairs())

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[bytes, bytes]]: ...
    def __getitem__(self, index: int | slice) -> tuple[bytes, bytes] | Sequence[tuple[bytes, bytes]]:
        return self._pairs()[index]
