"""Provider trouble → our error: the one table, by status, code and exception type, never by message."""

import asyncio
import ssl

import aiohttp

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
    return Rejected(
        message,
        status=status,
        type=verdict.type,
        code=verdict.code,
        param=verdict.param,
        details=verdict.details,
    )


def of_stream(verdict: Verdict, provider: str) -> GatewayError:
    """The error that a provider reported inside an answer of status 200."""
    if verdict.status is not None:
        return of_status(verdict.status, verdict, None, provider)
    words = {verdict.code, verdict.type} - {None}
    if words & (QUOTA_CODES | CONTEXT_CODES | FILTER_CODES):
        return of_status(400, verdict, None, provider)
    if words & {"overloaded_error", "server_is_overloaded", "rate_limit_exceeded", "rate_limit_error"}:
        return Overloaded(f"Backend '{provider}' is overloaded.", retry_after_s=1.0)
    return UpstreamFailed(f"Backend '{provider}' failed while answering.")


def of_exception(error: BaseException, provider: str) -> GatewayError | None:
    """The error that trouble on the way becomes; None for what is not the provider's."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError)):
        return Unreachable(f"TLS with backend '{provider}' failed.")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return TimedOut(f"Backend '{provider}' could not be connected in time.")
    if isinstance(error, (aiohttp.ServerTimeoutError, asyncio.TimeoutError)):
        return TimedOut(f"Backend '{provider}' did not answer in time.")
    if isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        return Unreachable(f"The connection to backend '{provider}' was lost or refused.")
    if isinstance(error, aiohttp.InvalidURL):
        return Unreachable(f"The address of backend '{provider}' is not a URL.")
    if isinstance(error, aiohttp.ClientError):
        return BadResponse(f"Backend '{provider}' answered with what is not HTTP.")
    if isinstance(error, OSError):
        return Unreachable(f"The connection to backend '{provider}' was lost or refused.")
    return None


def seconds(retry_after: str | None) -> float | None:
    """A `retry-after` header in seconds, capped; None when absent, a date or nonsense."""
    try:
        value = float(retry_after or "")
    except ValueError:
        return None
    return min(max(value, 0.0), RETRY_AFTER_MAX_S) if value == value else None
