"""``kirostream report``: what a bug report needs, in one file that a person can read before sending it.

Nothing in it is new: versions, the settings that differ from their defaults (secrets masked), the log of the last
hours, and the captures of refused requests, which hold no contents.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kirostream.errors import SettingsError, StoreError

LINES: Final = 2000
"""Newest lines of the log, of any level."""
TROUBLES: Final = 2000
"""Newest warnings and errors beside them."""


def report(
    file: Annotated[Path, typer.Argument(help="Where to write it; - for the terminal.")],
    config: Annotated[Path | None, typer.Option("--config", help="Settings file, in place of the default one.")] = None,
) -> None:
    """Put versions, settings, logs and captures into one file for a bug report. It holds no secrets and no contents."""
    from kirostream.settings import data_dir
    from kirostream.stores.files import atomic_write

    folder = data_dir(os.environ)
    said: dict[str, Any] = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **_versions()}
    for name, part in (("settings", lambda: _settings(config)), ("log", lambda: _log(folder))):
        try:
            said[name] = part()
        except (SettingsError, StoreError) as error:  # that it cannot be read may be the bug
            said[name] = {"error": error.message}
    said["captures"] = _captures(folder)
    text = json.dumps(said, indent=1, ensure_ascii=False, default=str)
    if str(file) == "-":
        sys.stdout.write(f"{text}\n")
        return
    atomic_write(file.absolute(), f"{text}\n".encode())
    if said["captures"].get("exchanges"):
        typer.echo("Whole exchanges were captured too; they hold what was said: kirostream captures export FILE")
    typer.echo(f"Written to {file}. Read it before you send it: it names models, keys and masked accounts.")


def _versions() -> dict[str, Any]:
    import platform
    from importlib import metadata

    from kirostream._version import __version__
    from kirostream.evstream import CORE

    wanted = ("trio", "h11", "msgspec", "hypercorn", "httpx", "trio-websocket", "cryptography")
    return {
        "kirostream": __version__,
        "core": CORE,
        "python": platform.python_version(),
        "system": platform.platform(),
        "libraries": {name: metadata.version(name) for name in wanted},
    }


def _settings(config: Path | None) -> dict[str, Any]:
    """What differs from the defaults."""
    from kirostream.settings import Sources
    from kirostream.settings_file import SettingsEditor

    shown = SettingsEditor(Sources(os.environ, config)).show()
    return {each.name: {"value": each.value, "from": each.origin} for each in shown if each.value != each.default}


def _log(folder: Path) -> list[dict[str, Any]]:
    from kirostream.telemetry.logfiles import FOLDER
    from kirostream.telemetry.logs import LogFilter, LogReader

    reader = LogReader(folder / FOLDER)
    found = {
        *map(_key, reader.newest(most=LINES)),
        *map(_key, reader.newest(LogFilter(level="warning"), most=TROUBLES)),
    }
    return [json.loads(line) for line in sorted(found)]


def _key(line: Any) -> str:
    """A line that sorts by its time, and is equal to itself."""
    return json.dumps(line.as_dict(), ensure_ascii=False)


def _captures(folder: Path) -> dict[str, Any]:
    """What was kept of refused requests, their form; and how many whole exchanges there are, which stay here."""
    from kirostream.telemetry.capture_files import CaptureReader
    from kirostream.telemetry.captures import FOLDER

    reader = CaptureReader(folder / FOLDER)
    try:
        forms = json.loads(b"".join(reader.export(("form",))))["captures"]
        exchanges = sum(each.kind == "exchange" for each in reader.entries())
    except StoreError as error:
        return {"error": error.message}
    return {"forms": {each["id"]: each["capture"] for each in forms}, "exchanges": exchanges}
