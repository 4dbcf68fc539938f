"""Writes that do not wait, by both cores: what goes, what is kept, and that nothing is written where it may not be."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import trio


@pytest.fixture(params=["python", "compiled"])
def core(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "python":
        return importlib.import_module("kirostream.net._quick_py")
    try:
        return importlib.import_module("kirostream.net._quick")
    except ModuleNotFoundError:
        if os.environ.get("KIROSTREAM_CORE") == "compiled":
            raise
        pytest.skip("the compiled core is not built")


class Line:
    """An outlet, and who reads behind it."""

    def __init__(self, core: ModuleType) -> None:
        self.near, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.outlet: Any = core.Outlet(trio.socket.from_stdlib_socket(self.near))

    def heard(self) -> bytes:
        data = b""
        try:
            while piece := self.far.recv(1 << 20):
                data += piece
        except BlockingIOError:
            pass
        return data

    def close(self) -> None:
        self.outlet.shut()
        self.near.close()
        self.far.close()


@pytest.fixture
def lines(core: ModuleType) -> Iterator[list[Line]]:
    made = [Line(core) for _ in range(3)]
    yield made
    for line in made:
        line.close()


def test_cores_are_what_they_say(core: ModuleType) -> None:
    expected = "python" if core.__name__.endswith("_py") else "compiled"
    assert expected == core.CORE


def test_what_goes_whole_leaves_nothing(lines: list[Line]) -> None:
    outlet = lines[0].outlet
    assert outlet.sock.fileno() == lines[0].near.fileno()
    assert outlet.free
    assert outlet.offer(b"one ")
    assert outlet.offer(b"two")
    assert outlet.free
    assert outlet.unsent == b""
    assert lines[0].heard() == b"one two"
    assert repr(outlet) == "<Outlet free, 0 bytes unsent>"


def test_what_does_not_go_is_kept_and_nothing_goes_past_it(lines: list[Line]) -> None:
    outlet = lines[0].outlet
    large = bytes(range(256)) * 4096
    assert not outlet.offer(large)
    heard = lines[0].heard()
    assert heard
    assert heard + outlet.unsent == large
    assert not outlet.free
    assert not outlet.offer(b"more")  # there is room now, but it is not its turn
    assert lines[0].heard() == b""
    assert heard + outlet.unsent == large + b"more"


def test_who_is_gone_is_no_exception(lines: list[Line]) -> None:
    lines[0].far.close()
    assert not lines[0].outlet.offer(b"a")
    assert lines[0].outlet.unsent == b"a"


def test_nothing_is_written_once_it_is_shut(core: ModuleType, lines: list[Line]) -> None:
    """Its file descriptor may be somebody else's by then."""
    outlet, number = lines[0].outlet, lines[0].near.fileno()
    outlet.shut()
    lines[0].near.close()
    other_near, other_far = socket.socketpair()
    try:
        assert number in (other_near.fileno(), other_far.fileno())
        assert not outlet.offer(b"a secret")
        outlet.free = True  # even by a mistake
        assert list(core.write_each([outlet], b"a secret")) == [(0, 0)]
        for each in (other_near, other_far):
            each.setblocking(False)
            with pytest.raises(BlockingIOError):
                each.recv(1)
    finally:
        other_near.close()
        other_far.close()


def test_without_a_socket_all_is_kept(core: ModuleType) -> None:
    outlet = core.Outlet(None)
    assert outlet.sock is None
    assert not outlet.free
    assert not outlet.offer(b"a")
    assert not outlet.offer(b"b")
    assert outlet.unsent == b"ab"
    outlet.fanned += 7
    assert outlet.fanned == 7


def test_each_gets_it_and_who_does_not_is_named(core: ModuleType, lines: list[Line]) -> None:
    first, busy, gone = lines
    busy.outlet.free = False
    gone.far.close()
    message = b"m" * 100
    assert list(core.write_each([None, first.outlet, busy.outlet, gone.outlet], message)) == [(0, 0), (2, 0), (3, 0)]
    assert first.heard() == message
    assert busy.heard() == b""
    assert busy.outlet.unsent == gone.outlet.unsent == b""  # whoever called sees to it
    assert list(core.write_each([], message)) == []


def test_part_of_a_message_is_counted(core: ModuleType, lines: list[Line]) -> None:
    message = bytes(range(256)) * 4096
    ((index, sent),) = core.write_each([lines[0].outlet], message)
    assert index == 0
    assert 0 < sent < len(message)
    assert lines[0].heard() == message[:sent]
    lines[0].outlet.owe(message[sent:])
    assert list(core.write_each([lines[0].outlet], b"more")) == [(0, 0)]
    assert lines[0].outlet.unsent == message[sent:]


def test_more_than_one_batch(core: ModuleType, lines: list[Line]) -> None:
    """The compiled core makes its calls in batches."""
    busy = lines[1].outlet
    busy.free = False
    outlets = [busy if at in (0, 63, 64, 129) else lines[0].outlet for at in range(130)]
    assert [index for index, _ in core.write_each(outlets, b"x")] == [0, 63, 64, 129]
    assert lines[0].heard() == b"x" * 126
