"""What the tests of routing play with: backends that do as they are told, and requests to send them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from backends.base import Backend, Call, Price, Relayed, Timeouts
from compat.anthropic.answer import render_events as messages_frames
from compat.anthropic.answer import render_result as messages_body
from compat.anthropic.envelope import peek as peek_messages
from compat.anthropic.messages import parse_request as parse_messages
from compat.anthropic.reading import parse_events as messages_events
from compat.canonical.error import BadResponse, GatewayError, TimedOut, Unreachable
from compat.canonical.event import Event, Finished, Metered, Started, TextDelta, Usage, fold
from compat.canonical.model import Modality, Model
from compat.canonical.principal import Principal
from compat.canonical.request import Dialect, Envelope, Request, TextRequest
from compat.openai.answer import parse_events as chat_events
from compat.openai.answer import render_events as chat_frames
from compat.openai.answer import render_result as chat_body
from compat.openai.chat import parse_request as parse_chat
from compat.openai.chat import peek as peek_chat
from compat.taps import AnyTap, tap
from gateway.routing.attempt import Answer, Asked
from gateway.routing.breaker import Rule
from gateway.routing.dispatch import Dispatcher
from gateway.routing.gate import Gate
from gateway.routing.health import Health, HealthBook
from gateway.routing.router import Plan, Route
from gateway.settings import Guard, SelectionMode, Strategy
from gateway.telemetry.metrics import Metrics
from gateway.visit import Visit

Step = Event | GatewayError | float
"""What a backend does next: say something, fail, or pause so many seconds."""
Play = Sequence[Step]
Script = Callable[[TextRequest], Play]
"""A play that depends on what was asked."""
START = Started(id="x", model="m", created=1)
END = (Finished(reason="stop"), Metered(usage=Usage(input_tokens=1, output_tokens=1)))
FOREVER = 1e6
DEFAULT = Timeouts()


def said(*pieces: str) -> Play:
    return [START, *(TextDelta(text=piece) for piece in pieces), *END]


def cut(*pieces: str) -> Play:
    return [START, *(TextDelta(text=piece) for piece in pieces), Unreachable("The connection was lost.")]


class Player:
    """Plays what it is given, one play a request and the last one for ever; notes what it was asked."""

    price: Price | None = None

    def __init__(self, name: str, *plays: Play | Script, prefills: bool | None = False) -> None:
        self.name = name
        self.prefills = prefills
        self.plays = list(plays)
        self.requests: list[TextRequest] = []
        self.running = 0
        self.most = 0
        """Requests under way at once, at the most."""

    async def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        assert isinstance(request, TextRequest)
        self.requests.append(request)
        play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for step in play(request) if callable(play) else play:
                if isinstance(step, GatewayError):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield step
        finally:
            self.running -= 1

    async def models(self) -> Sequence[Model]:
        return []

    async def aclose(self) -> None:
        return


class Relayer(Player):
    """Plays in the client's own dialect as well."""

    dialects: frozenset[Dialect] = frozenset({"chat", "messages"})

    async def relay(self, envelope: Envelope, model: str, call: Call) -> Relayed:
        watch = tap(envelope)
        events = self.run(msgspec.structs.replace(parse(envelope), model=model), call)
        if envelope.stream:
            return Relayed(headers=(), tally=watch, frames=self._frames(write(envelope)(events), watch, call))
        try:
            async with asyncio.timeout_at(call.deadline):
                result = await fold(events)
        except TimeoutError as e:
            raise TimedOut("It did not answer in time.") from e
        body = chat_body(result) if envelope.dialect == "chat" else messages_body(result, thinking=False)
        return Relayed(headers=(), tally=watch, body=watch.whole(body))

    async def _frames(
        self, frames: AsyncGenerator[bytes, None], watch: AnyTap, call: Call
    ) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        first_due = loop.time() + call.timeouts.first_token_s
        async with aclosing(frames):
            while True:
                due = loop.time() + call.timeouts.idle_s if watch.began else first_due
                try:
                    async with asyncio.timeout_at(min(due, call.deadline)):
                        frame = await anext(frames, None)
                except TimeoutError as e:
                    raise TimedOut("It did not answer in time.") from e
                if frame is None:
                    break
                yield watch.feed(frame)
        if not watch.finished:
            raise BadResponse("It ended before it was complete.")


def parse(envelope: Envelope) -> TextRequest:
    request = parse_chat(envelope) if envelope.dialect == "chat" else parse_messages(envelope)
    assert isinstance(request, TextRequest)
    return request


