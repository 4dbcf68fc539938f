"""Addresses: what can be listened on, and what is said of what cannot."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import pytest
import trio

from kirostream.doors import check_exposure
from kirostream.errors import SettingsError
from kirostream.net.listen import AsgiSettings, ListenSettings, listening
from kirostream.settings import Settings, load


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "one of them"),
        ({"port": 1, "path": "/x"}, "one of them"),
        ({"port": 1, "fd": 3}, "one of them"),
        ({"port": 1, "door": "http3"}, "'http3'; it takes: http1, asgi"),
        ({"port": 1, "certfile": "c"}, "come together"),
        ({"port": 1, "certfile": "c", "keyfile": "k", "door": "http1"}, "spoken by the door asgi"),
    ],
)
def test_an_address_that_makes_no_sense(wrong: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        ListenSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=rf"'listen\[2\]' do not fit: .*{said}"):
        load({"KIROSTREAM_CONFIG_DIR": str(tmp_path)}, arguments={"listen": [{"port": 0}, wrong]})


def test_the_file_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "kirostream.toml").write_text(
        "[[listen]]\nhost = '0.0.0.0'\nport = 8443\ncertfile = 'c'\nkeyfile = 'k'\n[[listen]]\nfd = 3\ndoor = 'http1'\n"
    )
    env = {"KIROSTREAM_CONFIG_DIR": str(tmp_path)}
    first, second = load(env).listen
    assert (first.host, first.port, first.door) == ("0.0.0.0", 8443, "asgi")
    assert first.tls is not None
    assert (second.fd, second.door, second.tls) == (3, "http1", None)
    env["KIROSTREAM_LISTEN"] = "[{port = 9}]"
    assert load(env).listen == (ListenSettings(port=9),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[listen]\nport = 1", r"write \[\[listen\]\]"),
        ("[[listen]]\nprot = 1", r"'listen\[1\]\.prot' .*Did you mean 'listen\[1\]\.port'"),
        ("[[listen]]\nport = 'x'", r"'listen\[1\]\.port' takes a whole number"),
        ("[[listen]]\nport = 1\nkey_password = 7", r"key_password' takes text, .* says something else"),
    ],
)
def test_mistakes_are_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "kirostream.toml").write_text(text)
    with pytest.raises(SettingsError, match=said):
        load({"KIROSTREAM_CONFIG_DIR": str(tmp_path)})


def test_others_reach_it_only_with_a_chosen_key(tmp_path: Path) -> None:
    env = {"KIROSTREAM_CONFIG_DIR": str(tmp_path), "KIROSTREAM_LISTEN": "[{port = 0, host = '0.0.0.0'}]"}
    with pytest.raises(SettingsError, match=r"0\.0\.0\.0, which others can reach"):
        check_exposure(load(env))
    check_exposure(load({**env, "PROXY_API_KEY": "chosen"}))
    check_exposure(Settings(listen=(ListenSettings(port=0), ListenSettings(path="/x"))))


async def test_a_unix_socket_that_is_stale_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    entry = ListenSettings(path=path)
    async with listening(entry) as (listener,):
        assert listener.socket.getsockname() == path
        with pytest.raises(SettingsError, match="in use"):
            async with listening(entry):
                pass
        async with await trio.open_unix_socket(path):
            pass
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SettingsError, match="file"):
        async with listening(ListenSettings(path=str(tmp_path / "file"))):
            pass
    assert (tmp_path / "file").read_text() == "mine"


async def test_an_inherited_socket(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        address = given.getsockname()
        async with listening(ListenSettings(fd=given.dup().detach())) as (listener,):
            assert listener.socket.getsockname() == address
    with pytest.raises(SettingsError, match="descriptor 9999"):
        async with listening(ListenSettings(fd=9999)):
            pass


@pytest.mark.parametrize("cls", [AsgiSettings, ListenSettings])
def test_every_setting_says_what_it_is(cls: type) -> None:
    for setting in dataclasses.fields(cls):
        assert setting.metadata["help"].endswith((".", ")"))
