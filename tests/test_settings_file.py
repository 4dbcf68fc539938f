"""Settings as people see and change them: where each comes from, and what a change of the file does."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

import kirostream
from kirostream.errors import SettingsError, StoreError
from kirostream.settings import Leaf, Settings, Sources, leaves, load, value_of, with_values
from kirostream.settings_docs import page
from kirostream.settings_file import MASK, Change, SettingsEditor, doubtful, problems

DOCS = Path(kirostream.__file__).parents[1] / "docs" / "settings.md"

FILE = """\
# Ours.
[server]
port = 8123  # not the usual one
key = "ks-secret"

[relay.deadlines]
idle = 200
"""


@pytest.fixture
def env(tmp_path: Path) -> Mapping[str, str]:
    (tmp_path / "kirostream.toml").write_text(FILE)
    return {"KIROSTREAM_CONFIG_DIR": str(tmp_path), "LOG_LEVEL": "debug"}


def text(env: Mapping[str, str]) -> str:
    return (Path(env["KIROSTREAM_CONFIG_DIR"]) / "kirostream.toml").read_text()


def write(env: Mapping[str, str], said: str) -> None:
    (Path(env["KIROSTREAM_CONFIG_DIR"]) / "kirostream.toml").write_text(said)


def test_the_page_is_up_to_date() -> None:
    assert DOCS.read_text() == page(), "run: kirostream settings docs > docs/settings.md"


def test_every_setting_says_what_it_does() -> None:
    mute = [leaf.name for leaf in leaves() if not leaf.help.endswith((".", ")"))]
    assert mute == []


def test_where_each_value_comes_from(env: Mapping[str, str]) -> None:
    editor = SettingsEditor(Sources(env, arguments={"server.host": "127.0.0.5", "server.grace": None}))
    shown = {each.name: each for each in editor.show()}
    assert list(shown) == [leaf.name for leaf in leaves()]
    file = editor.path
    assert (shown["server.port"].value, shown["server.port"].origin) == (8123, f"{file}, line 3")
    assert (shown["relay.deadlines.idle"].value, shown["relay.deadlines.idle"].origin) == (200.0, f"{file}, line 7")
    assert (shown["log.level"].value, shown["log.level"].origin) == ("debug", "LOG_LEVEL")
    assert (shown["server.host"].value, shown["server.host"].origin) == ("127.0.0.5", "the command line")
    assert (shown["server.grace"].value, shown["server.grace"].origin) == (30.0, "the defaults")
    assert shown["server.grace"].unit == "s"
    assert shown["relay.deadlines.idle"].variable == "KIROSTREAM_RELAY_DEADLINES_IDLE"


def test_secrets_are_masked(env: Mapping[str, str]) -> None:
    write(env, FILE + "[pool.accounts.'*']\nproxy = 'http://me:hunter2@p'\n")
    editor = SettingsEditor(Sources(env))
    assert editor.one("server.key").value == editor.one("server.key").acts == MASK
    assert editor.one("pool.accounts").value == MASK
    assert editor.one("account.refresh_token").value == ""  # one that is not set is shown so
    everything = repr(editor.show()) + repr(editor) + repr(editor.acting)
    assert "ks-secret" not in everything
    assert "hunter2" not in everything


def test_a_name_that_is_none_has_a_nearest_one(env: Mapping[str, str]) -> None:
    editor = SettingsEditor(Sources(env))
    with pytest.raises(SettingsError, match=r"no setting 'server\.prot'\. Did you mean 'server\.port'"):
        editor.one("server.prot")
    with pytest.raises(SettingsError, match=r"no setting 'hold_head'\. Did you mean 'server\.stream\.hold_head'"):
        editor.one("hold_head")
    with pytest.raises(SettingsError, match="settings show"):
        editor.one("xyzzy")


async def test_a_setting_is_written_and_the_rest_stays(env: Mapping[str, str]) -> None:
    editor = SettingsEditor(Sources(env))
    assert await editor.set("server.port", "9000") == Change("server.port", "restart")
    assert text(env) == FILE.replace("8123", "9000")
    assert (editor.one("server.port").value, editor.one("server.port").acts) == (9000, 8123)
    await editor.set("server.port", None)
    assert text(env) == FILE.replace("port = 8123  # not the usual one\n", "")
    assert editor.one("server.port").value == 8000
    assert load(env) == load(env, path=editor.path)


async def test_what_does_not_fit_is_not_written(env: Mapping[str, str]) -> None:
    editor = SettingsEditor(Sources(env))
    for name, value, said in [
        ("server.port", "many", "takes a whole number, but the change says 'many'"),
        ("server.port", 70_000, "takes 0 to 65535"),
        ("relay.deadlines.idle", -1, "takes 0 or more"),
        ("relay.deadlines.idle", float("nan"), "takes 0 or more"),
        ("server.key", 7, "takes text, but the change says something else"),
        ("log.level", "loud", "debug, info, warning, error"),
        ("relay.models.aliases", "{ a = 1 }", "name of a model"),
        ("listen", "[]", "by hand"),
        ("server.prot", "1", "Did you mean"),
    ]:
        with pytest.raises(SettingsError, match=said):
            await editor.set(name, value)
        with pytest.raises(SettingsError, match=said):
            editor.check({name: value})
    assert text(env) == FILE
    editor.check({"server.port": 1, "relay.deadlines.idle": 2.5, "log.level": None})


async def test_a_broken_file_is_not_written_to(env: Mapping[str, str]) -> None:
    editor = SettingsEditor(Sources(env))
    for broken, said in [
        (FILE + "total = = 1\n", "not valid TOML.*line 8"),
        (FILE + "[sever]\nport = 1", r"'sever'.*line 8.*'server'"),
    ]:
        write(env, broken)
        with pytest.raises(SettingsError, match=said):
            await editor.set("server.port", 1)
        assert text(env) == broken
    write(env, FILE.replace("8123", "'x'"))  # the change itself mends it
    await editor.set("server.port", 1)
    assert "port = 1  # not the usual one" in text(env)


async def test_a_value_behind_a_variable_does_not_act(env: Mapping[str, str]) -> None:
    editor = SettingsEditor(Sources(env))
    assert await editor.set("log.level", "warning") == Change("log.level", "never", "LOG_LEVEL")
    assert editor.acting.log.level == "debug"


async def test_the_file_is_made_and_stays_its_owners(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    env = {"KIROSTREAM_CONFIG_DIR": str(folder)}
    editor = SettingsEditor(Sources(env))
    await editor.set("server.key", "ks-1")
    assert stat.S_IMODE(editor.path.stat().st_mode) == 0o600
    editor.path.chmod(0o640)
    await editor.set("server.key", "ks-2")
    assert stat.S_IMODE(editor.path.stat().st_mode) == 0o640
    assert load(env).server.key == "ks-2"


async def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    editor = SettingsEditor(Sources({"KIROSTREAM_CONFIG_DIR": str(tmp_path / "there")}))
    (tmp_path / "there").write_text("")  # no folder
    with pytest.raises(StoreError, match="there"):
        await editor.set("server.port", 1)
    assert editor.one("server.port").value == 8000


def test_check_lists_everything(env: Mapping[str, str]) -> None:
    write(
        env, "[server]\nport = 'x'\nprot = 1\n[relay.models]\naliases = { a = 1 }\n[[listen]]\nport = 1\nhosts = 'a'\n"
    )
    wrong = problems(Sources({**env, "SERVER_HOST": "h", "KIROSTREAM_MEDIA_PDF_PAGES": "few"}))
    assert [line for line in wrong if "line 3" in line and "'server.prot'" in line and "'server.port'" in line]
    assert [line for line in wrong if "line 2" in line and "whole number" in line]
    assert [line for line in wrong if "line 5" in line and "name of a model" in line]
    assert [line for line in wrong if "line 8" in line and "listen[1].hosts" in line]
    assert [line for line in wrong if "KIROSTREAM_MEDIA_PDF_PAGES says 'few'" in line]
    assert len(wrong) == 5
    with pytest.raises(SettingsError, match="lists all 4"):
        load(env)
    assert problems(Sources(env, Path(env["KIROSTREAM_CONFIG_DIR"]) / "none.toml"))[0].endswith("given to --config.")


def test_two_settings_that_contradict_each_other_are_told_of() -> None:
    assert doubtful(Settings()) == []
    (said,) = doubtful(
        with_values(Settings(), {"relay.deadlines.total": 60.0, "relay.deadlines.first_event": 10.0})
    ) or [""]
    assert (
        said
        == "relay.deadlines.idle is 300, and relay.deadlines.total is 60: a turn ends before its silence is too long."
    )


def other(leaf: Leaf) -> object:
    """Another value than the default."""
    match leaf.default:
        case bool():
            return not leaf.default
        case int() | float():
            return type(leaf.default)(leaf.default + 1)
    return None


@pytest.mark.parametrize("leaf", [leaf for leaf in leaves() if other(leaf) is not None], ids=lambda leaf: leaf.name)
def test_each_setting_can_be_written_and_read(leaf: Leaf, tmp_path: Path) -> None:
    env = {"KIROSTREAM_CONFIG_DIR": str(tmp_path)}
    editor = SettingsEditor(Sources(env))
    editor.check({leaf.name: other(leaf)})
    changed = editor._changed("", leaf.name, other(leaf))
    (tmp_path / "kirostream.toml").write_text(changed)
    assert value_of(load(env), leaf.name) == other(leaf)