def write(envelope: Envelope) -> Callable[[AsyncGenerator[Event, None]], AsyncGenerator[bytes, None]]:
    if envelope.dialect == "chat":
        return lambda events: chat_frames(events, include_usage=envelope.wants_usage)
    return lambda events: messages_frames(events, thinking=False)


def chat(stream: bool = True, /, **fields: Any) -> Envelope:
    fields = {"model": "any", "messages": [{"role": "user", "content": "Go."}], "stream": stream} | fields
    return peek_chat(msgspec.json.encode(fields))


def messages(stream: bool = True, /, **fields: Any) -> Envelope:
    fields = {"model": "any", "messages": [{"role": "user", "content": "Go."}], "stream": stream} | fields
    return peek_messages(msgspec.json.encode({"max_tokens": 1000} | fields))


def route(
    backend: Backend,
    model: str = "m",
    *,
    weight: float = 1.0,
    price: Price | None = None,
    modality: Modality | None = None,
    capabilities: tuple[str, ...] = (),
    context_length: int | None = None,
) -> Route:
    return Route(backend, model, weight, price, modality, capabilities, context_length)


def visit() -> Visit:
    return Visit(request_id="r", method="POST", path="/", began=0.0)


def call(within_s: float = 60.0, caller: str = "me", timeouts: Timeouts = DEFAULT) -> Call:
    deadline = asyncio.get_running_loop().time() + within_s
    return Call(request_id="r", principal=Principal(id=caller), deadline=deadline, timeouts=timeouts)


Places = Mapping[str, tuple[int, int]]
"""Of each backend that has a gate: how many fit in, and how many may wait."""
USUAL = Timeouts(first_token_s=20, idle_s=5)


class Stage:
    """A dispatcher, and what was seen of it."""

    def __init__(self, *backends: Backend, rule: Rule | None = None, places: Places | None = None) -> None:
        self.dispatcher = Dispatcher(Metrics(), HealthBook(rule))
        self.dispatcher.gates = {name: Gate(name, *size) for name, size in (places or {}).items()}
        self.routes = [route(backend) for backend in backends]
        self.backends = [backend for backend in backends if isinstance(backend, Player)]

    def health(self, position: int = 0) -> Health:
        return self.dispatcher.book.of(self.routes[position].name)

    def asked(
        self,
        envelope: Envelope,
        *,
        guard: Guard = "off",
        retries: int = 0,
        within_s: float = 60.0,
        timeouts: Timeouts = USUAL,
        hurried: bool = False,
        caller: str = "me",
        mode: SelectionMode = "auto",
        strategy: Strategy = "order",
    ) -> Asked:
        plan = Plan(
            requested="any",
            routes=self.routes,
            reason="",
            retries=retries,
            timeouts=timeouts,
            strategy=strategy,
            guard=guard,
        )
        return Asked(
            plan=plan,
            envelope=envelope,
            call=call(within_s, caller, timeouts),
            visit=visit(),
            parse=parse,
            render=write(envelope),
            mode=mode,
            hurried=hurried,
        )

    async def ask(self, asked: Asked, pause_s: float | None = None) -> str:
        """The text that a client gets, who pauses after each piece.  Raises GatewayError, and Cut after a beginning."""
        answer = await self.dispatcher.answer(asked)
        return await text_of(answer, asked.envelope, pause_s)

    def assert_at_rest(self) -> None:
        """Nothing is under way, nowhere."""
        for backend in self.backends:
            assert backend.running == 0, backend.name
        for number in range(len(self.routes)):
            assert self.health(number).busy == 0
            assert self.health(number).breaker.state != "half_open"
        for gate in self.dispatcher.gates.values():
            assert (gate._inside, gate.waiting) == (0, 0)


class Cut(Exception):
    """A stream broke off after this."""


async def text_of(answer: Answer, envelope: Envelope, pause_s: float | None = None) -> str:
    if answer.body is not None:
        return answer.body.decode()
    pieces: list[str] = []
    try:
        async with aclosing(_events(answer, envelope)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    pieces.append(event.text)
                if pause_s is not None:
                    await asyncio.sleep(pause_s)
    except GatewayError as e:
        if envelope.stream:
            raise Cut("".join(pieces)) from e
        raise
    return "".join(pieces)


def _events(answer: Answer, envelope: Envelope) -> AsyncGenerator[Event, None]:
    if answer.events is not None:
        return answer.events
    assert answer.frames is not None
    if envelope.dialect == "chat":
        return chat_events(answer.frames)
    return messages_events(answer.frames, created=1)
