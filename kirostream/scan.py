"""The compiled scanner of requests: `_scan.pyi` documents it.

``KIROSTREAM_CORE`` decides as it does for the codec (`evstream.py`). Where it is not built, or not wanted (`BUILT` is
False), what it would say is None: nothing is usual, and the ways in Python do everything. They say the same.
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING

from kirostream.evstream import CORE

if TYPE_CHECKING:
    from kirostream._scan import (
        Fitter,
        Key,
        Split,
        outline,
        read_message,
        split,
        write_assistant,
        write_tool,
        write_user,
    )

    BUILT: bool
else:
    try:
        if CORE != "compiled":
            raise ModuleNotFoundError(name="kirostream._scan")
        from kirostream._scan import (
            Fitter,
            Key,
            Split,
            outline,
            read_message,
            split,
            write_assistant,
            write_tool,
            write_user,
        )

        BUILT = True
    except ModuleNotFoundError as missing:
        if missing.name != "kirostream._scan":
            raise
        BUILT = False
        Split = None
        Key = namedtuple("Key", ("kind", "raw"))
        outline = read_message = split = write_assistant = write_tool = write_user = lambda *_: None

        class Fitter:
            __init__ = __call__ = lambda *_: None

            def properties(self, _):
                return {}


__all__ = [
    "BUILT",
    "Fitter",
    "Key",
    "Split",
    "outline",
    "read_message",
    "split",
    "write_assistant",
    "write_tool",
    "write_user",
]
