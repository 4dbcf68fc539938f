"""What is sent, and in which steps: a play turned into frames. Pure.

An answer is a row of **beats**. A beat holds one piece and the frames that stand before it (the beginning of a call,
the end of the one before), so that "after N pieces" is "after N beats", and a pause between pieces is one between
beats. What follows the last piece is the tail: the end of a call, the share of the context window, the credits.

Frames of text are kept in a small cache: a load test asks for the same text a thousand times.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, overload

from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import Heading
from kirostream.dialects.kiro.response import Writer, exception_frame
from kirostream.simulator.directives import Break, Call, Chunk, Play, Step, Think
from kirostream.simulator.refusals import INJECTED
from kirostream.turn.events import BlockDelta, BlockEnded, BlockKind, BlockStarted, Stop, TurnEnded, TurnStarted, escape
from kirostream.turn.model import Model
from kirostream.turn.request import TurnRequest
from kirostream.turn.tokens import BYTES_PER_TOKEN, estimate
from kirostream.turn.usage import Usage

CREDITS_PER_TOKEN: Final = 0.00002
LARGEST_CACHED: Final = 64 * 1024
"""Characters of a text whose frames are kept."""


@dataclass(frozen=True, slots=True)
class Scene:
    """An answer ready to be sent.

    `beats` and `tail` are bytes of frames. `breaks` says how the stream breaks, with `after` filled in; None where it
    does not. `closing` is what is sent in place of the rest where it breaks: half a frame, an exception frame.
    """

    beats: Sequence[bytes]
    tail: bytes
    output_tokens: int
    credits: float
    breaks: Break | None = None
    closing: bytes = b""


class Stamps(Sequence[bytes]):
    """Beats that are made when they are looked at, so that each can say when it was sent.

    A slice is again a row of beats that are not made yet.
    """

    def __init__(self, numbers: range, make: Callable[[int], bytes]) -> None:
        self._numbers = numbers
        self._make = make

    def __repr__(self) -> str:
        return f"<Stamps {self._numbers!r}>"

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> bytes: ...

    @overload
    def __getitem__(self, at: slice) -> Stamps: ...

    def __getitem__(self, at: int | slice) -> bytes | Stamps:
        if isinstance(at, slice):
            return Stamps(self._numbers[at], self._make)
        return self._make(self._numbers[at])


def stage(
    play: Play,
    request: TurnRequest,
    *,
    model: Model,
    picked: str,
    chunk: int,
    call_ids: Iterator[str],
    clock: Callable[[], int],
) -> Scene:
    """The frames of `play`.

    Args:
        play: what is due.
        request: the conversation it answers.
        model: the model that was asked for; the share of the window is that of its window.
        picked: the id of the model that answers; events name it.
        chunk: characters a piece where the script does not say.
        call_ids: gives the id of each call; never the same twice.
        clock: nanoseconds; read when a stamped token goes out, and not before.
    """
    size = play.chunk or chunk
    beats: list[bytes] = []
    before = b""  # frames that wait for the next piece
    said = 0  # bytes
    for step in () if play.stamps else play.steps:
        first, rest, last = _frames(step, size, picked, call_ids)
        said += len(_text(step).encode("utf-8", "replace"))
        if rest:
            beats += [before + first + rest[0], *rest[1:]]
            before = last
        else:
            before += first + last
    output = play.stamps or round(said / BYTES_PER_TOKEN)
    total = estimate(request) + output
    spent = round(total * CREDITS_PER_TOKEN * (model.rate or 1.0), 6)
    share = min(100.0, round(total * 100 / model.window, 4))
    end = TurnEnded(Stop.END, Usage(credits=spent, context_percentage=share))  # this writer has seen no call
    sent = _stamped(play.stamps, picked, clock) if play.stamps else beats
    scene = Scene(sent, before + b"".join(_writer(picked).write(end)), output, spent)
    return _broken(scene, play.breaks) if play.breaks else scene


def pieces(text: str, size: Chunk) -> Iterator[bytes]:
    """`text` in pieces of JSON string, in order."""
    if size == "u16":
        for char in text:
            if char > "\uffff":
                code = ord(char) - 0x10000
                yield b"\\u%04x" % (0xD800 + (code >> 10))
                yield b"\\u%04x" % (0xDC00 + (code & 0x3FF))
            else:
                yield escape(char)
        return
    step = 1 if size == "byte" else size
    for at in range(0, len(text), step):
        yield escape(text[at : at + step])


def _stamped(count: int, model: str, clock: Callable[[], int]) -> Stamps:
    writer = _writer(model, BlockKind.TEXT)

    def make(number: int) -> bytes:
        return b"".join(writer.write(BlockDelta(0, (b"w%d@%d " % (number, clock()),))))

    return Stamps(range(1, count + 1), make)


def _text(step: Step) -> str:
    return step.arguments if isinstance(step, Call) else step.text


def _frames(step: Step, size: Chunk, model: str, call_ids: Iterator[str]) -> tuple[bytes, Sequence[bytes], bytes]:
    """The frames before the pieces, the frames of the pieces, and those behind them."""
    if isinstance(step, Call):
        return _call_frames(step, size, model, next(call_ids))
    kind = BlockKind.THINKING if isinstance(step, Think) else BlockKind.TEXT
    frames = _cached_frames if len(step.text) <= LARGEST_CACHED else _text_frames
    signed = _writer(model, kind).write(BlockEnded(0, _signature(step.text))) if isinstance(step, Think) else []
    return b"", frames(kind, step.text, size, model), b"".join(signed)


def _call_frames(call: Call, size: Chunk, model: str, call_id: str) -> tuple[bytes, Sequence[bytes], bytes]:
    writer = _writer(model)
    first = writer.write(BlockStarted(0, BlockKind.TOOL_CALL, call_id, call.name))
    # No arguments are said by no piece at all, as the real service does.
    body = () if call.arguments == "{}" else tuple(pieces(call.arguments, size))
    return b"".join(first), writer.write(BlockDelta(0, body)), b"".join(writer.write(BlockEnded(0)))


def _text_frames(kind: BlockKind, text: str, size: Chunk, model: str) -> Sequence[bytes]:
    return tuple(_writer(model, kind).write(BlockDelta(0, tuple(pieces(text, size)))))


_cached_frames = functools.lru_cache(maxsize=128)(_text_frames)

_NO_REQUEST: Final = TurnRequest(model="", messages=())


def _writer(model: str, kind: BlockKind | None = None) -> Writer:
    writer = Writer(_NO_REQUEST, Heading("", 0))
    writer.write(TurnStarted(model))
    if kind is not None:
        writer.write(BlockStarted(0, kind))
    return writer


def _signature(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8", "replace")).digest()).decode()


def _broken(scene: Scene, breaks: Break) -> Scene:
    """The scene as it breaks."""
    count = len(scene.beats)
    after = count // 2 if breaks.after is None else min(breaks.after, count)
    following = scene.beats[after] if after < count else scene.tail
    closing = b""
    match breaks.kind:
        case "reset":
            closing = following[: len(following) // 2]
        case "exception":
            closing = exception_frame(INJECTED[breaks.error].complaint)
        case "crc":
            wrong = following[:-1] + bytes((following[-1] ^ 1,))
            closing = b"".join((wrong, *scene.beats[after + 1 :], scene.tail if after < count else b""))
        case "unstopped":
            after = count
        case _:
            pass
    return replace(scene, breaks=replace(breaks, after=after), closing=closing)
