"""POST /v1/generate: the gateway's own dialect, in front of a provider and of the fake backend."""

import json
import re
from typing import Any

import httpx2
import pytest

from tests import scripts, wire
from tests.exchange import Exchange
from tests.http import error_of
from tests.provider import Provider

PATH = "/v1/generate"


def body(model: str = "fake/fake", **fields: Any) -> dict[str, Any]:
    return {"model": model, "input": {"prompt": "Say hello."}, **fields}


def events(answer: httpx2.Response) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for event in answer.text.split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in event.split("\n") if ": " in line)
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_an_answer_has_every_field_of_the_contract(client: httpx2.Client) -> None:
    answer = client.post(PATH, json=body(state={"k": 1})).json()
    assert list(answer) == [
        "id", "object", "created_at", "model", "backend", "modality", "output", "finish_reason", "usage", "selection",
        "session_id", "state", "timing",
    ]  # fmt: skip
    assert answer["id"].startswith("gen_")
    assert answer["object"] == "generation"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer["created_at"])
    assert (answer["model"], answer["backend"], answer["modality"]) == ("fake", "fake", "text")
    assert answer["output"]["text"] == "Hello from the fake backend."
    assert answer["output"]["artifacts"] == []
    assert answer["finish_reason"] == "stop"
    assert answer["usage"] == {"input_tokens": 1, "output_tokens": 5, "cached_tokens": None, "reasoning_tokens": None}
    assert answer["selection"]["requested"] == "fake/fake"
    assert (answer["selection"]["fallback"], answer["selection"]["attempts"]) == (False, 1)
    assert answer["state"] == {"k": 1}
    assert set(answer["timing"]) == {"queue_s", "load_s", "first_token_s", "total_s"}


def test_a_provider_answers_it_through_its_own_dialect(client: httpx2.Client, upstream: Provider) -> None:
    answer = client.post(PATH, json=body("up/answer", parameters={"temperature": 0.5, "max_tokens": 7, "stop": "."}))
    assert answer.json()["output"]["text"] == "word0 word1 word2 "
    assert answer.json()["model"] == wire.MODEL
    assert answer.json()["usage"]["cached_tokens"] == 4
    sent = upstream.asked().json
    assert sent["model"] == "answer"
    assert sent["messages"] == [{"role": "user", "content": "Say hello."}]
    assert (sent["temperature"], sent["max_tokens"], sent["stop"]) == (0.5, 7, ["."])


def test_a_stream_starts_says_and_completes(client: httpx2.Client) -> None:
    for model, text in (("fake/fake", "Hello from the fake backend."), ("up/answer", "word0 word1 word2 ")):
        got = events(client.post(PATH, json=body(model, stream=True)))
        assert got[0][0] == "generation.started"
        assert {name for name, _ in got[1:-1]} == {"text.delta"}
        assert "".join(data["delta"] for _, data in got[1:-1]) == text
        name, whole = got[-1]
        assert name == "generation.completed"
        assert whole["output"]["text"] == text
        assert whole["id"] == got[0][1]["id"]


def test_tool_calls_come_as_deltas_and_whole(client: httpx2.Client) -> None:
    got = events(client.post(PATH, json=body("up/tools", stream=True)))
    assert {name for name, _ in got[1:-1]} == {"tool_call.delta"}
    assert [c["name"] for c in got[-1][1]["output"]["tool_calls"]] == ["get_weather", "get_time"]
    assert got[-1][1]["finish_reason"] == "tool_calls"


def test_a_stream_that_breaks_ends_with_an_error_event(client: httpx2.Client) -> None:
    got = events(client.post(PATH, json=body("once-tear:2", stream=True)))
    assert got[-1][0] == "error"
    assert got[-1][1]["error"]["code"] == "upstream_unreachable"
    assert "generation.completed" not in {name for name, _ in got}


def test_a_fallback_is_told(client: httpx2.Client) -> None:
    answer = client.post(PATH, json=body("dead-then-fake")).json()
    assert (answer["selection"]["fallback"], answer["selection"]["attempts"]) == (True, 2)
    assert answer["backend"] == "fake"


