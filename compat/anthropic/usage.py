"""Anthropic's usage object, both directions.

It counts the prompt in three: read from the cache, written to it, and the rest (`input_tokens`), where
the internal model has the sum.  Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from typing import Any

import msgspec
from msgspec import Raw

from compat.canonical.event import Usage
from compat.openai.usage import count


class Meter:
    """The usage of one answer, of which a stream tells piece by piece: each figure is cumulative.

    What a later event leaves out or nulls keeps its value; a message_delta repeats only some of them.  What the
    first says of the answer, which has hardly begun then, is left out: it would pass for all when no other comes.
    """

    def __init__(self) -> None:
        self._fresh: int | None = None
        self._written: int | None = None
        self._long: int | None = None
        self._read: int | None = None
        self._made: int | None = None
        self._thought: int | None = None
        self.usage: Usage | None = None

    def note(self, raw: Raw | bytes, *, prompt: bool = False) -> None:
        """Take the value of a `usage` key, or what it says of the prompt; nonsense counts as not said."""
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if not isinstance(value, dict):
            return
        details = value.get("output_tokens_details")
        self._fresh = _count(value.get("input_tokens"), self._fresh)
        self._written = _count(value.get("cache_creation_input_tokens"), self._written)
        self._read = _count(value.get("cache_read_input_tokens"), self._read)
        kept = value.get("cache_creation")
        if isinstance(kept, dict):
            self._long = _count(kept.get("ephemeral_1h_input_tokens"), self._long)
        if not prompt:
            self._made = _count(value.get("output_tokens"), self._made)
        if isinstance(details, dict) and not prompt:
            self._thought = _count(details.get("thinking_tokens"), self._thought)
        self.usage = Usage(
            input_tokens=None if self._fresh is None else self._fresh + (self._written or 0) + (self._read or 0),
            output_tokens=self._made,
            cached_tokens=self._read,
            reasoning_tokens=self._thought,
            cache_written_tokens=self._written,
            long_cached_tokens=self._long or None,
        )


def parse_usage(raw: Raw | bytes) -> Usage | None:
    """Read the value of a `usage` key; None when it is no object."""
    meter = Meter()
    meter.note(raw)
    return meter.usage


def render_usage(usage: Usage) -> dict[str, Any]:
    """Anthropic has no word for "not said" here: what is unknown is 0, as its clients expect."""
    read, written = usage.cached_tokens or 0, usage.cache_written_tokens or 0
    out: dict[str, Any] = {
        "input_tokens": max((usage.input_tokens or 0) - read - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.output_tokens or 0,
        "output_tokens_details": None,
        "server_tool_use": None,
    }
    if usage.reasoning_tokens is not None:
        out["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return out


def render_end_usage(usage: Usage) -> dict[str, Any]:
    """The usage of a stream's end, where what was not said of the prompt can be null, and clients keep what
    they were told at the start."""
    out = render_usage(usage)
    if usage.input_tokens is None:
        out |= dict.fromkeys(("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"))
    return out


def _count(value: Any, otherwise: int | None) -> int | None:
    known = count(value)
    return otherwise if known is None else known
