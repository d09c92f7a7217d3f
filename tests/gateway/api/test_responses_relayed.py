"""POST /v1/responses in front of a provider that speaks it: bytes pass, and the provider keeps its own."""

import asyncio
import itertools
import json
import time
from typing import Any

import httpx2
import openai
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.api.conftest import ACME_KEY
from tests.http import error_of, post, raw, usage_row
from tests.process import Gateway
from tests.provider import Provider
from tests.responses import checked

PATH = "/v1/responses"
STREAM, WHOLE = wire.fixture("responses_provider.sse"), wire.fixture("responses_provider.json")
ID, ITEM = (
    "resp_68af4030592c81938ec0a5fbab4a3e9f05438e46b5f69a3b",
    "msg_68af4030baa48193b0b43b4c2a176a1a05438e46b5f69a3b",
)
NUMBERS = itertools.count(1)
"""The gateway outlives a test, and so do the ids it remembers."""
PRELUDE = b"\n\n".join(STREAM.split(b"\n\n")[:2]) + b"\n\n"
CONTENT = b"\n\n".join(STREAM.split(b"\n\n")[:8]) + b"\n\n"


def failed(message: str) -> bytes:
    """The provider's own word that it failed."""
    body = json.loads(WHOLE) | {"status": "failed", "error": {"code": "server_error", "message": message}}
    return (
        b"event: response.failed\ndata: "
        + wire.dump({"type": "response.failed", "sequence_number": 8, "response": body})
        + b"\n\n"
    )


@pytest.fixture
def speaking(upstream: Provider) -> Provider:
    """The provider, speaking the Responses API; each of its answers has an id of its own."""

    def numbered(answer: bytes) -> bytes:
        n = b"%04d" % next(NUMBERS)
        return answer.replace(ID.encode(), ID.encode()[:-4] + n).replace(ITEM.encode(), ITEM.encode()[:-4] + n)

    async def spoken(x: Exchange) -> None:
        if not x.streams:
            x.answer(numbered(WHOLE))
            return
        x.begin()
        x.send(numbered(STREAM))
        x.end()

    async def verbatim(x: Exchange) -> None:
        if not x.streams:
            x.answer(WHOLE)
            return
        x.begin()
        for at in range(0, len(STREAM), 700):
            x.send(STREAM[at : at + 700])
            await asyncio.sleep(0)
        x.end()

    def pieces(*parts: bytes) -> Any:
        async def script(x: Exchange) -> None:
            x.begin()
            for part in parts:
                x.send(part)
            x.end()

        return script

    async def stalling(x: Exchange) -> None:
        x.begin()
        x.send(CONTENT)
        await asyncio.Event().wait()

    async def silent(x: Exchange) -> None:
        await asyncio.Event().wait()

    async def kept(x: Exchange) -> None:
        """GET, DELETE and cancel: what stands in the URL comes back."""
        method, path, _ = x.head.split(b" ", 2)
        x.answer(wire.dump({"object": "response", "asked": f"{method.decode()} {path.decode()}"}))

    upstream.scripts |= {
        "spoken": spoken,
        "verbatim": verbatim,
        "cut": pieces(CONTENT),
        "failing": pieces(CONTENT, failed("sorry")),
        "failing-first": pieces(PRELUDE, failed("sorry")),
        "erring": pieces(CONTENT, b'event: error\ndata: {"type":"error","message":"internal 10.0.0.1"}\n\n'),
        "stalling": stalling,
        "silent": silent,
        "": kept,
    }
    return upstream


@pytest.fixture
def http(speaking: Provider, wire_client: httpx2.Client) -> httpx2.Client:
    return wire_client


def asking(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "input": "Say hello."} | fields


ODD_BODY = (
    b'{"model":"speaks/verbatim", "input" : [ {"role":"user","content":[{"type":"input_text","text":"h\\u00e9"}]} ],'
    b'"tools":[{"type":"web_search"}], "vendor":{"big":12345678901234567890123, "f":1.50},"stream_options":'
    b'{"include_obfuscation":true}, "stream":%s}'
)


@pytest.mark.parametrize("stream", [False, True])
def test_every_byte_passes_both_ways(http: httpx2.Client, speaking: Provider, stream: bool) -> None:
    body = ODD_BODY % (b"true" if stream else b"false")
    answer = http.post(PATH, content=body, headers={"content-type": "application/json"})
    assert answer.content == (STREAM if stream else WHOLE)
    sent = speaking.asked()
    assert sent.path == PATH
    for value in (
        b'[ {"role":"user","content":[{"type":"input_text","text":"h\\u00e9"}]} ]',
        b'{"big":12345678901234567890123, "f":1.50}',
        b'{"include_obfuscation":true}',
        b'[{"type":"web_search"}]',
    ):
        assert value in sent.body
    assert list(sent.json) == list(json.loads(body))
    assert sent.json["model"] == "verbatim"


