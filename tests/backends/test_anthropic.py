"""The Anthropic backend before a provider that speaks its dialect: the contract, and what is its own."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from msgspec.structs import replace

from backends import connect, settings_of
from backends.anthropic import AnthropicBackend
from backends.base import CountsTokens
from backends.ports import Ports
from compat.anthropic.envelope import peek
from compat.canonical.error import (
    AuthFailed,
    BadResponse,
    GatewayError,
    InvalidRequest,
    Overloaded,
    RateLimited,
    Rejected,
    Unreachable,
)
from compat.canonical.event import fold
from compat.canonical.request import Envelope
from tests.backends.contract import CHECKS, CLOSED_WITHIN_S, Check, Subject, call, request
from tests.claude import BODY_CANARY, Claude, claude, fixture

KEY = "claude-key-canary-7741"
CHAT_ONLY = ("a_relayed_stream_is_whole_events_to_its_end", "a_relayed_answer_is_one_body", "closing_relayed_frames")
"""Checks that ask in OpenAI's dialect; their like for this one are below."""


@pytest.fixture(scope="module")
def running() -> Iterator[Claude]:
    with claude() as provider:
        yield provider


@pytest.fixture
def upstream(running: Claude) -> Iterator[Claude]:
    running.forget()
    yield running
    assert not running.broken


@pytest.fixture
async def backend(upstream: Claude) -> AsyncIterator[AnthropicBackend]:
    settings = settings_of("anthropic", {"base_url": upstream.url + "/v1", "api_key": KEY, "headers": {"x-own": "1"}})
    made = connect("claude", "anthropic", settings, Ports())
    assert isinstance(made, AnthropicBackend)
    yield made
    await made.aclose()


