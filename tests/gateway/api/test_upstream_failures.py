"""What a provider's failures become for the client."""

import json

import httpx2
import openai
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import FAILING, UPSTREAM_KEY
from tests.http import CHAT, chat, error_of, events_of, in_band_error, metric, text_of
from tests.process import Gateway
from tests.provider import Provider
from tests.scripts import BODY_CANARY

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])

TABLE = [
    ("status:400", 400, "some_error", None),
    ("status:422", 422, "some_error", None),
    ("status:401", 502, "server_error", "upstream_auth_failed"),
    ("status:403", 502, "server_error", "upstream_auth_failed"),
    ("status:402", 503, "server_error", "upstream_quota_exhausted"),
    ("quota", 503, "server_error", "upstream_quota_exhausted"),
    ("context", 400, "invalid_request_error", "context_length_exceeded"),
    ("status:429:7", 429, "requests", "rate_limit_exceeded"),
    ("status:500", 502, "server_error", "upstream_error"),
    ("status:503", 503, "server_error", "server_is_overloaded"),
    ("status:529", 503, "server_error", "server_is_overloaded"),
    ("status:504", 504, "server_error", "upstream_timeout"),
    ("html", 502, "server_error", "upstream_bad_response"),
    ("error_in_200", 502, "server_error", "upstream_error"),
    ("redirect", 502, "server_error", "upstream_bad_response"),
    ("reset", 502, "server_error", "upstream_unreachable"),
]


@BOTH
@pytest.mark.parametrize(("script", "status", "type_", "code"), TABLE, ids=[row[0] for row in TABLE])
def test_a_providers_failure_becomes_the_contracts_error(
    client: httpx2.Client, upstream: Provider, stream: bool, script: str, status: int, type_: str, code: str | None
) -> None:
    answer = client.post(CHAT, json=chat(f"once-{script}", stream=stream))
    error = error_of(answer)
    assert (answer.status_code, error["type"], error["code"]) == (status, type_, code)
    assert len(upstream.seen) == 1, "one attempt"
    if status not in (400, 422):
        assert BODY_CANARY not in answer.text
    for secret in (UPSTREAM_KEY, upstream.url, "127.0.0.1"):
        assert secret not in answer.text
    assert answer.headers["x-gateway-attempts"] == "1"
    assert answer.headers["x-gateway-backend"] == "up"
    assert answer.headers["x-gateway-model"] == f"up/once-{script}"


@BOTH
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"], ids=["relayed", "translated"])
def test_an_errors_answer_has_the_providers_headers(client: httpx2.Client, path: str, stream: bool) -> None:
    answer = client.post(path, json=chat("once-status:429", stream=stream, max_tokens=9))
    assert answer.status_code == 429
    assert answer.headers["x-ratelimit-remaining-requests"] == "99"
    assert answer.headers["x-gateway-upstream-request-id"] == "req_of_the_provider"
    assert not {"set-cookie", "authorization", "x-internal-host"} & set(answer.headers)


@BOTH
def test_a_translated_answer_has_the_providers_headers(client: httpx2.Client, stream: bool) -> None:
    answer = client.post("/v1/messages", json=chat("up/answer", stream=stream, max_tokens=9))
    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-remaining-requests"] == "99"
    assert answer.headers["x-gateway-upstream-request-id"] == "req_of_the_provider"


def test_the_headers_are_those_of_the_backend_that_answered(client: httpx2.Client) -> None:
    body = {"model": "dead-then-fake", "max_tokens": 9, "messages": chat("x")["messages"]}
    assert "x-ratelimit-remaining-requests" not in client.post("/v1/messages", json=body).headers
    body["model"] = "cut-then-fake"
    answer = client.post("/v1/messages", json=body | {"stream": True})
    assert answer.headers["x-gateway-backend"] == "fake"
    assert "x-ratelimit-remaining-requests" not in answer.headers


@BOTH
def test_a_refusal_inside_an_answer_is_not_tried_elsewhere(
    client: httpx2.Client, upstream: Provider, stream: bool
) -> None:
    async def refused(x: Exchange) -> None:
        error = wire.dump(json.loads(wire.error("No such voice.", "invalid_request_error", param="voice")))
        x.answer(error) if not x.streams else x.answer(b"data: " + error + b"\n\n", content_type="text/event-stream")

    upstream.scripts["html"] = refused
    answer = client.post(CHAT, json=chat("after-html", stream=stream))
    assert answer.status_code == 400
    assert error_of(answer)["message"] == "No such voice."
    assert len(upstream.seen) == 1


