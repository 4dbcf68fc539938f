from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kirostream import scan
from kirostream.scan import Key
from kirostream.turn.memory import ENTRY, FORGETFUL, LARGEST, WEIGHT, Memory

ROOM = 20 * 2 * (WEIGHT * 100 + ENTRY)
"""For twenty entries of 100 bytes in each generation."""


def raw(number: int, size: int = 100) -> bytes:
    return b"%0*d" % (size, number)


def test_what_was_kept_is_found_by_its_bytes_and_kind() -> None:
    memory = Memory(1 << 20)
    memory.keep(Key("a", b"x"), value := object())
    assert memory.find(Key("a", bytes(bytearray(b"x")))) is value
    assert memory.find(Key("b", b"x")) is memory.find(Key("a", b"y")) is None


@given(st.binary(max_size=200), st.integers(0, 199), st.integers(1, 255))
def test_a_key_is_its_kind_and_its_bytes(said: bytes, at: int, change: int) -> None:
    key = Key("a", said)
    again = Key("a", bytes(bytearray(said)))
    assert key == again
    assert hash(key) == hash(again)
    assert (key.kind, key.raw) == ("a", said)
    others = [Key("b", said), Key("a", said + b"\0"), Key("a", said[:-1] + b"x" * (not said))]
    if at < len(said):
        others.append(Key("a", said[:at] + bytes((said[at] ^ change,)) + said[at + 1 :]))
    assert key not in others
    if scan.BUILT:
        assert hash(key) not in [hash(other) for other in others if other.raw != said]  # once in 2 ** 60 it would be


def test_a_full_generation_grows_old_and_the_one_before_goes() -> None:
    memory = Memory(ROOM)
    for number in range(21):
        memory.keep(Key("a", raw(number)), number)
    assert memory.find(Key("a", raw(3))) == 3  # and is young again
    for number in range(21, 41):
        memory.keep(Key("a", raw(number)), number)
    assert memory.find(Key("a", raw(3))) == 3
    assert memory.find(Key("a", raw(4))) is None  # nobody asked for it


def test_what_nobody_asks_for_is_gone_after_two_ages() -> None:
    memory = Memory(1 << 20)
    memory.keep(Key("a", b"x"), 1)
    memory.keep(Key("a", b"y"), 2)
    memory.age()
    assert memory.find(Key("a", b"x")) == 1
    memory.age()
    assert (memory.find(Key("a", b"x")), memory.find(Key("a", b"y"))) == (1, None)
    memory.age()
    memory.age()
    assert len(memory) == 0


def test_what_would_drive_out_too_much_is_not_kept() -> None:
    memory = Memory(1 << 20)
    most = int((1 << 19) * LARGEST - ENTRY) // WEIGHT
    memory.keep(Key("a", bytes(most)), 1)
    memory.keep(Key("a", bytes(most + 1)), 2)
    assert (memory.find(Key("a", bytes(most))), memory.find(Key("a", bytes(most + 1)))) == (1, None)


def test_no_room_remembers_nothing() -> None:
    FORGETFUL.keep(Key("a", b""), 1)
    assert FORGETFUL.find(Key("a", b"")) is None
    assert len(FORGETFUL) == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3_000)), max_size=80), st.integers(0, ROOM))
def test_it_stays_within_its_bounds_and_never_lies(asked: list[tuple[int, int]], limit: int) -> None:
    memory = Memory(limit)
    for number, size in asked:
        found = memory.find(Key("a", raw(number, size)))
        assert found in (None, (number, size))
        if found is None:
            memory.keep(Key("a", raw(number, size)), (number, size))
        sizes = (len(key.raw) for generation in (memory._young, memory._old) for key in generation)
        assert sum(WEIGHT * each + ENTRY for each in sizes) <= limit