@pytest.mark.parametrize("stream", [False, True])
def test_it_is_metered(http: httpx2.Client, keeper: Gateway, stream: bool) -> None:
    marker = f"relayed-{stream}"
    answer = http.post(PATH, json=asking("speaks/verbatim", stream=stream), headers={"x-request-id": marker})
    assert answer.headers["x-gateway-backend"] == "speaks"
    row = usage_row(keeper.folder, marker)
    assert (row["input_tokens"], row["output_tokens"], row["cached_tokens"], row["reasoning_tokens"]) == (11, 7, 4, 3)


def test_the_sdk_streams_it(acme: openai.OpenAI, speaking: Provider) -> None:
    with acme.responses.stream(model="speaks/spoken", input="x") as stream:
        assert stream.get_final_response().output_text == "Hi there!"


# The provider keeps it


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_on_is_sent_to_the_provider_that_remembers(
    acme: openai.OpenAI, speaking: Provider, stream: bool
) -> None:
    if stream:
        with acme.responses.stream(model="mixed", input="One.") as events:
            first = events.get_final_response().id
    else:
        first = acme.responses.create(model="mixed", input="One.").id
    acme.responses.create(model="mixed", input="Two.", previous_response_id=first)
    sent = speaking.asked(count=2).json
    assert (sent["previous_response_id"], sent["input"]) == (first, "Two.")


def test_it_is_asked_for_where_it_is_kept(http: httpx2.Client, speaking: Provider) -> None:
    id_ = http.post(PATH, json=asking("speaks/spoken")).json()["id"]
    own = f"{PATH}/{id_}"
    for method, path in (
        ("GET", own),
        ("GET", f"{own}?include[]=reasoning.encrypted_content"),
        ("GET", f"{own}/input_items?limit=3&order=asc"),
        ("POST", f"{own}/cancel"),
        ("DELETE", own),
    ):
        answer = http.request(method, path)
        assert answer.status_code == 200
        assert answer.json()["asked"].replace("%5B%5D", "[]") == f"{method} {path}"
        assert speaking.seen[-1].headers["authorization"] == "Bearer k"
    assert http.get(own).status_code == 404, "it has been deleted"


def test_a_providers_refusal_is_passed_on_in_its_words(http: httpx2.Client, speaking: Provider) -> None:
    id_ = http.post(PATH, json=asking("speaks/spoken")).json()["id"]

    async def gone(x: Exchange) -> None:
        x.answer(wire.error(f"Response with id '{id_}' not found."), "404 Not Found")

    speaking.scripts[""] = gone
    answer = http.get(f"{PATH}/{id_}")
    assert answer.status_code == 404
    assert error_of(answer)["message"] == f"Response with id '{id_}' not found."


def test_streaming_it_again_is_refused(http: httpx2.Client, speaking: Provider) -> None:
    id_ = http.post(PATH, json=asking("speaks/spoken")).json()["id"]
    answer = http.get(f"{PATH}/{id_}?stream=true")
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "stream"


def test_another_tenant_cannot_reach_it(acme: openai.OpenAI, rival: openai.OpenAI, speaking: Provider) -> None:
    made = acme.responses.create(model="speaks/spoken", input="Secret.")
    asked = len(speaking.seen)
    with pytest.raises(openai.NotFoundError):
        rival.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError, match="not found"):
        rival.responses.create(model="speaks/spoken", input="x", previous_response_id=made.id)
    reference: Any = [{"type": "item_reference", "id": made.output[1].id}]
    with pytest.raises(openai.NotFoundError):
        rival.responses.create(model="speaks/spoken", input=reference)
    assert len(speaking.seen) == asked, "the provider was not even asked"
    acme.responses.create(model="speaks/spoken", input=reference)
    assert speaking.asked(count=2).json["input"] == reference


def test_a_provider_is_not_asked_for_an_id_it_may_have_given_to_others(http: httpx2.Client, speaking: Provider) -> None:
    answer = http.post(PATH, json=asking("speaks/spoken", previous_response_id="resp_of_somebody"))
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "previous_response_not_found"
    assert speaking.seen == []


def test_what_the_provider_does_not_keep_is_not_remembered(http: httpx2.Client, speaking: Provider) -> None:
    id_ = http.post(PATH, json=asking("speaks/spoken", store=False)).json()["id"]
    assert http.get(f"{PATH}/{id_}").status_code == 404


def test_another_provider_cannot_go_on_from_it(http: httpx2.Client, speaking: Provider) -> None:
    id_ = http.post(PATH, json=asking("speaks/spoken")).json()["id"]
    for model in ("speaks2/spoken", "fake/fake"):
        answer = http.post(PATH, json=asking(model, previous_response_id=id_))
        assert answer.status_code == 400
        assert error_of(answer)["param"] == "previous_response_id"


