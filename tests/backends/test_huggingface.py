"""Hugging Face's inference providers, on loopback: the router, the hub, and what comes back from each."""

import asyncio
import base64
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from backends.huggingface import Settings, connect
from backends.ports import Ports
from compat.canonical.error import (
    AuthFailed,
    BadResponse,
    GatewayError,
    InvalidRequest,
    ModelLoading,
    ModelNotFound,
    QuotaExhausted,
    TimedOut,
)
from compat.canonical.event import fold
from compat.canonical.request import EmbeddingRequest
from compat.openai.chat import peek
from tests import wire
from tests.backends.contract import CHECKS, Check, Subject, body, call
from tests.backends.hub import DRAW, EMBED, HUB, JPEG, PNG, TOKEN, Hub, Make
from tests.exchange import Exchange
from tests.http import until
from tests.process import gateway
from tests.provider import Provider
from tests.scripts import BODY_CANARY, SCRIPTS

ROUTER = "https://router.huggingface.co"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract(check: Check, make_hf: Make, upstream: Provider) -> None:
    def idle() -> bool:
        return all(x.over.is_set() for x in upstream.seen)

    failing = ("status:401", "status:402", "status:429", "status:500", "status:503", "html", "error_in_200", "redirect")
    secrets = (TOKEN, BODY_CANARY, upstream.url)
    subject = Subject(
        backend=make_hf(), model="answer", endless="events:1000:0.02", failing=failing, secrets=secrets, idle=idle
    )
    await check(subject)


# --- Text ---


async def test_text_is_relayed_with_the_token_and_who_pays(make_hf: Make, upstream: Provider) -> None:
    backend = make_hf(bill_to="acme", headers={"X-Extra": "1"})
    relayed = await backend.relay(peek(body("any", stream=False)), "answer", call())
    assert relayed.body == wire.completion("word0 word1 word2 ")
    sent = upstream.asked()
    assert sent.path == "/v1/chat/completions"
    assert sent.headers["authorization"] == f"Bearer {TOKEN}"
    assert sent.headers["x-hf-bill-to"] == "acme"
    assert sent.headers["x-extra"] == "1"


@pytest.mark.parametrize(("model", "sent"), [("answer", "answer:groq"), ("answer:fastest", "answer:fastest")])
async def test_a_provider_is_named_behind_the_model(make_hf: Make, upstream: Provider, model: str, sent: str) -> None:

    async def answer(x: Exchange, *_: str) -> None:
        await SCRIPTS["answer"](x)

    upstream.scripts[sent] = answer
    backend = make_hf(provider="groq")
    await backend.relay(peek(body("any", stream=False)), model, call())
    assert upstream.asked().json["model"] == sent


async def test_its_models_are_the_routers(make_hf: Make) -> None:
    assert "answer" in {model.name for model in await make_hf().models()}


# --- Embeddings ---


def texts(*inputs: str | tuple[int, ...], model: str = "org/embedder", **fields: Any) -> EmbeddingRequest:
    return EmbeddingRequest(model=model, inputs=inputs or ("a", "b"), **fields)


@pytest.fixture
def embedder(hub: Hub) -> Hub:
    hub.serve("org/embedder", "feature-extraction")
    hub.answer(EMBED, b"[[0.5, -1], [2, 3]]")
    return hub


async def test_texts_become_vectors(make_hf: Make, embedder: Hub) -> None:
    result = await fold(make_hf().run(texts("a", "b"), call()))
    assert result.vectors == ((0.5, -1.0), (2.0, 3.0))
    assert result.started.model == "org/embedder"
    assert [x.path.partition("?")[0] for x in embedder.upstream.seen] == [HUB + "org/embedder", EMBED]
    [sent] = embedder.asked(EMBED)
    assert sent.json == {"inputs": ["a", "b"]}
    assert sent.headers["authorization"] == f"Bearer {TOKEN}"
    assert sent.headers["user-agent"] == "pluggably"


async def test_who_serves_a_model_is_asked_once(make_hf: Make, embedder: Hub) -> None:
    backend = make_hf()
    for _ in range(3):
        await fold(backend.run(texts(), call()))
    [asked] = embedder.asked(HUB + "org/embedder")
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"


async def test_a_named_provider_of_its_own_needs_no_lookup(make_hf: Make, embedder: Hub) -> None:
    embedder.serving.clear()
    await fold(make_hf(provider="hf-inference").run(texts(), call()))
    await fold(make_hf().run(texts(model="org/embedder:hf-inference"), call()))
    assert len(embedder.asked(EMBED)) == 2


