"""The memory of what agents send again, as the gateway uses it."""

from __future__ import annotations

import trio
import trio.testing

from kirostream.app import AGE, _aging
from kirostream.dialects import remembering
from kirostream.dialects.dialect import all_at_once
from kirostream.scan import Key
from kirostream.turn.memory import Memory

BODY = b'{"model":"m","messages":[{"role":"user","content":"Hello"}]}'


def test_turns_and_counts_share_a_memory() -> None:
    dialect = remembering(Memory(1 << 20))
    first = dialect.read_request(BODY, ())
    assert dialect.read_in_steps is not None
    again = all_at_once(dialect.read_in_steps(BODY, ()))
    assert again.messages[0] is first.messages[0]


async def test_what_is_not_sent_any_more_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    memory = Memory(1 << 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_aging, memory)
        memory.keep(Key("a", b"x"), 1)
        await trio.sleep(1.5 * AGE)
        assert memory.find(Key("a", b"x")) == 1
        await trio.sleep(2 * AGE)
        assert len(memory) == 0
        nursery.cancel_scope.cancel()
