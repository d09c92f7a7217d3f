"""x-gateway-explain: how a request's routes were chosen and what became of each, for who asks."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.gateway.conftest import APP_KEY, AUTH, UPSTREAM_KEY, speaking
from tests.http import CHAT, chat, error_of
from tests.process import Gateway, gateway
from tests.provider import Provider
from tests.scripts import BODY_CANARY

EXPLAIN = {"x-gateway-explain": "true"}


def config(provider: str) -> dict[str, Any]:
    return {
        "auth": AUTH,
        "breaker": {"failures": 20, "cooldown_s": 60},
        "backends": {
            "up": {"kind": "openai", "base_url": provider, "api_key": UPSTREAM_KEY},
            "box": {"kind": "openai", "base_url": provider, "api_key": UPSTREAM_KEY, "price": "local"},
            "dead": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": UPSTREAM_KEY},
        },
        "models": {
            "second": {"routes": ["up/status:500", "box/answer"], "retries": 0},
            "none": {"routes": ["up/status:503", "dead/anything", "up/quota"], "retries": 1},
            "picky": {
                "routes": [
                    {"to": "box/small", "context_length": 10},
                    {"to": "box/blind", "capabilities": ["tools"]},
                    "up/answer",
                    "box/answer",
                ],
                "retries": 0,
            },
            "ejected": {"routes": ["dead/ejected", "up/answer"], "retries": 0},
            "broken": {"routes": ["up/tear:2", "up/events:4"], "stream_guard": "resume"},
        },
    }


@pytest.fixture(scope="module")
def running(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("explained"), config(running_provider.url)) as house:
        yield house


@pytest.fixture
def http(running: Gateway, upstream: Provider) -> Iterator[httpx2.Client]:
    with speaking(running, {"authorization": f"Bearer {APP_KEY}"}) as client:
        yield client


def explained(headers: httpx2.Headers, upstream: Provider) -> dict[str, Any]:
    """What the header tells; it is plain ASCII, and holds nothing that a client should not know."""
    text = headers["x-gateway-explain"]
    assert text.isascii()
    assert text.isprintable()
    for secret in (APP_KEY, UPSTREAM_KEY, BODY_CANARY, "http:", "127.0.0.1", upstream.url):
        assert secret not in text
    told: dict[str, Any] = json.loads(text)
    assert set(told) == {"requested", "reason", "mode", "routes"}
    return told


def outcomes(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(route["route"], route["outcome"]) for route in told["routes"]]


@pytest.mark.parametrize("stream", [False, True])
def test_a_success_tells_every_attempt_in_order(http: httpx2.Client, upstream: Provider, stream: bool) -> None:
    answer = http.post(CHAT, json=chat("second", stream=stream), headers=EXPLAIN).raise_for_status()
    told = explained(answer.headers, upstream)
    assert (told["requested"], told["reason"], told["mode"]) == ("second", "configured as 'second'", "auto")
    assert outcomes(told) == [("up/status:500", "upstream_error"), ("box/answer", "answered")]


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_tells_what_every_route_did(http: httpx2.Client, upstream: Provider, stream: bool) -> None:
    answer = http.post(CHAT, json=chat("none", stream=stream), headers=EXPLAIN)
    assert error_of(answer)
    assert answer.status_code in (502, 503)
    first_three = outcomes(explained(answer.headers, upstream))[:3]
    assert [route for route, _ in first_three] == ["up/status:503", "dead/anything", "up/quota"]
    assert [why for _, why in first_three] == [
        "server_is_overloaded", "upstream_unreachable", "upstream_quota_exhausted",
    ]  # fmt: skip


def test_it_names_what_was_left_out_and_why(http: httpx2.Client, upstream: Provider) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    body = {"model": "picky", "messages": [{"role": "user", "content": parts}]}
    assert outcomes(explained(http.post(CHAT, json=body, headers=EXPLAIN).headers, upstream)) == [
        ("box/blind", "takes no images"), ("box/small", "rejected"), ("up/answer", "answered"),
    ]  # fmt: skip


def test_it_tells_prices_windows_and_the_mode(http: httpx2.Client, upstream: Provider) -> None:
    headers = EXPLAIN | {"x-gateway-selection-mode": "local_only"}
    told = explained(http.post(CHAT, json=chat("picky", "word " * 50), headers=headers).headers, upstream)
    assert told["mode"] == "local_only"
    found = dict(outcomes(told))
    assert "local_only does not allow" in found["up/answer"]
    assert found["box/small"] == "context of 10 tokens is too short"


def test_a_refusal_by_mode_tells_why(http: httpx2.Client, upstream: Provider) -> None:
    headers = EXPLAIN | {"x-gateway-selection-mode": "free_only"}
    answer = http.post(CHAT, json=chat("up/answer"), headers=headers)
    assert answer.status_code == 400
    assert "free_only" in outcomes(explained(answer.headers, upstream))[0][1]


def test_it_tells_of_a_route_that_is_left_alone(http: httpx2.Client, upstream: Provider) -> None:
    for _ in range(20):
        http.post(CHAT, json=chat("ejected")).raise_for_status()
    answer = http.post(CHAT, json=chat("ejected"), headers=EXPLAIN).raise_for_status()
    assert answer.headers["x-gateway-attempts"] == "1"
    left, answered = outcomes(explained(answer.headers, upstream))
    assert left[0] == "dead/ejected"
    assert left[1].startswith("left alone")
    assert answered == ("up/answer", "answered")


def test_only_who_asks_is_told(http: httpx2.Client) -> None:
    for headers in ({}, {"x-gateway-explain": "false"}, {"x-gateway-explain": ""}):
        assert "x-gateway-explain" not in http.post(CHAT, json=chat("second"), headers=headers).headers
        assert "x-gateway-explain" not in http.post(CHAT, json=chat("none"), headers=headers).headers


@pytest.mark.parametrize(
    "model",
    [
        "up/été 模型 😀",
        'up/"quoted" \\ name',
        "up/line\nbreak\r\nx-injected: yes",
        "up/\x7f\x00\x1b[31m",
        "é" * 5000,
    ],
    ids=["letters", "quotes", "lines", "controls", "length"],
)
def test_any_name_fits_in_a_header(http: httpx2.Client, upstream: Provider, model: str) -> None:
    answer = http.post(CHAT, json=chat(model), headers=EXPLAIN)
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    assert "x-injected" not in answer.headers
    told = explained(answer.headers, upstream)
    assert told["requested"] == model if len(model) <= 200 else model.startswith(told["requested"].rstrip("…"))
    assert len(answer.headers["x-gateway-explain"]) < 4000


def test_a_long_name_that_answers_fits_in_a_header(http: httpx2.Client, upstream: Provider) -> None:
    model = f"answer:3:0.{'0' * 280}"
    answer = http.post(CHAT, json=chat(f"up/{model}"), headers=EXPLAIN).raise_for_status()
    assert upstream.asked().model == model
    assert sum(len(name) + len(value) for name, value in answer.headers.items()) < 8000
    assert explained(answer.headers, upstream)["routes"][0]["outcome"] == "answered"


def test_an_sdk_can_read_it(running: Gateway, upstream: Provider, sdk_http: httpx2.Client) -> None:
    sdk = openai.OpenAI(base_url=f"{running.url}/v1", api_key=APP_KEY, max_retries=0, http_client=sdk_http)
    raw = sdk.chat.completions.with_raw_response.create(
        model="second", messages=[{"role": "user", "content": "Hi"}], extra_headers=EXPLAIN
    )
    assert outcomes(json.loads(raw.headers["x-gateway-explain"]))[-1] == ("box/answer", "answered")
    with pytest.raises(openai.InternalServerError) as failed:
        sdk.chat.completions.create(model="none", messages=[{"role": "user", "content": "Hi"}], extra_headers=EXPLAIN)
    assert json.loads(failed.value.response.headers["x-gateway-explain"])["requested"] == "none"


def test_a_stream_that_is_gone_on_with_keeps_its_head(http: httpx2.Client, upstream: Provider) -> None:
    answer = http.post(CHAT, json=chat("broken", stream=True), headers=EXPLAIN)
    assert outcomes(explained(answer.headers, upstream)) == [("up/tear:2", "answered")], "the head has gone by then"
    assert b"word3" in answer.content


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages", "/v1/responses", "/v1/generate"])
def test_every_dialect_tells_it(http: httpx2.Client, upstream: Provider, path: str) -> None:
    contents: dict[str, dict[str, Any]] = {
        "/v1/completions": {"prompt": "Hi"},
        "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
        "/v1/responses": {"input": "Hi"},
        "/v1/generate": {"input": {"prompt": "Hi"}},
    }
    answer = http.post(path, json={"model": "second", **contents[path]}, headers=EXPLAIN)
    assert [route for route, _ in outcomes(explained(answer.headers, upstream))][-1] == "box/answer"
