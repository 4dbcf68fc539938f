"""The import rule: a room imports only from the rows above it (docs/architecture.md).

One table, one `ast` walk. A new room has to be put into the table, so that its place is a decision.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

import kirostream

PACKAGE: Final = Path(kirostream.__file__).parent
ROWS: Final[dict[str, int]] = {
    "_version": 0,
    "dataclass": 0,
    "errors": 0,
    "evstream": 0,
    "_evstream": 0,
    "_evstream_py": 0,
    "_evstream_shared": 0,
    "turn": 0,
    "scan": 0,
    "_scan": 0,
    "dialects": 1,
    "filters": 1,
    "net": 1,
    "stores": 1,
    "telemetry": 2,
    "accounts": 2,
    "providers": 3,
    "relay": 4,
    "gateway": 5,
    "admin": 5,
    "simulator": 5,
    "client": 5,
    "settings": 6,
    "settings_docs": 6,
    "settings_file": 6,
    "steering": 6,
    "app": 6,
    "running": 6,
    "finding": 6,
    "simulated": 6,
    "reporting": 6,
    "asgi": 6,
    "doors": 6,
    "operating": 6,
    "metering": 6,
    "cli": 6,
    "starting": 6,
    "commands": 6,
    "__main__": 6,
    "__init__": 6,
}
SAME_ROW: Final = {
    ("turn", "errors"),
    ("turn", "dataclass"),
    ("evstream", "errors"),
    ("evstream", "_evstream"),
    ("evstream", "_evstream_py"),
    ("evstream", "_evstream_shared"),
    ("_evstream_py", "_evstream_shared"),
    ("_evstream_py", "errors"),
    ("_evstream_shared", "errors"),
    ("scan", "evstream"),
    ("scan", "_scan"),
    ("dialects", "filters"),
    ("accounts", "telemetry"),
    ("app", "settings"),
    ("cli", "commands"),
    ("cli", "starting"),
    ("commands", "starting"),
    ("starting", "app"),
    ("starting", "running"),
    ("running", "app"),
    ("running", "doors"),
    ("running", "finding"),
    ("running", "settings"),
    ("running", "simulated"),
    ("app", "finding"),
    ("app", "reporting"),
    ("app", "simulated"),
    ("finding", "settings"),
    ("simulated", "reporting"),
    ("simulated", "settings"),
    ("starting", "settings"),
    ("commands", "finding"),
    ("commands", "settings"),
    ("app", "doors"),
    ("app", "steering"),
    ("commands", "settings_docs"),
    ("commands", "settings_file"),
    ("app", "operating"),
    ("app", "metering"),
    ("operating", "commands"),
    ("operating", "settings"),
    ("doors", "settings"),
    ("settings_docs", "settings"),
    ("settings_file", "settings"),
    ("steering", "settings"),
    ("steering", "settings_file"),
    ("asgi", "app"),
    ("asgi", "finding"),
    ("asgi", "running"),
    ("asgi", "settings"),
    ("__main__", "cli"),
}
"""Pairs (importer, imported) of one row that are allowed."""
PLUMBING: Final = {"net", "stores"}
"""Of the project they may know `errors` alone, and how a dataclass is made."""
PURE: Final = ("turn", "dialects", "filters", "providers", "_evstream_py", "_evstream_shared")
PURE_FILES: Final = (
    "accounts/board.py",
    "accounts/health.py",
    "accounts/login_messages.py",
    "accounts/oidc.py",
    "accounts/strategies.py",
    "accounts/terms.py",
    "gateway/limits.py",
    "relay/failover.py",
    "relay/resolver.py",
    "simulator/directives.py",
)
IMPURE: Final = {"trio", "httpx", "socket", "ssl", "sqlite3", "random", "secrets", "time", "datetime", "asyncio", "os"}
ONE_SITE: Final = {
    "httpx": {"net/proxied.py"},
    "h11": {"net/framing.py", "net/judged.py"},
    "h2": {"net/asgi_server.py"},
    "hypercorn": {"net/asgi_server.py"},
    "sqlite3": {"accounts/sources/cli_sqlite.py", "stores/sqlite.py"},
    "cryptography": {"stores/aead.py"},
    "ctypes": {"stores/aead.py"},
    "trio_websocket": {"net/websocket.py"},
    "structlog": {"telemetry/log.py"},
    "prometheus_client": {"telemetry/metrics.py"},
    "opentelemetry": {"telemetry/otel.py"},
    "typer": {
        f"commands/{name}.py"
        for name in (
            "accounts",
            "admin",
            "app",
            "captures",
            "doctor",
            "keys",
            "login",
            "logs",
            "report",
            "serve",
            "settings",
            "usage",
            "watch",
        )
    },
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names of everything a module imports, wherever in it, but for type checking only."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "kirostream")
    return found


def rooms_used(path: Path) -> set[str]:
    names = (name.split(".") for name in imported(path))
    return {parts[1] for parts in names if parts[0] == "kirostream" and len(parts) > 1 and parts[1] in ROWS}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_from_the_rows_above(path: Path) -> None:
    mine = room(path)
    assert mine in ROWS, f"{mine} has no row yet: decide where it belongs"
    for other in rooms_used(path) - {mine}:
        allowed = ROWS[other] < ROWS[mine] or (mine, other) in SAME_ROW
        assert allowed, f"{mine} (row {ROWS[mine]}) imports {other} (row {ROWS[other]})"
        if mine in PLUMBING:
            assert other in ("errors", "dataclass"), f"{mine} is plumbing, and imports {other}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pure_rooms_stay_pure(path: Path) -> None:
    relative = str(path.relative_to(PACKAGE))
    if room(path) in PURE or relative in PURE_FILES:
        impure = {name.split(".")[0] for name in imported(path)} & IMPURE
        assert not impure, f"{relative} is pure, and imports {impure}"


@pytest.mark.parametrize("library", ONE_SITE)
def test_a_library_has_one_import_site(library: str) -> None:
    sites = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if any(name.split(".")[0] == library for name in imported(path))
    }
    assert sites <= ONE_SITE[library]


def test_dataclasses_are_made_the_quick_way() -> None:
    slow = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "dataclasses" and path.name != "dataclass.py":
                slow += [str(path.relative_to(PACKAGE)) for alias in node.names if alias.name == "dataclass"]
    assert slow == [], "kirostream.dataclass says why"


def test_pure_files_exist() -> None:
    assert [name for name in PURE_FILES if not (PACKAGE / name).is_file()] == []


def test_a_room_says_what_it_is() -> None:
    silent = [
        str(init.relative_to(PACKAGE))
        for init in PACKAGE.rglob("__init__.py")
        if not ast.get_docstring(ast.parse(init.read_text()))
    ]
    assert silent == []
