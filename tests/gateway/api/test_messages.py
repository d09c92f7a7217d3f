"""Anthropic's dialect at the gateway, spoken by its own SDK, and OpenAI's SDK before an Anthropic backend."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from pydantic import BaseModel

from compat.anthropic.answer import PING
from tests import scripts, wire
from tests.claude import Claude, claude, events, fixture, frames, tell
from tests.exchange import Exchange
from tests.gateway.conftest import APP_KEY, AUTH, READER_KEY, UPSTREAM_KEY
from tests.http import error_of, usage_row
from tests.process import Gateway, gateway
from tests.provider import Provider

CLAUDE_KEY = "claude-key-canary-5120"
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def running_claude() -> Iterator[Claude]:
    with claude() as provider:
        yield provider


@pytest.fixture(scope="module")
def running(
    running_claude: Claude, running_provider: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    config = {
        "auth": AUTH,
        "backends": {
            "claude": {"kind": "anthropic", "base_url": running_claude.url, "api_key": CLAUDE_KEY},
            "up": {"kind": "openai", "base_url": running_provider.url, "api_key": UPSTREAM_KEY},
            "fake": {"kind": "fake"},
        },
        "models": {
            "auto": {"routes": ["fake/fake"]},
            "opus": {"routes": ["claude/claude-opus-4-6:text"], "retries": 0},
            "thinker": {"routes": ["claude/claude-opus-4-6:thinking"], "retries": 0},
            "first-opus": {"routes": ["claude/claude-opus-4-6", "fake/fake"], "retries": 0},
            "old": {"routes": ["claude/claude-sonnet-4-0"], "retries": 0},
            "once-*": {"routes": ["claude/*"], "retries": 0},
        },
    }
    with gateway(tmp_path_factory.mktemp("messages"), config) as house:
        yield house


@pytest.fixture
def house(running: Gateway, running_claude: Claude, upstream: Provider) -> Iterator[Gateway]:
    running_claude.forget()
    yield running
    assert not running_claude.broken


@pytest.fixture
def claudes(house: Gateway, running_claude: Claude) -> Claude:
    return running_claude


@pytest.fixture
def sdk(house: Gateway, sdk_http: httpx2.Client) -> anthropic.Anthropic:
    """An unchanged Anthropic client with the app's key, that does not retry."""
    return anthropic.Anthropic(base_url=house.url, api_key=APP_KEY, max_retries=0, http_client=sdk_http)


@pytest.fixture
def chat(house: Gateway, sdk_http: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{house.url}/v1", api_key=APP_KEY, max_retries=0, http_client=sdk_http)


@pytest.fixture
def local(local_gateway: Gateway, sdk_http: httpx2.Client) -> anthropic.Anthropic:
    """Before the embedded model."""
    return anthropic.Anthropic(base_url=local_gateway.url, api_key="local", max_retries=0, http_client=sdk_http)


@pytest.fixture
def raw(house: Gateway) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=house.url, headers={"x-api-key": APP_KEY}, timeout=30, verify=False) as http:
        yield http


# --- The embedded model, which speaks OpenAI's dialect -----------------------------------------------


def test_the_embedded_model_answers_anthropics_client(local: anthropic.Anthropic) -> None:
    message = local.messages.create(model="auto", max_tokens=12, system="Be brief.", messages=HELLO)
    [block] = message.content
    assert block.type == "text"
    assert block.text
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.input_tokens > 0
    assert 0 < message.usage.output_tokens <= 12
    assert message.id.startswith("msg_")
    assert message._request_id


def test_the_embedded_model_streams_to_anthropics_client(local: anthropic.Anthropic) -> None:
    with local.messages.stream(model="auto", max_tokens=12, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text
    assert final.content[0].type == "text"
    assert final.content[0].text == text
    assert final.usage.input_tokens > 0
    assert final.stop_reason in ("end_turn", "max_tokens")


def test_the_embedded_model_counts_what_it_would_be_charged_for(local: anthropic.Anthropic) -> None:
    count = local.messages.count_tokens(model="auto", system="Be brief.", messages=HELLO)
    message = local.messages.create(model="auto", max_tokens=1, system="Be brief.", messages=HELLO)
    usage = message.usage
    assert count.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_the_embedded_model_keeps_to_a_structure(local: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}},
        "required": ["capital"],
        "additionalProperties": False,
    }
    message = local.messages.create(
        model="auto",
        max_tokens=60,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    [block] = message.content
    assert block.type == "text"
    assert set(json.loads(block.text)) == {"capital"}


def test_the_embedded_model_takes_a_conversation_with_tools(local: anthropic.Anthropic) -> None:
    turns: list[Any] = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "Sunny."}]},
    ]
    tools: list[Any] = [WEATHER]
    message = local.messages.create(model="auto", max_tokens=20, messages=turns, tools=tools)
    assert message.content


