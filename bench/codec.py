"""Event-stream decoders side by side: CPU time a frame, and how many times botocore's each is.

Every row decodes the same bytes, in the same reads, and is checked before it is timed: fresh headers and a fresh
payload for every frame, both CRCs verified. The rows below the line do more or less than that, and say so:

- `lift` also takes the text out of the payload, as raw JSON;
- `feed_runs` gives the pieces of a run and no frame (its CRCs are verified all the same);
- `fused` goes from event-stream bytes to the bytes of a client's SSE stream, and stands against the usual way to do
  that: botocore, `json.loads`, `json.dumps`.

Rounds are interleaved, in an order shuffled by the seed: what disturbs the machine disturbs every row. Time is the
process's CPU time. A ratio is the median of the rounds' own ratios; "best" is the fastest round. The collector of
cyclic garbage stays on, as in production. Peers that are not installed are named, and left out.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import io
import json
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import report

READ = 16 << 10
"""Bytes a read: what a TLS record holds at most, and what a busy stream delivers."""

HEADERS = {":event-type": "assistantResponseEvent", ":content-type": "application/json", ":message-type": "event"}
SMALL = 126
"""Bytes of the small message: a token of four letters as Kiro sends it."""
LARGE_PAYLOAD = 1024

# How a text turn is written for an Anthropic client (client-apis.md): one event a piece.
SSE_PREFIX = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"'
)
SSE_SUFFIX = b'"}}\n\n'
SSE_SEPARATOR = SSE_SUFFIX + SSE_PREFIX

BASELINE = "botocore"
JS = Path(__file__).parent / "js"

Read = Sequence[bytes]
Decode = Callable[[Read], int]
"""Decodes a whole stream, given as reads, and returns how many frames or pieces came out."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What must hold.

    The row's ratio to `against` is at least `ratio`, or the time of `against` in it at most `times`, or its own median
    time at most `nanoseconds`.
    """

    workload: str
    row: str
    ratio: float = 0.0
    nanoseconds: float = 0.0
    times: float = 0.0
    against: str = BASELINE


LARGE = "64 KiB, one frame a read"
NPM, COPY = "@smithy/eventstream-codec", "copy and CRC"
GOALS = (
    *(
        goal
        for reads in ("16 KiB reads", "one frame a read", "two reads a frame")
        for goal in (
            Goal(f"{SMALL} B, {reads}", "kirostream", nanoseconds=300),
            Goal(f"{SMALL} B, {reads}", "kirostream", ratio=50),
        )
    ),
    Goal(f"{SMALL} B, one frame a read", "kirostream", ratio=10, against=NPM),
    Goal(f"{SMALL} B, 16 KiB reads", "kirostream, fused to SSE", nanoseconds=100),
    Goal(LARGE, "kirostream", times=1.5, against=COPY),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """A stream of equal messages, cut into reads."""

    name: str
    frames: int
    texts: list[str]
    reads: list[bytes]


@dataclass(frozen=True, slots=True)
class Row:
    """One way to decode. `collect` returns what `decode` only counts, for the check.

    `timed` takes the place of the clock where the work is another process's: nanoseconds of CPU for so many loops.
    `fits` says which workloads it can have.
    """

    name: str
    decode: Decode
    collect: Callable[[Read], Any]
    same_work: bool = True
    timed: Callable[[Read, int], int] | None = None
    fits: Callable[[Workload], bool] = lambda workload: True


# --- workloads ----------------------------------------------------------------------------------------------------


def workloads(frames: int, seed: int) -> list[Workload]:
    """The streams to decode: two sizes, two ways of reading."""
    dice = random.Random(seed)
    empty = len(message(""))
    sizes = {
        f"{SMALL} B": SMALL - empty,
        f"{LARGE_PAYLOAD} B payload": LARGE_PAYLOAD - len(payload("")),
    }
    out = []
    for label, letters in sizes.items():
        texts = ["".join(dice.choices("etaoinshrdlu ", k=letters)) for _ in range(frames)]
        messages = [message(text) for text in texts]
        stream = b"".join(messages)
        batches = [stream[at : at + READ] for at in range(0, len(stream), READ)]
        out.append(Workload(f"{label}, 16 KiB reads", frames, texts, batches))
        out.append(Workload(f"{label}, one frame a read", frames, texts, messages))
    assert len(out[1].reads[0]) == SMALL
    halves = [part for each in out[1].reads for part in (each[: SMALL // 2], each[SMALL // 2 :])]
    out.insert(2, Workload(f"{SMALL} B, two reads a frame", frames, out[1].texts, halves))
    few = max(1, frames // 100)
    texts = ["".join(dice.choices("etaoinshrdlu ", k=(64 << 10) - empty)) for _ in range(few)]
    out.append(Workload(LARGE, few, texts, [message(text) for text in texts]))
    return out


def payload(text: str) -> bytes:
    return json.dumps({"content": text}, separators=(",", ":")).encode()


def message(text: str) -> bytes:
    from kirostream.evstream import encode_frame

    return encode_frame(HEADERS, payload(text))


# --- rows ---------------------------------------------------------------------------------------------------------


def rows() -> tuple[list[Row], list[str]]:
    """The decoders that are here, and a sentence for each that is not."""
    found: list[Row] = []
    absent: list[str] = []
    for name, module, make in PEERS:
        try:
            imported = importlib.import_module(module)
        except ImportError:
            absent.append(f"{name}: {module} is not installed here")
            continue
        found += make(name, imported)
    found.append(copy_and_crc())
    found += npm(absent)
    absent.append("awscrt: its Python face has an RPC client for event streams, and no decoder to feed")
    return found, absent


def ours(name: str, core: Any) -> list[Row]:
    """Decode and nothing else; with the lift; runs; and runs to SSE."""

    def decode(reads: Read) -> int:
        return sum(map(len, map(core.FrameDecoder().feed, reads)))  # a loop in Python takes as long as a short feed

    def collect(reads: Read) -> Any:
        feed = core.FrameDecoder().feed
        return [(dict(frame.headers), frame.payload) for read in reads for frame in feed(read)]

    def decode_lift(reads: Read) -> int:
        return sum(map(len, map(core.FrameDecoder(lift=("content",)).feed, reads)))

    def collect_lift(reads: Read) -> Any:
        feed = core.FrameDecoder(lift=("content",)).feed
        return [frame.lifted.decode() for read in reads for frame in feed(read)]

    def decode_runs(reads: Read) -> int:
        feed = core.FrameDecoder(lift=("content",)).feed_runs
        count = 0
        for read in reads:
            for item in feed(read):
                count += len(item) if type(item) is list else 1
        return count

    def collect_runs(reads: Read) -> Any:
        feed = core.FrameDecoder(lift=("content",)).feed_runs
        items = [item for read in reads for item in feed(read)]
        return [piece.decode() for item in items for piece in (item if isinstance(item, list) else [item.lifted])]

    def fused(reads: Read) -> Iterable[tuple[int, bytes]]:
        feed = core.FrameDecoder(lift=("content",)).feed_runs
        for read in reads:
            for item in feed(read):
                if type(item) is list:
                    yield len(item), SSE_PREFIX + SSE_SEPARATOR.join(item) + SSE_SUFFIX
                else:
                    yield 1, SSE_PREFIX + item.lifted + SSE_SUFFIX

    return [
        Row(name, decode, collect),
        Row(f"{name}, lift", decode_lift, collect_lift, same_work=False),
        Row(f"{name}, feed_runs", decode_runs, collect_runs, same_work=False),
        Row(f"{name}, fused to SSE", counted(fused), joined(fused), same_work=False),
    ]


def buffered(name: str, module: Any) -> list[Row]:
    """botocore's decoder, and those made after it: add data, then iterate."""

    def decode(reads: Read) -> int:
        stream = module.EventStreamBuffer()
        count = 0
        for read in reads:
            stream.add_data(read)
            for _ in stream:
                count += 1
        return count

    def collect(reads: Read) -> Any:
        stream = module.EventStreamBuffer()
        out = []
        for read in reads:
            stream.add_data(read)
            out += [(event.headers, event.payload) for event in stream]
        return out

    def usual(reads: Read) -> Iterable[tuple[int, bytes]]:
        stream = module.EventStreamBuffer()
        for read in reads:
            stream.add_data(read)
            for event in stream:
                text = json.loads(event.payload)["content"]
                delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
                yield 1, b"event: content_block_delta\ndata: %b\n\n" % json.dumps(delta).encode()

    found = [Row(name, decode, collect)]
    if name == BASELINE:
        found.append(Row(f"{name} + json, to SSE", counted(usual), joined(usual), same_work=False))
    return found


