"""Writers of chat for what not every answer has: pages that a web search found, thoughts in tags, and more choices."""

from __future__ import annotations

from kirostream.dialects.dialect import Heading
from kirostream.dialects.jsontext import encode
from kirostream.dialects.openai_chat.response import KEEP_ALIVE, Writer, together, url_annotations
from kirostream.dialects.openai_chat.thoughts import Tagging, ThoughtForm, form_of
from kirostream.turn.events import (
    BlockDelta,
    BlockEnded,
    BlockKind,
    BlockStarted,
    TurnEnded,
    TurnEvent,
    unescape,
)
from kirostream.turn.request import SearchHit, TurnRequest
from kirostream.turn.usage import Usage


class CitingWriter(Writer):
    """The writer of an answer that may search the web: says behind each text which of the pages found it names.

    Places are those in the message's whole ``content``, so every text is remembered.
    """

    def __init__(self, request: TurnRequest, heading: Heading, choice: int = 0) -> None:
        super().__init__(request, heading, choice)
        self._content = ""
        self._texts: dict[int, list[bytes]] = {}
        self._hits: list[SearchHit] = []

    def write(self, event: TurnEvent) -> list[bytes]:
        """The chunks that say `event`."""
        chunks = super().write(event)
        match event:
            case BlockDelta():
                self.was_said(event)
            case BlockStarted(index=index, kind=BlockKind.TEXT):
                self._texts[index] = []
            case BlockStarted(outcome=outcome) if outcome is not None:
                self._hits += outcome.hits or ()
            case BlockEnded(index=index) if index in self._texts:
                said = url_annotations(text := unescape(self._texts.pop(index)), self._hits, len(self._content))
                self._content += text
                if said:
                    chunks.append(self._chunk(encode({"annotations": said})))
            case _:
                pass
        return chunks

    def was_said(self, event: BlockDelta) -> None:
        """See `dialect.Templates`."""
        if event.index in self._texts:
            self._texts[event.index].extend(event.pieces)


class TaggingWriter:
    """The writer of an answer whose thoughts stand in its text."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._tagging = Tagging()
        self.heartbeat = writer.heartbeat
        self.finish = writer.finish
        self.end = writer.end

    def __repr__(self) -> str:
        return f"<TaggingWriter {self._writer!r}>"

    def write(self, event: TurnEvent) -> list[bytes]:
        """The chunks that say `event`."""
        return [chunk for each in self._tagging.take(event) for chunk in self._writer.write(each)]


def open_writer(request: TurnRequest, heading: Heading, choice: int = 0) -> Writer | TaggingWriter:
    """The writer of one answer to `request`."""
    kind = Writer if request.search is None else CitingWriter
    writer = kind(request, heading, choice)
    return TaggingWriter(writer) if form_of(request) is ThoughtForm.THINK else writer


class ChoicesWriter:
    """Writes several streamed answers into one stream: chunks of all choices, and one end."""

    def __init__(self, request: TurnRequest, heading: Heading) -> None:
        self._writers = [open_writer(request, heading, choice) for choice in range(request.choices)]
        self._ended: list[Usage] = []

    def __repr__(self) -> str:
        return f"<openai_chat.ChoicesWriter {len(self._ended)} of {len(self._writers)} ended>"

    def write(self, choice: int, event: TurnEvent) -> list[bytes]:
        """The chunks that say `event` of the answer `choice`; with the last finish, the end of the stream."""
        writer = self._writers[choice]
        if not isinstance(event, TurnEnded):
            return writer.write(event)
        self._ended.append(event.usage)
        finish = writer.finish(event)
        return [finish, *writer.end(together(self._ended))] if len(self._ended) == len(self._writers) else [finish]

    def heartbeat(self) -> bytes:
        """A comment."""
        return KEEP_ALIVE
