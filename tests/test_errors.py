"""What an error says, whatever it was made of."""

from __future__ import annotations

import pytest

from kirostream.errors import UpstreamFault, without_literals, without_tokens

TOKEN = "aor" + "x1Y2" * 20


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"Bad token {TOKEN}.", "Bad token ****"),
        (f'"{TOKEN}"', '"****"'),
        (f"['ksk_{'a' * 40}']", "['****']"),
        (f"eyJ{'a' * 30}.{'b' * 30}.{'c' * 30} has ended", "**** has ended"),
        ("no route to http://me:pass@host:9/", "no route to http://****@host:9/"),
        ("no route to socks5://token@host", "no route to socks5://****@host"),
        ("mail me@example.com, see http://host/@me", "mail me@example.com, see http://host/@me"),
        ("aorta and eyJ are words; so is aoa", "aorta and eyJ are words; so is aoa"),
        ("arn:aws:codewhisperer:us-east-1:111122223333:profile/EXAMPLE", "=="),
        ("the model claude-sonnet-4.5 is not on this account", "=="),
    ],
)
def test_tokens_are_masked_and_words_are_not(said: str, told: str) -> None:
    told = said if told == "==" else told
    assert without_tokens(said) == told
    error = UpstreamFault(said)
    assert error.message == str(error) == told
    assert TOKEN not in repr(error)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("illegal header line: bytearray(b'authorization x')", "illegal header line"),
        ("Illegal header value b'Bearer x\\n'", "Illegal header value"),
        ('Illegal header value b"it\'s"', "Illegal header value"),
        ("Receive buffer too long", "Receive buffer too long"),
        ("don't, it's said", "don't, it's said"),
    ],
)
def test_what_was_on_the_wire_is_cut_out(said: str, told: str) -> None:
    assert without_literals(said) == told
