"""Log files: what is in them, when the next begins, what is deleted, and a disk that is full or read-only."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from helpers.logfiles import HOUR, NOON, Desk, said, whole_lines
from kirostream.telemetry import logfiles
from kirostream.telemetry.facts import ExchangeFinished, SinkRecovered, SinkTroubled
from kirostream.telemetry.log import LogSettings
from kirostream.telemetry.logfiles import LogFile, began, log_files, open_log_files, open_private
from kirostream.telemetry.recorder import Recorder


async def test_a_fact_is_a_line(tmp_path: Path) -> None:
    at = Desk(tmp_path / "logs")
    at.say("listening")
    at.files.take(ExchangeFinished(method="GET", path="/", status=200, sent=1, seconds=0, peer="", ending="whole"))
    await at.files.flush()
    (path,) = log_files(at.folder)
    assert path.name == f"20261121T120000Z-{os.getpid()}.jsonl"
    assert path.read_text() == (
        '{"timestamp":"2026-11-21T12:00:00.000000Z","level":"info","event":"service changed",'
        '"service":"gateway","state":"listening"}\n'
    )  # what is under the level is not written
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(at.folder.stat().st_mode) == 0o700
    snapshot = at.files.snapshot()
    assert (snapshot.queued, snapshot.written, snapshot.bytes) == (0, 1, path.stat().st_size)


async def test_a_file_holds_an_hour(tmp_path: Path) -> None:
    at = Desk(tmp_path)
    for minutes in (0, 59, 59.9, 60, 61, 119.9, 300):
        at.say(str(minutes), NOON + minutes * 60)
    await at.files.flush()
    held = [[line["state"] for line in whole_lines(path)] for path in log_files(tmp_path)]
    assert held == [["0", "59", "59.9"], ["60", "61", "119.9"], ["300"]]


async def test_a_file_that_is_large_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfiles, "LARGEST", 200)
    at = Desk(tmp_path)
    for number in range(6):
        at.say(str(number), NOON + number)
        await at.files.flush()
    assert [len(list(whole_lines(path))) for path in log_files(tmp_path)] == [2, 2, 2]


async def test_what_is_too_old_is_deleted(tmp_path: Path) -> None:
    at = Desk(tmp_path, {"retention_hours": 24.0})
    for hours in range(30):
        at.say(str(hours), NOON + hours * HOUR)
    await at.files.flush()
    (tmp_path / "notes.jsonl").write_text("not ours")
    at.now = NOON + 30 * HOUR
    at.files.prune()
    assert at.states() == [str(hours) for hours in range(6, 30)]
    at.now = NOON + 30 * HOUR + 1  # the file of hour 6 ends at 7, which is 23 hours ago
    at.files.prune()
    assert at.states()[0] == "6"
    at.now = NOON + 31 * HOUR
    at.files.prune()
    assert at.states()[0] == "7"
    at.now = NOON + 1000 * HOUR
    at.files.prune()
    assert at.states() == []
    assert (tmp_path / "notes.jsonl").exists()


async def test_what_is_too_much_is_deleted_oldest_first(tmp_path: Path) -> None:
    at = Desk(tmp_path, {"size": 500})
    for hours in range(6):
        at.say(f"{hours} {'x' * 60}", NOON + hours * HOUR)
    await at.files.flush()
    at.files.prune()
    assert [state[0] for state in at.states()] == ["4", "5"] or [state[0] for state in at.states()] == ["3", "4", "5"]
    assert sum(path.stat().st_size for path in log_files(tmp_path)) <= 500


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("20261121T120000Z-7.jsonl", 1795262400.0),
        ("19700101T000001Z.jsonl", 1.0),
        ("20261321T120000Z-7.jsonl", None),  # there is no thirteenth month
        ("20261121T120000+.jsonl", None),
        ("20261121T12:00:Z.jsonl", None),
        ("2026-11-21T12:00.jsonl", None),
        ("20261121T12000Z-7.jsonl", None),
        ("notes.jsonl", None),
        ("T", None),
    ],
)
def test_a_name_says_when_a_file_began(name: str, at: float | None) -> None:
    assert began(Path(name)) == at


async def test_lines_are_written_soon_and_pruned_in_silence(tmp_path: Path, autojump_clock: MockClock) -> None:
    at = Desk(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(at.files.run)
        await trio.testing.wait_all_tasks_blocked()
        at.say("one")
        await trio.sleep(0.4)
        assert at.states() == []
        while not at.states():
            await trio.sleep(0.05)
        at.now += 1000 * HOUR
        while at.states():
            await trio.sleep(60)
        nursery.cancel_scope.cancel()


async def test_what_is_said_last_is_written_too(tmp_path: Path) -> None:
    recorder = Recorder()
    async with open_log_files(tmp_path, LogSettings(), recorder.record) as files:
        assert files is not None
        with recorder.adding(files.take):
            recorder.record(said("draining"))
    assert [line["state"] for path in log_files(tmp_path) for line in whole_lines(path)] == ["draining"]
    async with open_log_files(tmp_path, LogSettings(files=False), recorder.record) as files:
        assert files is None


class Full:
    """A file on a disk with `room` for so many bytes."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._file = open_private(path)

    def write(self, data: bytes, /) -> int:
        fits = data[: max(self._disk.room, 0)]
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._disk.room -= len(fits)
        self._file.write(fits)
        return len(fits)

    def close(self) -> None:
        self._file.close()