# --- Relay: Anthropic's client, Anthropic's provider -------------------------------------------------


def test_a_stream_is_relayed_byte_for_byte(raw: httpx2.Client) -> None:
    for name in ("text", "tools", "thinking", "server_tool"):
        answer = raw.post(
            "/v1/messages", json={"model": f"claude/{name}", "max_tokens": 9, "messages": HELLO, "stream": True}
        )
        assert answer.content == fixture(f"{name}.sse")
        assert answer.headers["request-id"] == "req_011CZTSUs5qZwEwHKSvppcnq"
        assert answer.headers["anthropic-ratelimit-requests-remaining"] == "41"


def test_unknown_fields_go_up_and_come_down_as_they_are(raw: httpx2.Client, claudes: Claude) -> None:
    new = b'"novelty":{"big":12345678901234567890123, "f":1.50}'
    body = b'{"model":"claude/text","max_tokens":9,' + new + b',"messages":[{"role":"user","content":"x"}]}'
    answer = raw.post("/v1/messages", content=body, headers={"content-type": "application/json"})
    assert answer.content == fixture("text.json")
    sent = claudes.asked().body
    assert new in sent
    assert json.loads(sent)["model"] == "text"


def test_the_sdk_cannot_tell_the_gateway_from_the_provider(sdk: anthropic.Anthropic, claudes: Claude) -> None:
    message = sdk.messages.create(
        model="opus", max_tokens=9, messages=HELLO, extra_headers={"anthropic-beta": "context-1m-2025-08-07"}
    )
    assert message.content[0].type == "text"
    assert message.usage.cache_read_input_tokens == 100
    assert message._request_id == "req_011CZTSUs5qZwEwHKSvppcnq"
    headers = claudes.asked().headers
    assert headers["anthropic-version"] == "2026-10-21"
    assert headers["anthropic-beta"] == "context-1m-2025-08-07"
    assert APP_KEY not in json.dumps(headers)


def test_betas_said_on_several_lines_all_arrive(raw: httpx2.Client, claudes: Claude) -> None:
    betas = ["context-1m-2025-08-07", "", "files-api-2025-04-14"]
    body = {"model": "opus", "max_tokens": 9, "messages": HELLO}
    raw.post("/v1/messages", json=body, headers=[("anthropic-beta", beta) for beta in betas]).raise_for_status()
    assert claudes.asked().headers["anthropic-beta"] == "context-1m-2025-08-07,files-api-2025-04-14"


def test_what_a_list_does_not_tell_of_a_model_is_asked_of_it_all_the_same(raw: httpx2.Client, claudes: Claude) -> None:
    """Anthropic's list names no tools."""

    async def opus(x: Exchange) -> None:
        x.answer(fixture("text.json"))

    claudes.scripts["claude-opus-4-6"] = opus
    capabilities = raw.get("/v1/models/claude/claude-opus-4-6").raise_for_status().json()["capabilities"]
    assert "vision" in capabilities
    assert "tools" not in capabilities
    asked: dict[str, Any] = {"model": "first-opus", "max_tokens": 9, "messages": HELLO}
    answer = raw.post("/v1/messages", json=asked | {"tools": [WEATHER]}).raise_for_status()
    assert answer.headers["x-gateway-model"] == "claude/claude-opus-4-6"


def test_the_stream_helper_sees_every_block(sdk: anthropic.Anthropic) -> None:
    with sdk.messages.stream(model="claude/thinking", max_tokens=9, messages=HELLO) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == [
        "thinking", "redacted_thinking", "text", "thinking", "tool_use",
    ]  # fmt: skip
    assert final.content[0].type == "thinking"
    assert final.content[0].signature.startswith("EqQB")
    assert final.usage.output_tokens == 120


