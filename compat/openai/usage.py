"""OpenAI's usage object, both directions.

Providers send numbers as floats, nulls and fields of their own; what cannot be read counts as not said.
"""

from typing import Any

import msgspec
from msgspec import Raw

from compat.canonical.event import Usage

COUNT_MAX = 2**53
"""A larger figure is nonsense, and would not fit where usage is kept."""


def parse_usage(raw: Raw | bytes) -> Usage | None:
    """Read the value of a `usage` key; None when it is null or no object."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not isinstance(value, dict):
        return None
    given, made = value.get("prompt_tokens_details"), value.get("completion_tokens_details")
    return Usage(
        input_tokens=_count(value.get("prompt_tokens")),
        output_tokens=_count(value.get("completion_tokens")),
        cached_tokens=_count(given.get("cached_tokens")) if isinstance(given, dict) else None,
        reasoning_tokens=_count(made.get("reasoning_tokens")) if isinstance(made, dict) else None,
    )


def render_usage(usage: Usage) -> dict[str, Any]:
    """OpenAI has no word for "not said" here: what is unknown is 0, as its clients expect."""
    given, made = usage.input_tokens or 0, usage.output_tokens or 0
    out: dict[str, Any] = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    if usage.cached_tokens is not None:
        out["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens is not None:
        out["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return out


def _count(value: Any) -> int | None:
    sane = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= COUNT_MAX
    return int(value) if sane else None
