"""The command line.

Every command turns a `KirostreamError` into one sentence on stderr and an exit code: 2 for settings (a taken port, an
unreadable file, no credential), 1 for the rest. No command shows a traceback for what a person can put right; that of a
bug quotes no values (`telemetry.faults`).

``serve`` in its usual form is read without typer (`starting.usual`): a start can do without its 15 ms, and a gateway
without its 2 MB.
"""

from __future__ import annotations

import sys

from kirostream.errors import KirostreamError, SettingsError
from kirostream.starting import serve, usual

BUG = 70
"""The exit code of what should not have happened (EX_SOFTWARE of sysexits.h)."""


def main() -> None:
    """The entry point of the `kirostream` command."""
    code = 0
    try:
        if (asked := usual(sys.argv[1:])) is not None:
            serve(**asked)
        else:
            from kirostream.commands.app import app

            app()
    except* KirostreamError as group:
        error = _first(group)
        sys.stderr.write(f"kirostream: {error.message}\n")
        code = 2 if isinstance(error, SettingsError) else 1
    except* KeyboardInterrupt:
        code = 130
    except* Exception as group:  # noqa: BLE001 - a bug: it ends the program either way
        from kirostream.telemetry.faults import traced

        sys.stderr.write(
            f"{''.join(traced(group))}\nkirostream: This is a bug. Please report it with the lines above.\n"
        )
        code = BUG
    sys.exit(code)


def _first(group: BaseExceptionGroup[KirostreamError]) -> KirostreamError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, KirostreamError)
    return error