@dataclass
class Disk:
    room: int
    opened: int = 0

    def open(self, path: Path) -> LogFile:
        self.opened += 1
        return Full(self, path)


@pytest.mark.parametrize("room", [0, 1, 130, 131, 132, 200, 300])
async def test_a_full_disk_cuts_a_line_and_loses_none(room: int, tmp_path: Path) -> None:
    disk = Disk(room)
    at = Desk(tmp_path, open_file=disk.open)
    for number in range(5):
        at.say(str(number))
    await at.files.flush()
    assert [type(fact) for fact in at.told] == [SinkTroubled]
    assert "the disk is full" in str(at.told)
    await at.files.flush()
    assert len(at.told) == 1  # once is enough
    before = at.files.snapshot()
    assert before.trouble
    assert before.queued == 5 - before.written
    disk.room = 1 << 20
    at.say("5")
    await at.files.flush()
    assert at.states() == ["0", "1", "2", "3", "4", "5"]
    assert at.told[1:] == [SinkRecovered(sink="log files", lost=0)]
    assert at.files.snapshot().trouble == ""


async def test_lines_that_find_the_queue_full_are_counted(tmp_path: Path, autojump_clock: MockClock) -> None:
    disk = Disk(0)
    at = Desk(tmp_path, {"queue": 3}, disk.open)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(at.files.run)
        for number in range(10):
            at.say(str(number))
        while not at.told:
            await trio.sleep(0.1)
        tries, began = disk.opened, trio.current_time()
        while disk.opened < tries + 3:
            await trio.sleep(0.1)
        assert trio.current_time() - began > 2 * logfiles.RETRY
        disk.room = 1 << 20
        while at.files.snapshot().queued:
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert at.states() == ["0", "1", "2"]
    assert at.told[1:] == [SinkRecovered(sink="log files", lost=7)]


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder in which nobody can make a file, not even root. Where that cannot be had, the test is skipped."""
    if sys.platform == "win32":
        pytest.skip("folders of Windows have no such mode")
    if os.geteuid():
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    chattr = shutil.which("chattr")
    done = chattr and subprocess.run([chattr, "+i", str(folder)], capture_output=True, check=False)
    if not done or done.returncode:
        pytest.skip("root can write everywhere here: no chattr, or the file system does not know it")
    try:
        yield
    finally:
        subprocess.run([str(chattr), "-i", str(folder)], check=True)


async def test_a_folder_that_is_read_only_for_a_while(tmp_path: Path) -> None:
    at = Desk(tmp_path / "logs")
    with read_only(tmp_path):
        at.say("one")
        await at.files.flush()
        at.files.prune()
        (fact,) = at.told
        assert isinstance(fact, SinkTroubled)
        assert "permission denied" in fact.message
    await at.files.flush()
    assert at.states() == ["one"]
