"""The settings of `login`, apart from it: a gateway that runs signs nobody in."""

from __future__ import annotations

from dataclasses import field

from kirostream.dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSettings:
    """How people are signed in."""

    client_name: str = field(
        default="kirostream", metadata={"help": "The name a person sees on the page that asks for consent."}
    )
    callback_port: int = field(
        default=0, metadata={"help": "Port that the browser comes back to; 0 lets the system choose."}
    )
    callback_deadline: float = field(
        default=600.0, metadata={"help": "How long a sign-in in the browser may take.", "unit": "seconds"}
    )
    request_deadline: float = field(
        default=30.0, metadata={"help": "How long the service may take to answer.", "unit": "seconds"}
    )
