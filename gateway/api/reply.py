"""Sending an answer: one body or a stream, with the client's presence watched in every phase.

Litestar's own streaming leaves the generator open when a client stops reading and then leaves, and
costs several times this.  Invariant: whatever happens, the answer's generator is closed before
`Reply` returns, and a stream that began ends with its last event or an error the client can read.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import Protocol

from litestar.types import Receive, Send

from compat.canonical.error import GatewayError, InternalError, Overloaded, RequestCancelled
from compat.sse import KEEP_ALIVE
from gateway.api.door import error_headers
from gateway.api.shape import mask, unavailable
from gateway.db.engine import FAILURES
from gateway.house import House
from gateway.limits.standing import Standing
from gateway.telemetry.logging import logger
from gateway.visit import Visit

KEEP_ALIVE_S = 10.0
"""Silence after which a streaming client is sent a comment, so that nothing between cuts the line."""

HEADLESS_S = 45.0
"""The same before the answer has begun, unless it waits for its turn: the comment commits it to status 200."""

NAME_MAX = 200
"""Characters of a model's name that a header shows."""

HEADER_MAX = 1000
"""Characters of a header in somebody else's words."""

CLIENT_GONE = 499
"""The status that is logged for a client that left; nobody receives it."""

Header = tuple[bytes, bytes]


class Errors(Protocol):
    """How a dialect says that something went wrong."""

    def body(self, error: GatewayError) -> bytes: ...
    def frame(self, error: GatewayError) -> bytes: ...


