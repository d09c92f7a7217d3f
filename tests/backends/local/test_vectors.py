"""Embeddings and ranking by the engines that are installed here, with the embedded model and with one that reranks."""

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from backends.base import Call
from backends.local import LocalBackend, Settings, connect
from backends.local.engine import Engine
from backends.local.length import Lengths
from backends.ports import Local, Ports
from backends.relay import Wire
from compat.canonical.error import ContextTooLong, InvalidRequest, WorkerCrashed
from compat.canonical.event import Result, fold
from compat.canonical.request import EmbeddingRequest, Request, RerankRequest
from tests.backends.contract import call
from tests.backends.local.bert import CONTEXT, Reference, minilm, reranker

TEXTS = (
    "A man is eating food.",
    "Someone is having a meal.",
    "The stock market fell sharply today.",
    "Ünïcödé, 中文 & emojis 🙂: hyphen-ated words, UPPER case; 12,345.67!",
    "x",
    "It was the best of times, it was the worst of times, it was the age of wisdom. " * 6,
)
Connect = Callable[..., LocalBackend]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Local]:
    folder = tmp_path_factory.mktemp("models")
    return {local.name: local for local in (minilm(folder), reranker(folder))}


@pytest.fixture
async def connected(engine: Engine, models: dict[str, Local]) -> AsyncIterator[Connect]:
    """Connects a backend with both models, whose settings may differ by model; closed after the test."""
    opened: list[LocalBackend] = []

    def open_(**own: Any) -> LocalBackend:
        settings = {"engine": engine.name, "threads": 1, "models": dict.fromkeys(models, own)}
        opened.append(connect("local", msgspec.convert(settings, Settings), Ports(catalogue=lambda: models)))
        return opened[-1]

    yield open_
    for backend in opened:
        await backend.aclose()


async def done(backend: LocalBackend, request: Request, within: Call | None = None) -> Result:
    async with aclosing(backend.run(request, within or call(streamed=False))) as events:
        return await fold(events)


def embed(*inputs: str | tuple[int, ...], **fields: Any) -> EmbeddingRequest:
    return EmbeddingRequest(model="all-minilm-l6-v2", inputs=inputs, **fields)


def rank(query: str, *documents: str, model: str = "all-minilm-l6-v2", **fields: Any) -> RerankRequest:
    return RerankRequest(model=model, query=query, documents=documents, **fields)


async def test_the_vectors_are_the_models(connected: Connect, models: dict[str, Local]) -> None:
    """The file made of the published weights, in 8 bits, says what these say in 32."""
    backend = connected()
    result = await done(backend, embed(*TEXTS))
    reference = Reference(Path(models["all-minilm-l6-v2"].made_from or ""))
    for text, vector in zip(TEXTS, result.vectors, strict=True):
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-4)
        assert float(np.dot(vector, reference.embed(text))) > (0.9990 if len(text) > 1 else 0.998), text
    assert result.usage.input_tokens == sum(len(reference.tokenizer.encode(text).ids) for text in TEXTS)
    near, far = (float(np.dot(result.vectors[0], result.vectors[n])) for n in (1, 2))
    assert near > 0.6
    assert far < 0.1
    assert result.started.model == "all-minilm-l6-v2"
    alone = await done(backend, embed(TEXTS[2]))
    assert np.dot(alone.vectors[0], result.vectors[2]) > 0.999


async def test_many_texts_come_back_in_their_order(connected: Connect) -> None:
    texts = [f"number {n} of many" for n in range(120)]
    backend = connected()
    result = await done(backend, embed(*texts))
    assert len(result.vectors) == 120
    for n in (0, 60, 119):
        alone = await done(backend, embed(texts[n]))
        assert np.dot(alone.vectors[0], result.vectors[n]) > 0.999


async def test_tokens_are_taken_where_the_engine_takes_them(connected: Connect, engine: Engine) -> None:
    backend = connected()
    if not engine.embeds_tokens:
        with pytest.raises(InvalidRequest, match="token ids"):
            await done(backend, embed((101, 7592, 102)))
        return
    result = await done(backend, embed((101, 7592, 102), "hello"))
    assert np.dot(result.vectors[0], result.vectors[1]) > 0.9999
    with pytest.raises(InvalidRequest, match="99999") as refused:
        await done(backend, embed("hello", (101, 99999)))
    assert refused.value.param == "input[1]"


async def test_what_is_too_long_is_refused_by_name_and_number(connected: Connect, engine: Engine) -> None:
    backend = connected()
    whole = "word " * 510
    await done(backend, embed(whole))
    for inputs, name, numbers in (
        ((whole + "word",), "input", "513"),
        (("a", "word " * 900), "input[1]", "902"),
        (("a", "word " * 100_000), "input[1]", "more than"),
    ):
        with pytest.raises(ContextTooLong, match=numbers) as refused:
            await done(backend, embed(*inputs))
        assert (refused.value.param, refused.value.code) == (name, "context_length_exceeded")
        assert "512" in refused.value.message
    if engine.embeds_tokens:
        with pytest.raises(ContextTooLong, match="600"):
            await done(backend, embed((7592,) * 600))
    with pytest.raises(ContextTooLong, match="512") as refused:
        await done(backend, rank("query", "a", whole * 2))
    assert refused.value.param == "documents[1]"
    with pytest.raises(ContextTooLong) as refused:
        await done(backend, rank(whole * 2, "a"))
    assert refused.value.param == "query"


