"""Takers of bodies (`net.upstream.Taker`)."""

from __future__ import annotations

from collections.abc import Callable

from kirostream.net._wire import Track


class Taking:
    """Takes by a function, and nothing by a track."""

    track: Track | None = None

    def __init__(self, take: Callable[[bytes], bool]) -> None:
        self._take = take

    def __call__(self, data: bytes) -> bool:
        return self._take(data)
