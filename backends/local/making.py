"""Pictures and meshes from a local model: a request on its way to a studio and its news on their way back.

Invariant: a request's slot is held from its grant until the studio has done its work or the events are closed,
however slowly they are read.  The studio notices a closed connection at its engine's next step; the worker of an
engine that cannot stop is ended.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from backends.base import Call
from backends.local.backlog import ahead
from backends.local.exchange import stream_of
from backends.local.order import order, size_bytes, written
from backends.local.pool import Pool
from backends.local.pool.seat import Lease
from backends.local.studio import FAILED, OUT_OF_MEMORY
from backends.ports import Local
from backends.relay import LARGE_BYTES, Wire
from compat.canonical.error import BadResponse, EngineFailed, GatewayError, InvalidRequest
from compat.canonical.event import Event, Finished, Produced, Progress, Started, Usage
from compat.canonical.message import Media
from compat.canonical.request import ImageRequest, MeshRequest
from compat.openai.error import Verdict
from compat.sse import DONE, data_of, split

LARGE_PICTURES_BYTES = 256 * 1024
"""From here on a request's pictures are encoded in a thread, not to hold up the loop."""
LOG_NOTICE_S = 0.1
"""How long after its word of a failure an engine's last lines may come, by another pipe."""
_PATH = "/v1/make"
_TRACE = "Traceback (most recent call last):"

_log = logging.getLogger(__name__)


class Makings:
    """What a local backend does with pictures and meshes.  Callers have checked that the model makes them."""

    def __init__(self, pool: Pool, wire: Wire) -> None:
        self._pool = pool
        self._wire = wire

    async def run(self, request: ImageRequest | MeshRequest, local: Local, call: Call) -> AsyncGenerator[Event, None]:
        large = size_bytes(request) > LARGE_PICTURES_BYTES
        body, lost = await asyncio.to_thread(order, request, local) if large else order(request, local)
        call.drop(*lost)
        # A step takes what it takes: the pool sees to workers that hang, and the deadline to all.
        unhurried = replace(call.timeouts, first_token_s=call.timeouts.total_s, idle_s=call.timeouts.total_s)
        call = replace(call, timeouts=unhurried)
        async with aclosing(ahead(self._leased(request, body, local, call))) as events:
            async for event in events:
                yield event

    async def _leased(
        self, request: ImageRequest | MeshRequest, body: dict[str, Any], local: Local, call: Call
    ) -> AsyncGenerator[Event, None]:
        """The events of a job, from the grant of its slot on."""
        async with self._pool.lease(local.name, call) as lease:
            watch = _Watch()
            try:
                async with (
                    aclosing(
                        self._news(await _written(body, size_bytes(request) > LARGE_PICTURES_BYTES), watch, lease, call)
                    ) as news,
                    aclosing(_told(news, request, local, lease, call)) as events,
                ):
                    async for event in events:
                        yield event
            finally:
                if not watch.done and not lease.engine.stoppable:
                    lease.dismiss()

    async def _news(self, body: bytes, watch: "_Watch", lease: Lease, call: Call) -> AsyncGenerator["_News", None]:
        _, answer = await stream_of(self._wire, lease, _PATH, body, watch, call)
        async with aclosing(answer) as frames:
            async for events in frames:
                for event in split(events):
                    yield await _read(data_of(event))


async def _told(
    news: AsyncGenerator["_News", None], request: ImageRequest | MeshRequest, local: Local, lease: Lease, call: Call
) -> AsyncGenerator[Event, None]:
    """What a studio says, in events.  Raises GatewayError; before the first event if it never began."""
    started, due = False, request.count if isinstance(request, ImageRequest) else 1
    error: _Error | None = None
    async for one in news:
        if one.error is not None:
            error = one.error  # the end follows, by which it is known that the engine is at rest
            continue
        if not started:
            started = True
            yield Started(id=call.request_id, model=local.name, created=int(time.time()))
        if one.made is not None:
            due -= 1
            yield Produced(media=Media(mime=one.mime, data=one.made), index=one.index)
        elif one.preview is not None:
            yield Produced(media=Media(mime=one.mime, data=one.preview), index=one.index, partial=one.n)
        else:
            call.wait.step, call.wait.steps = one.step, one.of
            yield Progress(step=one.step, of=one.of, stage=one.stage)
    if error is not None:
        await _note(error, lease, local)
        raise _failure(error, local)
    if due > 0:
        raise BadResponse(f"Model '{local.name}' made less than was asked for.")
    yield Finished(reason="stop")


class _Error(Struct):
    message: str
    code: str
    param: str | None = None


class _News(Struct):
    """One event of a studio's answer; see `studio`."""

    step: int = 0
    of: int = 0
    stage: str = "generating"
    preview: bytes | None = None
    made: bytes | None = None
    mime: str = ""
    index: int = 0
    n: int = 0
    error: _Error | None = None


_decode = msgspec.json.Decoder(_News).decode


async def _read(data: bytes) -> _News:
    try:
        return _decode(data) if len(data) < LARGE_BYTES else await asyncio.to_thread(_decode, data)
    except msgspec.DecodeError as e:
        raise BadResponse("A local model said what cannot be read.") from e


async def _written(body: dict[str, Any], large: bool) -> bytes:
    return await asyncio.to_thread(written, body) if large else written(body)


async def _note(error: _Error, lease: Lease, local: Local) -> None:
    """Write down for operators how an engine failed at a request.

    Its last traceback only: before that, engines quote prompts in their warnings.
    """
    if error.code not in (FAILED, OUT_OF_MEMORY):
        return
    await asyncio.sleep(LOG_NOTICE_S)
    lines = lease.log
    starts = [at for at, line in enumerate(lines) if line.startswith(_TRACE)]
    told = {"backend": local.model.backend, "model": local.name, "code": error.code}
    _log.warning("engine_failed", extra=told | {"log": "\n".join(lines[starts[-1] :] if starts else ())})


def _failure(error: _Error, local: Local) -> GatewayError:
    if error.code == OUT_OF_MEMORY:
        return EngineFailed(
            f"Model '{local.name}' ran out of memory; ask for a smaller size or fewer steps.", code=OUT_OF_MEMORY
        )
    if error.code == FAILED:
        return EngineFailed(f"Model '{local.name}' failed at this request.")
    return InvalidRequest(error.message, param=error.param, code=error.code)


class _Watch:
    """Sees a studio's answer pass by and knows when it is whole.  What it says is read by whoever takes it."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.began = self.finished = self.done = False
        self.failure: Verdict | None = None

    def feed(self, events: bytes) -> bytes:
        self.began = True
        if events.endswith(DONE):
            self.finished = self.done = True
            return events[: -len(DONE)]
        return events

    def end(self) -> bytes:
        return b""

    def whole(self, body: bytes) -> bytes | None:  # noqa: ARG002
        """Studios stream."""
        return None
