"""OpenAI's error body, both directions.

Source: https://platform.openai.com/docs/guides/error-codes/api-errors and recorded answers.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from compat.canonical.error import GatewayError
from compat.sse import frame

_TOO_LONG = "maximum context length"
"""In OpenAI's own sentence, which vLLM and others repeat without its code."""
_DELAY = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s").fullmatch
MESSAGE_MAX = 2000
"""Characters of a provider's message that are passed on."""


class Verdict(Struct, frozen=True):
    """What a provider said of a request it did not answer."""

    message: str = ""
    type: str | None = None
    code: str | None = None
    param: str | None = None
    status: int | None = None
    """An HTTP status found inside the error, as some providers and llama.cpp send one."""
    blames: bool = False
    """The request is at fault, whatever status it was answered with."""
    retry_after_s: float | None = None
    """When to come back, where the body says so."""
    limits: Sequence[tuple[str, str]] = ()
    """What the body says of the account's limits, as headers."""
    renews_hour: int | None = None
    """A day's quota has run out, and there is more at this hour, in UTC."""
    details: dict[str, Any] | None = None
    """The cause for programs, as Anthropic's errors have it; passed on whole to its own clients."""


def render_error(error: GatewayError) -> bytes:
    """The body of an error answer; all four keys, `code` a string or null."""
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    )


def render_error_frame(error: GatewayError) -> bytes:
    """The error as the last event of a stream that has begun; no [DONE] follows."""
    return frame(render_error(error))


def parse_error(body: bytes) -> Verdict:
    """Read whatever a provider sent with a status of 400 or more; never raises."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Verdict()
    if isinstance(value, list) and value:  # Gemini's compatible endpoint wraps its error in a list
        value = value[0]
    return verdict(value.get("error", value)) if isinstance(value, dict) else Verdict()


def verdict(error: Any) -> Verdict:
    """Read the value of an `error` key, whatever shape it has."""
    if isinstance(error, str):
        return Verdict(message=error[:MESSAGE_MAX])
    if not isinstance(error, dict):
        return Verdict()
    code, status = error.get("code"), error.get("status")
    message = _text(error.get("message") or error.get("detail")) or ""
    if not isinstance(code, str) and _TOO_LONG in message:
        code = "context_length_exceeded"
    number = next((n for n in (code, status, error.get("status_code")) if isinstance(n, int)), None)
    return Verdict(
        message=message,
        type=_text(error.get("type")),
        code=code if isinstance(code, str) else None,
        param=_text(error.get("param")),
        status=number if number is not None and 400 <= number <= 599 else None,
        **_limits(error),
    )


def _limits(error: dict[str, Any]) -> dict[str, Any]:
    """What OpenRouter's and Google's errors say of a limit that was reached."""
    found: dict[str, Any] = {}
    metadata, details = error.get("metadata"), error.get("details")
    if isinstance(metadata, dict):
        if isinstance(headers := metadata.get("headers"), dict):
            found["limits"] = [(name.lower(), str(value)) for name, value in headers.items()]
        if metadata.get("limit_source") == "openrouter_free_tier_daily":
            found["renews_hour"] = 0
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        if (match := _DELAY(str(detail.get("retryDelay")))) is not None:
            found["retry_after_s"] = float(match[1])
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else ():
            if isinstance(violation, dict) and "PerDay" in str(violation.get("quotaId")):
                found["renews_hour"] = 8  # midnight at the Pacific, in winter
    return found


def _text(value: Any) -> str | None:
    return value[:MESSAGE_MAX] if isinstance(value, str) else None