async def test_another_provider_gets_its_own_format_and_name(make_hf: Make, hub: Hub) -> None:
    hub.serve("org/embedder", "feature-extraction", "together", "together-name")
    answer = {
        "data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    hub.answer("/together/v1/embeddings", wire.dump(answer))
    result = await fold(make_hf().run(texts("a", "b", dimensions=2), call()))
    assert result.vectors == ((1.0, 2.0), (3.0, 4.0))
    assert result.usage.input_tokens == 7
    [sent] = hub.asked("/together/v1/embeddings")
    assert sent.json == {"input": ["a", "b"], "model": "together-name", "dimensions": 2}
    assert sent.headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("answer", "vectors"),
    [
        ([[1, 2], [3, 4]], ((1.0, 2.0), (3.0, 4.0))),
        ([[[1, 2], [3, 4]], [[5, 6], [7, 9]]], ((2.0, 3.0), (6.0, 7.5))),
        ([[[[1, 2], [3, 4]]], [[[5, 6]]]], ((2.0, 3.0), (5.0, 6.0))),
    ],
)
async def test_vectors_of_tokens_are_averaged(make_hf: Make, embedder: Hub, answer: Any, vectors: Any) -> None:
    embedder.answer(EMBED, wire.dump(answer))
    assert (await fold(make_hf().run(texts("a", "b"), call()))).vectors == vectors


@pytest.mark.parametrize("answer", [[1, 2], [[1, 2]], [[1, 1], [1, 3]], [[[1, 2]]]])
async def test_one_text_may_come_back_without_its_list(make_hf: Make, embedder: Hub, answer: Any) -> None:
    embedder.answer(EMBED, wire.dump(answer))
    assert (await fold(make_hf().run(texts("a"), call()))).vectors == ((1.0, 2.0),)


@pytest.mark.parametrize(
    "answer",
    [b"[]", b"{}", b"[[1],[2],[3]]", b"[[1,2],[3]]", b'[["a"],["b"]]', b"[null,null]", b"<html>", b"[[],[]]", b"\xff"],
)
async def test_what_is_not_a_vector_for_each_text_is_an_error(make_hf: Make, embedder: Hub, answer: bytes) -> None:
    embedder.answer(EMBED, answer)
    with pytest.raises(BadResponse):
        await fold(make_hf().run(texts("a", "b"), call()))


async def test_dimensions_a_model_does_not_have_are_named(make_hf: Make, embedder: Hub) -> None:
    asking = call()
    await fold(make_hf().run(texts("a", "b", dimensions=1, user="u", extra={"x": 1}), asking))
    assert asking.dropped == ["x", "user", "dimensions"]
    assert embedder.asked(EMBED)[0].json["dimensions"] == 1


async def test_token_ids_are_refused(make_hf: Make, embedder: Hub) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await fold(make_hf().run(texts((1, 2)), call()))
    assert refused.value.param == "input"
    assert embedder.upstream.seen == []


@pytest.mark.parametrize(
    "model", ["http://127.0.0.1:9/x", "../x", "a/b/c", "a/../b", "", "a b", "https://x", "./a", "a:b/c"]
)
async def test_a_model_name_is_never_an_address(make_hf: Make, hub: Hub, model: str) -> None:
    for backend in (make_hf(), make_hf(provider="hf-inference")):
        with pytest.raises(ModelNotFound):
            await fold(backend.run(texts(model=model), call()))
    assert hub.upstream.seen == []


async def test_a_model_nobody_knows_is_not_found(make_hf: Make, hub: Hub) -> None:
    with pytest.raises(ModelNotFound):
        await fold(make_hf().run(texts(), call()))


async def test_a_model_that_does_something_else_is_refused(make_hf: Make, hub: Hub) -> None:
    hub.serve("org/embedder", "text-to-image")
    with pytest.raises(InvalidRequest) as refused:
        await fold(make_hf().run(texts(), call()))
    assert refused.value.param == "model"


# --- Trouble ---


async def test_a_model_being_loaded_says_when_to_come_back(make_hf: Make, embedder: Hub) -> None:
    loading = b'{"error":"Model org/embedder is currently loading","estimated_time":20.5}'
    embedder.answer(EMBED, loading, "503 Service Unavailable")
    with pytest.raises(ModelLoading) as trouble:
        await fold(make_hf().run(texts(), call()))
    assert trouble.value.retry_after_s == 20.5
    assert trouble.value.code == "model_loading"


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        ("401 Unauthorized", b'{"error":"Invalid username or password."}', AuthFailed),
        ("402 Payment Required", b'{"error":"You have exceeded your monthly credits"}', QuotaExhausted),
        ("307 Temporary Redirect", b"", BadResponse),
        ("200 OK", b'{"error":"something broke"}', GatewayError),
    ],
)
async def test_trouble_is_told_in_our_words(
    make_hf: Make, embedder: Hub, status: str, answer: bytes, error: type[GatewayError]
) -> None:
    embedder.answer(EMBED, answer, status, location="http://127.0.0.1:9/elsewhere")
    with pytest.raises(error) as trouble:
        await fold(make_hf().run(texts(), call()))
    assert TOKEN not in trouble.value.message
    assert "credits" not in trouble.value.message
    assert len(embedder.asked(EMBED)) == 1


