"""Models on this machine: child processes that serve them, shared out among requests.

A child is a model server on loopback that speaks OpenAI's dialect, so a request takes the relay like
any provider's.  Invariant: a request's slot is held from its grant until its frames are closed, and
never longer.  Children are always asked to stream, since engines notice late that the client of an
unstreamed answer has gone; for that client the stream is folded here.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace
from yarl import URL

from backends.base import Call, Held, Local, Ports, Price, Relayed, unfit
from backends.local import gguf
from backends.local.engine import Engine, Setting, choose
from backends.local.pool import Pool
from backends.local.scheduler import fit
from backends.local.seat import Lease
from backends.local.worker import Failed, Spec, Worker
from backends.relay import Wire
from compat.anthropic.messages import parse_request
from compat.anthropic.tap import CountTap
from compat.canonical.error import BadResponse, GatewayError, InvalidRequest, ModelNotFound, Unreachable, WorkerCrashed
from compat.canonical.event import Event
from compat.canonical.model import Model
from compat.canonical.plain import plain
from compat.canonical.request import Dialect, Envelope, Request, TextRequest
from compat.openai.answer import parse_events
from compat.openai.chat import envelope_of, render_request
from compat.openai.envelope import upstream_body
from compat.openai.fitting import fitted
from compat.openai.fold import fold_chat, fold_completions
from compat.openai.llama import LlamaTap, departs
from compat.taps import tap

PROBE_TIMEOUT_S = 2.0

_PATHS: dict[Dialect, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}
_COUNT_PATH = "/v1/chat/completions/input_tokens"
_TELL_MORE = {"return_progress": True, "verbose": True, "response_fields": ["stopping_word"]}
"""llama.cpp's fields that have it tell a prompt's length before it is read, and which stop sequence was met."""
_FOLDS = {"chat": fold_chat, "completions": fold_completions}
_Count = Annotated[int, Meta(ge=1)]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    engine: Setting = "auto"
    """What runs the models; `auto` takes xllamacpp, else llama_server, else llama_cpp_python."""
    llama_server: str | None = None
    """The native llama-server program, a path or a name on PATH; None looks for `llama-server` there."""
    model_dirs: tuple[str, ...] = ()
    """Folders with GGUF files.  Read by the house, which fills the catalogue."""
    max_loaded: _Count = 3
    """Models in memory at a time."""
    memory_max: str | int = "80%"
    """Decoded only: nothing is admitted or refused by memory yet."""
    slots: _Count = 4
    """Requests a model serves at once, where the engine can; the others queue."""
    idle_unload_s: Annotated[float, Meta(gt=0)] = 600.0
    pin: tuple[str, ...] = ()
    """Decoded only: no model is exempt from being unloaded yet."""
    queue_max: _Count = 64
    """Requests that may wait for one model."""
    threads: _Count | None = None
    """For each model; None takes all cores but one: with none to spare, llama.cpp's threads wait for each other."""
    n_batch: _Count = 128
    """Prompt tokens read between two looks at whether the client is still there."""
    context_max: Annotated[int, Meta(ge=256)] = 8192
    """Tokens of context for each slot, unless the model has fewer."""


