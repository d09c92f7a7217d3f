"""What values may be, where nobody but the gateway judges them: on the translated lane.

OpenAI's own limits and codes; a provider that takes other values is not asked, since its clients speak
another dialect.  Source: https://platform.openai.com/docs/api-reference and recorded answers.
"""

from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Raw

from compat.body import decode_raw
from compat.canonical.error import InvalidRequest

Limits = Mapping[str, tuple[float, float | None]]
"""Field → least and most; whole numbers where the least is one."""

_SAMPLING: Limits = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
CHAT: Limits = {
    **_SAMPLING,
    "n": (1, 128),
    "max_tokens": (1, None),
    "max_completion_tokens": (1, None),
    "top_logprobs": (0, 20),
}
COMPLETIONS: Limits = {**_SAMPLING, "n": (1, 128), "best_of": (1, 20), "logprobs": (0, 5), "max_tokens": (0, None)}
RESPONSES: Limits = {**_SAMPLING, "max_output_tokens": (1, None), "max_tool_calls": (1, None), "top_logprobs": (0, 20)}
EMBEDDINGS: Limits = {"dimensions": (1, 65_536)}
RERANK: Limits = {"top_n": (1, None)}

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
VERBOSITIES = ("low", "medium", "high")

PAIRS_MAX, KEY_MAX, VALUE_MAX = 16, 64, 512
"""Of `metadata`: pairs, and characters."""


def check_numbers(fields: Mapping[str, Raw], limits: Limits) -> None:
    """Hold the numbers among a request's fields to their limits.  Raises InvalidRequest."""
    for name, (least, most) in limits.items():
        raw = fields.get(name)
        value = decode_raw(raw) if raw is not None else None
        if value is None:
            continue
        kind = "integer" if isinstance(least, int) else "decimal"
        if kind == "integer" and not isinstance(value, int):
            raise wrong_type(name, "an integer")
        if value < least:
            raise _outside(name, kind, "below minimum", ">=", least, value)
        if most is not None and value > most:
            raise _outside(name, kind, "above maximum", "<=", most, value)


def check_word(name: str, value: str | None, words: Collection[str]) -> None:
    """Raises InvalidRequest if the value is none of the words."""
    if value is not None and value not in words:
        known = ", ".join(f"'{word}'" for word in words)
        raise InvalidRequest(
            f"Invalid value: '{value[:100]}'. Supported values are: {known}.", param=name, code="invalid_value"
        )


def check_metadata(metadata: Mapping[str, Any] | None) -> None:
    """Raises InvalidRequest."""
    if metadata is None:
        return
    if len(metadata) > PAIRS_MAX:
        raise InvalidRequest(
            f"Invalid 'metadata': too many properties. Expected at most {PAIRS_MAX}, but got {len(metadata)} instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in metadata.items():
        at = f"metadata.{key[:KEY_MAX]}"
        if not isinstance(value, str):
            raise wrong_type(at, "a string")
        if len(key) > KEY_MAX or len(value) > VALUE_MAX:
            most = KEY_MAX if len(key) > KEY_MAX else VALUE_MAX
            raise InvalidRequest(
                f"Invalid '{at}': string too long. Expected a string with maximum length {most}.",
                param=at,
                code="string_above_max_length",
            )


def wrong_type(at: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid type for '{at}': expected {expected}.", param=at, code="invalid_type")


def _outside(name: str, kind: str, what: str, sign: str, limit: float, value: Any) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{name}': {kind} {what} value. Expected a value {sign} {limit:g}, but got {value} instead.",
        param=name,
        code=f"{kind}_{what.replace('imum', '').replace(' ', '_')}_value",
    )
