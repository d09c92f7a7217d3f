"""A client of HTTP/1.1 for the relay lane: one request, one response, connections kept for the next.

It does what a relay needs and no more: no redirects, no cookies, no decompression, no retries.  A general
client costs three times its CPU, which is most of what a relayed request costs.  Parsing is httptools'
(llhttp); names are resolved and raced by aiohappyeyeballs.
Invariant: a connection belongs to at most one response; when that is complete, the connection is free for the
next request, and when it is not, the connection is closed.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from functools import cache
from typing import cast

import aiohappyeyeballs
import httptools
from yarl import URL

from backends.address import NotPublic, is_public
from backends.response import Lost, Response

IDLE_S = 30.0
"""How long an unused connection is kept: less than servers keep theirs, mostly."""
IDLE_MAX = 256
"""Unused connections to one place."""
HEAD_MAX_BYTES = 32 * 1024
PIECE_BYTES = 256 * 1024
"""A larger request body is sent in pieces of this."""


class Malformed(Exception):
    """What came is not HTTP, or its head is endless."""


class Unsendable(ValueError):
    """A request's head would not be one: a header has a line break, or a NUL."""


class ConnectTimedOut(TimeoutError):
    """No connection within the time it may take."""


Place = tuple[str, str, int]


class _Connection(asyncio.Protocol):
    def __init__(self, client: "Client", place: Place, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._place = place
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._interim = False
        self._to_the_end = False
        """The body has no length: it ends when the connection does."""
        self._writable: asyncio.Future[None] | None = None
        self._writing = False
        self.lost = False
        self.free_since = 0.0

    def ask(self, head: bytes, body: bytes) -> Response:
        """Send a request; a body longer than a piece is for `upload` to send."""
        assert self._transport is not None
        self._response = response = Response(self, self._loop)
        self._head_bytes = 0
        self._to_the_end = False
        if len(body) <= PIECE_BYTES:
            self._transport.write(head + body)
        else:
            self._writing = True
            self._transport.write(head)
        return response

    async def upload(self, body: bytes) -> None:
        """Send a long body in pieces, until it is sent or the server has answered without waiting for it."""
        view, response = memoryview(body), self._response
        for start in range(0, len(body), PIECE_BYTES):
            if self.lost or self._transport is None or response is None or response.status:
                return
            self._transport.write(bytes(view[start : start + PIECE_BYTES]))
            if self._writable is not None:
                await self._writable
            else:
                await asyncio.sleep(0)
        self._writing = False

    def end(self) -> None:
        """Close it, whoever waits for a response being told."""
        if self._response is not None:
            self._response.fail(Lost("The connection was closed."))
        self.abort()

    def abort(self) -> None:
        self.lost = True
        self._response = None
        if self._transport is not None:
            self._transport.abort()
        self._client.forget(self)

    def pause_reading(self) -> None:
        if self._transport is not None and not self.lost:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self.lost:
            self._transport.resume_reading()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self.abort()  # nobody asked
            return
        if not response.status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as e:
            response.fail(Lost("The body is malformed.") if response.status else Malformed(str(e)))
            self.abort()
            return
        if not response.status and self._head_bytes > HEAD_MAX_BYTES:
            response.fail(Malformed("The head is too large."))
            self.abort()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            writable, self._writable = self._writable, None
            if not writable.done():
                writable.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.resume_writing()
        response, self._response = self._response, None
        if response is not None:
            if self._to_the_end and exc is None and response.status:
                response.finish()
            else:
                response.fail(Lost("The connection was closed."))
        self._client.forget(self)

    # --- httptools

    def on_message_begin(self) -> None:
        self._headers = {}
        if self._response is None:
            raise Malformed("Nobody asked for that.")

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._interim = True
            return
        response = self._response
        if response is None:
            return
        if self._head_bytes > HEAD_MAX_BYTES and sum(map(len, self._headers.values())) > HEAD_MAX_BYTES:
            raise Malformed("The head is too large.")
        self._to_the_end = "content-length" not in self._headers and "transfer-encoding" not in self._headers
        response.begin(status, self._headers)

    def on_body(self, body: bytes) -> None:
        if self._response is not None:
            self._response.fed(body)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            return
        response, self._response = self._response, None
        if response is None:
            return
        response.finish()
        if self._parser.should_keep_alive() and not self._writing and not self.lost:
            self._client.keep(self, self._place)
        else:
            self.abort()


class Client:
    """A pool of connections, to wherever it is sent."""

    def __init__(self, unix_socket: str | None = None, *, public_only: bool = False) -> None:
        self._socket = unix_socket
        self._public_only = public_only
        """Over TLS and to public addresses only, whatever a name leads to at the time."""
        self._free: dict[Place, list[_Connection]] = {}
        self._all: set[_Connection] = set()
        self._tls: ssl.SSLContext | None = None

    async def request(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes = b"", *, connect_s: float = 10.0
    ) -> Response:
        """Send a request and wait for the head of its response.  Raises Unsendable, Lost, Malformed, ConnectTimedOut,
        OSError and ssl.SSLError; cancelling it closes the connection."""
        place = (url.scheme, url.raw_host or "", url.port or 80)
        head = _head(method, url, headers, len(body))
        connection = self._kept(place) or await self._connect(place, connect_s)
        response = connection.ask(head, body)
        try:
            if len(body) > PIECE_BYTES:
                await connection.upload(body)
            await response.started()
        except BaseException:
            response.close()
            raise
        return response

    async def aclose(self) -> None:
        for connection in list(self._all):
            connection.end()
        self._free.clear()

    def keep(self, connection: _Connection, place: Place) -> None:
        """A connection is free for the next request."""
        free = self._free.setdefault(place, [])
        now = asyncio.get_running_loop().time()
        connection.free_since = now
        if len(free) >= IDLE_MAX or (free and now - free[0].free_since > IDLE_S):
            free.pop(0).abort()
        free.append(connection)

    def forget(self, connection: _Connection) -> None:
        self._all.discard(connection)

    def _kept(self, place: Place) -> _Connection | None:
        free = self._free.get(place)
        while free:
            connection = free.pop()
            if connection.lost:
                continue
            if asyncio.get_running_loop().time() - connection.free_since < IDLE_S:
                return connection
            connection.abort()
        return None

    async def _connect(self, place: Place, connect_s: float) -> _Connection:
        loop = asyncio.get_running_loop()
        scheme, host, port = place
        if scheme == "https" and self._tls is None:
            self._tls = await asyncio.to_thread(trust)
        tls = self._tls if scheme == "https" else None
        if self._public_only and (scheme != "https" or (_is_address(host) and not is_public(host))):
            raise NotPublic(host)
        connection = _Connection(self, place, loop)
        try:
            async with asyncio.timeout(connect_s):
                if self._socket is not None:
                    await loop.create_unix_connection(lambda: connection, self._socket)
                elif _is_address(host):
                    await loop.create_connection(lambda: connection, host, port, ssl=tls)
                else:
                    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                    # These are connected to, and the name is not asked again: it might say something else.
                    if self._public_only and not all(is_public(str(address[4][0])) for address in found):
                        raise NotPublic(host)
                    sock = await aiohappyeyeballs.start_connection(
                        found, happy_eyeballs_delay=0.25, interleave=1, loop=loop
                    )
                    name = host.rstrip(".") if tls is not None else None
                    await loop.create_connection(lambda: connection, sock=sock, ssl=tls, server_hostname=name)
        except TimeoutError as e:
            connection.abort()
            raise ConnectTimedOut from e
        except BaseException:
            connection.abort()
            raise
        self._all.add(connection)
        return connection


@cache
def trust() -> ssl.SSLContext:
    """Whom TLS trusts.  Made once: reading all the authorities takes tens of milliseconds."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _head(method: str, url: URL, headers: Mapping[str, str], length: int) -> bytes:
    lines = [f"{method} {url.raw_path_qs} HTTP/1.1", f"host: {url.host_port_subcomponent}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append("accept-encoding: identity")
    if method == "POST":
        lines.append(f"content-length: {length}")
    text = "\r\n".join(lines) + "\r\n\r\n"
    ends = len(lines) + 1
    if text.count("\n") != ends or text.count("\r") != ends or "\0" in text:
        raise Unsendable("a header has a line break or a NUL")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()
