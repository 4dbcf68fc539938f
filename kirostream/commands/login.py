"""``kirostream login``, and the terminal a person sits at."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from kirostream.errors import SettingsError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from kirostream.accounts.account import Credential
    from kirostream.accounts.login import Task

HOW = (
    "Say how you sign in: --social google, --social github, --builder-id,"
    " or --start-url URL --region REGION for IAM Identity Center."
)


class Terminal:
    """The screen of a sign-in.

    Args:
        opens: whether a browser of this machine is opened.
    """

    def __init__(self, console: Console, *, opens: bool) -> None:
        self._console = console
        self._opens = opens
        self._status: Status | None = None
        self._trouble = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, task: Task) -> None:
        """See `accounts.login.Screen.show`."""
        say = self._console.print
        say("Open this page and sign in:", style="bold")
        say(f"\n  {task.url}\n")
        if task.code:
            say("It shows this code; it has to be the same:", style="bold")
            say(f"\n  {task.code}\n")
        if task.pasteable:
            say("If the browser is on another machine, it ends at an address that it cannot open, and that begins with")
            say("http://127.0.0.1. Paste that whole address here, and press Enter.\n")
        sys.stdout.flush()
        if self._opens:
            import webbrowser

            # In a thread: some systems wait until the browser is closed.
            threading.Thread(target=webbrowser.open, args=(task.url,), daemon=True).start()
        if self._console.is_terminal and not task.pasteable:  # a spinner would write into what is pasted
            self._status = self._console.status("waiting")
            self._status.start()

    def waiting(self, left: float, trouble: str) -> None:
        """See `accounts.login.Screen.waiting`."""
        minutes, seconds = divmod(int(left), 60)
        said = f"waiting for you, {minutes}:{seconds:02} left" + (f" ({trouble})" if trouble else "")
        if self._status is not None:
            self._status.update(said)
        elif trouble and trouble != self._trouble:
            self._console.print(f"  {trouble} Trying again.")
        self._trouble = trouble

    def complain(self, message: str) -> None:
        """See `accounts.login.Screen.complain`."""
        self._console.print(message)

    async def paste(self) -> str:
        """See `accounts.login.Screen.paste`."""
        import trio

        # Not sys.stdin: a thread that waits in its buffer when the program ends would keep it from ending.
        line = b""
        while not line.endswith(b"\n"):
            part = await trio.to_thread.run_sync(_read_some, abandon_on_cancel=True)
            if not part:
                if not line.strip():
                    await trio.sleep_forever()
                break
            line += part
        return line.decode("utf-8", "replace")


def _read_some() -> bytes:
    try:
        return os.read(0, 4096)
    except OSError:  # there is no standard input
        return b""


def can_open_browser() -> bool:
    """Whether a browser of this machine would be in front of the person: not over SSH, not without a display."""
    if os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"):
        return False
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def login(
    social: Annotated[str | None, typer.Option("--social", metavar="google|github", help="Google or GitHub.")] = None,
    builder_id: Annotated[bool, typer.Option("--builder-id", help="AWS Builder ID.")] = False,
    start_url: Annotated[
        str | None, typer.Option("--start-url", help="IAM Identity Center: your organisation's start URL.")
    ] = None,
    region: Annotated[str, typer.Option("--region", help="The region of the IAM Identity Center.")] = "us-east-1",
    browser: Annotated[
        bool | None,
        typer.Option("--browser/--device", help="Come back from a page of this machine, or confirm a code anywhere."),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser; only show the link.")] = False,
    name: Annotated[
        str, typer.Option("--name", help="What the account shall be called, or is called: it is replaced.")
    ] = "",
) -> None:
    """Sign in, and keep the account. Works without a display: it shows a link and a code."""
    import trio
    from rich.console import Console

    from kirostream.accounts import login as ways
    from kirostream.commands.account_admin import LoggedIn, open_account_admin
    from kirostream.settings import data_dir, load

    if (social is not None) + builder_id + (start_url is not None) != 1:
        raise SettingsError(HOW)
    template: Credential
    if social is not None:
        template = ways.social(social)
    elif start_url is not None:
        template = ways.identity_center(start_url, region)
    else:
        template = ways.builder_id()
    opens = can_open_browser() and not no_browser
    # The social service's page comes back here as the IDE's does; without a browser here, a code is the shorter way.
    by_browser = browser if browser is not None else (social is not None and opens)
    console = Console(highlight=False, soft_wrap=True, markup=False)

    async def run() -> LoggedIn:
        with Terminal(console, opens=opens) as terminal:
            async with open_account_admin(load(os.environ), os.environ, data_dir(os.environ)) as admin:
                return await admin.log_in(template, terminal, browser=by_browser, label=name)

    done = trio.run(run)
    entry = done.kept.entry
    again = " again; the older sign-in was replaced" if done.kept.replaced else ""
    console.print(f"Signed in{again}: {entry.label} ({entry.id})", style="bold")
    for note in done.notes:
        console.print(f"  note: {note}")
    console.print("Next: kirostream serve")
