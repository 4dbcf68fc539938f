"""`kirostream login` and `kirostream accounts`, as a person runs them; no secret is ever printed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.conftest import clean_env
from e2e.test_cli import kirostream, refused, start, stop

PLANTED = "aorPLANTED" + "s" * 200


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings that lead to a simulator of its own."""
    process, url, _ = start(tmp_path, "simulate", "--port", "0")
    names = ("KIRO_ENDPOINT", "KEEPER_HOSTS_SOCIAL", "KEEPER_HOSTS_OIDC", "KEEPER_HOSTS_PORTAL")
    yield {f"KIROSTREAM_{name}": url for name in names}
    stop(process)


def log_in(tmp: Path, env: dict[str, str], *how: str, who: str) -> str:
    """Sign in as a person would: open the page that is shown."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kirostream", "login", *how],
        env=clean_env(tmp, **env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if found := re.match(r"\s+(http://\S+)", line):
            opener = urllib.request.build_opener(Stay)
            answer = opener.open(f"{found[1]}&as={who}")
            if answer.status == 302:
                urllib.request.urlopen(answer.headers["location"])
            break
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0, said + rest
    return said + rest


class Stay(urllib.request.HTTPRedirectHandler):
    """A browser that shows where it is sent to."""

    def http_error_302(self, req, fp, code, msg, headers):  # type: ignore[no-untyped-def]
        return fp


def test_from_a_sign_in_to_another_programs_file(tmp_path: Path, upstream: dict[str, str]) -> None:
    said = log_in(tmp_path, upstream, "--social", "google", "--browser", who="ann")
    assert "Signed in: a***@example.com (Google)" in said
    assert "Next: kirostream serve" in said
    said += log_in(tmp_path, upstream, "--builder-id", "--name", "mine", who="bob")

    def run(*arguments: str, code: int = 0) -> str:
        nonlocal said
        done = kirostream(tmp_path, "accounts", *arguments, **upstream)
        said += done.stdout + done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    listed = json.loads(run("list", "--json"))["accounts"]
    assert [(each["label"], each["enabled"]) for each in listed] == [
        ("a***@example.com (Google)", True),
        ("mine", True),
    ]
    assert "mine" in run("list")
    (ann, mine) = json.loads(run("usage", "--json"))
    assert (ann["plan"], ann["limit"], mine["allowances"]) == ("KIRO PRO", 1100, [])
    assert run("test").count("works: ") == 2
    assert "https://checkout.simulated.invalid/" in run("subscribe", "a", "--plan", "kiro_pro")
    run("disable", "mine")
    assert re.search(r"mine +disabled", run("list"))
    env_file = tmp_path / "peer.env"
    assert "added:" in run("sync", str(env_file), "--format", "env")
    (tmp_path / "theirs.json").write_text(json.dumps([{"refreshToken": PLANTED, "authMethod": "social"}]))
    assert "1 added" in run("import", str(tmp_path / "theirs.json"))
    (tmp_path / "broken.json").write_text(f'[{{"refreshToken":"{PLANTED}" oops')
    run("import", str(tmp_path / "broken.json"), "--format", "kiro-rs", code=2)
    run("export", str(tmp_path / "all.json"), "--format", "kiro-rs")
    secrets = re.findall(r'"(?:refreshToken|accessToken|clientSecret)": "([^"]+)"', (tmp_path / "all.json").read_text())
    assert PLANTED in secrets
    assert len(secrets) >= 6
    assert [secret for secret in secrets if secret in said] == []
    assert [secret for secret in ("ann@example.com", "bob@example.com") if secret in said] == []


def test_a_sign_in_without_saying_how(tmp_path: Path) -> None:
    assert "--builder-id" in refused(kirostream(tmp_path, "login"))
    assert "google or github" in refused(kirostream(tmp_path, "login", "--social", "facebook"))
    assert "--creds-file" in refused(kirostream(tmp_path, "accounts", "add"))
