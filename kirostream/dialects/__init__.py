"""Languages: pure bytes in, bytes out, both directions. The table says which there are.

A room's own `__init__` is a docstring only; importing a dialect's reader drags in nothing else.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Final

from kirostream.dialects.anthropic import request as anthropic_request
from kirostream.dialects.anthropic import response as anthropic_response
from kirostream.dialects.anthropic.errors import read_error as read_anthropic_error
from kirostream.dialects.anthropic.errors import write_error as write_anthropic_error
from kirostream.dialects.dialect import Dialect, Registry
from kirostream.dialects.kiro import request as kiro_request
from kirostream.dialects.kiro import response as kiro_response
from kirostream.dialects.openai_chat import either as chat_either
from kirostream.dialects.openai_chat import request as chat_request
from kirostream.dialects.openai_chat import response as chat_response
from kirostream.dialects.openai_chat import writers as chat_writers
from kirostream.dialects.openai_responses import request as responses_request
from kirostream.dialects.openai_responses import response as responses_response
from kirostream.turn.memory import Memory

SSE: Final = b"text/event-stream; charset=utf-8"

DIALECTS: Final[Registry] = {
    "anthropic": Dialect(
        name="anthropic",
        path="/v1/messages",
        content_type=SSE,
        read_request=anthropic_request.read_request,
        read_in_steps=anthropic_request.read_in_steps,
        write_request=anthropic_request.write_request,
        writer=anthropic_response.Writer,
        reader=anthropic_response.Reader,
        write_result=anthropic_response.write_result,
        read_result=anthropic_response.read_result,
        write_error=write_anthropic_error,
        read_error=read_anthropic_error,
    ),
    "openai_chat": Dialect(
        name="openai_chat",
        path="/v1/chat/completions",
        content_type=SSE,
        read_request=chat_either.read_request,
        write_request=chat_request.write_request,
        writer=chat_writers.open_writer,
        reader=chat_response.Reader,
        write_result=chat_response.write_result,
        read_result=chat_response.read_result,
        write_error=chat_response.write_error,
        read_error=chat_response.read_error,
        choices_writer=chat_writers.ChoicesWriter,
        write_results=chat_response.write_results,
    ),
    "openai_responses": Dialect(
        name="openai_responses",
        path="/v1/responses",
        content_type=SSE,
        read_request=responses_request.read_request,
        write_request=responses_request.write_request,
        writer=responses_response.Writer,
        reader=responses_response.Reader,
        write_result=responses_response.write_result,
        read_result=responses_response.read_result,
        write_error=responses_response.write_error,
        read_error=responses_response.read_error,
    ),
    "kiro": Dialect(
        name="kiro",
        path=None,
        content_type=kiro_response.CONTENT_TYPE,
        read_request=kiro_request.read_request,
        write_request=kiro_request.write_request,
        writer=kiro_response.Writer,
        reader=kiro_response.Reader,
        write_result=kiro_response.write_result,
        read_result=kiro_response.read_result,
        write_error=kiro_response.write_error,
        read_error=kiro_response.read_error,
    ),
}


def remembering(memory: Memory) -> Dialect:
    """Messages, whose requests are read with a memory of those before: agents send all of a session with every turn."""
    return replace(
        DIALECTS["anthropic"],
        read_request=functools.partial(anthropic_request.read_request, memory=memory),
        read_in_steps=functools.partial(anthropic_request.read_in_steps, memory=memory),
    )
