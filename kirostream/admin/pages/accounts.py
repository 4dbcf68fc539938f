"""Accounts: what `kirostream accounts` does, on the ones of the running gateway.

An account that kirostream keeps (its list, `accounts.roster`) is switched there, which all gateways of this machine
follow; one that comes from elsewhere (the environment, another program's file) is switched in the pool's own state.
Both hold at once: after a change the list is looked at before the answer goes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from kirostream.accounts.account import NEVER, AccountId
from kirostream.accounts.board import AccountSnapshot
from kirostream.accounts.discovery import Found
from kirostream.accounts.health import State
from kirostream.accounts.keeper import KeptToken
from kirostream.accounts.roster import Entry
from kirostream.admin.desk import Desk
from kirostream.admin.errors import Conflict, NotThere
from kirostream.admin.route import Call, Route, there
from kirostream.errors import KirostreamError, MalformedRequest, StoreError
from kirostream.providers.kiro_management import AccountUsage

StateName = Literal["ready", "cooling", "exhausted", "needs login", "suspended", "disabled"]
Label = Annotated[str, Meta(max_length=200)]


class Allowance(msgspec.Struct):
    """Credits of one kind."""

    name: str
    used: float
    limit: float
    active: bool
    ends_at: float | None


class Quota(msgspec.Struct):
    """What an account has used. Times are unix seconds; `limit` is 0 where the service says nothing of the account."""

    asked_at: float
    plan: str
    kind: str
    used: float
    limit: float
    left: float
    exhausted: bool
    resets_at: float | None
    overage: bool
    overage_used: float
    overage_charges: float
    currency: str
    allowances: list[Allowance]


class Trouble(msgspec.Struct):
    """The last error. `at` is unix seconds, null where that is not known."""

    at: float | None
    message: str


class Account(msgspec.Struct):
    """One account, without its secrets. Times are unix seconds."""

    id: str
    label: str
    state: StateName
    why: str
    until: float | None
    """When a pause ends."""
    enabled: bool
    kept: bool
    """Whether it is on kirostream's own list, so that it can be removed here."""
    source: str
    auth: str
    provider: str
    region: str
    in_flight: int
    requests: int
    failures: int
    outcomes: dict[str, int]
    blocked_models: list[str]
    token_expires_in: float | None
    token_error: str
    refreshing: bool
    last_error: Trouble | None
    quota: Quota | None
    """As it was when it was last asked for."""
    notes: list[str]


class Accounts(msgspec.Struct):
    """Every account: those that are used, then those that are switched off."""

    accounts: list[Account]
    in_flight: int
    waiting: int


class Add(msgspec.Struct, forbid_unknown_fields=True):
    """An account that somebody has elsewhere.

    `ide` and `cli` name a file of this machine by its path; `refresh_token` and `api_key` bring the secret itself.
    """

    kind: Literal["ide", "cli", "refresh_token", "api_key"]
    value: Annotated[str, Meta(min_length=1, max_length=65536)]
    region: Annotated[str, Meta(max_length=40)] = "us-east-1"
    label: Label = ""


class Import(msgspec.Struct, forbid_unknown_fields=True):
    """Another program's file. `format` is empty where the file says so itself."""

    text: Annotated[str, Meta(min_length=1)]
    format: Literal["", "account-manager", "kiro-go", "kiro-gateway", "kiro-rs", "cards", "csv", "env"] = ""


class Named(msgspec.Struct):
    """An account by its names."""

    id: str
    label: str


class Added(msgspec.Struct):
    """What became of an account that was added. `known`: it was there before, and has what is newer now."""

    account: Named
    known: bool


class Imported(msgspec.Struct):
    """What an import came to. `trouble` says why some were left out."""

    format: str
    added: list[Named]
    replaced: list[Named]
    older: list[Named]
    trouble: list[str]


class Tested(msgspec.Struct):
    """Whether an account works: it got a token, and its models, in so many `seconds`. It costs no credits."""

    ok: bool
    seconds: float
    models: list[str]
    error: str


class Refreshed(msgspec.Struct):
    """A fresh token. `expires_in` is null for one without an end."""

    expires_in: float | None


