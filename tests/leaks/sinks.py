"""Every place where something may leave: each sink gives what it shows, by where.

A new sink is covered as soon as it stands in `SINKS`.
"""

from __future__ import annotations

import dataclasses
import gc
import io
import sqlite3
import stat
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from kirostream.telemetry.capture_files import CaptureReader
from kirostream.telemetry.facts import Fact
from kirostream.telemetry.log import LogSettings, LogSink

SIMULATED = "kirostream.simulator"
"""What it holds opens nothing; a Kiro that looked at itself would show as much."""
SPEAKING = tuple(f"kirostream.{room}" for room in ("turn", "dialects", "filters"))
"""The rooms whose objects are what was said: they may show it, but no secret."""


def objects() -> Iterator[tuple[str, str]]:
    """Each object of ours that lives now, and what it shows of itself in all the ways there are.

    Whatever is being done at the moment has its objects in the frames of its tasks; the collector knows those too.
    """
    for each in gc.get_objects():
        kind = type(each)
        room = str(kind.__module__)
        if not room.startswith("kirostream.") or room.startswith(SIMULATED):
            continue
        yield f"{room}.{kind.__qualname__}", f"{each!r}\n{each!s}\n{each}"


def log_lines(facts: list[Fact]) -> Iterator[tuple[str, str]]:
    """The facts, and the log of them in both forms, with everything in it."""
    for fact in facts:
        yield f"fact {type(fact).__name__}", f"{fact!r} {dataclasses.asdict(fact)}"
    for form in ("json", "console"):
        out = io.StringIO()
        sink = LogSink(LogSettings(level="debug", format=form), out)
        for fact in facts:
            sink(fact)
        sink.flush()
        yield f"log as {form}", out.getvalue()


def traces(facts: list[Fact]) -> Iterator[tuple[str, str]]:
    """The spans and the figures that are sent for the facts, and what `/metrics` says of them."""
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from kirostream.telemetry.counts import Counts
    from kirostream.telemetry.metrics import Metrics
    from kirostream.telemetry.otel import OtelSink

    spans, figures, counts = InMemorySpanExporter(), InMemoryMetricReader(), Counts()
    sink = OtelSink(SimpleSpanProcessor(spans), figures)
    for fact in facts:
        sink(fact)
        counts(fact)
    for span in spans.get_finished_spans():
        yield f"span {span.name}", span.to_json()
    found = figures.get_metrics_data()
    yield "figures of OpenTelemetry", found.to_json() if found is not None else ""
    yield "metrics", Metrics(counts, list).text().decode()
    sink.close()


KEPT_OPEN = {"key": "the gateway's own key, which its owner has to be able to read"}
"""Files of the data folder that hold a secret as it is. docs/security.md says so."""


KEPT_AS_SAID = {"responses", "turns", "turn_events"}
"""Tables of the database that hold conversations, for clients that come back to them. docs/security.md says so."""


def captures(folder: Path) -> Iterator[tuple[str, str | bytes]]:
    """Every debug capture: by itself, as the list has it, and in the file for a bug report."""
    reader = CaptureReader(folder)
    for each in reader.entries():
        yield f"capture: {each.kind}", reader.get(each.id) or b""
        yield "list of captures", repr(each)
    yield "captures of forms, exported", b"".join(reader.export(("form",)))
    yield "captures, exported", b"".join(reader.export())


def tables(path: Path) -> Iterator[tuple[str, str]]:
    """Every row of the database, also what is still in its log; packed blobs unpacked."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert set(names) >= KEPT_AS_SAID
        for name in names:
            for row in db.execute(f'SELECT * FROM "{name}"'):
                values = [
                    zlib.decompress(each) if isinstance(each, bytes) and each[:1] == b"x" else each for each in row
                ]
                yield f"table {name}", repr(values)


def files(folder: Path) -> Iterator[tuple[str, str | bytes]]:
    """Every file of the data folder, and every row of its database, whose mode lets nobody else in."""
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    for path in sorted(folder.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), (path, oct(mode))
        if path.suffix == ".db":
            yield from tables(path)
        if path.is_file() and str(path.relative_to(folder)) not in KEPT_OPEN:
            yield f"file {path.relative_to(folder)}", path.read_bytes()