def test_an_attempt_is_counted_once(client: httpx2.Client, house: Gateway) -> None:
    def figures() -> list[float]:
        name = "pluggably_attempts_total"
        return [
            metric(house.url, name, backend="up"),
            metric(house.url, name, backend="up", outcome="ok"),
            metric(house.url, name, backend="up", outcome="upstream_bad_response"),
        ]

    before = figures()
    client.post(CHAT, json=chat("once-cut:2", stream=True))
    client.post(CHAT, json=chat("after-html", stream=True))
    assert [b - a for a, b in zip(before, figures(), strict=True)] == [3, 1, 2]


@pytest.mark.parametrize("script", ["status:401", "status:403", "quota"])
def test_what_no_retry_can_mend_tells_the_sdk_not_to(client: httpx2.Client, script: str) -> None:
    assert client.post(CHAT, json=chat(f"once-{script}")).headers["x-should-retry"] == "false"


@pytest.mark.parametrize("script", ["status:500", "status:503", "status:429:7", "reset", "html"])
def test_once_the_gateways_retries_are_spent_the_sdk_is_told_not_to(client: httpx2.Client, script: str) -> None:
    assert client.post(CHAT, json=chat(f"once-{script}")).headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("given", "passed"), [("7", "7"), ("0.2", "1"), ("100000", "120"), ("-5", "1")])
def test_retry_after_is_a_whole_number_of_at_most_120(client: httpx2.Client, given: str, passed: str) -> None:
    assert client.post(CHAT, json=chat(f"once-status:429:{given}")).headers["retry-after"] == passed


@pytest.mark.parametrize("given", ["nan", "inf", "Wed, 21 Oct 2026 07:28:00 GMT", "soon"])
def test_a_retry_after_that_is_no_number_does_no_harm(client: httpx2.Client, given: str) -> None:
    answer = client.post(CHAT, json=chat(f"once-status:429:{given}"))
    assert answer.status_code == 429
    assert 1 <= int(answer.headers.get("retry-after", "1")) <= 120


def test_a_rate_limit_is_told_only_after_the_gateways_own_attempts(client: httpx2.Client, upstream: Provider) -> None:
    answer = client.post(CHAT, json=chat("limited"))
    assert answer.status_code == 429
    assert len(upstream.seen) == 3
    assert answer.headers["x-gateway-attempts"] == "3"


def test_a_rate_limit_longer_than_patience_is_told_at_once(client: httpx2.Client, upstream: Provider) -> None:
    answer = client.post(CHAT, json=chat("up/status:429:60"))
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"
    assert len(upstream.seen) == 1


def test_an_unreachable_provider_is_502(client: httpx2.Client) -> None:
    answer = client.post(CHAT, json=chat("dead"))
    assert answer.status_code == 502
    error = error_of(answer)
    assert error["code"] == "upstream_unreachable"
    assert "127.0.0.1" not in error["message"]


@pytest.mark.parametrize("script", ["tear:2", "cut:2", "error_event:2"])
def test_a_stream_that_breaks_after_content_ends_with_an_error_and_no_done(client: httpx2.Client, script: str) -> None:
    answer = client.post(CHAT, json=chat(f"once-{script}", stream=True))
    assert answer.status_code == 200
    assert events_of(answer.content)[1:3] != []
    error = in_band_error(answer.content)
    assert error["code"] in ("upstream_unreachable", "upstream_bad_response", "upstream_error")
    assert BODY_CANARY not in answer.text
    assert "word0 word1 " in "".join(text_of(b"data: " + event + b"\n\n") for event in events_of(answer.content)[:-1])


@pytest.mark.parametrize("script", ["tear:2", "cut:2", "error_event:2"])
def test_the_sdk_raises_on_a_stream_that_breaks(sdk: openai.OpenAI, script: str) -> None:
    stream = sdk.chat.completions.create(
        model=f"once-{script}", messages=[{"role": "user", "content": "x"}], stream=True
    )
    assert [next(stream).choices[0].delta.content for _ in range(3)] == ["", "word0 ", "word1 "]
    with pytest.raises(openai.APIError):
        next(stream)


