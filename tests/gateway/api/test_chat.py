"""POST /v1/chat/completions in front of a provider: what goes up, and what comes back."""

import json

import httpx2
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import APP_KEY, UPSTREAM_KEY
from tests.http import CHAT, chat, events_of, text_of
from tests.process import Gateway
from tests.provider import Provider
from tests.scripts import events

ODD_BODY = (
    b'{"model":"up/answer", "zeta" : {"b":1,  "a":[1.50, 1e3, 12345678901234567890123] },'
    b' "messages":[ {"role":"user","content":"h\\u00e9 \xc3\xa9", "cache_control":{"type":"ephemeral"}} ],'
    b'"temperature":0.10, "vendor_flag":null}'
)


def test_unknown_request_fields_reach_the_provider_byte_for_byte(client: httpx2.Client, upstream: Provider) -> None:
    client.post(CHAT, content=ODD_BODY, headers={"content-type": "application/json"}).raise_for_status()
    sent = upstream.asked().body
    for field in (
        b'{"b":1,  "a":[1.50, 1e3, 12345678901234567890123] }',
        b'[ {"role":"user","content":"h\\u00e9 \xc3\xa9", "cache_control":{"type":"ephemeral"}} ]',
        b'"temperature":0.10',
        b'"vendor_flag":null',
    ):
        assert field in sent
    assert list(json.loads(sent)) == list(json.loads(ODD_BODY)), "the order of the fields"


def test_only_the_models_name_changes(client: httpx2.Client, upstream: Provider) -> None:
    body = b'{"model":"up/answer","messages":[{"role":"user","content":"x"}],"n":1}'
    client.post(CHAT, content=body, headers={"content-type": "application/json"}).raise_for_status()
    assert upstream.asked().body == body.replace(b"up/answer", b"answer")