def test_messages_and_pictures_are_taken(client: httpx2.Client, upstream: Provider) -> None:
    picture = "data:image/png;base64,AAAA"
    asked = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]}
    client.post(PATH, json=body("up/answer") | {"input": asked | {"images": [picture]}}).raise_for_status()
    sent = upstream.asked().json["messages"]
    assert sent[0] == {"role": "system", "content": "Be brief."}
    assert sent[1]["content"][1] == {"type": "image_url", "image_url": {"url": picture}}


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"input": {}}, "input.prompt", "missing_required_parameter"),
        ({"input": None}, "input", "invalid_type"),
        ({"input": {"prompt": "x", "messages": [{"role": "user", "content": "y"}]}}, "input.messages", None),
        ({"input": {"messages": [{"content": "y"}]}}, "input.messages[0].role", "missing_required_parameter"),
        ({"input": {"messages": [{"role": "wizard"}]}}, "input.messages[0].role", "invalid_value"),
        ({"input": {"prompt": "x", "images": ["data:nonsense"]}}, "input.images[0]", "invalid_value"),
        ({"parameters": {"temperature": "hot"}}, "parameters.temperature", "invalid_type"),
        ({"parameters": {"temprature": 1}}, "parameters.temprature", "unknown_parameter"),
        ({"tempo": 1}, "tempo", "unknown_parameter"),
        ({"api_key": "x"}, "api_key", "unknown_parameter"),
        ({"modality": "smell"}, "modality", "invalid_value"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_field_is_400_and_named(
    client: httpx2.Client, change: dict[str, Any], param: str, code: str | None
) -> None:
    answer = client.post(PATH, json=body() | change)
    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["param"], error["code"]) == (param, code)


def test_a_provider_with_one_model_needs_no_name(client: httpx2.Client) -> None:
    listed = [m["id"] for m in client.get("/v1/models").json()["data"] if m["id"].startswith("fake/")]
    asked = {"input": {"prompt": "x"}, "provider": "fake"}
    answer = client.post(PATH, json=asked)
    assert listed == ["fake/fake"]
    assert answer.json()["selection"]["requested"] == "fake/fake"
    refused = client.post(PATH, json=asked | {"provider": "nobody"})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "model")


def test_odd_chunks_of_a_provider_do_no_harm(client: httpx2.Client, upstream: Provider) -> None:
    """Null ids and models, float times, arguments as objects: all seen in the wild."""

    async def odd(x: Exchange) -> None:
        chunks = (
            b'{"id":null,"model":null,"created":1.5,"choices":[{"index":0,"delta":{"role":"assistant"}}]}',
            b'{"choices":null}',
            b'{"id":"x","choices":[{"index":0,"delta":null}]}',
            b'{"id":"x","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}],"usage":{}}',
            b'{"id":"x","choices":[{"index":0,"delta":{"tool_calls":null},"finish_reason":"eos"}],"usage":[]}',
        )
        await scripts.tell(x, [*(b"data: " + chunk + b"\n\n" for chunk in chunks), wire.DONE])

    upstream.scripts["odd"] = odd
    answer = client.post(PATH, json=body("up/odd"))
    assert answer.status_code == 200
    assert not upstream.asked().streams
    _, streamed = events(client.post(PATH, json=body("up/odd", stream=True)))[-1]
    assert upstream.asked(count=2).streams
    for whole in (answer.json(), streamed):
        assert whole["output"]["text"] == "Hi"
        assert whole["finish_reason"] == "other"


def test_a_whole_answer_that_does_not_say_why_it_ended_is_no_success(client: httpx2.Client, upstream: Provider) -> None:
    async def unfinished(x: Exchange) -> None:
        x.answer(wire.completion("Half of").replace(b'"finish_reason":"stop"', b'"finish_reason":null'))

    upstream.scripts["unfinished"] = unfinished
    answer = client.post(PATH, json=body("once-unfinished"))
    assert not upstream.asked().streams
    assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_bad_response")
    assert "Half of" not in answer.text


@pytest.mark.parametrize(
    "choice",
    [
        b'{"index":0,"delta":{"content":[{"type":"text","text":"Hi"}]}}',
        b'{"index":0,"delta":[]}',
        b'{"index":0,"delta":"x"}',
        b'{"index":null,"delta":{}}',
        b"7",
        b'{"delta":{"tool_calls":{"a":1}}}',
        b'{"delta":{"content":7}}',
    ],
)
@pytest.mark.parametrize("path", [PATH, "/v1/chat/completions"])
def test_a_chunk_of_another_shape_is_the_providers_fault_or_passes(
    client: httpx2.Client, upstream: Provider, choice: bytes, path: str
) -> None:
    async def strange(x: Exchange) -> None:
        x.begin()
        x.send(b'data: {"id":"x","choices":[' + choice + b"]}\n\n")
        x.send(wire.word("good"))
        x.send(wire.finish())
        x.send(wire.DONE)
        x.end()

    upstream.scripts["strange"] = strange
    asked = body("up/strange", stream=True) | {"messages": [{"role": "user", "content": "x"}]}
    if path == PATH:
        del asked["messages"]
    answer = client.post(path, json=asked)
    assert answer.status_code in (200, 502)
    assert "internal_error" not in answer.text