async def test_the_async_client_streams(house: Gateway) -> None:
    async with (
        httpx2.AsyncClient(verify=False, timeout=30) as http,
        anthropic.AsyncAnthropic(base_url=house.url, api_key=APP_KEY, max_retries=0, http_client=http) as client,
    ):
        stream = await client.messages.create(model="claude/tools", max_tokens=9, messages=HELLO, stream=True)
        kinds = [event.type async for event in stream]
        raw = await client.messages.with_raw_response.create(model="opus", max_tokens=9, messages=HELLO)
        assert raw.headers["x-gateway-model"] == "claude/claude-opus-4-6:text"
        assert (await raw.parse()).stop_reason == "end_turn"
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


@anthropic.beta_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


def test_the_sdks_tool_runner_goes_round_in_a_thread_the_provider_keeps(
    sdk: anthropic.Anthropic, claudes: Claude
) -> None:
    async def weather(exchange: Exchange) -> None:
        answer = json.loads(fixture("text.json"))
        if exchange.json["thread"]["type"] == "create":
            call = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
            answer |= {"content": [call], "stop_reason": "tool_use"}
        exchange.answer(json.dumps(answer).encode())

    claudes.scripts["weather"] = weather
    runner = sdk.beta.messages.tool_runner(model="claude/weather", max_tokens=9, messages=HELLO, tools=[get_weather])
    assert runner.until_done().content[0].type == "text"
    sent = claudes.asked(count=2).json
    assert sent["thread"] == {"type": "continue", "previous_message_id": "msg_01XFDUDYJgAACzvnptvVoYEL"}
    [result] = sent["messages"][-1]["content"]
    assert (result["type"], result["tool_use_id"], result["content"]) == ("tool_result", "toolu_1", "Sunny in Paris.")


def test_the_sdks_tool_runner_goes_round_without_a_thread_where_nobody_keeps_one(
    sdk: anthropic.Anthropic, upstream: Provider
) -> None:
    async def weather(exchange: Exchange) -> None:
        frames = wire.tool_call(include_usage=True)[:4] + wire.tool_call(include_usage=True)[6:]
        if exchange.json["messages"][-1]["role"] == "tool":
            frames = wire.stream(["Sunny."], include_usage=True)
        await scripts.tell(exchange, frames)

    upstream.scripts["weather"] = weather
    runner = sdk.beta.messages.tool_runner(model="up/weather", max_tokens=9, messages=HELLO, tools=[get_weather])
    [block] = runner.until_done().content
    assert block.type == "text"
    assert block.text == "Sunny."
    sent = upstream.asked(count=2).json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[2]["content"] == "Sunny in Paris."


def test_a_silent_stream_is_kept_awake_with_pings(
    running_claude: Claude, sdk_http: httpx2.Client, tmp_path: Path
) -> None:
    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.5)
        await tell(exchange, frames("text.sse"))

    running_claude.forget()
    running_claude.scripts["slow"] = slow
    config = {
        "backends": {"claude": {"kind": "anthropic", "base_url": running_claude.url}},
        "models": {"auto": {"routes": ["claude/slow"]}},
    }
    prelude = "import gateway.api.reply; gateway.api.reply.KEEP_ALIVE_S = gateway.api.reply.HEADLESS_S = 0.1"
    with gateway(tmp_path, config, prelude=prelude) as house:
        body = {"model": "auto", "max_tokens": 9, "messages": HELLO, "stream": True}
        stream = sdk_http.post(f"{house.url}/v1/messages", json=body).content
        assert stream.startswith(PING)
        assert stream.removeprefix(PING).replace(PING, b"").endswith(fixture("text.sse").replace(PING, b""))
        client = anthropic.Anthropic(base_url=house.url, api_key="x", max_retries=0, http_client=sdk_http)
        with client.messages.stream(model="auto", max_tokens=9, messages=HELLO) as helper:
            assert helper.get_final_text() == "Hello! How can I help you today?"


