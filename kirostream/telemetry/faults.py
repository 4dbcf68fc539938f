"""A bug of ours as a fact: where it happened and of what kind, without what was being worked on.

The message of an exception that is not ours may quote anything: a `KeyError` its key, a `UnicodeDecodeError` the whole
body in its `repr`, a library the URL with the proxy's password. So the trace has the frames, which are our own source
lines, and of messages only those that are made of names: ours, which are written without secrets, and the
interpreter's about types, attributes and names.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from typing import Final

from kirostream.errors import KirostreamError
from kirostream.telemetry.facts import Faulted

NAMES_ONLY: Final = (AttributeError, NameError, ImportError, TypeError)
"""Kinds whose messages speak of names and types. A library may still quote a value in one: see `_QUOTED`."""
_LONGEST_NAME: Final = 24
_QUOTED: Final = re.compile(r"(['\"]).*?\1", re.DOTALL)


def faulted(where: str, error: BaseException, *, turn: str = "", request: str = "") -> Faulted:
    """The fact of `error`, which nobody expected."""
    trace = "".join(traced(error))
    return Faulted(where=where, error=worded(error), trace=trace, turn=turn, request=request)


def worded(error: BaseException) -> str:
    """``TypeError: 'NoneType' object is not iterable``, or the kind alone where the message might quote a value."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, KirostreamError):
        return f"{name}: {error.message}"
    if isinstance(error, NAMES_ONLY):
        return f"{name}: {_QUOTED.sub(_name, str(error))}"
    if isinstance(error, BaseExceptionGroup):
        return f"{name} of {len(error.exceptions)}"
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror}"
    return name


def traced(error: BaseException, _seen: frozenset[int] = frozenset()) -> Iterator[str]:
    """The frames of an error, behind those of what led to it, in lines as Python's own traceback has them."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    seen = _seen | {id(error)}
    if before is not None and id(before) not in seen:
        yield from traced(before, seen)
        yield "\nwhich led to:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{worded(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for number, each in enumerate(error.exceptions, 1):
            yield f"\n{number} of {len(error.exceptions)}:\n\n"
            yield from traced(each, seen)


def _name(found: re.Match[str]) -> str:
    """A quoted name as it is; what is too long for one, or has a space, masked."""
    inner = found[0][1:-1]
    return found[0] if len(inner) <= _LONGEST_NAME and " " not in inner else f"{found[1]}****{found[1]}"
