"""What an operator, or the name of a model, wants the model to be told besides (kiro-protocol.md section 8.5).

Three notes, each opt-in, each behind the client's own system prompt, in this order:

- **agentic mode**: how to work on files in small steps. Where the client's name for the model says so
  (``claude-sonnet-4.5-agentic``, or any alias with "agentic" in it); `agentic = "tools"`: wherever there are tools too;
- **execution discipline**: to carry a task through without asking back;
- **chunked writes**: a line in the descriptions of tools that write files.

They are the same in every request: a date or a count in them would break the upstream's prompt cache with each turn.
"""

from __future__ import annotations

import enum
import re
from dataclasses import replace
from typing import Final

from kirostream.turn.request import Text, Tool, TurnRequest

LINES: Final = 350
"""Of a file that are written in one call, in agentic mode."""
MORE_LINES: Final = 300
"""Of each piece behind the first."""


class Agentic(enum.Enum):
    """When agentic mode is on."""

    OFF = "off"
    NAME = "name"  #: the model's name asks for it
    TOOLS = "tools"  #: the model's name asks for it, or the request has tools


AGENTIC: Final = f"""<agentic_mode>
A call that writes a long file can be cut off on its way, and then nothing of it is written. So:
- Write at most {LINES} lines in one call.
- A longer file takes several calls: the first writes its beginning, each further one adds a piece of {MORE_LINES} \
lines or fewer. Plan where the pieces end before you write the first.
- Change a file where it has to change, with the smallest edit that does it. Do not write it anew to change a part.
- When a call fails or is cut off, look at what the file holds now, and go on from there with a smaller piece.
</agentic_mode>"""

DISCIPLINE: Final = """<execution_discipline>
1. **Goal Lock**: keep the user's task in view from the first step to the last; whatever comes up serves it or waits.
2. **Action Priority**: where a step can be taken, take it. An analysis is no result unless one was asked for.
3. **Plan Execution**: split what is large into steps, work through them in order, and note which are done.
4. **No Confirmation Questions**: do not ask whether to go on. Ask only what you can neither find out nor leave open.
5. **Continuous Progress**: when one step is done, begin the next; when one is blocked, say why and do the others.
6. **Complete Delivery**: end when every step is done and checked, or say plainly which is not.
</execution_discipline>"""

CHUNKED_WRITE: Final = (
    f"Keep each call under {LINES} lines: write the beginning of a longer file first, then add the rest in pieces. "
    "A call that is too long is cut off, and nothing of it is written."
)

WRITERS: Final = frozenset(
    {
        "write",
        "edit",
        "multiedit",
        "notebookedit",
        "update",
        "create",
        "createfile",
        "writefile",
        "writetofile",
        "editfile",
        "editexistingfile",
        "createnewfile",
        "appendfile",
        "appendtofile",
        "insertedit",
        "inserteditintofile",
        "replaceinfile",
        "replacestringinfile",
        "searchreplace",
        "strreplace",
        "strreplaceeditor",
        "strreplacebasededittool",
        "applydiff",
        "applypatch",
        "fswrite",
        "fsappend",
    }
)
"""Names of tools that write files, without case and what joins words. Of a server's tool, its last part counts."""

_JOINTS: Final = re.compile(r"[^a-z0-9]")


def writes_files(tool: Tool) -> bool:
    """Whether a tool is known to write files, by its name alone."""
    return _JOINTS.sub("", tool.name.rpartition("__")[2].lower()) in WRITERS


def advise(
    request: TurnRequest,
    *,
    agentic: Agentic = Agentic.OFF,
    named: bool = False,
    discipline: bool = False,
    chunked_writes: bool = False,
) -> TurnRequest:
    """`request` with the notes that are wanted; the same object where none is.

    Args:
        request: a client's.
        agentic: when agentic mode is on.
        named: the name of the model asks for it.
        discipline: add the rules of execution.
        chunked_writes: add a line to tools that write files.
    """
    notes: list[Text] = []
    has_tools = bool(request.tools)
    if (named and agentic is not Agentic.OFF) or (has_tools and agentic is Agentic.TOOLS):
        notes.append(Text(AGENTIC))
    if discipline:
        notes.append(Text(DISCIPLINE))
    if notes:
        request = replace(request, system=(*request.system, *notes))
    if chunked_writes and any(map(writes_files, request.tools)):
        request = replace(request, tools=tuple(map(_with_line, request.tools)))
    return request


def _with_line(tool: Tool) -> Tool:
    if not writes_files(tool):
        return tool
    return replace(tool, description="\n\n".join(filter(None, (tool.description, CHUNKED_WRITE))))
