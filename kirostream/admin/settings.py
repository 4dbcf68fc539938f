"""What can be set of the admin API and the panel. Read at every start, so it imports nothing of the room."""

from __future__ import annotations

from dataclasses import field

from kirostream.dataclass import dataclass
from kirostream.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """The admin API and the panel."""

    enabled: bool = field(default=True, metadata={"help": "Serve the panel and its API below /admin."})
    password: str = field(
        default="",
        repr=False,
        metadata={
            "help": "Password of the panel. Empty: the one of `kirostream admin password`, else the gateway's key.",
            "secret": True,
        },
    )
    session: float = field(default=43_200.0, metadata={"help": "How long somebody stays logged in.", "unit": "s"})
    sessions: int = field(default=32, metadata={"help": "Most that are logged in at once; the oldest is logged out."})
    tries: int = field(default=5, metadata={"help": "Wrong passwords from one address within `window`; then it waits."})
    window: float = field(default=300.0, metadata={"help": "How long a wrong password is remembered.", "unit": "s"})

    def __post_init__(self) -> None:
        for name in ("session", "window"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"admin.{name} is {getattr(self, name):g}; it takes seconds above 0")
        for name in ("sessions", "tries"):
            if getattr(self, name) < 1:
                raise SettingsError(f"admin.{name} is {getattr(self, name)}; it takes 1 or more")
