"""Who is let into the admin room, and how often somebody may guess."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from kirostream.admin.errors import TooManyTries, word
from kirostream.admin.guard import OWN, Guard, Tries
from kirostream.admin.password import FILE, PasswordFile, hashed, verified
from kirostream.admin.settings import AdminSettings
from kirostream.errors import KeyRejected, NotAllowed, SettingsError, StoreError
from kirostream.gateway import callers
from kirostream.net.exchange import Headers, HttpRequest

PASSWORD = "correct horse battery"
HASHED = hashed(PASSWORD)


class Ring:
    """Two keys."""

    def admin(self, key: str) -> str:
        return {"own-key": OWN, "ops-key": "ops"}.get(key, "")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def asking(
    method: str = "GET", *headers: tuple[bytes, bytes], peer: str = "10.0.0.1:5", tls: bool = False
) -> HttpRequest:
    fields: Headers = headers
    return HttpRequest(method, "/admin/api/status", "", fields, peer, tls)


def bearer(key: str) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + key.encode()


def made(tmp_path: Path, *, stored: str = "", **settings: float | str) -> tuple[Guard, Clock, PasswordFile]:
    clock, file = Clock(), PasswordFile(tmp_path)
    if stored:
        file.write(stored)
    return Guard(AdminSettings(**settings), file, Ring(), "here", clock), clock, file  # type: ignore[arg-type]


async def logged_in(guard: Guard, password: str = "own-key", **how: str | bool) -> tuple[bytes, bytes, str]:
    """The cookie of a new session, and its token."""
    who, cookie = await guard.log_in(asking("POST", **how), password)  # type: ignore[arg-type]
    return b"cookie", cookie.partition(";")[0].encode(), who.csrf


def test_a_password_is_kept_as_what_scrypt_makes_of_it(tmp_path: Path) -> None:
    file = PasswordFile(tmp_path / "new")
    assert (file.read(), file.version()) == ("", ())
    file.write(HASHED)
    kept = tmp_path / "new" / FILE
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert PASSWORD not in kept.read_text()
    assert verified(PASSWORD, file.read())
    assert not verified(PASSWORD + "x", file.read())
    assert hashed(PASSWORD) != HASHED, "a salt of its own"
    assert file.remove()
    assert not file.remove()


@pytest.mark.parametrize("password", ["", "short", "x" * 2000])
def test_a_password_has_a_length(password: str) -> None:
    with pytest.raises(SettingsError, match="8 to 1024"):
        hashed(password)


@pytest.mark.parametrize(
    "stored", ["nonsense", "scrypt$1$2", "bcrypt$1$8$1$00$00", "scrypt$3$8$1$00$00", "scrypt$a$b$c$d$e"]
)
def test_a_damaged_file_is_said_to_be_damaged(stored: str) -> None:
    with pytest.raises(StoreError, match="kirostream admin password"):
        verified(PASSWORD, stored)


def test_the_own_key_has_the_name_that_the_gateway_gives_it() -> None:
    assert callers.OWN == OWN


def test_a_key_comes_with_the_request(tmp_path: Path) -> None:
    guard, _, _ = made(tmp_path)
    assert guard.check(asking("GET", bearer("own-key"))).name == OWN
    assert guard.check(asking("POST", (b"x-api-key", b"ops-key"))).name == "ops"
    for headers in (
        (),
        (bearer("wrong"),),
        ((b"authorization", b"Basic b3BzLWtleQ=="),),
        ((b"cookie", b"kirostream=x"),),
    ):
        with pytest.raises(KeyRejected):
            guard.check(asking("GET", *headers))


async def test_a_session_is_a_cookie_and_a_token(tmp_path: Path) -> None:
    guard, clock, _ = made(tmp_path, session=60.0)
    who, cookie = await guard.log_in(asking("POST"), "ops-key")
    pair, *attributes = cookie.split("; ")
    assert attributes == ["Path=/admin", "HttpOnly", "SameSite=Strict", "Max-Age=60"]
    held = (b"cookie", f"other=1; {pair}".encode())
    assert guard.check(asking("GET", held)) == who
    assert guard.check(asking("POST", held, (b"x-csrf-token", who.csrf.encode()))) == who
    for token in ((), ((b"x-csrf-token", b"x"),), ((b"x-csrf-token", b""),)):
        with pytest.raises(NotAllowed, match="X-CSRF-Token"):
            guard.check(asking("DELETE", held, *token))
    clock.now += 61
    with pytest.raises(KeyRejected):
        guard.check(asking("GET", held))


async def test_a_cookie_over_tls_stays_on_tls(tmp_path: Path) -> None:
    guard, _, _ = made(tmp_path)
    for request in (asking("POST", tls=True), asking("POST", (b"x-forwarded-proto", b"https"))):
        assert (await guard.log_in(request, "own-key"))[1].endswith("; Secure")


async def test_logging_out_ends_the_session(tmp_path: Path) -> None:
    guard, _, _ = made(tmp_path)
    *held, _ = await logged_in(guard)
    cookie = (held[0], held[1])
    assert "Max-Age=0" in guard.log_out(asking("DELETE", cookie))
    with pytest.raises(KeyRejected):
        guard.check(asking("GET", cookie))
    guard.log_out(asking("DELETE"))


async def test_sessions_are_bounded(tmp_path: Path) -> None:
    guard, _, _ = made(tmp_path, sessions=2)
    cookies = [(await logged_in(guard))[:2] for _ in range(3)]
    with pytest.raises(KeyRejected):
        guard.check(asking("GET", cookies[0]))
    assert [guard.check(asking("GET", each)).name for each in cookies[1:]] == [OWN, OWN]


async def test_with_a_password_the_own_key_opens_nothing_here(tmp_path: Path) -> None:
    guard, _, _ = made(tmp_path, stored=HASHED)
    with pytest.raises(KeyRejected, match="own key opens nothing"):
        guard.check(asking("GET", bearer("own-key")))
    with pytest.raises(KeyRejected):
        await guard.log_in(asking("POST"), "own-key")
    assert guard.check(asking("GET", bearer("ops-key"))).name == "ops"
    assert (await guard.log_in(asking("POST"), PASSWORD))[0].name == "admin"
    assert (await guard.log_in(asking("POST"), "ops-key"))[0].name == "ops"


async def test_the_password_of_the_settings_wins(tmp_path: Path) -> None:
    guard, _, _ = made(tmp_path, stored=HASHED, password="from the settings")
    assert (await guard.log_in(asking("POST"), "from the settings"))[0].name == "admin"
    with pytest.raises(KeyRejected):
        await guard.log_in(asking("POST"), PASSWORD)


async def test_another_password_ends_the_sessions(tmp_path: Path) -> None:
    guard, _, file = made(tmp_path)
    *held, _ = await logged_in(guard)
    file.write(HASHED)
    with pytest.raises(KeyRejected):
        guard.check(asking("GET", (held[0], held[1])))


async def test_guesses_are_counted_by_address(tmp_path: Path) -> None:
    guard, clock, _ = made(tmp_path, tries=3, window=100.0)
    for _ in range(3):
        with pytest.raises(KeyRejected):
            await guard.log_in(asking("POST"), "wrong")
        clock.now += 10
    with pytest.raises(TooManyTries) as refused:
        await guard.log_in(asking("POST"), "own-key")
    assert refused.value.retry_after == 70.0, "the first of three ends 100 s after it came"
    status, headers, _ = word(refused.value)
    assert (status, dict(headers)[b"retry-after"]) == (429, b"70")
    await guard.log_in(asking("POST", peer="10.0.0.2:1"), "own-key")
    clock.now += 70
    await guard.log_in(asking("POST"), "own-key")


async def test_guesses_from_everywhere_are_counted_together(tmp_path: Path) -> None:
    guard, _, _ = made(tmp_path, tries=1)
    for n in range(10):
        with pytest.raises(KeyRejected):
            await guard.log_in(asking("POST", peer=f"10.0.1.{n}:1"), "wrong")
    with pytest.raises(TooManyTries):
        await guard.log_in(asking("POST", peer="10.9.9.9:1"), "own-key")


def test_tries_forget_who_is_quiet_and_who_was_right() -> None:
    clock = Clock()
    tries = Tries(2, 10.0, clock)
    for n in range(3000):
        tries.failed(f"host {n}")
    assert repr(tries) == "<Tries of 1024 addresses>"
    tries.failed("host 2999")
    assert tries.wait("host 2999") == 10.0
    tries.forget("host 2999")
    assert tries.wait("host 2999") == 0.0


@pytest.mark.parametrize(("name", "value"), [("session", 0.0), ("window", -1.0), ("sessions", 0), ("tries", 0)])
def test_settings_that_cannot_be(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"admin.{name}"):
        AdminSettings(**{name: value})  # type: ignore[arg-type]


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    guard, _, file = made(tmp_path, password=PASSWORD)
    shown = f"{guard!r} {file!r} {AdminSettings(password=PASSWORD)!r} {asking('GET', bearer('own-key'))!r}"
    assert PASSWORD not in shown
    assert "own-key" not in shown
