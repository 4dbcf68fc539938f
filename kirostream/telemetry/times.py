"""Moments as people write them."""

from __future__ import annotations

import re
from datetime import datetime, tzinfo
from typing import Final

from kirostream.errors import SettingsError

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO: Final = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*([smhdw])", re.ASCII)
_UNIX: Final = re.compile(r"\d{9,11}(?:\.\d{1,9})?", re.ASCII)


def moment(text: str, now: float, zone: tzinfo | None = None) -> float:
    """When that is, in unix seconds.

    Args:
        text: how long ago (``90s``, ``15m``, ``24h``, ``7d``, ``4w``), ``today``, a date or a time of ISO 8601
            (``2026-11-21``, ``2026-11-21T09:30``), or unix seconds.
        now: unix seconds.
        zone: of what names none; None: the system's.

    Raises:
        SettingsError: it is none of these.
    """
    said = text.strip().lower()
    if ago := _AGO.fullmatch(said):
        return now - float(ago[1]) * _UNITS[ago[2]]
    if _UNIX.fullmatch(said):
        return float(said)
    try:
        if said == "today":
            at = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        else:
            at = datetime.fromisoformat(text.strip())
            at = at if at.tzinfo is not None else at.replace(tzinfo=zone)
        return at.timestamp()
    except (ValueError, OverflowError, OSError):
        raise SettingsError(
            f"{text[:40]!r} is no time. Write how long ago it is (15m, 24h, 7d), a date (2026-11-21), "
            "or a date with a time (2026-11-21T09:30)."
        ) from None
