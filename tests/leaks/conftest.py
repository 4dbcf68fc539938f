"""What every test of leaks needs."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _what_lives_already_is_not_looked_at() -> Iterator[None]:
    """In a whole run other tests leave a million objects alive; to show each of them at each call takes minutes."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
