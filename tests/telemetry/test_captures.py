"""Debug captures: what is kept, how much of it, and what becomes of it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from kirostream._version import __version__
from kirostream.errors import QuotaSpent, StoreError
from kirostream.net.exchange import HttpRequest
from kirostream.telemetry import captures as module
from kirostream.telemetry.capture_files import CaptureReader
from kirostream.telemetry.captures import Capture, Captures, CaptureSettings, open_captures
from kirostream.telemetry.facts import Fact, SinkRecovered, SinkTroubled

AT = 1_000_000_000.0
JSON = ((b"content-type", b"application/json"),)


def ring(tmp_path: Path, facts: list[Fact] | None = None, **settings: Any) -> Captures:
    chosen = CaptureSettings(**{"mode": "all", **settings})
    return Captures(tmp_path / "captures", chosen, lambda: AT, (facts if facts is not None else []).append)


def begun(captures: Captures, request: str = "req_0123456789") -> Capture:
    capture = captures.begin(request)
    assert capture is not None
    return capture


def kept(captures: Captures) -> list[dict[str, Any]]:
    reader = CaptureReader(captures.folder)
    return [json.loads(reader.get(each.id) or b"") for each in reader.entries()]


async def test_an_exchange_is_kept_whole(tmp_path: Path) -> None:
    captures = ring(tmp_path)
    capture = begun(captures)
    capture.head = HttpRequest("POST", "/v1/messages", "key=of-mine", ((b"x-api-key", b"of-mine"), *JSON))
    capture.asked.kind = b"application/json"
    capture.asked.add(b'{"said": "of-mine"}')
    tried = capture.trying("a***", "POST", "https://up/ask?x=1", JSON, b'{"profileArn": "an arn"}')
    tried.answered(429, JSON)
    tried.answer.add(b'{"message": ')
    tried.answer.add(b'"no, an arn"}')
    capture.try_failed(QuotaSpent("spent"))
    capture.answered(200, JSON)
    capture.answer.add(b"[1]")
    capture.turn_over({"turn": "0f3a9c", "outcome": "end"})
    assert captures.snapshot().queued == 1
    capture.release()
    await captures.flush()
    (path,) = captures.folder.iterdir()
    assert path.name == "20010909-014640-000-0f3a9c-exchange.capture.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (found,) = kept(captures)
    assert (found["kind"], found["request_id"], found["turns"]) == ("exchange", "req_0123456789", ["0f3a9c"])
    assert found["asked"]["body"] == {"said": "****"}
    assert found["asked"]["query"] == ["key"]
    (one,) = found["tries"]
    assert one["sent"]["body"] == {"profileArn": "****"}
    assert one["came"]["body"] == {"message": "no, ****"}
    assert (one["came"]["status"], one["account"], one["error"]) == (
        429,
        "a***",
        "kirostream.errors.QuotaSpent: spent",
    )
    assert [size for _, size in one["came"]["times"]] == [12, 13]
    assert found["answer"]["body"] == [1]
    assert (captures.held, captures.snapshot().queued, captures.snapshot().written) == (0, 0, 1)


async def test_of_errors_only_what_failed_is_kept(tmp_path: Path) -> None:
    captures = ring(tmp_path, mode="errors")
    for status in (200, 404, 500):
        capture = begun(captures, f"req_{status}")
        capture.answered(status, ())
        capture.release()
    broken = begun(captures, "req_broken")
    broken.answered(200, ())
    broken.fail(ValueError("what was said"))
    broken.release()
    await captures.flush()
    assert [each.request_id for each in CaptureReader(captures.folder).entries()] == [
        "req_broken",
        "req_500",
        "req_404",
    ]
    assert kept(captures)[0]["error"] == "ValueError"
    assert captures.held == 0


async def test_who_holds_it_last_has_it_written(tmp_path: Path) -> None:
    captures = ring(tmp_path)
    capture = begun(captures)
    assert captures.join("req_0123456789") is capture
    capture.release()
    await captures.flush()
    assert not captures.folder.exists()
    capture.release()
    await captures.flush()
    assert len(kept(captures)) == 1
    other = captures.join("req_0123456789")
    assert other is not None
    assert other is not capture, "what comes later is another one"


async def test_nothing_is_captured_while_it_is_off(tmp_path: Path) -> None:
    for settings in ({"mode": "off"}, {"keep": 0}):
        captures = ring(tmp_path, **settings)
        assert (captures.on, captures.begin("req_1"), captures.join("req_1")) == (False, None, None)
    captures.adopt(CaptureSettings(mode="all"))
    capture = begun(captures)
    captures.adopt(CaptureSettings())
    capture.fail(QuotaSpent("spent"))
    capture.release()
    await captures.flush()
    assert not captures.folder.exists(), "it was switched off meanwhile"
    assert captures.held == 0


async def test_a_part_has_a_size(tmp_path: Path) -> None:
    captures = ring(tmp_path, part=10)
    capture = begun(captures)
    for data in (b"one ", b"two ", b"three ", b"four "):
        capture.answer.add(data)
    capture.asked.add(b"five")
    assert captures.held == 14
    capture.release()
    await captures.flush()
    answer = kept(captures)[0]["answer"]
    assert (answer["body"], answer["bytes"], answer["kept"]) == ("one two ", 19, 10)


async def test_all_that_are_under_way_have_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HELD", 10)
    monkeypatch.setattr(module, "MOST_OPEN", 3)
    captures = ring(tmp_path)
    first, second, third = (begun(captures, f"req_{n}") for n in range(3))
    first.asked.add(b"12345678")
    second.asked.add(b"12345678")
    third.asked.add(b"12345678")
    assert [each.asked.data for each in (first, second, third)] == [b"12345678", b"12", b""]
    assert captures.begin("req_4") is None
    assert captures.snapshot().dropped == 1
    for each in (first, second, third):
        each.release()
    await captures.flush()
    assert captures.held == 0
    assert begun(captures, "req_5").room(8, 0) == 8


async def test_the_newest_stay_and_the_old_go(tmp_path: Path) -> None:
    captures = ring(tmp_path, keep=3, retention_hours=1.0)
    for number in range(5):
        begun(captures, f"req_{number}").release()
    await captures.flush()
    assert len(list(captures.folder.iterdir())) == 3
    for path in captures.folder.iterdir():
        os.utime(path, (AT - 3601, AT - 3601))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(captures.run)
        begun(captures, "req_new").release()
        while len(list(captures.folder.iterdir())) != 1:
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert CaptureReader(captures.folder).entries()[0].request_id == "req_new"


async def test_a_disk_that_takes_nothing_is_told_once_and_a_bug_costs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts: list[Fact] = []
    captures = ring(tmp_path, facts)
    (tmp_path / "captures").write_text("in the way")
    for number in range(2):
        begun(captures, f"req_{number}").release()
    await captures.flush()
    (told,) = facts
    assert isinstance(told, SinkTroubled)
    assert (captures.snapshot().dropped, captures.snapshot().trouble) == (2, told.message)
    (tmp_path / "captures").unlink()
    begun(captures).release()
    await captures.flush()
    assert facts[1:] == [SinkRecovered(sink="captures", lost=2)]
    assert captures.snapshot().trouble == ""

    def fails(capture: Capture) -> None:
        raise KeyError(capture.request)

    monkeypatch.setattr(captures, "_write", fails)
    begun(captures, "req_bug").release()
    await captures.flush()
    assert type(facts[-1]).__name__ == "Faulted"
    assert captures.held == 0


async def test_what_is_under_way_at_the_end_is_written(tmp_path: Path) -> None:
    async with open_captures(tmp_path / "captures", CaptureSettings(mode="all"), print, lambda: AT) as captures:
        begun(captures).release()
    assert len(kept(captures)) == 1


async def test_reading(tmp_path: Path) -> None:
    captures = ring(tmp_path)
    reader = CaptureReader(captures.folder)
    assert (reader.entries(), reader.get("none"), reader.clear()) == ([], None, 0)
    assert json.loads(b"".join(reader.export())) == {"kirostream": __version__, "captures": []}
    captures.keep("form", "req_1", ["turn"], {"status": 400, "reason": "R", "request": {"a": "<text>"}})
    begun(captures).release()
    await captures.flush()
    (captures.folder / "0.capture.json").write_text("{")
    (captures.folder / "notes.txt").write_text("mine")
    assert [(each.kind, each.request_id, each.reason) for each in reader.entries()] == [
        ("form", "req_1", "R"),
        ("exchange", "req_0123456789", ""),
        ("form", "", ""),
    ]
    whole = json.loads(b"".join(reader.export()))["captures"]
    assert [each["capture"]["kind"] for each in whole] == ["form", "exchange"]
    (form,) = json.loads(b"".join(reader.export(("form",))))["captures"]
    assert form["capture"]["request"] == {"a": "<text>"}
    assert await captures.clear() == 3
    assert [path.name for path in captures.folder.iterdir()] == ["notes.txt"]


async def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    captures = ring(tmp_path)
    begun(captures).release()
    await captures.flush()
    (path,) = captures.folder.iterdir()
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError):
        CaptureReader(captures.folder).entries()


@pytest.mark.parametrize("wrong", [{"mode": "some"}, {"keep": -1}, {"size": 0}, {"part": 0}, {"retention_hours": 0}])
def test_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CaptureSettings(**wrong)
