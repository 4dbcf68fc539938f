"""A bug is told with its place and kind, and never with what was being worked on."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from kirostream.errors import StoreError
from kirostream.telemetry.faults import faulted

HIDDEN = "aorHIDDENvalue" + "x" * 40


def key_error() -> object:
    return {"a": 1}[HIDDEN]


def decoding() -> object:
    return (HIDDEN.encode() + b"\xff").decode()


def number() -> object:
    return int(HIDDEN)


def json_text() -> object:
    return json.loads(f'{{"{HIDDEN}')


def in_a_group() -> object:
    raise ExceptionGroup(HIDDEN, [KeyError(HIDDEN), ExceptionGroup(HIDDEN, [ValueError(HIDDEN)])])


def in_a_chain() -> object:
    try:
        return key_error()
    except KeyError as error:
        raise RuntimeError(f"cannot do {HIDDEN}") from error


def while_mending() -> object:
    try:
        return key_error()
    except KeyError:
        return number()


def of_a_library() -> object:
    raise TypeError(f"expected a URL, got <class 'str'>: {HIDDEN!r}")


def with_a_note() -> object:
    error = ValueError(HIDDEN)
    error.add_note(HIDDEN)
    raise error


def of_a_file() -> object:
    return open(f"/nowhere/{HIDDEN}")


def circular() -> object:
    one, two = ValueError(HIDDEN), ValueError(HIDDEN)
    one.__cause__, two.__cause__ = two, one
    raise one


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        (key_error, ["KeyError"]),
        (decoding, ["UnicodeDecodeError"]),
        (number, ["ValueError"]),
        (json_text, ["json.decoder.JSONDecodeError"]),
        (in_a_group, ["ExceptionGroup of 2", "1 of 2:", "KeyError", "ExceptionGroup of 1", "ValueError"]),
        (in_a_chain, ["KeyError", "which led to", "RuntimeError"]),
        (while_mending, ["KeyError", "which led to", "ValueError"]),
        (of_a_library, ["TypeError: expected a URL, got <class 'str'>: '****'"]),
        (with_a_note, ["ValueError"]),
        (of_a_file, ["FileNotFoundError: No such file or directory"]),
        (circular, ["ValueError"]),
    ],
)
def test_a_fault_quotes_nothing(fault: Callable[[], object], kinds: list[str]) -> None:
    with pytest.raises(Exception) as raised:
        fault()
    told = faulted("somewhere", raised.value)
    assert "HIDDENvalue" not in repr(told)
    assert f"in {fault.__name__}" in told.trace
    assert "test_faults.py" in told.trace
    at = 0
    for kind in kinds:
        at = told.trace.index(kind, at) + len(kind)


def test_what_is_made_of_names_is_told() -> None:
    with pytest.raises(AttributeError) as raised:
        None.missing  # type: ignore[attr-defined]  # noqa: B018
    told = faulted("somewhere", raised.value)
    assert told.error == "AttributeError: 'NoneType' object has no attribute 'missing'"
    assert told.trace.endswith(f"{told.error}\n")
    assert faulted("", StoreError("cannot read x: disk full")).error == (
        "kirostream.errors.StoreError: cannot read x: disk full"
    )