def test_a_whole_answer_comes_back_byte_for_byte(client: httpx2.Client) -> None:
    answer = client.post(CHAT, json=chat("up/answer"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == wire.completion("word0 word1 word2 ")


def test_a_stream_with_usage_asked_comes_back_byte_for_byte(client: httpx2.Client, upstream: Provider) -> None:
    answer = client.post(CHAT, json=chat("up/answer", stream=True, stream_options={"include_usage": True}))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == b"".join(wire.stream(["word0 ", "word1 ", "word2 "], include_usage=True))
    assert upstream.asked().json["stream_options"] == {"include_usage": True}


def test_a_stream_without_usage_asked_comes_back_as_if_the_gateway_had_not_asked(
    client: httpx2.Client, upstream: Provider
) -> None:
    answer = client.post(CHAT, json=chat("up/answer", stream=True))
    assert answer.content == b"".join(wire.stream(["word0 ", "word1 ", "word2 "], include_usage=False))
    assert upstream.asked().json["stream_options"] == {"include_usage": True}


def test_other_stream_options_are_kept(client: httpx2.Client, upstream: Provider) -> None:
    client.post(CHAT, json=chat("up/answer", stream=True, stream_options={"include_obfuscation": False}))
    assert upstream.asked().json["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_usage_that_a_provider_sends_unasked_stays_with_the_gateway(client: httpx2.Client) -> None:
    answer = client.post(CHAT, json=chat("up/usage_unasked", stream=True))
    chunks = [json.loads(e) for e in events_of(answer.content)[:-1]]
    assert all("usage" not in c for c in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert events_of(answer.content)[-1] == b"[DONE]"


def test_tool_calls_stream_through_in_their_fragments(client: httpx2.Client) -> None:
    answer = client.post(CHAT, json=chat("up/tools", stream=True, tools=[]))
    assert answer.content == b"".join(wire.tool_call(include_usage=False))


def test_line_ends_of_any_kind_come_out_as_lf(client: httpx2.Client) -> None:
    answer = client.post(CHAT, json=chat("up/crlf", stream=True))
    assert answer.content == b"".join(wire.stream(["a", "b"], include_usage=False))


def test_a_malformed_event_is_left_out(client: httpx2.Client) -> None:
    answer = client.post(CHAT, json=chat("up/malformed", stream=True))
    assert text_of(answer.content) == "good better"
    assert events_of(answer.content)[-1] == b"[DONE]"


def test_a_finished_stream_without_done_gets_exactly_one(client: httpx2.Client) -> None:
    answer = client.post(CHAT, json=chat("up/no_done", stream=True))
    assert text_of(answer.content) == "ab"
    assert answer.content.count(b"[DONE]") == 1
    assert answer.content.endswith(wire.DONE)


def test_the_provider_sees_the_gateways_key_and_nothing_of_the_client(
    client: httpx2.Client, upstream: Provider
) -> None:
    headers = {"x-secret-of-client": "canary", "openai-organization": "org-of-client", "cookie": "a=b"}
    client.post(CHAT, json=chat("up/answer"), headers=headers).raise_for_status()
    sent = upstream.asked()
    assert sent.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert sent.headers["accept-encoding"] == "identity"
    assert APP_KEY.encode() not in sent.head
    assert not {"x-secret-of-client", "openai-organization", "cookie"} & set(sent.headers)


def test_rate_limit_headers_pass_and_the_providers_other_headers_do_not(client: httpx2.Client) -> None:
    for stream in (False, True):
        answer = client.post(CHAT, json=chat("up/answer", stream=stream), headers={"x-request-id": "mine-1.2_3"})
        assert answer.headers["x-request-id"] == "mine-1.2_3"
        assert answer.headers["x-gateway-upstream-request-id"] == "req_of_the_provider"
        assert answer.headers["x-ratelimit-remaining-requests"] == "99"
        assert answer.headers["openai-processing-ms"] == "17"
        assert answer.headers["x-gateway-backend"] == "up"
        assert answer.headers["x-gateway-model"] == "up/answer"
        assert answer.headers["x-gateway-attempts"] == "1"
        assert not {"set-cookie", "authorization", "x-internal-host"} & set(answer.headers)


@pytest.mark.parametrize("given", ["", "two words", "x" * 200, "a\tb", 'quote"'])
def test_a_request_id_that_is_not_sane_is_replaced(client: httpx2.Client, given: str) -> None:
    answer = client.post(CHAT, json=chat("up/answer"), headers={"x-request-id": given})
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_providers_odd_header_value_does_no_harm(client: httpx2.Client, upstream: Provider) -> None:
    async def odd(x: Exchange) -> None:
        x.answer(wire.completion(), x_ratelimit_note="caf\u00e9 \u20ac")

    upstream.scripts["odd"] = odd
    assert client.post(CHAT, json=chat("up/odd")).status_code == 200


@pytest.mark.parametrize("name", ["up/ans\u00fcr", "up/a b", "up/" + "x" * 297, "up/%0a"])
def test_a_models_odd_name_is_fit_for_a_header(client: httpx2.Client, upstream: Provider, name: str) -> None:

    upstream.scripts[name.removeprefix("up/")] = events
    answer = client.post(CHAT, json=chat(name))
    assert answer.status_code == 200
    assert answer.headers["x-gateway-model"].isascii()


def test_a_request_without_a_model_is_answered_by_auto(client: httpx2.Client) -> None:
    body = chat("")
    del body["model"]
    answer = client.post(CHAT, json=body)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello from the fake backend."
    assert answer.headers["x-gateway-model"] == "fake/fake"


def test_a_translated_stream_is_openais(client: httpx2.Client) -> None:
    answer = client.post(CHAT, json=chat("fake/fake", stream=True, stream_options={"include_usage": True}))
    chunks = [json.loads(e) for e in events_of(answer.content)[:-1]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    assert text_of(answer.content) == "Hello from the fake backend."
    assert events_of(answer.content)[-1] == b"[DONE]"


def test_a_large_answer_arrives_whole(client: httpx2.Client, upstream: Provider, house: Gateway) -> None:
    big = wire.completion("x" * 3_000_000)

    async def large(x: Exchange) -> None:
        x.answer(big)

    upstream.scripts["large"] = large
    assert client.post(CHAT, json=chat("up/large")).content == big