def test_a_providers_refusal_is_told_in_the_clients_words(
    raw: httpx2.Client, chat: openai.OpenAI, claudes: Claude
) -> None:
    async def absent(x: Exchange) -> None:
        x.answer(b'{"type":"error","error":{"type":"not_found_error","message":"model: x"}}', "404 Not Found")

    claudes.scripts["claude-absent"] = absent
    with pytest.raises(openai.NotFoundError) as missing:
        chat.chat.completions.create(model="claude/claude-absent", messages=HELLO)
    assert (missing.value.code, missing.value.type, missing.value.param) == (
        "model_not_found", "invalid_request_error", None,
    )  # fmt: skip
    answer = raw.post("/v1/messages", json={"model": "claude/claude-absent", "max_tokens": 9, "messages": HELLO})
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"
    with pytest.raises(openai.RateLimitError) as limited:
        chat.chat.completions.create(model="once-status:429", messages=HELLO)
    headers = limited.value.response.headers
    assert headers["anthropic-ratelimit-requests-remaining"] == "41"
    assert "req_011CZTSUs5qZwEwHKSvppcnq" in headers["x-gateway-upstream-request-id"]
    assert "request-id" not in headers
    answered = chat.chat.completions.with_raw_response.create(model="claude/text", messages=HELLO)
    assert answered.headers["anthropic-ratelimit-requests-remaining"] == "41"
    refused = raw.post("/v1/messages", json={"model": "once-status:429", "max_tokens": 9, "messages": HELLO})
    assert refused.headers["anthropic-ratelimit-requests-remaining"] == "41"
    assert refused.headers["request-id"] == refused.json()["request_id"], "the body and the head name one request"


def test_usage_is_metered_once(raw: httpx2.Client, house: Gateway) -> None:
    answer = raw.post("/v1/messages", json={"model": "claude/text", "max_tokens": 9, "messages": HELLO, "stream": True})
    row = usage_row(house.folder, answer.headers["x-request-id"])
    assert (row["input_tokens"], row["cached_tokens"], row["output_tokens"]) == (135, 100, 15)


def test_a_truncated_stream_ends_with_an_error(raw: httpx2.Client, sdk: anthropic.Anthropic) -> None:
    answer = raw.post("/v1/messages", json={"model": "once-cut", "max_tokens": 9, "messages": HELLO, "stream": True})
    name, error = events(answer.content)[-1]
    assert name == "error"
    assert error == {
        "type": "error",
        "error": {"type": "api_error", "message": "The answer of backend 'claude' ended before it was complete."},
        "request_id": answer.headers["x-request-id"],
    }
    with (
        pytest.raises(anthropic.APIStatusError, match="before it was complete"),
        sdk.messages.stream(model="once-cut", max_tokens=9, messages=HELLO) as stream,
    ):
        stream.until_done()


def test_a_client_that_leaves_stops_the_provider(house: Gateway, claudes: Claude) -> None:
    body = {"model": "claude/stall", "max_tokens": 9, "messages": HELLO, "stream": True}
    with httpx2.Client(base_url=house.url, headers={"x-api-key": APP_KEY}, timeout=30, verify=False) as http:
        with http.stream("POST", "/v1/messages", json=body) as answer:
            next(answer.iter_raw())
        left = time.monotonic()
    assert claudes.asked().left_within(1.0, left)


# --- Errors ------------------------------------------------------------------------------------------


def shaped(answer: httpx2.Response) -> dict[str, Any]:
    """The error of an answer, held to Anthropic's shape."""
    body: dict[str, Any] = answer.json()
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert set(body["error"]) <= {"type", "message", "details"}
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_errors_are_in_anthropics_shape(house: Gateway, raw: httpx2.Client, path: str) -> None:
    with httpx2.Client(base_url=house.url, timeout=30, verify=False) as http:
        cases = [
            (http.post(path, json={}), 401, "authentication_error"),
            (http.post(path, json={}, headers={"x-api-key": READER_KEY}), 403, "permission_error"),
            (http.post(path, json={}, headers={"origin": "https://evil.example"}), 403, "permission_error"),
            (raw.get(path), 405, "invalid_request_error"),
            (raw.post(path, content=b"{", headers={"content-type": "application/json"}), 400, "invalid_request_error"),
            (raw.post(path, content=b"x", headers={"content-type": "text/plain"}), 415, "invalid_request_error"),
            (raw.post(path + "/nope", json={}), 404, "not_found_error"),
            (raw.post(path, json={"model": "none", "max_tokens": 1, "messages": HELLO}), 404, "not_found_error"),
        ]
    for answer, status, kind in cases:
        assert (answer.status_code, shaped(answer)["type"]) == (status, kind)
    assert error_of(raw.post("/v1/chat/completions", json={}))["code"] == "missing_required_parameter"


