"""What of Messages is carried to models of other dialects and back, and what is said of the rest."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic.types import Message

from tests import scripts, wire
from tests.claude import Claude, claude, events, fixture
from tests.exchange import Exchange
from tests.process import Gateway, gateway
from tests.provider import Provider

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
ASK: dict[str, Any] = {"max_tokens": 9, "messages": HELLO}
STRICT = {"x-gateway-strict": "true"}
MARK = {"type": "ephemeral"}


@pytest.fixture(scope="module")
def running_claude() -> Iterator[Claude]:
    with claude() as provider:
        yield provider


@pytest.fixture(scope="module")
def running(
    running_claude: Claude, running_provider: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    config = {
        "backends": {
            "claude": {"kind": "anthropic", "base_url": running_claude.url},
            "up": {"kind": "openai", "base_url": running_provider.url},
            "strict": {"kind": "openai", "preset": "groq", "base_url": running_provider.url, "api_key": "x"},
        },
        "models": {"auto": {"routes": ["up/answer"]}},
    }
    with gateway(tmp_path_factory.mktemp("carried"), config) as house:
        yield house


@pytest.fixture
def http(running: Gateway, running_claude: Claude, upstream: Provider) -> Iterator[httpx2.Client]:
    running_claude.forget()
    with httpx2.Client(base_url=running.url, timeout=30, verify=False) as client:
        yield client
    assert not running_claude.broken


@pytest.fixture
def local(local_gateway: Gateway, sdk_http: httpx2.Client) -> anthropic.Anthropic:
    """Before the embedded model."""
    return anthropic.Anthropic(base_url=local_gateway.url, api_key="local", max_retries=0, http_client=sdk_http)


def post(http: httpx2.Client, strict: bool = False, **fields: Any) -> httpx2.Response:
    return http.post("/v1/messages", json={"model": "up/answer", **ASK, **fields}, headers=STRICT if strict else {})


# --- What the embedded model tells of itself ---------------------------------------------------------


def test_the_embedded_model_tells_which_stop_sequence_it_met(local: anthropic.Anthropic) -> None:
    ask: dict[str, Any] = {"model": "auto", "max_tokens": 12, "messages": HELLO, "extra_body": {"temperature": 0}}
    free = local.messages.create(**ask)
    assert (free.stop_reason, free.stop_sequence) == ("max_tokens", None)
    assert free.content[0].type == "text"
    word = free.content[0].text.split()[2]
    stops = ["never to be said", word]
    whole = local.messages.create(**ask, stop_sequences=stops)
    assert (whole.stop_reason, whole.stop_sequence) == ("stop_sequence", word)
    with local.messages.stream(**ask, stop_sequences=stops) as stream:
        final = stream.get_final_message()
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", word)
    text = free.content[0].text
    answers: list[Message] = [whole, final]
    for message in answers:
        assert [block.text for block in message.content if block.type == "text"] == [text[: text.index(word)]]


def test_a_stream_of_the_embedded_model_begins_with_the_length_of_its_prompt(local: anthropic.Anthropic) -> None:
    words: list[Any] = [{"role": "user", "content": "How long is this? " * 40}]
    counted = local.messages.count_tokens(model="auto", messages=words).input_tokens
    told = []
    for event in local.messages.create(model="auto", max_tokens=3, messages=words, stream=True):
        if event.type == "message_start":
            usage = event.message.usage
            told.append(usage.input_tokens + (usage.cache_read_input_tokens or 0))
        elif event.type == "message_delta":
            end = event.usage
            told.append((end.input_tokens or 0) + (end.cache_read_input_tokens or 0))
            assert end.output_tokens == 3
    assert told == [counted, counted]


# --- What an OpenAI-like provider is given, and tells ------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
def test_documents_reach_a_provider_as_what_they_say(http: httpx2.Client, upstream: Provider, streamed: bool) -> None:
    body = fixture("request_documents.json").replace(
        b'"claude-opus-4-6"', b'"up/answer", "stream": ' + json.dumps(streamed).encode()
    )
    answer = http.post("/v1/messages", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert answer.headers["x-gateway-dropped"] == "citations, cache_control"
    sent = upstream.asked().json
    expected = json.loads(fixture("request_documents.chat.json"))
    assert {name: sent[name] for name in expected} == expected | {"model": "answer"}


async def met(exchange: Exchange, word: str) -> None:
    last = wire.dump([{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": word}])
    await scripts.tell(exchange, [wire.opening(), wire.word("One"), wire.chunk(last), wire.totals(), wire.DONE])


@pytest.mark.parametrize(("word", "reason", "told"), [("END", "stop_sequence", "END"), ("OTHER", "end_turn", None)])
def test_a_stop_sequence_that_a_provider_tells_of_is_told(
    http: httpx2.Client, upstream: Provider, word: str, reason: str, told: str | None
) -> None:
    upstream.scripts["met"] = lambda exchange: met(exchange, word)
    body = post(http, model="up/met", stop_sequences=["END", "STOP"]).json()
    assert (body["stop_reason"], body["stop_sequence"]) == (reason, told)
    stream = post(http, model="up/met", stop_sequences=["END", "STOP"], stream=True)
    delta: Any = events(stream.content)[-2][1]["delta"]
    assert (delta["stop_reason"], delta["stop_sequence"]) == (reason, told)


def test_thinking_that_is_not_to_be_shown_is_not(http: httpx2.Client, upstream: Provider) -> None:
    async def thinks(exchange: Exchange) -> None:
        thought = wire.chunk(wire.delta({"reasoning_content": "Hm."}))
        said = [wire.opening(), thought, wire.word("Hi"), wire.finish(), wire.totals(), wire.DONE]
        await scripts.tell(exchange, said)

    upstream.scripts["thinks"] = thinks
    for thinking, kinds in (
        ({"type": "adaptive"}, ["thinking", "text"]),
        ({"type": "enabled", "budget_tokens": 1024}, ["thinking", "text"]),
        ({"type": "adaptive", "display": "omitted"}, ["text"]),
        ({"type": "disabled"}, ["text"]),
        (None, ["text"]),
    ):
        body = post(http, model="up/thinks", thinking=thinking, max_tokens=2048).json()
        assert [block["type"] for block in body["content"]] == kinds


# --- What is named, and what is refused --------------------------------------------------------------


def test_a_hint_at_a_cache_is_named_and_refuses_nobody(http: httpx2.Client, upstream: Provider) -> None:
    """As agents send it: marks on the system prompt, on tools and on what was said last."""
    fields: dict[str, Any] = {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": MARK}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": MARK}]}],
        "tools": [
            {"type": "custom", "name": "f", "input_schema": {"type": "object"}, "cache_control": MARK,
             "eager_input_streaming": True}
        ],
        "metadata": {"user_id": "u"},
    }  # fmt: skip
    for strict in (False, True):
        answer = post(http, strict, **fields)
        assert answer.status_code == 200
        assert answer.headers["x-gateway-dropped"] == "cache_control, eager_input_streaming"
    assert "cache_control" not in upstream.asked().body.decode()


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.web_search_20250305"),
        ({"service_tier": "standard_only"}, "service_tier"),
        ({"container": "c"}, "container"),
        ({"context_management": {"edits": []}}, "context_management"),
        ({"mcp_servers": [{"type": "url", "url": "https://example.com", "name": "m"}]}, "mcp_servers"),
        ({"thinking": {"type": "adaptive"}}, "thinking"),
        ({"messages": [
            *HELLO,
            {"role": "assistant", "content": [
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                {"type": "text", "text": "Found."}]},
            *HELLO]}, "server_tool_use"),
        ({"messages": [
            *HELLO,
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "is_error": True}]}]}, "is_error"),
    ],
)  # fmt: skip
def test_what_only_anthropic_has_is_named_or_refused(http: httpx2.Client, fields: dict[str, Any], name: str) -> None:
    answer = post(http, **fields)
    assert (answer.status_code, answer.headers["x-gateway-dropped"]) == (200, name)
    refused = post(http, strict=True, **fields)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"temperature": 1.5}, "temperature: Input should be less than or equal to 1"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text"}]}]},
         "messages.0.content.1.text: Field required"),
    ],
)  # fmt: skip
def test_the_provider_judges_its_own_dialect_and_the_gateway_others(
    http: httpx2.Client, running_claude: Claude, fields: dict[str, Any], words: str
) -> None:
    refused = post(http, **fields)
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, words)
    assert post(http, model="claude/text", **fields).content == fixture("text.json")
    assert running_claude.asked().json == {**ASK, **fields, "model": "text"}


def test_what_a_provider_is_known_to_refuse_is_not_sent(http: httpx2.Client, upstream: Provider) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    turns = [*HELLO, {"role": "assistant", "content": [thought, {"type": "text", "text": "Hi."}]}, *HELLO]
    fields: dict[str, Any] = {"top_k": 5, "messages": turns}
    assert "x-gateway-dropped" not in post(http, **fields).headers
    sent = upstream.asked().json
    assert (sent["top_k"], sent["messages"][1]["reasoning_content"]) == (5, "Hm.")
    answer = post(http, model="strict/answer", **fields)
    assert answer.headers["x-gateway-dropped"] == "top_k, reasoning_content"
    sent = upstream.asked(count=2).json
    assert "top_k" not in sent
    assert sent["messages"][1] == {"role": "assistant", "content": "Hi."}
    assert post(http, strict=True, model="strict/answer", **fields).json()["error"]["message"].startswith("top_k: ")


# --- OpenAI's clients before Claude ------------------------------------------------------------------


def test_pages_that_claude_cites_are_annotations(running: Gateway, http: httpx2.Client) -> None:
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0, http_client=http)
    answer = client.chat.completions.create(model="claude/server_tool", messages=HELLO)
    assert answer.choices[0].message.annotations is not None
    [note] = answer.choices[0].message.annotations
    cited = note.url_citation
    text = answer.choices[0].message.content or ""
    assert (cited.url, cited.title, text[cited.start_index : cited.end_index]) == ("https://example.com", "T", "Found.")
    with client.chat.completions.stream(model="claude/server_tool", messages=HELLO) as stream:
        assert stream.get_final_completion().choices[0].message.content == text


def test_a_hint_of_openais_refuses_nobody_either(http: httpx2.Client) -> None:
    body = {"model": "claude/text", "messages": HELLO, "prompt_cache_key": "k"}
    answer = http.post("/v1/chat/completions", json=body, headers=STRICT)
    assert (answer.status_code, answer.headers["x-gateway-dropped"]) == (200, "prompt_cache_key")
    refused = http.post("/v1/chat/completions", json=body | {"n": 2}, headers=STRICT)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")


def test_an_account_that_is_empty_is_a_matter_of_billing(http: httpx2.Client) -> None:
    answer = post(http, model="up/quota")
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "billing_error")
    assert answer.headers["x-should-retry"] == "false"
