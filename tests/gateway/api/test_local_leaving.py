"""Whoever leaves a local model's answer, in whatever dialect, frees its slot within a second."""

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.process import Gateway

MODEL = "local/smollm2-135m-instruct"
LONG = "Tell a very long story."
PARAMETERS = {"type": "object", "properties": {"story": {"type": "string"}}, "required": ["story"]}
MESSAGES = [{"role": "user", "content": LONG}]
ENDLESS = {"max_tokens": 1500, "stream": True, "model": MODEL, "temperature": 0}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", ENDLESS | {"messages": MESSAGES}),
    "completions": ("/v1/completions", ENDLESS | {"prompt": LONG, "ignore_eos": True}),
    "messages": ("/v1/messages", ENDLESS | {"messages": MESSAGES}),
    "responses": (
        "/v1/responses",
        {"model": MODEL, "stream": True, "temperature": 0, "max_output_tokens": 1500, "input": LONG},
    ),
    "a call in chat": (
        "/v1/chat/completions",
        ENDLESS
        | {"messages": MESSAGES, "tool_choice": "required"}
        | {"tools": [{"type": "function", "function": {"name": "tell", "parameters": PARAMETERS}}]},
    ),
    "a call in messages": (
        "/v1/messages",
        ENDLESS
        | {"messages": MESSAGES, "tool_choice": {"type": "any"}}
        | {"tools": [{"name": "tell", "input_schema": PARAMETERS}]},
    ),
    "not streamed": ("/v1/chat/completions", ENDLESS | {"messages": MESSAGES, "stream": False}),
}


@pytest.fixture
def http(local_gateway: Gateway) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=local_gateway.url, timeout=90, verify=False) as client:
        yield client


def running(http: httpx2.Client) -> int:
    standing: dict[str, Any] = http.get("/v1/models/" + MODEL.replace("/", "%2F") + "/status").json()
    count: int = standing["running"]
    return count


def wait_for(http: httpx2.Client, count: int, within_s: float) -> None:
    end = time.monotonic() + within_s
    while (now := running(http)) != count:
        assert time.monotonic() < end, f"{now} are running"
        time.sleep(0.02)


@pytest.mark.parametrize("kind", REQUESTS)
def test_the_slot_is_free_within_a_second(http: httpx2.Client, kind: str) -> None:
    path, body = REQUESTS[kind]
    mark = '"text"' if "prompt" in body else "delta"
    wait_for(http, 0, 5)
    if body["stream"]:
        with http.stream("POST", path, json=body) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()  # let go of, it would close the answer
            while mark not in next(lines):
                pass
            assert running(http) == 1
    else:
        with pytest.raises(httpx2.ReadTimeout):
            http.post(path, json=body, timeout=httpx2.Timeout(30, read=0.7))
    wait_for(http, 0, 1)
