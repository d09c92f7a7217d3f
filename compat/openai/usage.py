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
        input_tokens=count(value.get("prompt_tokens")),
        output_tokens=count(value.get("completion_tokens")),
        cached_tokens=count(given.get("cached_tokens")) if isinstance(given, dict) else None,
        reasoning_tokens=count(made.get("reasoning_tokens")) if isinstance(made, dict) else None,
        cache_written_tokens=count(given.get("cache_write_tokens")) if isinstance(given, dict) else None,
    )


def render_usage(usage: Usage) -> dict[str, Any]:
    """OpenAI has no word for "not said" here: what is unknown is 0, as its clients expect."""
    given, made = usage.input_tokens or 0, usage.output_tokens or 0
    out: dict[str, Any] = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    cached = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_written_tokens}
    if known := {name: tokens for name, tokens in cached.items() if tokens is not None}:
        out["prompt_tokens_details"] = known
    if usage.reasoning_tokens is not None:
        out["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return out


def count(value: Any) -> int | None:
    """A figure as a count of tokens; None for what is none."""
    sane = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= COUNT_MAX
    return int(value) if sane else None
