"""POST /v1/messages/count_tokens along a model's routes."""

import json
from typing import Any

import httpx2
import pytest

from tests.claude import Claude

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello."}]}
COUNT = "/v1/messages/count_tokens"
EXPLAINED = {"x-gateway-explain": "true"}


@pytest.mark.parametrize(
    ("model", "attempts", "outcomes"),
    [
        ("claude/claude-opus-4-6", "1", ["answered"]),
        ("up-then-claude", "1", ["cannot count tokens", "answered"]),
        ("failing-then-claude", "2", ["upstream_error", "answered"]),
    ],
)
def test_the_first_route_that_can_counts(
    translated_http: httpx2.Client, model: str, attempts: str, outcomes: list[str]
) -> None:
    answer = translated_http.post(COUNT, json=ASK | {"model": model}, headers=EXPLAINED)
    assert answer.json() == {"input_tokens": 2095}
    assert answer.headers["x-gateway-model"] == "claude/claude-opus-4-6"
    assert answer.headers["x-gateway-attempts"] == attempts
    told = json.loads(answer.headers["x-gateway-explain"])["routes"]
    assert [route["outcome"] for route in told] == outcomes


def test_a_refusal_is_not_asked_again(translated_http: httpx2.Client, anthropics: Claude) -> None:
    answer = translated_http.post(COUNT, json=ASK | {"model": "refusing-then-claude"}, headers=EXPLAINED)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert answer.headers["x-gateway-attempts"] == "1"
    assert len(json.loads(answer.headers["x-gateway-explain"])["routes"]) == 1


def test_where_none_can_count_nothing_is_invented(translated_http: httpx2.Client) -> None:
    answer = translated_http.post(COUNT, json=ASK | {"model": "up/answer"}, headers=EXPLAINED)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "x-gateway-attempts" not in answer.headers
    told = json.loads(answer.headers["x-gateway-explain"])["routes"]
    assert told == [{"route": "up/answer", "outcome": "cannot count tokens"}]
