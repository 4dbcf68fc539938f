"""The composition root of everything that is done with accounts outside a running gateway: signing in, importing,
exporting, asking what is left.

It shares the data folder, and with it the locks, with a gateway that may be running: one of them at a time refreshes a
token, and what one writes the other reads.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from kirostream._version import __version__
from kirostream.accounts.account import (
    NEVER,
    Account,
    AccountId,
    AuthMethod,
    Credential,
    Secret,
    Token,
    account_id,
    account_label,
)
from kirostream.accounts.board import AccountSnapshot
from kirostream.accounts.devices import Devices, random_machine_id
from kirostream.accounts.discovery import Discovery, Found, discover, from_environment
from kirostream.accounts.formats import detect
from kirostream.accounts.formats.portable import Portable
from kirostream.accounts.keeper import TokenKeeper, no_post
from kirostream.accounts.login import Login, Screen
from kirostream.accounts.pool import Pool
from kirostream.accounts.profiles import needs_profile, profile_arn
from kirostream.accounts.roster import Entry, Kept, Roster, pick
from kirostream.accounts.sources.cli_sqlite import CliDatabase
from kirostream.accounts.sources.fields import expand
from kirostream.accounts.sources.ide_json import IdeFile
from kirostream.accounts.sources.source import CredentialSource, check_refresh_token
from kirostream.accounts.store_sqlite import SqlitePoolStore
from kirostream.accounts.terms import terms_of
from kirostream.commands.peer_files import Change, change_of, form_of, named_format, text_of, write_as
from kirostream.dataclass import dataclass
from kirostream.errors import (
    KirostreamError,
    ProtocolError,
    SettingsError,
    StoreError,
    UpstreamError,
)
from kirostream.finding import as_set
from kirostream.providers.kiro import KiroProvider
from kirostream.providers.kiro_management import AccountUsage, Checkout, Plan
from kirostream.relay.clients import Clients
from kirostream.relay.management import Management, with_token
from kirostream.settings import DATABASE, Settings
from kirostream.stores.files import atomic_write
from kirostream.stores.sealed import SealedStore
from kirostream.stores.sqlite import open_database


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Who has signed in. `notes` are what could not be found out, for a person."""

    kept: Kept
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import came to."""

    format: str
    added: tuple[Entry, ...]
    replaced: tuple[Entry, ...]
    older: tuple[Entry, ...]
    trouble: tuple[str, ...]


class AccountAdmin:
    """What the account commands work with. Make one with `open_account_admin`, or over the parts of a running gateway.

    Args:
        keeps: whether the keeper is a gateway's, and has the accounts already.
        now: unix seconds.
    """

    def __init__(
        self,
        settings: Settings,
        env: Mapping[str, str],
        data_dir: Path,
        clients: Clients,
        keeper: TokenKeeper,
        now: Callable[[], float] = time.time,
        *,
        keeps: bool = False,
    ) -> None:
        self._keeps = keeps
        self._settings = settings
        self._env = env
        self._home = Path(env.get("HOME") or Path.home())
        self._data_dir = data_dir
        self._clients = clients
        self._keeper = keeper
        self._provider = KiroProvider(settings.kiro)
        self._now = now
        self.roster = Roster(data_dir, SealedStore(data_dir / "sealed"))

    def adopt(self, settings: Settings) -> None:
        """Go by other settings from now on."""
        self._settings = settings

    def __repr__(self) -> str:
        return f"<AccountAdmin {self._data_dir}>"

    # -- signing in

    async def log_in(self, template: Credential, screen: Screen, *, browser: bool, label: str = "") -> LoggedIn:
        """Sign a person in, and keep what comes of it.

        Args:
            template: who is asked (see `accounts.login`).
            browser: by a page that comes back here, in place of a device code.
            label: what the account shall be called; empty: its address, masked. Where the service does not say who
                signed in, the account of that name is the same one.

        Raises:
            KirostreamError: it did not work; nothing was changed.
        """
        login = Login(
            self._clients.post_of(_nobody(template)),
            screen,
            self._settings.login,
            self._settings.keeper.hosts,
            user_agent=f"kirostream/{__version__}",
        )
        credential = await (login.by_browser(template) if browser else login.by_device_code(template))
        credential, persons, notes = await self._look_up(credential)
        # Of whom nothing is known may be anybody: nobody is replaced, unless a person has said who it is.
        strangers = () if persons else await self.roster.strangers(credential)
        kept = await self.roster.keep(
            credential,
            persons=persons,
            label=label,
            replaces=next((entry.id for entry in strangers if entry.label == label), None),
            now=self._now(),
        )
        if strangers and not kept.replaced:
            others = " and ".join(entry.label for entry in strangers)
            notes.append(
                f"the service does not say who signed in, so it is kept beside {others}. If it is the same person, "
                "sign in with --name and that name, which replaces the older sign-in, or remove one of them"
            )
        return LoggedIn(kept, tuple(notes))

    async def _look_up(self, credential: Credential) -> tuple[Credential, list[str], list[str]]:
        """The credential with its profile, who signed in, and what could not be found out."""
        machine = random_machine_id()
        account = replace(_nobody(credential), machine_id=machine)
        management = self._management_of(account)
        notes: list[str] = []
        if needs_profile(credential):
            try:
                arn = await management.profile(account, _token(credential, account))
            except (UpstreamError, ProtocolError) as error:
                notes.append(f"the profile could not be looked up: {error.message}")
            else:
                credential = replace(credential, profile_arn=arn)
                if not arn:
                    notes.append(
                        "the organisation has given you no profile yet: ask its administrator for access to Kiro"
                    )
        usage = AccountUsage()
        try:
            usage = await management.usage(account, _token(credential, account))
        except (UpstreamError, ProtocolError) as error:
            notes.append(f"who signed in could not be looked up: {error.message}")
        extra: dict[str, object] = {"machineId": machine}
        extra |= {name: said for name, said in (("email", usage.email), ("userId", usage.user_id)) if said}
        return replace(credential, extra=extra), [who for who in (usage.user_id, usage.email) if who], notes

    # -- what there is

    async def discover(self) -> Discovery:
        """The accounts that a gateway would use.

        Raises:
            SettingsError, StoreError: what was chosen cannot be used.
        """
        discovery = await discover(
            ("the environment", from_environment(self._env)),
            ("the settings", self._settings.account),
            env=self._env,
            home=self._home,
            data_dir=self._data_dir,
            time_source=self._now,
        )
        found = tuple(replace(one, account=as_set(one.account, self._settings)) for one in discovery.found)
        return replace(discovery, found=found)

    async def find(self, name: str = "") -> Sequence[Found]:
        """The accounts that a person means; without a name, all.

        Raises:
            SettingsError: none is called so; or there are none.
        """
        discovery = await self.discover()
        if not name:
            discovery.require()
            return discovery.found
        return [pick(name, [(each.account.id, each.account.label, each) for each in discovery.found])]

    async def usage(self, found: Found) -> AccountUsage:
        """What an account has used.

        Raises:
            UpstreamError, ProtocolError, StoreError: there is no answer.
        """
        return await with_token(self._keeper_of(found), found.account, self._management_of(found.account).usage)

    async def plans(self, found: Found) -> Sequence[Plan]:
        """The plans that an account may have.

        Raises:
            UpstreamError, ProtocolError, StoreError: there is no answer.
        """
        return await with_token(self._keeper_of(found), found.account, self._management_of(found.account).plans)

    async def checkout(self, found: Found, kind: str) -> Checkout:
        """A page to pay for a plan on. It is shown, never opened.

        Raises:
            UpstreamError, ProtocolError, StoreError: there is no answer.
        """
        management = self._management_of(found.account)
        return await with_token(
            self._keeper_of(found), found.account, lambda account, token: management.checkout(account, token, kind)
        )

    async def refresh(self, found: Found) -> Token:
        """A fresh token, and the old one thrown away.

        Raises:
            UpstreamError, StoreError: there is none.
        """
        keeper = self._keeper_of(found)
        keeper.reject(await keeper.token(found.account))
        return await keeper.token(found.account)

    async def models(self, found: Found) -> list[str]:
        """The ids of the models that an account has.

        Raises:
            UpstreamError, ProtocolError, StoreError: there is no answer.
        """
        management = self._management_of(found.account)
        models = await with_token(self._keeper_of(found), found.account, management.models)
        return [model.id for model in models]

    def _keeper_of(self, found: Found) -> TokenKeeper:
        """The keeper, with this account in it, which goes its own way out."""
        if not self._keeps:
            self._keeper.add(found.account, found.source, found.credential, self._clients.post_of(found.account))
        return self._keeper

    def _management_of(self, account: Account) -> Management:
        return Management(self._provider, self._clients.of(account))

    async def states(self, accounts: Sequence[Account]) -> Mapping[AccountId, AccountSnapshot]:
        """How the gateways on this machine see the accounts. Empty where none has run yet.

        Raises:
            StoreError: it cannot be read.
        """
        if not await trio.Path(self._data_dir / DATABASE).exists():
            return {}
        async with self._pool(accounts) as pool:
            return {state.id: state for state in pool.snapshot().accounts}

    async def reset(self, account: Account) -> None:
        """Make an account ready, whatever it was, also in a gateway that runs.

        Raises:
            StoreError: it cannot be written down.
        """
        async with self._pool([account]) as pool:
            await pool.clear(account.id)

    @asynccontextmanager
    async def _pool(self, accounts: Sequence[Account]) -> AsyncIterator[Pool]:
        async with open_database(self._data_dir / DATABASE) as database:
            pool = Pool(self._settings.pool, SqlitePoolStore(database), clock=self._now)
            for account in accounts:
                pool.add(account)
            await pool.sync()
            yield pool

    # -- adding, importing, exporting

    async def add_place(self, kind: str, path: str, label: str = "") -> Kept:
        """Use what another program keeps. Its file is read once, so that a mistake is told now.

        Raises:
            SettingsError, StoreError: there is nothing usable.
        """
        place = expand(path, self._home)
        source: CredentialSource
        if kind == "ide":
            source = IdeFile(place, home=self._home)
            await source.load()
            return await self.roster.refer("ide", place, label=label, now=self._now())
        source = CliDatabase(place)
        await source.load()
        return await self.roster.refer("cli", place, label=label, now=self._now())

    async def add_secret(self, secret: str, *, api_key: bool, region: str, label: str = "") -> Kept:
        """Keep a refresh token of a social sign-in, or an API key.

        Raises:
            SettingsError: it is empty, or shortened.
            StoreError: it cannot be kept.
        """
        given = Secret(secret.strip())
        if not given:
            raise SettingsError("Nothing was given. Paste the token, and press Enter.")
        check_refresh_token(given, "the input")
        credential = (
            Credential(auth=AuthMethod.API_KEY, access_token=given, region=region)
            if api_key
            else Credential(auth=AuthMethod.SOCIAL, refresh_token=given, region=region)
        )
        return await self.roster.keep(credential, label=label, now=self._now())

    async def import_text(self, text: str, format_name: str = "") -> Imported:
        """Keep every account of a file.

        Raises:
            SettingsError: it is in no format that is known, or not in the one that was named.
            StoreError: an account cannot be kept; those before it are.
        """
        form = named_format(format_name) if format_name else detect(text)
        read = form.read(text)
        added: list[Entry] = []
        replaced: list[Entry] = []
        older: list[Entry] = []
        trouble = list(read.trouble)
        for portable in read.accounts:
            try:
                kept = await self._keep_portable(portable)
            except (SettingsError, StoreError) as error:
                if portable.place is None and isinstance(error, StoreError):
                    raise
                trouble.append(f"{portable.name}: {error.message}")
                continue
            if not portable.enabled and kept.entry.enabled and not kept.replaced:
                kept = Kept(await self.roster.enable(kept.entry.id, False), kept.replaced)
            (older if kept.older else replaced if kept.replaced else added).append(kept.entry)
        return Imported(form.name, tuple(added), tuple(replaced), tuple(older), tuple(trouble))

    async def _keep_portable(self, portable: Portable) -> Kept:
        if portable.place is not None:
            return await self.add_place(*portable.place, portable.label)
        credential = portable.credential
        assert credential is not None
        extra = dict(credential.extra)
        for name, said in (("email", portable.email), ("userId", portable.user_id), ("machineId", portable.machine_id)):
            if said:
                extra[name] = said
        return await self.roster.keep(
            replace(credential, extra=extra),
            persons=[who for who in (portable.user_id, portable.email) if who],
            label=portable.label,
            only_newer=True,
            now=self._now(),
        )

    async def portables(self) -> tuple[list[Portable], list[str]]:
        """The accounts of the list as they are now, and why some cannot be read."""
        devices = Devices(self._data_dir)
        accounts: list[Portable] = []
        trouble: list[str] = []
        for entry in await self.roster.entries():
            if entry.kind != "own":
                accounts.append(Portable(place=(entry.kind, entry.place), label=entry.label, enabled=entry.enabled))
                continue
            try:
                (credential,) = await self.roster.source(entry).load()
            except (SettingsError, StoreError) as error:
                trouble.append(error.message)
                continue
            email, user_id, kept = (credential.extra.get(name) for name in ("email", "userId", "machineId"))
            machine = await devices.machine_id(entry.id, kept if isinstance(kept, str) else "")
            accounts.append(
                Portable(
                    credential=credential,
                    label=entry.label,
                    email=email if isinstance(email, str) else "",
                    user_id=user_id if isinstance(user_id, str) else "",
                    machine_id=machine,
                    enabled=entry.enabled,
                )
            )
        return accounts, trouble

    async def plan_sync(self, format_name: str, target: Path, source: Path | None = None) -> Change:
        """What a peer's file would become.

        Args:
            format_name: its format; empty: the one it is in.
            target: the peer's file; it need not be there.
            source: another peer's file to take the accounts from; None: our own list. Disabled accounts are left out.

        Raises:
            SettingsError, StoreError: a file cannot be read, or is in another format.
        """
        before = await trio.to_thread.run_sync(text_of, target, True)
        if not format_name and not before.strip() and target.name != ".env":
            raise SettingsError(f"{target} is not there or is empty: say with --format what it shall be.")
        form = named_format(format_name) if format_name else form_of(target, before)
        if source is None:
            accounts, trouble = await self.portables()
        else:
            said = await trio.to_thread.run_sync(text_of, source)
            read = detect(said).read(said)
            accounts, trouble = list(read.accounts), list(read.trouble)
        enabled = [account for account in accounts if account.enabled]
        written = write_as(form, enabled, before, self._now())
        return change_of(form, before, written, enabled, trouble)

    async def write(self, target: Path, text: str) -> None:
        """Put `text` in the place of a peer's file: whole, and for this user alone.

        Raises:
            StoreError: the old file is still there.
        """
        await trio.to_thread.run_sync(atomic_write, target, text.encode())


def _nobody(credential: Credential) -> Account:
    """Who is signing in, before it is known who that is."""
    return Account(
        id=account_id("own", "sign-in"),
        label=account_label(credential),
        auth=credential.auth,
        region=credential.region,
    )


def _token(credential: Credential, account: Account) -> Token:
    expires_at = credential.expires_at if credential.expires_at is not None else NEVER
    return Token(credential.access_token, expires_at, profile_arn(credential), account.id)


@asynccontextmanager
async def open_account_admin(
    settings: Settings,
    env: Mapping[str, str],
    data_dir: Path,
    on_failed: Callable[[KirostreamError], None] = lambda error: None,
) -> AsyncIterator[AccountAdmin]:
    """An `AccountAdmin`, until the context ends.

    Args:
        on_failed: told of what is wrong in passing, such as a token that cannot be written back.
    """
    clients = Clients(settings.upstream, lambda account: terms_of(account, settings.pool.accounts).proxy)
    failure: KirostreamError | None = None
    async with AsyncExitStack() as owners:
        owners.push_async_callback(clients.aclose)
        nursery = await owners.enter_async_context(trio.open_nursery())
        keeper = TokenKeeper(
            no_post,
            settings.keeper,
            ide_version=settings.kiro.ide_version,
            lock_folder=data_dir / "locks",
            on_failed=lambda account, error: on_failed(error),
        )
        await nursery.start(keeper.run)
        try:
            yield AccountAdmin(settings, env, data_dir, clients, keeper)
        except KirostreamError as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