def blocking(name: str, module: Any) -> list[Row]:
    """smithy's decoder reads from a file and cannot wait for more: it gets the whole stream in memory."""

    def decode(reads: Read) -> int:
        source = io.BytesIO(b"".join(reads))
        count = 0
        while module.Event.decode(source) is not None:
            count += 1
        return count

    def collect(reads: Read) -> Any:
        source = io.BytesIO(b"".join(reads))
        events = iter(lambda: module.Event.decode(source), None)
        return [(dict(event.message.headers), event.message.payload) for event in events]

    return [Row(name, decode, collect)]


def copy_and_crc() -> Row:
    """What no decoder can do without: a copy of each message, and its CRC."""
    crc32 = importlib.import_module("kirostream._evstream")._crc32  # noqa: SLF001  the decoder's own is the floor

    def decode(reads: Read) -> int:
        for read in reads:
            crc32(bytes(memoryview(read)))
        return len(reads)

    return Row(COPY, decode, lambda reads: None, same_work=False, fits=lambda workload: workload.name == LARGE)


def npm(absent: list[str]) -> list[Row]:
    """AWS's own decoder for JavaScript, in a node of its own. It takes whole messages."""
    if shutil.which("node") is None or not (JS / "node_modules" / NPM).is_dir():
        absent.append(f"{NPM}: `make js` installs it, where there is node")
        return []
    node = subprocess.Popen(["node", "codec.mjs"], cwd=JS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    folder = tempfile.TemporaryDirectory(prefix="kirostream-bench-")
    atexit.register(folder.cleanup)
    atexit.register(node.terminate)
    files: dict[int, Path] = {}

    def ask(reads: Read, loops: int, *, collect: bool = False) -> dict[str, Any]:
        assert node.stdin is not None
        assert node.stdout is not None
        if id(reads) not in files:
            files[id(reads)] = Path(folder.name) / f"{len(files)}"
            files[id(reads)].write_bytes(b"".join(reads))
        sizes = [len(read) for read in reads]
        job = {"file": str(files[id(reads)]), "sizes": sizes, "loops": loops, "collect": collect}
        node.stdin.write(json.dumps(job) + "\n")
        node.stdin.flush()
        answer: dict[str, Any] = json.loads(node.stdout.readline())
        return answer

    def collect(reads: Read) -> Any:
        return [(headers, body.encode()) for headers, body in ask(reads, 0, collect=True)["collected"]]

    return [
        Row(
            NPM,
            lambda reads: int(ask(reads, 1)["frames"]),
            collect,
            timed=lambda reads, loops: int(ask(reads, loops)["nanoseconds"]),
            fits=lambda workload: workload.name.endswith("one frame a read"),
        )
    ]


def counted(writes: Callable[[Read], Iterable[tuple[int, bytes]]]) -> Decode:
    def decode(reads: Read) -> int:
        total = 0
        for count, _ in writes(reads):
            total += count
        return total

    return decode


def joined(writes: Callable[[Read], Iterable[tuple[int, bytes]]]) -> Callable[[Read], Any]:
    """The texts of an SSE stream, read back."""

    def collect(reads: Read) -> Any:
        stream = b"".join(data for _, data in writes(reads))
        events = stream.decode().split("\n\n")[:-1]
        return [json.loads(event.partition("data: ")[2])["delta"]["text"] for event in events]

    return collect


# Name, module, and what makes rows of it. Peers: `pip install -e '.[bench]'`.
PEERS: tuple[tuple[str, str, Callable[[str, Any], list[Row]]], ...] = (
    (BASELINE, "botocore.eventstream", buffered),
    ("kirostream", "kirostream._evstream", ours),
    ("kirostream twin", "kirostream._evstream_py", ours),
    ("amazon-transcribe", "amazon_transcribe.eventstream", buffered),
    ("smithy-aws-event-stream", "smithy_aws_event_stream.events", blocking),
)


# --- measuring ----------------------------------------------------------------------------------------------------


def check(row: Row, workload: Workload) -> None:
    """Does the row do the work? Raises AssertionError if not: its time would mean nothing."""
    got = row.collect(workload.reads)
    if row.name == COPY:
        return
    expected: Any = [(HEADERS, payload(text)) for text in workload.texts] if row.same_work else workload.texts
    assert got == expected, f"{row.name} does not decode {workload.name} as it should"
    assert row.decode(workload.reads) == workload.frames


def measure(found: Sequence[Row], workload: Workload, rounds: int, dice: random.Random) -> dict[str, list[float]]:
    """Nanoseconds of CPU a frame: for each row, one figure a round."""
    loops = {}
    for row in found:
        check(row, workload)
        took = clock(row, workload, 1)
        loops[row.name] = max(1, round(20e6 / max(took, 1)))  # some 20 ms each: long against the clock's step
    times: dict[str, list[float]] = {row.name: [] for row in found}
    for _ in range(rounds):
        for row in dice.sample(found, len(found)):
            count = loops[row.name]
            times[row.name].append(clock(row, workload, count) / count / workload.frames)
    return times


def clock(row: Row, workload: Workload, loops: int) -> int:
    decode, reads = row.decode, workload.reads
    if row.timed is not None:
        return row.timed(reads, loops)
    begin = time.process_time_ns()
    for _ in range(loops):
        decode(reads)
    return time.process_time_ns() - begin


# --- the suite ----------------------------------------------------------------------------------------------------


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=15, help="rounds a workload (default %(default)s)")
    parser.add_argument("--frames", type=int, default=2000, help="frames a stream (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the texts and of the order (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a short run that only shows that everything works")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed")
    parser.add_argument("--no-save", action="store_true", help="do not write a file into bench/results")


