"""One client's connection: uvicorn's HTTP protocol, with limits, deadlines and a polite way to hang up.

What is being read goes round, whatever is being answered meanwhile:

    IDLE ─first byte→ HEAD ─complete→ BODY ─complete→ IDLE
    any ─refused, or closed before its request was whole→ CLOSING: what still comes is thrown away

No timers: `sweep`, called for every connection about once a second, closes what takes too long.
"""

import asyncio
import fcntl
import sys
import termios
from collections.abc import Callable
from enum import Enum, auto
from time import perf_counter
from typing import Any, cast

import httptools
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from compat.canonical.error import GatewayError, HeadersTooLarge, InvalidRequest, Overloaded, RequestTimeout
from gateway.api.door import error_headers
from gateway.api.shape import render_error
from gateway.settings import Server
from gateway.visit import Visit, new_id

UNSETTLED_MAX_BYTES = 48 * 1024
"""What may be read without a head, or a further piece of a body, coming of it."""
PIPELINED_MAX = 16
"""Requests that may be sent ahead, before earlier ones are answered."""
BODY_MIN_RATE = 1024
"""Bytes a second that a body must make on average, once `body_timeout_s` is over."""
CORK_MAX_BYTES = 64 * 1024
LINGER_S = 2.0
"""How long a client is listened to after it was hung up on: closing at once would reset what it was just told."""


class Terms(Struct):
    """What all connections of a server go by."""

    server: Server
    settle: Callable[[Visit], None]
    """Accounts for a request that no application saw."""
    closing: bool = False
    """The gateway is stopping: every answer is its connection's last."""


class Phase(Enum):
    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    CLOSING = auto()