def asked(model: str, *, stream: bool, **headers: str) -> Envelope:
    body = {"model": model, "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    envelope = peek(json.dumps(body).encode())
    return Envelope(
        dialect="messages", model=model, stream=stream, fields=envelope.fields, body=envelope.body, headers=headers
    )


async def relayed(backend: AnthropicBackend, model: str) -> bytes:
    answer = await backend.relay(asked(model, stream=True), model, call())
    assert answer.frames is not None
    async with aclosing(answer.frames) as frames:
        return b"".join([frame async for frame in frames])


@pytest.mark.parametrize(
    "check", [c for c in CHECKS if not c.__name__.startswith(CHAT_ONLY)], ids=lambda check: check.__name__
)
async def test_it_keeps_the_contract(check: Check, backend: AnthropicBackend, upstream: Claude) -> None:
    await check(
        Subject(
            backend=backend,
            model="text",
            endless="stall",
            failing=("status:401", "status:429", "status:500", "status:529", "status:400"),
            secrets=(KEY, upstream.url, "127.0.0.1"),
            idle=lambda: all(exchange.over.is_set() for exchange in upstream.seen),
        )
    )


@pytest.mark.parametrize("name", ["text", "tools", "thinking", "server_tool"])
async def test_a_relayed_stream_comes_back_as_it_went_out(backend: AnthropicBackend, name: str) -> None:
    assert await relayed(backend, name) == fixture(f"{name}.sse")


async def test_a_relayed_body_comes_back_as_it_went_out(backend: AnthropicBackend) -> None:
    answer = await backend.relay(asked("text", stream=False), "text", call())
    assert answer.body == fixture("text.json")
    assert answer.tally.usage is not None
    assert answer.tally.usage.input_tokens == 135
    assert ("anthropic-ratelimit-requests-remaining", "41") in answer.headers
    assert ("request-id", "req_011CZTSUs5qZwEwHKSvppcnq") in answer.headers


async def test_the_clients_version_and_betas_reach_the_provider(backend: AnthropicBackend, upstream: Claude) -> None:
    spoken = {"anthropic-beta": "files-api-2025-04-14", "anthropic-version": "2026-10-21", "openai-beta": "x"}
    await backend.relay(asked("text", stream=False, **spoken), "text", call())
    headers = upstream.asked().headers
    assert headers["anthropic-beta"] == "files-api-2025-04-14"
    assert headers["anthropic-version"] == "2026-10-21"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["x-own"] == "1"
    assert "openai-beta" not in headers
    await backend.relay(asked("text", stream=False), "text", call())
    assert upstream.asked(count=2).headers["anthropic-version"] == "2023-06-01"


async def test_the_clients_betas_come_on_top_of_the_configured_ones(upstream: Claude) -> None:
    settings = settings_of(
        "anthropic",
        {"base_url": upstream.url, "headers": {"Anthropic-Beta": "ours", "Anthropic-Version": "2024-01-01"}},
    )
    made = connect("claude", "anthropic", settings, Ports())
    assert isinstance(made, AnthropicBackend)
    spoken = {"anthropic-beta": "theirs,more", "anthropic-version": "2026-10-21"}
    await made.relay(asked("text", stream=False, **spoken), "text", call())
    await made.count_tokens(asked("text", stream=False, **spoken), "text", call())
    await fold(made.run(request("text"), call()))
    await made.aclose()
    sent = [(x.headers["anthropic-beta"], x.headers["anthropic-version"]) for x in upstream.seen]
    assert sent == [("ours,theirs,more", "2026-10-21")] * 2 + [("ours", "2024-01-01")]
    assert all(x.head.lower().count(b"anthropic-beta:") == 1 for x in upstream.seen)


async def test_the_environment_of_the_sdk_reaches_no_provider(
    upstream: Claude, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "environment-canary")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-custom: environment-canary")
    settings = settings_of("anthropic", {"base_url": upstream.url, "headers": {"x-own": "1"}})
    made = connect("own", "anthropic", settings, Ports())
    listed = await made.models()
    await fold(made.run(request("text"), call()))
    await made.aclose()
    assert [model.name for model in listed] == ["claude-opus-4-6", "claude-haiku-4-5-20251001"]
    assert [x.path for x in upstream.seen] == ["/v1/models?limit=1000", "/v1/messages"]
    for exchange in upstream.seen:
        assert "environment-canary" not in exchange.head.decode()
        assert exchange.headers["x-own"] == "1"


async def test_models_that_cannot_be_listed_are_a_backend_error() -> None:
    made = connect("gone", "anthropic", settings_of("anthropic", {"base_url": "http://127.0.0.1:9"}), Ports())
    with pytest.raises(Unreachable) as lost:
        await made.models()
    await made.aclose()
    assert "127.0.0.1" not in lost.value.message


async def test_leaving_a_relayed_stream_stops_the_provider(backend: AnthropicBackend, upstream: Claude) -> None:
    answer = await backend.relay(asked("stall", stream=True), "stall", call())
    assert answer.frames is not None
    await anext(answer.frames)
    began = time.monotonic()
    await answer.frames.aclose()
    assert await asyncio.to_thread(upstream.asked().left_within, CLOSED_WITHIN_S, began)


async def test_a_stream_without_message_stop_is_an_error(backend: AnthropicBackend) -> None:
    with pytest.raises(BadResponse):
        await relayed(backend, "cut")
    for streamed in (True, False):
        with pytest.raises(BadResponse):
            await fold(backend.run(request("cut"), call(streamed=streamed)))


async def test_an_error_inside_a_stream_is_raised(backend: AnthropicBackend) -> None:
    with pytest.raises(Overloaded):
        await relayed(backend, "overloaded")


@pytest.mark.parametrize(
    ("status", "error"), [("401", AuthFailed), ("429", RateLimited), ("529", Overloaded), ("400", Rejected)]
)
async def test_refusals(backend: AnthropicBackend, status: str, error: type[GatewayError]) -> None:
    with pytest.raises(error) as caught:
        await relayed(backend, f"status:{status}")
    assert (BODY_CANARY in caught.value.message) == (error is Rejected)


async def test_requests_of_other_dialects_are_always_streamed(backend: AnthropicBackend, upstream: Claude) -> None:
    result = await fold(backend.run(request("text"), call()))
    assert result.started.id == "msg_01XFDUDYJgAACzvnptvVoYEL"
    assert result.started.created > 1_700_000_000
    sent = upstream.asked()
    assert sent.json["stream"] is True
    assert sent.path == "/v1/messages"


async def test_what_cannot_be_carried_is_named_or_refused(backend: AnthropicBackend) -> None:
    odd = replace(request("text"), choices=2)
    lenient, strict = call(), call()
    strict.strict = True
    await fold(backend.run(odd, lenient))
    assert lenient.dropped == ["n"]
    with pytest.raises(InvalidRequest, match="'n'"):
        await fold(backend.run(odd, strict))


async def test_tokens_are_counted_by_the_provider(backend: AnthropicBackend, upstream: Claude) -> None:
    assert isinstance(backend, CountsTokens)
    assert await backend.count_tokens(asked("mine", stream=False), "text", call()) == 2095
    assert upstream.asked().path == "/v1/messages/count_tokens"
    assert upstream.asked().json["model"] == "text"


async def test_a_count_that_is_none_is_an_error(backend: AnthropicBackend, upstream: Claude) -> None:
    upstream.count = b"{}"
    with pytest.raises(BadResponse):
        await backend.count_tokens(asked("text", stream=False), "text", call())


@pytest.mark.parametrize(
    ("settings", "words"), [({}, "ANTHROPIC_API_KEY"), ({"base_url": "ftp://x"}, "must start with http")]
)
def test_a_wrong_entry_says_how_to_right_it(
    settings: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(ValueError, match=words):
        connect("claude", "anthropic", settings_of("anthropic", settings), Ports())


async def test_a_server_of_ones_own_needs_no_key_and_gets_none(
    upstream: Claude, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    made = connect("own", "anthropic", settings_of("anthropic", {"base_url": upstream.url}), Ports())
    assert isinstance(made, AnthropicBackend)
    await made.relay(asked("text", stream=False), "text", call())
    assert "authorization" not in upstream.asked().headers
    await made.aclose()
