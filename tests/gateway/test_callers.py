"""Keys: where they are looked for, how they are made and kept."""

from __future__ import annotations

import hmac
import stat
from pathlib import Path

import pytest

from kirostream.errors import KeyRejected, NotAllowed, StoreError
from kirostream.gateway.callers import SCOPES, Caller, Callers, load_or_make_key
from kirostream.net.exchange import HttpRequest

CALLERS = Callers(["ks-right", "ks-other"])


def request(*headers: tuple[bytes, bytes]) -> HttpRequest:
    return HttpRequest("POST", "/v1/messages", "", headers)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer ks-right")],
        [(b"authorization", b"bearer ks-right")],
        [(b"x-api-key", b"ks-right")],
        [(b"api-key", b"ks-other")],
        [(b"x-api-key", b"wrong"), (b"authorization", b"Bearer ks-right")],
        [(b"authorization", b"Bearer wrong"), (b"x-api-key", b" ks-right ")],
        [(b"sec-websocket-protocol", b"realtime, openai-insecure-api-key.ks-right")],
    ],
)
def test_a_right_key_in_any_place(headers: list[tuple[bytes, bytes]]) -> None:
    caller = CALLERS.check(request(*headers))
    assert (caller.name, caller.owner, caller.scopes) == ("default", "default", SCOPES)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([], "No API key"),
        ([(b"authorization", b"Basic ks-right")], "No API key"),
        ([(b"authorization", b"Bearer")], "No API key"),
        ([(b"x-api-key", b"")], "No API key"),
        ([(b"sec-websocket-protocol", b"realtime, ks-right")], "No API key"),
        ([(b"sec-websocket-protocol", b"openai-insecure-api-key.wrong")], "Incorrect API key"),
        ([(b"x-api-key", b"ks-righ")], "Incorrect API key"),
        ([(b"authorization", b"Bearer ks-rightx")], "Incorrect API key"),
    ],
)
def test_a_wrong_key(headers: list[tuple[bytes, bytes]], said: str) -> None:
    with pytest.raises(KeyRejected, match=said) as caught:
        CALLERS.check(request(*headers))
    assert "ks-right" not in caught.value.message


@pytest.mark.parametrize("offered", [b"ks-right", b"ks-other", b"ks-third", b"ks-wrong", b"k", b"ks-right-and-more"])
def test_each_key_is_compared_in_constant_time_and_to_its_end(offered: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing hangs on which key it is, nor on how much of it is right: no comparison is left out."""
    compared: list[tuple[bytes, bytes]] = []

    def constant(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    compare_digest = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", constant)
    callers = Callers(["ks-right", "ks-other"], internal="ks-third", admit=lambda headers: "")
    try:
        callers.check(request((b"x-api-key", offered), (b"authorization", b"Bearer x")))
    except KeyRejected:
        assert offered not in (b"ks-right", b"ks-other", b"ks-third")
    keys = (b"ks-right", b"ks-other", b"ks-third")
    assert sorted(compared) == sorted((key, each) for key in keys for each in (offered, b"x"))


def test_no_key_is_ever_right_by_default() -> None:
    with pytest.raises(KeyRejected):
        Callers([""]).check(request((b"x-api-key", b"")))


def test_the_key_is_made_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    key, new = load_or_make_key(folder)
    assert new
    assert len(key) > 40
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert load_or_make_key(folder) == (key, False)


def test_an_empty_key_file_gets_a_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")
    key, new = load_or_make_key(tmp_path)
    assert new
    assert key


def test_a_key_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(StoreError, match="key"):
        load_or_make_key(tmp_path)


def test_a_key_does_not_show_itself() -> None:
    assert "ks-right" not in repr(CALLERS)


def test_what_a_key_may_do() -> None:
    callers = Callers(["ks-right"], internal="ks-front", admit=lambda headers: "guest-1")
    own, front = request((b"x-api-key", b"ks-right")), request((b"x-api-key", b"ks-front"))
    for scope in SCOPES:
        assert callers.check(own, scope).owner == "default"
    assert callers.check(front) == callers.check(front, "watch", "api")
    assert (callers.check(front).name, callers.check(front).owner) == ("internal", "default")
    with pytest.raises(NotAllowed, match="'internal' may not do this: it takes a key with the scope admin"):
        callers.check(front, "admin")


def test_whose_turns_a_key_sees_and_ends() -> None:
    def caller(*scopes: str, account: str = "") -> Caller:
        return Caller("ci", "key-1", account, frozenset(scopes))

    for owner, scopes, sees, rules in [
        ("key-1", ["api"], True, True),
        ("key-2", ["api"], False, False),
        ("key-2", ["watch"], True, False),
        ("key-2", ["admin"], False, True),
        ("default", ["api", "watch", "admin"], True, True),
        ("guest-1", ["api", "watch", "admin"], False, False),
    ]:
        assert (caller(*scopes).sees(owner), caller(*scopes).rules(owner)) == (sees, rules), (owner, scopes)
    guest = caller("api", "watch", account="guest-1")
    assert (guest.sees("guest-1"), guest.sees("guest-2"), guest.sees("key-2")) == (True, False, False)


def test_who_brings_an_account_owns_what_comes_of_it() -> None:
    callers = Callers(["ks-right"], internal="ks-front", admit=lambda headers: "guest-1")
    caller = callers.check(request((b"x-api-key", b"ks-front"), (b"x-kiro-refresh-token", b"r")))
    assert (caller.name, caller.account, caller.owner) == ("internal", "guest-1", "guest-1")
