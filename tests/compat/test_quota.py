"""What providers' headers say of limits, as each of them writes it."""

from typing import Any

import pytest

from compat.openai.error import parse_error
from compat.quota import Reading, moment, read
from tests.wire import dump

NOW = 1_790_000_000.0
DAY = 86_400


def told(headers: dict[str, str], *, refused: bool = False) -> list[Reading]:
    return read(headers.items(), NOW, refused=refused)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("1m26.4s", 86.4),
        ("120ms", 0.12),
        ("6m0s", 360),
        ("2h3m4.5s", 7384.5),
        ("1d", DAY),
        ("7.66s", 7.66),
        ("13us", 0.000_013),
        ("11726.2840924263", 11_726.284_092_426_3),
        ("0", 0),
        (str(NOW + 60), 60),
        (f"{(NOW + 60) * 1000:.0f}", 60),
        ("2026-09-21T14:14:20Z", 60),
        ("2026-09-21T14:14:20+00:00", 60),
        ("2026-09-21T16:14:20+02:00", 60),
        ("2026-09-21T14:14:20", 60),
        (" 60 ", 60),
    ],
)
def test_a_time_of_reset_is_read_in_every_way_it_is_written(text: str, after: float) -> None:
    assert moment(text, NOW) == pytest.approx(NOW + after, abs=1e-3)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "nan", "inf", "-inf", "1e300", "-1e9", "1m26", "s", "1x", "12:00", "9" * 400, "3000000", "1s 2", "١s"],
)
def test_a_time_of_reset_that_makes_no_sense_is_none(text: str) -> None:
    assert moment(text, NOW) is None


@pytest.mark.parametrize(
    ("headers", "readings"),
    [
        pytest.param(
            {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-remaining-requests": "14370",
                "x-ratelimit-reset-requests": "2m59.56s",
                "x-ratelimit-limit-tokens": "18000",
                "x-ratelimit-remaining-tokens": "17997",
                "x-ratelimit-reset-tokens": "120ms",
            },
            [
                Reading("requests", "", 14370, NOW + 179.56, 14400, True),
                Reading("tokens", "", 17997, NOW + 0.12, 18000, True),
            ],
            id="groq",
        ),
        pytest.param(
            {
                "x-ratelimit-limit-requests-day": "14400",
                "x-ratelimit-limit-tokens-minute": "60000",
                "x-ratelimit-remaining-requests-day": "13693",
                "x-ratelimit-remaining-tokens-minute": "60000",
                "x-ratelimit-reset-requests-day": "11726.25",
                "x-ratelimit-reset-tokens-minute": "26.5",
            },
            [
                Reading("requests", "day", 13693, NOW + 11726.25, 14400, False),
                Reading("tokens", "minute", 60000, NOW + 26.5, 60000, False),
            ],
            id="cerebras",
        ),
        pytest.param(
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "41",
                "anthropic-ratelimit-requests-reset": "2026-09-21T14:14:20Z",
                "anthropic-ratelimit-input-tokens-limit": "10000",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-09-21T14:14:50Z",
            },
            [
                Reading("requests", "", 41, NOW + 60, 50, True),
                Reading("input_tokens", "", 0, NOW + 90, 10000, True),
            ],
            id="anthropic",
        ),
        pytest.param(
            {
                "x-ratelimit-limit": "50",
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": f"{(NOW + 3600) * 1000:.0f}",
            },
            [Reading("requests", "", 0, NOW + 3600, 50, False)],
            id="openrouter",
        ),
        pytest.param(
            {"ratelimit-limit": "100", "ratelimit-remaining": "7", "ratelimit-reset": "50"},
            [Reading("requests", "", 7, NOW + 50, 100, False)],
            id="draft 06",
        ),
        pytest.param(
            {"ratelimit": "limit=100, remaining=7, reset=50"},
            [Reading("requests", "", 7, NOW + 50, 100, False)],
            id="draft 07",
        ),
        pytest.param(
            {
                "ratelimit": '"burst";r=7;t=50, "daily";r=900, bytes;r=1;t=1',
                "ratelimit-policy": '"burst";q=10;w=60,"daily";q=1000;w=86400;pk=:sdfjLJUOUH==:, bytes;q=5;qu="bytes"',
            },
            [
                Reading("requests", "minute", 7, NOW + 50, 10, False),
                Reading("requests", "day", 900, NOW + DAY, 1000, False),
            ],
            id="draft 10",
        ),
        pytest.param(
            {"x-ratelimit-remaining-requests-day": "3"},
            [Reading("requests", "day", 3, NOW + DAY, None, False)],
            id="no reset, but a named window",
        ),
        pytest.param(
            {"x-ratelimit-remaining-tokens": "3", "x-ratelimit-reset-tokens": "whenever"},
            [Reading("tokens", "", 3, NOW + 60, None, True)],
            id="no reset at all",
        ),
        pytest.param(
            {"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "-1"}, [], id="less than none"
        ),
        pytest.param({"x-ratelimit-remaining-requests": "1e400"}, [], id="infinite"),
        pytest.param(
            {"x-ratelimit-remaining-requests": "99.0"},
            [Reading("requests", "", 99, NOW + 60, None, True)],
            id="a float",
        ),
        pytest.param({"x-ratelimit-note": "café", "ratelimit": ";;;", "ratelimit-policy": '"'}, [], id="nothing"),
    ],
)
def test_each_provider_is_understood(headers: dict[str, str], readings: list[Reading]) -> None:
    found = told(headers)
    assert [(r.unit, r.span, r.remaining, r.most, r.evenly) for r in found] == [
        (r.unit, r.span, r.remaining, r.most, r.evenly) for r in readings
    ]
    assert [r.resets_at for r in found] == pytest.approx([r.resets_at for r in readings], abs=1e-3)


