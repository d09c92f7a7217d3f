"""Real children: what they answer, how they share, and how soon they stop."""

import asyncio
import json
import time
from contextlib import aclosing

import aiohttp
import pytest
from msgspec.structs import replace

from backends.base import Timeouts
from backends.local import LocalBackend
from backends.local.engine import Engine
from compat.canonical.error import InvalidRequest, ModelNotFound, TimedOut, WorkerCrashed
from compat.canonical.event import fold
from compat.canonical.message import Message, Text
from compat.canonical.request import TextRequest
from compat.openai.chat import peek
from tests.backends.local.bench import LONG_PROMPT, answering, ask, body, call, data
from tests.backends.local.conftest import Start


async def test_an_answer_streams_in_the_clients_dialect_under_the_models_own_name(backend: LocalBackend) -> None:
    relayed = await backend.relay(peek(json.dumps(body() | {"model": "auto", "stream": True}).encode()), "smol", call())
    assert relayed.frames is not None
    async with aclosing(relayed.frames) as frames:
        events = b"".join([piece async for piece in frames]).decode().split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events if event and "[DONE]" not in event]
    assert {chunk["model"] for chunk in chunks} == {"smol"}
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert [event for event in events if event][-1] == "data: [DONE]"
    assert relayed.tally.finished
    if (usage := relayed.tally.usage) is not None:
        assert usage.output_tokens == 12


async def test_an_unstreamed_answer_is_whole(backend: LocalBackend) -> None:
    relayed = await backend.relay(peek(json.dumps(body()).encode()), "smol", call())
    assert relayed.body is not None
    answer = json.loads(relayed.body)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "smol"
    assert answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_only_the_deadline_ends_an_unstreamed_answer(backend: LocalBackend, engine: Engine) -> None:
    if engine.tells_more:
        pytest.skip("it is waited for as long as it tells that it reads: see the next test")
    asked = call()
    asked.timeouts = Timeouts(first_token_s=1e-3, idle_s=1e-3)
    relayed = await backend.relay(peek(json.dumps(body()).encode()), "smol", asked)
    assert relayed.body is not None
    assert json.loads(relayed.body)["choices"][0]["finish_reason"] == "length"


async def test_while_a_prompt_is_read_its_first_token_is_waited_for(backend: LocalBackend, engine: Engine) -> None:
    if not engine.tells_more:
        pytest.skip("it does not tell how far it is")

    # Streamed from the engine, whatever the client wants.
    async def first_after(prompt: str, timeouts: Timeouts) -> float:
        asked = call()
        asked.timeouts = timeouts
        wanted = json.dumps(body(prompt, tokens=1) | {"stream": True}).encode()
        since = time.monotonic()
        relayed = await backend.relay(peek(wanted), "smol", asked)
        assert relayed.frames is not None
        async with aclosing(relayed.frames) as frames:
            events = b"".join([piece async for piece in frames])
        assert b"prompt_progress" not in events
        return time.monotonic() - since

    await first_after("Hi.", Timeouts())  # loads it
    took = await first_after("A " + LONG_PROMPT[:600], Timeouts())
    await first_after("B " + LONG_PROMPT[:600], Timeouts(first_token_s=took * 0.7))


async def test_a_translated_request_is_answered_in_events(backend: LocalBackend) -> None:
    message = Message(role="user", parts=(Text(text="Say hello."),))
    result = await fold(backend.run(TextRequest(model="smol", messages=(message,), extra={"max_tokens": 5}), call()))
    assert result.started.model == "smol"
    assert result.choices[0].finished.reason == "length"


async def test_only_the_spawns_own_key_is_answered(backend: LocalBackend) -> None:
    async with backend.pool.lease("smol", call()) as lease, aiohttp.ClientSession() as session:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            async with session.post(lease.url + "/v1/chat/completions", json=body(), headers=headers) as response:
                assert response.status == 401


