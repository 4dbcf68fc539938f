"""Requests of real clients: every one is read, and comes back equal from its own dialect.

Declared losses: `count_tokens` bodies have no ``max_tokens``, which a Messages request must have, so it is put in.
"""

from __future__ import annotations

import dataclasses

import pytest

from helpers.captures import ABSENT, FOLDER, captures
from kirostream.dialects.dialect import Stamp
from kirostream.turn.model import Model


def test_every_captured_request_is_read_and_comes_back() -> None:
    if not FOLDER.is_dir():
        pytest.skip(ABSENT)
    requests = captures()
    assert len(requests) >= 80
    for capture in requests:
        name, dialect, body = capture.name, capture.dialect, capture.body
        request = capture.read()
        written = dialect.write_request(request, Stamp(Model(request.model)))
        again = dialect.read_request(written, capture.headers)
        if capture.counts:
            again = dataclasses.replace(again, sampling=request.sampling)
        assert again == request, name
        assert len(request.messages) + len(request.system) > 0, name
        offered = [tool for tool in body.get("tools", ()) if "input_schema" in tool or "function" in tool]
        assert len(request.tools) >= len(offered) - 1, name  # a placeholder for deferred tools is not offered
        if name.startswith(("claude_code", "codex", "opencode")):
            assert request.session, name