@BOTH
@pytest.mark.parametrize("script", [script for script in FAILING if script != "cut"])
def test_the_next_route_answers_when_the_first_fails_before_content(
    client: httpx2.Client, upstream: Provider, script: str, stream: bool
) -> None:
    answer = client.post(CHAT, json=chat(f"after-{script}", stream=stream))
    assert answer.status_code == 200
    assert "word0 word1 word2 " in (text_of(answer.content) if stream else answer.text)
    assert answer.headers["x-gateway-attempts"] == "2"
    assert answer.headers["x-gateway-model"] == "up/answer"
    assert [x.model for x in upstream.seen] == [script, "answer"]


def test_a_stream_cut_before_content_is_taken_over_by_the_next_route(client: httpx2.Client) -> None:
    answer = client.post(CHAT, json=chat("after-cut", stream=True))
    assert text_of(answer.content) == "word0 word1 word2 "
    assert answer.headers["x-gateway-attempts"] == "2"


@BOTH
def test_a_route_that_cannot_be_connected_is_passed_over(client: httpx2.Client, stream: bool) -> None:
    assert client.post(CHAT, json=chat("dead-then-good", stream=stream)).status_code == 200
    answer = client.post(CHAT, json=chat("dead-then-fake", stream=stream))
    assert answer.status_code == 200
    assert answer.headers["x-gateway-backend"] == "fake"


def test_a_verdict_on_the_request_itself_is_not_tried_elsewhere(client: httpx2.Client, upstream: Provider) -> None:
    client.post(CHAT, json=chat("up/status:400"))
    assert len(upstream.seen) == 1


@BOTH
@pytest.mark.parametrize("model", ["quick-silent", "quick-headers"])
def test_a_silent_provider_is_504(client: httpx2.Client, model: str, stream: bool) -> None:
    if not stream:  # no first token to wait for: the whole answer has the whole time
        answer = client.post(CHAT, json=chat(model), headers={"x-request-timeout": "0.5"})
    else:
        answer = client.post(CHAT, json=chat(model, stream=True))
    assert answer.status_code == 504
    assert error_of(answer)["code"] == "upstream_timeout"


def test_a_stream_that_falls_silent_ends_with_an_error(client: httpx2.Client) -> None:
    answer = client.post(CHAT, json=chat("quick-stall", stream=True))
    assert answer.status_code == 200
    assert in_band_error(answer.content)["code"] == "upstream_timeout"


@BOTH
def test_a_trickle_does_not_outlast_the_whole_time(client: httpx2.Client, upstream: Provider, stream: bool) -> None:
    answer = client.post(CHAT, json=chat("quick-trickle", stream=stream))
    error = in_band_error(answer.content) if stream else error_of(answer)
    assert error["code"] == "upstream_timeout"
    assert upstream.asked().left_within(2.0, upstream.asked().arrived)


@BOTH
def test_x_request_timeout_bounds_the_whole_request(client: httpx2.Client, upstream: Provider, stream: bool) -> None:
    answer = client.post(CHAT, json=chat("up/silent", stream=stream), headers={"x-request-timeout": "0.4"})
    assert answer.status_code == 504
    assert error_of(answer)["code"] == "upstream_timeout"
    assert upstream.asked().left_within(1.4, upstream.asked().arrived)
    assert len(upstream.seen) == 1, "what may still be working is not asked again"


def test_x_request_timeout_bounds_a_translated_request(client: httpx2.Client) -> None:
    answer = client.post(
        "/v1/generate", json={"model": "up/silent", "input": {"prompt": "x"}}, headers={"x-request-timeout": "0.4"}
    )
    assert answer.status_code == 504
    assert error_of(answer)["code"] == "upstream_timeout"


@BOTH
def test_x_request_timeout_bounds_a_backend_that_keeps_no_time_itself(client: httpx2.Client, stream: bool) -> None:
    answer = client.post(CHAT, json=chat("slow/fake", stream=stream), headers={"x-request-timeout": "0.25"})
    error = in_band_error(answer.content) if stream else error_of(answer)
    assert error["code"] == "upstream_timeout"


def test_an_account_without_quota_is_not_asked_again(client: httpx2.Client, upstream: Provider) -> None:
    answer = client.post(CHAT, json=chat("no-account"))
    assert error_of(answer)["code"] == "upstream_quota_exhausted"
    assert answer.headers["x-gateway-attempts"] == "1"
    assert len(upstream.seen) == 1


def test_after_a_silent_route_the_next_one_answers(client: httpx2.Client, upstream: Provider) -> None:
    answer = client.post(CHAT, json=chat("quick-then-good", stream=True))
    assert text_of(answer.content) == "word0 word1 word2 "
    first = upstream.asked(count=1)
    assert first.left_within(1.5, first.arrived)