def test_a_providers_refusal_keeps_its_words(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        sdk.messages.create(model="once-status:400", max_tokens=9, messages=HELLO)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.error_code == "compaction_signature_invalid"
    assert "Invalid `signature`" in str(caught.value.api_message)


def test_the_providers_rate_limit_is_the_clients(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.RateLimitError) as caught:
        sdk.messages.create(model="once-status:429", max_tokens=9, messages=HELLO)
    assert caught.value.type == "rate_limit_error"


# --- Counting ----------------------------------------------------------------------------------------


def test_tokens_are_counted_by_anthropic_itself(sdk: anthropic.Anthropic, claudes: Claude) -> None:
    assert sdk.messages.count_tokens(model="opus", messages=HELLO).input_tokens == 2095
    assert claudes.asked().path == "/v1/messages/count_tokens"


def test_a_count_is_not_invented(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="cannot count tokens"):
        sdk.messages.count_tokens(model="up/answer", messages=HELLO)


# --- Translation: Anthropic's client, OpenAI's provider ----------------------------------------------


def test_an_openai_provider_answers_anthropics_client(sdk: anthropic.Anthropic, upstream: Provider) -> None:
    with sdk.messages.stream(
        model="up/events:3", max_tokens=9, system="Be brief.", messages=HELLO, stop_sequences=["END"]
    ) as stream:
        assert "".join(stream.text_stream) == "word0 word1 word2 "
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert (final.usage.input_tokens, final.usage.cache_read_input_tokens, final.usage.output_tokens) == (5, 4, 12)
    sent = upstream.asked().json
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (sent["max_tokens"], sent["stop"]) == (9, ["END"])


def test_parallel_calls_of_an_openai_provider(sdk: anthropic.Anthropic, upstream: Provider) -> None:
    message = sdk.messages.create(model="up/tools", max_tokens=9, messages=HELLO, tools=[WEATHER])
    assert [(b.name, b.input) for b in message.content if b.type == "tool_use"] == [
        ("get_weather", {"city": "Paris"}),
        ("get_time", {"zone": "CET"}),
    ]
    assert message.stop_reason == "tool_use"
    results: list[Any] = [
        {"type": "tool_result", "tool_use_id": b.id, "content": "ok"} for b in message.content if b.type == "tool_use"
    ]
    turns: list[Any] = [
        *HELLO,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [*results, {"type": "text", "text": "Go on."}]},
    ]
    sdk.messages.create(model="up/answer", max_tokens=9, messages=turns, tools=[WEATHER])
    sent = upstream.asked(count=2).json["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "tool", "tool", "user"]
    assert [c["id"] for c in sent[1]["tool_calls"]] == [m["tool_call_id"] for m in sent[2:4]]


def test_what_openai_cannot_be_told_is_named_or_refused(sdk: anthropic.Anthropic, upstream: Provider) -> None:
    marked: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}
    ]
    answer = sdk.messages.with_raw_response.create(
        model="up/answer", max_tokens=9, messages=marked, service_tier="auto"
    )
    assert answer.headers["x-gateway-dropped"] == "service_tier, cache_control"
    assert "cache_control" not in upstream.asked().body.decode()
    with pytest.raises(anthropic.BadRequestError, match="service_tier"):
        sdk.messages.create(
            model="up/answer", max_tokens=9, messages=HELLO, service_tier="auto",
            extra_headers={"x-gateway-strict": "true"},
        )  # fmt: skip


# --- Translation: OpenAI's client, Anthropic's provider ----------------------------------------------


def test_openais_client_is_answered_by_anthropic(chat: openai.OpenAI, claudes: Claude) -> None:
    done = chat.chat.completions.create(
        model="opus", messages=[{"role": "system", "content": "Be brief."}, *HELLO], temperature=0.5
    )
    assert done.choices[0].message.content == "Hello! How can I help you today?"
    assert done.choices[0].finish_reason == "stop"
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (135, 15)
    assert done.usage.prompt_tokens_details is not None
    assert done.usage.prompt_tokens_details.cached_tokens == 100
    sent = claudes.asked()
    assert sent.json == {
        "model": "claude-opus-4-6:text",
        "max_tokens": 16384,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Say hello."}],
        "temperature": 0.5,
    }
    assert sent.headers["anthropic-version"] == "2023-06-01"


