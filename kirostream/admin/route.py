"""One table of what the admin API serves: the router, the document and the tests all read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from kirostream.admin.errors import NotThere
from kirostream.admin.guard import Who
from kirostream.dataclass import dataclass
from kirostream.net.exchange import Exchange

API: Final = "/admin/api"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a route, read and checked.

    `body` and `query` are of the types the route takes, None where it takes none.
    """

    exchange: Exchange
    who: Who | None
    path: Mapping[str, str]
    body: Any = field(default=None, repr=False)
    query: Any = field(default=None, repr=False)


Endpoint: TypeAlias = Callable[[Call], Awaitable[object]]
"""Gives what the route `gives`; or answers by itself and gives `ANSWERED`."""

ANSWERED: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation.

    `path` is below `API` where it does not begin with a double slash, which stands for the root. `gives` is the type of
    the JSON answer, None for 204; `media` says what comes instead where it is no JSON. `refuses` are the statuses that
    this route may answer with beside those that every route may.
    """

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    tag: str
    takes: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    gives: Any = None
    status: int = 200
    media: tuple[str, ...] = ()
    refuses: tuple[int, ...] = ()
    public: bool = False
    """Whether nobody need be logged in: logging in itself."""
    limit: int = 1 << 20
    """Bytes of the largest body."""

    @property
    def whole_path(self) -> str:
        """The pattern, from the root on."""
        return self.path[1:] if self.path.startswith("//") else API + self.path


def there(value: T | None, what: str) -> T:
    """`value`, which is there.

    Raises:
        NotThere: it is None.
    """
    if value is None:
        raise NotThere(f"There is no {what}.")
    return value