async def test_four_requests_at_once_all_finish_uncut(start: Start) -> None:
    backend = start(slots=4)

    async def one(i: int) -> tuple[float, float, bool]:
        async with (
            backend.pool.lease("smol", call()) as lease,
            answering(lease, prompt=f"Count to {i}.", tokens=30) as got,
        ):
            first, last = 0.0, ""
            async for event in data(got):
                first, last = first or time.monotonic(), event
            return first, time.monotonic(), last == "[DONE]"

    spans = await asyncio.gather(*map(one, range(30, 34)))
    assert all(done for *_, done in spans)
    overlap = max(first for first, *_ in spans) < min(end for _, end, _ in spans)
    assert overlap == backend.pool.workers()["smol"].engine.parallel


@pytest.mark.parametrize("phase", ["streaming", "reading the prompt"])
async def test_a_closed_stream_gives_its_slot_back_within_a_second(start: Start, phase: str) -> None:
    backend = start(slots=1, n_batch=32)

    async def short() -> float:
        began = time.monotonic()
        async with backend.pool.lease("smol", call()) as lease:
            assert (await ask(lease, prompt="Hi", tokens=1))[1]
        return time.monotonic() - began

    await short()
    usual_s = await short()
    async with backend.pool.lease("smol", call()) as lease:
        if phase == "streaming":
            async with answering(lease, tokens=1500, prompt="Tell a very long story.") as response:
                assert await anext(data(response))
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0), answering(lease, prompt=LONG_PROMPT, tokens=1) as response:
                    await anext(data(response))
    assert await short() < usual_s + 1.0


async def test_frames_closed_before_their_first_step_give_the_slot_back(start: Start) -> None:
    backend = start(slots=1)
    envelope = peek(json.dumps(body(tokens=40) | {"stream": True}).encode())
    relayed = await backend.relay(envelope, "smol", call())
    assert relayed.frames is not None
    await relayed.frames.aclose()
    async with backend.pool.lease("smol", call(10)) as lease:
        assert (await ask(lease, tokens=1))[1]


async def test_a_request_that_leaves_while_the_model_loads_harms_nobody(backend: LocalBackend) -> None:
    async def one() -> None:
        async with backend.pool.lease("smol", call()):
            pass

    leaving, staying = asyncio.create_task(one()), asyncio.create_task(one())
    while backend.pool.status("smol") != "loading":
        await asyncio.sleep(0.01)
    leaving.cancel()
    await staying
    assert leaving.cancelled()
    assert backend.pool.status("smol") == "ready"


async def test_waiting_and_loading_are_told_apart(start: Start) -> None:
    backend = start(slots=1)
    first, second = call(), call()
    async with backend.pool.lease("smol", first):
        assert first.wait.load_s > 0.1
        assert first.wait.queue_s < 0.1
        second.deadline = asyncio.get_running_loop().time() + 0.2
        with pytest.raises(TimedOut):
            async with backend.pool.lease("smol", second):
                pass
        while second.wait.queue_position is not None:
            await asyncio.sleep(0.01)
    assert second.wait.load_s == 0
    assert second.wait.queue_s > 0.1


async def test_a_prompt_beyond_the_context_is_refused_in_words(start: Start) -> None:
    backend = start(context_max=256)
    with pytest.raises(Exception, match=r"(?i)context") as caught:
        await backend.relay(peek(json.dumps(body(prompt=LONG_PROMPT)).encode()), "smol", call())
    assert getattr(caught.value, "code", None) == "context_length_exceeded"


async def test_an_unknown_model_is_not_found(backend: LocalBackend) -> None:
    with pytest.raises(ModelNotFound):
        await backend.relay(peek(json.dumps(body()).encode()), "other", call())


async def test_a_text_model_is_not_asked_for_embeddings(backend: LocalBackend) -> None:
    envelope = replace(peek(json.dumps(body()).encode()), dialect="embeddings")
    with pytest.raises(InvalidRequest, match="embeddings"):
        await backend.relay(envelope, "smol", call())
    assert not backend.pool.workers()


async def test_a_worker_that_dies_in_the_middle_is_named_as_the_cause(backend: LocalBackend) -> None:
    envelope = peek(json.dumps(body(tokens=500) | {"stream": True}).encode())
    relayed = await backend.relay(envelope, "smol", call())
    assert relayed.frames is not None
    async with aclosing(relayed.frames) as frames:
        await anext(frames)
        process = backend.pool.workers()["smol"]._process
        assert process is not None
        process.kill()
        with pytest.raises(WorkerCrashed, match=r"SIGKILL|status"):
            async for _ in frames:
                pass
