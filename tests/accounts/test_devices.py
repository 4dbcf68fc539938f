"""A device an account, made once and never shared."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
import trio

from kirostream.accounts.account import AccountId
from kirostream.accounts.devices import Devices, random_machine_id, read_machine_id
from kirostream.errors import StoreError

ONE, TWO = AccountId("ide-1"), AccountId("cli-2")


async def test_an_identity_is_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    made = await Devices(folder).machine_id(ONE)
    assert re.fullmatch(r"[0-9a-f]{64}", made)
    assert await Devices(folder).machine_id(ONE) == made
    assert await Devices(folder).machine_id(TWO) != made
    assert stat.S_IMODE((folder / "devices.json").stat().st_mode) == 0o600
    assert json.loads((folder / "devices.json").read_bytes())["machines"][ONE] == made


async def test_processes_that_ask_at_once_get_the_same(tmp_path: Path) -> None:
    got: list[str] = []

    async def ask() -> None:
        got.append(await Devices(tmp_path).machine_id(ONE))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert len(set(got)) == 1


async def test_an_imported_identity_is_taken_unless_another_account_has_it(tmp_path: Path) -> None:
    devices = Devices(tmp_path)
    theirs = random_machine_id()
    assert await devices.machine_id(ONE, theirs.upper()) == theirs
    assert await devices.machine_id(TWO, theirs) != theirs
    assert await devices.machine_id(ONE, random_machine_id()) == theirs
    assert len(await devices.machine_id(AccountId("x"), "nonsense")) == 64


@pytest.mark.parametrize(
    ("text", "machine"),
    [
        ("ab" * 32, "ab" * 32),
        (" " + "AB" * 32 + "\n", "ab" * 32),
        ("00112233-4455-6677-8899-aabbccddeeff", "00112233445566778899aabbccddeeff" * 2),
        ("", None),
        ("ab" * 31, None),
        ("zz" * 32, None),
    ],
)
def test_imported_identities_are_checked(text: str, machine: str | None) -> None:
    assert read_machine_id(text) == machine


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"machines":[]}', '{"machines":{"ide-1":"short"}}', '{"machines":{"a":1}}']
)
async def test_a_damaged_file_is_told_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "devices.json").write_text(content)
    with pytest.raises(StoreError, match="is damaged"):
        await Devices(tmp_path).machine_id(ONE)
    assert (tmp_path / "devices.json").read_text() == content