def test_a_provider_goes_on_from_what_the_gateway_keeps(acme: openai.OpenAI, speaking: Provider) -> None:
    first = acme.responses.create(model="fake/fake", input="One.")
    acme.responses.create(model="mixed", input="Two.", previous_response_id=first.id)
    sent = speaking.asked().json
    assert "previous_response_id" not in sent
    assert [(item["role"], item["content"]) for item in sent["input"]] == [
        ("user", [{"type": "input_text", "text": "One."}]),
        (
            "assistant",
            [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello from the fake backend."}],
        ),
        ("user", "Two."),
    ]
    assert not any("id" in item for item in sent["input"])


def test_a_background_response_can_be_asked_for_while_it_runs(
    http: httpx2.Client, keeper: Gateway, speaking: Provider
) -> None:
    body = asking("speaks/stalling", stream=True, background=True)
    with http.stream("POST", PATH, json=body) as answer:
        next(answer.iter_lines())
        assert http.post(f"{PATH}/{ID}/cancel").status_code == 200


# What goes wrong


def test_a_stream_that_ends_early_ends_as_failed(http: httpx2.Client) -> None:
    for model in ("speaks/cut", "quick-spoken"):
        answer = http.post(PATH, json=asking(model, stream=True))
        assert answer.content.startswith(CONTENT)
        events = [json.loads(e.partition(b"data: ")[2]) for e in answer.content.split(b"\n\n")[:-1]]
        assert [e["type"] for e in events[-2:]] == ["error", "response.failed"]
        assert [e["sequence_number"] for e in events] == list(range(len(events)))
        assert events[-1]["response"]["id"] == ID
        assert events[-1]["response"]["error"]["code"] == "server_error"


def test_a_providers_failure_is_told_once_in_its_own_event(http: httpx2.Client, keeper: Gateway) -> None:
    answer = http.post(PATH, json=asking("speaks/failing", stream=True), headers={"x-request-id": "failed-up-there"})
    assert answer.content == CONTENT + failed("sorry")
    assert keeper.wait_for("request_finished", request_id="failed-up-there")["code"] == "upstream_error"


def test_a_providers_error_event_says_nothing_of_its_insides(http: httpx2.Client) -> None:
    answer = http.post(PATH, json=asking("speaks/erring", stream=True))
    assert answer.content.startswith(CONTENT)
    assert b"10.0.0.1" not in answer.content
    assert b"event: response.failed" in answer.content


def test_a_failure_before_any_content_is_answered_by_the_next_route(http: httpx2.Client) -> None:
    answer = http.post(PATH, json=asking("failing-then-good", stream=True))
    assert checked_loosely(answer.content)[-1] == "response.completed"
    assert answer.headers["x-gateway-attempts"] == "2"


def test_a_provider_that_is_busy_is_stood_in_for_by_one_that_is_translated(
    acme: openai.OpenAI, http: httpx2.Client, speaking: Provider
) -> None:
    first = http.post(PATH, json=asking("mixed-busy")).json()
    assert first["output"][0]["content"][0]["text"] == "word0 word1 word2 "
    second = http.post(PATH, json=asking("mixed-busy", previous_response_id=first["id"], stream=True))
    assert checked(second.content)[-1]["response"]["previous_response_id"] == first["id"]
    assert acme.responses.retrieve(first["id"]).status == "completed"


@pytest.mark.parametrize("body", [b"<html>", b'{"object":"chat.completion"}', b'{"error":{"message":"x"}}'])
def test_what_is_no_response_is_an_error(http: httpx2.Client, speaking: Provider, body: bytes) -> None:
    async def odd(x: Exchange) -> None:
        x.answer(body)

    speaking.scripts["odd"] = odd
    for stream in (False, True):
        answer = http.post(PATH, json=asking("speaks/odd", stream=stream))
        assert answer.status_code == 502
        error_of(answer)


@pytest.mark.parametrize(
    ("model", "stream"), [("speaks/silent", False), ("speaks/stalling", True), ("speaks/silent", True)]
)
def test_a_client_that_leaves_stops_the_provider(keeper: Gateway, speaking: Provider, model: str, stream: bool) -> None:
    marker = f"left-relayed-{time.monotonic_ns()}"
    body = json.dumps(asking(model, input=marker, stream=stream)).encode()
    request = post(PATH, body, f"authorization: Bearer {ACME_KEY}", "content-type: application/json")
    with raw(keeper.port, request) as connection:
        call = speaking.asked(marker)
        if "stalling" in model:
            assert connection.recv(100)
    assert call.left_within(1.0, time.monotonic())


def checked_loosely(stream: bytes) -> list[str]:
    """The types of a provider's events, which may have fields that the SDK does not name."""
    return [event.split(b"\n")[0].decode().removeprefix("event: ") for event in stream.split(b"\n\n")[:-1]]