class Plan(msgspec.Struct):
    """A plan that can be had."""

    name: str
    title: str
    amount: float
    currency: str
    interval: str
    features: list[str]


class Plans(msgspec.Struct):
    """Every plan."""

    plans: list[Plan]


class Choose(msgspec.Struct, forbid_unknown_fields=True):
    """A plan, by its name."""

    plan: Annotated[str, Meta(min_length=1, max_length=100)]


class PayPage(msgspec.Struct):
    """A page to pay on. It belongs to the account: it is shown to nobody else. `active`: there is a plan already."""

    url: str
    active: bool


class AccountsPage:
    """``/accounts``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._quotas: dict[AccountId, Quota] = {}

    def routes(self) -> list[Route]:
        """Its routes."""
        tag = "accounts"
        one = "/accounts/{id}"
        switched = [
            ("enable", self.enable, "Use an account again."),
            ("disable", self.disable, "Leave an account out. Turns in flight go on."),
            ("clear", self.clear, "End a pause, or a lock: the account is ready, whatever it was."),
        ]
        return [
            Route(method="GET", path="/accounts", endpoint=self.everyone, summary="All.", tag=tag, gives=Accounts),
            Route(
                method="GET",
                path="//admin/accounts",
                endpoint=self.everyone,
                summary="As /accounts.",
                tag="seeds",
                gives=Accounts,
            ),
            Route(
                method="POST",
                path="/accounts",
                endpoint=self.add,
                summary="Add an account that you have elsewhere.",
                tag=tag,
                takes=Add,
                gives=Added,
                status=201,
            ),
            Route(
                method="POST",
                path="/accounts/import",
                endpoint=self.take_over,
                summary="Take over the accounts of another program's file.",
                tag=tag,
                takes=Import,
                gives=Imported,
                limit=8 << 20,
            ),
            Route(method="GET", path=one, endpoint=self.show, summary="One.", tag=tag, gives=Account, refuses=(404,)),
            Route(
                method="DELETE",
                path=one,
                endpoint=self.remove,
                summary="Forget an account and its tokens. Another program's file is left as it is.",
                tag=tag,
                status=204,
                refuses=(404, 409),
            ),
            *(
                Route(
                    method="POST",
                    path=f"{one}/{verb}",
                    endpoint=endpoint,
                    summary=summary,
                    tag=tag,
                    gives=Account,
                    refuses=(404,),
                )
                for verb, endpoint, summary in switched
            ),
            Route(
                method="POST",
                path=f"{one}/test",
                endpoint=self.test,
                summary="Get a token, and ask the upstream for the models.",
                tag=tag,
                gives=Tested,
                refuses=(404, 409),
            ),
            Route(
                method="POST",
                path=f"{one}/refresh",
                endpoint=self.refresh,
                summary="Get a new access token, and throw the old one away.",
                tag=tag,
                gives=Refreshed,
                refuses=(404, 409, 502, 504),
            ),
            Route(
                method="GET",
                path=f"{one}/quota",
                endpoint=self.quota,
                summary="Credits used and left, asked now.",
                tag=tag,
                gives=Quota,
                refuses=(404, 409, 502, 504),
            ),
            Route(
                method="GET",
                path=f"{one}/plans",
                endpoint=self.plans,
                summary="The plans that can be had.",
                tag=tag,
                gives=Plans,
                refuses=(404, 409, 502, 504),
            ),
            Route(
                method="POST",
                path=f"{one}/checkout",
                endpoint=self.checkout,
                summary="The page to pay for a plan on. Nothing is opened, nothing is bought.",
                tag=tag,
                takes=Choose,
                gives=PayPage,
                refuses=(404, 409, 502, 504),
            ),
        ]

    # -- what there is

    async def everyone(self, call: Call) -> Accounts:
        """``GET /accounts``."""
        pool = self._desk.pool.snapshot()
        return Accounts(await self._all(), pool.in_flight, pool.waiting)

    async def show(self, call: Call) -> Account:
        """``GET /accounts/{id}``."""
        return await self._one(call.path["id"])

    async def _all(self) -> list[Account]:
        desk = self._desk
        entries = {entry.id: entry for entry in await desk.verbs.roster.entries()}
        tokens = {token.account: token for token in desk.keeper.snapshot().tokens}
        pool = desk.pool.snapshot().accounts
        here = {each.id for each in pool}
        known = [self._described(each, entries.get(each.id), tokens.get(each.id)) for each in pool]
        return [*known, *(self._left_out(entry) for entry in entries.values() if entry.id not in here)]

    async def _one(self, name: str) -> Account:
        return there(next((each for each in await self._all() if each.id == name), None), f"account {name!r}")

    def _described(self, state: AccountSnapshot, entry: Entry | None, token: KeptToken | None) -> Account:
        found = self._desk.house.found(state.id)
        account = found.account if found is not None else None
        trouble = self._desk.recent.trouble(state.label)
        return Account(
            id=state.id,
            label=state.label,
            state=state.state.value,  # the names are those of `State`; a test compares them
            why=state.why,
            until=state.until if 0 < state.until < NEVER else None,
            enabled=state.state is not State.DISABLED,
            kept=entry is not None,
            source="kirostream" if entry is not None and entry.kind == "own" else account.source if account else "",
            auth=account.auth.value if account else "",
            provider=account.provider if account else "",
            region=account.region if account else "",
            in_flight=state.in_flight,
            requests=state.leases,
            failures=state.failures,
            outcomes=dict(state.outcomes),
            blocked_models=list(state.blocked),
            token_expires_in=round(token.expires_in, 3) if token is not None and token.expires_in < NEVER else None,
            token_error=token.error if token is not None else "",
            refreshing=token.refreshing if token is not None else False,
            last_error=Trouble(trouble.at, trouble.message) if trouble is not None else None,
            quota=self._quotas.get(state.id),
            notes=list(found.notes) if found is not None else [],
        )

    def _left_out(self, entry: Entry) -> Account:
        """One of the list that is not in the pool: it is switched off, or cannot be read."""
        return Account(
            id=entry.id,
            label=entry.label,
            state="disabled",
            why="" if not entry.enabled else "its credential cannot be read",
            until=None,
            enabled=entry.enabled,
            kept=True,
            source="kirostream" if entry.kind == "own" else entry.place,
            auth="",
            provider="",
            region="",
            in_flight=0,
            requests=0,
            failures=0,
            outcomes={},
            blocked_models=[],
            token_expires_in=None,
            token_error="",
            refreshing=False,
            last_error=None,
            quota=self._quotas.get(entry.id),
            notes=[],
        )

    # -- adding and removing

    async def add(self, call: Call) -> Added:
        """``POST /accounts``."""
        said: Add = call.body
        if said.kind in ("ide", "cli"):
            try:
                kept = await self._desk.verbs.add_place(said.kind, said.value, said.label)
            except StoreError as error:  # the path came with the request
                raise MalformedRequest(error.message, param="$.value") from error
        else:
            kept = await self._desk.verbs.add_secret(
                said.value, api_key=said.kind == "api_key", region=said.region, label=said.label
            )
        await self._desk.house.look_now()
        return Added(_named(kept.entry), kept.replaced)

    async def take_over(self, call: Call) -> Imported:
        """``POST /accounts/import``."""
        done = await self._desk.verbs.import_text(call.body.text, call.body.format)
        if done.trouble and not (done.added or done.replaced or done.older):
            raise MalformedRequest(f"Nothing of it could be used: {'; '.join(done.trouble[:3])}", param="$.text")
        await self._desk.house.look_now()
        return Imported(
            done.format, _all_named(done.added), _all_named(done.replaced), _all_named(done.older), list(done.trouble)
        )

    async def remove(self, call: Call) -> None:
        """``DELETE /accounts/{id}``."""
        account = await self._one(call.path["id"])
        if not account.kept:
            raise Conflict(
                f"{account.label} comes from {account.source}, and is removed there. It can be disabled here."
            )
        await self._desk.verbs.roster.remove(AccountId(account.id))
        self._quotas.pop(AccountId(account.id), None)
        await self._desk.house.look_now()

    async def enable(self, call: Call) -> Account:
        """``POST /accounts/{id}/enable``."""
        account = await self._one(call.path["id"])
        if account.kept:
            await self._desk.verbs.roster.enable(AccountId(account.id), True)
            await self._desk.house.look_now()
        if (await self._one(account.id)).state == "disabled" and self._desk.house.found(AccountId(account.id)):
            await self._desk.pool.clear(AccountId(account.id))
        return await self._one(account.id)

    async def disable(self, call: Call) -> Account:
        """``POST /accounts/{id}/disable``."""
        account = await self._one(call.path["id"])
        if account.kept:
            await self._desk.verbs.roster.enable(AccountId(account.id), False)
            await self._desk.house.look_now()
        if (await self._one(account.id)).enabled and self._desk.house.found(AccountId(account.id)):
            # The list alone does not do it: it comes from elsewhere (too).
            await self._desk.pool.disable(AccountId(account.id), "switched off by the operator")
        return await self._one(account.id)

    async def clear(self, call: Call) -> Account:
        """``POST /accounts/{id}/clear``."""
        account = await self._one(call.path["id"])
        await self._desk.pool.clear(AccountId(account.id))
        return await self._one(account.id)

    # -- asking the upstream

    async def test(self, call: Call) -> Tested:
        """``POST /accounts/{id}/test``."""
        found = await self._in_use(call.path["id"])
        began = self._desk.clock()
        try:
            models, error = await self._desk.verbs.models(found), ""
        except KirostreamError as failed:
            models, error = [], failed.message
        return Tested(not error, round(max(self._desk.clock() - began, 0.0), 6), models, error)

    async def refresh(self, call: Call) -> Refreshed:
        """``POST /accounts/{id}/refresh``."""
        token = await self._desk.verbs.refresh(await self._in_use(call.path["id"]))
        left = token.expires_at - self._desk.clock()
        return Refreshed(round(left, 3) if left < NEVER else None)

    async def quota(self, call: Call) -> Quota:
        """``GET /accounts/{id}/quota``."""
        found = await self._in_use(call.path["id"])
        quota = _quota(await self._desk.verbs.usage(found), self._desk.clock())
        self._quotas[found.account.id] = quota
        if quota.resets_at is not None:
            await self._desk.pool.note_reset(found.account.id, quota.resets_at)
        return quota

    async def plans(self, call: Call) -> Plans:
        """``GET /accounts/{id}/plans``."""
        plans = await self._desk.verbs.plans(await self._in_use(call.path["id"]))
        return Plans(
            [Plan(each.name, each.title, each.amount, each.currency, each.interval, [*each.features]) for each in plans]
        )

    async def checkout(self, call: Call) -> PayPage:
        """``POST /accounts/{id}/checkout``."""
        found = await self._in_use(call.path["id"])
        wanted = call.body.plan.upper()
        plans = await self._desk.verbs.plans(found)
        kind = next((each.kind for each in plans if wanted in (each.name.upper(), each.kind.upper())), None)
        if kind is None:
            raise NotThere(f"There is no plan {call.body.plan!r}; there are {', '.join(each.name for each in plans)}.")
        page = await self._desk.verbs.checkout(found, kind)
        return PayPage(page.url, page.active)

    async def _in_use(self, name: str) -> Found:
        found = self._desk.house.found(AccountId(name))
        if found is None:
            account = await self._one(name)
            raise Conflict(f"{account.label} is not in use. Enable it first.")
        return found


def _named(entry: Entry) -> Named:
    return Named(entry.id, entry.label)


def _all_named(entries: Iterable[Entry]) -> list[Named]:
    return [_named(entry) for entry in entries]


def _quota(usage: AccountUsage, now: float) -> Quota:
    return Quota(
        asked_at=now,
        plan=usage.plan,
        kind=usage.kind,
        used=round(usage.used, 6),
        limit=round(usage.limit, 6),
        left=round(usage.left, 6),
        exhausted=usage.exhausted,
        resets_at=usage.resets_at,
        overage=usage.overage,
        overage_used=usage.overage_used,
        overage_charges=usage.overage_charges,
        currency=usage.currency,
        allowances=[
            Allowance(each.name, each.used, each.limit, each.active, each.ends_at) for each in usage.allowances
        ],
    )