def run(options: argparse.Namespace) -> int:
    console = Console()
    if options.quick:
        vars(options).update(rounds=2, frames=500)
    where = report.machine()
    found, absent = rows()
    if not any(row.name == BASELINE for row in found):
        raise SystemExit("botocore is what the ratios are against: pip install -e '.[bench]'")
    dice = random.Random(options.seed)
    results: list[dict[str, Any]] = []
    for workload in workloads(options.frames, options.seed):
        fitting = [row for row in found if row.fits(workload)]
        times = measure(fitting, workload, options.rounds, dice)
        results.append({"workload": workload.name, "rows": summarize(fitting, times)})
        console.print(table(workload, results[-1]["rows"]))
    for sentence in absent:
        console.print(f"absent: {sentence}", style="dim", soft_wrap=True)
    goals = judge(results)
    for goal in goals:
        verdict = "met" if goal["met"] else "MISSED"
        console.print(f"{verdict}: {goal['goal']}, measured {goal['measured']:g}", soft_wrap=True)
    if not options.no_save:
        path = report.save(
            "codec",
            {
                "machine": where,
                "versions": report.versions(["kirostream", "botocore", "amazon-transcribe", "smithy-aws-event-stream"]),
                "seed": options.seed,
                "rounds": options.rounds,
                "frames": options.frames,
                "absent": absent,
                "results": results,
                "goals": goals,
            },
        )
        console.print(f"written: bench/results/{path.name}", style="dim")
    return 1 if options.check and not all(goal["met"] for goal in goals) else 0


