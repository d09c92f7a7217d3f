"""A gateway in front of stand-ins of both providers, with keys; and clients that hold what it answers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import wire
from tests.claude import claude
from tests.clients.stand_in import embed
from tests.exchange import Exchange, Script
from tests.process import Gateway, gateway
from tests.provider import provider
from tests.schemas.held import Held

KEY = "schema-key-canary-40d1"
READER = "reader-key-canary-8e20"
BODY_LIMIT = 200_000
RESPONSE: dict[str, Any] = json.loads(wire.fixture("responses_provider.json"))
ITEMS = {
    "object": "list",
    "data": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_text", "text": "Say hello."}],
        }
    ],
    "has_more": False,
    "first_id": "msg_1",
    "last_id": "msg_1",
}


async def play(x: Exchange, name: str) -> None:
    """A golden answer of this name."""
    kind = "sse" if x.streams else "json"
    if name == "images" and x.path.endswith("/edits") and x.streams:
        name = "image_edits"
    body = wire.fixture(f"{name}.{kind}")
    if not x.streams:
        x.answer(body)
        return
    x.begin()
    x.send(body)
    x.end()


async def refuse(x: Exchange) -> None:
    """A model's refusal in words."""
    if not x.streams:
        body = json.loads(wire.completion())
        body["choices"][0]["message"] |= {"content": None, "refusal": "I can't help with that."}
        x.answer(wire.dump(body))
        return
    usage = b"null" if x.wants_usage else None
    words = [wire.chunk(wire.delta({"refusal": word}), usage) for word in ("I can't ", "help with that.")]
    x.begin()
    for frame in [wire.opening(usage), *words, wire.finish("stop", usage), *[wire.totals()] * x.wants_usage, wire.DONE]:
        x.send(frame)
    x.end()


async def short(x: Exchange) -> None:
    """An answer cut by the limit of tokens."""
    frames = wire.stream(["Once ", "upon"], include_usage=x.wants_usage, reason="length")
    if not x.streams:
        x.answer(wire.completion("Once upon").replace(b'"finish_reason":"stop"', b'"finish_reason":"length"'))
        return
    x.begin()
    for frame in frames:
        x.send(frame)
    x.end()


async def think(x: Exchange) -> None:
    """Reasoning, then an answer, as DeepSeek writes them."""
    usage = b"null" if x.wants_usage else None
    if not x.streams:
        body = json.loads(wire.completion())
        body["choices"][0]["message"]["reasoning_content"] = "Easy."
        x.answer(wire.dump(body))
        return
    x.begin()
    for frame in (wire.opening(usage), wire.chunk(wire.delta({"reasoning_content": "Easy."}), usage)):
        x.send(frame)
    for frame in wire.stream(["Four."], include_usage=x.wants_usage)[1:]:
        x.send(frame)
    x.end()


async def call(x: Exchange) -> None:
    """Two calls of tools, whole or streamed."""
    if not x.streams:
        x.answer(wire.fixture("tools.json"))
        return
    x.begin()
    for frame in wire.tool_call(x.wants_usage):
        x.send(frame)
    x.end()


async def keep(x: Exchange) -> None:
    """What is asked of a response that the provider keeps."""
    method, path, _ = x.head.decode().split(" ", 2)
    path = path.partition("?")[0]
    if method == "DELETE":
        x.answer(wire.dump({"id": RESPONSE["id"], "object": "response", "deleted": True}))
    elif path.endswith("/input_items"):
        x.answer(wire.dump(ITEMS))
    elif path.endswith("/cancel"):
        x.answer(wire.dump(RESPONSE | {"status": "cancelled", "background": True}))
    else:
        x.answer(wire.dump(RESPONSE))


GOLDEN = ("text", "tools", "two", "logprobs", "vendor", "completions", "images", "responses_provider")
SCRIPTS: dict[str, Script] = {
    "refuse": refuse, "short": short, "think": think, "call": call, "embed": embed, "": keep,
    **{f"play:{name}": play for name in GOLDEN},
}  # fmt: skip


@pytest.fixture(scope="session")
def schema_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with provider() as upstream, claude() as anthropic:
        upstream.scripts |= SCRIPTS
        quick = {"connect_s": 2, "first_token_s": 0.4, "idle_s": 0.4, "total_s": 1}
        config = {
            "server": {"body_limit_bytes": BODY_LIMIT},
            "auth": {
                "mode": "api_key",
                "keys": [
                    {"name": "all", "key": KEY, "scopes": ["inference", "models:read"]},
                    {"name": "reader", "key": READER, "scopes": ["models:read"]},
                ],
            },
            "backends": {
                "up": {"kind": "openai", "base_url": upstream.url, "api_key": "sk-provider"},
                "speaks": {"kind": "openai", "base_url": upstream.url, "api_key": "sk-provider", "responses": True},
                "claude": {"kind": "anthropic", "base_url": anthropic.url, "api_key": "sk-ant-provider"},
                "dead": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"},
            },
            "models": {
                "auto": {"routes": ["up/answer"]},
                "stalling": {"routes": ["up/stall:2"], "retries": 0, "timeouts": quick},
                "slow": {"routes": ["up/silent"], "retries": 0, "timeouts": quick},
                "dead": {"routes": ["dead/anything"], "retries": 0},
                "once-*": {"routes": ["up/*"], "retries": 0},
                **{f"claude-{n}": {"routes": [f"claude/status:{n}"], "retries": 0} for n in (400, 429, 529)},
            },
        }
        with gateway(tmp_path_factory.mktemp("schemas"), config) as running:
            yield running
        assert not upstream.broken
        assert not anthropic.broken


@pytest.fixture(scope="session")
def openai(schema_gateway: Gateway) -> Iterator[Held]:
    held = Held(schema_gateway, "openai", KEY)
    with held.http:
        yield held


@pytest.fixture(scope="session")
def anthropic(schema_gateway: Gateway) -> Iterator[Held]:
    held = Held(schema_gateway, "anthropic", KEY)
    with held.http:
        yield held


@pytest.fixture(scope="session")
def local_openai(local_gateway: Gateway) -> Iterator[Held]:
    held = Held(local_gateway, "openai")
    with held.http:
        yield held


@pytest.fixture(scope="session")
def local_anthropic(local_gateway: Gateway) -> Iterator[Held]:
    held = Held(local_gateway, "anthropic")
    with held.http:
        yield held
