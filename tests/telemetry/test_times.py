"""Moments as people write them."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from kirostream.errors import SettingsError
from kirostream.telemetry.times import moment

NOW = datetime(2026, 11, 21, 20, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("said", "ago"),
    [("90s", 90), ("15m", 900), ("1.5h", 5400), ("24 h", 86_400), ("7D", 604_800), ("4w", 2_419_200), ("0s", 0)],
)
def test_how_long_ago(said: str, ago: float) -> None:
    assert moment(said, NOW) == NOW - ago


@pytest.mark.parametrize(
    ("said", "zone", "is_"),
    [
        ("2026-11-21", "UTC", "2026-11-21T00:00:00+00:00"),
        ("2026-11-21", "Asia/Shanghai", "2026-11-20T16:00:00+00:00"),
        ("2026-11-21T09:30", "Asia/Shanghai", "2026-11-21T01:30:00+00:00"),
        ("2026-11-21T09:30:15Z", "Asia/Shanghai", "2026-11-21T09:30:15+00:00"),
        ("2026-11-21 09:30+02:00", "UTC", "2026-11-21T07:30:00+00:00"),
        ("today", "UTC", "2026-11-21T00:00:00+00:00"),
        ("today", "Asia/Shanghai", "2026-11-21T16:00:00+00:00"),
        ("1795000000", "UTC", "2026-11-18T11:06:40+00:00"),
    ],
)
def test_a_date_or_a_time(said: str, zone: str, is_: str) -> None:
    assert datetime.fromtimestamp(moment(said, NOW, ZoneInfo(zone)), UTC).isoformat() == is_


@pytest.mark.parametrize("said", ["", "yesterday", "7", "-7d", "7 days", "2026-13-01", "1e9", "9999999d", "\u0667d"])
def test_what_is_no_time(said: str) -> None:
    with pytest.raises(SettingsError, match="no time"):
        moment(said, NOW)