def test_a_refusal_may_say_which_limit_was_reached_and_until_when() -> None:
    by_day = {"x-ratelimit-type": "UserByModelByDay", "x-ratelimit-timeremaining": "41234"}
    assert told(by_day, refused=True) == [Reading("requests", "day", 0, NOW + 41234, None, False)]
    assert told(by_day) == []
    at_once = {"x-ratelimit-type": "UserConcurrentRequests", "x-ratelimit-timeremaining": "0"}
    assert told(at_once, refused=True) == []


def test_openrouters_error_says_it_in_its_body() -> None:
    headers = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{NOW * 1000 + 9e6:.0f}"}
    verdict = parse_error(
        dump(
            {
                "error": {
                    "message": "Rate limit exceeded: free-models-per-day.",
                    "code": 429,
                    "metadata": {"headers": headers, "limit_source": "openrouter_free_tier_daily"},
                }
            }
        )
    )
    assert read(verdict.limits, NOW) == [Reading("requests", "", 0, NOW + 9000, 50, False)]
    assert verdict.renews_hour == 0


def test_googles_error_says_it_in_its_details() -> None:
    quota: dict[str, Any] = {"@type": "google.rpc.QuotaFailure", "violations": [{"quotaId": "Requests-FreeTier"}]}
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.5s"}
    error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded …", "details": [quota, retry, 7]}
    verdict = parse_error(dump([{"error": error}]))
    assert (verdict.retry_after_s, verdict.renews_hour) == (45.5, None)
    quota["violations"] = [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}, None]
    assert parse_error(dump([{"error": error}])).renews_hour == 8


@pytest.mark.parametrize("odd", [{"metadata": {"headers": 1}}, {"details": {"a": 1}}, {"details": [{"violations": 1}]}])
def test_odd_errors_say_nothing(odd: dict[str, object]) -> None:
    verdict = parse_error(dump({"error": {"message": "m"} | odd}))
    assert (verdict.message, verdict.limits, verdict.renews_hour, verdict.retry_after_s) == ("m", (), None, None)
