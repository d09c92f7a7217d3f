"""The backend for OpenAI and whoever speaks its dialect: what it sends, and where it gets its settings."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from backends.openai import OpenAIBackend, Settings, connect
from backends.ports import Ports
from backends.presets import PRESETS
from compat.canonical.error import AuthFailed, BadResponse, GatewayError, QuotaExhausted, TimedOut, Unreachable
from compat.canonical.event import fold
from compat.openai.chat import peek
from tests import wire
from tests.backends.contract import body, call, request
from tests.exchange import Exchange
from tests.provider import Provider

Make = Callable[..., OpenAIBackend]


async def ask(backend: OpenAIBackend, model: str = "answer", *, stream: bool = False) -> bytes:
    """What the backend relays, to its end."""
    relayed = await backend.relay(peek(body(model, stream=stream)), model, call())
    if relayed.frames is None:
        assert relayed.body is not None
        return relayed.body
    return b"".join([piece async for piece in relayed.frames])


@pytest.fixture
async def make(upstream: Provider) -> AsyncIterator[Make]:
    made: list[OpenAIBackend] = []

    def connected(**settings: Any) -> OpenAIBackend:
        given = {"base_url": upstream.url, "api_key": "the-key-canary"} | settings
        made.append(connect("up", Settings(**given), Ports()))
        return made[-1]

    yield connected
    for backend in made:
        await backend.aclose()


async def test_who_reranks_is_known_by_the_preset_or_told(make: Make) -> None:
    assert "rerank" in make().dialects
    assert "rerank" not in make(reranks=False).dialects
    assert "rerank" in make(preset="together", base_url=None).dialects
    assert "rerank" not in make(preset="groq", base_url=None).dialects
    assert "rerank" in make(preset="groq", base_url=None, reranks=True).dialects


async def test_the_environment_of_the_sdk_reaches_no_provider(
    make: Make, upstream: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "OPENAI_WEBHOOK_SECRET"):
        monkeypatch.setenv(name, "environment-canary")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-custom: environment-canary")
    backend = make()
    await backend.models()
    await ask(backend)
    await fold(backend.run(request("answer"), call()))
    assert len(upstream.seen) == 3
    for exchange in upstream.seen:
        assert "environment-canary" not in exchange.head.decode()
        assert "openai-organization" not in exchange.headers
        assert "openai-project" not in exchange.headers
        assert exchange.headers["authorization"] == "Bearer the-key-canary"


async def test_what_the_configuration_says_is_sent(make: Make, upstream: Provider) -> None:
    backend = make(organization="org-1", project="proj-1", headers={"x-title": "gateway"})
    await ask(backend, stream=True)
    await backend.models()
    for exchange in upstream.seen:
        assert exchange.headers["openai-organization"] == "org-1"
        assert exchange.headers["openai-project"] == "proj-1"
        assert exchange.headers["x-title"] == "gateway"


async def test_the_clients_betas_reach_the_provider(make: Make, upstream: Provider) -> None:
    said = {"openai-beta": "assistants=v2", "anthropic-beta": "x"}
    asked = msgspec.structs.replace(peek(body("answer", stream=False)), headers=said)
    for headers in ({}, {"OpenAI-Beta": "ours=v1"}):
        await make(headers=headers).relay(asked, "answer", call())
    assert [x.headers["openai-beta"] for x in upstream.seen] == ["assistants=v2", "ours=v1,assistants=v2"]
    assert all("anthropic-beta" not in x.headers for x in upstream.seen)


async def test_without_a_key_no_authorization_is_sent(make: Make, upstream: Provider) -> None:
    backend = make(api_key=None)
    await ask(backend)
    await backend.models()
    for exchange in upstream.seen:
        assert "authorization" not in exchange.headers


async def test_azure_gets_its_key_in_its_own_header(make: Make, upstream: Provider) -> None:
    backend = make(preset="azure")
    await ask(backend)
    await backend.models()
    for exchange in upstream.seen:
        assert exchange.headers["api-key"] == "the-key-canary"
        assert "authorization" not in exchange.headers


async def test_a_provider_that_does_not_take_the_usage_option_is_not_sent_it(make: Make, upstream: Provider) -> None:
    backend = make(stream_usage=False)
    await ask(backend, stream=True)
    assert "stream_options" not in upstream.asked().json


async def test_max_tokens_goes_by_the_name_the_provider_knows(make: Make, upstream: Provider) -> None:
    await fold(make(preset="openai").run(request("answer"), call()))
    assert upstream.asked().json["max_completion_tokens"] == 400
    await fold(make().run(request("answer"), call()))
    assert upstream.asked(count=2).json["max_tokens"] == 400


async def test_a_base_url_may_end_in_a_slash(make: Make, upstream: Provider) -> None:
    await ask(make(base_url=f"{upstream.url}/"))
    assert upstream.asked().path == "/v1/chat/completions"


async def test_redirects_are_not_followed(make: Make, upstream: Provider) -> None:
    with pytest.raises(BadResponse):
        await ask(make(), "redirect")
    assert [exchange.path for exchange in upstream.seen] == ["/v1/chat/completions"]


async def test_a_connection_is_used_again(make: Make, upstream: Provider) -> None:
    backend = make()
    for stream in (True, False, True):
        await ask(backend, stream=stream)
    assert len({id(exchange._transport) for exchange in upstream.seen}) == 1


async def test_a_provider_that_lingers_after_done_holds_nobody_up(make: Make, upstream: Provider) -> None:
    async def lingering(x: Exchange) -> None:
        x.begin()
        for frame in wire.stream(["a"], include_usage=True):
            x.send(frame)
        await asyncio.sleep(30)

    upstream.scripts["lingering"] = lingering
    began = asyncio.get_running_loop().time()
    result = await fold(make().run(request("lingering"), call()))
    assert result.choices[0].finished.reason == "stop"
    assert asyncio.get_running_loop().time() - began < 2


@pytest.mark.parametrize("last", [0, 1], ids=["done", "usage and done"])
async def test_what_follows_a_complete_answer_is_not_waited_for_long(
    make: Make, upstream: Provider, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    async def held_open(x: Exchange) -> None:
        frames = wire.stream(["a"], include_usage=True)
        x.begin()
        for frame in frames[: -1 - last]:
            x.send(frame)
        await asyncio.Event().wait()

    monkeypatch.setattr("backends.relay.LAST_WORDS_S", 0.1)
    upstream.scripts["open"] = held_open
    async with asyncio.timeout(5):
        stream = await ask(make(), "open", stream=True)
    assert stream.endswith(wire.DONE)
    asked = upstream.asked()
    assert await asyncio.to_thread(asked.left_within, 5, asked.arrived), "the connection is closed"


async def test_a_providers_headers_go_with_its_answer_and_its_refusal(make: Make, upstream: Provider) -> None:
    told = [
        ("x-gateway-upstream-request-id", "req_of_the_provider"),
        ("x-ratelimit-remaining-requests", "99"),
        ("openai-processing-ms", "17"),
    ]
    backend, asked = make(), call()
    await fold(backend.run(request("answer"), asked))
    assert asked.headers == told
    for script in ("status:429", "html"):
        with pytest.raises(GatewayError) as raised:
            await ask(backend, script)
        assert list(raised.value.headers) == told


async def test_the_account_at_the_provider_stays_its_secret(make: Make, upstream: Provider) -> None:
    async def named(x: Exchange) -> None:
        x.answer(wire.completion(), openai_organization="the-operator")

    upstream.scripts["named"] = named
    relayed = await make().relay(peek(body("named", stream=False)), "named", call())
    assert "openai-organization" not in dict(relayed.headers)


async def test_a_compressed_answer_nobody_asked_for_is_read_or_refused(make: Make, upstream: Provider) -> None:
    async def zipped(x: Exchange) -> None:
        x.answer(gzip.compress(wire.completion()), content_encoding="gzip")

    upstream.scripts["zipped"] = zipped
    assert await ask(make(), "zipped") == wire.completion()


async def test_an_event_without_end_is_cut_off(make: Make, upstream: Provider) -> None:
    async def flood(x: Exchange) -> None:
        x.begin()
        x.send(b"data: ")
        while True:
            x.send(b"x" * 1_000_000)
            await x.drained()

    upstream.scripts["flood"] = flood
    with pytest.raises(BadResponse, match="too large"):
        await fold(make().run(request("flood"), call()))


async def test_an_error_that_comes_in_pieces_is_read_whole(make: Make, upstream: Provider) -> None:
    async def piecemeal(x: Exchange) -> None:
        body = wire.error("No.", "insufficient_quota", "insufficient_quota")
        x._transport.write(b"HTTP/1.1 429 No\r\ncontent-type: application/json\r\n")
        x._transport.write(b"content-length: %d\r\n\r\n" % len(body) + body[:10])
        await asyncio.sleep(0.05)
        x._transport.write(body[10:])

    upstream.scripts["piecemeal"] = piecemeal
    with pytest.raises(QuotaExhausted):
        await ask(make(), "piecemeal")


async def test_models_that_cannot_be_listed_are_a_backend_error(make: Make, upstream: Provider) -> None:
    with pytest.raises(Unreachable) as lost:
        await make(base_url="http://127.0.0.1:9/v1").models()
    assert "127.0.0.1" not in lost.value.message


async def test_a_deadline_ends_a_silent_request(make: Make) -> None:
    for stream in (True, False):
        with pytest.raises(TimedOut):
            await make().relay(peek(body("silent", stream=stream)), "silent", call(0.2))


async def test_closing_the_backend_ends_what_runs_with_an_error(make: Make, upstream: Provider) -> None:
    backend = make()
    relayed = await backend.relay(peek(body("events:1000:0.02", stream=True)), "events:1000:0.02", call())
    assert relayed.frames is not None
    await anext(relayed.frames)
    await backend.aclose()
    with pytest.raises(GatewayError):
        async for _ in relayed.frames:
            pass


async def test_a_key_the_provider_rejects_is_the_gateways_trouble(make: Make) -> None:
    with pytest.raises(AuthFailed) as refused:
        await ask(make(), "status:401")
    assert "the-key-canary" not in refused.value.message


LOCAL = {"ollama", "lmstudio", "vllm", "llama-server"}
KEYLESS = {"ovhcloud", "pollinations", "llm7"}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_each_preset_is_complete(name: str) -> None:
    preset = PRESETS[name]
    if name != "azure":
        assert preset.base_url is not None
        assert preset.base_url.startswith("http://127.0.0.1:" if name in LOCAL else "https://")
        assert not preset.base_url.endswith("/")
    assert (preset.env is None) == (name in LOCAL | KEYLESS)
    assert preset.price in ("paid", "free", "local")
    assert preset.key_header == preset.key_header.lower()


def test_the_promised_presets_are_there() -> None:
    promised = {
        "openai", "azure", "groq", "openrouter", "together", "mistral", "deepseek", "xai", "gemini", "cerebras",
        "fireworks", "nvidia", "github", "huggingface",
    }  # fmt: skip
    assert promised | LOCAL <= set(PRESETS)
    assert [name for name, preset in PRESETS.items() if preset.env is None and name not in LOCAL]


@pytest.mark.parametrize("name", sorted(name for name, preset in PRESETS.items() if preset.env))
async def test_a_presets_key_comes_from_its_own_variable_or_is_asked_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for preset in PRESETS.values():
        if preset.env:
            monkeypatch.delenv(preset.env, raising=False)
    variable = PRESETS[name].env or ""
    base_url = "https://mine.example/openai/v1" if name == "azure" else None
    with pytest.raises(ValueError, match=f"^api_key: .*{variable}"):
        connect("up", Settings(preset=name, base_url=base_url), Ports())
    monkeypatch.setenv(variable, "from-the-environment")
    await connect("up", Settings(preset=name, base_url=base_url), Ports()).aclose()


async def test_a_presets_key_goes_to_the_presets_own_address_only(
    make: Make, upstream: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "environment-canary")
    with pytest.raises(ValueError, match=r"^api_key: .*GROQ_API_KEY is for https://api\.groq\.com"):
        make(preset="groq", api_key=None)
    await ask(make(preset="groq"))
    assert upstream.asked().headers["authorization"] == "Bearer the-key-canary"
    own = make(preset="groq", base_url="https://api.groq.com/openai/v1/", api_key=None)
    assert own._headers["authorization"] == "Bearer environment-canary"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(preset="nobody"), "^preset: .*nobody.*groq"),
        (Settings(preset="azure", api_key="x"), "^base_url: "),
        (Settings(base_url="example.com/v1"), "^base_url: .*https://"),
    ],
)
def test_a_wrong_setting_is_named_with_its_cure(settings: Settings, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        connect("up", settings, Ports())
