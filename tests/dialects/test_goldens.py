"""The goldens: what every canonical turn looks like on the wire, byte for byte."""

from __future__ import annotations

import pytest

from vectors.regenerate import CLIENT_DIALECTS, HERE, goldens

GOLDENS = dict(goldens())


@pytest.mark.parametrize("path", GOLDENS)
def test_golden(path: str) -> None:
    assert GOLDENS[path] == (HERE / "wire" / path).read_bytes()


def test_there_are_no_others() -> None:
    found = {str(path.relative_to(HERE / "wire")) for path in (HERE / "wire").rglob("*") if path.is_file()}
    assert {path for path in found if path.split("/")[0] in CLIENT_DIALECTS} == set(GOLDENS)
