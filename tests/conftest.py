"""Options of the whole suite."""

from __future__ import annotations

import pytest

from kirostream.net import hub


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-hub", action="store_true", help="every stream waits in a task of its own (net.hub)")


@pytest.fixture(autouse=True)
def _way_of_waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forces the plain way, in this process and in gateways that tests start, if the option says so."""
    if request.config.getoption("--without-hub"):
        monkeypatch.setattr(hub, "_make", lambda: None)
        monkeypatch.setenv("KIROSTREAM_UPSTREAM_HUB", "false")