class LocalBackend:
    keeps_deadlines = True
    dialects: frozenset[Dialect] = frozenset(_PATHS)
    price: Price | None = "local"

    def __init__(self, name: str, settings: Settings, ports: Ports, engine: Engine) -> None:
        self.name = name
        # llama.cpp's own server goes on with an assistant's message; the Python one begins a new turn.
        self.prefills = engine.parallel
        self._settings = settings
        self._catalogue = ports.catalogue
        self._engine = engine
        self._wire = Wire(name)
        self.pool = Pool(
            ports.catalogue,
            self._build,
            max_loaded=settings.max_loaded,
            queue_max=settings.queue_max,
            idle_unload_s=settings.idle_unload_s,
        )

    async def relay(self, envelope: Envelope, model: str, call: Call) -> Relayed:
        self._check(envelope.dialect, model)
        local = self._catalogue().get(model)
        if local is None:
            raise ModelNotFound(f"The model '{model[:200]}' is not on this machine.")
        envelope, lost = fitted(envelope, local.model.capabilities)
        call.drop(*lost)
        streams = envelope.dialect in _FOLDS
        body = upstream_body(envelope, model, streams=streams, defaults=local.defaults if streams else None)
        async with AsyncExitStack() as stack:
            lease = await stack.enter_async_context(self.pool.lease(model, call))
            try:
                relayed = await self._wire.send(
                    URL(lease.url + _PATHS[envelope.dialect]),
                    _headers(lease.key),
                    body,
                    LlamaTap(envelope) if streams and departs(envelope) else tap(envelope),
                    call,
                    stream=streams,
                )
                if relayed.frames is None:
                    return relayed
                if not envelope.stream:
                    async with aclosing(relayed.frames) as frames:
                        whole = await _FOLDS[envelope.dialect](frames)
                    return Relayed(headers=relayed.headers, tally=relayed.tally, body=whole)
            except (Unreachable, BadResponse) as e:
                raise await _explained(e, lease) from e
            # Closed before its first step, the generator around the frames would never reach them.
            stack.push_async_callback(relayed.frames.aclose)
            return Relayed(
                headers=relayed.headers,
                tally=relayed.tally,
                frames=Held(_explaining(relayed.frames, lease), stack.pop_all().aclose),
            )

    async def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        if not isinstance(request, TextRequest):
            raise unfit(self.name, request)
        request, lost = plain(request, "chat")
        call.drop(*lost)
        if self._engine.tells_more:
            request = replace(request, extra=_TELL_MORE | request.extra)
        relayed = await self.relay(envelope_of(request, stream=True), request.model, call)
        assert relayed.frames is not None
        parsed = parse_events(relayed.frames, request.sampling.stop)
        async with aclosing(relayed.frames), aclosing(parsed) as events:
            async for event in events:
                yield event

    async def count_tokens(self, envelope: Envelope, model: str, call: Call) -> int:
        self._check("chat", model)
        if not self._engine.counts_prompts:
            raise InvalidRequest(f"Engine {self._engine.name} cannot count tokens.", param="model")
        # Counted is what would be sent, its template applied: not the words of a dialect the model never sees.
        request, lost = plain(replace(parse_request(envelope), model=model), "chat")
        call.drop(*lost)
        watch = CountTap(envelope)
        body = render_request(request, stream=False)
        async with self.pool.lease(model, call) as lease:
            try:
                await self._wire.send(
                    URL(lease.url + _COUNT_PATH), _headers(lease.key), body, watch, call, stream=False
                )
            except (Unreachable, BadResponse) as e:
                raise await _explained(e, lease) from e
        assert watch.usage is not None
        assert watch.usage.input_tokens is not None
        return watch.usage.input_tokens

    async def models(self) -> Sequence[Model]:
        return [self._as_it_stands(local) for local in self._catalogue().values()]

    def standings(self) -> dict[str, int]:
        """How many models stand how."""
        return Counter(self.pool.status(model) for model in self._catalogue())

    async def ready(self) -> str | None:
        return None if self._catalogue() else "there are no local models"

    async def aclose(self) -> None:
        await self.pool.aclose()
        await self._wire.aclose()

    def _check(self, dialect: Dialect, model: str) -> None:
        local = self._catalogue().get(model)
        if local is not None and (local.model.modality == "embedding") != (dialect == "embeddings"):
            makes = "makes embeddings only" if local.model.modality == "embedding" else "does not make embeddings"
            raise InvalidRequest(f"Model '{model}' {makes}.", param="model")

    def _as_it_stands(self, local: Local) -> Model:
        limit = self._settings.context_max
        context = min(local.model.context_length or limit, limit)
        return replace(local.model, status=self.pool.status(local.name), context_length=context)

    async def _build(self, local: Local) -> Worker:
        try:
            header = await asyncio.to_thread(gguf.read, local.path)
        except (OSError, ValueError) as e:
            raise Failed(f"The file of model '{local.name}' cannot be read.", (str(e),)) from e
        if header.truncated:
            raise Failed(f"The file of model '{local.name}' is incomplete.")
        settings = self._settings
        context, slots = fit(
            context_length=header.context_length,
            kv_bytes_per_token=header.kv_bytes_per_token,
            context_max=settings.context_max,
            slots=settings.slots if self._engine.parallel else 1,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        )
        spec = Spec(
            engine=self._engine.name,
            path=local.path,
            alias=local.name,
            context=context,
            slots=slots,
            threads=settings.threads or max(1, (os.cpu_count() or 1) - 1),
            # A text to embed is read in one piece or refused.
            n_batch=context if header.embeds else min(settings.n_batch, context),
            embedding=header.embeds,
            binary=self._engine.binary,
        )
        return Worker(spec, self._engine, self._healthy)

    async def _healthy(self, url: str, key: str) -> bool:
        try:
            await self._wire.get(URL(url), _headers(key), PROBE_TIMEOUT_S)
        except GatewayError:
            return False
        return True


def connect(name: str, settings: Settings, ports: Ports) -> LocalBackend:
    """Raises ValueError that names the field and the cure.  Starts nothing."""
    return LocalBackend(name, settings, ports, choose(settings.engine, settings.llama_server))


def _headers(key: str) -> dict[str, str]:
    # Engines drop idle connections after seconds; one that is being dropped must not be reused.
    return {"authorization": f"Bearer {key}", "content-type": "application/json", "connection": "close"}


async def _explained(error: GatewayError, lease: Lease) -> GatewayError:
    """The error as it is, or what is behind it: that the worker has died."""
    death = await lease.death()
    return WorkerCrashed(death.reason) if death else error


async def _explaining(frames: AsyncGenerator[bytes, None], lease: Lease) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(frames):
            async for events in frames:
                yield events
    except (Unreachable, BadResponse) as e:
        raise await _explained(e, lease) from e
