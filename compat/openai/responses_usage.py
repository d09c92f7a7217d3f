"""The usage object of OpenAI's Responses API, both directions; it names its fields otherwise than chat does."""

from typing import Any

import msgspec
from msgspec import Raw

from compat.canonical.event import Usage
from compat.openai.usage import count


def parse_usage(raw: Raw | bytes) -> Usage | None:
    """Read the value of a `usage` key; None when it is null or no object."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not isinstance(value, dict):
        return None
    given, made = value.get("input_tokens_details"), value.get("output_tokens_details")
    given, made = given if isinstance(given, dict) else {}, made if isinstance(made, dict) else {}
    return Usage(
        input_tokens=count(value.get("input_tokens")),
        output_tokens=count(value.get("output_tokens")),
        cached_tokens=count(given.get("cached_tokens")),
        reasoning_tokens=count(made.get("reasoning_tokens")),
        cache_written_tokens=count(given.get("cache_write_tokens")),
    )


def render_usage(usage: Usage) -> dict[str, Any]:
    """What is unknown is 0: every field is required here."""
    given, made = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": given,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens or 0,
            "cache_write_tokens": usage.cache_written_tokens or 0,
        },
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": given + made,
    }
