"""Provider trouble → our error: the one table, by status, code and exception type, never by message."""

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from backends.address import NotPublic
from backends.http1 import ConnectTimedOut, Malformed, Unsendable
from backends.response import Lost
from compat.canonical.error import (
    AuthFailed,
    BackendError,
    BadResponse,
    ContentFiltered,
    ContextTooLong,
    GatewayError,
    ModelLoading,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    Rejected,
    TimedOut,
    Unreachable,
    UpstreamFailed,
)
from compat.openai.error import Verdict

RETRY_AFTER_MAX_S = 120.0
"""The openai SDK ignores a longer one, and anthropic's would sleep through it."""
DAY_S = 86_400.0
REFILL_MAX_S = 31 * DAY_S
"""No quota's window is longer."""

QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit_balance_exhausted",
        "enforced_spend_limit_reached",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)
CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "context_window_exceeded"})
FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})
_ABSENT = frozenset({"not_found_error", "NotFoundError"})
"""How others than OpenAI say that they have no such model."""
_STATUSES = {
    "requests": 429,
    "tokens": 429,
    "too_many_requests": 429,
    "overloaded_error": 529,
    "server_is_overloaded": 529,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "request_too_large": 413,
    "timeout_error": 504,
    "invalid_request_error": 400,
}
"""An error's code or type → the status it would have had as a refusal, the more telling first."""


def of_status(status: int, verdict: Verdict, retry_after: str | None, provider: str) -> GatewayError:
    """The error that a provider's refusal becomes.

    A verdict on the request itself (400, 413, 422 …) is passed on in the provider's words; everything
    else speaks of the provider by the name it has in the configuration, and quotes nothing.
    """
    words = {verdict.code, verdict.type} - {None}
    if words & QUOTA_CODES or status == 402:
        return QuotaExhausted(f"The account of backend '{provider}' has no quota left.")
    if status in (401, 403) and not words & FILTER_CODES:
        return AuthFailed(f"Backend '{provider}' rejected the gateway's credentials.")
    if status == 429:
        error: BackendError = RateLimited(
            f"Backend '{provider}' is limiting its rate.", retry_after_s=seconds(retry_after)
        )
        error.refill_s = _uncapped(retry_after) or verdict.retry_after_s
        if verdict.renews_hour is not None:
            error.refill_s = max(error.refill_s or 0.0, _until_hour(verdict.renews_hour))
        error.limits = verdict.limits
        error.type = "tokens" if verdict.type == "tokens" else "requests"
        error.rest_s = error.retry_after_s
        return error
    if status in (503, 529):
        after_s = seconds(retry_after) or min(verdict.retry_after_s or 1.0, RETRY_AFTER_MAX_S)
        if verdict.code == "model_loading":
            return ModelLoading(f"Backend '{provider}' is loading the model.", retry_after_s=after_s)
        error = Overloaded(f"Backend '{provider}' is overloaded.", retry_after_s=after_s)
        error.rest_s = seconds(retry_after)
        return error
    if status in (408, 504):
        return TimedOut(f"Backend '{provider}' timed out.")
    if status >= 500:
        return UpstreamFailed(f"Backend '{provider}' failed with status {status}.", retry_after_s=seconds(retry_after))
    if status < 300:
        return BadResponse(f"Backend '{provider}' answered with status {status} instead of an answer.")
    if status < 400:
        return BadResponse(f"Backend '{provider}' answered with a redirect, which is not followed.")
    if status in (404, 405) and not verdict.message:
        return BadResponse(f"Backend '{provider}' has no such endpoint: its base_url may be wrong.")
    message = verdict.message or f"Backend '{provider}' rejected the request with status {status}."
    if words & CONTEXT_CODES:
        return ContextTooLong(message, param=verdict.param or "messages")
    if words & FILTER_CODES:
        return ContentFiltered(message, status=status, type=verdict.type, code=verdict.code, param=verdict.param)
    type_, code = verdict.type, verdict.code
    if status == 404 and type_ in _ABSENT:
        type_, code = None, "model_not_found"
    elif status == 413:
        type_, code = None if type_ == "request_too_large" else type_, code or "request_too_large"
    return Rejected(
        message,
        status=status,
        type=type_,
        code=code,
        param=verdict.param,
        details=verdict.details,
    )


def of_stream(verdict: Verdict, provider: str) -> GatewayError:
    """The error that a provider reported inside an answer of status 200."""
    if verdict.status is not None:
        return of_status(verdict.status, verdict, None, provider)
    words = {word for word in (verdict.code, verdict.type) if word is not None}
    if words & (QUOTA_CODES | CONTEXT_CODES | FILTER_CODES):
        return of_status(400, verdict, None, provider)
    if any(word.startswith("rate_limit") for word in words):
        return of_status(429, verdict, None, provider)
    status = next((status for word, status in _STATUSES.items() if word in words), None)
    if status is not None:
        return of_status(status, verdict, None, provider)
    return UpstreamFailed(f"Backend '{provider}' failed while answering.")


def of_exception(error: BaseException, provider: str) -> GatewayError | None:
    """The error that trouble on the way becomes; None for what is not the provider's."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, ssl.SSLError):
        return Unreachable(f"TLS with backend '{provider}' failed.")
    if isinstance(error, ConnectTimedOut):
        late = TimedOut(f"Backend '{provider}' could not be connected in time.")
        late.worked = False
        return late
    if isinstance(error, TimeoutError):
        return TimedOut(f"Backend '{provider}' did not answer in time.")
    if isinstance(error, NotPublic):
        return BackendError(f"The address of backend '{provider}' is not a public one.", code="upstream_unreachable")
    if isinstance(error, OSError):
        gone = Unreachable(f"The connection to backend '{provider}' was lost or refused.")
        gone.worked = isinstance(error, Lost)  # it had been made, and the request sent
        return gone
    if isinstance(error, Malformed):
        return BadResponse(f"Backend '{provider}' answered with what is not HTTP.")
    if isinstance(error, Unsendable):
        return BackendError(f"Backend '{provider}' cannot be asked: its key, or another header, has a line break.")
    if isinstance(error, UnicodeError):  # a name that cannot be one
        return Unreachable(f"The address of backend '{provider}' is not a URL.")
    return None


def retry_after(headers: Mapping[str, str]) -> str | None:
    """When a refusal says to come back, in the words of `retry-after`; OpenAI's in milliseconds is the finer one."""
    finer_ms = _number(headers.get("retry-after-ms"))
    return headers.get("retry-after") if finer_ms is None else str(finer_ms / 1000)


def seconds(retry_after: str | None) -> float | None:
    """A `retry-after` header, a number or a date, in seconds from now, capped; None when absent or nonsense."""
    value = _uncapped(retry_after)
    return None if value is None else min(value, RETRY_AFTER_MAX_S)


def _uncapped(retry_after: str | None) -> float | None:
    value = _number(retry_after)
    if value is None and retry_after is not None:
        try:
            value = parsedate_to_datetime(retry_after).timestamp() - datetime.now(UTC).timestamp()
        except (ValueError, OverflowError):
            return None
    return None if value is None else min(max(value, 0.0), REFILL_MAX_S)


def _until_hour(hour: int) -> float:
    """Seconds until it is that hour, in UTC."""
    now = datetime.now(UTC)
    return (now.replace(hour=hour, minute=0, second=0, microsecond=0) - now).total_seconds() % DAY_S


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value == value else None