async def test_a_refusal_of_the_request_is_quoted(make_hf: Make, embedder: Hub) -> None:
    embedder.answer(EMBED, b'{"error":["inputs: too long","really"]}', "400 Bad Request")
    with pytest.raises(GatewayError) as trouble:
        await fold(make_hf().run(texts(), call()))
    assert (trouble.value.status, trouble.value.message) == (400, "inputs: too long; really")


async def silent(x: Exchange) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("path", [EMBED, HUB + "org/embedder"])
async def test_the_deadline_ends_a_silent_request(make_hf: Make, embedder: Hub, path: str) -> None:
    if path == EMBED:
        embedder.scripts[EMBED] = silent
    else:
        embedder.upstream.scripts[""] = silent
    began = time.monotonic()
    with pytest.raises(TimedOut):
        await fold(make_hf().run(texts(), call(0.4)))
    assert time.monotonic() - began < 2
    left = await asyncio.to_thread(embedder.upstream.seen[-1].left_within, 1.0, began + 0.4)
    assert left


async def test_cancelling_closes_the_request_within_a_second(make_hf: Make, embedder: Hub) -> None:
    embedder.scripts[EMBED] = silent
    asking = asyncio.create_task(fold(make_hf().run(texts(), call())))
    await asyncio.to_thread(until, lambda: embedder.asked(EMBED))
    began = time.monotonic()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    left = await asyncio.to_thread(embedder.asked(EMBED)[0].left_within, 1.0, began)
    assert left


# --- Settings ---


def test_settings_name_the_field_and_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for settings, field in (
        (Settings(), "api_key"),
        (Settings(api_key=TOKEN, provider="nobody"), "provider"),
        (Settings(api_key=TOKEN, base_url="router"), "base_url"),
    ):
        with pytest.raises(ValueError, match=f"^{field}: "):
            connect("hf", settings, Ports())


async def test_the_token_of_the_environment_is_the_default(
    make_hf: Make, upstream: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    await make_hf(api_key=None).relay(peek(body("answer", stream=False)), "answer", call())
    assert upstream.asked().headers["authorization"] == "Bearer hf_of_the_environment"


def test_every_helper_of_the_sdk_writes_for_the_router() -> None:
    from huggingface_hub.inference._providers import PROVIDERS

    for provider, tasks in PROVIDERS.items():
        for task in {"feature-extraction", "text-to-image", "image-to-image"} & tasks.keys():
            backend = connect("hf", Settings(api_key=TOKEN), Ports())
            written = backend._written(_served(provider, task), task, PNG if task == "image-to-image" else "x", {})
            assert written.url.startswith(f"{ROUTER}/{provider}/"), provider
            assert "hf_" not in written.url


def _served(provider: str, task: str) -> Any:
    from huggingface_hub.hf_api import InferenceProviderMapping

    fields = {"provider": provider, "hf_model_id": "a/b", "providerId": "c/d", "status": "live", "task": task}
    return InferenceProviderMapping(**fields)  # type: ignore[no-untyped-call]


def test_the_sdk_is_imported_only_on_connect() -> None:
    program = "import sys, backends.huggingface; sys.exit('huggingface_hub' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_the_gateway_serves_it_to_openais_clients(hub: Hub, tmp_path: Path) -> None:
    hub.serve("org/embedder", "feature-extraction")
    hub.serve("org/painter", "text-to-image")
    hub.answer(EMBED, b"[[0.5, -1], [2, 3]]")
    hub.answer(DRAW, JPEG)
    hub.answer("/hf-inference/models/org/waking", b'{"error":"loading","estimated_time":3}', "503 No")
    config = {
        "backends": {"hf": {"kind": "huggingface", "api_key": TOKEN, "base_url": hub.upstream.url}},
        "models": {
            "auto": {"routes": ["hf/answer"]},
            "waking": {"routes": ["hf/org/waking:hf-inference"], "retries": 0},
        },
    }
    environ = {"HF_ENDPOINT": hub.upstream.url.removesuffix("/v1")}
    with gateway(tmp_path, config, environ) as running, httpx2.Client(verify=False, timeout=30) as http:
        sdk = openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0, http_client=http)
        said = sdk.chat.completions.create(model="auto", messages=[{"role": "user", "content": "hi"}])
        assert said.choices[0].message.content == "word0 word1 word2 "
        embedded = sdk.embeddings.create(model="hf/org/embedder", input=["a", "b"])
        assert [one.embedding for one in embedded.data] == [[0.5, -1.0], [2.0, 3.0]]
        drawn = sdk.images.generate(model="hf/org/painter", prompt="a heron").data
        assert drawn is not None
        assert base64.b64decode(drawn[0].b64_json or "") == JPEG
        with pytest.raises(openai.APIStatusError) as waking:
            sdk.images.generate(model="waking", prompt="a heron")
        assert waking.value.status_code == 503
        assert waking.value.code == "model_loading"
        assert waking.value.response.headers["retry-after"] == "3"
        assert TOKEN not in "".join(running.lines)
