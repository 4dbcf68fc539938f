"""Settings: where they come from, who wins, and what is said of the ones that cannot be used."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import pytest

from kirostream.errors import SettingsError
from kirostream.settings import LEGACY, Settings, config_file, data_dir, load, unread


def write(tmp_path: Path, text: str) -> dict[str, str]:
    (tmp_path / "kirostream.toml").write_text(text)
    return {"KIROSTREAM_CONFIG_DIR": str(tmp_path)}


def test_defaults(tmp_path: Path) -> None:
    settings = load({"KIROSTREAM_CONFIG_DIR": str(tmp_path)})
    assert settings == Settings()
    assert (settings.server.host, settings.server.port, settings.server.key) == ("127.0.0.1", 8000, "")


def test_priority_is_arguments_environment_file_defaults(tmp_path: Path) -> None:
    env = write(tmp_path, "[server]\nport = 1111\nhost = '127.0.0.2'\nkey = 'file'\n")
    assert load(env).server.port == 1111
    env["SERVER_PORT"] = "2222"
    assert load(env).server.port == 2222
    env["KIROSTREAM_SERVER_PORT"] = "3333"
    assert load(env).server.port == 3333
    settings = load(env, arguments={"server.port": 4444, "server.key": None})
    assert (settings.server.port, settings.server.host, settings.server.key) == (4444, "127.0.0.2", "file")


def test_nested_sections_and_tables(tmp_path: Path) -> None:
    env = write(
        tmp_path,
        "[relay.deadlines]\nidle = 5\n[relay.models]\naliases = { gpt-5 = 'claude-sonnet-4.5' }\n"
        "[relay.models.fallbacks]\n'claude-opus-4.5' = ['claude-sonnet-4.5']\n"
        "[server.stream]\nheartbeat = 2.5\n",
    )
    settings = load(env)
    assert settings.relay.deadlines.idle == 5.0
    assert settings.relay.models.aliases == {"gpt-5": "claude-sonnet-4.5"}
    assert settings.relay.models.fallbacks == {"claude-opus-4.5": ["claude-sonnet-4.5"]}
    assert settings.server.stream.heartbeat == 2.5


@pytest.mark.parametrize(
    ("variable", "value", "name", "read"),
    [
        ("PROXY_API_KEY", "secret", "server.key", "secret"),
        ("SERVER_HOST", "127.0.0.9", "server.host", "127.0.0.9"),
        ("SERVER_PORT", "81", "server.port", 81),
        ("KIRO_CREDS_FILE", "/c", "account.creds_file", "/c"),
        ("KIRO_CLI_DB_FILE", "/d", "account.cli_db_file", "/d"),
        ("REFRESH_TOKEN", "rt", "account.refresh_token", "rt"),
        ("PROFILE_ARN", "arn", "account.profile_arn", "arn"),
        ("KIRO_REGION", "eu-west-1", "account.region", "eu-west-1"),
        ("VPN_PROXY_URL", "socks5://p:1", "upstream.proxy", "socks5://p:1"),
        ("FIRST_TOKEN_TIMEOUT", "15", "relay.deadlines.first_event", 15.0),
        ("STREAMING_READ_TIMEOUT", "9.5", "relay.deadlines.idle", 9.5),
        ("FAKE_REASONING_ENABLED", "true", "relay.filters.thinking_tags", True),
        ("FAKE_REASONING_MAX_TOKENS", "9000", "relay.filters.thinking_budget", 9000),
        ("FAKE_REASONING_HANDLING", "strip_tags", "relay.filters.thinking_handling", "strip_tags"),
        ("TRUNCATION_RECOVERY", "false", "relay.filters.truncation_recovery", False),
        ("LOG_LEVEL", "DEBUG", "log.level", "DEBUG"),
    ],
)
def test_variables_of_earlier_tools(variable: str, value: str, name: str, read: object, tmp_path: Path) -> None:
    found: object = load({"KIROSTREAM_CONFIG_DIR": str(tmp_path), variable: value})
    for part in name.split("."):
        found = getattr(found, part)
    assert found == read
    assert LEGACY[variable] == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1", r"Unknown setting 'server\.prot' .*kirostream\.toml.* Did you mean 'server\.port'"),
        ("[sever]\nport = 1", "Did you mean 'server'"),
        ("[server]\nport = 'many'", r"'server\.port' takes a whole number.*'many'"),
        ("[server]\nport = true", "whole number"),
        ("[server]\nport = 1.5", "whole number"),
        ("[server]\nkey = 7", "takes text"),
        ("[upstream]\nverify = 'perhaps'", "true or false"),
        ("server = 3", r"is a section: write \[server\]"),
        ("[server\nport = 1", "not valid TOML.*line"),
        ("[log]\nlevel = 'loud'", "log.level is 'loud'"),
        ("[server]\nchat_thoughts = 'tags'", "server.*'tags'.*reasoning_content, thinking, think"),
        ("[relay.filters]\nagentic = true", r"relay\.filters\.agentic' takes text"),
        ("[relay.filters]\nagentic = 'on'", "relay.filters.*'on'.*off, name, tools"),
        ("[relay.models]\naliases = { a = 1 }", "relay.models.*'a'.*name of a model"),
        ("[relay.models]\nfallbacks = { a = 'b' }", "relay.models.*'a'.*list of names"),
        ("[relay.filters]\nthinking_handling = 'hide'", "relay.filters.*'hide'.*as_reasoning, remove, pass, strip"),
    ],
)
def test_what_cannot_be_used_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=said):
        load(write(tmp_path, text))


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SERVER_PORT says 'x'"):
        load({"KIROSTREAM_CONFIG_DIR": str(tmp_path), "SERVER_PORT": "x"})


@pytest.mark.parametrize("written", ["a = 'b', \"c.d\" = 'e'", "{ a = 'b', \"c.d\" = 'e' }"])
def test_a_table_in_a_variable(written: str, tmp_path: Path) -> None:
    env = {"KIROSTREAM_CONFIG_DIR": str(tmp_path), "KIROSTREAM_RELAY_MODELS_ALIASES": written}
    assert load(env).relay.models.aliases == {"a": "b", "c.d": "e"}
    with pytest.raises(SettingsError, match="KIROSTREAM_RELAY_MODELS_ALIASES says 'a: b'"):
        load({**env, "KIROSTREAM_RELAY_MODELS_ALIASES": "a: b"})


def test_variables_that_nothing_reads_are_named() -> None:
    env = {
        **dict.fromkeys(LEGACY, "1"),
        "PATH": "/bin",
        "KIROSTREAM_DATA_DIR": "/d",
        "KIROSTREAM_SERVER_PORT": "1",
        "KIROSTREAM_SERVER_PROT": "1",
        "FAKE_REASONING_OPEN_TAGS": "<x>",
    }
    first, second = unread(env)
    assert first == "FAKE_REASONING_OPEN_TAGS is set, and no setting reads it."
    assert second == "KIROSTREAM_SERVER_PROT is set, and no setting reads it. Did you mean KIROSTREAM_SERVER_PORT?"


def test_a_file_that_was_asked_for_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load({}, path=tmp_path / "none.toml")


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load({}, path=tmp_path)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "kirostream.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="UTF-8"):
        load({"KIROSTREAM_CONFIG_DIR": str(tmp_path)})


def test_directories_can_be_overridden(tmp_path: Path) -> None:
    assert data_dir({"KIROSTREAM_DATA_DIR": str(tmp_path)}) == tmp_path
    assert config_file({"KIROSTREAM_CONFIG_DIR": str(tmp_path)}) == tmp_path / "kirostream.toml"
    assert data_dir({}).name == "kirostream"


def fields_of(cls: type, prefix: str = "") -> list[tuple[str, dataclasses.Field[object]]]:
    hints = typing.get_type_hints(cls)
    found = []
    for each in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[each.name]):
            found += fields_of(typing.cast(type, hints[each.name]), f"{prefix}{each.name}.")
        else:
            found.append((prefix + each.name, each))
    return found


@pytest.mark.parametrize(
    ("name", "field"), fields_of(Settings), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_setting_says_what_it_is(name: str, field: dataclasses.Field[object]) -> None:
    assert field.metadata.get("help", "").endswith((".", ")")), f"{name} has no help"


def test_the_pool_and_its_accounts(tmp_path: Path) -> None:
    env = write(
        tmp_path,
        "[pool]\nstrategy = 'weighted'\n[pool.health]\ncooldown = 60\n"
        "[pool.accounts.'*']\nconcurrency = 4\n[pool.accounts.'a***@example.com (Google)']\nweight = 7\n",
    )
    pool = load(env).pool
    assert (pool.strategy, pool.health.cooldown) == ("weighted", 60.0)
    assert pool.accounts == {"*": {"concurrency": 4}, "a***@example.com (Google)": {"weight": 7}}
    with pytest.raises(SettingsError, match="concurrency"):
        load(write(tmp_path, "[pool.accounts.x]\nconcurency = 4\n"))