class Corked:
    """A transport that sends what is written within one turn of the loop in one go.

    The head of an answer and its first bytes then cost one system call and travel in one segment.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, lingers: Callable[[], bool]):
        self._transport = transport
        self._loop = loop
        self._lingers = lingers
        self._pieces: list[bytes] = []
        self._size = 0
        self._closed = False
        self.written = 0

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > CORK_MAX_BYTES:
            self._flush()  # now, for the transport to say at once that it has had enough

    def close(self) -> None:
        self._flush()
        if self._closed:
            return
        self._closed = True
        if self._lingers() and self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        else:
            self._transport.close()

    def is_closing(self) -> bool:
        return self._closed or self._transport.is_closing()

    def untaken(self) -> int:
        """How much of what was written the client has not got yet: here, and in the kernel's queue."""
        left = self._transport.get_write_buffer_size()
        try:
            queued = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
            left += int.from_bytes(queued, sys.byteorder)
        except OSError:
            pass
        return left

    def _flush(self) -> None:
        pieces = self._pieces
        if pieces:
            self.written += self._size
            self._pieces, self._size = [], 0
            if not self._transport.is_closing():
                self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """Also tells whoever answers when the client has gone: for that ASGI has only `receive`, at a task a request."""

    def __init__(self, *, terms: Terms, **given: Any) -> None:
        super().__init__(**given)
        self._terms = terms
        self.phase = Phase.IDLE
        self.late = terms.closing
        """It was made when the gateway had begun to stop."""
        self.url = b""
        self._since = self._heard = self._took = self.loop.time()
        """When this phase began, when something was last read, when the client last took something."""
        self._steps = 0
        """Counts heads and pieces of bodies."""
        self._unsettled = 0
        self._got = 0
        """Of the body that is being read."""
        self._taken = 0
        self._deaf = False
        self._fault: GatewayError | None = None
        self._gone = False
        self._watchers: list[Callable[[], None]] = []

    # What the transport says

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._wire = Corked(transport, self.loop, self._lingers)
        super().connection_made(self._wire)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gone = self._deaf = True
        for watcher in self._watchers:
            watcher()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._heard = self.loop.time()
        steps = self._steps
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as e:
            self._read_plain(data[e.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._fault or InvalidRequest("The request is not valid HTTP/1.1."))
            return
        if self._steps != steps:
            self._unsettled = 0
            return
        self._unsettled += len(data)
        if self._unsettled > UNSETTLED_MAX_BYTES:
            self._refuse(HeadersTooLarge(f"The request's headers exceed {UNSETTLED_MAX_BYTES} bytes."))

    # What the parser says

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._enter(Phase.HEAD)

    def on_headers_complete(self) -> None:
        self._steps += 1
        if not self.url.startswith(b"/"):
            self._fail(InvalidRequest("The request target must be a path that begins with '/'."))
        if self.parser.get_method() == b"CONNECT":  # which the parser takes for an upgrade, however it is read
            self._fail(InvalidRequest("The gateway is no proxy: CONNECT is not supported."))
        if len(self.pipeline) >= PIPELINED_MAX:
            self._fail(InvalidRequest(f"More than {PIPELINED_MAX} requests were sent ahead."))
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        self.scope["presence"] = self  # type: ignore[typeddict-unknown-key]
        self.headers = []  # the request keeps its own; headers after the body come too late to be believed
        if self._terms.closing:
            self.cycle.keep_alive = False
        self._got = 0
        self._enter(Phase.BODY)

    def on_body(self, body: bytes) -> None:
        self._steps += 1
        self._got += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._steps += 1
        self._enter(Phase.IDLE)
        super().on_message_complete()

    # What uvicorn says

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._since = self.loop.time()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._deaf:
            self.transport.close()

    def shutdown(self) -> None:
        if self.phase is Phase.HEAD:
            self._refuse(Overloaded("The gateway is shutting down.", code="server_shutting_down", retry_after_s=1.0))
        else:
            super().shutdown()

    # What the house asks

    def watch(self, on_leaving: Callable[[], None]) -> None:
        # A large body may have paused reading, and what is not read cannot be seen to end.
        self.flow.resume_reading()
        self._watchers.append(on_leaving)
        if self._gone:
            self.loop.call_soon(on_leaving)

    def unwatch(self, on_leaving: Callable[[], None]) -> None:
        self._watchers.remove(on_leaving)

    def answering(self) -> None:
        if self.phase is Phase.BODY:
            # Nobody will read the rest, and it must not be taken for another request.
            self.cycle.keep_alive = False

    def last_answer(self) -> None:
        """Whatever is being answered is the connection's last answer."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def expects(self, quiet_s: float) -> bool:
        """Whether a request is on its way, or may be: an idle client that was busy a moment ago goes on."""
        if self.phase is Phase.IDLE:
            return not self.transport.is_closing() and self.loop.time() - self._since < quiet_s
        return self.phase is not Phase.CLOSING

    def sweep(self, now: float) -> None:
        """Close the connection if it has kept us waiting for too long."""
        server, wire, waited = self._terms.server, self._wire, now - self._since
        if left := wire.untaken():
            taken = wire.written - left
            if taken != self._taken:
                self._taken, self._took = taken, now
            elif now - self._took > server.write_timeout_s:
                wire.abort()
            return
        self._took = now
        if self.phase is Phase.CLOSING:
            if waited > LINGER_S:
                wire.abort()
        elif self.flow.read_paused:
            self._since, self._heard, self._got = now, now, 0  # it is we who do not read
        elif self.phase is Phase.HEAD:
            if waited > server.header_timeout_s:
                self._refuse(RequestTimeout(_slow("head", "header_timeout_s", server.header_timeout_s)))
        elif self.phase is Phase.BODY:
            limit_s = server.body_timeout_s
            if now - self._heard > limit_s or waited > limit_s + self._got / BODY_MIN_RATE:
                self._refuse(RequestTimeout(_slow("body", "body_timeout_s", limit_s)))
        elif not self._steps:
            if waited > server.header_timeout_s:
                wire.close()
        elif self.cycle.response_complete and waited > server.keep_alive_s:
            wire.close()

    def _read_plain(self, rest: bytes) -> None:
        """Read a request again without its wish for another protocol, with which the parser takes it for bodiless.

        Java's own client asks for h2c with every request.
        """
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/1.1"]
        lines += (b"%s: %s" % header for header in self.headers if header[0] not in (b"upgrade", b"connection"))
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join((*lines, b"", rest)))

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._since = self.loop.time()

    def _lingers(self) -> bool:
        if self.phase is Phase.IDLE:
            return False
        self._deaf = True
        self._enter(Phase.CLOSING)
        self.flow.resume_reading()
        return True

    def _fail(self, fault: GatewayError) -> None:
        """Stop parsing: the way out of the parser's callbacks."""
        self._fault = fault
        raise fault

    def _refuse(self, error: GatewayError) -> None:
        """Answer with an error in the application's place, and hang up; after the answer that is under way, if any."""
        if self._deaf:
            return
        self._deaf = True
        cycle = self.cycle
        visit: Visit | None = None
        if cycle is not None and not cycle.response_complete:
            broken = cycle.more_body and not cycle.response_started
            if broken and self.pipeline:
                self.pipeline.popleft()
            if not broken or self.pipeline:
                return
            cycle.disconnected = True
            cycle.message_event.set()
            visit = cast(Visit | None, cycle.scope.get("visit"))
        seen = visit is not None
        if visit is None:
            path = self.url.partition(b"?")[0].decode("latin-1")
            visit = Visit(request_id=new_id("req"), method="", path=path, began=perf_counter())
        visit.status, visit.code = error.status, error.word
        body = render_error(error, visit)
        headers = [
            *self.server_state.default_headers,
            *error_headers(error),
            (b"x-request-id", visit.request_id.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = [STATUS_LINE[error.status], *(b"%s: %s\r\n" % header for header in headers), b"\r\n", body]
        self.transport.write(b"".join(lines))
        self.transport.close()
        if not seen:
            self._terms.settle(visit)


def _slow(part: str, key: str, limit_s: float) -> str:
    return f"The request's {part} did not arrive in time (server.{key}: {limit_s:g} s)."
