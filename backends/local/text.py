"""Text from a local model: a request on its way to a worker and the answer on its way back.

Invariant: a request's slot is held from its grant until its frames are closed, and never longer.
Workers are always asked to stream, since engines notice late that the client of an unstreamed answer has
gone; for that client the stream is folded here.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from math import inf

from msgspec.structs import replace

from backends.base import Call, Held, Relayed
from backends.local.engine import Engine, Name
from backends.local.exchange import answer_of, stream_of
from backends.local.pool import Pool
from backends.local.settings import Settings
from backends.ports import Local
from backends.relay import Wire
from compat.anthropic.messages import parse_request
from compat.anthropic.tap import CountTap
from compat.canonical.emulated import Spelling, emulated, forces, recalls
from compat.canonical.error import InvalidRequest, RequestError
from compat.canonical.event import Event
from compat.canonical.plain import plain
from compat.canonical.request import Dialect, Envelope, TextRequest
from compat.canonical.spelled import spelled
from compat.openai import llamafield, llamapy
from compat.openai.answer import parse_events
from compat.openai.chat import envelope_of, render_request
from compat.openai.envelope import upstream_body
from compat.openai.fitting import chooses, fitted, mentions_tools
from compat.openai.fold import fold_chat, fold_completions
from compat.openai.llama import LlamaTap, ProgressTap, departs

_PATHS: dict[Dialect, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_COUNT_PATH = "/v1/chat/completions/input_tokens"
_TELL_MORE = {"return_progress": True, "verbose": True, "response_fields": ["stopping_word"]}
"""llama.cpp's fields that have it tell a prompt's length before it is read, and which stop sequence was met."""
_TELL_PROGRESS = {"return_progress": True}
"""The same for how much of a prompt has been read."""
_FOLDS = {"chat": fold_chat, "completions": fold_completions}
_FITTINGS: dict[Name, Callable[[Envelope], tuple[Envelope, tuple[str, ...]]]] = {"llama_cpp_python": llamapy.fitted}
"""For engines that need more than others."""


class Texts:
    """What a local backend does with text.  Callers have checked that the model makes some."""

    def __init__(self, pool: Pool, wire: Wire, engine: Engine, settings: Settings) -> None:
        self._pool = pool
        self._wire = wire
        self._engine = engine
        self._settings = settings

    def translates(self, envelope: Envelope, local: Local) -> bool:
        """Whether a chat request needs its tools looked after: its engine would not heed them, or not in every way."""
        if envelope.dialect != "chat":
            return False
        return chooses(envelope) if self._knows_tools(local) else mentions_tools(envelope)

    async def relay(self, envelope: Envelope, local: Local, call: Call) -> Relayed:
        own = self._settings.of(local.name)
        envelope, lost = fitted(envelope, self._abilities(local))
        llamafield.check(envelope, context=self._settings.context(local), adapters=len(own.adapters))
        if fit := _FITTINGS.get(self._engine.name):
            envelope, more = fit(envelope)
            lost += more
        call.drop(*lost)
        defaults = local.defaults | own.defaults
        if "max_completion_tokens" in envelope.fields:
            defaults.pop("max_tokens", None)
        if self._engine.tells_more:
            defaults = _TELL_PROGRESS | defaults
        body = upstream_body(envelope, local.name, streams=True, defaults=defaults)
        watch = LlamaTap(envelope) if departs(envelope) else ProgressTap(envelope)
        # A worker that tells how far it has read is waited for as long as it reads; of others only a stream is hurried.
        timed = call if self._engine.tells_more or (envelope.stream and call.streamed) else _unhurried(call)
        async with AsyncExitStack() as stack:
            lease = await stack.enter_async_context(self._pool.lease(local.name, call))
            path = _PATHS[envelope.dialect]
            try:
                relayed, frames = await stream_of(self._wire, lease, path, body, watch, timed, tells_progress=True)
            except RequestError as e:
                if "response_format" not in envelope.fields:
                    _blame_tools(e)
                raise
            stack.push_async_callback(frames.aclose)
            if not envelope.stream:
                async with aclosing(frames):
                    whole = await _FOLDS[envelope.dialect](frames)
                return Relayed(headers=relayed.headers, tally=relayed.tally, body=whole)
            return Relayed(headers=relayed.headers, tally=relayed.tally, frames=Held(frames, stack.pop_all().aclose))

    async def run(self, request: TextRequest, local: Local, call: Call) -> AsyncGenerator[Event, None]:
        request, spelling, lost = self._plainly(request, local)
        call.drop(*lost)
        if self._engine.tells_more:
            request = replace(request, extra=_TELL_MORE | request.extra)
        try:
            relayed = await self.relay(envelope_of(request, stream=True), local, call)
            assert relayed.frames is not None
            events = parse_events(relayed.frames, request.sampling.stop)
            if spelling is not None:
                events = spelled(events, spelling)
            async with aclosing(relayed.frames), aclosing(events):
                async for event in events:
                    yield event
        except RequestError as e:
            if spelling is not None:
                _blame_tools(e)
            raise

    async def count_tokens(self, envelope: Envelope, local: Local, call: Call) -> int:
        if not self._engine.counts_prompts:
            raise InvalidRequest(f"Engine {self._engine.name} cannot count tokens.", param="model")
        # Counted is what would be sent, its template applied: not the words of a dialect the model never sees.
        request, _, lost = self._plainly(replace(parse_request(envelope), model=local.name), local)
        call.drop(*lost)
        watch = CountTap(envelope)
        body = render_request(request, stream=False)
        async with self._pool.lease(local.name, call) as lease:
            await answer_of(self._wire, lease, _COUNT_PATH, body, watch, call)
        assert watch.usage is not None
        assert watch.usage.input_tokens is not None
        return watch.usage.input_tokens

    def _plainly(self, request: TextRequest, local: Local) -> tuple[TextRequest, Spelling | None, tuple[str, ...]]:
        """The request as the model's template can say it, how its answer spells calls, and what that leaves out."""
        request, lost = plain(request, "chat")
        knows = self._knows_tools(local)
        if not (forces(request) if knows else request.tools or recalls(request)):
            return request, None, lost
        request, spelling, more = emulated(request, keeps_calls=knows)
        return request, spelling, lost + more

    def _knows_tools(self, local: Local) -> bool:
        return local.traits.tools and self._engine.reads_calls

    def _abilities(self, local: Local) -> set[str]:
        abilities = {"vision"} & set(local.model.capabilities)
        return abilities | {"tools"} if self._knows_tools(local) else abilities


def _unhurried(call: Call) -> Call:
    """The call for a client that gets its answer whole: only the deadline says how long it waits."""
    return replace(call, timeouts=replace(call.timeouts, first_token_s=inf, idle_s=inf))


def _blame_tools(error: RequestError) -> None:
    """A schema that an engine refuses is a tool's, where the client gave no other."""
    if error.param == "response_format":
        error.param, error.message = "tools", error.message.replace("response_format", "tools")
