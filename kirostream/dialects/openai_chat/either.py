"""Chat's path, in either of two shapes (client-apis.md sections 2.1 and 5.6).

Cursor sends a Responses body to chat's path, and reads chat's chunks. A body that has ``input`` and no ``messages`` is
read as Responses, and from then on it is a chat request: its answer is chat's, its custom tools are answered as chat's.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
from msgspec import Raw

from kirostream.dialects.dialect import Headers
from kirostream.dialects.jsontext import decode, encode
from kirostream.dialects.openai_chat import request as chat
from kirostream.dialects.openai_responses import request as responses
from kirostream.dialects.openai_responses.tools import Kind, offered
from kirostream.errors import MalformedRequest
from kirostream.turn.request import TurnRequest


class _Shape(msgspec.Struct):
    """What tells the two apart, and what Responses has no word for."""

    input: Raw = Raw()
    messages: Raw = Raw()
    stream_options: chat.WireStreamOptions | None = None


def read_request(body: bytes, headers: Headers) -> TurnRequest:
    """A question, as a client asks it on chat's path.

    Raises:
        MalformedRequest: the body cannot be understood; `param` is the path of what is wrong.
    """
    try:
        return chat.read_request(body, headers)
    except MalformedRequest as error:
        if error.param != "$.messages":
            raise
        shape = decode(body, _Shape)
        if shape.messages or not shape.input:
            raise
    request = responses.read_request(body, headers)
    origins = offered(request.extras).origins
    custom = [
        {"type": "custom", "custom": {"name": name}} for name, origin in origins.items() if origin.kind is Kind.CUSTOM
    ]
    return replace(
        request,
        spoken_in=chat.NAME,
        include_usage=bool(shape.stream_options and shape.stream_options.include_usage),
        extras={"tools": encode(custom)} if custom else {},
    )
