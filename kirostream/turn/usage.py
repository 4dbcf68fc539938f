"""Token counts, and how the different sources of them rank (kiro-protocol.md section 3.6)."""

from __future__ import annotations

from kirostream.dataclass import dataclass, replace


@dataclass(frozen=True, slots=True)
class Usage:
    """What a turn cost. All counts are tokens, but `searches`: of the web, that gave results.

    `input_tokens` excludes what came from or went into a cache (Anthropic's reading; OpenAI's ``prompt_tokens`` is
    `prompt_tokens`). `estimated` marks counts that no upstream vouched for. `credits` is the upstream's own currency,
    None where it did not say. `context_percentage` is 0 to 100, None where unknown.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    thinking_tokens: int = 0
    credits: float | None = None
    context_percentage: float | None = None
    estimated: bool = False
    searches: int = 0

    @property
    def prompt_tokens(self) -> int:
        """All tokens of the prompt, cached ones included."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def total_tokens(self) -> int:
        """Prompt and answer together."""
        return self.prompt_tokens + self.output_tokens

    def beside(self, other: Usage) -> Usage:
        """The cost of two answers to one question: its prompt counts once, what was said and paid counts twice."""
        paid = [cost for cost in (self.credits, other.credits) if cost is not None]
        return replace(
            self,
            output_tokens=self.output_tokens + other.output_tokens,
            thinking_tokens=self.thinking_tokens + other.thinking_tokens,
            searches=self.searches + other.searches,
            credits=sum(paid) if paid else None,
            estimated=self.estimated or other.estimated,
        )


def prompt_of_share(estimated: int, percentage: float, window: int, said: int) -> int:
    """Tokens of a prompt, by the share of the context window that the upstream reports as used.

    It is read as prompt plus what was said of the answer until it came; the prompt is what is left after our estimate
    of that, and never less than what was estimated before (section 3.6, "recommended").

    Args:
        estimated: our own estimate of the prompt, in tokens.
        percentage: 0 to 100, a float32 on the wire.
        window: the model's context window in tokens.
        said: our estimate of the answer until then, in tokens.
    """
    return max(estimated, round(percentage * window / 100) - said)
