"""The official JavaScript SDKs and the AI SDK against a running gateway: `tests/e2e/js` drives them.

They are not vendored. `make js` installs them where node and npm are; without them these tests are skipped, and say so.
A driver plays all scenarios in one process and asks each twice, streamed and whole, which have to say the same.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from e2e.conftest import Running
from kirostream.simulator.websearch import HOSTS

JS: Final = Path(__file__).parent / "js"
PATIENCE: Final = 50.0
"""Seconds for all scenarios of a driver; they take about two."""

SHAPE: Final = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "pages": {"type": "integer"}},
    "required": ["title", "pages"],
    "additionalProperties": False,
}
ODD: Final = 'é 漢字 👩‍👩‍👧 "quoted" \\ back\n\ttab'
CALLS: Final = [{"name": "read_file", "input": {"path": 'é😀 \\"q".txt'}}, {"name": "list_files", "input": {}}]


def written(text: str) -> str:
    """A text as a directive holds it."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


@dataclass(frozen=True)
class Scenario:
    """What is asked, and what has to come of it. `stop` is a word of `Driver.stops`."""

    name: str
    prompt: str
    asks: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    thinking: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    stop: str = "end"
    then: str | None = None
    parsed: Any = None
    output_tokens: int | None = None
    error: str = ""
    status: int | None = None


CALLING: Final = (
    f"[[say:Looking. ]][[tool:read_file {json.dumps(CALLS[0]['input'], ensure_ascii=False)}]][[tool:list_files]]"
    "[[then:It says {{result}}]]"
)
SAID: Final = "It says buy milk\na.txt"
TITLE: Final = '{"title":"A 😀","pages":7}'
LONG: Final = " ".join(f"w{n}" for n in range(1, 66))

SCENARIOS: Final = (
    Scenario("text", "[[say:hello 日本 😀]]", text="hello 日本 😀"),
    *(
        Scenario(f"unicode cut by {cut}", f"[[chunk:{cut}]][[say:{written(ODD)}]]", text=ODD)
        for cut in ("1", "3", "u16", "byte")
    ),
    Scenario("a long text", "[[tokens:3000]]", text=" ".join(f"w{n}" for n in range(1, 3001))),
    Scenario(
        "thinking",
        "[[chunk:u16]][[think:Let me see 😀.]][[say:42]]",
        {"thinking": True},
        text="42",
        thinking="Let me see 😀.",
    ),
    *(
        Scenario(
            f"parallel tools cut by {cut}",
            f"[[chunk:{cut}]]{CALLING}",
            {"tools": True},
            text="Looking. ",
            calls=CALLS,
            stop="calls",
            then=SAID,
        )
        for cut in ("1", "u16", "byte", "400")
    ),
    Scenario(
        "nothing but a call",
        "[[tool:list_files]][[then:It says {{result}}]]",
        {"tools": True},
        calls=CALLS[1:],
        stop="calls",
        then="It says a.txt",
    ),
    Scenario(
        "thinking before a call",
        "[[think:A list.]][[tool:list_files]][[then:It says {{result}}]]",
        {"tools": True, "thinking": True},
        thinking="A list.",
        calls=CALLS[1:],
        stop="calls",
        then="It says a.txt",
    ),
    Scenario(
        "a stop sequence",
        "[[chunk:1]][[say:one, 😀 ST STOP two]]",
        {"stop": ["never", "STOP"]},
        text="one, 😀 ST ",
        stop="sequence",
    ),
    Scenario("max tokens", "[[tokens:500]]", {"max_tokens": 50}, text=LONG, stop="length", output_tokens=50),
    Scenario(
        "a shape, said",
        f"[[chunk:2]][[say:{TITLE}]]",
        {"schema": SHAPE},
        text=TITLE,
        parsed={"title": "A 😀", "pages": 7},
    ),
    Scenario(
        "a shape, by a call",
        f"[[say:Sure.]][[tool:final_answer {TITLE}]]",
        {"schema": SHAPE},
        text=TITLE,
        parsed={"title": "A 😀", "pages": 7},
    ),
    Scenario("a throttle", "[[error:THROTTLE]]", error="Too many requests", status=429),
    Scenario("a full context", "[[error:CONTEXT]]", error="too long", status=400),
    Scenario("an upstream that fails", "[[error:UNAVAILABLE]]", error="Kiro", status=503),
    Scenario("a cut stream", "[[chunk:2]][[cut:3]][[say:this is long enough]]", {"once": True}, error="was cut"),
    Scenario(
        "an exception in the stream",
        "[[chunk:2]][[fault:exception THROTTLE 3]][[say:this is long enough]]",
        {"once": True},
        error="Too many requests",
    ),
    Scenario(
        "a call cut off",
        f"[[chunk:2]][[cut:9]]{CALLING}",
        {"tools": True, "once": True},
        error="was cut",
    ),
)


@dataclass(frozen=True)
class Driver:
    """An SDK. `stops` are its words for why an answer ended; `cannot` what its API or the SDK has no words for."""

    script: str
    stops: dict[str, str]
    arguments: tuple[str, ...] = ()
    cannot: frozenset[str] = frozenset()
    overloaded: int = 503


