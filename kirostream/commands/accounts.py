"""``kirostream accounts``: tables for people, ``--json`` for programs.

Nothing secret is ever printed, except by an export into where it was asked to write.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from kirostream.errors import KirostreamError, SettingsError

if TYPE_CHECKING:
    from rich.console import Console

    from kirostream.accounts.discovery import Found
    from kirostream.accounts.roster import Entry
    from kirostream.commands.account_admin import AccountAdmin
    from kirostream.commands.peer_files import Change
    from kirostream.providers.kiro_management import AccountUsage

T = TypeVar("T")

accounts = typer.Typer(name="accounts", help="The accounts that are used.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="An id, a label, or the beginning of one.")]
SomeName = Annotated[str, typer.Argument(help="An id, a label, or the beginning of one; empty: all.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Label = Annotated[str, typer.Option("--name", help="What the account shall be called.")]


def _run(work: Callable[[AccountAdmin], Awaitable[T]]) -> T:
    """Do `work`, with the accounts as the settings have them."""
    import trio

    from kirostream.commands.account_admin import open_account_admin
    from kirostream.settings import data_dir, load

    def warn(error: KirostreamError) -> None:
        typer.echo(f"kirostream: {error.message}", err=True)

    async def main() -> T:
        async with open_account_admin(load(os.environ), os.environ, data_dir(os.environ), warn) as admin:
            return await work(admin)

    return trio.run(main)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, markup=False)


def _say(*lines: str) -> None:
    console = _console()
    for line in lines:
        console.print(line)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    _console().print(table)


def _moment(at: float | None) -> str:
    from datetime import datetime

    return "" if at is None else datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


# -- what there is


async def _listed(admin: AccountAdmin) -> dict[str, Any]:
    """What `list` shows, without secrets."""
    import time

    from kirostream.accounts.account import NEVER
    from kirostream.accounts.profiles import profile_arn

    discovery = await admin.discover()
    entries = {entry.id: entry for entry in await admin.roster.entries()}
    states = await admin.states([each.account for each in discovery.found])
    found: list[dict[str, Any]] = []
    for each in discovery.found:
        credential, until = each.credential, each.credential.valid_until()
        state = states.get(each.account.id)
        found.append(
            {
                "id": each.account.id,
                "label": each.account.label,
                "enabled": True,
                "state": state.state.value if state else "ready",
                "stateUntilAt": state.until if state and 0 < state.until < NEVER else None,
                "why": state.why if state else "",
                "auth": credential.auth.value,
                "provider": credential.provider,
                "region": credential.region,
                "profileArn": profile_arn(credential),
                "source": "kirostream" if each.source.kind == "own" else each.source.describe(),
                "tokenEndsAt": None if until in (0.0, NEVER) else until,
                "token": "lasts" if until > time.time() else "to be refreshed",
                "canRefresh": bool(credential.refresh_token),
                "registrationEndsAt": credential.registration_expires_at,
                "notes": list(each.notes),
            }
        )
        entries.pop(each.account.id, None)
    found += [
        {"id": entry.id, "label": entry.label, "enabled": entry.enabled, "source": _place(entry), "notes": []}
        for entry in entries.values()
        if not entry.enabled or entry.kind == "own"
    ]
    return {"accounts": found, "trouble": list(discovery.trouble), "looked": list(discovery.looked)}


def _state(each: Mapping[str, Any]) -> str:
    if not each["enabled"]:
        return "disabled"
    until = _moment(each["stateUntilAt"])
    return " ".join(filter(None, (each["state"], f"until {until}" if until else "", each["why"])))


def _place(entry: Entry) -> str:
    """Where an entry's credential is, for people."""
    return "kirostream" if entry.kind == "own" else entry.place


@accounts.command("list")
def list_accounts(as_json: AsJson = False) -> None:
    """What a gateway would use, and what is disabled."""
    said = _run(_listed)
    if as_json:
        _print_json({name: said[name] for name in ("accounts", "trouble")})
        return
    if not said["accounts"]:
        _say("There are no accounts. Looked at:", *(f"  - {line}" for line in said["looked"]), "Run: kirostream login")
    else:
        rows = [
            [
                each["id"],
                each["label"],
                _state(each),
                each.get("token", ""),
                _moment(each.get("tokenEndsAt")),
                each["source"],
            ]
            for each in said["accounts"]
        ]
        _table(["id", "account", "state", "token", "until", "from"], rows)
    for line in said["trouble"]:
        typer.echo(f"kirostream: {line}", err=True)


