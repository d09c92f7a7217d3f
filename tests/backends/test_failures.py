"""A provider's trouble → our error: the whole table."""

import asyncio
import json
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from backends.failures import of_exception, of_status, of_stream, retry_after, seconds
from backends.http1 import ConnectTimedOut, Malformed, Unsendable
from backends.response import Lost
from compat.anthropic.error import render_error as anthropics
from compat.canonical import error as e
from compat.openai.error import Verdict, parse_error
from tests.wire import fixture

CANARY = "provider-words-canary"
PLAIN = Verdict(message=CANARY)

STATUSES: list[tuple[int, Verdict, type[e.GatewayError], int]] = [
    (400, PLAIN, e.Rejected, 400),
    (404, PLAIN, e.Rejected, 404),
    (413, PLAIN, e.Rejected, 413),
    (422, PLAIN, e.Rejected, 422),
    (404, Verdict(), e.BadResponse, 502),
    (405, Verdict(), e.BadResponse, 502),
    (400, Verdict(code="context_length_exceeded"), e.ContextTooLong, 400),
    (400, parse_error(fixture("error_llama.json")), e.ContextTooLong, 400),
    (400, Verdict(code="content_filter", message="x"), e.ContentFiltered, 400),
    (403, Verdict(code="content_policy_violation"), e.ContentFiltered, 403),
    (401, PLAIN, e.AuthFailed, 502),
    (403, PLAIN, e.AuthFailed, 502),
    (402, PLAIN, e.QuotaExhausted, 503),
    (429, parse_error(fixture("error_quota.json")), e.QuotaExhausted, 503),
    (403, Verdict(type="billing_error"), e.QuotaExhausted, 503),
    (429, PLAIN, e.RateLimited, 429),
    (429, parse_error(fixture("error_gemini.json")), e.RateLimited, 429),
    (500, PLAIN, e.UpstreamFailed, 502),
    (502, PLAIN, e.UpstreamFailed, 502),
    (599, PLAIN, e.UpstreamFailed, 502),
    (503, PLAIN, e.Overloaded, 503),
    (529, PLAIN, e.Overloaded, 503),
    (408, PLAIN, e.TimedOut, 504),
    (504, PLAIN, e.TimedOut, 504),
    (301, PLAIN, e.BadResponse, 502),
    (307, PLAIN, e.BadResponse, 502),
]


@pytest.mark.parametrize(("status", "verdict", "kind", "ours"), STATUSES)
def test_a_status_becomes_our_error(status: int, verdict: Verdict, kind: type[e.GatewayError], ours: int) -> None:
    error = of_status(status, verdict, None, "up")
    assert type(error) is kind
    assert error.status == ours
    if not isinstance(error, e.Rejected):
        assert CANARY not in error.message
        assert "'up'" in error.message


@pytest.mark.parametrize("status", [100, 101, 201, 204, 206])
def test_a_success_that_is_no_answer_is_the_providers_fault(status: int) -> None:
    assert of_status(status, Verdict(), None, "up").status == 502


def test_a_verdict_keeps_the_providers_words() -> None:
    error = of_status(400, Verdict(message="No.", type="t", code="c", param="p"), None, "up")
    assert (error.message, error.type, error.code, error.param) == ("No.", "t", "c", "p")
    assert not error.retryable


@pytest.mark.parametrize(
    ("status", "verdict", "type_", "code"),
    [
        (404, Verdict("No.", "not_found_error"), "invalid_request_error", "model_not_found"),
        (404, Verdict("No.", "NotFoundError"), "invalid_request_error", "model_not_found"),
        (404, Verdict("No.", "invalid_request_error", "other"), "invalid_request_error", "other"),
        (413, Verdict("No.", "request_too_large"), "invalid_request_error", "request_too_large"),
        (413, Verdict(), "invalid_request_error", "request_too_large"),
        (413, Verdict("No.", "tokens", "rate_limit_exceeded"), "tokens", "rate_limit_exceeded"),
    ],
)
def test_what_is_missing_or_too_large_is_said_in_openais_words(
    status: int, verdict: Verdict, type_: str, code: str
) -> None:
    error = of_status(status, verdict, None, "up")
    assert (error.status, error.type, error.code, error.param) == (status, type_, code, None)
    told = json.loads(anthropics(error))["error"]["type"]
    assert told == {404: "not_found_error", 413: "request_too_large"}[status]


def test_a_limit_of_tokens_says_so() -> None:
    assert of_status(429, Verdict(type="tokens"), None, "up").type == "tokens"
    assert of_status(429, Verdict(type="anything"), None, "up").type == "requests"
    assert e.RateLimited("x").type == "requests"


@pytest.mark.parametrize(
    ("header", "value"),
    [(None, None), ("", None), ("7", 7), ("0.5", 0.5), ("-3", 0), ("1e9", 120), ("nan", None), ("inf", 120),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 21 Oct 2099 07:28:00 -0000", 120),
     ("Wed, 32 Oct 2099 07:28:00 GMT", None), ("soon", None)],
)  # fmt: skip
def test_retry_after_is_seconds_within_reason(header: str | None, value: float | None) -> None:
    assert seconds(header) == value


