"""The event-stream codec: `application/vnd.amazon.eventstream` in both directions.

Two cores have the same four names and the same behaviour: the compiled one, and its twin in Python. `CORE` says which
is in use. The environment decides, once, at import: ``KIROSTREAM_CORE=compiled`` makes a missing build an error,
``KIROSTREAM_CORE=python`` takes the twin; otherwise the compiled core is used where it is built.

Documentation: `_evstream.pyi`. Format: `kiro-protocol.md section 3.1`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kirostream._evstream_shared import HeaderValue, Int8, Int16, Int32, Int64, SizedInt, Timestamp

if TYPE_CHECKING:
    from kirostream._evstream import CORE, Frame, FrameDecoder, encode_frame
else:
    _wanted = os.environ.get("KIROSTREAM_CORE", "")
    if _wanted not in ("", "compiled", "python"):
        raise ImportError(f"KIROSTREAM_CORE is {_wanted!r}: it takes 'compiled', 'python', or nothing")
    try:
        if _wanted == "python":
            from kirostream._evstream_py import CORE, Frame, FrameDecoder, encode_frame
        else:
            from kirostream._evstream import CORE, Frame, FrameDecoder, encode_frame
    except ModuleNotFoundError as missing:
        if missing.name != "kirostream._evstream":
            raise
        if _wanted == "compiled":
            raise ImportError(
                "KIROSTREAM_CORE=compiled, but kirostream._evstream is not built: install a wheel, or build it with "
                "`KIROSTREAM_REQUIRE_EXT=1 python setup.py build_ext --inplace`"
            ) from missing
        from kirostream._evstream_py import CORE, Frame, FrameDecoder, encode_frame

__all__ = [
    "CORE",
    "Frame",
    "FrameDecoder",
    "HeaderValue",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "SizedInt",
    "Timestamp",
    "encode_frame",
]