@accounts.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """One account, without its secrets."""

    async def work(admin: AccountAdmin) -> dict[str, Any]:
        (found,) = await admin.find(name)
        return next(each for each in (await _listed(admin))["accounts"] if each["id"] == found.account.id)

    said = _run(work)
    if as_json:
        _print_json(said)
        return
    for key, value in said.items():
        if key.endswith("At"):
            value = _moment(value)
        _say(f"{key:20} {', '.join(value) if isinstance(value, list) else value}")


# -- adding and removing


@accounts.command()
def add(
    creds_file: Annotated[str, typer.Option("--creds-file", help="Use a token file of the Kiro IDE.")] = "",
    cli_db: Annotated[str, typer.Option("--cli-db", help="Use a database of kiro-cli.")] = "",
    refresh_token: Annotated[
        bool, typer.Option("--refresh-token", help="Keep a refresh token (Google, GitHub); it is asked for.")
    ] = False,
    api_key: Annotated[bool, typer.Option("--api-key", help="Keep an API key; it is asked for.")] = False,
    region: Annotated[str, typer.Option("--region", help="The region of the sign-in.")] = "us-east-1",
    name: Label = "",
) -> None:
    """Add an account that you have elsewhere. To sign in anew: kirostream login."""
    if bool(creds_file) + bool(cli_db) + refresh_token + api_key != 1:
        raise SettingsError("Say what to add: --creds-file FILE, --cli-db FILE, --refresh-token or --api-key.")
    secret = _ask("Refresh token" if refresh_token else "API key") if refresh_token or api_key else ""

    async def work(admin: AccountAdmin) -> tuple[Entry, bool]:
        if creds_file or cli_db:
            kept = await admin.add_place("ide" if creds_file else "cli", creds_file or cli_db, name)
        else:
            kept = await admin.add_secret(secret, api_key=api_key, region=region, label=name)
        return kept.entry, kept.replaced

    entry, known = _run(work)
    _say(f"{'Known already' if known else 'Added'}: {entry.label} ({entry.id})")


def _ask(what: str) -> str:
    """A secret, from the terminal without showing it, or from a pipe; never from the command line, which others see."""
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass(f"{what}: ")
    return sys.stdin.readline()


def _switch(name: str, *, enabled: bool) -> None:
    async def work(admin: AccountAdmin) -> Entry:
        return await admin.roster.enable((await admin.roster.find(name)).id, enabled)

    entry = _run(work)
    _say(
        f"{'Enabled' if enabled else 'Disabled'}: {entry.label} ({entry.id}). A gateway that runs has to be restarted."
    )


@accounts.command()
def enable(name: Name) -> None:
    """Use an account again."""
    _switch(name, enabled=True)


@accounts.command()
def disable(name: Name) -> None:
    """Leave an account out."""
    _switch(name, enabled=False)


@accounts.command()
def remove(name: Name) -> None:
    """Forget an account and its tokens. A file of another program is left as it is."""

    async def work(admin: AccountAdmin) -> Entry:
        return await admin.roster.remove((await admin.roster.find(name)).id)

    entry = _run(work)
    _say(f"Removed: {entry.label} ({entry.id})")


# -- other programs


def _format_help() -> str:
    return "account-manager, kiro-go, kiro-gateway, kiro-rs or env"


