"""The crowd of the fan-out bench: one turn of 100 tokens a second through `kirostream serve`, watched by thousands.

Simulator, gateway and watchers are processes of their own. While the turn runs, the watchers come, by SSE and by
WebSocket, and some that read nothing. Then: did everybody get every byte, the client that asked included; were those
that read nothing cut off, and only they; how long was a token under way; and what the gateway took.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench.audience import Hall, get, masked, socket_request
from bench.endtoend import KEY, access_token, gateway, megabytes, per, simulator
from bench.processes import Command, Server, cpu_ns, memory
from bench.wire import Script, WrongAnswer, anthropic_body, http_post

RATE: Final = 100
"""Tokens a second."""
DEADLINE: Final = 2.0
"""Seconds that a watcher may read nothing."""
REPLAY: Final = 1.0
"""Seconds that a turn is kept when it is over."""
KINDS: Final = ("sse", "websocket")


@dataclass(frozen=True, slots=True)
class Plan:
    """So many watchers of each kind, so many of each that read nothing, and seconds of the turn once all are there."""

    watchers: int
    stalled: int
    seconds: float

    @property
    def tokens(self) -> int:
        """Tokens of the turn. It begins before its watchers come; a machine with other load takes 20 ms for each."""
        coming = len(KINDS) * (self.watchers + self.stalled) * 0.02
        return round((coming + self.seconds + DEADLINE) * RATE)


def command(upstream: str, token: str) -> Command:
    """The gateway with its defaults, but for deadlines that a bench can wait for."""
    usual = gateway("kirostream", upstream, token)
    more = {
        "KIROSTREAM_HTTP1_WRITE_DEADLINE": f"{DEADLINE}",
        "KIROSTREAM_WEBSOCKET_CONNECTION_WRITE": f"{DEADLINE}",
        "KIROSTREAM_RELAY_TURNS_REPLAY": f"{REPLAY}",
    }
    return replace(usual, env={**usual.env, **more})


def measure(plan: Plan, home: Path, rounds: int) -> list[dict[str, Any]]:
    """One turn after another on the same gateway.

    Raises:
        WrongAnswer: somebody did not get everything, or read nothing and was not cut off.
        DidNotStart: a process.
    """
    with Server(simulator(), home) as upstream, Hall(home) as hall:
        token = access_token(upstream.port)
        with Server(command(f"http://127.0.0.1:{upstream.port}", token), home) as server:
            return [one_turn(plan, server, hall) for _ in range(rounds)]


def one_turn(plan: Plan, server: Server, hall: Hall) -> dict[str, Any]:
    """One turn, from its question until it is forgotten."""
    before = memory(server.pid)
    script = Script(plan.tokens, 1000 // RATE, stamped=True)
    asked = http_post(
        "/v1/messages", {"x-api-key": KEY, "x-kirostream-resumable": "true"}, anthropic_body(script.prompt)
    )
    hall.do("open", crowd="asker", kind="sse", port=server.port, count=1, request=asked.decode("latin-1"))
    turn = running(server.port)["id"]
    requests = {
        "sse": get(f"/v1/turns/{turn}/events", KEY),
        "websocket": socket_request("/v1/stream", KEY) + masked(b'{"op":"watch","turn":"%b"}' % turn.encode()),
    }
    began = time.monotonic()
    for stalled, count in ((False, plan.watchers), (True, plan.stalled)):
        for kind in KINDS:
            arguments: dict[str, Any] = {"kind": kind, "port": server.port, "count": count, "stalled": stalled}
            arguments["request"] = requests[kind].decode("latin-1")
            hall.do("open", crowd=f"{kind} stalled" if stalled else kind, **arguments)
    came = time.monotonic() - began
    said, cpu, at = running(server.port)["events"], cpu_ns(server.pid), time.monotonic()
    hall.do("wait", seconds=plan.seconds)
    rest, used = running(server.port)["events"] - said, cpu_ns(server.pid)
    peak = memory(server.pid)
    took = time.monotonic() - at
    found = {name: hall.do("result", crowd=name, tokens=plan.tokens, together=True) for name in ("asker", *KINDS)}
    evicted = {kind: hall.do("evicted", crowd=f"{kind} stalled")["evicted"] for kind in KINDS}
    if set(evicted.values()) != {plan.stalled}:
        raise WrongAnswer(f"of {plan.stalled} of each kind that read nothing, these were cut off: {evicted}")
    hall.do("wait", seconds=REPLAY + 2.0)
    if told(server.port):
        raise WrongAnswer("the turn was not forgotten")
    after = memory(server.pid)
    deliveries = rest * len(KINDS) * plan.watchers
    return {
        "tokens": plan.tokens,
        "came_s": came,
        "deliveries_per_second": deliveries / took,
        "cpu_us": per(None if cpu is None or used is None else used - cpu, max(deliveries, 1)),
        "cores": None if cpu is None or used is None else (used - cpu) / took / 1e9,
        "latency_us": {name: each["latency_us"] for name, each in found.items()},
        "writes": {name: each["writes"] for name, each in found.items()},
        "evicted": evicted,
        "before_mb": megabytes(before and before.resident),
        "peak_mb": megabytes(peak and peak.resident),
        "after_mb": megabytes(after and after.resident),
    }


def told(port: int) -> list[dict[str, Any]]:
    """The turns that the gateway knows."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/turns", headers={"x-api-key": KEY})
    with urllib.request.urlopen(request, timeout=30) as answer:
        turns: list[dict[str, Any]] = json.load(answer)["data"]
        return turns


def running(port: int) -> Mapping[str, Any]:
    """The one turn in flight.

    Raises:
        WrongAnswer: it is over too early for a figure.
    """
    for turn in told(port):
        if turn["status"] == "in_progress":
            return turn
    raise WrongAnswer("the turn was over before all had come; give it more --crowd-seconds")
