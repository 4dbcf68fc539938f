"""The keys that clients send, beside the gateway's own: given out, limited, rotated and taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from kirostream.admin.route import Call, Route, there

Scope: TypeAlias = Literal["api", "watch", "admin"]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**31)]
Credits: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]
Moment: TypeAlias = Annotated[float, Meta(ge=0, le=4_102_444_800, description="Unix seconds; 0: never.")]
KeyName: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


class KeyLimits(msgspec.Struct, forbid_unknown_fields=True):
    """What a key may use; 0: no limit. Requests and tokens are those of a minute, days and months are of UTC."""

    concurrency: Count = 0
    requests: Count = 0
    tokens: Count = 0
    credits_per_day: Credits = 0.0
    credits_per_month: Credits = 0.0


class ClientKey(msgspec.Struct):
    """One key, and what it uses now. Times are unix seconds, 0: none.

    `hint` is enough of its secret to tell it by; the secret before the last rotation is good until `older_until`.
    """

    id: str
    name: str
    hint: str
    scopes: list[Scope]
    limits: KeyLimits
    enabled: bool
    expires_at: float
    created_at: float
    older_until: float
    in_flight: int
    credits_today: float
    credits_this_month: float


class ClientKeys(msgspec.Struct):
    """Every key but the gateway's own."""

    keys: list[ClientKey]


class GivenKey(msgspec.Struct):
    """A key and its secret, which is shown now and never again."""

    key: ClientKey
    secret: str


class GiveKey(msgspec.Struct, forbid_unknown_fields=True):
    """A new key. The gateway makes its secret."""

    name: KeyName
    scopes: Annotated[list[Scope], Meta(min_length=1)] = msgspec.field(default_factory=lambda: ["api"])
    limits: KeyLimits = msgspec.field(default_factory=KeyLimits)
    expires_at: Moment = 0.0


class ChangeKey(msgspec.Struct, forbid_unknown_fields=True):
    """What shall be otherwise; what is not there stays as it is."""

    scopes: Annotated[list[Scope], Meta(min_length=1)] | UnsetType = UNSET
    limits: KeyLimits | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    expires_at: Moment | UnsetType = UNSET


class RotateKey(msgspec.Struct, forbid_unknown_fields=True):
    """How long the secret of now is good beside the new one, in seconds."""

    keep: Annotated[float, Meta(ge=0, le=31_536_000)] = 0.0


class KeyRing(Protocol):
    """The keys. What changes them raises SettingsError for what cannot be, and acts at once."""

    def uses(self) -> Sequence[ClientKey]:
        """Every key, and what it uses now."""

    async def add(self, said: GiveKey) -> tuple[str, str]:
        """Give one out; its id and its secret."""

    async def change(self, name: str, said: ChangeKey) -> None:
        """Have it do or use something else."""

    async def rotate(self, name: str, keep: float) -> str:
        """Give it another secret."""

    async def remove(self, name: str) -> None:
        """Take it back."""


class KeysPage:
    """``/keys``."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def routes(self) -> list[Route]:
        """Its routes."""
        tag, one = "keys", "/keys/{name}"
        return [
            Route(method="GET", path="/keys", endpoint=self.list, summary="Client keys.", tag=tag, gives=ClientKeys),
            Route(
                method="POST",
                path="/keys",
                endpoint=self.add,
                summary="Give out a key. Its secret is in this answer, and nowhere else.",
                tag=tag,
                takes=GiveKey,
                gives=GivenKey,
                status=201,
            ),
            Route(method="GET", path=one, endpoint=self.show, summary="One.", tag=tag, gives=ClientKey, refuses=(404,)),
            Route(
                method="PATCH",
                path=one,
                endpoint=self.change,
                summary="Change what a key may do and use, or switch it off.",
                tag=tag,
                takes=ChangeKey,
                gives=ClientKey,
                refuses=(404,),
            ),
            Route(
                method="POST",
                path=f"{one}/rotate",
                endpoint=self.rotate,
                summary="Give a key another secret, which is in this answer, and nowhere else.",
                tag=tag,
                takes=RotateKey,
                gives=GivenKey,
                refuses=(404,),
            ),
            Route(
                method="DELETE",
                path=one,
                endpoint=self.remove,
                summary="Take a key back.",
                tag=tag,
                status=204,
                refuses=(404,),
            ),
        ]

    async def list(self, call: Call) -> ClientKeys:
        """``GET /keys``."""
        return ClientKeys([*self._keys.uses()])

    async def show(self, call: Call) -> ClientKey:
        """``GET /keys/{name}``."""
        return self._one(call.path["name"])

    async def add(self, call: Call) -> GivenKey:
        """``POST /keys``."""
        name, secret = await self._keys.add(call.body)
        return GivenKey(self._one(name), secret)

    async def change(self, call: Call) -> ClientKey:
        """``PATCH /keys/{name}``."""
        name = self._one(call.path["name"]).id
        await self._keys.change(name, call.body)
        return self._one(name)

    async def rotate(self, call: Call) -> GivenKey:
        """``POST /keys/{name}/rotate``."""
        name = self._one(call.path["name"]).id
        secret = await self._keys.rotate(name, call.body.keep)
        return GivenKey(self._one(name), secret)

    async def remove(self, call: Call) -> None:
        """``DELETE /keys/{name}``."""
        await self._keys.remove(self._one(call.path["name"]).id)

    def _one(self, name: str) -> ClientKey:
        return there(next((key for key in self._keys.uses() if name in (key.id, key.name)), None), f"key {name!r}")
