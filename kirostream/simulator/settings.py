"""What can be set of the simulator."""

from __future__ import annotations

from dataclasses import field

from kirostream.dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """How the simulated upstream behaves."""

    instead: bool = field(
        default=False,
        metadata={
            "help": "Ask the built-in simulator instead of the service, from the start on. It has an account of its "
            "own; yours are left alone. The panel switches it while the gateway runs, until the next start."
        },
    )
    host: str = field(default="127.0.0.1", metadata={"help": "Address the simulator listens on."})
    port: int = field(default=0, metadata={"help": "Its port; 0 lets the system choose."})
    seed: int = field(default=0, metadata={"help": "Makes ids, tokens and plain replies the same every time."})
    tokens_per_second: float = field(
        default=0.0,
        metadata={"help": "Pace of an answer, one piece a token. 0: as fast as it goes.", "unit": "tokens/s"},
    )
    first_token_delay: float = field(
        default=0.0, metadata={"help": "Between the head of an answer and its first token.", "unit": "s"}
    )
    chunk: int = field(default=4, metadata={"help": "Length of a piece of text.", "unit": "characters"})
    plain_reply: str = field(
        default="quote",
        metadata={
            "help": "The answer to a message without directives: quote (a few sentences that quote it), or the text "
            "itself, such as OK."
        },
    )
    models: str = field(
        default="", metadata={"help": "Ids of the models it offers, with commas between them. Empty: all it knows."}
    )
    refresh_token: str = field(
        default="aor-simulated-refresh-token",
        repr=False,
        metadata={"help": "A refresh token that is accepted from the start; it opens nothing else.", "secret": True},
    )
    token_lifetime: float = field(default=3600.0, metadata={"help": "How long an access token lasts.", "unit": "s"})
    rotate: bool = field(
        default=False, metadata={"help": "Whether a refresh replaces the refresh token and ends the old one."}
    )
    require_profile_arn: bool = field(
        default=False, metadata={"help": "Whether requests without a profile ARN are refused, as newer hosts do."}
    )
    picky: bool = field(
        default=False,
        metadata={"help": "Whether requests are refused too for what the real service is only said to refuse."},
    )
    max_body: int = field(default=160 << 20, metadata={"help": "Largest request body.", "unit": "bytes"})

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"simulator.chunk is {self.chunk}: a piece has at least one character")
        if min(self.tokens_per_second, self.first_token_delay, self.token_lifetime) < 0:
            raise ValueError("tokens_per_second, first_token_delay and token_lifetime are not negative")