AI_STOPS: Final = {"end": "stop", "calls": "tool-calls", "sequence": "stop", "length": "length"}
DRIVERS: Final = {
    "@anthropic-ai/sdk": Driver(
        "anthropic.mjs",
        {"end": "end_turn", "calls": "tool_use", "sequence": "stop_sequence", "length": "max_tokens"},
        overloaded=529,
    ),
    "openai, chat": Driver(
        "openai_chat.mjs", {"end": "stop", "calls": "tool_calls", "sequence": "stop", "length": "length"}
    ),
    "openai, responses": Driver(
        "openai_responses.mjs",
        {"end": "completed", "calls": "completed", "length": "max_output_tokens"},
        cannot=frozenset({"stop"}),
    ),
    "@ai-sdk/anthropic": Driver("ai_sdk.mjs", AI_STOPS, ("anthropic",), overloaded=529),
    "@ai-sdk/openai, responses": Driver("ai_sdk.mjs", AI_STOPS, ("responses",), frozenset({"stop"})),
    "@ai-sdk/openai, chat": Driver("ai_sdk.mjs", AI_STOPS, ("chat",), frozenset({"reasoning"})),
    "@ai-sdk/openai-compatible": Driver("ai_sdk.mjs", AI_STOPS, ("compatible",)),
}


def drive(gateway: Running, command: tuple[str, ...], asked: list[dict[str, Any]]) -> dict[str, Any]:
    """What came of each scenario, by its name."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the JavaScript SDKs cannot be driven")
    if not (JS / "node_modules").is_dir():
        pytest.skip("the JavaScript SDKs are not installed: `make js` installs them")
    done = subprocess.run(
        [node, *command],
        cwd=JS,
        input=json.dumps(asked),
        env={"PATH": os.environ["PATH"], "GATEWAY_URL": gateway.url, "GATEWAY_KEY": gateway.key},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {outcome["name"]: outcome for outcome in json.loads(done.stdout)}


@pytest.fixture(scope="module", params=DRIVERS)
def played(request: pytest.FixtureRequest, gateway: Running) -> tuple[Driver, dict[str, Any]]:
    """A driver, and what came of each scenario."""
    driver = DRIVERS[request.param]
    asked = [{"name": scenario.name, "prompt": scenario.prompt, **scenario.asks} for scenario in SCENARIOS]
    return driver, drive(gateway, (driver.script, *driver.arguments), asked)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(played: tuple[Driver, dict[str, Any]], scenario: Scenario) -> None:
    driver, outcomes = played
    outcome = outcomes[scenario.name]
    if scenario.error:
        assert scenario.error in outcome["error"]["message"]
        if scenario.status:
            status = driver.overloaded if scenario.status == 503 else scenario.status
            assert outcome["error"]["status"] == status
        return
    assert "error" not in outcome, outcome["error"]
    if scenario.stop == "sequence" and "stop" in driver.cannot:
        assert outcome["text"].endswith("STOP two")  # the API has no such field: nothing is cut
        return
    assert outcome["text"] == scenario.text
    assert outcome["thinking"] == ("" if "reasoning" in driver.cannot else scenario.thinking)
    assert outcome["calls"] == scenario.calls
    assert outcome["stop"] == driver.stops[scenario.stop]
    assert outcome.get("then") == scenario.then
    assert outcome.get("parsed") == scenario.parsed
    assert outcome["usage"]["input"] > 0
    assert outcome["usage"]["output"] == (scenario.output_tokens or pytest.approx(5_000, abs=4_999))


SEARCHED: Final = [f"https://{host}/trio/{n}" for n, host in enumerate(HOSTS, 1)]
FIRST_HIT: Final = f"See {SEARCHED[0]}."


@pytest.mark.parametrize(("provider", "sources"), [("anthropic", SEARCHED), ("responses", SEARCHED[:1])])
def test_web_search(gateway: Running, provider: str, sources: list[str]) -> None:
    calling = '[[tool:web_search {"query":"%s"}]]'
    found = f"[[say:Looking. ]]{calling % 'trio'}[[next]][[say:{FIRST_HIT}]]"
    failed = f"{calling % 'x error:INTERNAL'}[[next]][[say:Sorry.]]"
    later = "[[say:{{find:Page 4 about trio}}]]"
    asked = [{"name": "found", "prompt": found, "then": later}, {"name": "failed", "prompt": failed, "then": later}]
    outcomes = drive(gateway, ("web_search.mjs", provider), asked)
    assert outcomes["found"] == {
        "name": "found",
        "text": f"Looking. {FIRST_HIT}",
        "kinds": ["text", "tool-call", "tool-result", "text"],
        "sources": sources,
        "stop": "stop",
        "then": "FOUND",
    }
    assert outcomes["failed"]["kinds"] == ["tool-call", "tool-error", "text"]
    assert (outcomes["failed"]["text"], outcomes["failed"]["then"]) == ("Sorry.", "MISSING")
