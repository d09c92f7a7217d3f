"""What every backend promises (`backends.base.Backend`), as functions that take one.

A test module parametrises `check` over CHECKS and brings `Subject`s: a backend that answers at once,
and the same kind in trouble.  The promises of `Relays` are checked where a backend makes them.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

import pytest
from msgspec import Struct

from backends.base import Backend, Call, Relays, Timeouts
from compat.canonical.error import GatewayError
from compat.canonical.event import Event, Finished, Metered, Started, fold
from compat.canonical.message import Message, Text
from compat.canonical.principal import Principal
from compat.canonical.request import MeshRequest, Request, Sampling, TextRequest
from compat.openai.chat import peek
from compat.sse import split

CLOSED_WITHIN_S = 1.0


class Subject(Struct, kw_only=True):
    """A backend under test."""

    backend: Backend
    model: str
    """A model that answers: with several pieces of text, or a picture or a mesh."""
    asks: Callable[[str], Request] = lambda model: request(model)
    """What a model is asked for, where that is not text."""
    endless: str | None = None
    """A model whose answer lasts for at least 10 s, in pieces."""
    failing: Sequence[str] = ()
    """Models that fail, each in its own way."""
    secrets: Sequence[str] = ()
    """Keys and addresses that no error may tell."""
    idle: Callable[[], bool] | None = None
    """Whether nothing is being worked on, as seen from behind the backend."""


def call(total_s: float = 30.0, *, streamed: bool = True) -> Call:
    return Call(
        request_id="req_contract",
        principal=Principal(id="test"),
        deadline=asyncio.get_running_loop().time() + total_s,
        timeouts=Timeouts(first_token_s=total_s, idle_s=total_s, total_s=total_s),
        streamed=streamed,
    )


def request(model: str) -> TextRequest:
    message = Message(role="user", parts=(Text(text="Say hello."),))
    return TextRequest(model=model, messages=(message,), sampling=Sampling(max_tokens=400))


def mesh(model: str) -> MeshRequest:
    return MeshRequest(model=model, prompt="A small table.")


def body(model: str, *, stream: bool) -> bytes:
    asked = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 400}
    return json.dumps(asked | {"stream": stream}).encode()


async def events_come_in_order(subject: Subject) -> None:
    for streamed in (True, False):
        async with aclosing(subject.backend.run(subject.asks(subject.model), call(streamed=streamed))) as events:
            _in_order([event async for event in events])


def _in_order(got: list[Event]) -> None:
    kinds = [type(event) for event in got]
    assert kinds[0] is Started
    assert kinds.count(Started) == 1
    assert kinds.count(Metered) <= 1
    last = [n for n, kind in enumerate(kinds) if kind not in (Started, Finished, Metered)][-1]
    finished = [event for event in got if isinstance(event, Finished)]
    assert len(finished) == len({event.choice for event in finished}) == 1
    assert kinds.index(Finished) > last
    if Metered in kinds:
        assert kinds.index(Metered) == len(kinds) - 1


async def an_answer_is_whole_and_tells_its_model(subject: Subject) -> None:
    for streamed in (True, False):
        result = await fold(subject.backend.run(subject.asks(subject.model), call(110.0, streamed=streamed)))
        [choice] = result.choices
        said = any(part.text for part in choice.parts if isinstance(part, Text))
        assert said or any(made.media.data for made in result.produced)
        assert result.started.model
        assert result.started.id


async def answers_can_be_asked_for_side_by_side(subject: Subject) -> None:
    results = await asyncio.gather(
        *(fold(subject.backend.run(subject.asks(subject.model), call(110.0))) for _ in range(4))
    )
    assert all(result.choices[0].parts or result.produced for result in results)


async def closing_the_events_stops_the_work(subject: Subject) -> None:
    if subject.endless is None:
        return
    events = subject.backend.run(subject.asks(subject.endless), call())
    async for event in events:
        if not isinstance(event, Started):
            break
    began = time.monotonic()
    await events.aclose()
    await _stopped(subject, began)


async def cancelling_whoever_waits_stops_the_work(subject: Subject) -> None:
    if subject.endless is None:
        return
    heard = asyncio.Event()

    async def listen() -> None:
        async with aclosing(subject.backend.run(subject.asks(subject.endless or ""), call())) as events:
            async for _ in events:
                heard.set()

    listening = asyncio.create_task(listen())
    await asyncio.wait_for(heard.wait(), 30)
    began = time.monotonic()
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    await _stopped(subject, began)


async def cancelling_whoever_waits_for_a_whole_answer_stops_the_work(subject: Subject) -> None:
    if subject.endless is None or subject.idle is None:
        return
    waiting = asyncio.create_task(fold(subject.backend.run(subject.asks(subject.endless), call(streamed=False))))
    async with asyncio.timeout(30):
        while subject.idle():
            await asyncio.sleep(0.01)
    began = time.monotonic()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await _stopped(subject, began)


async def closing_events_never_begun_does_no_harm(subject: Subject) -> None:
    await subject.backend.run(subject.asks(subject.model), call()).aclose()
    await events_come_in_order(subject)


async def trouble_is_a_gateway_error_that_tells_no_secret(subject: Subject) -> None:
    for model in subject.failing:
        for streamed in (True, False):
            with pytest.raises(GatewayError) as trouble:
                await fold(subject.backend.run(subject.asks(model), call(streamed=streamed)))
            for secret in subject.secrets:
                assert secret not in trouble.value.message, model
            assert trouble.value.message
        if isinstance(subject.backend, Relays):
            for stream in (True, False):
                with pytest.raises(GatewayError) as trouble:
                    await _relayed(subject.backend, model, stream=stream)
                assert not [secret for secret in subject.secrets if secret in trouble.value.message]


async def its_models_bear_its_name(subject: Subject) -> None:
    models = await subject.backend.models()
    assert models
    assert {model.backend for model in models} == {subject.backend.name}
    assert len({model.name for model in models}) == len(models)


async def a_relayed_stream_is_whole_events_to_its_end(subject: Subject) -> None:
    if not isinstance(subject.backend, Relays):
        return
    relayed = await subject.backend.relay(peek(body(subject.model, stream=True)), subject.model, call())
    assert relayed.body is None
    assert relayed.frames is not None
    pieces = [piece async for piece in relayed.frames]
    assert all(piece.endswith(b"\n\n") for piece in pieces)
    events = split(b"".join(pieces))
    assert events[-1] == b"data: [DONE]"
    assert events.count(b"data: [DONE]") == 1
    assert relayed.tally.began
    assert relayed.tally.finished


async def a_relayed_answer_is_one_body(subject: Subject) -> None:
    if not isinstance(subject.backend, Relays):
        return
    relayed = await subject.backend.relay(peek(body(subject.model, stream=False)), subject.model, call())
    assert relayed.frames is None
    assert relayed.body is not None
    assert json.loads(relayed.body)["choices"][0]["finish_reason"]
    assert relayed.tally.finished


async def closing_relayed_frames_stops_the_work(subject: Subject) -> None:
    if subject.endless is None or not isinstance(subject.backend, Relays):
        return
    for begun in (True, False):
        relayed = await subject.backend.relay(peek(body(subject.endless, stream=True)), subject.endless, call())
        assert relayed.frames is not None
        if begun:
            await anext(relayed.frames)
        began = time.monotonic()
        await relayed.frames.aclose()
        await _stopped(subject, began)


async def it_may_be_closed_twice(subject: Subject) -> None:
    await subject.backend.aclose()
    await subject.backend.aclose()


Check = Callable[[Subject], Awaitable[None]]

CHECKS: list[Check] = [
    events_come_in_order,
    an_answer_is_whole_and_tells_its_model,
    answers_can_be_asked_for_side_by_side,
    closing_the_events_stops_the_work,
    cancelling_whoever_waits_stops_the_work,
    cancelling_whoever_waits_for_a_whole_answer_stops_the_work,
    closing_events_never_begun_does_no_harm,
    trouble_is_a_gateway_error_that_tells_no_secret,
    its_models_bear_its_name,
    a_relayed_stream_is_whole_events_to_its_end,
    a_relayed_answer_is_one_body,
    closing_relayed_frames_stops_the_work,
    it_may_be_closed_twice,
]


async def _relayed(backend: Relays, model: str, *, stream: bool) -> None:
    relayed = await backend.relay(peek(body(model, stream=stream)), model, call())
    if relayed.frames is not None:
        async with aclosing(relayed.frames) as frames:
            async for _ in frames:
                pass


async def _stopped(subject: Subject, began: float) -> None:
    while subject.idle is not None and not subject.idle():
        assert time.monotonic() - began < CLOSED_WITHIN_S, "the work goes on"
        await asyncio.sleep(0.01)
    assert time.monotonic() - began < CLOSED_WITHIN_S