class Reply:
    """One answer on its way to one client."""

    def __init__(
        self,
        house: House,
        visit: Visit,
        receive: Receive,
        send: Send,
        errors: Errors,
        *,
        keep_alive: bytes = KEEP_ALIVE,
        id_header: bytes | None = None,
    ) -> None:
        self._house = house
        self._visit = visit
        self._receive = receive
        self._send = send
        self.errors = errors
        """How this answer's dialect says that something went wrong."""
        self.standing: Standing | None = None
        """How the client stands, where it is limited."""
        self._keep_alive = keep_alive
        self._id_header = id_header
        self._started = False
        self._streams = False
        self._ended = False
        self._gone = False
        self._me: asyncio.Task[None] | None = None
        self._wrote = perf_counter()
        self._pinger: asyncio.TimerHandle | None = None
        self._ping: asyncio.Task[None] | None = None

    async def attend(self, work: Awaitable[None]) -> None:
        """Do the work of answering while the client is there.  Renders every GatewayError."""
        me = self._me = asyncio.current_task()
        presence = self._visit.presence
        watcher = None
        if presence is not None:
            presence.watch(self._leave)
        else:
            watcher = asyncio.create_task(self._watch())
        try:
            await work
        except asyncio.CancelledError:
            if self._gone:
                self._visit.status, self._visit.code = CLIENT_GONE, "client_gone"
                _uncancel(me)
            elif id(self._visit) in self._house.expelled:
                _uncancel(me)
                await self._fail(Overloaded("The gateway is shutting down.", code="server_shutting_down"))
            elif self._visit.cancelled:
                _uncancel(me)
                await self._fail(RequestCancelled("The request was cancelled."))
            else:
                raise
        except GatewayError as e:
            await self._fail(e)
        except FAILURES as e:
            await self._fail(unavailable(e, self._visit))
        except Exception:
            logger().exception("request_failed", request_id=self._visit.request_id)
            await self._fail(InternalError("The gateway failed to handle this request."))
        finally:
            if presence is not None:
                presence.unwatch(self._leave)
            elif watcher is not None:
                watcher.cancel()
            self._stop_pinging()

    async def refuse(self, error: GatewayError) -> None:
        """Answer with an error before any work was begun."""
        await self._fail(error)

    async def whole(self, headers: Sequence[Header], body: bytes, status: int = 200) -> None:
        """Answer with one JSON body."""
        await self._start(status, [*headers, (b"content-type", b"application/json"), _length(body)])
        await self._write(body, last=True)

    def ping_while_waiting(self) -> None:
        """From now on the client of this stream is kept awake, if need be before its first event as well."""
        self._streams = True
        if not self._keep_alive:  # nobody is there to be kept awake
            return
        self._pinger = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._ping_if_silent)

    async def stream(self, headers: Sequence[Header], frames: AsyncGenerator[bytes, None]) -> None:
        """Answer with a stream of SSE frames; raises what they raise, for `attend` to render."""
        async with aclosing(frames):
            async for piece in frames:
                if not self._started:
                    await self._start_stream(headers)
                await self._write(piece)
            await self._write(b"", last=True)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        """The client has gone: end the work."""
        if not self._ended and self._me is not None:
            self._gone = True
            self._me.cancel()

    async def _fail(self, error: GatewayError) -> None:
        self._stop_pinging()
        self._visit.code = error.word
        error.request_id = self._visit.told_id
        mask(error, self._visit, self._house.redact)
        self._visit.said = error.message
        if self._ended:
            return
        if self._started:
            await self._write(self.errors.frame(error), last=True)
            return
        body = self.errors.body(error)
        passed = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in error.headers]
        ours = error_headers(error, attempted=self._visit.attempts > 0)
        await self._start(error.status, [*passed, *ours, *self._routed(), _length(body)])
        await self._write(body, last=True)

    def _routed(self) -> list[Header]:
        visit = self._visit
        headers: list[Header] = []
        if visit.attempts:
            route = f"{visit.backend}/{visit.model}"
            headers += (
                (b"x-gateway-backend", (visit.backend or "").encode()),
                (b"x-gateway-model", header_text(route)),
                (b"x-gateway-attempts", b"%d" % visit.attempts),
            )
        return [*headers, explained(visit)] if visit.explain else headers

    async def _start_stream(self, headers: Sequence[Header]) -> None:
        await self._start(
            200,
            [
                *headers,
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
            ],
        )

    async def _start(self, status: int, headers: list[Header]) -> None:
        self._started = True
        if self.standing is not None:
            headers = self.standing.over(headers)
        if self._id_header is not None and all(name != self._id_header for name, _ in headers):
            headers = [*headers, (self._id_header, self._visit.told_id.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write(self, body: bytes, last: bool = False) -> None:
        self._wrote = perf_counter()
        if last:
            self._ended = True
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    def _ping_if_silent(self) -> None:
        silent_s = perf_counter() - self._wrote
        patience_s = KEEP_ALIVE_S if self._started or self._visit.wait.held else HEADLESS_S
        if silent_s >= patience_s:
            if not self._ended and (self._ping is None or self._ping.done()):
                self._ping = asyncio.create_task(self._send_ping())
            silent_s = 0.0
        wait_s = min(KEEP_ALIVE_S, patience_s - silent_s)
        self._pinger = asyncio.get_running_loop().call_later(wait_s, self._ping_if_silent)

    async def _send_ping(self) -> None:
        if not self._started:
            # This commits to status 200: from here on, failures are told inside the stream.
            await self._start_stream(())
        if not self._ended:
            await self._write(self._keep_alive)

    def _stop_pinging(self) -> None:
        if self._pinger is not None:
            self._pinger.cancel()
        if self._ping is not None:
            self._ping.cancel()


def explained(visit: Visit) -> Header:
    """How a request's routes were chosen and what became of each, as JSON in one header."""
    routes = [{"route": _shown(route), "outcome": outcome} for route, outcome in visit.trail]
    told = {
        "requested": _shown(visit.requested or ""),
        "reason": _shown(visit.reason),
        "mode": visit.mode,
        "routes": routes,
    }
    # All ASCII, and DEL is the one control character that JSON lets stand.
    return b"x-gateway-explain", json.dumps(told, separators=(",", ":")).replace("\x7f", "\\u007f").encode()


def header_text(text: str) -> bytes:
    """A client's own words may come back in a header: printable ASCII only, and not without end."""
    text = text[:HEADER_MAX]
    if text.isascii() and text.isprintable():
        return text.encode()
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text).encode()


def _shown(name: str) -> str:
    """Clients may send names of any length."""
    return name if len(name) <= NAME_MAX else name[:NAME_MAX] + "…"


def _uncancel(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.uncancel()


def _length(body: bytes) -> Header:
    return b"content-length", str(len(body)).encode()
