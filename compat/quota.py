"""What providers say of an account's limits in the headers of their answers: one table of their ways.

Where it refills evenly, some of it is there again before all of it is.  Sources:
https://platform.openai.com/docs/guides/rate-limits, https://console.groq.com/docs/rate-limits,
https://inference-docs.cerebras.ai/support/rate-limits, https://platform.claude.com/docs/en/api/rate-limits,
https://openrouter.ai/docs/api/reference/limits, https://docs.github.com/en/github-models, and
https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers (06: three headers, 07: one, 10: two)
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from msgspec import Struct

SPANS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
"""Windows that have a name, in seconds."""
UNTOLD_S = 60.0
"""How long a window is taken to last whose end nobody told."""
LONGEST_S = 32 * 86_400.0
"""What would last longer is a mistake."""
MOST = 2**60


class Reading(Struct, frozen=True):
    """One limit, as a provider has just told it."""

    unit: str
    """requests, tokens, input_tokens or output_tokens."""
    span: str
    """The window's name; empty where the provider does not say."""
    remaining: int
    resets_at: float
    """Seconds since 1970: when all of it is there again."""
    most: int | None
    evenly: bool
    """It comes back bit by bit, not all at once."""


class _Form(Struct, frozen=True):
    names: str
    """The headers' names, `{}` standing for limit, remaining and reset."""
    unit: str = "requests"
    span: str = ""
    evenly: bool = False


_FORMS = (
    # OpenAI, Groq, Azure, Mistral and many more.  Groq's requests are those of a day, its tokens a minute's.
    *(_Form(f"x-ratelimit-{{}}-{unit}", unit, evenly=True) for unit in ("requests", "tokens")),
    # Cerebras, and others who have several windows.
    *(_Form(f"x-ratelimit-{{}}-{unit}-{span}", unit, span) for unit in ("requests", "tokens") for span in SPANS),
    # Anthropic, whose buckets refill continuously.
    _Form("anthropic-ratelimit-requests-{}", "requests", evenly=True),
    _Form("anthropic-ratelimit-tokens-{}", "tokens", evenly=True),
    _Form("anthropic-ratelimit-input-tokens-{}", "input_tokens", evenly=True),
    _Form("anthropic-ratelimit-output-tokens-{}", "output_tokens", evenly=True),
    # OpenRouter, Together; the IETF's draft up to 06.
    _Form("x-ratelimit-{}"),
    _Form("ratelimit-{}"),
)
_PARTS = {form.names.format(part): (form, part) for form in _FORMS for part in ("limit", "remaining", "reset")}
_DRAFT, _POLICY = "ratelimit", "ratelimit-policy"
_SHUT, _TYPE = "x-ratelimit-timeremaining", "x-ratelimit-type"
"""GitHub's, beside a refusal: seconds until the limit of this name is over."""
_TYPES = {"minute": "minute", "day": "day", "hour": "hour"}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(d|h|ms|us|µs|m|s)")
_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_ITEM = re.compile(r"""("[^"]*"|[A-Za-z0-9_*.\-]+)((?:\s*;\s*[a-z]+=(?:"[^"]*"|[\d.]+))*)""")
_PARAMETER = re.compile(r""";\s*([a-z]+)=(?:"([^"]*)"|([\d.]+))""")
_PAIR = re.compile(r"(limit|remaining|reset)\s*=\s*(\d+)")


def read(headers: Iterable[tuple[str, str]], now: float, *, refused: bool = False) -> list[Reading]:
    """The limits that these headers tell; those that make no sense are left out.

    headers: names in lower case.  now: seconds since 1970.  refused: they came with a refusal of status 429.
    """
    found: dict[_Form, dict[str, str]] = {}
    draft = policy = shut = ""
    kind = ""
    for name, value in headers:
        if (known := _PARTS.get(name)) is not None:
            found.setdefault(known[0], {})[known[1]] = value
        elif name == _DRAFT:
            draft = value
        elif name == _POLICY:
            policy = value
        elif refused and name == _SHUT:
            shut = value
        elif name == _TYPE:
            kind = value
    readings = [r for form, told in found.items() if (r := _reading(form, told, now)) is not None]
    if draft:
        readings += _drafted(draft, policy, now)
    if (until := moment(shut, now)) is not None and until > now:
        span = next((span for word, span in _TYPES.items() if kind.lower().endswith(word)), "")
        readings.append(Reading("requests", span, 0, until, None, False))
    return readings


def moment(text: str, now: float) -> float | None:
    """When a limit is reset, in seconds since 1970; None where it makes no sense.

    It may be a time (RFC 3339, or seconds or milliseconds since 1970) or how long it is until then (in
    seconds, or like `1m26.4s`).
    """
    text = text.strip()[:64]
    try:
        number = float(text)
    except ValueError:
        at = _timestamp(text) if ":" in text else _ahead(text, now)
    else:
        at = number / 1000 if number >= 1e12 else number if number >= 1e9 else now + number
    return at if at is not None and now - 86_400 <= at <= now + LONGEST_S else None


def _reading(form: _Form, told: dict[str, str], now: float) -> Reading | None:
    remaining = _count(told.get("remaining"))
    if remaining is None:
        return None
    resets_at = moment(told.get("reset", ""), now)
    if resets_at is None:
        resets_at = now + SPANS.get(form.span, UNTOLD_S)
    return Reading(form.unit, form.span, remaining, resets_at, _count(told.get("limit")), form.evenly)


def _drafted(draft: str, policy: str, now: float) -> Iterator[Reading]:
    """What the draft's `ratelimit` says, with the help of its `ratelimit-policy`."""
    if pairs := dict(_PAIR.findall(draft)):
        form = _Form("ratelimit-{}")
        if (reading := _reading(form, pairs, now)) is not None:
            yield reading
        return
    policies = dict(_items(policy))
    for name, said in _items(draft):
        terms = policies.get(name, {})
        if terms.get("qu", "requests") != "requests":
            continue
        remaining, after = _count(said.get("r")), moment(said.get("t", ""), now)
        if remaining is None:
            continue
        length = terms.get("w", "")
        span = next((span for span, s in SPANS.items() if length == f"{s:.0f}"), "")
        resets_at = after or moment(length, now) or now + UNTOLD_S
        yield Reading("requests", span, remaining, resets_at, _count(terms.get("q")), False)


def _items(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """A structured list's items, each with its parameters."""
    for name, parameters in _ITEM.findall(header[:2000]):
        yield name.strip('"'), {key: text or number for key, text, number in _PARAMETER.findall(parameters)}


def _count(text: str | None) -> int | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return int(value) if 0 <= value <= MOST else None


def _ahead(text: str, now: float) -> float | None:
    pieces = _DURATION.findall(text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        return None
    return now + sum(float(number) * _UNITS[unit] for number, unit in pieces)


def _timestamp(text: str) -> float | None:
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
