"""Heads and bodies at the door, with h11 as the judge of what is read and written in plain form."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kirostream.errors import LocalProtocolError, MalformedRequest, RequestTooLarge
from kirostream.net.cycle import Cycle, Plain, read_plain
from kirostream.net.exchange import Headers
from kirostream.net.judged import Judged

LIMIT = 64 << 10

CLAUDE_CODE = (
    b"POST /v1/messages?beta=true HTTP/1.1\r\nConnection: keep-alive\r\nAccept: application/json\r\n"
    b"X-Stainless-Retry-Count: 0\r\nX-Stainless-Timeout: 600\r\nX-Stainless-Lang: js\r\n"
    b"anthropic-version: 2023-06-01\r\nx-api-key: ks-1\r\nUser-Agent: claude-cli/2.0.1 (external, cli)\r\n"
    b"content-type: application/json\r\naccept-language: *\r\nsec-fetch-mode: cors\r\n"
    b"accept-encoding: gzip, deflate\r\nHost: 127.0.0.1:8000\r\nContent-Length: 5\r\n\r\nhello"
)
CURL = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"
PYTHON = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:8000\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: close\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\nhost: x\r\n\r\n"
)


def judged(data: bytes) -> Judged | None:
    """What h11 takes it for; None where it is refused, or not whole."""
    cycle = Judged(LIMIT, "")
    cycle.feed(data)
    try:
        return cycle if cycle.read_head() == b"1.1" else None
    except (MalformedRequest, RequestTooLarge):
        return None


def drained(cycle: Cycle) -> bytes:
    """All that there is of the body."""
    body = b""
    while part := cycle.pull():
        body += part
    return body


@pytest.mark.parametrize("wire", [CLAUDE_CODE, CURL, PYTHON], ids=["Claude Code", "curl", "python"])
def test_usual_clients_speak_in_plain_form(wire: bytes) -> None:
    plain = read_plain(wire, "me")
    assert isinstance(plain, Plain)
    assert plain.request.peer == "me"
    assert_same(wire)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.0\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\nhost: x\n\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n y\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close, keep-alive\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nkey: \x01\r\n\r\n",
    ],
)
def test_everything_else_is_left_to_h11(head: bytes) -> None:
    assert read_plain(head, "") is None


def assert_same(wire: bytes) -> None:
    """What is read in plain form, h11 reads so: head, body, what follows, and whether the connection lives on."""
    plain = read_plain(wire, "")
    if plain is None:
        return
    other = judged(wire)
    assert other is not None, "h11 refuses it"
    assert plain.request == other.request
    assert plain.whole == other.whole
    assert plain.awaits_consent == other.awaits_consent
    assert plain.knows_chunks == other.knows_chunks
    assert (drained(plain), plain.whole, plain.rest) == (drained(other), other.whole, other.rest)
    if plain.whole:
        assert plain.head(200, ()) == other.head(200, ())
        assert plain.end() == other.end()
        assert plain.renewable == other.renewable


TOKENS = st.text("aZ0-!~_", min_size=1, max_size=4).map(str.encode)
VALUES = st.text("a \t,;:Z0~\x01\x7f\xff", max_size=8).map(lambda text: text.encode("latin-1"))
NAMED = st.sampled_from(
    [
        b"host: x",
        b"Host:x",
        b"HOST: \t x \t",
        b"content-length: 3",
        b"Content-Length:0",
        b"content-length: 03",
        b"content-length: 3 ",
        b"content-length: +3",
        b"content-length: 3,3",
        b"content-length: " + b"9" * 21,
        b"transfer-encoding: chunked",
        b"connection: keep-alive",
        b"Connection: Close",
        b"connection: close, te",
        b"connection:",
        b"expect: 100-continue",
        b"upgrade: x",
        b" folded",
        b"no colon",
        b"",
    ]
)
FIELDS = st.lists(
    NAMED
    | st.tuples(TOKENS | VALUES, st.sampled_from([b":", b": ", b" : ", b":\t"]), VALUES).map(
        lambda parts: b"".join(parts)
    ),
    max_size=5,
)
LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"POST /v1/messages?a=b HTTP/1.1",
        b"HEAD http://host/path HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET / HTTP/1.0",
        b"GET / HTTP/1.2",
        b"GET / http/1.1",
        b"get / HTTP/1.1 ",
        b"GET /",
    ]
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"])
REST = st.sampled_from([b"", b"ab", b"abc", b"abcGET / HTTP/1.1\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"])


@st.composite
def wires(draw: st.DrawFn) -> bytes:
    """Requests, most of them almost right."""
    fields = draw(FIELDS)
    if draw(st.booleans()):
        fields.insert(draw(st.integers(0, len(fields))), b"host: h")
    end = draw(ENDS)
    return end.join([draw(LINES), *fields, b"", b""]) + draw(REST)


@given(wires())
@example(b"GET / HTTP/1.1\r\nhost:\r\n\r\n")
@settings(max_examples=200, deadline=None)
def test_whatever_is_taken_in_plain_form_h11_takes_for_the_same(wire: bytes) -> None:
    assert_same(wire)


@given(st.integers(0, len(CLAUDE_CODE)), st.binary(max_size=3), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_a_usual_head_with_something_wrong_in_it(at: int, put: bytes, less: int) -> None:
    assert_same(CLAUDE_CODE[:at] + put + CLAUDE_CODE[at + less :])


# Answers.


OUR_FIELDS = st.lists(
    st.sampled_from(
        [
            (b"content-type", b"text/event-stream"),
            (b"date", b"Sat, 21 Nov 2026 21:00:00 GMT"),
            (b"connection", b"close"),
            (b"connection", b"Keep-Alive, x"),
            (b"connection", b""),
            (b"content-length", b"3"),
            (b"content-length", b"-3"),
            (b"content-length", b"4"),
        ]
    )
    | st.tuples(TOKENS, VALUES)
    | st.tuples(VALUES, TOKENS),
    max_size=4,
)


def outcome(cycle: Cycle, status: int, fields: Headers, parts: Sequence[bytes]) -> object:
    """The bytes of an answer, or where it is refused, and whether the connection lives on."""
    said: list[object] = []
    if [name for name, _ in fields].count(b"content-length") > 1:
        return "h11 makes one of two that are the same"
    try:
        said.append(cycle.head(status, fields))
        bodiless = status in (204, 304) or cycle.request.method == "HEAD"
        if not bodiless and any(name == b"content-length" for name, _ in fields):
            said += [cycle.count(part) for part in parts]
        said.append(cycle.end())
    except LocalProtocolError:
        return [*said, "refused"]
    return [*said, cycle.renewable]


@given(
    st.sampled_from([b"GET", b"HEAD", b"POST"]),
    st.sampled_from([b"", b"connection: close\r\n", b"Connection: Keep-Alive\r\n"]),
    st.sampled_from([101, 200, 204, 304, 404, 499, 599]),
    OUR_FIELDS,
    st.lists(st.sampled_from([b"ab", b"c"]), max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_answers_in_plain_form_are_those_of_h11(
    method: bytes, asks: bytes, status: int, fields: Headers, parts: Sequence[bytes]
) -> None:
    wire = method + b" / HTTP/1.1\r\nhost: x\r\n" + asks + b"\r\n"
    plain, other = read_plain(wire, ""), judged(wire)
    assert plain is not None
    assert other is not None
    assert outcome(plain, status, fields, parts) == outcome(other, status, fields, parts)


def test_an_answer_has_one_length() -> None:
    plain = read_plain(CURL, "")
    assert plain is not None
    with pytest.raises(LocalProtocolError, match="content-length"):
        plain.head(200, [(b"content-length", b"3"), (b"content-length", b"3")])


def test_a_body_that_comes_in_pieces() -> None:
    plain = read_plain(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nab", "")
    assert plain is not None
    assert (plain.pull(), plain.pull(), plain.whole) == (b"ab", b"", False)
    plain.feed(b"cd")
    plain.feed(b"efGET")
    assert (plain.pull(), plain.pull(), plain.whole, plain.rest) == (b"cdef", b"", True, b"GET")
