"""Responses answers and errors: the room's door (client-apis.md sections 3.4, 3.5).

`writer` says a turn, `frame` is the response object round its items, `reader` hears one, `errors` words what failed.
"""

from __future__ import annotations

from kirostream.dialects.openai_responses.errors import read_error, write_error
from kirostream.dialects.openai_responses.frame import response_id
from kirostream.dialects.openai_responses.reader import Reader, read_result
from kirostream.dialects.openai_responses.writer import REFUSAL, Writer, write_result, write_status

__all__ = [
    "REFUSAL",
    "Reader",
    "Writer",
    "read_error",
    "read_result",
    "response_id",
    "write_error",
    "write_result",
    "write_status",
]
