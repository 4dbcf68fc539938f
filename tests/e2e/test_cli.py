"""The command line, as a person meets it: what it says when it cannot start, and that it stops when it is told to."""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from e2e.conftest import Running, clean_env


def kirostream(tmp: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "kirostream", *arguments],
        env=clean_env(tmp, **env),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """What it said on its way out: a sentence for a person, never a traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.startswith("kirostream: ")
    return done.stderr


def ide_file(tmp: Path, **token: object) -> Path:
    path = tmp / ".aws" / "sso" / "cache" / "kiro-auth-token.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(token))
    return path


def test_no_credentials(tmp_path: Path) -> None:
    said = refused(kirostream(tmp_path, "serve", "--port", "0"))
    assert "kiro-auth-token.json" in said
    assert "kiro-cli login" in said
    assert "--demo" in said


def test_a_broken_credentials_file(tmp_path: Path) -> None:
    broken = tmp_path / "token.json"
    broken.write_text('{"accessToken": \n oops')
    said = refused(kirostream(tmp_path, "serve", "--port", "0", KIRO_CREDS_FILE=str(broken)))
    assert str(broken) in said
    assert "line 2" in said


def test_a_missing_credentials_file(tmp_path: Path) -> None:
    done = kirostream(tmp_path, "serve", "--port", "0", KIRO_CREDS_FILE=str(tmp_path / "none.json"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "none.json" in done.stderr


def test_an_expired_token_without_a_refresh_token(tmp_path: Path) -> None:
    path = ide_file(tmp_path, accessToken="aoaOLD", expiresAt="2020-01-01T00:00:00.000Z", authMethod="social")
    for env in ({}, {"KIRO_CREDS_FILE": str(path)}):
        said = refused(kirostream(tmp_path, "serve", "--port", "0", **env))
        assert "expired" in said
        assert "aoaOLD" not in said


def test_a_database_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "data.sqlite3"
    path.write_text("this is not a database, and it is long enough to be taken for one" * 20)
    done = kirostream(tmp_path, "serve", "--port", "0", KIRO_CLI_DB_FILE=str(path))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert str(path) in done.stderr


def test_a_database_without_a_login(tmp_path: Path) -> None:
    path = tmp_path / "data.sqlite3"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE auth_kv (key TEXT PRIMARY KEY, value TEXT)")
    database.close()
    said = refused(kirostream(tmp_path, "serve", "--port", "0", KIRO_CLI_DB_FILE=str(path)))
    assert "kiro-cli login" in said


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(kirostream(tmp_path, "serve", "--demo", "--port", str(port)))
    assert str(port) in said
    assert "--port" in said


def test_an_unreadable_settings_file(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "kirostream.toml").write_text("[server\nport = 1")
    assert "kirostream.toml" in refused(kirostream(tmp_path, "serve", "--demo"))
    assert "does not exist" in refused(kirostream(tmp_path, "serve", "--demo", "--config", str(tmp_path / "none")))
    assert "cannot be read" in refused(kirostream(tmp_path, "serve", "--demo", "--config", str(tmp_path)))


def test_beyond_loopback_needs_a_key(tmp_path: Path) -> None:
    said = refused(kirostream(tmp_path, "serve", "--demo", "--host", "0.0.0.0", "--port", "0"))
    assert "--key" in said
    assert "0.0.0.0" in said


def test_a_host_that_is_not_ours(tmp_path: Path) -> None:
    assert "203.0.113.7" in refused(kirostream(tmp_path, "serve", "--demo", "--host", "203.0.113.7", "--key", "k"))


def test_a_proxy_that_is_none(tmp_path: Path) -> None:
    assert "proxy" in refused(kirostream(tmp_path, "serve", "--demo", "--port", "0", VPN_PROXY_URL="nonsense")).lower()


def test_version(tmp_path: Path) -> None:
    done = kirostream(tmp_path, "version")
    assert re.match(r"kirostream \d+\.\d+\.\d+ \(event stream core: (compiled|python), Python 3", done.stdout)


def start(tmp: Path, *arguments: str, **env: str) -> tuple[subprocess.Popen[str], str, str]:
    """Start a server.

    Returns:
        The process, its URL, and what it printed up to the curl lines' end.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "kirostream", *arguments],
        env=clean_env(tmp, **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    banner = ""
    for line in process.stdout:
        banner += line
        if "Ctrl-C" in line or "simulates" in line:
            break
    found = re.search(r"http://127\.0\.0\.1:\d+", banner)
    assert found, banner
    return process, found[0], banner


def stop(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    return process.returncode


def test_the_printed_lines_work_when_pasted(tmp_path: Path) -> None:
    process, url, banner = start(tmp_path, "serve", "--demo", "--port", "0")
    try:
        lines = [line for line in banner.splitlines() if line.startswith("curl ")]
        assert len(lines) == 3
        for line in lines:
            done = subprocess.run(["sh", "-c", f"{line} -sS"], capture_output=True, text=True, timeout=20, check=False)
            assert done.returncode == 0, done.stderr
            if "/v1/models" in line:
                assert json.loads(done.stdout)["data"]
            else:
                assert done.stdout.count("data: ") > 10
                assert "error" not in done.stdout
        assert urllib.request.urlopen(f"{url}/health").status == 200
    finally:
        assert stop(process) == 0
    key_file = tmp_path / "data" / "key"
    assert key_file.read_text().strip() in banner
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_a_simulator_of_its_own_and_a_gateway_on_it(tmp_path: Path) -> None:
    simulator, upstream, _ = start(tmp_path, "simulate", "--port", "0")
    ide_file(tmp_path, **simulated_token(upstream))
    gateway, url, banner = start(
        tmp_path, "serve", "--port", "0", KIROSTREAM_KIRO_ENDPOINT=upstream, KIROSTREAM_KEEPER_HOSTS_SOCIAL=upstream
    )
    try:
        assert "kiro-auth-token.json" in banner
        key = (tmp_path / "data" / "key").read_text().strip()
        assert key in banner
        body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "[[say:both]]"}]}
        ask = urllib.request.Request(f"{url}/v1/messages", json.dumps(body).encode(), {"x-api-key": key})
        answer = json.load(urllib.request.urlopen(ask))
        assert answer["content"] == [{"type": "text", "text": "both"}]
        rotated = json.loads((tmp_path / ".aws/sso/cache/kiro-auth-token.json").read_text())
        assert rotated["accessToken"] != "expired"
    finally:
        assert stop(gateway) == 0
        assert stop(simulator) == 0
    again, _, banner = start(tmp_path, "serve", "--demo", "--port", "0")
    stop(again)
    gateway, _, banner = start(tmp_path, "serve", "--port", "0", KIROSTREAM_KIRO_ENDPOINT=upstream)
    stop(gateway)
    assert key not in banner, "the key is shown once"
    assert "cat" in banner


def simulated_token(upstream: str) -> dict[str, object]:
    """An IDE token file whose access token has expired, and whose refresh token the simulator takes."""
    return {
        "accessToken": "expired",
        "refreshToken": "aor-simulated-refresh-token",
        "expiresAt": "2020-01-01T00:00:00.000Z",
        "authMethod": "social",
        "provider": "Google",
        "profileArn": "arn:aws:codewhisperer:us-east-1:111122223333:profile/EXAMPLE",
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(number: signal.Signals, tmp_path: Path) -> None:
    process, _, _ = start(tmp_path, "serve", "--demo", "--port", "0")
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_the_session_gateway_is_healthy(gateway: Running) -> None:
    answer = json.load(urllib.request.urlopen(f"{gateway.url}/health"))
    assert answer["status"] == "ok"
