"""The models the simulated service offers, as its catalogue lists them (kiro-protocol.md sections 6.3, 7). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kirostream.dataclass import dataclass
from kirostream.turn.model import Model

AUTO_PICKS: Final = "claude-sonnet-4.5"
"""The model that `auto` stands for, named in the events of its answers."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One model and the JSON Schema of its ``additionalModelRequestFields``, None where it takes none."""

    model: Model
    provider: str
    fields: Mapping[str, Any] | None = None

    def entry(self) -> dict[str, Any]:
        """The model as ListAvailableModels says it."""
        model = self.model
        said: dict[str, Any] = {
            "modelId": model.id,
            "modelName": model.name,
            "description": model.description,
            "modelProvider": self.provider,
            "rateMultiplier": model.rate,
            "rateUnit": "Credit",
            "status": "ACTIVE",
            "supportedInputTypes": ["TEXT", "IMAGE"] if model.images else ["TEXT"],
            "tokenLimits": {"maxInputTokens": model.window, "maxOutputTokens": model.max_output},
            "promptCaching": {
                "supportsPromptCaching": True,
                "maximumCacheCheckpointsPerRequest": 4,
                "minimumTokensPerCacheCheckpoint": 1024,
            },
        }
        return said if self.fields is None else {**said, "additionalModelRequestFieldsSchema": self.fields}


def _closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _word(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


def _claude(*efforts: str) -> dict[str, Any]:
    """Section 2.8: models that do not know ``xhigh`` do not know ``display`` either."""
    thinking = {"type": _word("adaptive", "disabled")}
    if "xhigh" in efforts:
        thinking["display"] = _word("summarized", "omitted")
    return _closed(thinking=_closed(**thinking), output_config=_closed(effort=_word(*efforts)))


def _thinker(model_id: str, name: str, rate: float, efforts: tuple[str, ...]) -> Offer:
    return Offer(_model(model_id, name, rate, 1_000_000, efforts=efforts), "ANTHROPIC", _claude(*efforts))


def _model(model_id: str, name: str, rate: float, window: int = 200_000, **more: Any) -> Model:
    return Model(model_id, name, f"Simulated {name}", window, rate=rate, **more)


_OLDER: Final = ("low", "medium", "high", "max")
_NEWER: Final = ("low", "medium", "high", "xhigh", "max")
_OTHERS: Final = ("minimal", "low", "medium", "high")

OFFERS: Final[Sequence[Offer]] = (
    Offer(_model("auto", "Auto", 1.0, 1_000_000), "KIRO"),
    Offer(_model("claude-sonnet-4", "Claude Sonnet 4", 1.3), "ANTHROPIC"),
    Offer(_model("claude-sonnet-4.5", "Claude Sonnet 4.5", 1.3), "ANTHROPIC"),
    Offer(
        _model("claude-sonnet-4.6", "Claude Sonnet 4.6", 1.3, 1_000_000, efforts=_OLDER), "ANTHROPIC", _claude(*_OLDER)
    ),
    Offer(_model("claude-haiku-4.5", "Claude Haiku 4.5", 0.4), "ANTHROPIC"),
    Offer(_model("claude-opus-4.5", "Claude Opus 4.5", 2.2), "ANTHROPIC"),
    _thinker("claude-opus-4.6", "Claude Opus 4.6", 2.2, _OLDER),
    _thinker("claude-opus-4.7", "Claude Opus 4.7", 2.2, _NEWER),
    Offer(
        _model("gpt-5.6-sol", "GPT-5.6 Sol", 1.5, 272_000, efforts=_OTHERS),
        "OPENAI",
        _closed(reasoning=_closed(effort=_word(*_OTHERS))),
    ),
    Offer(_model("qwen3-coder-next", "Qwen3 Coder Next", 0.05, 256_000, images=False), "QWEN"),
)


def offers(names: str) -> dict[str, Offer]:
    """The catalogue by id; `names` picks some, with commas between them, and an unknown one is made up."""
    known = {offer.model.id: offer for offer in OFFERS}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    return {name: known.get(name) or Offer(_model(name, name, 1.0), "OTHER") for name in wanted} or known