def test_a_whole_answer_that_does_not_say_why_it_ended_is_no_success(chat: openai.OpenAI, claudes: Claude) -> None:
    async def unfinished(exchange: Exchange) -> None:
        exchange.answer(fixture("text.json").replace(b'"end_turn"', b"null"))

    claudes.scripts["unfinished"] = unfinished
    with pytest.raises(openai.InternalServerError) as caught:
        chat.chat.completions.create(model="once-unfinished", messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_bad_response")


def test_openais_client_streams_from_anthropic(chat: openai.OpenAI, claudes: Claude) -> None:
    stream = chat.chat.completions.create(
        model="claude/tools", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert claudes.asked().streams
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    calls: dict[int, list[str]] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or ():
                assert call.function is not None
                if call.id is not None:
                    assert call.index not in calls
                    calls[call.index] = [call.id, call.function.name or "", ""]
                calls[call.index][2] += call.function.arguments or ""
    assert calls == {
        0: ["toolu_01A09q90qw90lq917835lq9", "get_weather", '{"city": "Paris"}'],
        1: ["toolu_01B19q90qw90lq917835lq8", "get_time", '{"zone": "CET"}'],
        2: ["toolu_01C29q90qw90lq917835lq7", "ping", "{}"],
    }
    assert chunks[-2].choices[0].finish_reason == "tool_calls"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 135 + 89


@pytest.mark.parametrize("streamed", [True, False])
def test_thinking_survives_a_tool_loop_in_openais_dialect(chat: openai.OpenAI, claudes: Claude, streamed: bool) -> None:
    tools: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER["input_schema"]}}]
    turn: Any
    if streamed:
        with chat.chat.completions.stream(model="thinker", messages=HELLO, tools=tools) as stream:
            turn = stream.get_final_completion().choices[0].message
    else:
        turn = chat.chat.completions.create(model="thinker", messages=HELLO, tools=tools).choices[0].message
    assert turn.reasoning_content == "Let me solve this step by step."
    assert len(turn.thinking_blocks) == 3
    said: Any = turn.model_dump(exclude_none=True)
    for call in said["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
    result: Any = {"role": "tool", "tool_call_id": turn.tool_calls[0].id, "content": "Sunny."}
    chat.chat.completions.create(model="opus", messages=[*HELLO, said, result], tools=tools)
    sent = claudes.asked(count=2).json["messages"]
    assert [block["type"] for block in sent[1]["content"]] == [
        "thinking", "redacted_thinking", "text", "thinking", "tool_use",
    ]  # fmt: skip
    assert sent[1]["content"][0] == {
        "type": "thinking",
        "thinking": "Let me solve this step by step.",
        "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds",
    }
    assert sent[1]["content"][3] == {"type": "thinking", "thinking": "", "signature": "ErUBCkYIBRgCIkCd9omitted"}
    assert sent[2]["content"][0]["tool_use_id"] == sent[1]["content"][4]["id"]


def test_a_structure_is_asked_of_anthropic_by_its_own_means(chat: openai.OpenAI, claudes: Claude) -> None:
    class Answer(BaseModel):
        text: str

    # The recorded answer is prose; what matters is what was asked.
    with pytest.raises(ValueError, match="JSON"):
        chat.chat.completions.parse(model="opus", messages=HELLO, response_format=Answer)
    format_ = claudes.asked().json["output_config"]["format"]
    assert format_["type"] == "json_schema"
    assert format_["schema"]["additionalProperties"] is False


def test_what_anthropic_cannot_be_told_is_named_or_refused(chat: openai.OpenAI) -> None:
    answer = chat.chat.completions.with_raw_response.create(model="opus", messages=HELLO, seed=7, n=2)
    assert answer.headers["x-gateway-dropped"] == "seed, n"
    with pytest.raises(openai.BadRequestError) as caught:
        chat.chat.completions.create(model="opus", messages=HELLO, seed=7, extra_headers={"x-gateway-strict": "true"})
    assert (caught.value.param, caught.value.code) == ("seed", "unsupported_parameter")


def test_a_truncated_answer_is_an_error_in_openais_dialect(chat: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError):
        chat.chat.completions.create(model="once-cut", messages=HELLO)
    with pytest.raises(openai.APIError, match="before it was complete"):
        list(chat.chat.completions.create(model="once-cut", messages=HELLO, stream=True))


async def test_leaving_a_translated_answer_stops_the_provider(house: Gateway, claudes: Claude) -> None:
    body = {"model": "claude/stall", "messages": HELLO}
    async with httpx2.AsyncClient(base_url=house.url, headers={"x-api-key": APP_KEY}, timeout=30, verify=False) as http:
        asking = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        await asyncio.to_thread(claudes.asked)
        await asyncio.sleep(0.1)
        left = time.monotonic()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert await asyncio.to_thread(claudes.asked().left_within, 1.0, left)