def summarize(found: Sequence[Row], times: dict[str, list[float]]) -> list[dict[str, Any]]:
    base = times[BASELINE]
    return [
        {
            "row": row.name,
            "same_work": row.same_work,
            "best_ns": round(min(times[row.name]), 1),
            "median_ns": round(statistics.median(times[row.name]), 1),
            "ratio": round(statistics.median(b / t for b, t in zip(base, times[row.name], strict=True)), 2),
        }
        for row in found
    ]


def table(workload: Workload, summary: Sequence[dict[str, Any]]) -> Table:
    out = Table(title=f"{workload.name}: CPU a frame", title_justify="left")
    out.add_column("decoder")
    for heading in ("best ns", "median ns", f"times {BASELINE}"):
        out.add_column(heading, justify="right")
    for same_work in (True, False):
        for row in sorted((row for row in summary if row["same_work"] is same_work), key=lambda row: row["median_ns"]):
            out.add_row(row["row"], f"{row['best_ns']:,.0f}", f"{row['median_ns']:,.0f}", f"{row['ratio']:.1f}")
        out.add_section()
    return out


def judge(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    measured = {(result["workload"], row["row"]): row for result in results for row in result["rows"]}
    out = []
    for goal in GOALS:
        row = measured.get((goal.workload, goal.row))
        if row is None:
            continue
        other = measured.get((goal.workload, goal.against), {})
        if (goal.ratio or goal.times) and not other:
            continue
        if goal.ratio:
            value = row["ratio"] if goal.against == BASELINE else round(other["median_ns"] / row["median_ns"], 2)
            met = value >= goal.ratio
            said = f"at least {goal.ratio:g} times {goal.against}"
        elif goal.times:
            value = round(row["median_ns"] / other["median_ns"], 2)
            met = value <= goal.times
            said = f"at most {goal.times:g} times the time of {goal.against}"
        else:
            value, met = row["median_ns"], row["median_ns"] <= goal.nanoseconds
            said = f"at most {goal.nanoseconds:g} ns a frame"
        out.append({"goal": f"{goal.row}, {goal.workload}: {said}", "measured": value, "met": met})
    return out
