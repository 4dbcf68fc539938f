"""Captured exchanges: nothing goes past them."""

from __future__ import annotations

from kirostream.gateway.captured import CapturedExchange
from kirostream.net.exchange import Exchange


def test_whatever_an_exchange_can_do_a_captured_one_passes_on() -> None:
    """A protocol's own methods do nothing: one that is not passed on would lose what is said by it."""
    offered = {name for name in vars(Exchange) if not name.startswith("_")}
    assert offered >= {"body", "offer", "reply"}
    assert offered <= vars(CapturedExchange).keys()
