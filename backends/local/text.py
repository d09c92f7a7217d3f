"""Text from a local model: a request on its way to a worker and the answer on its way back.

Invariant: a request's slot is held from its grant until its frames are closed, and never longer.
Workers are always asked to stream, since engines notice late that the client of an unstreamed answer has
gone; for that client the stream is folded here.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from msgspec.structs import replace
from yarl import URL

from backends.base import Call, Held, Local, Relayed
from backends.local.engine import Engine
from backends.local.pool import Pool
from backends.local.seat import explained, explaining, headers
from backends.relay import Wire
from compat.anthropic.messages import parse_request
from compat.anthropic.tap import CountTap
from compat.canonical.error import BadResponse, InvalidRequest, Unreachable
from compat.canonical.event import Event
from compat.canonical.plain import plain
from compat.canonical.request import Dialect, Envelope, TextRequest
from compat.openai.answer import parse_events
from compat.openai.chat import envelope_of, render_request
from compat.openai.envelope import upstream_body
from compat.openai.fitting import fitted
from compat.openai.fold import fold_chat, fold_completions
from compat.openai.llama import LlamaTap, departs
from compat.taps import tap

_PATHS: dict[Dialect, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_COUNT_PATH = "/v1/chat/completions/input_tokens"
_TELL_MORE = {"return_progress": True, "verbose": True, "response_fields": ["stopping_word"]}
"""llama.cpp's fields that have it tell a prompt's length before it is read, and which stop sequence was met."""
_FOLDS = {"chat": fold_chat, "completions": fold_completions}


class Texts:
    """What a local backend does with text.  Callers have checked that the model makes some."""

    def __init__(self, pool: Pool, wire: Wire, engine: Engine) -> None:
        self._pool = pool
        self._wire = wire
        self._engine = engine

    async def relay(self, envelope: Envelope, local: Local, call: Call) -> Relayed:
        envelope, lost = fitted(envelope, local.model.capabilities)
        call.drop(*lost)
        body = upstream_body(envelope, local.name, streams=True, defaults=local.defaults)
        watch = LlamaTap(envelope) if departs(envelope) else tap(envelope)
        async with AsyncExitStack() as stack:
            lease = await stack.enter_async_context(self._pool.lease(local.name, call))
            url = URL(lease.url + _PATHS[envelope.dialect])
            try:
                relayed = await self._wire.send(url, headers(lease.key), body, watch, call, stream=True)
                assert relayed.frames is not None
                if not envelope.stream:
                    async with aclosing(relayed.frames) as frames:
                        whole = await _FOLDS[envelope.dialect](frames)
                    return Relayed(headers=relayed.headers, tally=relayed.tally, body=whole)
            except (Unreachable, BadResponse) as e:
                raise await explained(e, lease) from e
            # Closed before its first step, the generator around the frames would never reach them.
            stack.push_async_callback(relayed.frames.aclose)
            return Relayed(
                headers=relayed.headers,
                tally=relayed.tally,
                frames=Held(explaining(relayed.frames, lease), stack.pop_all().aclose),
            )

    async def run(self, request: TextRequest, local: Local, call: Call) -> AsyncGenerator[Event, None]:
        request, lost = plain(request, "chat")
        call.drop(*lost)
        if self._engine.tells_more:
            request = replace(request, extra=_TELL_MORE | request.extra)
        relayed = await self.relay(envelope_of(request, stream=True), local, call)
        assert relayed.frames is not None
        parsed = parse_events(relayed.frames, request.sampling.stop)
        async with aclosing(relayed.frames), aclosing(parsed) as events:
            async for event in events:
                yield event

    async def count_tokens(self, envelope: Envelope, model: str, call: Call) -> int:
        if not self._engine.counts_prompts:
            raise InvalidRequest(f"Engine {self._engine.name} cannot count tokens.", param="model")
        # Counted is what would be sent, its template applied: not the words of a dialect the model never sees.
        request, lost = plain(replace(parse_request(envelope), model=model), "chat")
        call.drop(*lost)
        watch = CountTap(envelope)
        body = render_request(request, stream=False)
        async with self._pool.lease(model, call) as lease:
            try:
                await self._wire.send(URL(lease.url + _COUNT_PATH), headers(lease.key), body, watch, call, stream=False)
            except (Unreachable, BadResponse) as e:
                raise await explained(e, lease) from e
        assert watch.usage is not None
        assert watch.usage.input_tokens is not None
        return watch.usage.input_tokens
