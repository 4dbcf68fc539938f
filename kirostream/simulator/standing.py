"""How the accounts of the simulated service stand: what each is in for next, and a log of what each was told. Pure.

An account may be afflicted with one error until that ends, or have a script: what its next calls are answered with, in
order. After the script it is served as usual. A suspended account stays suspended.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from kirostream.dataclass import dataclass
from kirostream.dialects.dialect import Complaint
from kirostream.simulator.refusals import INJECTED, Refusal, denied, invalid

SERVED: Final = ""
"""In a script and in the log: no error."""

ERRORS: Final[Mapping[str, Refusal]] = {
    **INJECTED,
    "SUSPENDED": denied("Your account is temporarily suspended.", "TEMPORARILY_SUSPENDED"),
    "SUSPICIOUS": Refusal(429, Complaint("ThrottlingException", "", "We have detected suspicious activity.")),
    "DAY": Refusal(429, Complaint("ThrottlingException", "DAILY_REQUEST_COUNT", "You have reached the daily limit.")),
    "CAPACITY": Refusal(
        429, Complaint("ThrottlingException", "INSUFFICIENT_MODEL_CAPACITY", "The model has no capacity right now.")
    ),
    "MODEL": invalid("", "INVALID_MODEL_ID", "Invalid model. Please select a different model to continue."),
}
"""What an account can be told (kiro-protocol.md section 4.2). ``THROTTLE:20`` asks for a pause of 20 seconds too."""

LASTING: Final = frozenset({"SUSPENDED"})
"""Errors that never end."""


@dataclass(frozen=True, slots=True)
class Told:
    """One call: when (in the unit of the simulator's clock), of which account, and the error, empty for none."""

    at: float
    account: str
    error: str


def read_error(name: str) -> Refusal:
    """The refusal that a name of `ERRORS` stands for.

    Raises:
        KeyError: there is none.
        ValueError: the pause is no whole number.
    """
    kind, _, pause = name.partition(":")
    refusal = ERRORS[kind]
    return replace(refusal, retry_after=int(pause)) if pause else refusal


class Standing:
    """How all accounts stand.

    `log` is what they were told, oldest first, and `counts` the same by account and error. A call that is refused for
    what it asks counts as served here: nothing stood against its account.

    Args:
        room: calls that the log remembers.
    """

    def __init__(self, room: int = 4096) -> None:
        self._lasting: dict[str, str] = {}
        self._scripts: dict[str, deque[str]] = {}
        self.log: deque[Told] = deque(maxlen=room)
        self.counts: Counter[tuple[str, str]] = Counter()

    def __repr__(self) -> str:
        return f"<Standing: {self.counts.total()} calls, {len(self._lasting)} accounts with a lasting error>"

    def afflict(self, account: str, error: str | None) -> None:
        """Answer every call of `account` with an error; None ends it."""
        if error is None:
            self._lasting.pop(account, None)
        else:
            read_error(error)
            self._lasting[account] = error

    def script(self, account: str, errors: Sequence[str]) -> None:
        """Answer the next calls of `account` with these errors, in order; an empty name serves the call."""
        for error in errors:
            if error != SERVED:
                read_error(error)
        self._scripts[account] = deque(errors)

    def call(self, account: str, now: float) -> Refusal | None:
        """Another call of `account`: how it is refused, None if it is not."""
        script = self._scripts.get(account)
        error = self._lasting.get(account, SERVED)
        if not error and script:
            error = script.popleft()
            if error in LASTING:
                self._lasting[account] = error
        kind = error.partition(":")[0]
        self.log.append(Told(now, account, kind))
        self.counts[account, kind] += 1
        return read_error(error) if error else None
