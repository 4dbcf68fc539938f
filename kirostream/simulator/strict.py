"""What the service refuses (kiro-protocol.md sections 2.2 to 2.8), so that converters are held to it. Pure.

The rules of the wire are in `dialects.kiro.checks`; here is what hangs on the model as well. The first refusal found is
the answer. Where the sheet names a reason, the refusal has it; everything else is the bare ``Improperly formed
request.`` Each refusal also says in `detail` what is wrong, which the real service does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from kirostream.dialects.kiro.checks import broken, doubted
from kirostream.dialects.kiro.request import Generate, given, to_turn
from kirostream.simulator.catalogue import Offer
from kirostream.simulator.refusals import TOO_LONG, Refusal, invalid
from kirostream.turn.tokens import estimate


def check(body: Generate, catalogue: Mapping[str, Offer], *, picky: bool = False) -> Refusal | None:
    """The first reason to refuse `body`; None where the service takes it.

    Args:
        body: the request, its types checked (`dialects.kiro.request.decode`).
        catalogue: the models on offer, by id.
        picky: refuse also what the sources are at odds about.
    """
    return next(_refusals(body, catalogue, picky), None)


def _refusals(body: Generate, catalogue: Mapping[str, Offer], picky: bool) -> Iterator[Refusal]:
    """Every reason. A later one may rely on what an earlier one found."""
    current = body.conversation_state.current_message.user_input_message
    model = (current and current.model_id) or ""
    if model not in catalogue:
        message = "Invalid model. Please select a different model to continue."
        yield invalid(f"modelId {model!r}", "INVALID_MODEL_ID", message)
    for finding in broken(body):
        yield invalid(finding.detail, finding.reason, finding.message)
    yield from _model_fields(body, catalogue[model])
    if estimate(to_turn(body)) > catalogue[model].model.window:  # section 2.7, by our own estimate
        yield TOO_LONG
    if picky:
        for finding in doubted(body):
            yield invalid(finding.detail)


def _model_fields(body: Generate, offer: Offer) -> Iterator[Refusal]:
    """Section 2.8: each model has its own closed schema."""
    fields = given(body.model_fields)
    if not fields:
        return
    if offer.fields is None:
        yield invalid(f"{offer.model.id} takes no additionalModelRequestFields", "REQUEST_BODY_INVALID")
    elif wrong := _misfit(msgspec.json.decode(fields), offer.fields, "additionalModelRequestFields"):
        yield invalid(wrong, "REQUEST_BODY_INVALID")


def _misfit(value: Any, schema: Mapping[str, Any], path: str) -> str:
    """Where `value` leaves the part of JSON Schema that the catalogue uses; empty where it fits."""
    if schema["type"] == "string":
        return "" if value in schema["enum"] else f"{path} is {value!r}, it takes {', '.join(schema['enum'])}"
    if not isinstance(value, dict):
        return f"{path} is no object"
    for key, inner in value.items():
        if key not in schema["properties"]:
            return f"{path}.{key} is not known"
        if wrong := _misfit(inner, schema["properties"][key], f"{path}.{key}"):
            return wrong
    return ""
