"""``GET /v1/accounts/status``: how the accounts are that a caller's turns are asked on. It holds no secrets."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kirostream.accounts.board import AccountSnapshot
from kirostream.accounts.health import State
from kirostream.gateway.callers import Callers
from kirostream.gateway.turns import JSON, id_headers
from kirostream.net.exchange import Exchange
from kirostream.relay.relay import Relay

PATH: Final = "/v1/accounts/status"


class AccountsHandler:
    """Serves `PATH`. A request that brings its account sees that one alone."""

    def __init__(self, relay: Relay, callers: Callers) -> None:
        self._relay = relay
        self._callers = callers

    def __repr__(self) -> str:
        return "<AccountsHandler>"

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request. The names of the counts are those of the tools that ask for this path."""
        pool = self._relay.fleet(self._callers.check(exchange.request).owner).pool.snapshot()
        body = {
            "mode": "multi-account" if len(pool.accounts) > 1 else "single-account",
            "total_tokens": len(pool.accounts),
            "healthy_tokens": sum(account.state is State.READY for account in pool.accounts),
            "in_flight": pool.in_flight,
            "waiting": pool.waiting,
            "accounts": [describe(account) for account in pool.accounts],
        }
        await exchange.reply(200, (JSON, *id_headers(exchange.request.id)), msgspec.json.encode(body))


def describe(account: AccountSnapshot) -> dict[str, Any]:
    """One account as JSON. `until` is in unix seconds, null where the state has no end of its own."""
    return {
        "id": account.id,
        "label": account.label,
        "state": account.state.value,
        "until": account.until or None,
        "why": account.why,
        "failures": account.failures,
        "blocked_models": account.blocked,
        "in_flight": account.in_flight,
        "requests": account.leases,
        "outcomes": dict(account.outcomes),
    }
