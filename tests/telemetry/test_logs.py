"""Reading log files: filters, newest first, and as they grow."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from helpers.logfiles import HOUR, NOON, Desk
from kirostream.errors import SettingsError
from kirostream.telemetry import logs
from kirostream.telemetry.facts import AccountChanged, AttemptFailed, Faulted, ServiceChanged
from kirostream.telemetry.logfiles import log_files
from kirostream.telemetry.logs import LogFilter, LogLine, LogReader


async def written(folder: Path) -> LogReader:
    at = Desk(folder)
    for number in range(300):
        at.say(f"number {number}", NOON + number * 60)
    at.now = NOON + 300 * 60
    at.files.take(Faulted(where="Grüße", error="ValueError", trace="Traceback"))
    at.files.take(AccountChanged(account="a***", before="ready", state="cooling", why="Throttled", seconds=5))
    await at.files.flush()
    return LogReader(folder)


def states(lines: list[LogLine]) -> list[str]:
    return [str(line.known.get("state", line.event)) for line in lines]


async def test_everything_in_order(tmp_path: Path) -> None:
    reader = await written(tmp_path)
    lines = list(reader.read())
    assert states(lines) == [*(f"number {n}" for n in range(300)), "faulted", "cooling"]
    assert lines == sorted(lines, key=lambda line: line.timestamp)
    assert lines[0].as_dict() == {
        "timestamp": "2026-11-21T12:00:00.000000Z",
        "level": "info",
        "event": "service changed",
        "service": "gateway",
        "state": "number 0",
    }
    assert reader.size() == sum(path.stat().st_size for path in log_files(tmp_path))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (LogFilter(level="error"), ["faulted"]),
        (LogFilter(level="WARNING"), ["faulted"]),
        (LogFilter(grep="NUMBER 29"), ["number 29", *(f"number {n}" for n in range(290, 300))]),
        (LogFilter(grep="grüSSE".replace("SS", "ß")), ["faulted"]),
        (LogFilter(grep="nowhere"), []),
        (LogFilter(event="account changed"), ["cooling"]),
        (LogFilter(since=NOON + 299 * 60), ["number 299", "faulted", "cooling"]),
        (LogFilter(until=NOON + 120), ["number 0", "number 1"]),
        (LogFilter(since=NOON + HOUR, until=NOON + HOUR + 60), ["number 60"]),
    ],
)
async def test_filters(wanted: LogFilter, found: list[str], tmp_path: Path) -> None:
    reader = await written(tmp_path)
    assert states(list(reader.read(wanted))) == found
    assert states(reader.newest(wanted)) == found[::-1]
    assert states(reader.newest(wanted, most=2)) == found[::-1][:2]


def test_a_level_that_does_not_exist() -> None:
    with pytest.raises(SettingsError, match="debug, info"):
        LogFilter(level="loud")


@pytest.mark.parametrize("block", [1, 7, 100, 1 << 16])
async def test_the_newest_are_read_backwards(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BLOCK", block)
    reader = await written(tmp_path)
    assert states(reader.newest(most=4)) == ["cooling", "faulted", "number 299", "number 298"]
    assert len(reader.newest(most=1000)) == 302


async def test_lines_of_two_processes_are_interleaved(tmp_path: Path) -> None:
    at = Desk(tmp_path)
    for number in range(20):
        at.say(str(number), NOON + number)
    await at.files.flush()
    (path,) = log_files(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[::2]))
    path.with_name("20261121T120001Z-2.jsonl").write_text("".join(lines[1::2]))
    reader = LogReader(tmp_path)
    stamps = [line.timestamp for line in reader.read()]
    assert stamps == sorted(stamps)
    newest = [line.timestamp for line in reader.newest(most=7)]
    assert newest == stamps[::-1][:7]


@pytest.mark.parametrize(
    "stump", ['{"timestamp":"2026', "null\n", "[1]\n", '{"level":"info"}\n', "\xff\n", "\n\n", '"x"\n']
)
async def test_what_is_no_line_is_skipped(stump: str, tmp_path: Path) -> None:
    reader = await written(tmp_path)
    newest = log_files(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes() + stump.encode("latin-1"))
    assert len(list(reader.read())) == len(reader.newest(most=1000)) == 302


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    reader = LogReader(tmp_path / "none")
    assert (list(reader.read()), reader.newest(), reader.size()) == ([], [], 0)


async def test_lines_are_followed_into_the_next_file(tmp_path: Path) -> None:
    at = Desk(tmp_path)
    at.say("before")
    await at.files.flush()
    seen: list[str] = []
    more = trio.Event()

    async def follow(wanted: LogFilter) -> None:
        tail = LogReader(tmp_path).follow(wanted)
        while True:
            seen.extend(states(await tail.more(0.01)))
            more.set()

    async def until(*wanted: str) -> None:
        nonlocal more
        while seen != list(wanted):
            await more.wait()
            more = trio.Event()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, LogFilter(level="info", grep="YES"))
            await trio.sleep(0.05)
            at.say("yes 1")
            at.say("no")
            await at.files.flush()
            await until("yes 1")
            at.say("yes 2", NOON + HOUR)
            at.say("yes 3")
            await at.files.flush()
            await until("yes 1", "yes 2", "yes 3")
            path = log_files(tmp_path)[-1]
            whole = path.read_bytes()
            with path.open("ab") as file:
                file.write(whole[:50])
            await trio.sleep(0.05)
            assert seen == ["yes 1", "yes 2", "yes 3"]
            with path.open("ab") as file:
                file.write(whole[50:])
            await until("yes 1", "yes 2", "yes 3", "yes 2", "yes 3")
            nursery.cancel_scope.cancel()


async def test_what_was_there_can_be_followed_too(tmp_path: Path) -> None:
    reader = await written(tmp_path)
    with trio.fail_after(10):
        tail = reader.follow(LogFilter(since=NOON + 299 * 60), from_now=False)
        assert states(await tail.more()) == ["number 299", "faulted", "cooling"]


async def test_what_a_fact_may_not_say_is_not_in_its_line(tmp_path: Path) -> None:
    at = Desk(tmp_path)
    at.files.take(
        AttemptFailed(turn="1", account="a***", error="E", reason="", blame="us", action="stop", message="line\nbreak")
    )
    at.files.take(ServiceChanged(service="s", state="\x1b[31m\u2028"))
    await at.files.flush()
    (path,) = log_files(tmp_path)
    assert len(path.read_bytes().splitlines()) == 2
    assert b"\x1b" not in path.read_bytes()
    assert [line.known.get("message", "") for line in LogReader(tmp_path).read()] == ["line\nbreak", ""]
