"""Answers in a shape: ``response_format`` and ``output_config.format`` (client-apis.md sections 2.1 and 4.2).

Kiro has neither, so the shape is made a tool whose arguments are the answer, and the model is told to call it. What
comes back is judged against the schema before the client sees any of it. A model that wrote the JSON as text, in a
fence or with a sentence in front, is understood all the same; one that got it wrong is told what, and asked once more.

Other tools of the request stay usable: an answer that calls one of them is no final answer, and passes as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from kirostream.dataclass import dataclass
from kirostream.filters.schema import mismatch
from kirostream.turn.events import Stop
from kirostream.turn.request import (
    AUTO,
    Message,
    OutputFormat,
    RawJson,
    Role,
    SearchCall,
    SearchOutcome,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    TurnRequest,
)
from kirostream.turn.result import TurnResult

TOOL: Final = "final_answer"
DESCRIPTION: Final = "Gives the final answer to the user. Its arguments are the answer."
_FENCE: Final = re.compile(r"```[a-zA-Z]*\s*\n(.*?)```", re.DOTALL)
_UNFINISHED: Final = frozenset({Stop.MAX_TOKENS, Stop.REFUSED, Stop.CONTEXT_FULL, Stop.PAUSED})


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An answer that is not in the shape: why not, and what to ask so that the next one is."""

    problem: str
    again: TurnRequest


class Structured:
    """One request for an answer in a shape.

    Args:
        request: as the client asked it.
        output: its `TurnRequest.output`.
    """

    def __init__(self, request: TurnRequest, output: OutputFormat) -> None:
        names = {tool.name for tool in request.tools}
        self._tool = next(name for i in range(len(names) + 1) if (name := TOOL + "_" * i) not in names)
        self._schema = _loaded(output.schema)
        self._wrapped = not (isinstance(self._schema, dict) and self._schema.get("type", "object") == "object")
        schema = output.schema
        if self._wrapped:  # arguments of a tool are an object
            schema = b'{"type":"object","properties":{"value":' + schema + b'},"required":["value"]}'
        tool = Tool(self._tool, output.description or DESCRIPTION, schema)
        line = (
            f"Give your final answer by calling the tool {self._tool} exactly once. Its arguments are the answer: "
            "nothing you write as text reaches the user."
        )
        alone = not (request.tools or request.search) or request.tool_choice.mode == "none"
        self.request = replace(
            request,
            tools=(tool,) if alone else (*request.tools, tool),
            tool_choice=ToolChoice("tool", self._tool)
            if alone
            else replace(AUTO, parallel=request.tool_choice.parallel),
            system=(*request.system, Text(line)),
            output=None,
            search=None if request.tool_choice.mode == "none" else request.search,
        )
        """What to ask."""

    def __repr__(self) -> str:
        return f"<Structured by {self._tool}>"

    def judge(self, result: TurnResult) -> TurnResult | Mismatch:
        """The answer to `request`, or to the `again` of a mismatch, as the client shall see it."""
        calls = [block for block in result.content if isinstance(block, ToolCall)]
        own = next((call for call in calls if call.name == self._tool), None)
        others = [call for call in calls if call.name != self._tool]
        if others:  # the final answer can wait until their results are known
            kept = (block for block in result.content if not (isinstance(block, ToolCall) and block.name == self._tool))
            return replace(result, content=tuple(kept))
        said = own.arguments.decode("utf-8", "replace") if own else _text(result)
        found, value = _value(said, lenient=own is None)
        if found and own and self._wrapped and isinstance(value, dict) and "value" in value:
            value = value["value"]
            said = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        elif found and own is None:
            said = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        problem = mismatch(value, self._schema) if found else "it is not JSON"
        if problem and result.stop not in _UNFINISHED:
            return Mismatch(problem, self._again(own, said, problem))
        before = tuple(block for block in result.content if isinstance(block, Thought | SearchCall | SearchOutcome))
        stop = result.stop if result.stop in _UNFINISHED and problem else Stop.END
        return replace(result, content=(*before, Text(said)), stop=stop, stop_sequence="")

    def _again(self, call: ToolCall | None, said: str, problem: str) -> TurnRequest:
        wrong = (
            f"This answer does not have the form that was asked for: {problem}. Call {self._tool} with the right one."
        )
        if call is not None:
            turn = (
                Message(Role.ASSISTANT, (call,)),
                Message(Role.USER, (ToolResult(call.id, (Text(wrong),), is_error=True),)),
            )
        else:
            turn = (Message(Role.ASSISTANT, (Text(said),)), Message(Role.USER, (Text(wrong),)))
        return replace(self.request, messages=self.request.messages + turn)


def _loaded(schema: RawJson) -> Any:
    try:
        return json.loads(schema)
    except (ValueError, RecursionError):
        return True


def _text(result: TurnResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, Text))


def _value(said: str, *, lenient: bool) -> tuple[bool, Any]:
    """Whether `said` is JSON, and the value. Leniently: in a fence, or behind a sentence."""
    candidates = [said]
    if lenient:
        candidates += _FENCE.findall(said)
    for candidate in candidates:
        try:
            return True, json.loads(candidate, parse_constant=_refuse)
        except (ValueError, RecursionError):
            pass
    if lenient and (start := re.search(r"[\[{]", said)):
        try:
            return True, json.JSONDecoder(parse_constant=_refuse).raw_decode(said, start.start())[0]
        except (ValueError, RecursionError):
            pass
    return False, None


def _refuse(word: str) -> Mapping[str, Any]:
    raise ValueError(word)  # NaN and Infinity, which JSON does not have