def test_retry_after_may_be_a_date() -> None:
    then = datetime.now(UTC) + timedelta(seconds=60)
    value = seconds(format_datetime(then, usegmt=True))
    assert value is not None
    assert 50 < value <= 60


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1e9"}, 120),
        ({"retry-after": "7", "retry-after-ms": "soon"}, 7),
        ({"retry-after": "7", "retry-after-ms": "nan"}, 7),
    ],
)
def test_milliseconds_say_it_best(headers: dict[str, str], value: float | None) -> None:
    assert seconds(retry_after(headers)) == value


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (Verdict(message=CANARY), e.UpstreamFailed),
        (Verdict(status=503), e.Overloaded),
        (Verdict(status=429), e.RateLimited),
        (Verdict(code="context_length_exceeded"), e.ContextTooLong),
        (Verdict(code="insufficient_quota"), e.QuotaExhausted),
        (Verdict(type="overloaded_error"), e.Overloaded),
        (Verdict(code="content_filter"), e.ContentFiltered),
        (Verdict(type="rate_limit_error"), e.RateLimited),
        (Verdict(type="tokens", code="rate_limit_exceeded"), e.RateLimited),
        (Verdict(type="invalid_request_error"), e.Rejected),
        (Verdict(type="invalid_request_error", code="invalid_api_key"), e.AuthFailed),
        (Verdict(type="authentication_error"), e.AuthFailed),
        (Verdict(type="permission_error"), e.AuthFailed),
        (Verdict(type="not_found_error", message="x"), e.Rejected),
        (Verdict(type="request_too_large"), e.Rejected),
        (Verdict(type="timeout_error"), e.TimedOut),
        (Verdict(type="api_error"), e.UpstreamFailed),
        (Verdict(type="server_error"), e.UpstreamFailed),
    ],
)
def test_an_error_inside_an_answer_becomes_our_error(verdict: Verdict, kind: type[e.GatewayError]) -> None:
    error = of_stream(verdict, "up")
    assert type(error) is kind
    assert CANARY not in error.message


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (Lost("10.1.2.3"), e.Unreachable),
        (ConnectionResetError(104, "10.1.2.3"), e.Unreachable),
        (ConnectionRefusedError(111, "10.1.2.3"), e.Unreachable),
        (ssl.SSLError("10.1.2.3"), e.Unreachable),
        (ConnectTimedOut("10.1.2.3"), e.TimedOut),
        (TimeoutError("10.1.2.3"), e.TimedOut),
        (Malformed("10.1.2.3"), e.BadResponse),
        (Unsendable("10.1.2.3"), e.BackendError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_trouble_on_the_way_becomes_our_error_and_tells_no_address(
    trouble: BaseException, kind: type[e.GatewayError]
) -> None:
    error = of_exception(trouble, "up")
    assert type(error) is kind
    assert "10.1.2.3" not in error.message


def test_what_is_not_the_providers_is_left_alone() -> None:
    assert of_exception(ValueError("bug"), "up") is None
    assert of_exception(asyncio.CancelledError(), "up") is None
    ours = e.ModelNotFound("x")
    assert of_exception(ours, "up") is ours


@pytest.mark.parametrize(
    ("said", "verdict", "least_s", "most_s"),
    [
        (None, PLAIN, None, None),
        ("nonsense", PLAIN, None, None),
        ("0", PLAIN, None, None),
        ("7200", PLAIN, 7200, 7200),
        ("9e99", PLAIN, 31 * 86_400, 31 * 86_400),
        (timedelta(hours=5), PLAIN, 17_800, 18_000),
        (None, Verdict(retry_after_s=45.5), 45.5, 45.5),
        ("20", Verdict(retry_after_s=45.5), 20, 20),
        ("20", Verdict(renews_hour=0), 20, 86_400),
        (None, Verdict(renews_hour=8), 0, 86_400),
    ],
)
def test_when_a_limit_is_over_is_known_beyond_what_anybody_waits_for(
    said: str | timedelta | None, verdict: Verdict, least_s: float | None, most_s: float | None
) -> None:
    if isinstance(said, timedelta):
        said = format_datetime(datetime.now(UTC) + said)
    error = of_status(429, verdict, said, "up")
    assert error.retry_after_s is None or error.retry_after_s <= 120
    if least_s is None or most_s is None:
        assert not error.refill_s
    else:
        assert error.refill_s is not None
        assert least_s <= error.refill_s <= most_s


def test_what_a_day_allows_is_there_again_at_its_hour() -> None:
    error = of_status(429, Verdict(renews_hour=8), None, "up")
    assert error.refill_s is not None
    then = datetime.now(UTC) + timedelta(seconds=error.refill_s + 30)
    assert (then.hour, then.minute) == (8, 0)