async def test_what_is_too_long_is_cut_where_that_is_wanted(connected: Connect) -> None:
    backend = connected(long_inputs="chunk", context_max=256)
    food, market = "Someone is eating a meal. " * 50, "The stock market fell today. " * 50
    result = await done(backend, embed(food, "Someone is eating a meal.", market, food + market, "字" * 300))
    parts = np.array(result.vectors)
    assert np.linalg.norm(parts, axis=1) == pytest.approx(1, abs=1e-4)
    assert parts[0] @ parts[1] > parts[2] @ parts[1] + 0.4
    assert min(parts[3] @ parts[0], parts[3] @ parts[2]) > parts[0] @ parts[2] + 0.4
    best = await done(backend, rank("eating", market, market + "Someone is eating a meal."))
    assert best.ranked[1].score > best.ranked[0].score


async def test_vectors_are_cut_short_only_where_they_were_made_for_it(connected: Connect) -> None:
    backend = connected()
    assert len((await done(backend, embed("a", dimensions=384))).vectors[0]) == 384
    for dimensions in (64, 385):
        with pytest.raises(InvalidRequest, match="vectors of 384 dimensions") as refused:
            await done(backend, embed("a", dimensions=dimensions))
        assert (refused.value.param, refused.value.code) == ("dimensions", "unsupported_value")
    backend = connected(matryoshka=True)
    short = (await done(backend, embed("a", dimensions=64))).vectors[0]
    assert len(short) == 64
    assert math.hypot(*short) == pytest.approx(1)
    with pytest.raises(InvalidRequest, match="at most 384"):
        await done(backend, embed("a", dimensions=385))


async def test_nearness_ranks_and_says_that_it_did(connected: Connect) -> None:
    asked = call(streamed=False)
    documents = ("The cat sits outside.", "Paris is the capital of France.", "Stocks fell.")
    result = await done(
        connected(), rank("What is the capital of France?", *documents, extra={"truncation": True}), asked
    )
    scores = {one.index: one.score for one in result.ranked}
    assert max(scores, key=lambda index: scores[index]) == 1
    assert scores[1] > 0.7
    assert all(0 <= score <= 1 for score in scores.values())
    assert asked.headers == [("x-gateway-rerank-method", "embedding-similarity")]
    assert asked.dropped == ["truncation"]
    assert (result.usage.input_tokens or 0) > 20


async def test_a_model_made_for_it_reads_query_and_document_together(connected: Connect, engine: Engine) -> None:
    backend, asked = connected(), call(streamed=False)
    documents = ("the red boat", "a blue house", "z y x", *("a b c " * n for n in range(1, 20)))
    if not engine.ranks:
        with pytest.raises(InvalidRequest, match="does not rerank"):
            await done(backend, rank("red", *documents, model="noise-reranker"))
        return
    result = await done(backend, rank("red boat", *documents, model="noise-reranker"), asked)
    assert asked.headers == [("x-gateway-rerank-method", "cross-encoder")]
    scores = [one.score for one in result.ranked]
    assert [one.index for one in result.ranked] == list(range(len(documents)))
    assert all(0 < score < 1 for score in scores)
    assert len(set(scores)) > 10
    for n in (0, 2, 21):
        alone = await done(backend, rank("red boat", documents[n], model="noise-reranker"))
        assert alone.ranked[0].score == pytest.approx(scores[n], abs=1e-3)
    other = await done(backend, rank("the house", *documents, model="noise-reranker"))
    assert [one.score for one in other.ranked] != pytest.approx(scores, abs=1e-3)
    await done(backend, rank("the red boat " * 10, "a " * 90, model="noise-reranker"))
    with pytest.raises(ContextTooLong) as refused:
        await done(backend, rank("red boat", "a", "a " * CONTEXT, model="noise-reranker"))
    assert refused.value.param == "documents[1]"
    cut = connected(long_inputs="chunk")
    assert len((await done(cut, rank("red boat", "a", "a " * 500, model="noise-reranker"))).ranked) == 2


async def test_whoever_leaves_stops_the_work(connected: Connect) -> None:
    """The worker is soon idle again: what was asked for would have taken it a minute."""
    backend = connected()
    await done(backend, embed("warm"))
    long = asyncio.create_task(done(backend, embed(*(["word " * 400] * 200))))
    await asyncio.sleep(0.6)  # it is at work by then
    assert not long.done()
    long.cancel()
    began = asyncio.get_running_loop().time()
    await asyncio.gather(long, return_exceptions=True)
    await done(backend, embed("next"))
    assert asyncio.get_running_loop().time() - began < 4


@pytest.mark.parametrize("request_", [EmbeddingRequest(model="noise-reranker", inputs=("a",))], ids=["embedding"])
async def test_a_model_is_asked_for_what_it_makes(connected: Connect, request_: Request) -> None:
    with pytest.raises(InvalidRequest, match="makes rankings, not embeddings"):
        await done(connected(), request_)


async def test_a_worker_that_dies_while_it_counts_has_crashed(connected: Connect) -> None:
    backend = connected()
    async with backend.pool.lease("all-minilm-l6-v2", within := call()) as lease:
        pid = backend.pool.workers()["all-minilm-l6-v2"].pid
        assert pid is not None
        wire = Wire("local")
        try:
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerCrashed):
                await Lengths(lease, wire, within, "refuse").count("How long is this?")
        finally:
            await wire.aclose()