@accounts.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="The file; - for the standard input.")],
    form: Annotated[str, typer.Option("--format", help="Its format, where it does not say so itself.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take over the accounts of another program's file."""
    from kirostream.commands.peer_files import text_of

    text = sys.stdin.read() if str(file) == "-" else text_of(file)
    done = _run(lambda admin: admin.import_text(text, form))
    if as_json:
        _print_json(
            {
                "format": done.format,
                "added": [{"id": entry.id, "label": entry.label} for entry in done.added],
                "replaced": [{"id": entry.id, "label": entry.label} for entry in done.replaced],
                "older": [{"id": entry.id, "label": entry.label} for entry in done.older],
                "trouble": list(done.trouble),
            }
        )
    else:
        _say(f"{file} is in the format {done.format}: {len(done.added)} added, {len(done.replaced)} replaced.")
        _say(*(f"  added:    {entry.label} ({entry.id})" for entry in done.added))
        _say(*(f"  replaced: {entry.label} ({entry.id})" for entry in done.replaced))
        _say(*(f"  older than what is kept: {entry.label} ({entry.id})" for entry in done.older))
        _say(*(f"  left out: {line}" for line in done.trouble))
    if done.trouble and not (done.added or done.replaced or done.older):
        raise SettingsError(f"Nothing in {file} could be used.")


@accounts.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to; - for the standard output. It will hold secrets.")],
    form: Annotated[str, typer.Option("--format", help=_format_help())],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write the accounts that kirostream keeps into a new file of another program."""
    from kirostream.commands.peer_files import named_format, write_as

    if str(file) != "-" and file.exists() and not force:
        raise SettingsError(f"{file} is there already. Use --force to replace it, or `accounts sync` to change it.")

    async def work(admin: AccountAdmin) -> tuple[str, list[str]]:
        import time

        portables, trouble = await admin.portables()
        if not portables:
            raise SettingsError(
                "kirostream keeps no accounts yet: run `kirostream login` or `kirostream accounts import`."
            )
        written = write_as(named_format(form), portables, "", time.time())
        if str(file) != "-":
            await admin.write(file, written.text)
        return written.text, [*written.left_out, *trouble]

    text, left_out = _run(work)
    if str(file) == "-":
        sys.stdout.write(text)
    else:
        _say(f"Written: {file}, for you alone (0600). It holds secrets.")
    for line in left_out:
        typer.echo(f"  left out: {line}", err=True)


@accounts.command()
def sync(
    target: Annotated[
        Path, typer.Argument(help="The other program's file: its .env, config.json or credentials.json.")
    ],
    form: Annotated[str, typer.Option("--format", help=f"{_format_help()}; default: what the file is.")] = "",
    source: Annotated[
        Path | None, typer.Option("--from", help="Take them from this file, not from kirostream.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
) -> None:
    """Bring the enabled accounts into a file of another program, and leave the rest of it alone."""

    async def work(admin: AccountAdmin) -> Change:
        change = await admin.plan_sync(form, target, source)
        if change.changes and not dry_run:
            await admin.write(target, change.text)
        return change

    change = _run(work)
    for word, names in (("added", change.added), ("updated", change.updated), ("removed", change.removed)):
        _say(*(f"  {word + ':':9} {name}" for name in names))
    for line in change.left_out:
        typer.echo(f"  left out: {line}", err=True)
    done = "Nothing to change" if not change.changes else "Would change" if dry_run else "Changed"
    _say(f"{done}: {target} ({change.unchanged} as they were)")


# -- asking the upstream


async def _each(
    admin: AccountAdmin, name: str, ask: Callable[[Found], Awaitable[T]]
) -> list[tuple[Found, T | KirostreamError]]:
    """The answers of several accounts, side by side, eight at a time; one that fails hides no other."""
    import trio

    found = await admin.find(name)
    answers: dict[str, T | KirostreamError] = {}
    limit = trio.CapacityLimiter(8)

    async def one(each: Found) -> None:
        async with limit:
            try:
                answers[each.account.id] = await ask(each)
            except KirostreamError as error:
                answers[each.account.id] = error

    async with trio.open_nursery() as nursery:
        for each in found:
            nursery.start_soon(one, each)
    return [(each, answers[each.account.id]) for each in found]


def _fail_if_all_failed(answers: list[tuple[Found, Any]]) -> None:
    errors = [answer for _, answer in answers if isinstance(answer, KirostreamError)]
    if errors and len(errors) == len(answers):
        raise typer.Exit(1)


@accounts.command()
def usage(name: SomeName = "", as_json: AsJson = False) -> None:
    """Credits used and left, the plan, and when they are reset."""
    answers = _run(lambda admin: _each(admin, name, admin.usage))
    if as_json:
        _print_json([_usage_of(found, answer) for found, answer in answers])
        _fail_if_all_failed(answers)
        return
    rows: list[list[str]] = []
    for found, answer in answers:
        if isinstance(answer, KirostreamError):
            rows.append([found.account.label, "", "", "", "", answer.message])
        elif not answer.allowances:
            rows.append([found.account.label, answer.plan, "", "", "", "the service says nothing of this account"])
        else:
            parts = ", ".join(f"{each.name} {each.used:g}/{each.limit:g}" for each in answer.allowances if each.active)
            rows.append(
                [
                    found.account.label,
                    answer.plan,
                    f"{answer.used:g}",
                    f"{answer.left:g}" + (" (exhausted)" if answer.exhausted else ""),
                    _moment(answer.resets_at),
                    parts,
                ]
            )
    _table(["account", "plan", "used", "left", "reset", "of"], rows)
    _fail_if_all_failed(answers)


def _usage_of(found: Found, answer: AccountUsage | KirostreamError) -> dict[str, Any]:
    who = {"id": found.account.id, "label": found.account.label}
    if isinstance(answer, KirostreamError):
        return {**who, "error": answer.message}
    return {
        **who,
        "plan": answer.plan,
        "kind": answer.kind,
        "used": answer.used,
        "limit": answer.limit,
        "left": answer.left,
        "exhausted": answer.exhausted,
        "resetsAt": answer.resets_at,
        "overage": answer.overage,
        "overageUsed": answer.overage_used,
        "overageCharges": answer.overage_charges,
        "allowances": [
            {"name": each.name, "used": each.used, "limit": each.limit, "active": each.active, "endsAt": each.ends_at}
            for each in answer.allowances
        ],
    }


@accounts.command()
def refresh(name: SomeName = "") -> None:
    """Get a new access token, and throw the old one away."""
    _report(
        _run(lambda admin: _each(admin, name, admin.refresh)), lambda token: f"fresh until {_moment(token.expires_at)}"
    )


@accounts.command()
def reset(name: Name) -> None:
    """Make an account ready again that cools, is exhausted or was suspended; a gateway that runs takes it up."""

    async def work(admin: AccountAdmin) -> Found:
        (found,) = await admin.find(name)
        await admin.reset(found.account)
        return found

    found = _run(work)
    _say(f"Ready: {found.account.label} ({found.account.id})")


@accounts.command("test")
def try_out(name: SomeName = "") -> None:
    """Get a token, and ask the upstream for the models: the proof that an account works. It costs no credits."""
    _report(
        _run(lambda admin: _each(admin, name, admin.models)),
        lambda models: f"works: {len(models)} models, such as {', '.join(models[:3])}",
    )


def _report(answers: list[tuple[Found, T | KirostreamError]], words: Callable[[T], str]) -> None:
    for found, answer in answers:
        said = f"failed: {answer.message}" if isinstance(answer, KirostreamError) else words(answer)
        _say(f"{found.account.label} ({found.account.id}): {said}")
    _fail_if_all_failed(answers)


@accounts.command()
def subscribe(
    name: Name,
    plan: Annotated[str, typer.Option("--plan", help="KIRO_PRO and so on; empty: show the plans.")] = "",
) -> None:
    """Show the plans; with --plan, print the link of the page to pay on. Nothing is opened, nothing is bought."""

    async def work(admin: AccountAdmin) -> list[str]:
        (found,) = await admin.find(name)
        plans = await admin.plans(found)
        if not plan:
            return [
                *(
                    f"{each.name:16} {each.amount:8.2f} {each.currency} {each.interval.lower():8} {each.title}"
                    for each in plans
                ),
                f"Then: kirostream accounts subscribe {name} --plan NAME",
            ]
        kind = next((each.kind for each in plans if plan.upper() in (each.name.upper(), each.kind.upper())), "")
        if not kind:
            raise SettingsError(f"There is no plan {plan!r}; there are {', '.join(each.name for each in plans)}.")
        page = await admin.checkout(found, kind)
        return [
            "Open this page to pay. It belongs to your account: give it to nobody.",
            f"\n  {page.url}\n",
            *(["The account has a plan already; the page changes it."] if page.active else []),
        ]

    _say(*_run(work))
