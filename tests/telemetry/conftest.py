"""What tests of telemetry leave open is closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.logfiles import Desk


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while Desk.made:
        Desk.made.pop().files.close()
