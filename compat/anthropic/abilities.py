"""What each generation of Claude takes, for requests that come from other dialects.

Anthropic refuses what a model does not take, and says so per generation in its guides, not in its list
of models; so this is a table by name.  A name of a future Claude counts as the newest; other vendors'
models behind the same dialect are taken to accept what the dialect has had longest.

Sources: https://platform.claude.com/docs/en/build-with-claude/thinking,
https://platform.claude.com/docs/en/build-with-claude/effort,
https://platform.claude.com/docs/en/build-with-claude/structured-outputs,
https://platform.claude.com/docs/en/about-claude/models/migration-guide
"""

import re
from functools import cache
from typing import Any, Literal

from msgspec import Struct

DEFAULT_MAX_TOKENS = 16384
"""`max_tokens` of a request whose client gave none, which Anthropic requires; thinking counts towards it."""
OLD_MAX_TOKENS = 4096
"""The same for Claude 3, whose smallest model stops there."""

BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 32768}
"""Tokens of thinking for OpenAI's words of effort, on models that take a budget; both directions."""
BUDGET_MIN = 1024

_name = re.compile(r"claude-(?:(\d+)(?:-(\d))?-)?(opus|sonnet|haiku|fable|mythos)(?:-(\d+)(?:-(\d{1,2})(?!\d))?)?")
_NEWEST = (99, 0)


class Abilities(Struct, frozen=True, kw_only=True):
    samples: bool = True
    """Takes temperature, top_p and top_k."""
    one_sampler: bool = False
    """Takes temperature or top_p, not both."""
    thinking: Literal["budget", "adaptive", "always"] = "budget"
    """How thinking is asked for; `always` cannot be turned off."""
    efforts: frozenset[str] = frozenset()
    """Values of `output_config.effort`."""
    schema: bool = True
    """Takes `output_config.format`."""
    max_tokens: int = DEFAULT_MAX_TOKENS
    most_tokens: int = 64000
    """Where `max_tokens` may not go beyond, as far as a default of ours could."""


@cache
def abilities(model: str) -> Abilities:
    """What a model takes, by its name, wherever in it the vendor's own name begins."""
    found = _name.search(model)
    if found is None:
        return Abilities(max_tokens=OLD_MAX_TOKENS) if "claude" not in model else _of(_NEWEST, "")
    old_major, old_minor, family, major, minor = found.groups()
    if old_major or major:
        return _of((int(old_major or major), int(old_minor or minor or 0)), family)
    return _of(_NEWEST, family)


def _of(version: tuple[int, int], family: str) -> Abilities:
    efforts: set[str] = set()
    if version >= (4, 6) or (version == (4, 5) and family == "opus"):
        efforts |= {"low", "medium", "high"}
    if version >= (4, 6):
        efforts.add("max")
    if version >= (4, 7):
        efforts.add("xhigh")
    thinking: Literal["budget", "adaptive", "always"] = "adaptive" if version >= (4, 6) else "budget"
    return Abilities(
        samples=version < (4, 7) and family not in ("fable", "mythos"),
        one_sampler=version >= (4, 1),
        thinking="always" if family in ("fable", "mythos") else thinking,
        efforts=frozenset(efforts),
        schema=version >= (4, 5),
        max_tokens=DEFAULT_MAX_TOKENS if version >= (4, 0) else OLD_MAX_TOKENS,
        most_tokens=32000 if (4, 0) <= version < (4, 5) and family == "opus" else 64000,
    )


class Thought(Struct, frozen=True, kw_only=True):
    """How an effort is asked of a model."""

    thinking: dict[str, Any] | None = None
    effort: str | None = None
    max_tokens: int
    carried: bool = True


def thought(effort: str | None, max_tokens: int | None, able: Abilities, *, forced: bool) -> Thought:
    """Put OpenAI's `reasoning_effort` in Anthropic's terms.

    forced: a tool call is, and thinking does not go with that.
    """
    limit = able.max_tokens if max_tokens is None else max_tokens
    if effort is None:
        return Thought(max_tokens=limit)
    if effort == "none":
        if able.thinking == "always":
            return Thought(effort="low", max_tokens=limit, carried=False)
        return Thought(thinking={"type": "disabled"} if able.thinking == "adaptive" else None, max_tokens=limit)
    if able.thinking != "budget":
        word = {"minimal": "low", "xhigh": "xhigh" if "xhigh" in able.efforts else "max"}.get(effort, effort)
        known = word in able.efforts
        # Asked for in summary: the newest models would think in silence.
        shown: dict[str, Any] = {"type": "adaptive"}
        if "xhigh" in able.efforts:
            shown["display"] = "summarized"
        return Thought(
            thinking=None if forced else shown, effort=word if known else None, max_tokens=limit, carried=known
        )
    budget = BUDGETS.get(effort)
    if budget is None or forced or (max_tokens is not None and max_tokens <= BUDGET_MIN):
        return Thought(max_tokens=limit, carried=False)
    if max_tokens is None:
        limit = min(limit + budget, able.most_tokens)
        budget = min(budget, limit - able.max_tokens)
    else:
        # A fifth is kept for the answer, which would else be cut off by a thought that takes all it may.
        budget = min(budget, max(limit * 4 // 5, BUDGET_MIN))
    return Thought(thinking={"type": "enabled", "budget_tokens": budget}, max_tokens=limit)


def effort_of(thinking: Any, config: Any) -> str | None:
    """The effort that `output_config` and `thinking` of a request ask for, in OpenAI's words; None if neither."""
    word = config.get("effort") if isinstance(config, dict) else None
    if isinstance(word, str):
        return word
    if not isinstance(thinking, dict) or thinking.get("type") != "enabled":
        return None
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        return None
    return next((name for name, tokens in BUDGETS.items() if budget <= tokens), "xhigh")
